"""The city view under load: pages open on the stream, operators that click, sensors that report, history behind it.

locust plays pages and operators (``city_users``). With BENCH_TREE the view of another checkout is measured beside this
one, in the same run and over a copy of the same store.
"""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.city.store.embedded import EmbeddedStore
from sensors import kinds
from sensors.lineprotocol import Point
from tests.bench import machine
from tests.bench.conftest import Stage
from tests.bench.contenders import TREE

_HERE = Path(__file__).parents[2]
_SENSORS, _EVERY_S, _DAYS = 500, 10, 30
_PAGES, _OPERATORS, _SECONDS = 200, 50, 60
_KINDS = {"air": 6, "noise": 3, "traffic": 5, "water": 8, "weather": 8}
"""Kinds of sensors, a fifth each, and how many quantities they send."""
_OF_THE_LINK = {"battery", "rssi", "snr", "margin", "lost_uplinks"}
_EVENTS = 1000
_WATCHED = (
    5  # sensors of which every reading of the 30 days is there; of the others, one in half an hour, and two whole hours
)
_TOKEN = "write-token-of-the-bench"
_PASSWORD = "a horse that staples"
_DAY_MS = 86_400_000
_RUN = "import sys; from pathlib import Path; from gateway.config import CityConfig, load; from gateway.city import serve; serve.main(load(Path(sys.argv[1]), CityConfig))"  # noqa: E501


def _sensors() -> list[tuple[str, str, str, list[str]]]:
    """Kind, site, sensor and quantities of each."""
    found = []
    for number in range(_SENSORS):
        kind = list(_KINDS)[number % len(_KINDS)]
        names = [name for name in kinds.builtin()[kind].quantities if name not in _OF_THE_LINK][: _KINDS[kind]]
        found.append((kind, f"site-{number % 20}", f"{kind}-{number}", names))
    return found


def _lines(numbers: range, at: int) -> str:
    return "\n".join(
        f"{kind},gateway=gw-{number % 5},site={site},sensor={sensor} "
        + ",".join(f"{name}={20 + (number + at // 10_000) % 40},{name}_qc=1i" for name in names)
        + f" {at}"
        for number, (kind, site, sensor, names) in enumerate(_sensors())
        if number in numbers
    )


async def _channels(path: Path, at: int) -> None:
    store = EmbeddedStore(path, _DAYS * 86_400.0)
    await store.open()
    for kind, site, sensor, names in _sensors():
        fields: dict[str, Any] = dict.fromkeys(names, 20.0)
        await store.write([Point(kind, {"gateway": "gw-0", "site": site, "sensor": sensor}, fields, at, 1)])
    events = []
    for number in range(_EVENTS):
        kind, site, sensor, names = _sensors()[number % _SENSORS]
        tags = {"gateway": "gw-0", "kind": kind, "site": site, "sensor": sensor}
        fields = {"id": f"e{number}", "quantity": names[0], "value": 99.0, "limit": 60.0, "message": "above its limit"}
        began = at - number * _DAYS * _DAY_MS // _EVENTS
        events += [
            Point("event", {**tags, "severity": "yellow"}, {**fields}, began, 1),
            Point("event", {**tags, "severity": "none"}, {**fields}, began + 600_000, 1),
        ]
    await store.write(events)
    await store.close()


async def _condense(path: Path, now: int) -> None:
    """Makes the means of hours that writes would have left behind."""
    store = EmbeddedStore(path, _DAYS * 86_400.0)
    await store.open()
    while await store.condense(now):
        pass
    await store.close()


def _history(path: Path, now: int) -> int:
    """Writes the 30 days; returns how many readings there are."""
    asyncio.run(_channels(path, now))
    series = """
        INSERT OR IGNORE INTO reading WITH RECURSIVE moment(at) AS (
            SELECT :first UNION ALL SELECT at + :step FROM moment WHERE at + :step <= :last
        ) SELECT :channel, at, 20 + (:channel * 7 + at / 60000) % 400 / 10.0, 1 FROM moment
    """
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        for channel, sensor in connection.execute("SELECT id, sensor FROM channel ORDER BY id").fetchall():
            spans = [(_DAYS * _DAY_MS, _EVERY_S * 1000)]
            if sensor > _WATCHED:
                spans = [(_DAYS * _DAY_MS, 1_800_000), (7_200_000, _EVERY_S * 1000)]
            for span, step in spans:
                names = {"channel": channel, "first": now - span + 60_000, "step": step, "last": now}
                connection.execute(series, names)
        connection.execute(
            "INSERT OR REPLACE INTO due SELECT channel, min(time) / 3600000 * 3600000, 1 FROM reading GROUP BY channel"
        )
        (number,) = connection.execute("SELECT count(*) FROM reading").fetchone()
    asyncio.run(_condense(path, now))
    return int(number)


