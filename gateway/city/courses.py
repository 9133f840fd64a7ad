"""The course of a quantity over the last day, at all sensors of a kind, and what is usual for this hour.

The store is asked once in five minutes for each quantity, however many pages show it, and only for hours that it has
not told: the days before are asked for when an hour begins.
"""

import asyncio
import time
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from gateway.city.grades.noise import equivalent
from gateway.city.models import iso
from gateway.city.store.base import Means, SensorKey, Store

HOURS, DAYS = 24, 7
_HOUR_MS = 3_600_000
_AGE_S = 300.0


class Course(BaseModel):
    """A sensor's last day."""

    id: str = Field(examples=["traffic:old-town:traffic-03"])
    points: list[tuple[int, float]] = Field(
        description="ms at which an hour begins, and its mean (equivalent level in dB); the last hour runs",
        examples=[[[1795957200000, 41.5]]],
    )
    usual: float | None = Field(description="mean of this hour of the day on the days before", examples=[44.0])
    days: int = Field(description="how many of the seven days before have that hour", examples=[7])


class CoursesOut(BaseModel):
    """The last day of a kind's sensors."""

    time: str
    kind: str = Field(examples=["traffic"])
    quantity: str = Field(examples=["speed"])
    unit: str = Field(examples=["km/h"])
    courses: list[Course]


@dataclass(slots=True)
class _Kept:
    hour: int = -1
    full: Means = field(default_factory=dict)
    usual: dict[SensorKey, list[float]] = field(default_factory=dict)
    made: CoursesOut | None = None
    at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Courses:
    """Courses that are kept for five minutes.

    Args:
        store: Where readings are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def look(self, kind: str, quantity: str, unit: str, now: int) -> CoursesOut:
        """The last day of a quantity that is no direction; ``now`` is in milliseconds.

        Raises:
            StoreError: If the store does not answer.
        """
        kept = self._kept.setdefault((kind, quantity), _Kept())
        async with kept.lock:
            if kept.made is None or time.monotonic() - kept.at >= _AGE_S or kept.hour != now // _HOUR_MS:
                kept.made = await self._make(
                    kept, CoursesOut(time=iso(now), kind=kind, quantity=quantity, unit=unit, courses=[]), now
                )
                kept.at = time.monotonic()
            return kept.made

    async def _make(self, kept: _Kept, out: CoursesOut, now: int) -> CoursesOut:
        name, hour = out.quantity, now // _HOUR_MS
        decibels = out.unit.startswith("dB")

        async def ask(first: int, last: int) -> Means:
            span = first * _HOUR_MS, last * _HOUR_MS
            return await self._store.means(out.kind, [name], *span, _HOUR_MS, energy=decibels)

        if kept.hour != hour:
            full = await ask(hour - HOURS + 1, hour)
            usual: dict[SensorKey, list[float]] = {}
            for day in range(1, DAYS + 1):
                for (key, _), means in (await ask(hour - 24 * day, hour - 24 * day + 1)).items():
                    usual.setdefault(key, []).append(means[0].mean)
            kept.full, kept.usual, kept.hour = full, usual, hour
        running = await ask(hour, hour + 1)
        for key in sorted({key for key, _ in (*kept.full, *running)} | set(kept.usual)):
            means = [*kept.full.get((key, name), []), *running.get((key, name), [])]
            days = kept.usual.get(key, [])
            mean = equivalent((level, 1) for level in days) if decibels else sum(days) / max(1, len(days))
            out.courses.append(
                Course(
                    id=key.id,
                    points=[(step.time, step.mean) for step in means],
                    usual=mean if days else None,
                    days=len(days),
                )
            )
        return out
