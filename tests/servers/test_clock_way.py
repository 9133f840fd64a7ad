"""The agent on a clock that is turned: libfaketime stands between it, and it alone, and the clock of the system."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import Gateway, output, publish, query, wait_for

HOUR = 3600
YEAR_2026 = 1_767_225_600_000
READING = 5
"""Milliseconds by which the test and the gateway may read the same moment differently."""


@dataclass
class Turned(Gateway):
    """A gateway whose clock can be turned while it runs.

    Attributes:
        library: libfaketime.
        told: Of each message, by its value, the times between which it arrived, by the machine's true clock.
    """

    library: str = ""
    told: dict[int, tuple[int, int]] = field(default_factory=dict)

    def start(self) -> None:
        fake = {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": str(self._turn),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        command = [sys.executable, "-m", "gateway", "run", "-c", str(self.config)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | fake)
        wait_for(self.connected, "the connection")

    @property
    def _turn(self) -> Path:
        return self.config.with_suffix(".turn")

    def turn(self, seconds: int) -> None:
        """Sets its clock to this much from the true time."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n", "ascii")
        fresh.replace(self._turn)

    def take(self, port: int, values: range) -> None:
        """Sends readings without a time of their own, each when the one before has been taken."""
        for value in values:
            before, count = _now(), len(self.told) + 1
            publish(port, [("city/east/air/a1", b'{"pm25":%d}' % value)])
            wait_for(lambda count=count: self.counts("received", count), "the reading to be taken")  # type: ignore[misc]
            self.told[value] = before - READING, _now() + READING

    def counts(self, fate: str, count: int) -> bool:
        """Whether the ledger has this many of a fate; a busy machine may not answer in time."""
        state = self.health()
        return state is not None and state["health"][fate] == count


def _now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def turned(
    tmp_path: Path,
    free_port: Callable[[], int],
    program: Callable[[str, str], str],
    mosquitto: Mosquitto,
    influxdb: Server,
) -> Iterator[tuple[Turned, int]]:
    """A gateway on a clock that can be turned, not started yet, and its broker's port."""
    program("faketime", "faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    broker, port, path = mosquitto(), free_port(), tmp_path / "gateway.toml"
    path.write_text(
        f'[gateway]\nid = "gw"\nhealth_port = {port}\nhealth_interval = "1s"\n'
        f'[mqtt]\nport = {broker.port}\nbatch_time = "10ms"\n[clock]\ntrust = "system"\n{output(influxdb)}',
        "utf-8",
    )
    gateway = Turned(path, port, broker.port, library=str(library))
    yield gateway, broker.port
    if gateway.process is not None:
        gateway.kill()


def rows(influxdb: Server) -> list[tuple[int, int]]:
    """Time and value of everything stored, in the order of time."""
    return [(int(row[0]), int(row[1])) for row in query(influxdb, "SELECT pm25 FROM air ORDER BY time")]


def test_readings_of_1970_are_held_over_a_kill_and_stored_with_their_true_times(
    turned: tuple[Turned, int], influxdb: Server
) -> None:
    gateway, broker = turned
    gateway.turn(300 - _now() // 1000)
    gateway.start()
    wait_for(lambda: "the clock is not known yet: it shows 1970-01-01" in gateway.log(), "a word about the clock")
    gateway.take(broker, range(10))
    gateway.kill()
    gateway.start()
    gateway.take(broker, range(10, 20))
    wait_for(lambda: gateway.counts("queued", 20), "all to be queued")
    assert rows(influxdb) == []
    gateway.turn(0)
    wait_for(lambda: len(rows(influxdb)) >= 20, "all points stored")
    gateway.take(broker, range(20, 25))
    wait_for(lambda: gateway.counts("delivered", 25), "the ledger to say so")
    stored = rows(influxdb)
    assert [value for _, value in stored] == list(range(25))
    for moment, value in stored:
        first, last = gateway.told[value]
        assert first <= moment <= last
    wait_for(lambda: gateway.counts("queued", 0) and gateway.counts("ledger_mismatches", 0), "an exact ledger")
    health = query(influxdb, "SELECT received FROM gateway")
    assert all(row[0] >= YEAR_2026 for row in health)
    assert gateway.stop() == 0


@pytest.mark.parametrize("jumps", [(HOUR, 0), (-HOUR, 0), (-HOUR, HOUR)], ids=str)
def test_a_clock_that_jumps_reorders_and_loses_nothing(
    jumps: tuple[int, ...], turned: tuple[Turned, int], influxdb: Server
) -> None:
    gateway, broker = turned
    gateway.turn(0)
    gateway.start()
    gateway.take(broker, range(5))
    for number, jump in enumerate(jumps, 1):
        said = gateway.log().count("the system's clock was set")
        gateway.turn(jump)
        gateway.take(broker, range(number * 10, number * 10 + 3))  # perhaps before it noticed
        wait_for(lambda said=said: gateway.log().count("the system's clock was set") > said, "a word")  # type: ignore[misc]
        gateway.take(broker, range(number * 10 + 3, number * 10 + 6))
    wait_for(lambda: gateway.counts("delivered", len(gateway.told)), "delivery of all")
    stored = rows(influxdb)
    assert [value for _, value in stored] == list(gateway.told)
    for moment, value in stored:
        first, last = gateway.told[value]
        assert first - HOUR * 1000 <= moment <= last + HOUR * 1000
    wait_for(lambda: gateway.counts("queued", 0) and gateway.counts("ledger_mismatches", 0), "an exact ledger")
    assert gateway.stop() == 0
