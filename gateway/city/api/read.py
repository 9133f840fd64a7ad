"""Reading: overview, scales, kinds, map, sensors, series, events, gateways, stream."""

import math
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from gateway import __version__
from gateway.city import view as city
from gateway.city.api.context import Anyone, Context, Reader, caller
from gateway.city.grade_models import Scales, SensorFeatures
from gateway.city.models import (
    Events,
    Gateways,
    Health,
    KindOut,
    Kinds,
    Overview,
    SensorDetail,
    SensorOut,
    Sensors,
    Series,
    State,
    TownMap,
    iso,
)
from gateway.city.problems import HEALTH, ProblemError
from gateway.city.rendered import render, render_plain
from gateway.city.store.base import (
    MAX_POINTS,
    Bucket,
    Event,
    LatestSensor,
    Reading,
    SensorKey,
    Store,
    TooManyPointsError,
)
from gateway.city.stream import EventStream

router = APIRouter()
_HOUR_MS, _HOUR_S = 3_600_000, 3600.0
_MOST = 1000
_EVENTS, _SENSOR_EVENTS = 100, 50
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
A_TIME: dict[str, Any] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": "^-?[0-9]{1,13}$"}]
}
"""The schema of a time in a query."""
_TIME_LIMIT_MS = 9_000_000_000_000  # beyond any time that InfluxDB can hold


Id = Annotated[str, Path(description="kind:site:sensor", examples=["air:old-town:air-03"])]
_Kind = Annotated[str | None, Query(description="a kind of sensors alone", examples=["air"])]
_Site = Annotated[str | None, Query(description="a site alone", examples=["old-town"])]
_State = Annotated[State | None, Query(description="a state alone")]


class _GeoJson(JSONResponse):
    media_type = "application/geo+json"


@router.get(HEALTH, tags=["health"])
async def health(here: Anyone) -> Health:
    """Whether the view works; always open."""
    status = "ok" if here.view.failure is None else "degraded"
    return Health(status=status, version=__version__, store=here.view.store.name, time=iso(city.now_ms()))


@router.get("/api/v1/overview", tags=["city"], response_model=Overview)
async def overview(here: Reader, request: Request) -> Response:
    """The city at a glance, with indices and grades of the town, its districts and its sites."""
    snapshot, now = await here.view.snapshot(), city.now_ms()
    grades = await here.view.grades(snapshot, now)
    here.view.sensors(snapshot, now)
    made = partial(here.view.overview, snapshot, grades.out, now)
    return await here.rendered.answer(request, (snapshot, grades), made)


@router.get("/api/v1/scales", tags=["city"], response_model=Scales)
async def scales(here: Reader) -> Response:
    """What the levels of grades mean: names, colours, limits, and where the numbers are from."""
    return render(here.view.scales(city.now_ms()))


@router.get("/api/v1/kinds", tags=["city"], response_model=Kinds)
async def kinds(here: Reader, request: Request) -> Response:
    """The kinds of sensors, their quantities and limits."""
    return await here.rendered.answer(request, (here.view,), partial(_kinds, here))


def _kinds(here: Context) -> Kinds:
    return Kinds(
        kinds=[
            KindOut(kind=name, title=kind.title, quantities=[here.view.describe(name, q) for q in kind.quantities])
            for name, kind in sorted(here.view.kinds.items())
        ]
    )


@router.get("/api/v1/map", tags=["city"], response_model=TownMap)
async def town_map(here: Reader) -> Response:
    """What lies beneath the sensors: districts, sites, an optional base map."""
    await here.view.snapshot()
    return render(here.view.map())


@router.get("/api/v1/sensors", tags=["sensors"], response_model=Sensors)
async def sensors(
    here: Reader, request: Request, kind: _Kind = None, site: _Site = None, state: _State = None
) -> Response:
    """All sensors with their newest readings, or those of a kind, a site, a state."""
    snapshot, now = await here.view.snapshot(), city.now_ms()
    found = here.view.sensors(snapshot, now)
    if kind is site is state is None:
        made = partial(Sensors, time=iso(now), sensors=found)
        return await here.rendered.answer(request, (snapshot,), made)
    return render(Sensors(time=iso(now), sensors=_chosen(found, kind, site, state)))


