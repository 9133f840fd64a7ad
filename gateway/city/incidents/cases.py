"""What is done to cases: each step in one transaction, together with its line in the case's history."""

import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, select
from sqlalchemy.orm import Session as Transaction
from sqlalchemy.orm import selectinload

from gateway.city.auth.people import now_ms
from gateway.city.auth.rights import Caller, Role
from gateway.city.database.engine import Database
from gateway.city.database.tables import Incident, IncidentEvent, IncidentPhoto, IncidentStep
from gateway.city.incidents.classes import Class, Classes
from gateway.city.incidents.states import APPROVED, ENDED, OPEN, PHOTOS, STEPS, State, Step, possible
from gateway.city.problems import ProblemError

VIEW = "citygate"
"""Who files, dispatches and closes what needs nobody."""
ALERT = "alert:"
"""Begins the name by which an alert is kept with its case."""
_ANYBODY = Caller("public", Role.VIEWER, "")
_PHOTOS, _PHOTO_MS = 3, 900_000
_STAFF_PHOTOS = 20
_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # none that is easily mistaken for another


@dataclass(slots=True, frozen=True)
class Report:
    """What a case begins with."""

    source: str
    kind: str
    text: str
    severity: str | None = None
    district: str | None = None
    site: str | None = None
    sensor: str | None = None
    lat: float | None = None
    lon: float | None = None


@dataclass(slots=True, frozen=True)
class Wish:
    """What somebody wants done to a case.

    Attributes:
        action: A step of the table.
        note: The reason, or what was done, in words.
        department: To whom it is dispatched; by rule if there is none.
        hours: By how much it is extended, or for how long it is deferred.
        into: The case that it is a duplicate of.
        entered: When the stage began that the wisher saw, so that two people do not act on one another's state.
    """

    action: str
    note: str = ""
    department: str | None = None
    hours: float | None = None
    into: int | None = None
    entered: int | None = None


@dataclass(slots=True, frozen=True)
class Photo:
    """What is known of a photograph; ``stage`` is ``report``, ``before`` or ``after``."""

    id: int
    stage: str
    time: int
    who: str


