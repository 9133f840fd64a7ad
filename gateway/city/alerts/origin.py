"""Where an alert may come from: the sector upwind and the declared sources in it, the stations upstream.

Directions and distances are those of a plane, which for a town is exact to a few metres.
"""

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gateway.city.alerts.models import Kept, Sector, Source, Upstream
from gateway.city.models import iso
from gateway.city.registry import Place, Registry
from gateway.city.store.base import GOOD, NOT_EVALUATED, LatestSensor, Reading, SensorKey, Store
from gateway.city.view import View
from gateway.config import AlertsSection
from sensors.kinds import Title

_LOG = logging.getLogger(__name__)
_KM_A_DEGREE = 111.2
_STATIONS = 3  # wind sensors that speak for a site: one of them may stand behind a house
_CALM = 0.5  # m/s, of the mean wind; below, a vane points anywhere. An engineering choice
_UPSTREAM = 6  # stations named

Point = tuple[float, float]
"""Longitude and latitude in degrees."""


@dataclass(slots=True, frozen=True)
class DeclaredSource:
    """A place that may pollute.

    Attributes:
        emits: Quantities that it may raise; any when empty.
    """

    id: str
    kind: str
    title: Title | None
    point: Point
    emits: frozenset[str]


def read_sources(content: Mapping[str, Any]) -> list[DeclaredSource]:
    """The sources of a feature collection; a feature that cannot be read is named in the log and left out."""
    sources = []
    for number, feature in enumerate(content["features"]):
        try:
            properties = feature["properties"]
            lon, lat = (float(value) for value in feature["geometry"]["coordinates"][:2])
            sources.append(
                DeclaredSource(
                    id=str(properties["source"]),
                    kind=str(properties["kind"]),
                    title=Title.model_validate(properties["title"]) if properties.get("title") else None,
                    point=(lon, lat),
                    emits=frozenset(str(name) for name in properties.get("emits") or ()),
                )
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            _LOG.warning("feature %d of the sources is left out: %s: %s", number, type(error).__name__, error)
    return sources


def distance_km(one: Point, other: Point) -> float:
    """How far two points are apart."""
    return math.hypot(*_offset(one, other))


def bearing(one: Point, other: Point) -> float:
    """The direction in which the other lies, degrees clockwise from north."""
    east, north = _offset(one, other)
    return math.degrees(math.atan2(east, north)) % 360


def _offset(one: Point, other: Point) -> tuple[float, float]:
    east = (other[0] - one[0]) * math.cos(math.radians((one[1] + other[1]) / 2))
    return east * _KM_A_DEGREE, (other[1] - one[1]) * _KM_A_DEGREE


def site_point(registry: Registry, site: str) -> Point | None:
    """Where a site is: its own position, or the middle of its sensors."""
    for feature in registry.site_features:
        geometry = feature.get("geometry") or {}
        if feature["properties"].get("site") == site and geometry.get("type") == "Point":
            lon, lat = geometry["coordinates"][:2]
            return float(lon), float(lat)
    places = [place for key, place in registry.sensors.items() if key[1] == site]
    if not places:
        return None
    return sum(p.lon for p in places) / len(places), sum(p.lat for p in places) / len(places)


class Origins:
    """Looks for where alerts may come from.

    Args:
        store: Where the wind is.
        config: The section ``[alerts]``.
    """

    def __init__(self, store: Store, config: AlertsSection) -> None:
        self._store = store
        self._config = config

    async def wind(self, site: str, time: int, registry: Registry, sensors: Iterable[LatestSensor]) -> Sector | None:
        """The sector from where the wind came to a site, at a time in ms UTC; None when no sensor near it knows.

        Raises:
            StoreError: If the store does not answer.
        """
        point = site_point(registry, site)
        if point is None:
            return None
        near = sorted(
            (distance_km(point, (place.lon, place.lat)), sensor.key)
            for sensor in sensors
            if {"wind_direction", "wind_speed"} <= sensor.readings.keys()
            and (place := registry.sensors.get(sensor.key)) is not None
        )
        start = time - round(self._config.wind_window * 1000)
        vectors: list[Point] = []
        used: list[str] = []
        for distance, key in near:
            if distance > self._config.wind_reach_km or len(used) == _STATIONS:
                break
            found = _vectors(
                await self._store.readings(key, "wind_direction", start, time + 1),
                await self._store.readings(key, "wind_speed", start, time + 1),
            )
            if found:  # each station counts once, however often it reports
                vectors.append((_mean(east for east, _ in found), _mean(north for _, north in found)))
                used.append(key.id)
        if not vectors:
            return None
        east, north = _mean(east for east, _ in vectors), _mean(north for _, north in vectors)
        speed, direction, half = math.hypot(east, north), math.degrees(math.atan2(east, north)), self._config.sector / 2
        return Sector(
            site=site,
            direction=round(direction % 360, 1),
            start=round((direction - half) % 360, 1),
            end=round((direction + half) % 360, 1),
            width=self._config.sector,
            speed=round(speed, 1),
            calm=speed < _CALM,
            sensors=used,
            time=iso(time),
        )

    def sources(self, alert: Kept, registry: Registry, declared: Sequence[DeclaredSource]) -> list[Source]:
        """The declared sources that lie upwind of its sites and may raise what it is about.

        Those that are upwind of more sites come first, then the nearer ones.
        """
        quantities = {event.last.quantity for event in alert.members.values()}
        found = []
        for source in declared:
            if source.emits and not source.emits & quantities:
                continue
            sites = {}
            for sector in alert.wind.values():
                point = site_point(registry, sector.site)
                if point is None or sector.calm:
                    continue
                distance = distance_km(point, source.point)
                aside = abs((bearing(point, source.point) - sector.direction + 180) % 360 - 180)
                if distance <= self._config.source_reach_km and aside <= sector.width / 2:
                    sites[sector.site] = distance
            if sites:
                found.append(
                    Source(
                        id=source.id,
                        kind=source.kind,
                        title=source.title,
                        lon=source.point[0],
                        lat=source.point[1],
                        distance_km=round(min(sites.values()), 1),
                        sites=sorted(sites, key=lambda site: sites[site]),
                    )
                )
        return sorted(found, key=lambda source: (-len(source.sites), source.distance_km, source.id))


def upstream(alert: Kept, view: View, registry: Registry, sensors: Mapping[str, LatestSensor]) -> list[Upstream]:
    """The stations upstream of its lowest station, nearest first, by the order that the registry declares."""
    stations = {
        event.last.key: registry.sensors[event.last.key]
        for event in alert.members.values()
        if event.last.key in registry.sensors
    }
    placed = {key: place for key, place in stations.items() if place.river is not None and place.river_km is not None}
    if not placed:
        return []
    lowest = max(placed, key=lambda key: placed[key].river_km or 0.0)
    here = placed[lowest]
    quantity = max(
        (event for event in alert.members.values() if event.last.key == lowest), key=lambda event: event.last.time
    ).last.quantity
    above = sorted(
        (_between(place, here), key)
        for key, place in registry.sensors.items()
        if place.river == here.river and place.river_km is not None and _between(place, here) > 0
    )
    running = {
        (event.last.key, event.last.quantity): event.last.severity
        for event in alert.members.values()
        if event.until is None
    }
    return [
        _station(distance, SensorKey(*key), quantity, registry, view, sensors, running)
        for distance, key in itertools.islice(above, _UPSTREAM)
    ]


def _station(  # noqa: PLR0913, PLR0917 - a station is described by all of these
    distance: float,
    key: SensorKey,
    quantity: str,
    registry: Registry,
    view: View,
    sensors: Mapping[str, LatestSensor],
    running: Mapping[tuple[SensorKey, str], str],
) -> Upstream:
    latest = sensors.get(key.id)
    reading = latest.readings.get(quantity) if latest else None
    place = registry.sensors[key]
    return Upstream.model_validate(
        {
            "sensor_id": key.id,
            "site": key.site,
            "title": place.title,
            "river": place.river,
            "upstream_km": round(distance, 1),
            "quantity": quantity,
            "value": reading.value if reading else None,
            "unit": view.quantity(key.kind, quantity).unit,
            "time": iso(reading.time) if reading else None,
            "event": running.get((key, quantity)),
        }
    )


def _between(place: Place, here: Place) -> float:
    return (here.river_km or 0.0) - (place.river_km or 0.0)


def _vectors(directions: Sequence[Reading], speeds: Sequence[Reading]) -> list[Point]:
    """What the wind brings from: east and north part, m/s, of each time that has both values."""
    speed = {reading.time: reading.value for reading in speeds if _counts(reading)}
    vectors = []
    for reading in directions:
        its = speed.get(reading.time)
        if its is not None and reading.value is not None and _counts(reading):
            angle = math.radians(reading.value)
            vectors.append((its * math.sin(angle), its * math.cos(angle)))
    return vectors


def _counts(reading: Reading) -> bool:
    return reading.value is not None and reading.flag in {GOOD, NOT_EVALUATED}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
