"""Which district a position lies in."""

import itertools
import logging
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from sensors.kinds import Title

_LOG = logging.getLogger(__name__)
_Ring = list[tuple[float, float]]


class Districts:
    """The districts of a GeoJSON feature collection: its areas with a property ``district``.

    Args:
        content: The collection; none for no districts.
    """

    def __init__(self, content: dict[str, Any] | None) -> None:
        self.titles: dict[str, Title | None] = {}
        self._areas: list[tuple[str, list[_Ring]]] = []
        for number, feature in enumerate((content or {}).get("features", [])):
            try:
                self._add(feature)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                _LOG.warning("feature %d of the districts is left out: %s: %s", number, type(error).__name__, error)

    def _add(self, feature: dict[str, Any]) -> None:
        properties = feature.get("properties") or {}
        polygons = list(_polygons(feature.get("geometry") or {}))
        if "district" not in properties or not polygons:
            return
        name = str(properties["district"])
        self.titles[name] = _title(properties.get("title"))
        self._areas += [(name, rings) for rings in polygons]

    def at(self, lon: float, lat: float) -> str | None:
        """The district of a position in degrees, the first of several; None outside all."""
        return next((name for name, rings in self._areas if _within(rings, lon, lat)), None)


def _polygons(geometry: dict[str, Any]) -> Iterator[list[_Ring]]:
    coordinates: list[Any] = geometry["coordinates"]
    for polygon in {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(str(geometry.get("type")), []):
        yield [[(float(point[0]), float(point[1])) for point in ring] for ring in polygon]


def _title(value: object) -> Title | None:
    try:
        return Title.model_validate(value)
    except ValidationError:
        return None


def _within(rings: list[_Ring], lon: float, lat: float) -> bool:
    """Whether a line to the east crosses the rings an odd number of times; a hole's ring counts like any other."""
    inside = False
    for ring in rings:
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            if (y1 > lat) != (y2 > lat) and lon < x1 + (lat - y1) / (y2 - y1) * (x2 - x1):
                inside = not inside
    return inside
