"""The shapes of the city view's answers. Times are ISO 8601 with an offset; ``[ms, …]`` points hold ms UTC."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway.city.grade_models import GradesOut
from sensors.kinds import EventLimit, Title

State = Literal["fresh", "stale", "silent"]


class Health(BaseModel):
    """Whether the view works; ``degraded`` when its store does not answer."""

    status: Literal["ok", "degraded"]
    version: str
    store: str
    time: str


class ReadingOut(BaseModel):
    """The newest reading of a quantity; ``value`` is null when it failed or is missing."""

    quantity: str
    value: float | None
    unit: str
    flag: int = Field(description="QARTOD: 1 good, 2 not evaluated, 3 suspect, 4 fail, 9 missing")
    time: str


class MaintenanceOut(BaseModel):
    """Why a sensor is in maintenance; its events begin no alert meanwhile."""

    case: int | None = Field(description="the open case of its fault")
    until: str | None = Field(description="when declared maintenance ends")
    window: int | None = Field(description="the window that was declared until then, see /api/v1/maintenance")


class SensorOut(BaseModel):
    """A sensor with its newest readings."""

    id: str = Field(description="kind:site:sensor")
    kind: str
    site: str
    sensor: str
    gateway: str
    title: Title | None
    site_title: Title | None
    lat: float | None
    lon: float | None
    time: str
    age_s: float
    interval_s: float
    state: State = Field(description="fresh up to 2 intervals (at least 30 s), stale up to 10, then silent")
    flag: int = Field(description="the worst flag among the readings")
    readings: list[ReadingOut]
    maintenance: MaintenanceOut | None = Field(None, description="null unless it is in maintenance")
    declare: str | None = Field(
        None, description="for a device that nobody has declared (kind `holding`): an entry for a file of devices, TOML"
    )


class QuantityOut(BaseModel):
    """What a quantity is and how its values are judged."""

    name: str
    title: Title
    unit: str
    decimals: int
    suspect: tuple[float, float] | None
    fail: tuple[float, float] | None
    events: list[EventLimit]


class EventOut(BaseModel):
    """An event: since when, how grave at its newest point, and until when if it ended."""

    id: str
    time: str
    severity: str
    kind: str
    site: str
    sensor: str
    sensor_id: str
    gateway: str
    quantity: str
    value: float | None
    limit: float | None
    message: str
    since: str
    until: str | None


class SensorDetail(SensorOut):
    """A sensor with what its quantities mean and its newest events."""

    quantities: list[QuantityOut]
    events: list[EventOut]


class Sensors(BaseModel):
    """Sensors as they are at ``time``."""

    time: str
    sensors: list[SensorOut]


class VerdictOut(BaseModel):
    """What the filter said of readings, most of which are stored: leave out what lies between since and until."""

    id: str
    what: str = Field(description="which fault of the sensor it was, or `undecided`", examples=["stuck"])
    since: str = Field(description="of the first reading concerned")
    until: str = Field(description="of the last one that is known")
    time: str = Field(description="when that was known")
    confidence: float | None = Field(description="0 to 1")
    reason: str
    lasts: bool = Field(description="the fault goes on: what comes after is quarantined until it is over")


class Series(BaseModel):
    """A quantity over time.

    Raw points are ``[ms, value|null, flag]``; with a step ``[ms, mean|null, worst flag, min|null, max|null]``.
    """

    id: str
    quantity: str
    unit: str
    start: str
    end: str
    step: float | None = Field(description="seconds; null for raw points")
    points: list[list[int | float | None]]
    quarantined: list[list[int | float | str | None]] = Field(
        description="[ms, value, flag, reason]; with most, evenly chosen"
    )
    quarantined_total: int
    verdicts: list[VerdictOut] = Field(description="on readings of this time, newest first")


class Events(BaseModel):
    """Events, newest first."""

    events: list[EventOut]


class GatewayOut(BaseModel):
    """A gateway's newest health and its ledger."""

    gateway: str
    time: str
    age_s: float
    state: State
    version: str
    uptime_s: float
    ledger: dict[str, int] = Field(
        description="received = delivered + queued + quarantined + dead + duplicate + evicted, in readings"
    )
    spool_bytes: int
    rss_bytes: int
    sensors: int
    more: dict[str, float] = Field(
        description="what else the gateway says of itself: disk_free_bytes, cpu_s, messages, dead_letters, channels,"
        " clock_known and connected (1 or 0), ...; see the data model"
    )


class Gateways(BaseModel):
    """The fleet."""

    gateways: list[GatewayOut]


class KindOut(BaseModel):
    """A kind of sensor."""

    kind: str
    title: Title
    quantities: list[QuantityOut]


class Kinds(BaseModel):
    """All kinds of sensors that the view knows."""

    kinds: list[KindOut]


class Summary(BaseModel):
    """A quantity over the fresh sensors of a kind; for directions the median is the mean direction."""

    median: float
    min: float
    max: float
    unit: str


class KindOverview(BaseModel):
    """A kind at a glance."""

    sensors: int
    fresh: int
    summary: dict[str, Summary]


class Counts(BaseModel):
    """How many sensors are in each state; suspect and failed count the worst flag."""

    sensors: int
    fresh: int
    stale: int
    silent: int
    suspect: int
    failed: int


class OpenEvents(BaseModel):
    """Open events."""

    open: int
    by_severity: dict[str, int]


class Fleet(BaseModel):
    """The gateways at a glance; ``backlog`` is in readings."""

    total: int
    alive: int
    backlog: int


class Overview(BaseModel):
    """The city at a glance."""

    time: str
    counts: Counts
    kinds: dict[str, KindOverview]
    events: OpenEvents
    gateways: Fleet
    grades: GradesOut


class TownMap(BaseModel):
    """What the map shows beneath the sensors."""

    center: tuple[float, float] | None = Field(description="longitude, latitude")
    zoom: float
    districts: dict[str, Any] | None = Field(description="GeoJSON")
    sites: dict[str, Any] = Field(description="GeoJSON")
    basemap: str | None = Field(description="address of a PMTiles file")
    title: Title


def iso(milliseconds: int) -> str:
    """A time for people and programs: ISO 8601 in this machine's zone, with its offset."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone()
    return moment.replace(microsecond=milliseconds % 1000 * 1000).isoformat(timespec="milliseconds")