class Cases:
    """The cases.

    Args:
        database: The database.
        classes: Departments, classes and limits.
    """

    def __init__(self, database: Database, classes: Classes) -> None:
        self.database = database
        self.classes = classes

    def find(  # noqa: PLR0913 - the query's parameters
        self,
        caller: Caller,
        *,
        states: frozenset[State],
        kind: str | None,
        department: str | None,
        district: str | None,
        sensor: str | None,
        late: bool,
        before: int | None,
        limit: int,
    ) -> list[Incident]:
        """The newest cases that the caller may see, newest first."""
        wanted = select(Incident).where(_seen_by(caller), Incident.state.in_([state.value for state in states]))
        for column, value in (
            (Incident.kind, kind),
            (Incident.department, department),
            (Incident.district, district),
            (Incident.sensor, sensor),
        ):
            if value is not None:
                wanted = wanted.where(column == value)
        if late:
            wanted = wanted.where(Incident.due < now_ms())
        if before is not None:
            wanted = wanted.where(Incident.id < before)
        with self.database.read() as transaction:
            return list(transaction.scalars(wanted.order_by(Incident.id.desc()).limit(limit)))

    def version(self) -> int:
        """Grows with every step of a case."""
        with self.database.read() as transaction:
            return transaction.scalar(select(func.max(IncidentStep.id))) or 0

    def alerts(self, incidents: Iterable[Incident]) -> dict[int, list[str]]:
        """The ids of the alerts that belong to cases, by the case's id."""
        wanted = select(IncidentEvent).where(IncidentEvent.incident_id.in_([item.id for item in incidents]))
        found: dict[int, list[str]] = defaultdict(list)
        with self.database.read() as transaction:
            for event in transaction.scalars(wanted.order_by(IncidentEvent.event)):
                found[event.incident_id].append(event.event.removeprefix(ALERT))
        return found

    def one(self, caller: Caller, incident_id: int) -> Incident:
        """A case with its history.

        Raises:
            ProblemError: 404 if there is none, or the caller may not see it.
        """
        with self.database.read() as transaction:
            return _get(transaction, caller, incident_id)

    def of(self, receipt: str) -> Incident:
        """A case by its receipt.

        Raises:
            ProblemError: 404 if there is none.
        """
        with self.database.read() as transaction:
            found = transaction.scalar(
                select(Incident).where(Incident.receipt == receipt).options(selectinload(Incident.steps))
            )
        if found is None:
            raise ProblemError(404, "There is no report with this receipt number.")
        return found

    def add_photo(
        self, receipt: str, jpeg: bytes, at: tuple[float, float] | None = None, district: str | None = None
    ) -> None:
        """Adds a photograph to a report, and the position where it was taken if the report has none.

        Raises:
            ProblemError: 404 if there is no such report, 409 if it is too late or there are enough.
        """
        found = self.of(receipt)
        with self.database.write() as transaction:
            case = _get(transaction, _ANYBODY, found.id, lock=True)
            number = _count(transaction, case.id, "report")
            if case.source != "public" or number >= _PHOTOS or now_ms() - case.opened > _PHOTO_MS:
                raise ProblemError(409, "A report takes three photographs, within a quarter of an hour.")
            if at is not None and case.lat is None:
                case.lat, case.lon, case.district = *at, district
            _keep(transaction, case, _ANYBODY.name, "report", jpeg)

    def add_staff_photo(self, caller: Caller, incident_id: int, stage: str, jpeg: bytes) -> Incident:
        """Adds a photograph of before or of after to a case.

        Raises:
            ProblemError: 403 if it is not for the caller's role, 404 without such a case, 409 in the wrong state or
                with too many.
        """
        _refuse_role(stage, PHOTOS[stage], caller)
        with self.database.write() as transaction:
            case = _get(transaction, caller, incident_id, lock=True)
            if State(case.state) not in PHOTOS[stage].sources:
                raise ProblemError(409, f"A photograph of '{stage}' cannot be added to a case that is {case.state}.")
            if _count(transaction, case.id, stage) >= _STAFF_PHOTOS:
                raise ProblemError(409, f"The case has {_STAFF_PHOTOS} photographs of '{stage}' already.")
            _keep(transaction, case, caller.name, stage, jpeg)
        return self.one(caller, incident_id)

    def photos(self, incident_id: int) -> list[Photo]:
        """A case's photographs, oldest first."""
        table = IncidentPhoto
        wanted = select(table.id, table.stage, table.time, table.who).where(table.incident_id == incident_id)
        with self.database.read() as transaction:
            return [Photo(*row) for row in transaction.execute(wanted.order_by(table.id))]

    def may_add(self, caller: Caller, incident: Incident) -> list[str]:
        """The stages of which the caller may add photographs now."""
        return [
            stage
            for stage, step in PHOTOS.items()
            if State(incident.state) in step.sources and caller.role in step.roles
        ]

    def photo(self, caller: Caller, incident_id: int, photo_id: int) -> bytes:
        """A photograph, as JPEG.

        Raises:
            ProblemError: 404 if there is none, or the caller may not see the case.
        """
        with self.database.read() as transaction:
            _get(transaction, caller, incident_id)
            found = transaction.get(IncidentPhoto, photo_id)
            if found is None or found.incident_id != incident_id:
                raise ProblemError(404, f"Case {incident_id} has no photograph {photo_id}.")
            return found.jpeg

    def allowed(self, caller: Caller, incident: Incident) -> list[str]:
        """What the caller may do to a case."""
        asked = incident.asked
        own = asked is not None and asked["by"] == caller.name
        return possible(State(incident.state), caller.role, pending=asked is not None, own=own)

    def open(self, report: Report, who: str) -> Incident:
        """Opens a case.

        Raises:
            ProblemError: 422 if there is no such class.
        """
        with self.database.write() as transaction:
            return self.opened(transaction, report, who)

    def opened(
        self, transaction: Transaction, report: Report, who: str, detail: dict[str, Any] | None = None
    ) -> Incident:
        """As ``open``, within a transaction.

        Raises:
            ProblemError: 422 if there is no such class.
        """
        if report.kind not in self.classes.classes:
            raise ProblemError(422, f"There is no class '{report.kind}'; there are: {', '.join(self.classes.classes)}.")
        now = now_ms()
        incident = Incident(
            receipt="-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3)),
            source=report.source,
            kind=report.kind,
            severity=report.severity,
            text=report.text,
            district=report.district,
            site=report.site,
            sensor=report.sensor,
            lat=report.lat,
            lon=report.lon,
            opened=now,
            allowance=0,
            late=False,
            returns=0,
            reworks=0,
            by_itself=False,
        )
        self._enter(incident, State.REPORTED, now)
        transaction.add(incident)
        transaction.flush()
        _remember(transaction, incident, who, "open", now, report.text, detail)
        return incident

    def act(self, caller: Caller, incident_id: int, wish: Wish) -> Incident:
        """Does a step to a case.

        Returns:
            The case as it is then.

        Raises:
            ProblemError: 403 if it is not for the caller's role, 404 without such a case, 409 if it cannot be done in
                the case's state, 422 if something is missing.
        """
        step = STEPS.get(wish.action)
        if step is None:
            raise ProblemError(422, f"There is no step '{wish.action}'; there are: {', '.join(STEPS)}.")
        _refuse_role(wish.action, step, caller)
        if step.note and not wish.note.strip():
            raise ProblemError(422, f"'{wish.action}' needs a note that says why.")
        with self.database.write() as transaction:
            incident = _get(transaction, caller, incident_id, lock=True)
            state = State(incident.state)
            if wish.entered is not None and wish.entered != incident.entered:
                raise ProblemError(409, f"Somebody was faster: the case is {state} by now. Look at it again.")
            if state not in step.sources:
                raise ProblemError(409, f"'{wish.action}' cannot be done to a case that is {state}.")
            if wish.action not in self.allowed(caller, incident):
                raise ProblemError(409, _why_not(wish.action, incident))
            self._do(transaction, caller, incident, wish)
        return self.one(_seeing_all(caller), incident_id)

    def _do(self, transaction: Transaction, caller: Caller, incident: Incident, wish: Wish) -> None:
        step, now = STEPS[wish.action], now_ms()
        asked = incident.asked or {}
        detail: dict[str, Any] = {}
        target = step.target
        if step.asks is not None:
            incident.asked = {"what": step.asks, "by": caller.name, "note": wish.note, **_hours(step.asks, wish)}
            detail = _hours(step.asks, wish)
        elif wish.action in {"approve", "decline"}:
            detail, incident.asked = {"what": asked["what"], "by": asked["by"]}, None
            if wish.action == "approve":
                target = APPROVED[asked["what"]]
                _approve(incident, asked, now)
        elif wish.action == "dispatch":
            detail["department"] = self._department(incident, wish.department)
        elif wish.action == "merge":
            detail["into"] = _merge(transaction, caller, incident, wish.into)
        if target is not None:
            self._leave(incident, target, now)
            self._enter(incident, target, now)
            if target == State.DEFERRED:
                incident.due = now + _milliseconds(asked["hours"])
        _remember(transaction, incident, caller.name, wish.action, now, wish.note, detail)

    def handed_on(self, transaction: Transaction, incident: Incident) -> None:
        """Files a case and dispatches it to its class's department, by rule."""
        now = now_ms()
        for action, target in (("file", State.FILED), ("dispatch", State.DISPATCHED)):
            detail = {"department": self._department(incident, None)} if action == "dispatch" else {}
            self._enter(incident, target, now)
            _remember(transaction, incident, VIEW, action, now, "", detail)

    def graver(self, transaction: Transaction, incident: Incident, severity: str) -> None:
        """Notes that the cause has become graver."""
        incident.severity = severity
        _remember(transaction, incident, VIEW, "graver", now_ms(), "", {"severity": severity})

    def over(self, transaction: Transaction, incident: Incident, action: str, *, by_itself: bool) -> None:
        """Closes a case whose cause is over.

        Args:
            transaction: In which it is done.
            incident: The case.
            action: What stands in its history: ``over``, or ``confirm`` for one that was handled.
            by_itself: Whether nobody handled it.
        """
        now = now_ms()
        incident.by_itself = by_itself
        self._enter(incident, State.CLOSED, now)
        _remember(transaction, incident, VIEW, action, now, "")

    def _class(self, incident: Incident) -> Class:
        """The class of a case; the first one for a case whose class is not in the table any more."""
        return self.classes.classes.get(incident.kind) or next(iter(self.classes.classes.values()))

    def _department(self, incident: Incident, wanted: str | None) -> str:
        known = self.classes.departments
        name = wanted or self._class(incident).department
        if name not in known:
            raise ProblemError(422, f"There is no department '{name}'; there are: {', '.join(known)}.")
        incident.department = name
        return name

    def _leave(self, incident: Incident, target: State, now: int) -> None:
        if target == State.VERIFYING:
            incident.late = incident.late or (incident.due is not None and now > incident.due)
        if incident.state == State.DEFERRED:
            incident.allowance += now - incident.entered
        elif target == State.DEFERRED:
            incident.left = max(0, (incident.due or now) - now)
        elif incident.state == State.VERIFYING and target == State.DISPATCHED:
            incident.reworks += 1

    def _enter(self, incident: Incident, target: State, now: int) -> None:
        limits = self._class(incident).limits
        before = incident.state
        incident.state, incident.entered = target.value, now
        if target != State.HANDLING or before != State.DISPATCHED:
            incident.asked = None
        match target:
            case State.REPORTED:
                incident.due = now + limits.file
            case State.FILED:
                incident.department = None
                incident.filed = incident.filed or now
                incident.due = now + limits.dispatch
            case State.DISPATCHED:
                incident.dispatched = incident.dispatched or now
                incident.due = now + limits.handle
            case State.HANDLING:
                if before == State.DEFERRED:  # accepting does not give more time
                    incident.due = now + (incident.left or 0)
            case State.VERIFYING:
                incident.handled = now
                incident.due = now + limits.verify
            case State.DEFERRED:
                pass  # until when was asked for
            case _:
                incident.due, incident.closed = None, now

    def status(self, incident: Incident) -> str:
        """How a case stands with its time: ``ended``, ``paused``, ``in time``, ``running out`` or ``late``."""
        if State(incident.state) in ENDED or incident.due is None:
            return "ended"
        now = now_ms()
        if now > incident.due:
            return "late"
        if incident.state == State.DEFERRED:
            return "paused"
        begun = incident.entered
        if incident.state == State.HANDLING:  # its time began when it was dispatched
            begun = min(begun, incident.due - self._class(incident).limits.handle)
        ripe = begun + (incident.due - begun) * self.classes.warn_at
        return "running out" if now > ripe else "in time"


