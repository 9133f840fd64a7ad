"""How well cases are dealt with, over a time.

A case counts where it belongs to: one is *filed* or refused, *dispatched* right or returned, *handled* in time or late,
*closed* in time or late. Cases that ended by themselves, as with a sensor that is well again, are counted apart: nobody
handled them, and they would flatter the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from gateway.city.database.engine import Database
from gateway.city.database.tables import Incident
from gateway.city.incidents.classes import Classes
from gateway.city.incidents.states import State

_HOUR_MS = 3_600_000


@dataclass(slots=True, frozen=True)
class Figures:
    """Shares from 0 to 1, null where nothing is counted; hours from report to closing."""

    reported: int
    by_state: dict[str, int]
    filing_rate: float | None
    accurate_dispatch_rate: float | None
    handled_on_time: float | None
    closed_on_time: float | None
    rework_rate: float | None
    hours_per_case: float | None
    closed_by_themselves: int


def opened(database: Database, start: int, end: int) -> list[Incident]:
    """The cases that were opened with start <= time < end, in milliseconds."""
    with database.read() as transaction:
        return list(transaction.scalars(select(Incident).where(Incident.opened >= start, Incident.opened < end)))


def figures(cases: Sequence[Incident], classes: Classes) -> Figures:
    """The figures of some cases."""
    by_state: dict[str, int] = {state.value: 0 for state in State}
    for case in cases:
        by_state[case.state] += 1
    ours = [case for case in cases if not case.by_itself and case.state != State.MERGED]
    judged = [case for case in ours if case.filed is not None or case.state == State.REFUSED]
    dispatched = [case for case in ours if case.dispatched is not None]
    handled = [case for case in ours if case.handled is not None]
    closed = [case for case in ours if case.state == State.CLOSED]
    times = [(case.closed or case.opened) - case.opened for case in closed]
    return Figures(
        reported=len(cases),
        by_state=by_state,
        filing_rate=_share([case.filed is not None for case in judged]),
        accurate_dispatch_rate=_share([case.returns == 0 for case in dispatched]),
        handled_on_time=_share([not case.late for case in handled]),
        closed_on_time=_share(
            [
                time <= classes.classes[case.kind].limits.whole + case.allowance
                for case, time in zip(closed, times, strict=True)
                if case.kind in classes.classes
            ]
        ),
        rework_rate=_share([case.reworks > 0 for case in handled]),
        hours_per_case=round(sum(times) / len(times) / _HOUR_MS, 3) if times else None,
        closed_by_themselves=sum(case.by_itself for case in cases),
    )


def _share(counted: list[bool]) -> float | None:
    return round(sum(counted) / len(counted), 4) if counted else None
