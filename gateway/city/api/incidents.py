"""Cases: list, look, open, act; classes and figures."""

import asyncio
import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from gateway.city.api import picture
from gateway.city.api.context import Asking, Reader
from gateway.city.auth.people import now_ms
from gateway.city.database.tables import Incident
from gateway.city.incidents.cases import Cases, Report, Wish
from gateway.city.incidents.classes import Classes
from gateway.city.incidents.figures import figures, opened
from gateway.city.incidents.models import (
    CaseDetail,
    CaseIn,
    CaseList,
    CaseOut,
    CaseStep,
    ClassList,
    ClassOut,
    DepartmentOut,
    FiguresOut,
    PhotoOut,
    Stage,
    StepIn,
)
from gateway.city.incidents.states import OPEN, State
from gateway.city.models import iso
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["cases"])
_Id = Annotated[int, Path(examples=[1])]
_OfStage = Annotated[Stage, Query(examples=["after"])]
_MAX_ID = 2**31 - 1
_DAY_MS = 86_400_000


class _Jpeg(Response):
    media_type = "image/jpeg"


@router.get("/incidents")
def incidents(  # noqa: PLR0913, PLR0917 - the query's parameters
    here: Reader,
    caller: Asking,
    state: State | None = None,
    open_only: Annotated[bool, Query(alias="open", description="only cases that have not ended")] = False,  # noqa: FBT002
    late: Annotated[bool, Query(description="only cases whose stage takes too long")] = False,  # noqa: FBT002
    kind: str | None = None,
    department: str | None = None,
    district: str | None = None,
    sensor: Annotated[str | None, Query(description="a sensor's id, for the cases that began with it")] = None,
    before: Annotated[int | None, Query(ge=1, le=_MAX_ID, description="the id of a case, for those before it")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> CaseList:
    """The cases that you may see, newest first."""
    states = frozenset({state}) if state else OPEN if open_only else frozenset(State)
    found = here.cases.find(
        caller,
        states=states,
        kind=kind,
        department=department,
        district=district,
        sensor=sensor,
        late=late,
        before=before,
        limit=limit,
    )
    alerts = here.cases.alerts(found)
    return CaseList(incidents=[CaseOut.model_validate(_fields(here.cases, item, alerts)) for item in found])


@router.post("/incidents", status_code=201)
def open_incident(here: Reader, caller: Asking, body: CaseIn) -> CaseDetail:
    """Opens a case by hand, or from a patrol."""
    district = None if body.lat is None or body.lon is None else here.view.district(body.lon, body.lat)
    if caller.districts and district not in caller.districts:
        raise ProblemError(403, f"You open cases in {', '.join(caller.districts)}; this position is not there.")
    report = Report(body.source, body.kind, body.text, None, district, body.site, None, body.lat, body.lon)
    opened = here.cases.open(report, caller.name)
    return _detail(here.cases, caller, here.cases.one(caller, opened.id))


@router.get("/incidents/{incident_id}")
def incident(here: Reader, caller: Asking, incident_id: _Id) -> CaseDetail:
    """A case with its history, and what you may do to it now."""
    return _detail(here.cases, caller, here.cases.one(caller, _id(incident_id)))


@router.post("/incidents/{incident_id}/steps", status_code=201, responses={409: {}})
def take_step(here: Reader, caller: Asking, incident_id: _Id, body: StepIn) -> CaseDetail:
    """Does something to a case: the next stage, or a request for approval, or its answer."""
    if body.entered is not None:
        seen = here.cases.one(caller, _id(incident_id)).entered
        entered = seen if iso(seen) == body.entered else -1
    else:
        entered = None
    wish = Wish(body.action, body.note, body.department, body.hours, body.into, entered)
    return _detail(here.cases, caller, here.cases.act(caller, _id(incident_id), wish))


@router.post(
    "/incidents/{incident_id}/photos", status_code=201, responses={409: {}, 413: {}}, openapi_extra=picture.BODY
)
async def add_photo(
    here: Reader,
    caller: Asking,
    request: Request,
    incident_id: _Id,
    stage: Annotated[Stage, Query(examples=["after"])],
) -> CaseDetail:
    """Adds a photograph (JPEG, PNG or WebP, 12 MiB) to a case, of before it was handled or of after.

    It is written anew as a JPEG of at most 1600 pixels a side; position and device, if the camera wrote them in, are
    gone. The history names who added it.
    """
    await asyncio.to_thread(here.cases.one, caller, _id(incident_id))
    jpeg = await picture.plain(await picture.received(request))
    case = await asyncio.to_thread(here.cases.add_staff_photo, caller, incident_id, stage, jpeg)
    return await asyncio.to_thread(_detail, here.cases, caller, case)


@router.get("/incidents/{incident_id}/photos/{photo_id}", response_class=_Jpeg)
def incident_photo(
    here: Reader, caller: Asking, incident_id: _Id, photo_id: Annotated[int, Path(examples=[1])]
) -> Response:
    """A photograph of a case."""
    return _Jpeg(here.cases.photo(caller, _id(incident_id), _id(photo_id)))


@router.get("/incident-classes")
def classes(here: Reader) -> ClassList:
    """Classes of cases with their limits, and departments."""
    table = here.cases.classes
    return ClassList(
        classes=[
            ClassOut(
                kind=name,
                title=item.title,
                department=item.department,
                limits={
                    "file": item.limits.file / 1000,
                    "dispatch": item.limits.dispatch / 1000,
                    "handle": item.limits.handle / 1000,
                    "verify": item.limits.verify / 1000,
                },
                public=item.public,
            )
            for name, item in table.classes.items()
        ],
        departments=[DepartmentOut(department=name, title=title) for name, title in table.departments.items()],
    )


@router.get("/incident-figures")
def incident_figures(here: Reader, days: Annotated[int, Query(ge=1, le=3660)] = 30) -> FiguresOut:
    """How well cases are dealt with: those that were opened in the last days."""
    now = now_ms()
    cases = opened(here.cases.database, now - days * _DAY_MS, now + 1)
    found = figures(cases, here.cases.classes)
    return FiguresOut(days=days, goal_hours=here.cases.classes.goal / 3_600_000, **dataclasses.asdict(found))


def describe(openapi: dict[str, Any], classes: Classes) -> None:
    """Adds this town's classes and departments to an OpenAPI description."""
    schemas = openapi["components"]["schemas"]
    schemas["CaseIn"]["properties"]["kind"]["enum"] = list(classes.classes)
    schemas["ReportIn"]["properties"]["kind"]["enum"] = [name for name, one in classes.classes.items() if one.public]
    schemas["StepIn"]["properties"]["department"]["enum"] = [None, *classes.departments]


def _id(number: int) -> int:
    if not 0 < number <= _MAX_ID:
        raise ProblemError(404, f"There is no case {number}.")
    return number


def _fields(cases: Cases, case: Incident, alerts: dict[int, list[str]]) -> dict[str, object]:
    names = ("id", "receipt", "source", "kind", "severity", "text", "district", "site", "sensor", "lat", "lon", "state")
    more = ("department", "returns", "reworks", "by_itself", "merged_into", "asked")
    times = {name: getattr(case, name) for name in ("opened", "entered", "due", "closed")}
    return {
        **{name: getattr(case, name) for name in (*names, *more)},
        **{name: None if moment is None else iso(moment) for name, moment in times.items()},
        "status": cases.status(case),
        "alerts": alerts.get(case.id, []),
    }


def _detail(cases: Cases, caller: Asking, case: Incident) -> CaseDetail:
    steps = [
        CaseStep(
            time=iso(step.time),
            who=step.who,
            action=step.action,
            state=State(step.state),
            note=step.note,
            detail=step.detail,
        )
        for step in case.steps
    ]
    photos = [
        PhotoOut.model_validate({"id": photo.id, "stage": photo.stage, "time": iso(photo.time), "who": photo.who})
        for photo in cases.photos(case.id)
    ]
    more = {
        "allowed": cases.allowed(caller, case),
        "may_add": cases.may_add(caller, case),
        "photos": photos,
        "steps": steps,
    }
    return CaseDetail.model_validate({**_fields(cases, case, cases.alerts([case])), **more})
