"""What the city view asks of a store, and the values that travel between them.

Times are milliseconds UTC. Flags are QARTOD's: 1 good, 2 not evaluated, 3 suspect, 4 fail, 9 missing.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
HOUR_MS = 3_600_000
_WORST_FIRST = (FAIL, SUSPECT, GOOD, NOT_EVALUATED, MISSING)

QC_SUFFIX = "_qc"
"""Ends the name of the field that holds a quantity's flag."""
REASON_SUFFIX = "_reason"
"""Ends the name of the field that says why a quantity is suspect."""
RESERVED = frozenset({"quarantine", "event", "verdict", "gateway"})
"""Measurements that are no kind of sensor."""
CLOSED = "none"
"""Severity of the point that ends an event."""
NOTHING, UNDECIDED = "nothing", "undecided"
"""Verdicts: that a fault is over, and that readings are unusual and nobody can tell."""
MAX_POINTS = 50_000
"""Most raw points of one answer; a longer span needs a step."""


class StoreError(Exception):
    """The store cannot answer; the message says where, why and what to do."""


class TooManyPointsError(Exception):
    """A raw series is too long for one answer."""


class SensorKey(NamedTuple):
    """What identifies a sensor."""

    kind: str
    site: str
    sensor: str

    @property
    def id(self) -> str:
        """The identifier in the API."""
        return f"{self.kind}:{self.site}:{self.sensor}"


class Reading(NamedTuple):
    """A value, or its absence, with its flag."""

    time: int
    value: float | None
    flag: int


@dataclass(slots=True)
class LatestSensor:
    """A sensor and the newest reading of each of its quantities."""

    key: SensorKey
    gateway: str
    readings: dict[str, Reading] = field(default_factory=dict)


class Bucket(NamedTuple):
    """Readings of one step, put together."""

    time: int
    mean: float | None
    flag: int
    low: float | None
    high: float | None


class StepMean(NamedTuple):
    """The mean of what was good, or not evaluated, within a step, and of how many readings it is."""

    time: int
    mean: float
    number: int


class Quarantined(NamedTuple):
    """A value that failed and was kept out of the series."""

    time: int
    value: float | None
    flag: int
    reason: str


class Verdict(NamedTuple):
    """What the filter has said of a quantity's readings, by the newest of its revisions.

    Attributes:
        id: Revisions have the same.
        key: The sensor.
        quantity: Its quantity.
        what: Which fault of the sensor it was, or ``undecided``.
        since: Time of the first reading concerned.
        until: Of the last one that is known.
        time: When that was known.
        confidence: 0 to 1.
        reason: What it rests upon.
        over: The filter has said that it is over.
    """

    id: str
    key: SensorKey
    quantity: str
    what: str
    since: int
    until: int
    time: int
    confidence: float | None
    reason: str
    over: bool = False

    @property
    def lasts(self) -> bool:
        """The fault goes on: it was told by a reading that was part of it, and has not ended."""
        return not self.over and self.what != UNDECIDED and self.until == self.time


class Heard(NamedTuple):
    """When a sensor was heard: the time of its first reading that is kept, and the hours, since 1970, with any."""

    first: int
    hours: frozenset[int]


Means = dict[tuple[SensorKey, str], list[StepMean]]
"""Means by sensor and quantity."""


@dataclass(slots=True, frozen=True)
class EventPoint:
    """A stored point of an event: its beginning, a change of severity, or its end (severity ``none``)."""

    id: str
    time: int
    severity: str
    key: SensorKey
    gateway: str
    quantity: str
    value: float | None
    limit: float | None
    message: str


@dataclass(slots=True, frozen=True)
class Event:
    """An event: ``last`` is its newest point above the limit, ``until`` its end if it has one."""

    last: EventPoint
    since: int
    until: int | None


@dataclass(slots=True, frozen=True)
class GatewayHealth:
    """The newest health point of a gateway."""

    gateway: str
    time: int
    fields: dict[str, float | int | str]


