"""The shapes of grades in the city view's answers. Levels are named; ``/api/v1/scales`` says what a name means."""

from typing import Literal

from pydantic import BaseModel, Field

from gateway.city.grades.tables import AirIndexName
from sensors.kinds import Title


class AirIndexOut(BaseModel):
    """An air quality index."""

    value: int | None = Field(description="null when the data do not suffice")
    level: str | None = Field(examples=["good"])
    primary: list[str] = Field(description="pollutants that lead", examples=[["pm25"]])
    sub: dict[str, int] = Field(description="sub-index by pollutant", examples=[{"pm25": 62, "o3": 31}])
    provisional: bool = Field(description="the last hour has fewer readings than the standard asks for")
    hours: int | None = Field(description="full hours of the last 24 that count; null for the index of now")


class AirOut(BaseModel):
    """Air quality at a place, by the mean of its stations."""

    stations: int
    now: dict[AirIndexName, AirIndexOut] = Field(description="of the last hour")
    day: dict[AirIndexName, AirIndexOut] = Field(description="of the last 24 full hours")


class WaterOut(BaseModel):
    """The water of a place: its worst section."""

    sections: int
    level: str = Field(examples=["III"])
    worst: list[str] = Field(description="factors that decide; none in the best class", examples=[["nh3n"]])
    over: int = Field(description="sections worse than their target class")


class NoiseOut(BaseModel):
    """Noise at a place."""

    meters: int = Field(description="those with a functional area and readings within the last hour")
    over: int = Field(description="meters whose last hour is over the limit of this time of day")


class TrafficOut(BaseModel):
    """Traffic at a place."""

    roads: int
    index: float = Field(description="congestion index, 0 to 10", examples=[3.4])
    level: str = Field(examples=["basically-free"])


class ParkingOut(BaseModel):
    """Places left to park."""

    left: int
    capacity: int


class PlaceGrades(BaseModel):
    """The grades of the town, a district or a site; null for what is not measured there."""

    place: str = Field(description="id of the site or the district; empty for the town", examples=["old-town"])
    title: Title | None
    air: AirOut | None
    water: WaterOut | None
    noise: NoiseOut | None
    traffic: TrafficOut | None
    parking: ParkingOut | None


class Section(BaseModel):
    """A section of water."""

    sensor_id: str = Field(examples=["water:qingshan:water-08"])
    level: str = Field(examples=["IV"])
    worst: list[str] = Field(examples=[["nh3n"]])
    factors: dict[str, str] = Field(description="class of each factor", examples=[{"nh3n": "IV", "codmn": "II"}])
    values: dict[str, float] = Field(
        description="mean of the last hour, or the newest reading if there was none", examples=[{"nh3n": 1.2}]
    )
    target: str | None = Field(description="class it must have, if the registry says so", examples=["III"])
    over: bool = Field(description="worse than its target class")


class NoiseLevel(BaseModel):
    """An equivalent level against its limit."""

    level: float = Field(description="dB(A)", examples=[57.3])
    limit: float = Field(examples=[60.0])
    over: bool


class Meter(BaseModel):
    """A noise meter; null for what has no readings."""

    sensor_id: str = Field(examples=["noise:old-town:noise-03"])
    zone: str = Field(description="functional area by GB 3096", examples=["2"])
    period: Literal["day", "night"] = Field(description="what it is now")
    now: NoiseLevel | None = Field(description="of the last hour")
    day: NoiseLevel | None = Field(description="of this day so far, or the last one")
    night: NoiseLevel | None = Field(description="of this night so far, or the last one")


class RoadOut(BaseModel):
    """A traffic detector's road."""

    sensor_id: str = Field(examples=["traffic:old-town:traffic-03"])
    road: str = Field(description="class of the road", examples=["arterial"])
    speed: float = Field(description="km/h", examples=[28.5])
    flow: float | None = Field(description="veh/h", examples=[840.0])
    level: str = Field(examples=["light"])
    index: float = Field(examples=[4.3])
    empty: bool = Field(description="no vehicle is there")


class GradesOut(BaseModel):
    """Indices and grades as they are at ``time``."""

    time: str
    town: PlaceGrades
    districts: list[PlaceGrades]
    sites: list[PlaceGrades]
    water: list[Section] = Field(description="worst class first")
    noise: list[Meter] = Field(description="furthest over its limit first")
    roads: list[RoadOut] = Field(description="most congested first")


class LevelOut(BaseModel):
    """A level of a scale."""

    name: str
    title: Title
    colour: str = Field(examples=["#ffff00"])
    upto: float | None = Field(description="last value of the index with this level, if the scale has an index")


class ScaleOut(BaseModel):
    """A scale of levels, best first, and where its numbers are from."""

    title: Title
    source: str
    levels: list[LevelOut]


class ZoneOut(BaseModel):
    """A functional area and its limits, dB(A)."""

    title: Title
    day: float
    night: float


class RoadClassOut(BaseModel):
    """A class of road, and the speeds in km/h above which it has each level but the last."""

    title: Title
    above: list[float]


class Scales(BaseModel):
    """What the levels of grades mean: names, colours, limits."""

    air: dict[AirIndexName, ScaleOut]
    water: ScaleOut
    noise: ScaleOut
    traffic: ScaleOut
    zones: dict[str, ZoneOut]
    roads: dict[str, RoadClassOut]


class GradeOut(BaseModel):
    """A sensor's own grade: air by China's index of the last hour, water by class, noise by limit, roads by speed."""

    level: str = Field(examples=["good"])
    title: Title
    colour: str = Field(examples=["#ffff00"])
    value: float | None = Field(description="index or dB(A); null for a class of water", examples=[62])


class PointGeometry(BaseModel):
    """A position."""

    type: Literal["Point"] = "Point"
    coordinates: tuple[float, float] = Field(description="longitude, latitude", examples=[(119.722, 30.232)])


class SensorProperties(BaseModel):
    """What a map shows of a sensor."""

    kind: str = Field(examples=["air"])
    site: str = Field(examples=["old-town"])
    sensor: str = Field(examples=["air-03"])
    gateway: str
    title: Title | None
    site_title: Title | None
    time: str
    state: Literal["fresh", "stale", "silent"]
    flag: int = Field(description="QARTOD, the worst of its readings")
    values: dict[str, float | None] = Field(examples=[{"pm25": 41.0, "o3": 62.0}])
    grade: GradeOut | None = Field(description="null when nothing of it is graded")


class SensorFeature(BaseModel):
    """A sensor as a feature."""

    type: Literal["Feature"] = "Feature"
    id: str = Field(description="kind:site:sensor", examples=["air:old-town:air-03"])
    geometry: PointGeometry | None = Field(description="null when the registry does not know it")
    properties: SensorProperties


class SensorFeatures(BaseModel):
    """Sensors as a GeoJSON feature collection (RFC 7946)."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[SensorFeature]
