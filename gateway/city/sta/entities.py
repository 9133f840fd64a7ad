"""What SensorThings calls what the city has, and how one leads to another.

A sensor is a Thing with a Location; the instrument in it is its Sensor. Each of its quantities is a Datastream, each
quantity of a kind an ObservedProperty. Readings with a value are Observations; where a sensor stands is their
FeatureOfInterest. Ids are the city's own: ``kind:site:sensor``, ``kind:site:sensor:quantity``, ``kind:quantity``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

from gateway.city.models import SensorOut
from gateway.city.store.base import Reading, SensorKey
from sensors.kinds import Kind, Quantity

OBSERVATIONS = "Observations"
SETS = (
    "Things",
    "Locations",
    "Datastreams",
    "Sensors",
    "ObservedProperties",
    OBSERVATIONS,
    "FeaturesOfInterest",
)
PROPERTIES: dict[str, tuple[str, ...]] = {
    "Things": ("name", "description", "properties"),
    "Locations": ("name", "description", "encodingType", "location", "properties"),
    "Datastreams": (
        "name",
        "description",
        "observationType",
        "unitOfMeasurement",
        "observedArea",
        "properties",
    ),
    "Sensors": ("name", "description", "encodingType", "metadata", "properties"),
    "ObservedProperties": ("name", "definition", "description", "properties"),
    OBSERVATIONS: ("phenomenonTime", "resultTime", "result", "resultQuality"),
    "FeaturesOfInterest": ("name", "description", "encodingType", "feature", "properties"),
}
LINKS: dict[str, dict[str, str]] = {
    "Things": {"Locations": "Locations", "Datastreams": "Datastreams"},
    "Locations": {"Things": "Things"},
    "Datastreams": {
        "Thing": "Things",
        "Sensor": "Sensors",
        "ObservedProperty": "ObservedProperties",
        OBSERVATIONS: OBSERVATIONS,
    },
    "Sensors": {"Datastreams": "Datastreams"},
    "ObservedProperties": {"Datastreams": "Datastreams"},
    OBSERVATIONS: {"Datastream": "Datastreams", "FeatureOfInterest": "FeaturesOfInterest"},
    "FeaturesOfInterest": {OBSERVATIONS: OBSERVATIONS},
}
"""Navigation by set: name of the link, and the set it leads to. A link to many is called as the set."""
TIMES = frozenset({"phenomenonTime", "resultTime"})
_GEOJSON = "application/geo+json"
_MEASUREMENT = "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement"
_FLAGS = {1: "good", 2: "not evaluated", 3: "suspect", 4: "fail", 9: "missing"}


@dataclass(eq=False)
class Entity:
    """An entity.

    Attributes:
        set: Name of its set.
        id: Its id.
        make: Makes its properties.
        linked: Entities it leads to, by link; those to observations are not here, the store has them.
    """

    set: str
    id: str
    make: Callable[[], dict[str, Any]]
    linked: dict[str, list["Entity"]] = field(default_factory=dict)

    @cached_property
    def properties(self) -> dict[str, Any]:
        """Its properties."""
        return self.make()

    @property
    def path(self) -> str:
        """Its address below the service's root."""
        return f"{self.set}('{quote(self.id.replace(chr(39), chr(39) * 2), safe=':@')}')"

    def values(self, path: tuple[str, ...]) -> list[Any]:
        """The values at a path, through links and within properties.

        Raises:
            KeyError: If there is no such link or property.
        """
        name, rest = path[0], path[1:]
        if name in {"id", "@iot.id"} and not rest:
            return [self.id]
        if name in LINKS[self.set]:
            if LINKS[self.set][name] == OBSERVATIONS or not rest:
                raise KeyError(name)
            return [value for entity in self.linked.get(name, []) for value in entity.values(rest)]
        if name not in PROPERTIES[self.set]:
            raise KeyError(name)
        value = self.properties.get(name)
        if name in TIMES:
            return [datetime.fromisoformat(str(value))]
        for part in rest:
            value = value.get(part) if isinstance(value, dict) else None
        return [value]


@dataclass(eq=False)
class Datastream(Entity):
    """A quantity of a sensor, whose observations are in the store.

    Attributes:
        key: The sensor.
        quantity: The quantity.
        newest: When its newest reading was, if that has a value, in ISO 8601.
    """

    key: SensorKey = field(default_factory=lambda: SensorKey("", "", ""))
    quantity: str = ""
    newest: str | None = None


