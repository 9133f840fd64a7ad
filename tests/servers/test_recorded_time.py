"""The same recording, replayed at different speeds, leaves the same store: time comes from the recording."""

import json
import random
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensors.formats import BUILTIN
from sensors.stream import Writer
from tests.servers.conftest import FreePort, Mosquitto, Server
from tests.servers.test_agent import query, wait_for
from tests.servers.wait import listening

PAYLOADS = Path(__file__).parents[1] / "sensors" / "formats" / "payloads"
MINUTE = 60 * 10**9
START = 1_700_000_000 * 10**9  # before 2026: no clock of the device may be asked
MINUTES = 300
TEMPLATES = {"sparkplug": "spBv1.0/#", "zigbee2mqtt": "zigbee2mqtt/#", "tasmota": "tele/#"}
TOPICS: dict[str, Any] = {
    "sparkplug": {"n": "spBv1.0/town/{}/edge1", "d": "spBv1.0/town/{}/edge1/station7"},
    "chirpstack": "chirpstack/application/1/device/0004a30b001c0530/event/up",
    "ttn": "ttn/v3/app@ttn/devices/dev/up",
    "zigbee2mqtt": "zigbee2mqtt/living/climate",
    "tasmota": "tele/station/SENSOR",
}
FORMATS = sorted({*BUILTIN} - {"homeassistant"})  # all that tell readings


def config(folder: Path, broker: int, health: int, output: str) -> Path:
    """A gateway with a source of each format."""
    lines = [
        f'[gateway]\nid = "gw"\nhealth_port = {health}\nhealth_interval = "1s"',
        f"[mqtt]\nport = {broker}\nrecorded_time = true",
        "[limits]\nrate = 2",
        '[[source]]\nname = "city"',
        '[[source]]\nname = "bare"\ntopic = "bare/{site}/{kind}/{sensor}"',
    ]
    for name in FORMATS:
        topic = TEMPLATES.get(name, f"{name}/#")
        kind = "soil" if name in {"ttn", "cayenne"} else "weather"
        lines.append(
            f'[[source]]\nname = "{name}"\nformat = "{name}"\ntopic = "{topic}"\nkind = "{kind}"\nsite = "s"'
            + ('\nsensor = "one"' if name in {"json", "cayenne"} else "")
        )
    lines.append('[[discover]]\nname = "new"\ntopic = "new/{site}/{sensor}"')
    path = folder / "gateway.toml"
    path.write_text("\n".join([*lines, output]), "utf-8")
    return path


def vectors() -> Iterator[tuple[str, bytes]]:
    """A payload of each file, at a topic of its format."""
    for path in sorted(path for name in FORMATS for path in (PAYLOADS / name).rglob("*.*")):
        name, data = path.parent.name, path.read_bytes()
        payload = bytes.fromhex(data.decode()) if path.suffix == ".hex" else data
        match TOPICS.get(name, f"{name}/topic"):
            case str() as topic:
                yield topic, payload
            case by_letter:
                what = path.stem.partition("_")[0].upper()
                yield by_letter.get(path.name[0], "spBv1.0/town/NCMD/edge1").format(what), payload


