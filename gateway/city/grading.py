"""The grades of the city as it is now: the newest readings and the means of the last hours, judged by the tables.

However many pages ask, the means are looked at once in half a minute and the grades made once in ten seconds.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast

from gateway.city.grade_models import (
    AirIndexOut,
    AirOut,
    GradesOut,
    Meter,
    NoiseLevel,
    NoiseOut,
    ParkingOut,
    PlaceGrades,
    RoadOut,
    Section,
    TrafficOut,
    WaterOut,
)
from gateway.city.grades import air, noise, traffic, water
from gateway.city.grades.air import HOURS, AirIndex, Hour
from gateway.city.grades.noise import Period
from gateway.city.grades.tables import AirIndexName, AirScale, Level, Tables
from gateway.city.grades.traffic import Parking, RoadGrade
from gateway.city.means import RunningMeans
from gateway.city.models import SensorOut, iso
from gateway.city.places import Districts
from gateway.city.registry import Place
from gateway.city.store.base import SUSPECT, SensorKey, Store

_INDICES: tuple[AirIndexName, ...] = ("cn", "kr", "us")
_AGE_S = 10.0
_LOG = logging.getLogger(__name__)

Hours = dict[str, list[Hour | None]]
_T = TypeVar("_T")


@dataclass(slots=True)
class Surroundings:
    """What is known beside readings: where sensors are, and by which limits they are judged."""

    places: Mapping[tuple[str, str, str], Place] = field(default_factory=dict)
    districts: Districts = field(default_factory=lambda: Districts(None))


@dataclass(slots=True)
class _Air:
    last: dict[str, Hour]
    hours: Hours


@dataclass(slots=True, eq=False)
class Grades:
    """The grades of one moment: for the API, and the level of each sensor by its id."""

    out: GradesOut
    levels: dict[str, tuple[Level, float | None]]


class Grading:
    """Makes grades.

    Args:
        store: Where readings are.
        tables: The tables.
    """

    def __init__(self, store: Store, tables: Tables) -> None:
        self.tables = tables
        self._pollutants = sorted({p.quantity for scale in tables.air for p in scale.pollutants})
        self._air = RunningMeans(store, "air", self._pollutants)
        self._water = RunningMeans(store, "water", [f.quantity for f in tables.water.factors], hours=False)
        self._noise = RunningMeans(store, "noise", [tables.noise.quantity], energy=True)
        self._making: asyncio.Task[None] | None = None
        self._made: Grades | None = None
        self._made_at = float("-inf")
        self.age_s = _AGE_S
        """Seconds for which grades may be shared."""

    @property
    def means(self) -> tuple[RunningMeans, ...]:
        """The means that the grades are made of."""
        return self._air, self._water, self._noise

    def scales(self, now: int) -> dict[AirIndexName, AirScale]:
        """The tables of the air quality indices for data of ``now``, in milliseconds."""
        return {name: self.tables.scale(name, _local(now).date()) for name in _INDICES}

    def close(self) -> None:
        """Ends what is being made."""
        if self._making is not None:
            self._making.cancel()

    async def current(self, sensors: Callable[[int], list[SensorOut]], around: Surroundings, now: int) -> Grades:
        """The grades, at most ``age_s`` old, or three times that while new ones are being made.

        Args:
            sensors: Gives the sensors as they are at a time; asked only when grades are made.
            around: Positions and limits.
            now: Milliseconds UTC.

        Raises:
            StoreError: If the store does not answer.
        """
        making = self._start(sensors, around, now)
        if making is not None and time.monotonic() - self._made_at >= 3 * self.age_s:
            await asyncio.shield(making)  # others wait for it too
        return cast("Grades", self._made)

    def soon(self, sensors: Callable[[int], list[SensorOut]], around: Surroundings, now: int) -> Grades | None:
        """As ``current``, but without waiting: the last that were made. None when none were."""
        self._start(sensors, around, now)
        return self._made

    def _start(
        self, sensors: Callable[[int], list[SensorOut]], around: Surroundings, now: int
    ) -> asyncio.Task[None] | None:
        if self._making is not None and not self._making.done():
            return self._making
        if time.monotonic() - self._made_at < self.age_s:
            return None
        self._making = asyncio.create_task(self._renew(sensors, around, now))
        self._making.add_done_callback(_log_failure)
        return self._making

    async def _renew(self, sensors: Callable[[int], list[SensorOut]], around: Surroundings, now: int) -> None:
        for kept in self.means:
            if kept.due:
                await kept.look(now)
        # hundreds of sensors take a tenth of a second, for which nobody else has to wait
        self._made = await asyncio.to_thread(lambda: self._make(sensors(now), around, now))
        self._made_at = time.monotonic()

    def _make(self, sensors: Sequence[SensorOut], around: Surroundings, now: int) -> Grades:
        local = _local(now)
        town = _Town(self.tables, self.scales(now), around)
        for sensor in sensors:
            key = SensorKey(sensor.kind, sensor.site, sensor.sensor)
            place = around.places.get(key)
            match sensor.kind:
                case "air":
                    town.add_air(sensor, self._air_hours(key, sensor.interval_s))
                case "water":
                    town.add_water(sensor, self._factors(key, sensor), place)
                case "noise" if place is not None and place.zone in self.tables.noise.zones:
                    town.add_noise(sensor, self._meter(key, sensor, place.zone, local))
                case "traffic" if place is not None and place.road in self.tables.speed.roads:
                    town.add_road(sensor, place.road)
                case "parking":
                    town.add_parking(sensor)
                case _:
                    pass
        return town.grades(now)

    def _air_hours(self, key: SensorKey, interval: float) -> _Air:
        last, hours = {}, {}
        for name in self._pollutants:
            hour = self._air.last_hour(key, name, interval)
            if hour is not None:
                last[name] = hour
            full = self._air.full_hours(key, name, interval)
            if any(full):
                hours[name] = full
        return _Air(last, hours)

    def _factors(self, key: SensorKey, sensor: SensorOut) -> dict[str, float]:
        values: dict[str, float] = {}
        newest = {} if sensor.state == "silent" else _values(sensor)
        for factor in self.tables.water.factors:
            hour = self._water.last_hour(key, factor.quantity, sensor.interval_s)
            value = newest.get(factor.quantity) if hour is None else hour.mean
            if value is not None:
                values[factor.quantity] = value
        return values

    def _meter(self, key: SensorKey, sensor: SensorOut, zone: str, local: datetime) -> Meter:
        table, name = self.tables.noise, self.tables.noise.quantity
        period = noise.period(table, local)
        began = noise.period_start(table, local)
        before = noise.period_start(table, began - timedelta(seconds=1))
        spans = {
            period: (began, local + timedelta(milliseconds=1)),
            "night" if period == "day" else "day": (before, began),
        }
        hour = self._noise.last_hour(key, name, sensor.interval_s)

        def judged(when: Period, level: float | None) -> NoiseLevel | None:
            if level is None:
                return None
            found = noise.grade(table, zone, when, level)
            return NoiseLevel(level=round(level, 1), limit=found.limit, over=found.over > 0)

        def of(when: Period) -> NoiseLevel | None:
            start, end = (round(moment.timestamp() * 1000) for moment in spans[when])
            return judged(when, self._noise.between(key, name, start, end))

        return Meter(
            sensor_id=sensor.id,
            zone=zone,
            period=period,
            now=judged(period, hour.mean if hour else None),
            day=of("day"),
            night=of("night"),
        )


class _Town:
    """Gathers what is graded, by site and district."""

    def __init__(self, tables: Tables, scales: dict[AirIndexName, AirScale], around: Surroundings) -> None:
        self._tables = tables
        self._scales = scales
        self._around = around
        self._stations: dict[str, tuple[SensorOut, _Air]] = {}
        self._sections: dict[str, tuple[SensorOut, Section]] = {}
        self._meters: dict[str, tuple[SensorOut, Meter]] = {}
        self._roads: dict[str, tuple[SensorOut, RoadOut]] = {}
        self._parks: dict[str, tuple[SensorOut, Parking]] = {}
        self._levels: dict[str, tuple[Level, float | None]] = {}
        self._water_rank = {level.name: rank for rank, level in enumerate(tables.water.levels)}

    def add_air(self, sensor: SensorOut, hours: _Air) -> None:
        self._stations[sensor.id] = sensor, hours
        index = air.now(self._scales["cn"], hours.last)
        if index.level is not None:
            self._levels[sensor.id] = index.level, index.value

    def add_water(self, sensor: SensorOut, values: dict[str, float], place: Place | None) -> None:
        found = water.classify(self._tables.water, values, "lake" if place is not None and place.lake else "river")
        if found.level is None:
            return
        target = place.target if place is not None and place.target in self._water_rank else None
        over = target is not None and self._water_rank[found.level.name] > self._water_rank[target]
        self._sections[sensor.id] = (
            sensor,
            Section(
                sensor_id=sensor.id,
                level=found.level.name,
                worst=list(found.worst),
                factors={name: level.name for name, level in found.factors.items()},
                values={name: round(value, 4) for name, value in values.items()},
                target=target,
                over=over,
            ),
        )
        self._levels[sensor.id] = found.level, None

    def add_noise(self, sensor: SensorOut, meter: Meter) -> None:
        if meter.now is None and meter.day is None and meter.night is None:
            return
        self._meters[sensor.id] = sensor, meter
        if meter.now is not None:
            self._levels[sensor.id] = self._tables.noise.levels[meter.now.over], meter.now.level

    def add_road(self, sensor: SensorOut, road: str) -> None:
        values = _values(sensor)
        speed = values.get("speed")
        if speed is None or sensor.state == "silent":
            return
        found = traffic.grade(self._tables.speed, road, speed, values.get("flow"), values.get("occupancy"))
        self._roads[sensor.id] = (
            sensor,
            RoadOut(
                sensor_id=sensor.id,
                road=road,
                speed=round(speed, 1),
                flow=values.get("flow"),
                level=found.level.name,
                index=round(found.index, 1),
                empty=found.empty,
            ),
        )
        self._levels[sensor.id] = found.level, round(found.index, 1)

    def add_parking(self, sensor: SensorOut) -> None:
        values = _values(sensor)
        found = traffic.left(values.get("occupied"), values.get("capacity"), values.get("free"))
        if found is not None and sensor.state != "silent":
            self._parks[sensor.id] = sensor, found

    def grades(self, now: int) -> Grades:
        sensors: dict[str, SensorOut] = {}
        for group in (self._stations, self._sections, self._meters, self._roads, self._parks):
            sensors.update({name: item[0] for name, item in group.items()})
        sites, districts = defaultdict(set), defaultdict(set)
        titles = {}
        for name, sensor in sensors.items():
            sites[sensor.site].add(name)
            titles[sensor.site] = sensor.site_title
            if sensor.lon is not None and sensor.lat is not None:
                district = self._around.districts.at(sensor.lon, sensor.lat)
                if district is not None:
                    districts[district].add(name)
        out = GradesOut(
            time=iso(now),
            town=self._place("", None, set(sensors)),
            districts=[
                self._place(name, title, districts[name])
                for name, title in self._around.districts.titles.items()
                if name in districts
            ],
            sites=[self._place(site, titles[site], members) for site, members in sorted(sites.items())],
            water=sorted(_second(self._sections), key=lambda s: (-self._water_rank[s.level], not s.over, s.sensor_id)),
            noise=sorted(_second(self._meters), key=lambda m: (-_excess(m), m.sensor_id)),
            roads=sorted(_second(self._roads), key=lambda road: (road.empty, -road.index, road.speed)),
        )
        return Grades(out, self._levels)

    def _place(self, name: str, title: object, members: set[str]) -> PlaceGrades:
        return PlaceGrades.model_validate(
            {
                "place": name,
                "title": title,
                "air": self._air_of([hours for _, hours in _some(self._stations, members)]),
                "water": self._water_of([section for _, section in _some(self._sections, members)]),
                "noise": _noise_of([meter for _, meter in _some(self._meters, members)]),
                "traffic": self._traffic_of([road for _, road in _some(self._roads, members)]),
                "parking": _parking_of([park for _, park in _some(self._parks, members)]),
            }
        )

    def _air_of(self, stations: list[_Air]) -> AirOut | None:
        known = [station for station in stations if station.last or station.hours]
        if not known:
            return None
        names = sorted({name for s in known for name in (*s.last, *s.hours)})
        last = {name: hour for name in names if (hour := _joined([s.last.get(name) for s in known]))}
        hours: Hours = {}
        for name in names:
            columns = [s.hours[name] for s in known if name in s.hours]
            hours[name] = [_joined([column[place] for column in columns]) for place in range(HOURS)]
        return AirOut(
            stations=len(known),
            now={name: _index(air.now(scale, last)) for name, scale in self._scales.items()},
            day={
                name: _index(air.day(scale, hours), air.valid_hours(scale, hours))
                for name, scale in self._scales.items()
            },
        )

    def _water_of(self, sections: list[Section]) -> WaterOut | None:
        if not sections:
            return None
        worst = max(sections, key=lambda section: self._water_rank[section.level])
        return WaterOut(
            sections=len(sections), level=worst.level, worst=worst.worst, over=sum(section.over for section in sections)
        )

    def _traffic_of(self, roads: list[RoadOut]) -> TrafficOut | None:
        level = {level.name: level for level in self._tables.speed.levels}
        index = traffic.town_index((RoadGrade(level[r.level], r.index, r.empty), r.flow or 0.0) for r in roads)
        if index is None:
            return None
        index = round(index, 1)
        return TrafficOut(roads=len(roads), index=index, level=traffic.town_level(self._tables.speed, index).name)


def _local(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, UTC).astimezone()


def _log_failure(making: asyncio.Task[None]) -> None:
    if not making.cancelled() and (error := making.exception()) is not None:
        _LOG.warning("indices and grades are not up to date: %s", error)


def _values(sensor: SensorOut) -> dict[str, float]:
    """The newest values that are neither suspect nor failed."""
    return {r.quantity: r.value for r in sensor.readings if r.value is not None and r.flag < SUSPECT}


def _second(group: dict[str, tuple[SensorOut, _T]]) -> list[_T]:
    return [item for _, item in group.values()]


def _some(group: dict[str, tuple[SensorOut, _T]], members: set[str]) -> list[tuple[SensorOut, _T]]:
    return [item for name, item in group.items() if name in members]


def _joined(hours: Iterable[Hour | None]) -> Hour | None:
    """The mean over stations of an hour: of those that cover most of it, and otherwise of all."""
    known = [hour for hour in hours if hour is not None]
    if not known:
        return None
    best = max(hour.coverage for hour in known)
    used = [hour for hour in known if hour.coverage >= best / 2]
    return Hour(sum(hour.mean for hour in used) / len(used), best)


def _index(index: AirIndex, hours: int | None = None) -> AirIndexOut:
    return AirIndexOut(
        value=index.value,
        level=index.level.name if index.level else None,
        primary=list(index.primary),
        sub=dict(index.sub),
        provisional=index.provisional,
        hours=hours,
    )


def _excess(meter: Meter) -> float:
    return meter.now.level - meter.now.limit if meter.now else float("-inf")


def _noise_of(meters: list[Meter]) -> NoiseOut | None:
    known = [meter.now for meter in meters if meter.now is not None]
    return NoiseOut(meters=len(known), over=sum(level.over for level in known)) if known else None


def _parking_of(parks: list[Parking]) -> ParkingOut | None:
    if not parks:
        return None
    return ParkingOut(left=sum(park.left for park in parks), capacity=sum(park.capacity for park in parks))
