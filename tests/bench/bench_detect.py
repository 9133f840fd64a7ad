"""What the adaptive detector costs: CPU time a reading, one at a time and many at once, and state a channel."""

import time

import numpy as np

from gateway.edge.detect import Detector

MINUTES = 5 * 60_000
ROWS = 300


def together(channels: int, *, spread: int) -> float:
    """CPU microseconds a reading, with all channels in each call; every `spread`th of the detector's."""
    draw = np.random.default_rng(1)
    value = draw.normal(20, 5, (50, channels))
    channel = np.arange(channels) * spread
    detector = Detector(channels * spread)
    best = float("inf")
    for part in range(4):  # the machine does other things too: the best of four
        began = time.process_time()
        for row in range(part * ROWS, (part + 1) * ROWS):
            detector.score(channel, np.full(channels, row * MINUTES), value[row % 50])
        best = min(best, time.process_time() - began)
    return best / ROWS / channels * 1e6


def single() -> float:
    """CPU microseconds a reading, one after another."""
    value = np.random.default_rng(1).normal(20, 5, 4000).tolist()
    detector = Detector()
    began = time.process_time()
    for row, x in enumerate(value):
        detector.score_one(0, row * MINUTES, x)
    return (time.process_time() - began) / len(value) * 1e6


def test_bench_detect() -> None:
    print("\nadaptive detector; CPU µs a reading")
    print(f"{'one at a time':>30} {single():>8.2f}")
    for channels in (100, 1000, 10_000):
        print(f"{channels:>13,} channels a call {together(channels, spread=1):>8.2f}")
    print(f"{'1,000 of 5,000 channels a call':>30} {together(1000, spread=5):>8.2f}")
    state = Detector(1).state(np.zeros(1, np.int64))
    print(f"{'bytes of state a channel':>30} {sum(array.nbytes for array in state.values()):>8,.0f}")
