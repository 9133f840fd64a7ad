"""Recordings: written and read alone, recorded from a broker at full speed, and replayed into one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sensors.stream import Reader, StreamError, Writer
from tests.bench import contenders, machine
from tests.bench.conftest import Stage
from tests.bench.load import ROOT, Plan, packet, publishers

_SENSORS = 500
_MESSAGES = 200_000
_START = 1_790_000_000_000
_ROUNDS = 3


def test_recording(stage: Stage) -> None:
    report, messages = stage.report, stage.report.scaled(_MESSAGES, 20_000)
    rows = []

    def row(what: str, seconds: float, cpu: float) -> dict[str, object]:
        return {
            "": what,
            "messages": messages,
            "messages/s": round(messages / seconds),
            "CPU, µs/message": round(cpu / messages * 1e6, 2),
        }

    report.say("recording: a file alone")
    plan = Plan(0, "s", _SENSORS, messages, start=_START)
    sent = [_parts(packet(plan, index, 1, _START + index // _SENSORS * 10_000)) for index in range(messages)]
    raw = sum(len(topic) + len(payload) for topic, payload in sent)
    path = stage.folder / "alone.cgrec"

    def write() -> None:
        path.unlink(missing_ok=True)
        with Writer(path) as writer:
            for number, (topic, payload) in enumerate(sent):
                writer.add(topic, payload, qos=1, monotonic=number * 9000, wall=_START * 10**6 + number * 9000)

    def read() -> None:
        with Reader(path) as reader:
            assert sum(1 for _ in reader) == messages

    rows += [row("write a file", *_fastest(write)), row("read it", *_fastest(read))]

    report.say("recording: from a broker at full speed")
    broker = stage.mosquitto("persistence false")
    recorded = stage.folder / "broker.cgrec"
    command = [sys.executable, "-m", "gateway", "record", str(recorded), "--broker", f"127.0.0.1:{broker.port}"]
    process = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stderr is not None
        assert "recording" in process.stderr.readline()
        with publishers(Plan(broker.port, "s", _SENSORS, messages, start=_START)) as crew:
            before, began = machine.cpu(process.pid), time.monotonic()
            crew.run()
            contenders.wait(lambda: _count(recorded) >= messages, "the last message")
            rows.append(row("record from mosquitto", time.monotonic() - began, machine.cpu(process.pid) - before))
        process.send_signal(signal.SIGINT)
        summary = json.loads(process.communicate(timeout=30)[0])
    finally:
        process.kill()
    assert summary["messages"] == messages

    report.say("recording: into a broker at full speed")
    best: dict[str, object] = {}
    for _ in range(_ROUNDS):
        replay = [sys.executable, "-m", "gateway", "replay", str(recorded), "--speed", "max", "--json"]
        done = subprocess.run(
            [*replay, "--broker", f"127.0.0.1:{broker.port}"], capture_output=True, text=True, check=True, cwd=ROOT
        )
        played = json.loads(done.stdout)
        assert played["acknowledged"] == messages
        one = {"": "replay into mosquitto", "messages": messages, "messages/s": round(played["rate"])}
        best = max(best, one, key=lambda made: int(str(made.get("messages/s", 0))))
    rows.append(best)
    broker.stop()
    report.table(
        "recording",
        "Recordings of messages of five quantities, QoS 1",
        rows,
        f"topics and payloads: {raw:,} bytes; written alone: {path.stat().st_size / raw:.1%} of them, "
        f"from the broker: {summary['file_bytes'] / summary['raw_bytes']:.1%}",
        f"the best of {_ROUNDS} rounds, but for recording; files on {machine.file_system(stage.folder)}",
    )


def _fastest(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and seconds of CPU, of the fastest of some rounds."""
    found = []
    for _ in range(_ROUNDS):
        began, before = time.monotonic(), time.process_time()
        work()
        found.append((time.monotonic() - began, time.process_time() - before))
    return min(found)


def _parts(data: bytes) -> tuple[str, bytes]:
    """Topic and payload of a PUBLISH of QoS 1."""
    start = 3 if data[1] & 128 else 2
    end = start + 2 + int.from_bytes(data[start : start + 2])
    return data[start + 2 : end].decode(), data[end + 2 :]


def _count(path: Path) -> int:
    try:
        with Reader(path) as reader:
            return reader.summary().messages
    except StreamError:
        return 0
