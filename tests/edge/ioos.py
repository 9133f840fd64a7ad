"""What the reference implementation of QARTOD, ``ioos_qc`` 3.0, says about some series.

It needs pandas, SciPy, xarray and Shapely, so the tests do without it: ``python -m tests.edge.ioos``, where it is
installed, writes its answers to ``ioos.json``. There, ``test_inspect_ioos.py`` also compares random series with it.
"""

import importlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ANSWERS = Path(__file__).with_suffix(".json")
START = 1_767_225_600  # 2026-01-01T00:00:00Z, s
MINUTE = 60

# The tests, with limits that the kind in test_inspect_ioos.py declares too.
GROSS = {"fail_span": (-10, 40), "suspect_span": (0, 30)}
STEP = 1.005  # a minute; between two values of two digits, so that rounding decides nothing
SPIKE = 2.005
FLAT = {"suspect_threshold": 30 * MINUTE, "fail_threshold": 90 * MINUTE, "tolerance": 0.005}
WINDOW, RANGE, LEAST_RANGE = 80 * MINUTE, 1.005, 0.305
GAP_HOURS = 2
CLIMATOLOGY = [
    {"tspan": (1, 2), "vspan": (0, 20), "fspan": (-5, 25), "period": "month"},
    {"tspan": (6, 11), "vspan": (5, 30), "fspan": (-10, 40), "period": "hour"},
]


def answers(qartod: Any, times: Sequence[int], values: Sequence[float]) -> dict[str, list[int]]:  # noqa: ANN401
    """The flag of each value, by test.

    Args:
        qartod: The module.
        times: UTC, s; whole minutes.
        values: NaN where missing.
    """
    when = np.array(times, "datetime64[s]")
    finite = [value for value in values if value == value]  # noqa: PLR0124 - not NaN
    at = when[~np.isnan(np.array(values))]
    found = {
        "gross": qartod.gross_range_test(values, **GROSS),
        "climatology": qartod.climatology_test(CLIMATOLOGY, values, when, [np.nan] * len(values)),
        "gap": qartod.time_gap_test(at, GAP_HOURS),
        "step": qartod.rate_of_change_test(finite, at, STEP / MINUTE),
        "flat": qartod.flat_line_test(finite, when[0] + np.arange(len(finite)) * 10 * MINUTE, **FLAT),
        "attenuated": _attenuated(qartod, finite, at, WINDOW),
        "attenuated for an eighth longer": _attenuated(qartod, finite, at, WINDOW * 9 // 8),
    }
    for method in ("differential", "average"):
        found[method] = [
            int(qartod.spike_test([before, now, last], suspect_threshold=SPIKE, method=method)[1])
            for before, last, now in zip(finite, finite[1:], finite[2:], strict=False)
        ]
    return {test: [int(flag) for flag in flags] for test, flags in found.items()}


def _attenuated(qartod: Any, values: Sequence[float], at: Any, window: int) -> Any:  # noqa: ANN401
    return qartod.attenuated_signal_test(values, at, RANGE, LEAST_RANGE, test_period=window, check_type="range")


def series(seed: int) -> tuple[list[int], list[float]]:
    """A day's course with noise, and a sensor's usual troubles: it hangs, jumps, weakens, is silent, has no value."""
    draw = random.Random(seed)  # noqa: S311 - repeatable
    times: list[int] = []
    values: list[float] = []
    now, level, noise, hang = START + seed * 30 * 86_400, 15.0, 0.4, 0
    for _ in range(220):
        now += MINUTE * (draw.choice((150, 600)) if draw.random() < 0.02 else 10)
        level += draw.gauss(0, 0.6) + (15 - level) * 0.02
        noise = draw.choice((0.02, 0.1, 0.4, 2)) if draw.random() < 0.03 else noise
        hang = draw.randrange(2, 16) if hang == 0 and draw.random() < 0.03 else max(hang - 1, 0)
        value = values[-1] if hang and values else round(level + draw.gauss(0, noise), 2)
        if draw.random() < 0.03:
            value = draw.choice((float("nan"), value + 8, value - 8, 60.0, -20.0))
        times.append(now)
        values.append(round(value, 2))
    return times, values


def main() -> None:
    """Writes the answers."""
    qartod = importlib.import_module("ioos_qc.qartod")
    made = []
    for seed in range(12):
        times, values = series(seed)
        plain = [None if value != value else value for value in values]  # noqa: PLR0124 - not NaN
        made.append({"times": times, "values": plain, "answers": answers(qartod, times, values)})
    ANSWERS.write_text(json.dumps(made).replace('{"times"', '\n{"times"') + "\n", "utf-8")


if __name__ == "__main__":
    main()