@router.get("/api/v1/sensors.geojson", tags=["sensors"], response_model=SensorFeatures, response_class=_GeoJson)
async def sensor_features(
    here: Reader, request: Request, kind: _Kind = None, site: _Site = None, state: _State = None
) -> Response:
    """Sensors as GeoJSON for a map of one's own: newest values, state and grade."""
    snapshot, now = await here.view.snapshot(), city.now_ms()
    grades = await here.view.grades(snapshot, now)
    found = here.view.sensors(snapshot, now)
    if kind is site is state is None:
        made = partial(here.view.features, found, grades)
        return await here.rendered.answer(request, (snapshot, grades), made, _GeoJson.media_type)
    return render(here.view.features(_chosen(found, kind, site, state), grades), _GeoJson.media_type)


@router.get("/api/v1/sensors/{sensor_id}", tags=["sensors"], response_model=SensorDetail)
async def sensor_detail(here: Reader, sensor_id: Id) -> Response:
    """One sensor, what its quantities mean, and its newest events."""
    latest = await latest_of(here, sensor_id)
    out = here.view.sensor(latest, city.now_ms())
    events = await here.view.store.events(_SENSOR_EVENTS, key=latest.key)
    quantities = [here.view.describe(latest.key.kind, reading.quantity) for reading in out.readings]
    return render(SensorDetail(**dict(out), quantities=quantities, events=[city.event(item) for item in events]))


@router.get("/api/v1/sensors/{sensor_id}/series", tags=["sensors"], response_model=Series)
async def series(  # noqa: PLR0913, PLR0917 - the query's parameters
    here: Reader,
    sensor_id: Id,
    quantity: Annotated[str, Query(description="name of the quantity", examples=["pm25"])],
    start: Annotated[
        str | None,
        Query(
            description="ISO 8601 or milliseconds; an hour before the end",
            examples=["2026-11-23T00:00:00+08:00"],
            json_schema_extra=A_TIME,
        ),
    ] = None,
    end: Annotated[
        str | None,
        Query(
            description="ISO 8601 or milliseconds; now",
            examples=["2026-11-24T00:00:00+08:00"],
            json_schema_extra=A_TIME,
        ),
    ] = None,
    step: Annotated[
        float | None, Query(ge=0.001, le=366 * 86400, description="seconds of a bucket; none for raw", examples=[3600])
    ] = None,
    most: Annotated[
        int | None,
        Query(ge=10, le=10_000, description="most points; the step is made as long as that takes; 1000 without a step"),
    ] = None,
    offset: Annotated[
        int, Query(ge=-86_400, le=86_400, description="seconds by which steps begin after multiples of their length")
    ] = 0,
) -> Response:
    """A quantity over time, with flags, gaps as they are, and the values that were quarantined.

    Readings, if there are no more of them than are asked for; else steps with their extremes, so that no peak is lost.
    What is older than single readings are kept comes by the hour.
    """
    latest = await latest_of(here, sensor_id)
    if quantity not in latest.readings:
        known = ", ".join(sorted(latest.readings))
        raise ProblemError(404, f"Sensor '{sensor_id}' has no quantity '{quantity}'; it has: {known}.")
    first, last = span_of(start, end, _HOUR_MS)
    store, what = here.view.store, here.view.quantity(latest.key.kind, quantity)
    points: list[Reading] | list[Bucket] = []
    if first < city.now_ms() - store.raw_s * 1000:
        step = max(step or 0.0, _HOUR_S)
    if step is None:
        points, step = await _readings(store, latest.key, quantity, (first, last), most or _MOST)
    elif most is not None:
        step = _nice(max(step, (last - first) / 1000 / (most - 1)))
    if step is not None:
        step_ms = max(1, round(step * 1000))
        if (last - first) / step_ms > MAX_POINTS:
            least = math.ceil((last - first) / MAX_POINTS / 1000)
            raise ProblemError(422, f"That would be more than {MAX_POINTS} points; ask with a step of {least} s.")
        shift = offset * 1000 % step_ms
        points = await store.buckets(latest.key, quantity, first, last, step_ms, direction=what.direction, shift=shift)
    kept_out = await store.quarantined(latest.key, quantity, first, last)
    said = await store.verdicts(first, last, channel=(latest.key, quantity))
    return render_plain(
        {
            "id": latest.key.id,
            "quantity": quantity,
            "unit": what.unit,
            "start": iso(first),
            "end": iso(last),
            "step": step,
            "points": points,
            "quarantined": kept_out[:: max(1, math.ceil(len(kept_out) / (most or _MOST)))],
            "quarantined_total": len(kept_out),
            "verdicts": [city.verdict(item).model_dump() for item in said],
        }
    )


