"""The simulated town: seven sites along a river, seven kinds of sensors, plausible days.

Every reading is a pure function of seed, script and time. The courses hang together as in a real town: one weather for
all, rain that moves over the sites and raises the river section by section, air that follows wind and traffic, noise
that follows traffic, soil that remembers rain. Sizes are chosen so that a clean day stays within the limits of the
kinds' files.
"""

import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Literal

from sensors import kinds
from sensors.courses import Noise, bump, plateau
from sensors.script import Event, Fault, Occurrence, Script, ScriptError, at

_RIVER_KM = 6.0  # a section of the river
_KM_LON, _KM_LAT = 96.2, 111.2
"""Kilometres a degree at 30° north."""
_LOCAL = timezone(timedelta(hours=8))
_CENTRE = (119.722, 30.232)
_SMOKESTACKS = "industry-park"

_SPIKES = 0.3
"""Share of the readings that spike while a sensor spikes."""
_SHOWERS = 0.25
"""Share of the eight-hour blocks in which a shower starts."""
_SATURDAY = 5

_INTERVALS = {"air": 10, "weather": 10, "water": 10, "noise": 5, "traffic": 5, "parking": 10, "soil": 10}
"""Seconds between two readings of a sensor. Shorter than in life, so that a demonstration moves."""


@dataclass(frozen=True, eq=False)
class Site:
    """A part of the town.

    Attributes:
        busy: Traffic compared with the busiest site, 0 to 1.
        section: Hours that the river's answer to rain needs to get here; None away from the river.
        sensors: How many there are of each kind.
    """

    name: str
    role: Literal["town", "village", "river", "road"]
    title: kinds.Title
    lon: float
    lat: float
    busy: float
    section: float | None
    sensors: Mapping[str, int]


def _title(zh: str, en: str, ko: str) -> kinds.Title:
    return kinds.Title(zh=zh, en=en, ko=ko)


def _numbers(*numbers: int) -> dict[str, int]:
    return dict(zip(_INTERVALS, numbers, strict=True))


# Numbers: air, weather, water, noise, traffic, parking, soil. The river runs from west to east.
# fmt: off
SITES = (
    Site("longgang", "village", _title("龙岗", "Longgang", "룽강"),
         119.668, 30.208, 0.35, 0.0, _numbers(1, 1, 2, 1, 1, 0, 3)),
    Site("taihu-village", "village", _title("太湖村", "Taihu Village", "타이후촌"),
         119.688, 30.268, 0.3, 0.4, _numbers(1, 1, 1, 1, 1, 0, 3)),
    Site("old-town", "town", _title("老城", "Old Town", "구시가지"),
         119.722, 30.232, 0.9, 0.8, _numbers(2, 1, 1, 3, 3, 3, 0)),
    Site("station-road", "road", _title("车站路", "Station Road", "역전로"),
         119.737, 30.214, 1.0, None, _numbers(2, 1, 0, 3, 4, 2, 0)),
    Site("industry-park", "town", _title("工业园", "Industry Park", "산업단지"),
         119.751, 30.260, 0.8, 1.2, _numbers(2, 1, 1, 2, 3, 1, 0)),
    Site("east-lake", "town", _title("东湖", "East Lake", "둥후"),
         119.762, 30.236, 0.6, 1.4, _numbers(2, 1, 2, 2, 2, 2, 1)),
    Site("qingshan", "river", _title("青山", "Qingshan", "칭산"),
         119.782, 30.212, 0.45, 2.0, _numbers(1, 1, 2, 1, 2, 1, 2)),
)
# fmt: on
_BY_NAME = {site.name: site for site in SITES}


@dataclass(frozen=True, eq=False)
class Sensor:
    """A simulated sensor.

    Attributes:
        number: Counts from 1 within its kind.
        interval: Seconds between readings.
    """

    kind: str
    site: Site
    number: int
    lon: float
    lat: float
    interval: float

    @property
    def name(self) -> str:
        """Its name in topics, such as ``air-01``."""
        return f"{self.kind}-{self.number:02}"

    @property
    def id(self) -> str:
        """``kind:site:sensor``."""
        return f"{self.kind}:{self.site.name}:{self.name}"


