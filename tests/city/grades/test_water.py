"""Classes of surface water, at the bounds of GB 3838 and beside them."""

import pytest

from gateway.city.grades import tables, water
from gateway.city.grades.water import Body

TABLE = tables.load().water
CLASSES = ["I", "II", "III", "IV", "V"]
AT_MOST: dict[str, list[float]] = {
    "codmn": [2, 4, 6, 10, 15],
    "nh3n": [0.15, 0.5, 1.0, 1.5, 2.0],
    "tp": [0.02, 0.1, 0.2, 0.3, 0.4],
}


def level(values: dict[str, float], body: Body = "river") -> str:
    found = water.classify(TABLE, values, body).level
    assert found is not None
    return found.name


@pytest.mark.parametrize("quantity", AT_MOST)
def test_a_class_holds_its_bound_and_the_next_begins_above(quantity: str) -> None:
    assert [level({quantity: bound}) for bound in AT_MOST[quantity]] == CLASSES
    assert [level({quantity: bound + 0.001}) for bound in AT_MOST[quantity]] == [*CLASSES[1:], "worse"]


def test_oxygen_is_good_when_it_is_high() -> None:
    bounds = [7.5, 6, 5, 3, 2]
    assert [level({"dissolved_oxygen": bound}) for bound in bounds] == CLASSES
    assert [level({"dissolved_oxygen": bound - 0.01}) for bound in bounds] == [*CLASSES[1:], "worse"]


def test_classes_one_and_two_share_their_bound_of_cod() -> None:
    assert [level({"cod": value}) for value in (15, 15.1, 20, 30, 40, 40.1)] == ["I", "III", "III", "IV", "V", "worse"]


def test_lakes_have_stricter_bounds_of_phosphorus() -> None:
    bounds = [0.01, 0.025, 0.05, 0.1, 0.2]
    assert [level({"tp": bound}, "lake") for bound in bounds] == CLASSES
    assert level({"tp": 0.201}, "lake") == "worse"
    assert level({"codmn": 2}, "lake") == "I"


@pytest.mark.parametrize(("ph", "name"), [(5.99, "worse"), (6, "I"), (9, "I"), (9.01, "worse")])
def test_ph_belongs_to_all_classes_or_to_none(ph: float, name: str) -> None:
    assert level({"ph": ph}) == name


def test_the_worst_single_factor_decides_and_is_named() -> None:
    found = water.classify(TABLE, {"dissolved_oxygen": 8, "codmn": 3, "nh3n": 1.2, "tp": 0.15, "ph": 7, "level": 2})
    assert found.level is not None
    assert (found.level.name, found.worst) == ("IV", ("nh3n",))
    assert {name: factor.name for name, factor in found.factors.items()} == {
        "dissolved_oxygen": "I",
        "codmn": "II",
        "nh3n": "IV",
        "tp": "III",
        "ph": "I",
    }
    assert found.missing == ("cod",)


def test_of_several_worst_factors_the_one_furthest_beyond_class_three_is_first() -> None:
    found = water.classify(TABLE, {"codmn": 6.6, "nh3n": 1.4, "dissolved_oxygen": 4})
    assert found.worst == ("nh3n", "dissolved_oxygen", "codmn")


def test_the_best_class_has_no_worst_factor_and_nothing_measured_no_class() -> None:
    assert water.classify(TABLE, {"codmn": 1}).worst == ()
    nothing = water.classify(TABLE, {"temperature": 12})
    assert (nothing.level, nothing.worst, nothing.factors) == (None, (), {})
