"""How fast a reading goes from payload to line protocol, beside the loop that one would write by hand.

Both do the same work on the same messages in one run: decode JSON, judge range and rate of change, write line protocol.
The ratio is the result; the times are of this machine, now.
"""

import json
import random
import time
from collections.abc import Callable

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from sensors import kinds

MESSAGES, BATCH = 100_000, 2000
QUANTITIES = ("pm25", "pm10", "no2", "temperature", "humidity")


def batches(sensors: int) -> list[RawBatch]:
    """Messages of five quantities, each sensor every ten seconds, with one value in a thousand out of range."""
    draw = random.Random(1)  # noqa: S311 - repeatable
    made, now = [], 1_790_000_000_000
    for start in range(0, MESSAGES, BATCH):
        batch = RawBatch()
        for i in range(start, start + BATCH):
            values = [draw.uniform(10, 30) for _ in QUANTITIES]
            if draw.random() < 0.001:
                values[0] = 5000
            fields = ",".join(f'"{name}":{value:.2f}' for name, value in zip(QUANTITIES, values, strict=True))
            batch.topics.append(f"city/site-{i % sensors % 7}/air/a{i % sensors}")
            batch.payloads.append(f'{{"ts":{now + i // sensors * 10_000},{fields}}}'.encode())
            batch.received.append(now)
        made.append(batch)
    return made


def columnar(work: list[RawBatch]) -> int:
    """Our way; returns bytes of line protocol."""
    channels = Channels()
    decoder = Decoder((SourceConfig(),), kinds.builtin(), "gw", channels)
    judge = Filter(channels)
    size = 0
    for batch in work:
        readings = decoder.decode(batch)
        entry = encode(readings, judge.judge(readings), channels, "gw")
        decoder.remember(entry.keys)
        size += len(entry.lines)
    return size


def by_hand(work: list[RawBatch]) -> int:
    """A plain loop with the standard library, two tests a value; returns bytes of line protocol."""
    rules = kinds.builtin()["air"].quantities
    last: dict[tuple[str, str], tuple[int, float]] = {}
    size = 0
    for batch in work:
        lines = []
        for topic, payload in zip(batch.topics, batch.payloads, strict=True):
            _, site, kind, sensor = topic.split("/")
            data = json.loads(payload)
            when = data.pop("ts")
            fields = []
            for name, value in data.items():
                rule, flag = rules[name], 1
                if rule.fail and not rule.fail[0] <= value <= rule.fail[1]:
                    flag = 4
                before = last.get((sensor, name))
                if before and rule.step and abs(value - before[1]) > rule.step * max(when - before[0], 60_000) / 60_000:
                    flag = max(flag, 3)
                last[sensor, name] = (when, value)
                fields.append(f"{name}={value},{name}_qc={flag}i")
            lines.append(f"{kind},gateway=gw,sensor={sensor},site={site} {','.join(fields)} {when}")
        size += len("\n".join(lines).encode())
    return size


def timed(way: Callable[[list[RawBatch]], int], work: list[RawBatch]) -> float:
    """CPU microseconds a message."""
    began = time.process_time()
    assert way(work) > 0
    return (time.process_time() - began) / MESSAGES * 1e6


def bench_way() -> None:
    """Prints a table; called by the test below so that `make bench` runs it."""
    print(f"\n{MESSAGES:,} messages of {len(QUANTITIES)} quantities, batches of {BATCH:,}; CPU µs a message")
    print(f"{'sensors':>8} {'all checks, columnar':>22} {'two checks, by hand':>22} {'ratio':>7}")
    for sensors in (10, 1000, 50_000):
        work = batches(sensors)
        ours, plain = timed(columnar, work), timed(by_hand, work)
        print(f"{sensors:>8,} {ours:>22.2f} {plain:>22.2f} {ours / plain:>7.2f}")


def test_bench_way() -> None:
    bench_way()
