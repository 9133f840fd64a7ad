"""Traffic: the speed grade and congestion index of a road, the index of a town, places left to park."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.city.grades.tables import Level, Road, SpeedTable


@dataclass(frozen=True, slots=True)
class RoadGrade:
    """How a road runs.

    Attributes:
        level: Speed grade.
        index: Congestion index, 0 to 10.
        empty: No vehicle is there.
    """

    level: Level
    index: float
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Parking:
    """Places left, of how many."""

    left: int
    capacity: int


def grade(
    table: SpeedTable, road: str, speed: float, flow: float | None = None, occupancy: float | None = None
) -> RoadGrade:
    """The speed grade of a road.

    Args:
        table: The grades.
        road: Class of the road, such as ``arterial``.
        speed: km/h.
        flow: veh/h, if known.
        occupancy: %, if known. A speed of 0 with neither flow nor occupancy is a road without vehicles, and free.

    Raises:
        KeyError: If the table has no such class of road.
    """
    limits = table.roads[road]
    if speed == 0 and flow == 0 and not occupancy:
        return RoadGrade(table.levels[0], 0.0, empty=True)
    rank = next((rank for rank, bound in enumerate(limits.above) if speed > bound), len(limits.above))
    return RoadGrade(table.levels[rank], _index(table, limits, speed))


def town_index(roads: Iterable[tuple[RoadGrade, float]]) -> float | None:
    """The congestion index of a town: the mean of its roads, each counted by its flow.

    Args:
        roads: Grades and flows in veh/h. A road that stands still has no flow, and still counts as one vehicle an hour.

    Returns:
        0 to 10; 0 when all roads are empty, None without roads.
    """
    known = list(roads)
    counted = [(road.index, max(flow, 1.0)) for road, flow in known if not road.empty]
    if not counted:
        return 0.0 if known else None
    return sum(index * weight for index, weight in counted) / sum(weight for _, weight in counted)


def town_level(table: SpeedTable, index: float) -> Level:
    """The grade of a congestion index: a band ends with, and holds, its last value."""
    rank = next((rank for rank, end in enumerate(table.ends) if index <= end), len(table.ends) - 1)
    return table.levels[rank]


def left(occupied: float | None, capacity: float | None, free: float | None) -> Parking | None:
    """Places left of a car park; None when its readings do not say.

    Vehicles beside the marked places make no places less than none.
    """
    if free is None and (occupied is None or capacity is None):
        return None
    places = free if free is not None else (capacity or 0) - (occupied or 0)
    total = capacity if capacity is not None else places + (occupied or 0)
    return Parking(max(0, round(places)), max(0, round(total)))


def _index(table: SpeedTable, road: Road, speed: float) -> float:
    bounds = road.above
    speeds = (2 * bounds[0] - bounds[1], *bounds, 0.0)
    values = (0.0, *table.ends)
    if speed >= speeds[0]:
        return 0.0
    for (fast, low), (slow, high) in itertools.pairwise(zip(speeds, values, strict=True)):
        if speed >= slow:
            return low + (high - low) * (fast - speed) / (fast - slow)
    return values[-1]