def record(path: Path) -> int:
    """Five hours of sensors: good, faulty, silent, flooding, without a time; and all payloads again and again."""
    noise = random.Random(1)  # noqa: S311 - not for secrets
    foreign = [*vectors()]
    with Writer(path) as writer:

        def add(topic: str, payload: bytes, moment: int, qos: int = 1) -> None:
            writer.add(topic, payload, qos=qos, monotonic=moment - START, wall=moment)

        for minute in range(MINUTES):
            at = START + minute * MINUTE
            for number in range(12):
                moment = at + number * 1_234_567_891
                value = 20 + number + noise.gauss(0, 1) + (noise.choice((60, 5000)) if noise.random() < 0.02 else 0)
                if number == 3 and 60 <= minute < 200:
                    continue  # silent
                fields = f'"pm25":{value:.2f},"no2":{30 + noise.gauss(0, 2):.2f}'
                stamp = f'"ts":{moment // 10**6 - 700},' if number % 3 else ""
                source = "city" if number % 3 else "bare"
                add(f"{source}/s/air/a{number}", f"{{{stamp}{fields}}}".encode(), moment, number % 3)
            for repeat in range(
                40 if 100 <= minute < 104 else 0
            ):  # a flood, one message with the same arrival as another
                add("city/s/air/flood", b'{"pm25":%d}' % repeat, at + 30 * 10**9 + repeat // 2 * 10**6)
            add(f"new/s/n{minute % 7}", b'{"temperature":%d}' % minute, at + 35 * 10**9)
            topic, payload = foreign[minute % len(foreign)]
            add(topic, payload, at + 40 * 10**9, minute % 2)
        return writer.messages + writer.pending


def health(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def citygate(*arguments: object) -> str:
    command = [sys.executable, "-m", "gateway", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Replays:
    """Gateways of one configuration, each of which hears the recording once."""

    def __init__(self, folder: Path, mosquitto: Mosquitto, free_port: FreePort) -> None:
        self.recording = folder / "town.cgrec"
        self.messages = record(self.recording)
        self.ledgers: list[dict[str, dict[str, int]]] = []
        self._folder, self._mosquitto, self._free_port = folder, mosquitto, free_port

    def replay(self, speed: str, output: str, *lines: str) -> Path:
        """Replays it through a new gateway and a new broker; gives the gateway's configuration, when it has ended."""
        broker, port = self._mosquitto(*lines), self._free_port()
        folder = self._folder / f"gateway-{speed}-{broker.port}"
        folder.mkdir()
        path = config(folder, broker.port, port, output)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "-c", str(path)], stdout=log, stderr=log
            )
        try:
            wait_for(lambda: listening(port) or process.poll() is not None, "the health endpoint")
            assert process.poll() is None, (folder / "log").read_text()
            wait_for(lambda: health(port)["broker"]["connected"], "the connection")
            options = ("--speed", speed, "--recorded-time", "--broker", f"127.0.0.1:{broker.port}", "--json")
            played = json.loads(citygate("replay", self.recording, *options))
            assert played["acknowledged"] == self.messages
            wait_for(lambda: health(port)["health"]["messages"] >= self.messages, "the last message")
            if "influxdb1" in output:
                wait_for(lambda: not health(port)["health"]["queued"], "the delivery of all")
            self.ledgers.append(health(port)["ledger"])
            process.terminate()
            assert process.wait(20) == 0, (folder / "log").read_text()
        finally:
            process.kill()
            process.wait()
        return path


@pytest.fixture
def replays(tmp_path: Path, mosquitto: Mosquitto, free_port: FreePort) -> Replays:
    return Replays(tmp_path, mosquitto, free_port)


def points(path: Path) -> list[str]:
    return sorted(citygate("spool", "export", "-c", path).splitlines())


def dead(path: Path) -> list[str]:
    letters = [json.loads(line) for line in citygate("spool", "export", "-c", path, "--dead").splitlines()]
    return sorted(json.dumps({**letter, "id": 0}) for letter in letters)


@pytest.mark.slow
def test_two_replays_at_different_speeds_leave_the_same_points(replays: Replays, free_port: FreePort) -> None:
    output = f'[[output]]\nurl = "http://127.0.0.1:{free_port()}"'
    first = replays.replay("max", output)
    second = replays.replay("3600", output, "max_inflight_messages 20")  # other batches, too
    assert points(first) == points(second)
    assert dead(first) == dead(second)
    ledger, other = replays.ledgers
    assert ledger == other
    assert [name for name in (*FORMATS, "city", "bare") if not ledger[name]["queued"]] == []
    assert ledger["city"]["quarantined"]
    assert any("flooding" in letter for letter in dead(first))
    text = points(first)
    assert {line.split(",")[0] for line in text} >= {
        "air",
        "weather",
        "soil",
        "holding",
        "quarantine",
        "event",
        "verdict",
    }
    silent = [
        line for line in text if line.startswith("event") and 'quantity="silence"' in line and "sensor=a3," in line
    ]
    assert [line.partition("severity=")[2].partition(",")[0] for line in silent] == ["blue", "none"]


@pytest.mark.slow
def test_two_replays_at_different_speeds_leave_the_same_database(replays: Replays, influxdb: Server) -> None:
    stored = []
    for number, speed in enumerate(("max", "7200")):
        query(influxdb, f'CREATE DATABASE "d{number}"')
        replays.replay(speed, f'[[output]]\ntype = "influxdb1"\nurl = "{influxdb.url}"\ndatabase = "d{number}"')
        wanted = urllib.parse.urlencode({"db": f"d{number}", "q": "SELECT * FROM /.*/", "epoch": "ns"})
        with urllib.request.urlopen(f"{influxdb.url}/query?{wanted}", timeout=30) as answer:  # noqa: S310 - loopback
            stored.append(answer.read())
    assert len(stored[0]) > 100_000
    assert stored[0] == stored[1]
