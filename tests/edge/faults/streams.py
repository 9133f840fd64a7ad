"""Small streams that tests for faults are put to: what is said of them."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.faults.look import Test, Verdict, What
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels, Floats
from gateway.edge.verdict import Judge
from sensors import kinds

START = 1_700_000_000_000 // 3_600_000 * 3_600_000
HOUR = 3_600_000
Sensors = Mapping[str, Mapping[str, Floats]]
"""Values by sensor and quantity, all of one length; NaN where one is missing."""


def say(tests: Sequence[Test], sensors: Sensors, *, interval: int = HOUR, kind: str = "air") -> list[Verdict]:
    """What tests say of readings that come one moment after another."""
    channels = Channels()
    decoder = Decoder([SourceConfig()], kinds.builtin(), "test", channels)
    inspector, judge = Inspector(channels), Judge(channels, tests)
    verdicts: list[Verdict] = []
    count = len(next(iter(next(iter(sensors.values())).values())))
    for number in range(count):
        batch = RawBatch()
        for name, quantities in sensors.items():
            values = {name: float(its[number]) for name, its in quantities.items() if np.isfinite(its[number])}
            batch.topics.append(f"city/park/{kind}/{name}")
            batch.payloads.append(json.dumps({"ts": START + number * interval, **values}).encode())
            batch.received.append(START + number * interval)
        readings = decoder.decode(batch)
        inspector.inspect(readings)
        verdicts += judge.judge(readings)
    return [verdict for verdict in verdicts + judge.finish() if verdict.what != What.NOTHING]


def places(verdicts: Sequence[Verdict], what: What, *, interval: int = HOUR) -> list[tuple[int, int]]:
    """First and last reading that a fault was said of, for each time that it was said."""
    return [
        ((verdict.since - START) // interval, (verdict.until - START) // interval)
        for verdict in verdicts
        if verdict.what == what
    ]


def weather(seed: int, count: int = 1000) -> Floats:
    """A temperature: the course of days, of weeks, and some unrest."""
    random = np.random.default_rng(seed)
    hour = np.arange(count)
    red = np.zeros(count)
    for number in range(1, count):
        red[number] = 0.9 * red[number - 1] + random.normal(0, 0.3)
    values: Floats = np.round(15 + 4 * np.sin(hour * 2 * np.pi / 24) + 3 * np.sin(hour / 90) + red, 1)
    return values
