"""The tests of QARTOD, value for value beside its reference implementation, ``ioos_qc``."""

import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.reasons import Reason
from sensors import kinds
from tests.edge import ioos
from tests.edge.inspecting import Inspected

GOOD, UNKNOWN, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
JUDGED = {
    "gross": Reason.GROSS_RANGE | Reason.SUSPECT_RANGE,
    "climatology": Reason.CLIMATOLOGY,
    "gap": Reason.GAP,
    "step": Reason.RATE_OF_CHANGE,
    "flat": Reason.FLAT_LINE,
    "attenuated": Reason.ATTENUATED,
    "differential": Reason.SPIKE,
    "average": Reason.SPIKE,
}
USUAL = [
    {"months": [1, 2], "suspect": (0, 20), "fail": (-5, 25)},
    {"hours": [6, 7, 8, 9, 10, 11], "suspect": (5, 30), "fail": (-10, 40)},
]
LIMITS: dict[str, dict[str, object]] = {
    "gross": {"fail": ioos.GROSS["fail_span"], "suspect": ioos.GROSS["suspect_span"]},
    "climatology": {"climatology": {"usual": USUAL}},
    "gap": {},
    "step": {"step": ioos.STEP},
    "flat": {"flat": {"suspect": "30m", "fail": "90m"}},
    "attenuated": {"attenuated": {"window": "80m", "suspect": ioos.RANGE, "fail": ioos.LEAST_RANGE}},
    "differential": {"spike": {"suspect": ioos.SPIKE}},
    "average": {"spike": {"suspect": ioos.SPIKE, "method": "average"}},
}
TITLE = kinds.Title(zh="", en="", ko="")
PROBE = {
    "probe": kinds.Kind(
        name="probe",
        title=TITLE,
        interval="12m",
        quantities={
            name: kinds.Quantity.model_validate({"title": TITLE, "unit": "", "sensitivity": 0, **limits})
            for name, limits in LIMITS.items()
        },
    )
}
"""Each quantity has one test alone; ten intervals are the two hours of the reference's gap."""

Answers = Mapping[str, Sequence[int]]
Series = tuple[list[int], list[float]]


def ours(times: Sequence[int], values: Sequence[float]) -> dict[str, list[int]]:
    """The flag that each test alone gives each value, in batches of seven."""
    way = Inspected(PROBE)
    found: dict[str, list[int]] = {test: [] for test in JUDGED}
    messages = [
        ("city/east/probe/p1", {"ts": time * 1000} | dict.fromkeys(JUDGED, None if value != value else value))  # noqa: PLR0124 - not NaN
        for time, value in zip(times, values, strict=True)
    ]
    for start in range(0, len(messages), 7):
        readings = way.decode(messages[start : start + 7], times[-1] * 1000)
        way.inspector.inspect(readings)
        for place, test in enumerate(JUDGED):
            flags, reasons = readings.flag[place :: len(JUDGED)], readings.reason[place :: len(JUDGED)]
            for flag, reason in zip(flags.tolist(), reasons.tolist(), strict=True):
                if flag != MISSING:
                    assert reason & ~JUDGED[test] & ~Reason.GAP == 0
                    assert bool(reason & ~Reason.GAP) == (flag != GOOD)
                found[test].append(FAIL if test == "gap" and reason & Reason.GAP else flag)
    return found


def compare(times: Sequence[int], values: Sequence[float], theirs: Answers) -> None:
    here = ours(times, values)
    finite = [place for place, value in enumerate(values) if value == value]  # noqa: PLR0124 - not NaN
    assert here["gross"] == theirs["gross"]
    assert [here["climatology"][place] for place in finite] == [
        GOOD if theirs["climatology"][place] == UNKNOWN else theirs["climatology"][place] for place in finite
    ], "what no range is for passes"
    assert [here["step"][place] for place in finite] == theirs["step"]
    assert [here["gap"][place] for place in finite][1:] == theirs["gap"][1:], "theirs gives the first the second's"
    gaps = [here["gap"][place] == FAIL for place in finite]
    for method in ("differential", "average"):
        for place, flag, gap, gap_before in zip(finite[2:], theirs[method], gaps[2:], gaps[1:], strict=False):
            assert here[method][place] == (GOOD if gap or gap_before else flag), "no spike is seen across a gap"
    regular = [times[0] + 600 * place for place in range(len(finite))]
    assert ours(regular, [values[place] for place in finite])["flat"] == theirs["flat"]

    since: int | None = None
    for place, narrow, wide in zip(
        finite, theirs["attenuated"], theirs["attenuated for an eighth longer"], strict=True
    ):
        now, flag = times[place], here["attenuated"][place]
        recent = [times[other] for other in finite if now - ioos.WINDOW * 9 // 8 < times[other] <= now]
        since = now if len(recent) == 1 else since
        severity = {GOOD: 0, SUSPECT: 1, FAIL: 2}
        assert severity[flag] <= severity[narrow], "what is called attenuated is so over the window"
        if since is not None and now - since >= ioos.WINDOW and len(recent) > 8:
            assert severity[flag] >= severity[wide], "what is so for an eighth longer is called so"


@pytest.mark.parametrize("number", range(12))
def test_each_test_says_what_the_reference_says(number: int) -> None:
    one = json.loads(ioos.ANSWERS.read_text("utf-8"))[number]
    values = [nan if value is None else value for value in one["values"]]
    compare(one["times"], values, one["answers"])


VALUES = st.sampled_from([nan, 1.0, 1.25, 3.0, 12.5, -3.0, 24.0, 31.0, 41.5]) | st.integers(-1500, 4500).map(
    lambda hundredths: hundredths / 100
)
RANDOM = st.lists(st.tuples(st.sampled_from([1, 10, 10, 10, 10, 119, 120, 121, 600]), VALUES), min_size=5, max_size=60)


@pytest.mark.skipif(
    importlib.util.find_spec("ioos_qc") is None, reason="ioos_qc is not installed; see tests/edge/ioos.py"
)
@settings(deadline=None)
@given(RANDOM)
def test_each_test_says_of_random_series_what_the_reference_says(steps: list[tuple[int, float]]) -> None:
    times = [ioos.START]
    for minutes, _ in steps[1:]:
        times.append(times[-1] + minutes * ioos.MINUTE)
    values = [1.0, 2.0, *(value for _, value in steps[2:])]
    compare(times, values, ioos.answers(importlib.import_module("ioos_qc.qartod"), times, values))
