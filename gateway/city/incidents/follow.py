"""Cases that open and close by themselves: from events, and from faults and silences of sensors.

- An event of the severity ``open_at`` or worse opens a case of its kind's class, which is filed and dispatched by rule.
  Further events of the same class at the same site join the case as long as it is open.
- A sensor one of whose quantities has done nothing but fail for ``fault_after``, or that is silent, opens a maintenance
  case. It closes by itself once the sensor has been well for ``healthy_for``.
- A case of events closes by itself when they have all been over for ``healthy_for`` and nobody has begun to handle it;
  one that has been handled is confirmed so, in place of somebody's verification.

What has been seen for how long is known from looking: after a restart both times begin anew.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from gateway.city.auth.people import now_ms
from gateway.city.database.engine import DatabaseError
from gateway.city.database.tables import Incident, IncidentEvent
from gateway.city.incidents.cases import Cases, Report
from gateway.city.incidents.states import OPEN, State
from gateway.city.models import SensorOut
from gateway.city.store.base import Event, StoreError
from gateway.city.view import View
from gateway.config import CasesSection

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_EVENTS = 1000
_SILENCE = "silence"
_FAIL = 4
_SEVERITIES = ("blue", "yellow", "orange", "red")
_UNTOUCHED = frozenset({State.REPORTED, State.FILED, State.DISPATCHED})


@dataclass(slots=True, frozen=True)
class Seen:
    """What there is at one look.

    Attributes:
        events: Events that have not ended.
        sensors: Sensors by id.
        at: The time, in milliseconds.
    """

    events: list[Event]
    sensors: dict[str, SensorOut]
    at: int


@dataclass(slots=True)
class _Since:
    """For how long something has been so, by key."""

    begun: dict[str, int] = field(default_factory=dict)

    def hold(self, keys: set[str], now: int) -> None:
        self.begun = {key: self.begun.get(key, now) for key in keys}

    def longer(self, key: str, than_s: float, now: int) -> bool:
        return key in self.begun and now - self.begun[key] >= than_s * 1000


class Follower:
    """Looks at the city every few seconds.

    Args:
        cases: The cases.
        view: The city as it is now.
        config: When cases open and close.
    """

    def __init__(self, cases: Cases, view: View, config: CasesSection) -> None:
        self._cases = cases
        self._view = view
        self._config = config
        self._failing = _Since()
        self._well = _Since()
        self._calm = _Since()
        self._told: set[str] = set()  # sensors whose fault has had its case

    async def run(self) -> None:
        """Looks until it is cancelled; a store or database that does not answer is asked again."""
        failing = False
        while True:
            try:
                await asyncio.to_thread(self.look, await self.see())
                failing = False
            except (StoreError, DatabaseError) as error:
                if not failing:
                    _LOG.warning("cases wait: %s", error)
                failing = True
            except Exception:  # noqa: BLE001 - one bad look must not end all later ones
                _LOG.exception("cases missed a look at the city")
            await asyncio.sleep(_EVERY_S)

    async def see(self) -> Seen:
        """What there is now.

        Raises:
            StoreError: If the store does not answer.
        """
        snapshot, now = await self._view.snapshot(), now_ms()
        events = await self._view.store.events(_EVENTS, open_only=True)
        return Seen(events, {sensor.id: sensor for sensor in self._view.sensors(snapshot, now)}, now)

    def look(self, seen: Seen) -> None:
        """Opens, joins and closes what is due.

        Raises:
            DatabaseError: If the database does not answer.
        """
        silent = {event.last.key.id for event in seen.events if event.last.quantity == _SILENCE}
        failing = {
            sensor.id
            for sensor in seen.sensors.values()
            if any(reading.flag == _FAIL for reading in sensor.readings) and sensor.state == "fresh"
        }
        self._failing.hold(failing, seen.at)
        faulty = silent | {key for key in failing if self._failing.longer(key, self._config.fault_after, seen.at)}
        self._well.hold({key for key, sensor in seen.sensors.items() if _well(sensor)} - silent, seen.at)
        with self._cases.database.write() as transaction:
            opened = list(
                transaction.scalars(select(Incident).where(Incident.state.in_([state.value for state in OPEN])))
            )
            self._follow_events(transaction, seen, opened)
            self._follow_faults(transaction, seen, opened, faulty, silent)

    def _follow_events(self, transaction: Transaction, seen: Seen, opened: list[Incident]) -> None:
        found = [event for event in seen.events if event.last.quantity != _SILENCE]
        belonging = select(IncidentEvent).where(IncidentEvent.event.in_([event.last.id for event in found]))
        known = {item.event: item.incident_id for item in transaction.scalars(belonging)}
        for event in found:
            kind = self._cases.classes.of_kind.get(event.last.key.kind)
            if kind is None or _rank(event.last.severity) < _rank(self._config.open_at) or event.last.id in known:
                continue
            incident = next(
                (
                    case
                    for case in opened
                    if (case.source, case.kind, case.site) == ("event", kind, event.last.key.site)
                ),
                None,
            )
            if incident is None:
                incident = self._open(transaction, seen, event.last.key.id, "event", kind, event)
                opened.append(incident)
            else:
                self._cases.joined(transaction, incident, event.last.message, event.last.severity)
            transaction.add(IncidentEvent(event=event.last.id, incident_id=incident.id))
            known[event.last.id] = incident.id
        busy = {str(number) for number in known.values()}
        cases = {str(case.id): case for case in opened if case.source == "event"}
        self._calm.hold(cases.keys() - busy, seen.at)
        for key, case in cases.items():
            if not self._calm.longer(key, self._config.healthy_for, seen.at):
                continue
            if case.state in _UNTOUCHED:
                self._cases.over(transaction, case, "over", by_itself=True)
            elif case.state == State.VERIFYING:
                self._cases.over(transaction, case, "confirm", by_itself=False)

    def _follow_faults(
        self, transaction: Transaction, seen: Seen, opened: list[Incident], faulty: set[str], silent: set[str]
    ) -> None:
        kind = self._cases.classes.of_faults
        cases = {case.sensor: case for case in opened if case.source == "fault" and case.sensor}
        self._told = (self._told & faulty) | (cases.keys() & faulty)
        for sensor in sorted(faulty - self._told) if kind else ():
            event = next((event for event in seen.events if event.last.key.id == sensor and sensor in silent), None)
            self._open(transaction, seen, sensor, "fault", str(kind), event)
            self._told.add(sensor)
        for sensor, case in cases.items():
            if sensor not in faulty and self._well.longer(sensor, self._config.healthy_for, seen.at):
                self._cases.over(transaction, case, "over", by_itself=True)

    def _open(  # noqa: PLR0913, PLR0917 - what is known of it
        self, transaction: Transaction, seen: Seen, sensor: str, source: str, kind: str, event: Event | None
    ) -> Incident:
        place = seen.sensors.get(sensor)
        lat, lon = (place.lat, place.lon) if place else (None, None)
        if event is not None:
            text = event.last.message or f"{event.last.key.kind} {event.last.quantity}"
        else:
            readings = place.readings if place else []
            failing = ", ".join(reading.quantity for reading in readings if reading.flag == _FAIL)
            text = f"the filter fails every value of {failing}"
        report = Report(
            source=source,
            kind=kind,
            text=text,
            severity=event.last.severity if event is not None and source == "event" else None,
            district=None if lat is None or lon is None else self._view.district(lon, lat),
            site=place.site if place else event.last.key.site if event else None,
            sensor=sensor,
            lat=lat,
            lon=lon,
        )
        incident = self._cases.opened(transaction, report, "citygate")
        self._cases.handed_on(transaction, incident)
        return incident


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else -1


def _well(sensor: SensorOut) -> bool:
    return sensor.state == "fresh" and all(reading.flag != _FAIL for reading in sensor.readings)
