"""What residents report, without signing in: a report, its photographs, and what became of it by its receipt."""

import asyncio
import itertools
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from gateway.city.access import address
from gateway.city.api import picture
from gateway.city.api.context import Anyone, Context
from gateway.city.incidents.cases import Report
from gateway.city.incidents.models import PublicClass, PublicClasses, ReceiptOut, ReportIn, ReportOut
from gateway.city.incidents.photo import position
from gateway.city.incidents.states import State
from gateway.city.models import iso
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["reports"])
_CLOSED = "This city view takes no reports from the public; see public in [cases]."
Receipt = Annotated[str, Path(max_length=32, description="the receipt number", examples=["7F3K-92QX-M4TD"])]


@router.get("/report-classes", responses={404: {}})
def report_classes(here: Anyone) -> PublicClasses:
    """What may be reported."""
    _refuse_when_closed(here)
    return PublicClasses(
        classes=[
            PublicClass(kind=name, title=item.title) for name, item in here.cases.classes.classes.items() if item.public
        ]
    )


@router.post("/reports", status_code=201, responses={404: {}, 429: {}})
def report(here: Anyone, request: Request, body: ReportIn) -> ReceiptOut:
    """Reports something; the receipt is the only way to what becomes of it."""
    _refuse_when_closed(here)
    found = here.cases.classes.classes.get(body.kind)
    if found is None or not found.public:
        raise ProblemError(422, f"'{body.kind}' cannot be reported; see /api/v1/report-classes.")
    here.reporters.check(address(request))
    here.reporters.failed(address(request))
    district = None if body.lat is None or body.lon is None else here.view.district(body.lon, body.lat)
    opened = here.cases.open(
        Report("public", body.kind, body.text, district=district, lat=body.lat, lon=body.lon), "public"
    )
    return ReceiptOut(receipt=opened.receipt)


@router.put(
    "/reports/{receipt}/photo",
    status_code=204,
    responses={404: {}, 409: {}, 413: {}},
    openapi_extra=picture.BODY,
)
async def report_photo(
    here: Anyone,
    request: Request,
    receipt: Receipt,
    place: Annotated[bool, Query(description="the report may have the position that the photograph holds")] = False,  # noqa: FBT002
) -> None:
    """Adds a photograph (JPEG, PNG or WebP, 12 MiB) to a report: three at most, within a quarter of an hour.

    It is written anew as a JPEG of at most 1600 pixels a side; position and device, if the camera wrote them in, are
    gone. With ``place``, a report that has no position gets the photograph's.
    """
    _refuse_when_closed(here)
    await asyncio.to_thread(here.cases.of, receipt)
    data = await picture.received(request)
    jpeg = await picture.plain(data)
    at = position(data) if place else None
    district = None if at is None else here.view.district(at[1], at[0])
    await asyncio.to_thread(here.cases.add_photo, receipt, jpeg, at, district)


@router.get("/reports/{receipt}", responses={404: {}})
def report_status(here: Anyone, receipt: Receipt) -> ReportOut:
    """What became of a report: where it stands and since when, and nothing of who dealt with it."""
    _refuse_when_closed(here)
    found = here.cases.of(receipt)
    return ReportOut(
        receipt=found.receipt,
        kind=found.kind,
        state=State(found.state),
        opened=iso(found.opened),
        entered=iso(found.entered),
        steps=[State(state) for state, _ in itertools.groupby(step.state for step in found.steps)],
    )


def _refuse_when_closed(here: Context) -> None:
    if not here.public:
        raise ProblemError(404, _CLOSED)