class _City:
    """The city view of a checkout, as its own process."""

    def __init__(self, tree: Path, folder: Path, store: Path, port: int) -> None:
        shutil.copy(store, folder / "city.db")
        self.port, self.folder = port, folder
        config = folder / "city.toml"
        access = f'[access]\nwrite_token = "{_TOKEN}"\n'
        config.write_text(f'[server]\nport = {port}\n{access}[store]\npath = "{folder}/city.db"\n')
        log = (folder / "log").open("wb")
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(config)], cwd=tree, env=environment, stdout=log, stderr=log
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("GET", "/api/health")
                break
            except OSError:
                assert self._process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPMessage:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status < 300, (path, answer.status, said)
        return answer.headers

    def sign_in(self) -> str:
        """Signs the administrator in; returns the cookie."""
        link = (self.folder / "setup-link").read_text().strip().partition("#link=")[2]
        body = json.dumps({"link": link, "password": _PASSWORD})
        said = self.ask("POST", "/api/v1/link", body, **{"Content-Type": "application/json"})
        return said["Set-Cookie"].partition(";")[0]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


@contextlib.contextmanager
def _reporting(city: _City) -> Iterator[None]:
    """Every sensor reports once in ten seconds, a tenth of them each second, as an agent writes."""
    done = threading.Event()

    def report() -> None:
        turn = 0
        while not done.wait(1):
            share = _SENSORS // _EVERY_S
            numbers = range(turn % _EVERY_S * share, (turn % _EVERY_S + 1) * share)
            lines = _lines(numbers, time.time_ns() // 10**6)
            city.ask("POST", "/api/v2/write?precision=ms", lines, Authorization=f"Token {_TOKEN}")
            turn += 1

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _crowd(city: _City, seconds: int) -> list[dict[str, Any]]:
    """Lets locust play everyone; returns its statistics by name."""
    watched = [f"{kind}:{site}:{sensor}:{names[0]}" for kind, site, sensor, names in _sensors()[:_WATCHED]]
    environment = {
        **os.environ,
        "CITY_COOKIE": city.sign_in(),
        "CITY_PAGES": str(_PAGES),
        "CITY_SENSORS": ",".join(watched),
    }
    users = ("--users", str(_PAGES + _OPERATORS), "--spawn-rate", "50", "--reset-stats")
    command = [sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("city_users.py"))]
    span, out = ("--run-time", f"{seconds}s", "--stop-timeout", "5", "--only-summary"), city.folder / "locust"
    done = subprocess.run(
        [*command, "--headless", *users, *span, "--host", f"http://127.0.0.1:{city.port}", "--json-file", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 120,
    )
    assert out.with_suffix(".json").exists(), done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(out.with_suffix(".json").read_text())
    return found


def _quantile(times: Counter[float], share: float) -> float:
    """The time in ms below which a share of requests was answered."""
    left = sum(times.values()) * share
    for took, number in sorted(times.items()):
        left -= number
        if left <= 0:
            return took
    return 0.0


def _times(rows: list[dict[str, Any]]) -> Counter[float]:
    found: Counter[float] = Counter()
    for row in rows:
        found.update({float(took): number for took, number in row["response_times"].items()})
    return found


@pytest.mark.timeout(1800)  # most of it makes 30 days of history
def test_city(stage: Stage) -> None:
    store, now = stage.folder / "history.db", time.time_ns() // 10**6
    stage.report.say(f"{_DAYS} days of history")
    number = _history(store, now)
    seconds = stage.report.scaled(_SECONDS, 10)
    calls: list[dict[str, Any]] = []
    servers: list[dict[str, Any]] = []
    for tree in dict.fromkeys((TREE, _HERE)):
        name = "this" if tree == _HERE else str(tree)
        stage.report.say(f"{_PAGES} pages and {_OPERATORS} operators for {seconds} s, {name}")
        city = _City(tree, stage.within(f"city-{len(servers)}"), store, stage.free_port())
        city.ask("GET", "/api/v1/overview")  # the first one reads a day of history
        load, began, spent = os.getloadavg()[0], time.monotonic(), machine.cpu(city.pid)
        with _reporting(city):
            stats = _crowd(city, seconds)
        memory, cpu, took = machine.memory(city.pid), machine.cpu(city.pid) - spent, time.monotonic() - began
        city.stop()
        rows = [row for row in stats if row["method"] == "GET"]
        heard = sum(row["num_requests"] for row in stats if row["name"] == "event: sensors")
        for row in [*rows, {"name": "all"}]:
            of = rows if row["name"] == "all" else [row]
            times = _times(of)
            calls.append(
                {
                    "view": name,
                    "call": row["name"],
                    "calls": sum(one["num_requests"] for one in of),
                    "failed": sum(one["num_failures"] for one in of),
                    "median, ms": _quantile(times, 0.5),
                    "p95, ms": _quantile(times, 0.95),
                    "p99, ms": _quantile(times, 0.99),
                }
            )
        servers.append(
            {
                "view": name,
                "peak memory, MB": memory.peak,
                "CPU, s": cpu,
                "CPU, share of a core": cpu / took,
                "messages a page and second": heard / _PAGES / seconds,
                "load of the machine before": load,
                "and after": os.getloadavg()[0],
            }
        )
    title = (
        f"Calls of {_OPERATORS} operators while {_PAGES} pages listen and {_SENSORS} sensors report every {_EVERY_S} s,"
        f" over {number:,} readings of {_DAYS} days"
    )
    stage.report.table("city", title, calls)
    stage.report.table(
        "city-server", "The server meanwhile (MB of 10⁶ bytes; locust runs on the same machine)", servers
    )
