"""The city as it is now: the store's newest answers joined with the registry and the kinds.

However many pages ask, the store is asked at most once in its ``freshness``.
"""

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.city import registry
from gateway.city.courses import Courses
from gateway.city.grade_models import (
    GradeOut,
    GradesOut,
    LevelOut,
    PointGeometry,
    RoadClassOut,
    ScaleOut,
    Scales,
    SensorFeature,
    SensorFeatures,
    SensorProperties,
    ZoneOut,
)
from gateway.city.grades.tables import Level, Tables
from gateway.city.grading import Grades, Grading, Surroundings
from gateway.city.maintenance import Maintenance
from gateway.city.models import (
    Counts,
    EventOut,
    Fleet,
    GatewayOut,
    KindOverview,
    OpenEvents,
    Overview,
    QuantityOut,
    ReadingOut,
    SensorOut,
    State,
    Summary,
    TownMap,
    VerdictOut,
    iso,
)
from gateway.city.places import Districts
from gateway.city.sta.entities import Catalogue
from gateway.city.store.base import (
    FAIL,
    SUSPECT,
    Event,
    GatewayHealth,
    LatestSensor,
    Reading,
    SensorKey,
    Store,
    Verdict,
    mean_direction,
    worst,
)
from gateway.config import MapSection
from sensors import discovery, kinds
from sensors.discovery import HOLDING, UNDECLARED
from sensors.kinds import Kind, Quantity, Title

_LEDGER = ("received", "delivered", "queued", "quarantined", "dead", "duplicate", "evicted")
_NAMED_HEALTH = frozenset({*_LEDGER, "version", "uptime_s", "spool_bytes", "rss_bytes", "sensors"})
_HEALTH_INTERVAL_S = 10.0
_OTHER_INTERVAL_S = 60.0
_EVENTS_SHOWN = 500
BASEMAP = "/basemap.pmtiles"


@dataclass(slots=True, eq=False)
class Snapshot:
    """The store's answers at one moment."""

    sensors: dict[str, LatestSensor] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    gateways: list[GatewayHealth] = field(default_factory=list)


class _Made(NamedTuple):
    """A sensor as it was made for the API, and what of."""

    latest: LatestSensor
    registry: registry.Registry
    out: SensorOut


def _aged(
    made: _Made | None, latest: LatestSensor, places: registry.Registry, maintenance: Maintenance, now: int
) -> SensorOut | None:
    """What was made, as old as it is now; None if it is to be made anew."""
    if made is None or made.registry is not places or (made.latest is not latest and made.latest != latest):
        return None
    age = max(0.0, (now - max(reading.time for reading in latest.readings.values())) / 1000)
    return made.out.model_copy(
        update={
            "age_s": round(age, 1),
            "state": state(age, made.out.interval_s),
            "maintenance": maintenance.of(latest.key, now),
        }
    )