@dataclass(frozen=True, slots=True)
class Message:
    """What a sensor sends.

    Attributes:
        time: When it sends, ms UTC on the simulation's clock. A sensor with a wrong clock says something else.
    """

    time: int
    sensor: Sensor
    payload: bytes


@dataclass(frozen=True, slots=True)
class Weather:
    """The weather at a place and time: °C, hPa, m/s, degrees that the wind comes from, mm/h, sun from 0 to 1."""

    temperature: float
    dew_point: float
    pressure: float
    wind_speed: float
    wind_direction: float
    rain: float
    sun: float


class Town:
    """The simulated town.

    Args:
        seed: Same seed, same town and same days.
        script: Faults and true events.
        origin: Where the script's clock starts, ms UTC.
        interval: Seconds between two readings of a sensor, instead of each kind's own.

    Raises:
        ScriptError: If the script names a sensor or a quantity that the town does not have.
    """

    def __init__(
        self, seed: int, *, script: Script | None = None, origin: int = 0, interval: float | None = None
    ) -> None:
        self._noise = Noise(seed)
        self._script = script or Script()
        self._origin = origin
        self._shower = lru_cache(4096)(self._new_shower)
        self._river = lru_cache(1024)(self._river_response)
        self._held_natural = lru_cache(1024)(self._soil_memory)
        self._measure: Mapping[str, Callable[[Sensor, float], dict[str, float]]] = {
            "air": self._air,
            "weather": self._weather,
            "water": self._water,
            "noise": self._sound,
            "traffic": self._traffic,
            "parking": self._parking,
            "soil": self._soil,
        }
        self.sensors = tuple(self._place(interval))
        by_name = {key: sensor for sensor in self.sensors for key in (sensor.name, sensor.id)}
        self._faults: dict[str, list[Fault]] = {}
        self._cast: dict[Event | Fault, tuple[Sensor, ...]] = {}
        entries: tuple[Fault | Event, ...] = (*self._script.fault, *self._script.event)
        for entry in entries:
            if unknown := [name for name in entry.sensors if name not in by_name]:
                msg = f"{entry.type}: the town has no sensor {unknown[0]!r}"
                raise ScriptError(msg)
            self._cast[entry] = tuple(by_name[name] for name in entry.sensors)
        for fault in self._script.fault:
            for sensor in self._cast[fault]:
                known = self.reading(sensor, origin)
                if fault.quantity is not None and fault.quantity not in known:
                    msg = f"{fault.type}: {sensor.name} has no quantity {fault.quantity!r}, only {', '.join(known)}"
                    raise ScriptError(msg)
                self._faults.setdefault(sensor.id, []).append(fault)

    def _place(self, interval: float | None) -> Iterator[Sensor]:
        for kind, default in _INTERVALS.items():
            number = 0
            for site in SITES:
                for _ in range(site.sensors[kind]):
                    number += 1
                    name = f"place/{kind}-{number}"
                    # Within about 600 m of the site's middle; water sensors stay close to the river.
                    spread = 0.25 if kind == "water" else 0.6
                    lon = site.lon + (self._noise.uniform(name, 0) * 2 - 1) * spread / _KM_LON
                    lat = site.lat + (self._noise.uniform(name, 1) * 2 - 1) * spread / _KM_LAT
                    yield Sensor(kind, site, number, round(lon, 5), round(lat, 5), interval or default)

    def registry(self) -> dict[str, Any]:
        """The places as a GeoJSON FeatureCollection: sites and sensors with titles in each language."""
        features: list[dict[str, Any]] = [
            _feature(site.lon, site.lat, {"site": site.name, "role": site.role, "title": site.title.model_dump()})
            for site in SITES
        ]
        for sensor in self.sensors:
            kind = kinds.builtin()[sensor.kind].title
            title = {
                "zh": f"{sensor.site.title.zh}{kind.zh} {sensor.number:02}",
                "en": f"{sensor.site.title.en} {kind.en.lower()} {sensor.number:02}",
                "ko": f"{sensor.site.title.ko} {kind.ko} {sensor.number:02}",
            }
            properties = {
                "sensor": sensor.name,
                "site": sensor.site.name,
                "kind": sensor.kind,
                "title": title,
                "interval": sensor.interval,
                **_standing(sensor),
            }
            features.append(_feature(sensor.lon, sensor.lat, properties))
        return {"type": "FeatureCollection", "features": features}

    # -- messages and truth ------------------------------------------------------------------------------------------

    def messages(self, start: int, end: int | None = None) -> Iterator[Message]:
        """All messages from a start (ms, inclusive) to an end (exclusive; endless when None), in order of time."""

        def of(sensor: Sensor) -> Iterator[Message]:
            step = round(sensor.interval * 1000)
            phase = round(self._noise.uniform(f"phase/{sensor.id}", 0) * step)
            time = start + (phase - start) % step
            while end is None or time < end:
                if (payload := self.payload(sensor, time)) is not None:
                    yield Message(time, sensor, payload)
                time += step

        return heapq.merge(*map(of, self.sensors), key=lambda message: message.time)

    def truth(self) -> Iterator[dict[str, Any]]:
        """What the script does, in order of start: one record an occurrence, for whoever judges a filter later.

        A plume's sensors are those of air whose PM2.5 it lifts by at least a tenth of its amount.
        """
        for occurrence in self._script.occurrences(self._origin):
            entry = occurrence.entry
            record: dict[str, Any] = {
                "class": "fault" if isinstance(entry, Fault) else "event",
                "type": entry.type,
                "start": datetime.fromtimestamp(occurrence.start / 1000, UTC).isoformat(timespec="milliseconds"),
                "end": datetime.fromtimestamp(occurrence.end / 1000, UTC).isoformat(timespec="milliseconds"),
                "sensors": [sensor.id for sensor in self._reached(occurrence)],
            }
            if isinstance(entry, Fault) and entry.quantity is not None:
                record["quantity"] = entry.quantity
            if entry.amount is not None:
                record["amount"] = entry.amount
            yield record

    def _reached(self, occurrence: Occurrence) -> tuple[Sensor, ...]:
        entry = occurrence.entry
        if isinstance(entry, Event) and entry.type == "plume":
            times = range(occurrence.start, occurrence.end, max(1, (occurrence.end - occurrence.start) // 60))
            return tuple(
                sensor
                for sensor in self.sensors
                if sensor.kind == "air"
                and any(_smoke(entry, *self._plume(occurrence, sensor, time)) >= entry.amount / 10 for time in times)
            )
        if isinstance(entry, Event) and entry.type == "rainstorm":
            return tuple(sensor for sensor in self.sensors if sensor.kind in {"weather", "water", "soil"})
        return self._cast[entry]

    def payload(self, sensor: Sensor, time: int) -> bytes | None:
        """What a sensor sends at a time in ms, its faults included; None when it drops out."""
        values = self.reading(sensor, time)
        stamp = time
        for fault in self._faults.get(sensor.id, ()):
            if (occurrence := at(fault, self._origin, time)) is None:
                continue
            amount, quantity = fault.amount or 0.0, fault.quantity or ""
            match fault.type:
                case "dropout":
                    return None
                case "garbage":
                    return self._garbage(sensor, time, values)
                case "clock":
                    stamp += round(amount * 1000)
                case "stuck":
                    frozen = self.reading(sensor, occurrence.start)
                    values = {**values, quantity: frozen[quantity]} if quantity else frozen
                case "drift":
                    values[quantity] = round(values[quantity] + amount * occurrence.progress(time), 3)
                case "spike":
                    first = time - occurrence.start < sensor.interval * 1000
                    if first or self._noise.uniform(f"spike/{sensor.id}", time) < _SPIKES:
                        values[quantity] = round(values[quantity] + amount, 3)
        return _json({"ts": stamp, **values})

    def _garbage(self, sensor: Sensor, time: int, values: Mapping[str, float]) -> bytes:
        whole = _json({"ts": time, **values})
        form = int(self._noise.uniform(f"garbage/{sensor.id}", time) * 4)
        return (
            whole[: len(whole) // 2],
            bytes(int(self._noise.uniform(sensor.id, time + k) * 256) for k in range(24)),
            _json({"ts": time, **dict.fromkeys(values, "ERR")}),
            b"",
        )[form]

    # -- weather -----------------------------------------------------------------------------------------------------

    def _on(self, kind: str, time: float) -> Iterator[tuple[Event, Occurrence]]:
        for event in self._script.event:
            if event.type == kind and (occurrence := at(event, self._origin, round(time * 1000))) is not None:
                yield event, occurrence

    def _new_shower(self, block: int) -> tuple[float, float, float] | None:
        """The shower that starts within a block of eight hours: start and duration in s, peak in mm/h."""
        if self._noise.uniform("shower", block) > _SHOWERS:
            return None
        start = (block + self._noise.uniform("shower/start", block)) * 28800
        return (
            start,
            3600 * (1 + 4 * self._noise.uniform("shower/long", block)),
            0.5 + 11 * self._noise.uniform("shower/peak", block) ** 2,
        )

    def _showers(self, time: float) -> float:
        total = 0.0
        block = int(time // 28800)
        for shower in (self._shower(block - 1), self._shower(block)):
            if shower is not None:
                start, duration, peak = shower
                total += peak * bump((time - start) / duration)
        return total

    def _rain(self, site: Site, time: float) -> float:
        """mm/h at a site; showers come from the west with some 7 m/s, scripted storms are over the whole town."""
        delay = (site.lon - _CENTRE[0]) * _KM_LON * 1000 / 7
        storms = sum(event.amount * bump(o.progress(time * 1000) * 2) for event, o in self._on("rainstorm", time))
        return self._showers(time - delay) + storms

    def weather(self, site: Site, time: float) -> Weather:
        """The weather over a site at a time in seconds."""
        smooth = self._noise.smooth
        local = time + 28800
        hour = local / 3600 % 24
        season = -math.cos(2 * math.pi * (local / 86400 - 20) / 365.25)
        rain = self._rain(site, time)
        wet = 1 - math.exp(-rain / 20)
        cloud = min(1.0, max(0.0, 0.45 + 0.3 * smooth("cloud", time, 18000) + 0.5 * wet))
        daylight = 6 + 0.9 * season
        sun = max(0.0, math.cos((hour - 12) / daylight * math.pi / 2)) if abs(hour - 12) < daylight else 0.0
        sun *= 1 - 0.75 * cloud
        village = -0.8 if site.role == "village" else 0.0
        temperature = (
            16.5
            + 11 * season
            + 2.2 * smooth("front", time, 3.2 * 86400)
            + (4.5 - 2 * cloud) * math.cos(2 * math.pi * (hour - 15) / 24)
            - 1.2 * wet
            + village
        )
        dew = 12 + 10 * season + 2 * smooth("moist", time, 2 * 86400) + village + 1.2 * wet
        wind = 2.4 + 0.8 * smooth("wind", time, 28800) + 0.8 * sun + 0.35 * smooth(f"gust/{site.name}", time, 45)
        return Weather(
            temperature,
            min(dew, temperature - 0.4),
            1013 - 5 * season + 4 * smooth("pressure", time, 2.5 * 86400) + 0.9 * math.cos(math.pi * (hour - 10) / 6),
            max(0.3, wind),
            (62 + 28 * smooth("turn", time, 21600) + 8 * smooth(f"veer/{site.name}", time, 600)) % 360,
            rain,
            sun,
        )

    # -- water and soil remember the rain ----------------------------------------------------------------------------

    def _river_response(self, slot: int) -> float:
        """The river's answer to natural rain at its upper section, m; slots of ten minutes, a gamma-shaped memory."""
        lags = range(1, 73)
        return sum(self._showers((slot - lag) * 600.0) * lag * math.exp(-lag / 9) for lag in lags) * 0.0009

    def _soil_memory(self, slot: int) -> float:
        """Rain that the soil still holds, mm; slots of an hour, forgotten within two days."""
        return sum(self._showers((slot - lag) * 3600.0) * math.exp(-lag / 36) for lag in range(1, 120))

    def _rise(self, site: Site, time: float) -> float:
        """How far rain has raised the river at a site, m."""
        section = site.section or 0.0
        slot, part = divmod((time - section * 3600) / 600, 1)
        low, high = self._river(int(slot)), self._river(int(slot) + 1)
        rise = low + (high - low) * part
        for event, occurrence in self._on("rainstorm", time):
            # A storm of 45 mm/h lifts the river by 1.05 m, a little later at each section.
            delayed = (occurrence.progress(time * 1000) - 0.05 - 0.08 * section) / (0.95 - 0.08 * section)
            rise += event.amount / 45 * 1.05 * bump(delayed)
        return rise

    def _held(self, time: float) -> float:
        slot, part = divmod(time / 3600, 1)
        low, high = self._held_natural(int(slot)), self._held_natural(int(slot) + 1)
        storms = sum(event.amount * 0.4 * bump(o.progress(time * 1000)) for event, o in self._on("rainstorm", time))
        return low + (high - low) * part + storms

    # -- traffic and air ---------------------------------------------------------------------------------------------

    def demand(self, site: Site, time: float) -> float:
        """Traffic of a site compared with the capacity of its roads, 0 to 1: rush hours, calm nights, weekends."""
        local = time + 28800
        day, hour = divmod(local / 3600, 24)

        def peak(at_hour: float, width: float) -> float:
            return math.exp(-(((hour - at_hour) / width) ** 2))

        # 1970-01-01 was a Thursday.
        if int(day + 3) % 7 >= _SATURDAY:
            share = 0.06 + 0.34 * peak(11.5, 2.8) + 0.4 * peak(17, 3) + 0.1 * peak(20.5, 1.5)
        else:
            share = 0.06 + 0.6 * peak(8, 1.1) + 0.34 * peak(12.7, 2.8) + 0.62 * peak(17.8, 1.5) + 0.12 * peak(20.5, 1.5)
        return site.busy * min(1.0, share * (1 + 0.07 * self._noise.smooth(f"busy/{site.name}", time, 1200)))

    def _plume(self, occurrence: Occurrence, sensor: Sensor, time: float) -> tuple[float, float]:
        """Distance of a sensor from the middle of a plume, km, and the plume's progress.

        It starts upwind of the town's centre and travels with the wind that blows as it starts.
        """
        event = occurrence.entry
        wind = self.weather(_BY_NAME["old-town"], occurrence.start / 1000)
        pace = wind.wind_speed * (event.pace if isinstance(event, Event) else 1)
        # Halfway through its time it is over the centre.
        along = pace * (time - (occurrence.start + occurrence.end) / 2) / 1e6
        angle = math.radians(wind.wind_direction)
        x = (sensor.lon - _CENTRE[0]) * _KM_LON + math.sin(angle) * along
        y = (sensor.lat - _CENTRE[1]) * _KM_LAT + math.cos(angle) * along
        return math.hypot(x, y), occurrence.progress(time)

    def _industry(self, sensor: Sensor, weather: Weather) -> float:
        """How much a place smells of the industry park: all of it there, less with distance and off the wind."""
        park = _BY_NAME[_SMOKESTACKS]
        x, y = (sensor.lon - park.lon) * _KM_LON, (sensor.lat - park.lat) * _KM_LAT
        distance = math.hypot(x, y)
        downwind = math.atan2(-x, -y) - math.radians(weather.wind_direction)
        return (0.25 + 0.75 * max(0.0, math.cos(downwind)) ** 2) / (1 + distance / 2.5)

    # -- readings ----------------------------------------------------------------------------------------------------

    def reading(self, sensor: Sensor, time: int) -> dict[str, float]:
        """What a sound sensor measures at a time in ms: quantity to value, in the units of its kind.

        Values carry one digit more than people are shown, which is about what sensors resolve.
        """
        quantities = kinds.builtin()[sensor.kind].quantities
        values = self._measure[sensor.kind](sensor, time / 1000)
        if sensor.kind in {"soil", "parking", "noise", "water"}:
            values["battery"] = int(78 + 9 * self._noise.smooth(f"battery/{sensor.id}", time / 1000, 9 * 86400))
            values["rssi"] = int(
                -82 + 7 * self._site_noise("rssi", sensor) + 2 * self._fast("rssi", sensor, time / 1000)
            )
        return {
            name: value if isinstance(value, int) else round(value, quantities[name].decimals + 1)
            for name, value in values.items()
        }

    def _fast(self, name: str, sensor: Sensor, time: float) -> float:
        return self._noise.white(f"{name}/{sensor.id}", round(time * 1000))

    def _slow(self, name: str, sensor: Sensor, time: float, period: float) -> float:
        return self._noise.smooth(f"{name}/{sensor.id}", time, period)

    def _site_noise(self, name: str, sensor: Sensor) -> float:
        return self._noise.white(f"own/{name}/{sensor.id}", 0)

    def _air(self, sensor: Sensor, time: float) -> dict[str, float]:
        weather = self.weather(sensor.site, time)
        traffic = self.demand(sensor.site, time)
        industry = self._industry(sensor, weather)
        calm = min(1.5, max(0.6, 3.4 / (weather.wind_speed + 1)))
        washed = 1 - 0.45 * (1 - math.exp(-weather.rain / 3))
        haze = max(8.0, 20 + 6 * self._noise.smooth("haze", time, 2.5 * 86400))
        smoke = sum(_smoke(event, *self._plume(o, sensor, time * 1000)) for event, o in self._on("plume", time))
        fine = (haze + 7 * traffic * calm + 9 * industry * calm) * washed + smoke
        fine = max(
            2.0, fine * (1 + 0.06 * self._slow("pm25", sensor, time, 300)) + 0.6 * self._fast("pm25", sensor, time)
        )
        no2 = 14 + 20 * traffic * calm + 6 * industry + 0.12 * smoke
        return {
            "pm25": fine,
            "pm10": fine * (1.45 + 0.08 * self._slow("pm10", sensor, time, 1800))
            + 6
            + self._fast("pm10", sensor, time),
            "so2": max(3.2, 6 + 5 * industry + 0.08 * smoke + 0.4 * self._fast("so2", sensor, time)),
            "no2": max(3.2, no2 + 0.7 * self._fast("no2", sensor, time)),
            "o3": max(3.2, 45 + 75 * weather.sun - 0.35 * no2 + 0.8 * self._fast("o3", sensor, time)),
            "co": max(0.21, 0.45 + 0.4 * traffic * calm + 0.004 * smoke + 0.01 * self._fast("co", sensor, time)),
            "temperature": weather.temperature + 0.4 + 0.02 * self._fast("temperature", sensor, time),
            "humidity": _humidity(weather.temperature + 0.4, weather.dew_point) + 0.1 * self._fast("rh", sensor, time),
        }

    def _weather(self, sensor: Sensor, time: float) -> dict[str, float]:
        weather = self.weather(sensor.site, time)
        # A tipping bucket of 0.1 mm: a random tip keeps the sum right without a memory.
        tips = weather.rain * sensor.interval / 360
        rain = int(tips + self._noise.uniform(f"tip/{sensor.id}", round(time * 1000))) / 10
        return {
            "temperature": weather.temperature + 0.02 * self._fast("temperature", sensor, time),
            "humidity": _humidity(weather.temperature, weather.dew_point) + 0.1 * self._fast("humidity", sensor, time),
            "pressure": weather.pressure + 0.004 * self._fast("pressure", sensor, time),
            "dew_point": weather.dew_point + 0.02 * self._fast("dew_point", sensor, time),
            "wind_speed": max(0.0, weather.wind_speed + 0.15 * self._fast("wind", sensor, time)),
            "wind_direction": (weather.wind_direction + 4 * self._fast("vane", sensor, time)) % 360,
            "rain": rain,
            "illuminance": max(0.0, 3 + 95_000 * weather.sun + 0.3 * self._fast("lux", sensor, time)),
        }

    def _water(self, sensor: Sensor, time: float) -> dict[str, float]:
        weather = self.weather(sensor.site, time)
        section = sensor.site.section or 0.0
        rise = self._rise(sensor.site, time)
        level = 1.5 + 0.15 * section + 0.05 * self._site_noise("datum", sensor) + rise
        # The river is as warm as the air of the last days and half as lively.
        season = -math.cos(2 * math.pi * ((time + 28800) / 86400 - 35) / 365.25)
        temperature = 16 + 8.5 * season + 0.8 * self._noise.smooth("river", time, 3 * 86400) + 0.5 * weather.sun
        town = min(1.0, section / 2)
        muddy = 9 + 6 * town + 95 * rise
        return {
            "level": level + 0.002 * self._fast("level", sensor, time),
            "flow": 14 * level**1.7 * (1 + 0.01 * self._fast("flow", sensor, time)),
            "temperature": temperature + 0.01 * self._fast("temperature", sensor, time),
            "ph": 7.35 + 0.15 * weather.sun - 0.2 * rise + 0.005 * self._fast("ph", sensor, time),
            "dissolved_oxygen": 14.2
            - 0.28 * temperature
            + 0.9 * weather.sun
            - 0.9 * town
            - 0.4 * rise
            + 0.02 * self._fast("oxygen", sensor, time),
            "conductivity": 210 + 90 * town - 60 * min(1.5, rise) + 0.8 * self._fast("salt", sensor, time),
            "turbidity": muddy * (1 + 0.05 * self._slow("mud", sensor, time, 900))
            + 0.3 * self._fast("mud", sensor, time),
            "nh3n": max(0.06, 0.16 + 0.35 * town + 0.12 * rise + 0.006 * self._fast("nh3n", sensor, time)),
            "codmn": 2.2 + 1.4 * town + 0.8 * rise + 0.02 * self._fast("codmn", sensor, time),
            "tp": max(0.011, 0.05 + 0.06 * town + 0.03 * rise + 0.001 * self._fast("tp", sensor, time)),
        }

    def _loudness(self, sensor: Sensor, time: float) -> float:
        traffic = self.demand(sensor.site, time)
        rain = self._rain(sensor.site, time)
        horns = sum(
            2 * plateau(o.progress(time * 1000))
            for event, o in self._on("accident", time)
            if sensor.site in {detector.site for detector in self._cast[event]}
        )
        return (
            41
            + 4 * sensor.site.busy
            + 1.2 * self._site_noise("level", sensor)
            + 6.5 * math.log10(1 + 150 * traffic)
            + 2.5 * (1 - math.exp(-rain / 8))
            + horns
        )

    def _sound(self, sensor: Sensor, time: float) -> dict[str, float]:
        level = self._loudness(sensor, time) + 0.8 * self._fast("laeq", sensor, time)
        return {"laeq": level, "lamax": level + 5.5 + 1.6 * abs(self._fast("lamax", sensor, time))}

    def _traffic(self, sensor: Sensor, time: float) -> dict[str, float]:
        # A road of two or three lanes, at its best 1500 vehicles an hour and lane.
        lanes = 2 + sensor.number % 2
        free = 48 + 6 * lanes
        own = 1 + 0.08 * self._site_noise("share", sensor)
        demand = self.demand(sensor.site, time) * own * (1 + 0.05 * self._fast("demand", sensor, time))
        speed = free * (1 - 0.4 * demand**2) * (1 - 0.1 * (1 - math.exp(-self._rain(sensor.site, time) / 6)))
        occupancy = 0.6 + 26 * demand**1.4
        for event, occurrence in self._on("accident", time):
            detectors = self._cast[event]
            share = 1.0 if sensor in detectors else 0.35 if sensor.site in {d.site for d in detectors} else 0.0
            jam = event.amount * share * plateau(occurrence.progress(time * 1000))
            demand *= 1 - 0.75 * jam
            speed += (6 - speed) * jam
            occupancy += (82 - occupancy) * jam
        return {
            "flow": int(max(12.0, 1500 * lanes * demand)),
            "speed": max(3.0, speed + 1.2 * self._fast("speed", sensor, time)),
            "occupancy": max(0.2, occupancy + 0.25 * self._fast("occupancy", sensor, time)),
        }

    def _parking(self, sensor: Sensor, time: float) -> dict[str, float]:
        capacity = 120 + 40 * (sensor.number * 7 % 9)
        demand = self.demand(sensor.site, time - 1800) / sensor.site.busy
        share = 0.3 + 0.45 * demand + 0.08 * self._slow("share", sensor, time, 5400)
        occupied = max(0, min(capacity, int(capacity * share + 0.4 * self._fast("cars", sensor, time))))
        return {"occupied": occupied, "capacity": capacity, "free": capacity - occupied}

    def _soil(self, sensor: Sensor, time: float) -> dict[str, float]:
        moisture = 22 + 2.5 * self._site_noise("soil", sensor) + 14 * (1 - math.exp(-self._held(time) / 25))
        season = -math.cos(2 * math.pi * ((time + 28800) / 86400 - 40) / 365.25)
        daily = 1.2 * math.cos(2 * math.pi * ((time + 28800) / 3600 - 17) / 24)
        return {
            "moisture": moisture + 0.05 * self._fast("moisture", sensor, time),
            "temperature": 17 + 9 * season + daily + 0.02 * self._fast("temperature", sensor, time),
            "conductivity": 60 + 7 * moisture + 0.5 * self._fast("salt", sensor, time),
            "ph": 6.3 + 0.15 * self._site_noise("ph", sensor) + 0.006 * self._fast("ph", sensor, time),
        }


def _smoke(event: Event, distance: float, progress: float) -> float:
    """PM2.5 that a plume adds at a distance in km from its middle, µg/m³; it comes and goes smoothly."""
    return event.amount * math.exp(-((distance / 2.2) ** 2)) * plateau(progress, 0.1)


def _standing(sensor: Sensor) -> dict[str, str | float]:
    """By which limits a sensor is judged, and where along the river it is."""
    if sensor.kind == "noise":
        zones = {"village": "1", "town": "2", "river": "2", "road": "4a"}
        return {"zone": "3" if sensor.site.name == _SMOKESTACKS else zones[sensor.site.role]}
    if sensor.kind == "traffic":
        return {"road": "branch" if sensor.site.role == "village" else "arterial"}
    if sensor.kind == "water":
        return {"target": "III", "river": "town-river", "river_km": round(_RIVER_KM * (sensor.site.section or 0.0), 1)}
    return {}


def _humidity(temperature: float, dew_point: float) -> float:
    """Relative humidity in %, by the Magnus formula over water (WMO No. 8: 17.62, 243.12 °C)."""

    def pressure(degrees: float) -> float:
        return math.exp(17.62 * degrees / (243.12 + degrees))

    return min(100.0, 100 * pressure(dew_point) / pressure(temperature))


def _feature(lon: float, lat: float, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [lon, lat]}, "properties": properties}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
