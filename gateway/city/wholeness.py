"""How whole a sensor's readings are: availability, gaps, and how its steps were judged."""

from collections import Counter

from pydantic import BaseModel, Field

from gateway.city.models import SensorOut, iso
from gateway.city.store.base import MISSING, SensorKey, Store, worst

LINK = frozenset({"battery", "rssi", "snr", "margin", "linkquality", "lost_uplinks"})
"""Quantities that a sensor says of itself and of its link: they may come while it measures nothing."""
_STEPS = 1000
_HOUR_MS = 3_600_000
_GAPS = 50


class Gap(BaseModel):
    """A time without any reading; one that lasts ends with the period."""

    start: str
    end: str
    seconds: float


class Wholeness(BaseModel):
    """How much of a period a sensor has readings of.

    A period is cut into steps of two intervals, or longer ones where that would be more than a thousand; whole hours
    where they are longer than half of one.
    """

    id: str
    start: str = Field(description="of the period, or of the sensor's first reading if that is later")
    end: str
    step: float = Field(description="seconds; nothing shorter is seen as a gap")
    availability: float | None = Field(description="share of the steps that have a reading; null without any step")
    flags: dict[str, int] = Field(description="steps by the worst flag in them")
    gaps: list[Gap] = Field(description="the newest 50, newest first")
    gaps_total: int


async def look(store: Store, sensor: SensorOut, start: int, end: int) -> Wholeness:
    """Looks at a sensor's readings of a period, in milliseconds.

    Raises:
        StoreError: If the store does not answer.
    """
    key = SensorKey(sensor.kind, sensor.site, sensor.sensor)
    names = [reading.quantity for reading in sensor.readings]
    measured = [name for name in names if name not in LINK] or names
    firsts = [found[0].time for name in measured if (found := await store.page(key, name, 0, end, 1))]
    start = max(start, min(firsts, default=start))
    step = max(round(2000 * sensor.interval_s), -(-(end - start) // _STEPS), 1)
    if step > _HOUR_MS // 2:
        step = -(-step // _HOUR_MS) * _HOUR_MS
    seen: dict[int, list[int]] = {}
    for name in measured:
        for bucket in await store.buckets(key, name, start, end, step, direction=False):
            seen.setdefault(bucket.time, []).append(bucket.flag)
    # the first step has begun before the period, and the last one may not be over
    steps = range(start // step * step, end - step + 1, step)
    gaps: list[tuple[int, int]] = []
    for at in steps:
        if at not in seen:
            if gaps and gaps[-1][1] == at:
                gaps[-1] = gaps[-1][0], at + step
            else:
                gaps.append((max(at, start), at + step))
    flags = Counter(worst(seen[at]) if at in seen else MISSING for at in steps)
    flags.pop(MISSING, None)
    return Wholeness(
        id=sensor.id,
        start=iso(start),
        end=iso(end),
        step=step / 1000,
        availability=sum(at in seen for at in steps) / len(steps) if steps else None,
        flags={str(flag): number for flag, number in sorted(flags.items())},
        gaps=[Gap(start=iso(a), end=iso(b), seconds=(b - a) / 1000) for a, b in reversed(gaps[-_GAPS:])],
        gaps_total=len(gaps),
    )