def _seen_by(caller: Caller) -> ColumnElement[bool]:
    rules: list[ColumnElement[bool]] = [Incident.id.is_not(None)]
    if caller.districts:
        rules.append(Incident.district.in_(caller.districts))
    if caller.role == Role.DEPARTMENT:
        rules.append(Incident.department.in_(caller.departments) if caller.departments else false())
    return and_(*rules)


def _refuse_role(action: str, step: Step, caller: Caller) -> None:
    if caller.role not in step.roles:
        raise ProblemError(403, f"'{action}' is for: {', '.join(sorted(step.roles))}; you are {caller.role}.")


def _count(transaction: Transaction, incident_id: int, stage: str) -> int:
    wanted = select(func.count()).where(IncidentPhoto.incident_id == incident_id, IncidentPhoto.stage == stage)
    return transaction.scalar(wanted) or 0


def _keep(transaction: Transaction, case: Incident, who: str, stage: str, jpeg: bytes) -> None:
    now = now_ms()
    photo = IncidentPhoto(incident_id=case.id, time=now, stage=stage, who=who, jpeg=jpeg)
    transaction.add(photo)
    transaction.flush()
    _remember(transaction, case, who, "photo", now, "", {"photo": photo.id, "stage": stage})


def _seeing_all(caller: Caller) -> Caller:
    """Whoever has just acted sees the outcome, also if the case has left their department by it."""
    return Caller(caller.name, Role.VIEWER, caller.address)


