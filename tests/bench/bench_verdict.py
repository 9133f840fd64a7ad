"""What verdicts cost a value, in batches of many channels and one message at a time, beside the step *inspect*; and the
state a channel takes. The readings are those of the benchmark of *inspect*; CPU time of this machine, now."""

import time

from gateway.config import SourceConfig
from gateway.edge.decode import Decoder
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels
from gateway.edge.verdict import Judge
from sensors import kinds
from tests.bench.bench_inspect import QUANTITIES, batches


def cost(sensors: int, rounds: int, size: int) -> tuple[float, float]:
    """CPU microseconds a value of *inspect*, and of the verdict."""
    channels = Channels()
    decoder = Decoder([SourceConfig()], kinds.builtin(), "bench", channels)
    inspector, judge = Inspector(channels), Judge(channels)
    inspected = judged = 0.0
    values = 0
    for batch in batches(sensors, sensors * rounds, size):
        readings = decoder.decode(batch)
        began = time.process_time()
        inspector.inspect(readings)
        middle = time.process_time()
        judge.judge(readings)
        inspected, judged = inspected + middle - began, judged + time.process_time() - middle
        values += len(readings.channel)
    return inspected / values * 1e6, judged / values * 1e6


def test_bench_verdict() -> None:
    print(f"\nverdicts; CPU µs a value, {len(QUANTITIES)} values a message")
    for title, sensors, rounds, size in (
        ("10,000 channels in a batch", 2000, 150, 2000),
        ("1,000 channels in a batch", 200, 150, 200),
        ("one message at a time", 50, 150, 1),
    ):
        inspected, judged = cost(sensors, rounds, size)
        print(f"{title:>30} {judged:>8.2f}    inspect {inspected:>8.2f}")