class View:
    """Answers what the API asks about the present.

    Args:
        store: Where readings, events and gateways are.
        config: The section ``[map]``.
        tables: By which indices and grades are made.

    Attributes:
        courses: The last day of quantities.
        maintenance: Which sensors are worked on.
    """

    def __init__(self, store: Store, config: MapSection, tables: Tables) -> None:
        self.store = store
        self.maintenance = Maintenance()
        self.grading = Grading(store, tables)
        self.courses = Courses(store)
        self._around = Surroundings()
        self._listed: tuple[Snapshot, list[SensorOut]] | None = None
        self._made: dict[SensorKey, _Made] = {}
        self._catalogue: tuple[Snapshot, Catalogue] | None = None
        self._map = config
        self._sensor_file = registry.WatchedGeoJson(config.sensors)
        self._district_file = registry.WatchedGeoJson(config.districts)
        self._registry = registry.Registry()
        self._kinds = {**kinds.builtin(), HOLDING: UNDECLARED}
        self._snapshot = Snapshot()
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()
        self.failure: Exception | None = None

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds of sensors by name."""
        return dict(self._kinds)

    @property
    def places(self) -> registry.Registry:
        """Where sensors and sites are."""
        return self._registry

    async def snapshot(self) -> Snapshot:
        """The store's newest answers, at most ``freshness`` seconds old.

        Raises:
            StoreError: If the store does not answer.
        """
        async with self._lock:
            if time.monotonic() - self._fetched < self.store.freshness:
                return self._snapshot
            await asyncio.to_thread(self._reload)
            try:
                sensors, events, gateways = await asyncio.gather(
                    self.store.latest(), self.store.events(_EVENTS_SHOWN), self.store.gateways()
                )
            except Exception as error:
                self.failure = error
                raise
            self.failure = None
            self._snapshot = Snapshot({sensor.key.id: sensor for sensor in sensors}, events, gateways)
            self._fetched = time.monotonic()
            return self._snapshot

    def _reload(self) -> None:
        if self._sensor_file.refresh() and self._sensor_file.content is not None:
            self._registry = registry.read(self._sensor_file.content)
            self._around.places = self._registry.sensors
        if self._district_file.refresh():
            self._around.districts = Districts(self._district_file.content)

    def quantity(self, kind: str, name: str) -> Quantity:
        """What a quantity is; an unknown one is called by its name and has no unit."""
        known = self._kinds.get(kind)
        found = known.quantities.get(name) if known else None
        return found or Quantity(title=Title(zh=name, en=name, ko=name), unit="")

    def describe(self, kind: str, name: str) -> QuantityOut:
        """A quantity for the API."""
        q = self.quantity(kind, name)
        return QuantityOut(
            name=name,
            title=q.title,
            unit=q.unit,
            decimals=q.decimals,
            suspect=q.suspect,
            fail=q.fail,
            events=list(q.events),
        )

    def sensor(self, latest: LatestSensor, now: int) -> SensorOut:
        """A sensor for the API, as it is at ``now`` in milliseconds."""
        key = latest.key
        place = self._registry.sensors.get(key)
        interval = self.interval(key)
        newest = max(reading.time for reading in latest.readings.values())
        age = max(0.0, (now - newest) / 1000)
        readings = [
            ReadingOut(
                quantity=name,
                value=reading.value,
                unit=self.quantity(key.kind, name).unit,
                flag=reading.flag,
                time=iso(reading.time),
            )
            for name, reading in self._ordered(latest)
        ]
        return SensorOut(
            id=key.id,
            kind=key.kind,
            site=key.site,
            sensor=key.sensor,
            gateway=latest.gateway,
            title=place.title if place else None,
            site_title=self._registry.sites.get(key.site),
            lat=place.lat if place else None,
            lon=place.lon if place else None,
            time=iso(newest),
            age_s=round(age, 1),
            interval_s=interval,
            state=state(age, interval),
            flag=worst(reading.flag for reading in latest.readings.values()),
            readings=readings,
            maintenance=self.maintenance.of(key, now),
            declare=self._declaration(latest) if key.kind == HOLDING else None,
        )

    def interval(self, key: SensorKey) -> float:
        """Seconds between a sensor's readings, as declared."""
        place, kind = self._registry.sensors.get(key), self._kinds.get(key.kind)
        return (place.interval if place else None) or (kind.interval if kind else _OTHER_INTERVAL_S)

    def _declaration(self, latest: LatestSensor) -> str:
        return discovery.device(
            latest.key.sensor, latest.key.sensor, latest.key.site, latest.readings.keys(), kinds.builtin()
        )

    def sensors(self, snapshot: Snapshot, now: int) -> list[SensorOut]:
        """All sensors, by site, kind and name; made once for a snapshot, by its first asker's ``now``.

        Of a sensor without a new reading only the age and the state are made anew.
        """
        listed = self._listed
        if listed is None or listed[0] is not snapshot:
            ordered = sorted(snapshot.sensors.values(), key=lambda s: (s.key.site, s.key.kind, s.key.sensor))
            made = {}
            for latest in ordered:
                if latest.readings:
                    known = self._made.get(latest.key)
                    out = _aged(known, latest, self._registry, self.maintenance, now) or self.sensor(latest, now)
                    made[latest.key] = _Made(latest, self._registry, out)
            self._made = made
            self._listed = listed = snapshot, [kept.out for kept in made.values()]
        return listed[1]

    def district(self, lon: float, lat: float) -> str | None:
        """The district of a position in degrees."""
        return self._around.districts.at(lon, lat)

    def features(self, sensors: Iterable[SensorOut], grades: Grades) -> SensorFeatures:
        """Sensors as GeoJSON, with their grades."""
        return SensorFeatures(features=[_feature(sensor, grades.levels.get(sensor.id)) for sensor in sensors])

    def map(self) -> TownMap:
        """What lies beneath the sensors."""
        basemap = self._map.basemap
        return TownMap(
            center=self._map.center or self._registry.center,
            zoom=self._map.zoom,
            districts=self._district_file.content,
            sites={"type": "FeatureCollection", "features": self._registry.site_features},
            basemap=BASEMAP if basemap is not None and basemap.is_file() else None,
            title=self._map.title,
        )

    def catalogue(self, snapshot: Snapshot) -> Catalogue:
        """The sensors as SensorThings sees them; made once for a snapshot."""
        if self._catalogue is None or self._catalogue[0] is not snapshot:
            sensors, entities = self.sensors(snapshot, now_ms()), self._catalogue[1] if self._catalogue else None
            if entities is None or not entities.carry_on(sensors):
                entities = Catalogue(sensors, self.kinds, self.quantity)
            self._catalogue = snapshot, entities
        return self._catalogue[1]

    async def grades(self, snapshot: Snapshot, now: int) -> Grades:
        """Indices and grades; asks the store for the means of the last hours when that is due.

        Raises:
            StoreError: If the store does not answer.
        """
        return await self.grading.current(lambda at: self.sensors(snapshot, at), self._around, now)

    def grades_soon(self, snapshot: Snapshot, now: int) -> Grades | None:
        """As ``grades``, without waiting for the store; None when nothing is known yet."""
        return self.grading.soon(lambda at: self.sensors(snapshot, at), self._around, now)

    def scales(self, now: int) -> Scales:
        """What the levels of grades mean, for data of ``now`` in milliseconds."""
        tables = self.grading.tables
        return Scales(
            air={
                scale.index: ScaleOut(
                    title=scale.title,
                    source=scale.source,
                    levels=[_level(level, level.upto) for level in scale.levels],
                )
                for scale in self.grading.scales(now).values()
            },
            water=_scale(tables.water.title, tables.water.source, tables.water.levels),
            noise=_scale(tables.noise.title, tables.noise.source, tables.noise.levels),
            traffic=_scale(tables.speed.title, tables.speed.source, tables.speed.levels, tables.speed.ends),
            zones={
                name: ZoneOut(title=zone.title, day=zone.day, night=zone.night)
                for name, zone in tables.noise.zones.items()
            },
            roads={
                name: RoadClassOut(title=road.title, above=list(road.above))
                for name, road in tables.speed.roads.items()
            },
        )

    def overview(self, snapshot: Snapshot, grades: GradesOut, now: int) -> Overview:
        """The city at a glance."""
        sensors = self.sensors(snapshot, now)
        states = Counter(sensor.state for sensor in sensors)
        by_kind: dict[str, list[SensorOut]] = defaultdict(list)
        for sensor in sensors:
            by_kind[sensor.kind].append(sensor)
        open_events = [event for event in snapshot.events if event.until is None]
        gateways = [gateway(health, now) for health in snapshot.gateways]
        return Overview(
            time=iso(now),
            counts=Counts(
                sensors=len(sensors),
                fresh=states["fresh"],
                stale=states["stale"],
                silent=states["silent"],
                suspect=sum(sensor.flag == SUSPECT for sensor in sensors),
                failed=sum(sensor.flag == FAIL for sensor in sensors),
            ),
            kinds={kind: self._kind_overview(kind, members) for kind, members in sorted(by_kind.items())},
            events=OpenEvents(
                open=len(open_events), by_severity=dict(Counter(event.last.severity for event in open_events))
            ),
            gateways=Fleet(
                total=len(gateways),
                alive=sum(g.state == "fresh" for g in gateways),
                backlog=sum(g.ledger["queued"] for g in gateways),
            ),
            grades=grades,
        )

    def _kind_overview(self, kind: str, sensors: list[SensorOut]) -> KindOverview:
        fresh = [sensor for sensor in sensors if sensor.state == "fresh"]
        values: dict[str, list[float]] = defaultdict(list)
        for sensor in fresh:
            for reading in sensor.readings:
                if reading.value is not None and reading.flag != FAIL:
                    values[reading.quantity].append(reading.value)
        summary = {}
        for name, numbers in values.items():
            quantity = self.quantity(kind, name)
            middle = mean_direction(numbers) if quantity.direction else statistics.median(numbers)
            summary[name] = Summary(median=middle, min=min(numbers), max=max(numbers), unit=quantity.unit)
        return KindOverview(sensors=len(sensors), fresh=len(fresh), summary=summary)

    def _ordered(self, latest: LatestSensor) -> list[tuple[str, Reading]]:
        kind = self._kinds.get(latest.key.kind)
        order = {name: place for place, name in enumerate(kind.quantities)} if kind else {}
        return sorted(latest.readings.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))


