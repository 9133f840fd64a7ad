"""A month of the town, as a report to print: its cases, its alerts, and how much of it its sensors were heard.

A month is one of this machine's time zone. Cases belong to the month in which they were opened, and alerts to that in
which they began. A sensor is available in an hour in which it had a reading; hours before its first reading that the
store keeps do not count.
"""

import asyncio
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, Field

from gateway.city.alerts.desk import Desk
from gateway.city.alerts.models import Kept
from gateway.city.database.tables import Incident
from gateway.city.incidents.cases import Cases
from gateway.city.incidents.figures import figures, opened
from gateway.city.incidents.models import Shares
from gateway.city.models import iso
from gateway.city.problems import ProblemError
from gateway.city.store.base import HOUR_MS, Heard, SensorKey
from gateway.city.view import View
from gateway.city.wholeness import LINK

_WORST = 20
_SILENCE = "silence"


class MonthRow(Shares):
    """The figures of a part of the cases."""

    name: str | None = Field(description="a class, district or department; null for cases that have none")


class AlertsOfKind(BaseModel):
    """How many alerts of a kind of sensor began, by their gravest severity; ``silence`` is a kind of its own."""

    kind: str
    blue: int
    yellow: int
    orange: int
    red: int


class SensorsOfKind(BaseModel):
    """How much of the month the sensors of a kind were heard."""

    kind: str
    sensors: int
    availability: float | None = Field(description="mean share of the hours with a reading")


class SensorHeard(BaseModel):
    """How much of the month a sensor was heard."""

    id: str
    availability: float


class Month(BaseModel):
    """A month."""

    month: str = Field(examples=["2026-11"])
    start: str
    end: str = Field(description="of the month, or now while it lasts")
    over: bool
    goal_hours: float
    total: Shares
    classes: list[MonthRow]
    districts: list[MonthRow]
    departments: list[MonthRow]
    alerts: list[AlertsOfKind]
    sensors: list[SensorsOfKind]
    worst: list[SensorHeard] = Field(description="the 20 sensors that were heard least, of those that were not always")


async def look(month: str, now: int, view: View, desk: Desk, cases: Cases) -> Month:
    """Makes the report of a month such as ``2026-11``.

    Raises:
        ProblemError: 404 if it has not begun.
        StoreError: If the store, or the file of alerts, does not answer.
        DatabaseError: If the database does not answer.
    """
    start, after = _span(month)
    if start > now:
        raise ProblemError(404, f"The month {month} has not begun.")
    end = min(after, now)
    heard = await view.store.heard(start, end, LINK)
    alerts = await asyncio.to_thread(desk.between, start, end)
    found = await asyncio.to_thread(opened, cases.database, start, end)

    def rows(part: Callable[[Incident], str | None]) -> list[MonthRow]:
        parts: dict[str | None, list[Incident]] = defaultdict(list)
        for case in found:
            parts[part(case)].append(case)
        return [
            MonthRow(name=name, **dataclasses.asdict(figures(some, cases.classes)))
            for name, some in sorted(parts.items(), key=lambda item: (-len(item[1]), item[0] or ""))
        ]

    available = {key: share for key, times in heard.items() if (share := _available(times, start, end)) is not None}
    worst = sorted((share, key.id) for key, share in available.items() if share < 1)
    return Month(
        month=month,
        start=iso(start),
        end=iso(end),
        over=after <= now,
        goal_hours=cases.classes.goal / HOUR_MS,
        total=Shares(**dataclasses.asdict(figures(found, cases.classes))),
        classes=rows(lambda case: case.kind),
        districts=rows(lambda case: case.district),
        departments=rows(lambda case: case.department),
        alerts=_alerts(alerts),
        sensors=_sensors(available),
        worst=[SensorHeard(id=name, availability=round(share, 4)) for share, name in worst[:_WORST]],
    )


def _span(month: str) -> tuple[int, int]:
    year, number = (int(part) for part in month.split("-"))
    first = datetime(year, number, 1).astimezone()
    after = datetime(year + number // 12, number % 12 + 1, 1).astimezone()
    return round(first.timestamp()) * 1000, round(after.timestamp()) * 1000


def _available(times: Heard, start: int, end: int) -> float | None:
    if times.first >= end:
        return None
    begun = max(start, times.first) // HOUR_MS
    return len([hour for hour in times.hours if hour >= begun]) / ((end - 1) // HOUR_MS - begun + 1)


def _sensors(available: dict[SensorKey, float]) -> list[SensorsOfKind]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for key, share in available.items():
        kinds[key.kind].append(share)
    return [
        SensorsOfKind(kind=kind, sensors=len(shares), availability=round(sum(shares) / len(shares), 4))
        for kind, shares in sorted(kinds.items())
    ]


def _alerts(alerts: list[Kept]) -> list[AlertsOfKind]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for alert in alerts:
        events = [event.last for name, event in alert.members.items() if name not in alert.withdrawn]
        if events:
            silent = all(event.quantity == _SILENCE for event in events)
            counts[_SILENCE if silent else events[0].key.kind][alert.severity] += 1
    return [
        AlertsOfKind(kind=kind, **{name: found[name] for name in ("blue", "yellow", "orange", "red")})
        for kind, found in sorted(counts.items(), key=lambda item: -item[1].total())
    ]
