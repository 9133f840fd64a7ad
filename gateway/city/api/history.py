"""Reading the past: a sensor's readings as a file, how whole they are, and the town as it was."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from gateway.city import export, past, wholeness
from gateway.city import month as months
from gateway.city import view as city
from gateway.city.api.context import Reader
from gateway.city.api.read import A_TIME, Id, latest_of, moment_of, span_of
from gateway.city.courses import CoursesOut
from gateway.city.export import Csv
from gateway.city.month import Month
from gateway.city.past import Past
from gateway.city.problems import ProblemError
from gateway.city.rendered import render
from gateway.city.wholeness import Wholeness

router = APIRouter()
_DAY_MS = 86_400_000

From = Annotated[
    str | None, Query(description="ISO 8601 or milliseconds; a day before the end", json_schema_extra=A_TIME)
]
To = Annotated[str | None, Query(description="ISO 8601 or milliseconds; now", json_schema_extra=A_TIME)]


@router.get("/api/v1/sensors/{sensor_id}/readings.csv", tags=["sensors"], response_class=Csv)
async def readings(
    here: Reader,
    sensor_id: Id,
    quantity: Annotated[str | None, Query(description="one of its quantities; all of them")] = None,
    start: From = None,
    end: To = None,
) -> Csv:
    """All values of a sensor as CSV in UTF-8, with flags; those that were quarantined say so, and why."""
    latest = await latest_of(here, sensor_id)
    first, last = span_of(start, end, _DAY_MS)
    names = [reading.quantity for reading in here.view.sensor(latest, last).readings]
    if quantity is not None and quantity not in names:
        raise ProblemError(404, f"Sensor '{sensor_id}' has no quantity '{quantity}'; it has: {', '.join(names)}.")
    wanted = names if quantity is None else [quantity]
    units = {name: here.view.quantity(latest.key.kind, name).unit for name in wanted}
    text = export.csv_of(here.view.store, latest.key, units, first, last)
    # what cannot be read at all is an error, not half a file
    beginning = await anext(text)

    async def whole() -> AsyncIterator[str]:
        yield beginning
        async for part in text:
            yield part

    name = export.file_name(latest.key, first, last)
    return Csv(whole(), headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.get("/api/v1/sensors/{sensor_id}/wholeness", tags=["sensors"])
async def sensor_wholeness(here: Reader, sensor_id: Id, start: From = None, end: To = None) -> Wholeness:
    """How much of a time a sensor has readings of, its gaps, and how its readings were judged."""
    latest = await latest_of(here, sensor_id)
    first, last = span_of(start, end, _DAY_MS)
    return await wholeness.look(here.view.store, here.view.sensor(latest, last), first, last)


@router.get("/api/v1/months/{month}", tags=["cases"])
async def town_month(
    here: Reader,
    month: Annotated[str, Path(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2026-11"])],
) -> Month:
    """A month's cases by class, district and department, its alerts, and how available its sensors were."""
    return await months.look(month, city.now_ms(), here.view, here.desk, here.cases)


@router.get("/api/v1/past", tags=["city"], response_model=Past)
async def town_past(
    here: Reader,
    at: Annotated[
        str,
        Query(
            description="ISO 8601 or milliseconds; the future is now",
            examples=["2026-11-23T14:00:00+08:00"],
            json_schema_extra=A_TIME,
        ),
    ],
) -> Response:
    """The state of all sensors at a time, which is rounded down to the resolution that the answer states."""
    moment = min(moment_of("at", at), city.now_ms())
    await here.view.snapshot()
    return await asyncio.to_thread(render, await past.look(here.view, moment))


@router.get("/api/v1/courses", tags=["sensors"], responses={404: {}})
async def courses(
    here: Reader,
    kind: Annotated[str, Query(max_length=64, description="a kind of sensors", examples=["traffic"])],
    quantity: Annotated[
        str, Query(max_length=64, description="one of its quantities, which is no direction", examples=["speed"])
    ],
) -> CoursesOut:
    """The last day of all sensors of a kind by the hour, and what is usual for this hour; at most 5 minutes old."""
    found = here.view.kinds.get(kind)
    known = {name: one.unit for name, one in found.quantities.items() if not one.direction} if found else {}
    if quantity not in known:
        raise ProblemError(
            404, f"'{kind}' has no quantity '{quantity}' with a mean; it has: {', '.join(known) or '-'}."
        )
    return await here.view.courses.look(kind, quantity, known[quantity], city.now_ms())
