"""The forwarder and real servers: every point arrives, and is there once."""

import asyncio
import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from gateway.config import OutputConfig
from gateway.edge import forward
from gateway.edge.batch import Entry
from gateway.edge.spool import Spool
from tests.edge.forwarding import entry, forwarding
from tests.servers.conftest import Server
from tests.servers.wait import until

NOW = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_LONGEST_DELAY", 0.2)
    monkeypatch.setattr(forward, "_SLOW_DELAYS", (0.1, 0.2))


def batch(first: int, last: int) -> Entry:
    lines = (
        b"air,gateway=g,sensor=a%d,site=s pm25=%d.5,pm25_qc=1i %d" % (i % 20, i, NOW + i) for i in range(first, last)
    )
    return entry(b"\n".join(lines))


def output(server: Server, kind: str) -> OutputConfig:
    return OutputConfig.model_validate({"name": "out", "type": kind, "url": server.url, "flush_interval": "100ms"})


def fetch(server: Server, path: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(server.url + path, body, timeout=10) as answer:  # noqa: S310 - loopback
        content: bytes = answer.read()
        return content


def query(server: Server, text: str) -> list[list[float]]:
    parameters = urllib.parse.urlencode({"db": "city", "q": text})
    result = json.loads(fetch(server, "/query", parameters.encode()))["results"][0]
    rows: list[list[float]] = result["series"][0]["values"] if "series" in result else []
    return rows


def stored(server: Server) -> tuple[float, float]:
    """Number and sum of the values of pm25 in InfluxDB."""
    rows = query(server, "SELECT count(pm25), sum(pm25) FROM air")
    return (rows[0][1], rows[0][2]) if rows else (0, 0)


def expected(last: int) -> tuple[float, float]:
    return last, sum(i + 0.5 for i in range(last))


async def test_every_point_reaches_influxdb_once(tmp_path: Path, influxdb: Server) -> None:
    query(influxdb, "CREATE DATABASE city")
    async with forwarding(tmp_path, output(influxdb, "influxdb1")) as (spool, forwarder):
        for first in range(0, 20_000, 2000):
            await spool.append(batch(first, first + 2000))
        assert await forwarder.flush(20)
        assert stored(influxdb) == expected(20_000)
        assert spool.ledger().total["delivered"] == 20_000


async def test_a_kill_between_commit_and_delivery_loses_nothing(tmp_path: Path, influxdb: Server) -> None:
    query(influxdb, "CREATE DATABASE city")
    spool = Spool(tmp_path / "spool.db", ["out"])
    await asyncio.gather(*(spool.append(batch(first, first + 500)) for first in range(0, 5000, 500)))
    await spool.close()
    async with forwarding(tmp_path, output(influxdb, "influxdb1")) as (spool, _):
        await until(lambda: spool.ledger().total["delivered"] == 5000)
        assert stored(influxdb) == expected(5000)


async def test_a_point_of_the_wrong_type_is_dead_and_all_others_are_stored(tmp_path: Path, influxdb: Server) -> None:
    query(influxdb, "CREATE DATABASE city")
    async with forwarding(tmp_path, output(influxdb, "influxdb1")) as (spool, forwarder):
        await spool.append(batch(0, 1000))
        assert await forwarder.flush(10)
        wrong = b'air,gateway=g,sensor=a0,site=s pm25="high" %d' % (NOW + 5000)
        for bad in (wrong, b"air,sensor= pm25=1 5", b"no line protocol"):
            mixed = batch(1000, 3000).lines.split(b"\n")
            mixed.insert(700, bad)
            await spool.append(entry(b"\n".join(mixed)))
        assert await forwarder.flush(20)
        assert stored(influxdb) == expected(3000)
        letters = await spool.dead_letters()
        assert {letter.payload for letter in letters} == {wrong, b"air,sensor= pm25=1 5", b"no line protocol"}
        assert "field type conflict" in next(letter.reason for letter in letters if letter.payload == wrong)


async def test_a_missing_database_is_said_and_nothing_is_lost(tmp_path: Path, influxdb: Server) -> None:
    async with forwarding(tmp_path, output(influxdb, "influxdb1")) as (spool, forwarder):
        await spool.append(batch(0, 100))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert 'CREATE DATABASE "city"' in forwarder.status()["last_error"]
        query(influxdb, "CREATE DATABASE city")
        assert await forwarder.flush(10)
        assert stored(influxdb) == expected(100)


async def test_a_killed_influxdb_gets_everything_when_it_is_back(tmp_path: Path, influxdb: Server) -> None:
    query(influxdb, "CREATE DATABASE city")
    async with forwarding(tmp_path, output(influxdb, "influxdb1")) as (spool, forwarder):
        for first in range(0, 20_000, 1000):
            await spool.append(batch(first, first + 1000))
            if first == 5000:
                await until(lambda: forwarder.status()["last_success"] is not None)
                influxdb.kill()
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert "does not answer" in forwarder.status()["last_error"]
        await asyncio.to_thread(influxdb.start)
        assert await forwarder.flush(20)
        assert stored(influxdb) == expected(20_000)


async def test_every_point_reaches_victoria_metrics(tmp_path: Path, victoria_metrics: Server) -> None:
    async with forwarding(tmp_path, output(victoria_metrics, "influxdb2")) as (spool, forwarder):
        for first in range(0, 10_000, 1000):
            await spool.append(batch(first, first + 1000))
        assert await forwarder.flush(20)
    fetch(victoria_metrics, "/internal/force_flush")
    export = fetch(victoria_metrics, f"/api/v1/export?{urllib.parse.urlencode({'match[]': 'air_pm25'})}")
    values = [value for line in export.splitlines() for value in json.loads(line)["values"]]
    assert (len(values), sum(values)) == expected(10_000)
