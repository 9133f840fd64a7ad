"""Alerts: events put together by cause, where they may come from, and who took notice."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from gateway.city.alerts.models import Acknowledge, AlertOut, AlertsOut, ChannelsOut
from gateway.city.api.context import Asking, Reader
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["events"])
_AlertId = Annotated[str, Path(examples=["plume:longgang@1795413932000"])]


class _Cap(Response):
    media_type = "application/cap+xml"


@router.get("/alerts")
async def alerts(
    here: Reader,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    state: Annotated[Literal["open", "acknowledged", "ended"] | None, Query(description="only those")] = None,
) -> AlertsOut:
    """Alerts: open ones first, the gravest on top, then the newest."""
    await here.desk.look()
    chosen = [alert for alert in here.desk.alerts() if state in {None, alert.state}]
    return AlertsOut(alerts=chosen[:limit])


@router.get("/alerts/{alert_id}")
async def alert(here: Reader, alert_id: _AlertId) -> AlertOut:
    """One alert, by its id or by that of one of its events."""
    await here.desk.look()
    found = here.desk.get(alert_id)
    if found is None:
        raise _unknown(alert_id)
    return here.desk.describe(found)


@router.post("/alerts/{alert_id}/acknowledge")
async def acknowledge(here: Reader, caller: Asking, alert_id: _AlertId, body: Acknowledge) -> AlertOut:
    """Takes notice of an alert, for all of its events at once; it asks again only if it becomes graver."""
    by = body.by.strip() if caller.person is None else caller.name
    if not by:
        raise ProblemError(422, "by: say who takes notice.")
    done = await here.desk.acknowledge(alert_id, by, body.note.strip())
    if done is None:
        raise _unknown(alert_id)
    if caller.person is not None:
        about = f"alert {done.id}"[:200]
        await asyncio.to_thread(here.people.note, caller, "acknowledged", about, note=body.note.strip())
    return done


@router.get("/events/{event_id}/cap.xml", response_class=_Cap)
async def cap_xml(here: Reader, event_id: Annotated[str, Path(examples=["e1"])]) -> _Cap:
    """The alert that an event belongs to, or that has this id, as Common Alerting Protocol 1.2."""
    await here.desk.look()
    found = here.desk.get(event_id)
    if found is None:
        raise ProblemError(404, f"There is no event or alert '{event_id}'; see /api/v1/alerts.")
    return _Cap(here.desk.cap(found))


@router.get("/channels")
async def channels(here: Reader) -> ChannelsOut:
    """Where alerts are told beside the page, and what waits to be taken."""
    return await here.desk.channels()


def _unknown(alert_id: str) -> ProblemError:
    return ProblemError(404, f"There is no alert '{alert_id}'; see /api/v1/alerts.")
