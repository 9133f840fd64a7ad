"""Cases that open and close by themselves: from alerts, and from faults and silences of sensors.

- An alert, which is all events of one cause, of the severity ``open_at`` or worse opens a case of the class that names
  its kind of sensor. It is filed and dispatched by rule.
- A sensor one of whose quantities has done nothing but fail for ``fault_after``, that is silent, or whose alert a
  verdict took back, opens a maintenance case. It closes by itself once the sensor has been well for ``healthy_for``.
- A case of an alert closes by itself when that has been over for ``healthy_for`` and nobody has begun to handle it;
  one that has been handled is confirmed so, in place of somebody's verification.

What has been seen for how long is known from looking: after a restart both times begin anew.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from gateway.city.alerts.desk import Desk
from gateway.city.alerts.models import AlertOut
from gateway.city.auth.people import now_ms
from gateway.city.database.engine import DatabaseError
from gateway.city.database.tables import Incident, IncidentEvent
from gateway.city.incidents.cases import ALERT, VIEW, Cases, Report
from gateway.city.incidents.states import OPEN, State
from gateway.city.models import SensorOut
from gateway.city.store.base import StoreError
from gateway.city.view import View
from gateway.config import CasesSection

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_SILENCE = "silence"
_FAIL = 4
_SEVERITIES = ("blue", "yellow", "orange", "red")
_UNTOUCHED = frozenset({State.REPORTED, State.FILED, State.DISPATCHED})


@dataclass(slots=True, frozen=True)
class Seen:
    """What there is at one look.

    Attributes:
        alerts: Alerts that have not ended.
        silent: What was said of sensors that are silent, by their ids.
        told: What verdicts said of sensors whose alerts they took back.
        sensors: Sensors by id.
        at: The time, in milliseconds.
    """

    alerts: list[AlertOut]
    silent: dict[str, str]
    told: dict[str, str]
    sensors: dict[str, SensorOut]
    at: int


@dataclass(slots=True, frozen=True)
class Opening:
    """Why a case opens, and of which class."""

    source: str
    kind: str
    text: str
    alert: AlertOut | None


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
        desk: Its alerts.
        config: When cases open and close.
    """

    def __init__(self, cases: Cases, view: View, desk: Desk, config: CasesSection) -> None:
        self._cases = cases
        self._view = view
        self._desk = desk
        self._config = config
        self._failing = _Since()
        self._well = _Since()
        self._calm = _Since()
        self._told: set[str] = set()  # sensors whose fault has had its case

    def recall(self) -> None:
        """Puts the sensors with an open case of their fault into maintenance.

        Raises:
            DatabaseError: If the database does not answer.
        """
        wanted = select(Incident.sensor, Incident.id).where(
            Incident.source == "fault", Incident.state.in_([state.value for state in OPEN])
        )
        with self._cases.database.read() as transaction:
            found = transaction.execute(wanted).all()
        self._view.maintenance.cases = {sensor: number for sensor, number in found if sensor is not None}

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
        await self._desk.look()
        snapshot, now = await self._view.snapshot(), now_ms()
        alerts = self._desk.alerts()
        silent = {  # also those whose alert their own case has ended
            event.sensor_id: event.message
            for alert in alerts
            for event in alert.events
            if event.quantity == _SILENCE and event.until is None
        }
        alerts = [alert for alert in alerts if alert.state != "ended"]
        sensors = {sensor.id: sensor for sensor in self._view.sensors(snapshot, now)}
        return Seen(alerts, silent, dict(self._desk.faults.told), sensors, now)

    def look(self, seen: Seen) -> None:
        """Opens, joins and closes what is due.

        Raises:
            DatabaseError: If the database does not answer.
        """
        silent = seen.silent
        failing = {sensor.id for sensor in seen.sensors.values() if _failing(sensor) and sensor.state == "fresh"}
        self._failing.hold(failing, seen.at)
        faulty = (
            silent.keys()
            | seen.told.keys()
            | {key for key in failing if self._failing.longer(key, self._config.fault_after, seen.at)}
        )
        self._well.hold({key for key, sensor in seen.sensors.items() if _well(sensor)} - silent.keys(), seen.at)
        with self._cases.database.write() as transaction:
            opened = list(
                transaction.scalars(select(Incident).where(Incident.state.in_([state.value for state in OPEN])))
            )
            self._follow_alerts(transaction, seen, opened)
            self._follow_faults(transaction, seen, opened, faulty, silent)
        for sensor in seen.told:
            self._desk.faults.told.pop(sensor, None)
        self.recall()

    def _follow_alerts(self, transaction: Transaction, seen: Seen, opened: list[Incident]) -> None:
        alerts = {f"{ALERT}{alert.id}": alert for alert in seen.alerts if not _silences(alert)}
        belonging = select(IncidentEvent).where(IncidentEvent.event.in_(alerts))
        known = {item.event: item.incident_id for item in transaction.scalars(belonging)}
        cases = {case.id: case for case in opened if case.source == "event"}
        for key, alert in alerts.items():
            kind = self._cases.classes.of_kind.get(alert.events[0].kind)
            if key in known:
                case = cases.get(known[key])
                if case is not None and _rank(alert.severity) > _rank(case.severity or ""):
                    self._cases.graver(transaction, case, alert.severity)
            elif kind is not None and _rank(alert.severity) >= _rank(self._config.open_at):
                first = alert.events[0]
                case = self._open(
                    transaction, seen, first.sensor_id, first.site, Opening("event", kind, first.message, alert)
                )
                transaction.add(IncidentEvent(event=key, incident_id=case.id))
                known[key] = case.id
        self._calm.hold({str(number) for number in cases.keys() - set(known.values())}, seen.at)
        for number, case in cases.items():
            if not self._calm.longer(str(number), self._config.healthy_for, seen.at):
                continue
            if case.state in _UNTOUCHED:
                self._cases.over(transaction, case, "over", by_itself=True)
            elif case.state == State.VERIFYING:
                self._cases.over(transaction, case, "confirm", by_itself=False)

    def _follow_faults(
        self, transaction: Transaction, seen: Seen, opened: list[Incident], faulty: set[str], silent: dict[str, str]
    ) -> None:
        kind = self._cases.classes.of_faults
        cases = {case.sensor: case for case in opened if case.source == "fault" and case.sensor}
        self._told = (self._told & faulty) | (cases.keys() & faulty)
        for sensor in sorted(faulty - self._told) if kind else ():
            text = silent.get(sensor) or seen.told.get(sensor)
            text = text or f"every value fails: {', '.join(_failing(seen.sensors[sensor]))}"
            site = seen.sensors[sensor].site if sensor in seen.sensors else sensor.split(":")[1]
            self._open(transaction, seen, sensor, site, Opening("fault", str(kind), text, None))
            self._told.add(sensor)
        for sensor, case in cases.items():
            young = seen.at - case.opened < self._config.healthy_for * 1000
            if sensor not in faulty and not young and self._well.longer(sensor, self._config.healthy_for, seen.at):
                self._cases.over(transaction, case, "over", by_itself=True)

    def _open(self, transaction: Transaction, seen: Seen, sensor: str, site: str, opening: Opening) -> Incident:
        place = seen.sensors.get(sensor)
        lat, lon = (place.lat, place.lon) if place else (None, None)
        report = Report(
            source=opening.source,
            kind=opening.kind,
            text=opening.text,
            severity=None if opening.alert is None else opening.alert.severity,
            district=None if lat is None or lon is None else self._view.district(lon, lat),
            site=site,
            sensor=sensor,
            lat=lat,
            lon=lon,
        )
        detail = {} if opening.alert is None else {"alert": opening.alert.id, "sites": opening.alert.sites}
        incident = self._cases.opened(transaction, report, VIEW, detail)
        self._cases.handed_on(transaction, incident)
        return incident


def _silences(alert: AlertOut) -> bool:
    return all(event.quantity == _SILENCE for event in alert.events)


def _failing(sensor: SensorOut) -> list[str]:
    return [reading.quantity for reading in sensor.readings if reading.flag == _FAIL]


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else -1


def _well(sensor: SensorOut) -> bool:
    return sensor.state == "fresh" and not _failing(sensor)