def _get(transaction: Transaction, caller: Caller, incident_id: int, *, lock: bool = False) -> Incident:
    wanted = select(Incident).where(Incident.id == incident_id, _seen_by(caller)).options(selectinload(Incident.steps))
    found = transaction.scalar(wanted.with_for_update() if lock else wanted)
    if found is None:
        raise ProblemError(404, f"There is no case {incident_id} that you may see.")
    return found


def _remember(  # noqa: PLR0913, PLR0917 - what a line of the history holds
    transaction: Transaction,
    incident: Incident,
    who: str,
    action: str,
    now: int,
    note: str,
    detail: dict[str, Any] | None = None,
) -> None:
    transaction.add(
        IncidentStep(
            incident_id=incident.id,
            time=now,
            who=who,
            action=action,
            state=incident.state,
            note=note,
            detail=detail or {},
        )
    )


def _hours(asks: str, wish: Wish) -> dict[str, float]:
    if asks not in {"extension", "deferral"}:
        return {}
    if wish.hours is None:
        raise ProblemError(422, f"An {asks} needs hours." if asks == "extension" else "A deferral needs hours.")
    return {"hours": wish.hours}


def _milliseconds(hours: float) -> int:
    return round(hours * 3_600_000)


def _approve(incident: Incident, asked: dict[str, Any], now: int) -> None:
    if asked["what"] == "return":
        incident.returns += 1
    elif asked["what"] == "extension":
        more = _milliseconds(asked["hours"])
        incident.due = (incident.due or now) + more
        incident.allowance += more


def _merge(transaction: Transaction, caller: Caller, incident: Incident, into: int | None) -> int:
    if into is None or into == incident.id:
        raise ProblemError(422, "'merge' needs in 'into' the id of the other case, of which this one is a duplicate.")
    other = _get(transaction, caller, into, lock=True)
    if State(other.state) not in OPEN:
        raise ProblemError(409, f"Case {into} is {other.state}; a duplicate goes into one that is open.")
    incident.merged_into = other.id
    for event in transaction.scalars(select(IncidentEvent).where(IncidentEvent.incident_id == incident.id)):
        event.incident_id = other.id
    _remember(transaction, other, caller.name, "merged", now_ms(), "", {"duplicate": incident.id})
    return other.id


def _why_not(action: str, incident: Incident) -> str:
    if action in {"approve", "decline"}:
        return (
            "Nothing waits for approval."
            if incident.asked is None
            else f"{incident.asked['by']} asked for it: somebody else approves or declines."
        )
    return f"{incident.asked['by'] if incident.asked else 'Somebody'} has asked for approval of something already."
