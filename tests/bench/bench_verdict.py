"""What all that judges a value costs, and what it remembers of a channel.

That is all that the agent does between decoding and encoding: quality control with the adaptive detector, verdicts,
events, and who is heard. The readings are those of air stations, each of five quantities that wander, a message a
minute. CPU time of this machine, now; the least of three rounds, for other work can only add to it.
"""

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.filter import Filter
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels, Readings
from gateway.edge.silence import Silences
from sensors import kinds
from tests.bench.conftest import Report

LEVELS = {"pm25": 40.0, "pm10": 90.0, "no2": 50.0, "temperature": 15.0, "pressure": 1005.0}
NOW = 1_790_000_000_000
KNOWN = 120  # readings of each channel before the clock runs: what is learning is not judged


class Site:
    """What judges readings, and what sensors send."""

    def __init__(self, sensors: int, size: int, quantities: int = len(LEVELS)) -> None:
        self.sensors, self.size, self.names = sensors, size, list(LEVELS)[:quantities]
        self.channels = Channels()
        self.decoder = Decoder((SourceConfig(),), kinds.builtin(), "gw", self.channels)
        self.inspector = Inspector(self.channels)
        self.filter = Filter(self.channels)
        self._silences = Silences(self.channels)
        self._random = np.random.default_rng(1)
        self._level = np.tile(list(LEVELS.values()), (sensors, 1))[:, :quantities]
        self._off = np.zeros_like(self._level)
        self._minute = 0

    def minutes(self, many: int) -> list[Readings]:
        """Decoded batches of so many minutes."""
        made = []
        for _ in range(many):
            self._minute += 1
            self._off = 0.95 * self._off + self._random.normal(0, 0.3, self._off.shape)
            values = np.round(self._level + self._off, 2).tolist()
            for start in range(0, self.sensors, self.size):
                batch = RawBatch()
                for number in range(start, min(start + self.size, self.sensors)):
                    payload = {"ts": NOW + self._minute * 60_000, **dict(zip(self.names, values[number], strict=True))}
                    batch.topics.append(f"city/east/air/a{number}")
                    batch.payloads.append(json.dumps(payload).encode())
                    batch.received.append(NOW + self._minute * 60_000)
                readings = self.decoder.decode(batch)
                self.decoder.remember(readings.keys)
                made.append(readings)
        return made

    def judge(self, readings: Readings) -> None:
        """All that is done with decoded readings before they are encoded."""
        self.filter.judge(readings)
        self._silences.hear(readings)

    def cost(self, minutes: int) -> tuple[float, float]:
        """CPU microseconds a value, of the tests with the detector and of all, once every channel is known."""
        for readings in self.minutes(KNOWN):
            self.inspector.inspect(_copy(readings))
            self.judge(readings)
        spent: tuple[list[float], list[float]] = [], []
        for _ in range(3):
            work = self.minutes(minutes)
            ways = (self.inspector.inspect, [*map(_copy, work)]), (self.judge, work)
            for (way, its), times in zip(ways, spent, strict=True):
                began = time.process_time()
                for readings in its:
                    way(readings)
                times.append(time.process_time() - began)
        values = minutes * self.sensors * len(self.names)
        return min(spent[0]) / values * 1e6, min(spent[1]) / values * 1e6

    def bytes_a_channel(self) -> dict[str, int]:
        """What each step would save of a channel."""
        channel = np.zeros(1, np.int64)
        return {
            name: sum(its.nbytes for its in step.state(channel).values()) for name, step in self.filter.steps.items()
        }


def _copy(readings: Readings) -> Readings:
    """The same readings, to be judged by themselves."""
    return replace(readings, flag=readings.flag.copy(), reason=readings.reason.copy())


def test_bench_verdict(report: Report) -> None:
    rows: list[dict[str, Any]] = []
    known: dict[str, int] = {}
    for sensors, size, quantities, minutes in (
        (200, 200, 5, 60),
        (10_000, 2000, 5, 2),
        (200, 1, 5, 10),
        (200, 1, 1, 20),
    ):
        site = Site(sensors, size, quantities)
        tests, every = site.cost(report.scaled(minutes))
        rows.append(
            {
                "channels": f"{sensors * quantities:,}",
                "values at a time": size * quantities,
                "tests and detector, µs a value": tests,
                "all, µs a value": every,
            }
        )
        known = site.bytes_a_channel()
        assert sum(known.values()) < 4096, known
    steps = ", ".join(f"{name} {its:,}" for name, its in known.items())
    report.table("filter", "The filter: CPU a value", rows, f"state a channel: {sum(known.values()):,} bytes ({steps})")