async def _readings(
    store: Store, key: SensorKey, quantity: str, span: tuple[int, int], most: int
) -> tuple[list[Reading], float | None]:
    """All readings if they are at most so many; else none, and the step in seconds that leaves so few points."""
    first, last = span
    try:
        return await store.readings(key, quantity, first, last, most), None
    except TooManyPointsError:
        return [], _nice((last - first) / 1000 / (most - 1))


def _nice(seconds: float) -> float:
    """The first length of a step, of those that people know, that is not shorter; beyond 15 min, of hours."""
    return next((float(step) for step in _STEPS_S if step >= seconds), math.ceil(seconds / 86_400) * 86_400.0)


@router.get("/api/v1/events", tags=["events"], response_model=Events)
async def events(
    here: Reader,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = _EVENTS,
    open_only: Annotated[bool, Query(alias="open", description="only events that have not ended")] = False,  # noqa: FBT002
) -> Response:
    """The newest events, newest first."""
    found = await here.view.store.events(limit, open_only=open_only)
    if limit == _EVENTS and not open_only:
        return await here.rendered.answer(request, (found,), partial(_events, found))
    return render(_events(found))


def _events(found: list[Event]) -> Events:
    return Events(events=[city.event(item) for item in found])


@router.get("/api/v1/gateways", tags=["fleet"], response_model=Gateways)
async def gateways(here: Reader, request: Request) -> Response:
    """The gateways, their health and ledgers."""
    snapshot, now = await here.view.snapshot(), city.now_ms()
    made = partial(Gateways, gateways=[city.gateway(health, now) for health in snapshot.gateways])
    return await here.rendered.answer(request, (snapshot,), made)


@router.get("/api/v1/stream", tags=["city"], response_class=StreamingResponse)
async def stream(
    here: Reader, request: Request, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Server-sent events: hello, sensors, events, gateways, alerts, each with what changed; grades, all of them."""
    last_id = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 20 else None  # noqa: PLR2004
    return EventStream(here.hub.listen(last_id), lambda: here.access.changes, partial(_may_listen, request))


async def _may_listen(request: Request) -> bool:
    try:
        await caller(request)
    except ProblemError:
        return False
    return True


def _chosen(sensors: list[SensorOut], kind: str | None, site: str | None, state: State | None) -> list[SensorOut]:
    return [
        sensor
        for sensor in sensors
        if (kind is None or sensor.kind == kind)
        and (site is None or sensor.site == site)
        and (state is None or sensor.state == state)
    ]


async def latest_of(here: Context, sensor_id: str) -> LatestSensor:
    """The newest readings of a sensor that a path names.

    Raises:
        ProblemError: 404.
    """
    latest = (await here.view.snapshot()).sensors.get(sensor_id)
    if latest is None:
        raise ProblemError(404, f"There is no sensor '{sensor_id}'; an id is kind:site:sensor, see /api/v1/sensors.")
    return latest


def span_of(start: str | None, end: str | None, otherwise: int) -> tuple[int, int]:
    """What a query asks for, in milliseconds; without a start, the ``otherwise`` milliseconds before the end.

    Raises:
        ProblemError: 422.
    """
    last = city.now_ms() + 1 if end is None else moment_of("end", end)
    first = last - otherwise if start is None else moment_of("start", start)
    if first >= last:
        raise ProblemError(422, f"start ({iso(first)}) must be before end ({iso(last)}).")
    return first, last


def moment_of(name: str, text: str) -> int:
    """A time of a query in milliseconds.

    Raises:
        ProblemError: 422.
    """
    try:
        if text.lstrip("-").isdecimal():
            moment = int(text)
        else:
            # in a query, a '+' that was not percent-encoded arrives as a space
            moment = round(datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        msg = f"{name}: '{text}' is neither ISO 8601 nor milliseconds since 1970."
        raise ProblemError(422, msg) from None
    return max(-_TIME_LIMIT_MS, min(moment, _TIME_LIMIT_MS))
