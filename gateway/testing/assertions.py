"""Assertions about what was stored, whose failures show the difference in the words of the field."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from gateway.testing.golden import difference
from gateway.testing.points import Ledger, Stored, text
from gateway.words import iso

Time = int | str | datetime
Expected = tuple[Time, float | str | None, str] | tuple[Time, float | str | None, str, str]
_EXAMPLES = 5


def assert_stored(points: Sequence[Stored], expected: Iterable[Expected]) -> None:
    """Holds that a channel has exactly these readings.

    Args:
        points: Readings of one quantity of one sensor, as of ``store.points(sensor="a1", quantity="pm25")``.
        expected: Time (ISO 8601, datetime, or ms UTC), value (None for a missing one), flag and, if it matters, reason.
            Values are compared to twelve digits.

    Raises:
        AssertionError: With the difference.
    """
    __tracebackhide__ = True
    channels = sorted({f"{point.site}/{point.kind}/{point.sensor} {point.quantity}" for point in points})
    if len(channels) > 1:
        some = ", ".join(channels[:_EXAMPLES])
        msg = f"readings of {len(channels)} channels ({some}): ask for one by sensor and quantity"
        raise AssertionError(msg)
    wanted: list[str] = []
    unreasoned: set[int] = set()
    for time, value, flag, *reason in expected:
        moment = _ms(time)
        wanted.append(f"{iso(moment)}  {text(value)}  {flag}  {''.join(reason)}".rstrip())
        if not reason:
            unreasoned.add(moment)
    stored = [str(point._replace(reason="") if point.time in unreasoned else point) for point in points]
    if found := difference(wanted, stored):
        msg = f"other readings than expected of {channels[0] if channels else 'a channel that has none'}\n{found}"
        raise AssertionError(msg)


def assert_flags(points: Sequence[Stored], **counts: int) -> None:
    """Holds that of these readings so many have each flag, and none another one.

    Args:
        points: Readings of any channels.
        counts: Flag → how many: ``assert_flags(points, good=143, fail=1)``.

    Raises:
        AssertionError: With examples of each flag that occurs more or less often.
    """
    __tracebackhide__ = True
    found = Counter(point.flag for point in points)
    lines = []
    for flag in sorted({*found, *counts}):
        if found[flag] != counts.get(flag, 0):
            lines.append(f"{flag or 'not judged'}: {found[flag]}, expected {counts.get(flag, 0)}")
            such = [point for point in points if point.flag == flag]
            lines += [
                f"    {point.site}/{point.kind}/{point.sensor} {point.quantity}  {point}" for point in such[:_EXAMPLES]
            ]
            lines += [f"    … {len(such) - _EXAMPLES} more"] * (len(such) > _EXAMPLES)
    if lines:
        raise AssertionError("\n".join(["other flags than expected", *lines]))


def assert_ledger(ledger: Ledger, **fates: int) -> None:
    """Holds that the ledger adds up, and that so many readings have each of these fates.

    Args:
        ledger: Of a gateway or a replay.
        fates: Fate, or ``received``, → how many: ``assert_ledger(ledger, received=144, quarantined=1)``.

    Raises:
        AssertionError: With the ledger.
    """
    __tracebackhide__ = True
    lines = ledger.imbalance()
    lines += [f"{fate}: {ledger[fate]}, expected {count}" for fate, count in fates.items() if ledger[fate] != count]
    if lines:
        raise AssertionError("\n".join(["the ledger is not as expected", *lines, str(ledger)]))


def _ms(time: Time) -> int:
    if isinstance(time, int):
        return time
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    if moment.tzinfo is None:
        msg = f"{time} has no offset from UTC; write it as 2026-03-01T08:00:00+08:00 or with a Z"
        raise ValueError(msg)
    return round(moment.timestamp() * 1000)