def _feature(sensor: SensorOut, graded: tuple[Level, float | None] | None) -> SensorFeature:
    grade = None
    if graded is not None:
        level, value = graded
        grade = GradeOut(level=level.name, title=level.title, colour=level.colour, value=value)
    placed = sensor.lon is not None and sensor.lat is not None
    return SensorFeature(
        id=sensor.id,
        geometry=PointGeometry(coordinates=(sensor.lon or 0.0, sensor.lat or 0.0)) if placed else None,
        properties=SensorProperties(
            kind=sensor.kind,
            site=sensor.site,
            sensor=sensor.sensor,
            gateway=sensor.gateway,
            title=sensor.title,
            site_title=sensor.site_title,
            time=sensor.time,
            state=sensor.state,
            flag=sensor.flag,
            values={reading.quantity: reading.value for reading in sensor.readings},
            grade=grade,
        ),
    )


def _level(level: Level, upto: float | None = None) -> LevelOut:
    return LevelOut(name=level.name, title=level.title, colour=level.colour, upto=upto)


def _scale(title: Title, source: str, levels: Sequence[Level], ends: Sequence[float] = ()) -> ScaleOut:
    known = [*ends, *[None] * (len(levels) - len(ends))]
    return ScaleOut(
        title=title, source=source, levels=[_level(level, upto) for level, upto in zip(levels, known, strict=True)]
    )