class Catalogue:
    """All entities but observations, as the sensors are at one moment.

    Args:
        sensors: The sensors.
        kinds: What their kinds are.
        quantity: What a quantity of a kind is.
    """

    def __init__(
        self, sensors: Iterable[SensorOut], kinds: dict[str, Kind], quantity: Callable[[str, str], Quantity]
    ) -> None:
        self._kinds = kinds
        self._quantity = quantity
        self._streams: list[list[Datastream]] = []
        self._shape: list[tuple[object, ...]] = []
        self._states: dict[str, tuple[str, str]] = {}
        self.sets: dict[str, dict[str, Entity]] = {name: {} for name in SETS if name != OBSERVATIONS}
        for sensor in sensors:
            self._add(sensor)
        self._ordered = sorted(
            (stream for of_sensor in self._streams for stream in of_sensor), key=lambda stream: stream.id
        )

    def carry_on(self, sensors: Sequence[SensorOut]) -> bool:
        """Takes the times of new readings, states and gateways over, if they are all that has changed.

        Returns:
            Whether that is so; otherwise nothing was taken, and the entities have to be made anew.
        """
        if len(sensors) != len(self._shape) or any(
            _shape(sensor) != shape for sensor, shape in zip(sensors, self._shape, strict=True)
        ):
            return False
        for sensor, streams in zip(sensors, self._streams, strict=True):
            if self._states[sensor.id] != (sensor.state, sensor.gateway):
                self._states[sensor.id] = sensor.state, sensor.gateway
                vars(self.sets["Things"][sensor.id]).pop("properties", None)
            for reading, stream in zip(sensor.readings, streams, strict=True):
                stream.newest = None if reading.value is None else reading.time
        return True

    def datastreams(self) -> list[Datastream]:
        """All datastreams, by id."""
        return self._ordered

    def observation(self, stream: Datastream, reading: Reading) -> Entity:
        """A reading of a datastream."""
        moment = datetime.fromtimestamp(reading.time / 1000, UTC).isoformat(timespec="milliseconds")
        time = moment.replace("+00:00", "Z")
        features = stream.linked["Thing"][0].id
        feature = self.sets["FeaturesOfInterest"].get(features)
        return Entity(
            OBSERVATIONS,
            f"{stream.id}@{reading.time}",
            lambda: {
                "phenomenonTime": time,
                "resultTime": time,
                "result": reading.value,
                "resultQuality": {"qartod": reading.flag, "name": _FLAGS.get(reading.flag, "")},
            },
            {"Datastream": [stream], "FeatureOfInterest": [feature] if feature else []},
        )

    def _add(self, sensor: SensorOut) -> None:
        name = sensor.title.en if sensor.title else sensor.sensor
        kind = self._kinds.get(sensor.kind)
        what = kind.title.en if kind else sensor.kind
        site = sensor.site_title.en if sensor.site_title else sensor.site
        titles = {} if sensor.title is None else {"title": sensor.title.model_dump()}
        about = {"kind": sensor.kind, "site": sensor.site, "sensor": sensor.sensor, **titles}
        self._states[sensor.id] = sensor.state, sensor.gateway
        thing = self._new(
            "Things",
            sensor.id,
            lambda: {
                "name": name,
                "description": f"{what} sensor at {site}",
                "properties": {**about, **dict(zip(("state", "gateway"), self._states[sensor.id], strict=True))},
            },
        )
        instrument = self._new(
            "Sensors",
            sensor.id,
            lambda: {
                "name": name,
                "description": f"{what} sensor at {site}, every {sensor.interval_s:g} s",
                "encodingType": "text/html",
                "metadata": f"{what}; values are judged by QARTOD and carry their flag as resultQuality",
                "properties": about,
            },
        )
        point = None
        if sensor.lat is not None and sensor.lon is not None:
            point = {"type": "Point", "coordinates": [sensor.lon, sensor.lat]}
            place = {"name": name, "description": site, "encodingType": _GEOJSON}
            location = self._new("Locations", sensor.id, lambda: {**place, "location": point, "properties": about})
            self._new("FeaturesOfInterest", sensor.id, lambda: {**place, "feature": point, "properties": about})
            thing.linked["Locations"] = [location]
            location.linked["Things"] = [thing]
        streams = []
        for reading in sensor.readings:
            stream = self._stream(sensor, reading.quantity, name, point, thing, instrument)
            stream.newest = None if reading.value is None else reading.time
            streams.append(stream)
        self._streams.append(streams)
        self._shape.append(_shape(sensor))

    def _stream(  # noqa: PLR0913, PLR0917 - what a datastream hangs between
        self,
        sensor: SensorOut,
        quantity: str,
        name: str,
        point: dict[str, Any] | None,
        thing: Entity,
        instrument: Entity,
    ) -> Datastream:
        what = self._quantity(sensor.kind, quantity)
        observed = self.sets["ObservedProperties"].get(f"{sensor.kind}:{quantity}") or self._new(
            "ObservedProperties",
            f"{sensor.kind}:{quantity}",
            lambda: {
                "name": what.title.en,
                "definition": f"urn:citygate:{quote(sensor.kind)}:{quote(quantity)}",
                "description": f"{what.title.en} as sensors of the kind {sensor.kind} report it",
                "properties": {"kind": sensor.kind, "quantity": quantity, "title": what.title.model_dump()},
            },
        )
        area = {} if point is None else {"observedArea": point}
        stream = Datastream(
            "Datastreams",
            f"{sensor.id}:{quantity}",
            lambda: {
                "name": f"{name}: {what.title.en}",
                "description": f"{what.title.en} in {what.unit or 'no unit'}",
                "observationType": _MEASUREMENT,
                "unitOfMeasurement": {"name": what.unit, "symbol": what.unit, "definition": None},
                **area,
                "properties": {"kind": sensor.kind, "site": sensor.site, "quantity": quantity},
            },
            {"Thing": [thing], "Sensor": [instrument], "ObservedProperty": [observed]},
            SensorKey(sensor.kind, sensor.site, sensor.sensor),
            quantity,
        )
        self.sets["Datastreams"][stream.id] = stream
        for end in (thing, instrument, observed):
            end.linked.setdefault("Datastreams", []).append(stream)
        return stream

    def _new(self, set_: str, id_: str, make: Callable[[], dict[str, Any]]) -> Entity:
        entity = Entity(set_, id_, make)
        self.sets[set_][id_] = entity
        return entity


def _shape(sensor: SensorOut) -> tuple[object, ...]:
    """All of a sensor that its entities show, but for its state, who heard it, and when its readings were."""
    names = [reading.quantity for reading in sensor.readings]
    place = sensor.title, sensor.site_title, sensor.lat, sensor.lon
    return sensor.id, sensor.interval_s, place, names
