"""The town as it was: the state of all sensors, and the events that were open, at a time in the past."""

import asyncio

from pydantic import BaseModel, Field

from gateway.city.models import EventOut, State, iso
from gateway.city.store.base import Event, LatestSensor, worst
from gateway.city.view import View, event, state

RESOLUTION_MS = 10_000
"""Times are rounded down to this: what changes within is not told apart."""
_READINGS_MS = 86_400_000
_EVENTS_MS = 7 * 86_400_000
_EVENTS = 200
_GRAVITY = ("blue", "yellow", "orange", "red")


class PastSensor(BaseModel):
    """A sensor as it was."""

    id: str
    state: State
    flag: int
    severity: str | None = Field(description="of its gravest open event")
    time: str = Field(description="of its newest reading then")
    values: dict[str, float | None]


class Past(BaseModel):
    """The town at ``time``."""

    time: str
    resolution_s: float
    sensors: list[PastSensor] = Field(description="those with a reading within the day before")
    events: list[EventOut] = Field(description="open then, and with a point within the week before: the gravest 200")


async def look(view: View, at: int) -> Past:
    """Looks at the town at a time in milliseconds, which is rounded down to the resolution.

    Raises:
        StoreError: If the store does not answer.
    """
    at -= at % RESOLUTION_MS
    sensors = await view.store.latest_at(at, at - _READINGS_MS)
    events = [found for found in await view.store.events_at(at, at - _EVENTS_MS) if found.until is None]
    return await asyncio.to_thread(_told, view, at, sensors, events)


def _told(view: View, at: int, sensors: list[LatestSensor], events: list[Event]) -> Past:
    gravest: dict[str, str] = {}
    for found in sorted(events, key=_gravity):
        gravest[found.last.key.id] = found.last.severity
    return Past(
        time=iso(at),
        resolution_s=RESOLUTION_MS / 1000,
        sensors=[
            _sensor(view, latest, at, gravest.get(latest.key.id))
            for latest in sorted(sensors, key=lambda latest: latest.key)
        ],
        events=[event(found) for found in sorted(events, key=_gravity, reverse=True)[:_EVENTS]],
    )


def _sensor(view: View, latest: LatestSensor, at: int, severity: str | None) -> PastSensor:
    newest = max(reading.time for reading in latest.readings.values())
    return PastSensor(
        id=latest.key.id,
        state=state((at - newest) / 1000, view.interval(latest.key)),
        flag=worst(reading.flag for reading in latest.readings.values()),
        severity=severity,
        time=iso(newest),
        values={name: reading.value for name, reading in latest.readings.items()},
    )


def _gravity(found: Event) -> int:
    severity = found.last.severity
    return _GRAVITY.index(severity) if severity in _GRAVITY else -1