def state(age: float, interval: float) -> State:
    """How alive something is that should report each ``interval`` seconds and did ``age`` seconds ago."""
    if age <= max(30.0, 2 * interval):
        return "fresh"
    return "stale" if age <= 10 * interval else "silent"


def event(value: Event) -> EventOut:
    """An event for the API."""
    last = value.last
    return EventOut(
        id=last.id,
        time=iso(last.time),
        severity=last.severity,
        kind=last.key.kind,
        site=last.key.site,
        sensor=last.key.sensor,
        sensor_id=last.key.id,
        gateway=last.gateway,
        quantity=last.quantity,
        value=last.value,
        limit=last.limit,
        message=last.message,
        since=iso(value.since),
        until=None if value.until is None else iso(value.until),
    )


def verdict(value: Verdict) -> VerdictOut:
    """A verdict for the API."""
    return VerdictOut(
        id=value.id,
        what=value.what,
        since=iso(value.since),
        until=iso(value.until),
        time=iso(value.time),
        confidence=value.confidence,
        reason=value.reason,
        lasts=value.lasts,
    )


def gateway(health: GatewayHealth, now: int) -> GatewayOut:
    """A gateway for the API, as it is at ``now`` in milliseconds."""

    def number(name: str) -> float:
        value = health.fields.get(name, 0)
        return value if isinstance(value, int | float) else 0

    age = max(0.0, (now - health.time) / 1000)
    return GatewayOut(
        gateway=health.gateway,
        time=iso(health.time),
        age_s=round(age, 1),
        state=state(age, _HEALTH_INTERVAL_S),
        version=str(health.fields.get("version", "")),
        uptime_s=number("uptime_s"),
        ledger={name: int(number(name)) for name in _LEDGER},
        spool_bytes=int(number("spool_bytes")),
        rss_bytes=int(number("rss_bytes")),
        sensors=int(number("sensors")),
        more={
            name: value
            for name, value in sorted(health.fields.items())
            if isinstance(value, int | float) and name not in _NAMED_HEALTH
        },
    )


def now_ms() -> int:
    """The present in milliseconds UTC."""
    return time.time_ns() // 10**6
