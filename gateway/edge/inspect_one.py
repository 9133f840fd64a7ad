"""Inspect, one value after another in plain numbers: for few values array operations cost many times as much.

The tests are those of `gateway.edge.inspect`, in the same order, and say the same.
"""

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

from gateway.edge.readings import Rules
from gateway.edge.reasons import Reason

NEVER = float(-(1 << 62))  # ms; before any reading
MINUTE = 60_000  # ms; a step is allowed once within it, however soon it comes

_MISSING, _GROSS_RANGE, _SUSPECT_RANGE = int(Reason.MISSING), int(Reason.GROSS_RANGE), int(Reason.SUSPECT_RANGE)
_FUTURE, _GAP, _RATE_OF_CHANGE = int(Reason.FUTURE), int(Reason.GAP), int(Reason.RATE_OF_CHANGE)
_SPIKE, _FLAT_LINE = int(Reason.SPIKE), int(Reason.FLAT_LINE)
_OUT_OF_ORDER, _DUPLICATE_TIME = int(Reason.OUT_OF_ORDER), int(Reason.DUPLICATE_TIME)
_SENDER_BAD = int(Reason.SENDER_BAD)


class Limits(NamedTuple):
    """The limits of a rule; see `Rules` for each."""

    fail_low: float
    fail_high: float
    suspect_low: float
    suspect_high: float
    gap: float
    step: float
    direction: bool
    spike: float
    averages: bool
    unspiky: float
    tolerance: float
    exempt_low: float
    exempt_high: float
    flat_suspect: float
    flat_fail: float
    unjudged: int
    sensitivity: float
    diagnostic: bool
    attenuated: bool
    climatology: bool

    @classmethod
    def of(cls, rules: Rules, rule: int) -> "Limits":
        """Those of one rule."""
        own = [getattr(rules, name)[rule].tolist() for name in cls._fields[:-2]]
        return cls._make([*own, rules.attenuation[rule] is not None, rules.climatology[rule] is not None])


class Tested(NamedTuple):
    """What the tests of a value by itself and by those before it say.

    Attributes:
        reason: Bit set of ``Reason``.
        failed: Whether it fails.
        ill: Whether it is missing or impossible.
        newer: Whether it is newer than the last one.
        kept: Whether it is what the next one is compared with.
        again: Whether it is the last one once more.
        another: Whether it is another value for the time of the last one.
        unmoved: For how long it has been as it is, ms.
        past: What the next value is compared with, as in the state.
    """

    reason: int
    failed: bool
    ill: bool
    newer: bool
    kept: bool
    again: bool
    another: bool
    unmoved: float
    past: Sequence[float]


def tested(  # noqa: C901, PLR0912 - the tests, one after another
    limits: Limits, past: Sequence[float], time: int, value: float, reason: int
) -> Tested:
    """Tests a value.

    Args:
        limits: Of its rule.
        past: What it is compared with, as in the state.
        time: Observed, ms UTC.
        value: In the kind's unit; NaN where missing.
        reason: What is known of it already.
    """
    last_time, last_value, value_before_last, still_since, still_value = past
    missing = value != value  # noqa: PLR0124 - NaN
    gross = value < limits.fail_low or value > limits.fail_high
    wrong = gross or bool(reason & _SENDER_BAD)
    ill = missing or wrong
    if missing or gross:
        reason |= _MISSING if missing else _GROSS_RANGE
    if value < limits.suspect_low or value > limits.suspect_high:
        reason |= _SUSPECT_RANGE

    elapsed = time - last_time
    newer = elapsed > 0 and not missing and not reason & _OUT_OF_ORDER
    kept = newer and not wrong and not reason & _FUTURE
    again = another = gap = False
    unmoved, since, moved = 0.0, still_since, False
    if newer:
        if elapsed > limits.gap and last_time != NEVER:
            gap = True
            reason |= _GAP
        change = abs(value - last_value)
        if limits.direction:
            change = min(change, 360 - change)
        if change > limits.step * (max(elapsed, MINUTE) / MINUTE):
            reason |= _RATE_OF_CHANGE
        if change > limits.unspiky and not gap and _spiky(limits, value, last_value, value_before_last):
            reason |= _SPIKE
        moved = value != last_value
        if limits.tolerance > 0:
            moved = not abs(value - still_value) <= limits.tolerance
        if moved:
            since = time
        unmoved = time - since
    elif elapsed < 0:
        reason |= _OUT_OF_ORDER
    elif elapsed == 0:
        again = value == last_value
        another = not again
        if another:
            reason |= _DUPLICATE_TIME
    still = 0 if value <= limits.exempt_low or value >= limits.exempt_high else unmoved
    if still >= limits.flat_suspect:
        reason |= _FLAT_LINE
    failed = wrong or still >= limits.flat_fail
    if kept:
        past = (time, value, nan if gap else last_value, since, value if moved else still_value)
    return tuple.__new__(Tested, (reason, failed, ill, newer, kept, again, another, unmoved, past))


def _spiky(limits: Limits, value: float, before: float, two_before: float) -> bool:
    near, far = value - before, value - two_before
    beyond = min(abs(near), abs(far)) if near * far > 0 else 0.0
    if limits.averages:
        beyond = abs(value - (before + two_before) / 2)
    return beyond > limits.spike
