"""Bytes that the agent has written to disk, a reading: what an SD card wears by."""

import tempfile
import time
from pathlib import Path

from tests.bench import contenders, machine
from tests.bench.conftest import Stage
from tests.bench.contenders import Agent, Victoria
from tests.bench.load import QUANTITIES, Plan, publishers

_SENSORS = 1000
_FAST = 100_000  # messages of a backlog
_RATE, _SECONDS = 100, 25  # messages a second
_IDLE = 25  # s


def test_disk(stage: Stage, database: Victoria) -> None:
    with tempfile.TemporaryDirectory(dir=None if _on_disk(stage.folder) else "/var/tmp") as folder:  # noqa: S108
        _measure(stage, database, Path(folder))


def _on_disk(folder: Path) -> bool:
    return machine.file_system(folder) not in {"tmpfs", "ramfs"}


def _measure(stage: Stage, database: Victoria, folder: Path) -> None:
    rows = []
    broker = stage.mosquitto()
    with Agent(folder, broker.port, f'url = "{database.url}"', stage.free_port()) as agent:
        agent.await_connected()
        contenders.warm_up(broker.port, database, "disk", _SENSORS)

        def row(what: str, messages: int, before: int, seconds: float) -> dict[str, object]:
            count = machine.written(agent.pid) - before
            return {
                "": what,
                "messages": messages,
                "bytes/message": round(count / messages, 1) if messages else "",
                "bytes/reading": round(count / messages / len(QUANTITIES), 1) if messages else "",
                "kB/minute": round(count / seconds * 60 / 1000, 1),
            }

        stage.report.say("disk at full speed")
        messages = stage.report.scaled(_FAST, _SENSORS)
        start = time.time_ns() // 1_000_000 - (messages // _SENSORS + 2) * 10_000
        with publishers(Plan(broker.port, "disk-fast", _SENSORS, messages, start=start)) as crew:
            with agent.held():
                crew.run()
                before, began = machine.written(agent.pid), time.time()
            ended = database.await_stored("disk-fast", messages)
        rows.append(row("backlog drained at full speed", messages, before, ended - began))

        stage.report.say(f"disk at {_RATE} messages/s")
        messages = stage.report.scaled(_RATE * _SECONDS, 10 * _RATE)
        plan = Plan(broker.port, "disk-slow", _SENSORS, messages, rate=_RATE, connections=50)
        with publishers(plan) as crew:
            before, began = machine.written(agent.pid), time.time()
            crew.run()
            ended = database.await_stored("disk-slow", messages)
        rows.append(row(f"{_RATE} messages/s", messages, before, ended - began))

        stage.report.say("disk while idle")
        contenders.wait(lambda: agent.state()["health"]["queued"] == 0, "an empty spool")
        before, began = machine.written(agent.pid), time.time()
        time.sleep(stage.report.scaled(_IDLE, 5))
        rows.append(row("idle", 0, before, time.time() - began))
    broker.stop()
    stage.report.table(
        "disk",
        "Bytes written to disk by the agent (write_bytes of /proc/PID/io, less cancelled ones)",
        rows,
        f"the spool is on {machine.file_system(folder)}; what the file system adds in its own journal is not counted",
    )
