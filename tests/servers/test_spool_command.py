"""``citygate spool``, as a user types it, beside a running gateway and after it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import (
    Gateway,
    MakeGateway,
    make_gateway,
    output,
    publish,
    readings,
    stored,
    wait_for,
)

__all__ = ["make_gateway"]  # a fixture

NOWHERE = '[[output]]\ntype = "influxdb1"\nurl = "http://127.0.0.1:9"\n'


def spool(gateway: Gateway, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "gateway", "spool", *words, "-c", str(gateway.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def as_json(gateway: Gateway, *words: str) -> Any:  # noqa: ANN401 - whatever the command prints
    return json.loads(spool(gateway, *words, "--json"))


def queued(gateway: Gateway, count: int) -> None:
    wait_for(lambda: gateway.ledger()["queued"] == count, f"{count} readings queued")


def test_a_running_gateways_spool_is_counted_listed_inspected_and_exported(
    mosquitto: Mosquitto, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, NOWHERE)
    gateway.start()
    publish(broker.port, [*readings(300), ("city/east/air/a1", b'{"ts":\xff')])
    queued(gateway, 300)

    figures = as_json(gateway, "count")
    assert figures["in_use"]
    assert figures["mismatches"] == []
    assert figures["classes"]["raw"]["points"] == 300
    assert figures["outputs"]["influxdb"]["readings"] == 300
    assert figures["ledger"]["city"]["queued"] == 300
    assert figures["dead_letters"] == 1
    assert "the ledger balances" in spool(gateway)

    rows = [row for row in as_json(gateway, "list", "--limit", "1000") if row["class"] == "raw"]
    assert sum(row["points"] for row in rows) == 300
    assert rows[0]["lacking at"] == ["influxdb"]
    points = as_json(gateway, "inspect", str(rows[0]["id"]))["lines"].split("\n")
    assert len(points) == rows[0]["points"]
    assert points[0].startswith("air,gateway=gw,sensor=a0")

    (letter,) = as_json(gateway, "list", "--dead")
    assert letter["topic"] == "city/east/air/a1"
    text = spool(gateway, "inspect", str(letter["id"]), "--dead")
    assert letter["reason"] in text
    assert "7b 22 74 73 22 3a ff" in text

    target = tmp_path / "queued.lp"
    spool(gateway, "export", "--class", "raw", "-o", str(target))
    lines = target.read_text("utf-8").splitlines()
    assert len(lines) == 300
    assert sorted(lines) == sorted(spool(gateway, "export", "--class", "raw").splitlines())
    (item,) = map(json.loads, spool(gateway, "export", "--dead").splitlines())
    assert item["payload"] == "eyJ0cyI6/w=="
    assert gateway.ledger()["queued"] == 300, "whoever looks takes nothing"
    assert "a gateway uses this spool" in spool(gateway, "drain", code=1)


def test_drain_sends_everything_and_the_gateway_goes_on_from_there(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    influxdb.stop()
    gateway.start()
    publish(broker.port, readings(3000))
    queued(gateway, 3000)
    gateway.stop()
    influxdb.start()
    spool(gateway, "drain")
    assert stored(influxdb) == 3000
    assert as_json(gateway, "count")["ledger"]["city"]["delivered"] == 3000
    assert as_json(gateway, "list") == []
    spool(gateway, "drain")


def test_ctrl_c_ends_a_drain_and_loses_nothing(mosquitto: Mosquitto, make_gateway: MakeGateway) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, NOWHERE)
    gateway.start()
    publish(broker.port, readings(100))
    queued(gateway, 100)
    gateway.stop()
    command = [sys.executable, "-m", "gateway", "spool", "drain", "-c", str(gateway.config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lock = str(gateway.config.parent / "data" / "spool.db.lock")
    wait_for(lambda: lock in open_files(process.pid), "the drain to begin")
    wait_for(lambda: as_json(gateway, "count")["in_use"], "the drain to have the spool")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stopped before the end" in errors
    assert "0 batches sent" in errors
    assert as_json(gateway, "count")["ledger"]["city"]["queued"] == 100


def open_files(process: int) -> set[str]:
    folder = Path(f"/proc/{process}/fd")
    return {os.path.realpath(item) for item in folder.iterdir()}


@pytest.mark.parametrize("running", [True, False])
def test_mended_messages_are_tried_again(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway, *, running: bool
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, '[[source]]\ntopic = "town/{site}/{kind}/{sensor}"\n' + output(influxdb))
    text = gateway.config.read_text("utf-8")
    gateway.config.write_text(text.replace("{kind}", "+").replace("[[source]]", '[[source]]\nkind = "noise"'), "utf-8")
    gateway.start()
    good = [(topic.replace("city", "town"), payload.replace(b"pm25", b"pm 25")) for topic, payload in readings(200)]
    publish(broker.port, [*good, ("town/east/air/a1", b"no JSON")])
    wait_for(lambda: gateway.ledger()["dead"] == 201, "all dead letters")
    gateway.stop()
    mended = text.replace("[[source]]", '[[source]]\nrename = { "pm 25" = "pm25" }')
    gateway.config.write_text(mended, "utf-8")
    if running:
        gateway.start()
    result = as_json(gateway, "requeue", "--all")
    assert result["tried"] == 201
    assert [letter["topic"] for letter in result["dead_again"]] == ["town/east/air/a1"]
    assert result["left_alone"] == []
    if not running:
        gateway.start()
    wait_for(lambda: stored(influxdb) == 200, "all points stored")
    wait_for(lambda: gateway.ledger()["queued"] == 0, "all delivered")
    ledger = gateway.ledger()
    assert (ledger["received"], ledger["delivered"], ledger["dead"]) == (201, 200, 1)
    assert as_json(gateway, "requeue", "--reason", "no such reason")["tried"] == 0


def test_wrong_usage_says_what_is_right(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = make_gateway(1, NOWHERE)
    assert "there is no spool" in spool(gateway, "count", code=1)
    assert "there is no spool" in spool(gateway, "drain", code=1)
    assert "choose dead letters" in spool(gateway, "requeue", code=2)
    assert "choose dead letters" in spool(gateway, "requeue", "3", "--all", code=2)
    assert "not both" in spool(gateway, "list", "--dead", "--held", code=2)
    assert "expected one of raw" in spool(gateway, "export", "--class", "cooked", code=2)
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "spool.db").write_bytes(b"not a database" * 1000)
    assert "spool" in spool(gateway, "count", code=1)
    missing = [sys.executable, "-m", "gateway", "spool"]
    assert subprocess.run(missing, capture_output=True, check=False).returncode == 2
