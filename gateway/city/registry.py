"""Where sensors and sites are and how people call them: GeoJSON files, read again when they change."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sensors.kinds import Title

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Place:
    """What is known about a sensor beside its readings.

    Attributes:
        title: Its name, if it has one.
        lon: Longitude in degrees.
        lat: Latitude in degrees.
        interval: Seconds between its readings, if it is known.
        zone: Functional area by GB 3096 of a noise meter, such as ``4a``.
        road: Class of the road of a traffic detector, such as ``arterial``.
        lake: The water is a lake or a reservoir.
        target: Class that the water must have, such as ``III``.
        river: Name of the river that a water station stands at.
        river_km: Where along it, km from the source or any other point upstream.
    """

    title: Title | None
    lon: float
    lat: float
    interval: float | None
    zone: str | None = None
    road: str | None = None
    lake: bool = False
    target: str | None = None
    river: str | None = None
    river_km: float | None = None


@dataclass(slots=True)
class Registry:
    """The sites and sensors of one state of the file.

    Attributes:
        sensors: Places by (kind, site, sensor).
        sites: Titles by site.
        site_features: The sites as GeoJSON features.
    """

    sensors: dict[tuple[str, str, str], Place] = field(default_factory=dict)
    sites: dict[str, Title] = field(default_factory=dict)
    site_features: list[dict[str, Any]] = field(default_factory=list)

    @property
    def center(self) -> tuple[float, float] | None:
        """The middle of all sensors: longitude, latitude."""
        places = self.sensors.values()
        if not places:
            return None
        return sum(p.lon for p in places) / len(places), sum(p.lat for p in places) / len(places)


class WatchedGeoJson:
    """A GeoJSON file that may appear, change or break while the view runs; its last good state counts.

    Args:
        path: The file, or None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self.version = 0
        self.content: dict[str, Any] | None = None

    def refresh(self) -> bool:
        """Reads the file if it changed; True when there is new content."""
        if self._path is None:
            return False
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            content = json.loads(self._path.read_text("utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("features"), list):
                msg = "not a GeoJSON FeatureCollection"
                raise ValueError(msg)  # noqa: TRY301, TRY004 - told like any other broken content
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            _LOG.warning("%s: cannot be used, the last good state stays: %s", self._path, error)
            return False
        self.content = content
        self.version += 1
        return True


def read(content: dict[str, Any]) -> Registry:
    """Turns a feature collection into a registry; a feature that cannot be read is named in the log and left out."""
    registry = Registry()
    for number, feature in enumerate(content["features"]):
        try:
            properties = feature["properties"]
            title = Title.model_validate(properties["title"]) if properties.get("title") else None
            site = str(properties["site"])
            if "sensor" not in properties:
                registry.site_features.append(feature)
                if title is not None:
                    registry.sites[site] = title
                continue
            lon, lat = (float(value) for value in feature["geometry"]["coordinates"][:2])
            interval = float(properties["interval"]) if properties.get("interval") else None
            key = str(properties["kind"]), site, str(properties["sensor"])
            registry.sensors[key] = Place(
                title,
                lon,
                lat,
                interval,
                zone=_text(properties, "zone"),
                road=_text(properties, "road"),
                lake=properties.get("water") == "lake",
                target=_text(properties, "target"),
                river=_text(properties, "river"),
                river_km=None if properties.get("river_km") is None else float(properties["river_km"]),
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            _LOG.warning("feature %d of the registry is left out: %s: %s", number, type(error).__name__, error)
    return registry


def _text(properties: dict[str, Any], name: str) -> str | None:
    return None if properties.get(name) is None else str(properties[name])