class Store(Protocol):
    """A store of readings, as the city view needs it. Every method may raise ``StoreError``."""

    name: str
    """Named by ``/api/health``."""
    freshness: float
    """Seconds for which an answer may be shared between readers."""
    raw_s: float
    """Seconds for which single readings are kept; what is older has one row an hour."""

    async def open(self) -> None:
        """Connects; fails only if the configuration cannot work."""

    async def close(self) -> None:
        """Gives everything back."""

    async def latest(self) -> list[LatestSensor]:
        """The newest readings of every sensor."""

    async def latest_at(self, at: int, since: int) -> list[LatestSensor]:
        """The newest readings of every sensor as they were, with since < time <= at."""

    async def events_at(self, at: int, since: int) -> list[Event]:
        """Events as they were, of their points with since < time <= at, newest first."""

    async def readings(
        self, key: SensorKey, quantity: str, start: int, end: int, most: int = MAX_POINTS
    ) -> list[Reading]:
        """Readings with start <= time < end, in order.

        Raises:
            TooManyPointsError: If there are more than ``most``.
        """

    async def page(  # noqa: PLR0913 - a part of a series is named by all of these
        self,
        key: SensorKey,
        quantity: str,
        start: int,
        end: int,
        limit: int,
        *,
        newest_first: bool = False,
        offset: int = 0,
    ) -> list[Reading]:
        """At most ``limit`` readings that have a value, with start <= time < end, after the first ``offset``."""

    async def count(self, key: SensorKey, quantity: str, start: int, end: int) -> int:
        """How many readings with start <= time < end have a value."""

    async def buckets(  # noqa: PLR0913 - a series is named by all of these
        self, key: SensorKey, quantity: str, start: int, end: int, step: int, *, direction: bool, shift: int = 0
    ) -> list[Bucket]:
        """Readings put together by ``step`` milliseconds, aligned to the epoch; steps without any are absent.

        Args:
            key: The sensor.
            quantity: The quantity.
            start: First millisecond.
            end: First millisecond that no longer belongs.
            step: Length of a bucket in milliseconds.
            direction: Values are degrees of a circle, whose mean is the mean direction.
            shift: Milliseconds by which steps begin after multiples of their length, as local days do.
        """

    async def means(  # noqa: PLR0913 - a question is made of all of these
        self, kind: str, quantities: Sequence[str], start: int, end: int, step: int, *, energy: bool
    ) -> Means:
        """Means by ``step`` milliseconds, aligned to the epoch, of all sensors of a kind with start <= time < end.

        Readings that are suspect, failed or missing do not enter; steps without any other are absent.

        Args:
            kind: The kind.
            quantities: Names of the quantities.
            start: First millisecond.
            end: First millisecond that no longer belongs.
            step: Length of a step in milliseconds.
            energy: Values are levels in dB, whose mean is the level of their mean energy.

        Returns:
            By sensor and quantity, in order of time.
        """

    async def heard(self, start: int, end: int, without: Collection[str]) -> dict[SensorKey, Heard]:
        """In which hours with start <= time < end sensors had a reading other than of the quantities ``without``."""

    async def quarantined(self, key: SensorKey, quantity: str, start: int, end: int) -> list[Quarantined]:
        """Values that failed with start <= time < end, in order, at most ``MAX_POINTS`` of them."""

    async def verdicts(self, start: int, end: int, *, channel: tuple[SensorKey, str] | None = None) -> list[Verdict]:
        """What the filter said of readings with start <= time < end, newest first.

        Args:
            start: First millisecond.
            end: First millisecond that no longer belongs.
            channel: Of a sensor's quantity alone.
        """

    async def events(self, limit: int, *, open_only: bool = False, key: SensorKey | None = None) -> list[Event]:
        """The newest events, newest first."""

    async def gateways(self) -> list[GatewayHealth]:
        """The newest health of every gateway."""


def worst(flags: Iterable[int]) -> int:
    """The flag that speaks for all: 4, 3, 1, 2, 9 in this order."""
    present = set(flags)
    return next((flag for flag in _WORST_FIRST if flag in present), MISSING)


def mean_direction(degrees: Sequence[float]) -> float:
    """The mean of directions as the direction of the mean unit vector, in [0, 360)."""
    radians = [math.radians(value) for value in degrees]
    return math.degrees(math.atan2(sum(map(math.sin, radians)), sum(map(math.cos, radians)))) % 360


def direction_buckets(readings: Iterable[Reading], step: int, shift: int = 0) -> list[Bucket]:
    """Puts directions together by step; the lowest and highest value of a circle mean nothing and are absent."""
    groups: dict[int, list[Reading]] = {}
    for reading in readings:
        groups.setdefault((reading.time - shift) // step * step + shift, []).append(reading)
    return [
        Bucket(
            time,
            mean_direction(values) if (values := [r.value for r in group if r.value is not None]) else None,
            worst(r.flag for r in group),
            None,
            None,
        )
        for time, group in sorted(groups.items())
    ]


def fold_events(points: Iterable[EventPoint]) -> list[Event]:
    """Puts the points of each event together, newest event first.

    An end without a beginning (which retention may have taken) is no event.
    """
    groups: dict[str, list[EventPoint]] = {}
    for point in sorted(points, key=lambda p: (p.time, p.severity == CLOSED)):
        groups.setdefault(point.id, []).append(point)
    events = []
    for group in groups.values():
        active = [point for point in group if point.severity != CLOSED]
        if active:
            until = group[-1].time if group[-1].severity == CLOSED else None
            events.append(Event(active[-1], active[0].time, until))
    return sorted(events, key=lambda event: (event.last.time, event.last.id), reverse=True)


def fold_verdicts(revisions: Iterable[Verdict], start: int, end: int) -> list[Verdict]:
    """The newest revision of each verdict on readings with start <= time < end, newest first.

    An end without a beginning (which retention may have taken) is no verdict.
    """
    known: dict[str, Verdict] = {}
    for revision in sorted(revisions, key=lambda v: (v.time, v.what == NOTHING)):
        before = known.get(revision.id)
        if revision.what != NOTHING:
            known[revision.id] = revision
        elif before is not None:
            known[revision.id] = before._replace(until=revision.until, time=revision.time, over=True)
    found = [v for v in known.values() if v.since < end and (v.until >= start or v.lasts)]
    return sorted(found, key=lambda v: (v.time, v.id), reverse=True)
