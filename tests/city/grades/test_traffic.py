"""Speed grades, congestion index and places left."""

import pytest

from gateway.city.grades import tables, traffic
from gateway.city.grades.traffic import Parking

TABLE = tables.load().speed
LEVELS = ["free", "basically-free", "light", "moderate", "severe"]
ROADS = [("expressway", [65, 50, 35, 20]), ("arterial", [40, 30, 20, 15]), ("branch", [35, 25, 15, 10])]


@pytest.mark.parametrize(("road", "bounds"), ROADS)
def test_a_speed_grade_begins_above_its_bound(road: str, bounds: list[float]) -> None:
    assert [traffic.grade(TABLE, road, speed + 0.1).level.name for speed in bounds] == LEVELS[:-1]
    assert [traffic.grade(TABLE, road, speed).level.name for speed in bounds] == LEVELS[1:]


@pytest.mark.parametrize(("road", "bounds"), ROADS)
def test_the_index_is_two_four_six_eight_at_the_bounds(road: str, bounds: list[float]) -> None:
    assert [traffic.grade(TABLE, road, speed).index for speed in bounds] == pytest.approx([2, 4, 6, 8])
    assert traffic.grade(TABLE, road, 2 * bounds[0] - bounds[1]).index == 0
    assert traffic.grade(TABLE, road, 200).index == 0


def test_the_index_is_linear_between_the_bounds_and_ten_at_a_standstill() -> None:
    speeds = [45, 35, 25, 17.5, 7.5, 0]
    assert [traffic.grade(TABLE, "arterial", speed).index for speed in speeds] == pytest.approx([1, 3, 5, 7, 9, 10])


def test_zeros_alone_mean_no_vehicle_and_with_occupancy_a_standstill() -> None:
    empty = traffic.grade(TABLE, "arterial", 0, flow=0, occupancy=0)
    assert (empty.level.name, empty.index, empty.empty) == ("free", 0, True)
    assert traffic.grade(TABLE, "arterial", 0, flow=0).empty
    standing = traffic.grade(TABLE, "arterial", 0, flow=0, occupancy=70)
    assert (standing.level.name, standing.index, standing.empty) == ("severe", 10, False)
    assert traffic.grade(TABLE, "arterial", 0).level.name == "severe"


def test_the_towns_index_counts_roads_by_their_flow() -> None:
    fast, slow = traffic.grade(TABLE, "arterial", 45), traffic.grade(TABLE, "arterial", 25)
    assert traffic.town_index([(fast, 300), (slow, 900)]) == pytest.approx(4)
    empty, standing = traffic.grade(TABLE, "arterial", 0, 0, 0), traffic.grade(TABLE, "arterial", 0, 0, 70)
    assert traffic.town_index([(empty, 0), (slow, 900)]) == pytest.approx(5)
    assert traffic.town_index([(standing, 0), (empty, 0)]) == 10
    assert traffic.town_index([(empty, 0)]) == 0
    assert traffic.town_index([]) is None


@pytest.mark.parametrize(
    ("index", "level"),
    [
        (0, "free"),
        (2, "free"),
        (2.1, "basically-free"),
        (4.1, "light"),
        (6.1, "moderate"),
        (8, "moderate"),
        (9, "severe"),
    ],
)
def test_the_towns_grade_is_a_band_of_two(index: float, level: str) -> None:
    assert traffic.town_level(TABLE, index).name == level


@pytest.mark.parametrize(
    ("occupied", "capacity", "free", "parking"),
    [
        (60, 100, 40, Parking(40, 100)),
        (60, 100, None, Parking(40, 100)),
        (60, None, 40, Parking(40, 100)),
        (104, 100, None, Parking(0, 100)),
        (None, None, 7, Parking(7, 7)),
        (60, None, None, None),
        (None, 100, None, None),
    ],
)
def test_places_left(occupied: float | None, capacity: float | None, free: float | None, parking: Parking) -> None:
    assert traffic.left(occupied, capacity, free) == parking
