"""What the step *inspect* costs a value: in large batches, with one value a channel, and one message at a time.

The readings are those of air stations with every test of their kind and the adaptive detector switched on, one value in
a thousand out of range, times rising. CPU time of this machine, now; the least of three rounds, for other work can only
add to it.
"""

import random
import time
from typing import Any

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels
from sensors import kinds
from tests.bench.conftest import Report

QUANTITIES = ("pm25", "pm10", "no2", "temperature", "pressure")
LOWEST = (10.0, 40.0, 20.0, 15.0, 1005.0)
NOW = 1_790_000_000_000
BATCH, ALONE = 2000, 4000


def batches(sensors: int, messages: int, size: int, quantities: int = len(QUANTITIES)) -> list[RawBatch]:
    """Messages of up to five quantities; each sensor sends once a minute."""
    draw = random.Random(1)  # noqa: S311 - repeatable
    made = []
    for start in range(0, messages, size):
        batch = RawBatch()
        for i in range(start, min(start + size, messages)):
            values = [low + draw.uniform(0, 2) for low in LOWEST]
            if draw.random() < 0.001:
                values[0] = 5000
            named = [f'"{name}":{value:.2f}' for name, value in zip(QUANTITIES, values, strict=True)]
            fields = ",".join(named[:quantities])
            batch.topics.append(f"city/east/air/a{i % sensors}")
            now = NOW + i // sensors * 60_000
            batch.payloads.append(f'{{"ts":{now},{fields}}}'.encode())
            batch.received.append(now)
        made.append(batch)
    return made


def cost(sensors: int, messages: int, size: int, quantities: int = len(QUANTITIES)) -> float:
    """CPU microseconds a value, once every channel is known."""
    return min(_round(sensors, messages, size, quantities) for _ in range(3))


def _round(sensors: int, messages: int, size: int, quantities: int) -> float:
    channels = Channels()
    decoder = Decoder((SourceConfig(),), kinds.builtin(), "gw", channels)
    inspector = Inspector(channels)
    work = [decoder.decode(batch) for batch in batches(sensors, messages + sensors, size, quantities)]
    known = -(-sensors // size)
    for readings in work[:known]:
        inspector.inspect(readings)
    began = time.process_time()
    for readings in work[known:]:
        inspector.inspect(readings)
    spent = time.process_time() - began
    values = sum(len(readings.value) for readings in work[known:])
    assert np.concatenate([readings.flag for readings in work]).all(), "every value got its flag"
    return spent / values * 1e6


def test_bench_inspect(report: Report) -> None:
    rows: list[dict[str, Any]] = []
    for channels in (10, 1000, 50_000):
        micros = cost(channels // 5, report.scaled(60_000, BATCH), BATCH)
        rows.append({"channels": f"{channels:,}", "values at a time": BATCH * 5, "µs a value": micros})
    micros = cost(200, report.scaled(20_000, 400), 200)
    rows.append({"channels": "1,000", "values at a time": 1000, "µs a value": micros})
    for quantities in (5, 1):
        micros = cost(100, report.scaled(ALONE), 1, quantities)
        rows.append({"channels": f"{100 * quantities:,}", "values at a time": quantities, "µs a value": micros})
    report.table("inspect", "Inspect: CPU a value", rows, f"state a channel: {state()} bytes")


def state() -> int:
    """Bytes that the inspector keeps for a channel with every test."""
    channels = Channels()
    decoder = Decoder((SourceConfig(),), kinds.builtin(), "gw", channels)
    inspector = Inspector(channels)
    for batch in batches(1, 2, 1):
        inspector.inspect(decoder.decode(batch))
    return sum(array.nbytes for array in inspector.state(np.arange(1)).values())
