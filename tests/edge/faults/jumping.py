"""Streams of sensors whose values jump, and what the tests for jumps say of them."""

import json

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.faults.look import CALLED, Verdict
from gateway.edge.faults.offset import Offset
from gateway.edge.faults.unit import Unit
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels, Floats
from gateway.edge.verdict import Judge
from sensors import kinds

BEGIN = 1_790_000_000_000
HOUR = 3_600_000


def days(many: int, sensors: int, *, middle: float, size: float, seed: int = 1) -> Floats:
    """float64[hours, sensors], a day's course and weather that all share, and a little that is each one's own."""
    random = np.random.default_rng(seed)
    hour = np.arange(24 * many)
    weather = np.zeros(len(hour))
    for now in range(1, len(hour)):
        weather[now] = 0.98 * weather[now - 1] + random.normal(0, 0.1)
    shared = middle + size * (np.sin(2 * np.pi * hour / 24) + weather)
    return np.asarray(shared[:, None] + size * random.normal(0, 0.05, (len(hour), sensors)))


class Watch:
    """A gateway that judges one quantity of some sensors.

    Args:
        quantity: Its name.
        kind: The sensors'.
    """

    def __init__(self, quantity: str, kind: str = "air") -> None:
        self._quantity, self._kind = quantity, kind
        self._hour = 0
        self.channels = Channels()
        self._decoder = Decoder([SourceConfig()], kinds.builtin(), "gw", self.channels)
        self._inspector = Inspector(self.channels)
        self.judge = Judge(self.channels, [Unit(), Offset()])

    def see(self, values: Floats) -> list[Verdict]:
        """What is said while values come, float64[hours, sensors], a message an hour."""
        verdicts: list[Verdict] = []
        for row in values.tolist():
            moment = BEGIN + self._hour * HOUR
            raw = RawBatch()
            for sensor, value in enumerate(row):
                raw.topics.append(f"city/east/{self._kind}/{sensor}")
                raw.payloads.append(json.dumps({"ts": moment, self._quantity: value}).encode())
                raw.received.append(moment)
            readings = self._decoder.decode(raw)
            self._decoder.remember(readings.keys)
            self._inspector.inspect(readings)
            verdicts += self.judge.judge(readings)
            self._hour += 1
        return verdicts

    def lasting(self, channel: int) -> bool:
        """Whether a fault lasts in a channel."""
        return bool(self.judge.state(np.array([channel]))["state"][0, CALLED] > 0)


def told(verdicts: list[Verdict]) -> list[tuple[str, int, int]]:
    """What was said: the fault, and the first and the last hour that it is about."""
    return [
        (verdict.what.name, (verdict.since - BEGIN) // HOUR, (verdict.until - BEGIN) // HOUR) for verdict in verdicts
    ]
