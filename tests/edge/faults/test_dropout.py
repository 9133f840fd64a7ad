"""Dropout: readings that fall to a constant and come back are called; a zero that is truly reached is not."""

import numpy as np
import pytest

from gateway.edge.faults.dropout import Dropout
from gateway.edge.faults.look import What
from gateway.edge.readings import Floats
from tests.edge.faults.streams import places, say, weather

AT = 700


def dust(seed: int) -> Floats:
    return np.maximum(np.round(weather(seed) * 4), 5)


def test_zeros_in_a_row_are_called_once_the_channel_is_back() -> None:
    values = dust(1)
    values[AT : AT + 8] = 0
    assert places(say([Dropout()], {"a": {"no2": values}}), What.DROPOUT) == [(AT, AT + 7)]


def test_zeros_again_and_again_are_each_called_and_what_is_between_is_not() -> None:
    values = dust(2)
    values[[AT, AT + 1, AT + 4, AT + 5, AT + 7, AT + 8]] = 0
    said = places(say([Dropout()], {"a": {"no2": values}}), What.DROPOUT)
    assert said == [(AT, AT + 1), (AT + 4, AT + 5), (AT + 7, AT + 8)]


def test_a_loss_that_is_longer_than_what_is_remembered_is_called_all_the_same() -> None:
    values = weather(3)
    values[AT : AT + 90] = 0
    assert What.DROPOUT in {verdict.what for verdict in say([Dropout()], {"a": {"temperature": values}})}


@pytest.mark.parametrize("constant", [-25.0, 39.9])
def test_another_constant_is_called_where_it_is_far_from_all_values(constant: float) -> None:
    values = weather(4)
    values[AT : AT + 6] = constant
    assert places(say([Dropout()], {"a": {"temperature": values}}), What.DROPOUT) == [(AT, AT + 5)]


def test_a_zero_that_is_reached_step_by_step_is_true() -> None:
    values = dust(5)
    before, after = values[AT - 1], values[AT + 16]
    values[AT : AT + 6] = np.round(before * np.linspace(0.85, 0.1, 6))
    values[AT + 6 : AT + 11] = 0
    values[AT + 11 : AT + 16] = np.round(after * np.linspace(0.1, 0.85, 5))
    assert say([Dropout()], {"a": {"no2": values}}) == []


def test_a_few_zeros_are_called_where_values_are_small_but_never_zero() -> None:
    random = np.random.default_rng(9)
    values: Floats = np.round(2 + random.gamma(1.5, 3.0, 1000))
    values[AT - 1 : AT + 6] = 9, 0, 0, 0, 0, 0, 11
    assert places(say([Dropout()], {"a": {"so2": values}}), What.DROPOUT) == [(AT, AT + 4)]


@pytest.mark.parametrize(("slope", "calls"), [((40, 40), 1), ((25, 9), 0)])
def test_what_leads_away_from_zeros_tells_whether_they_are_true(slope: tuple[int, int], calls: int) -> None:
    values = dust(10)
    values[AT - 3 : AT + 12] = 40, 40, 40, 0, 0, 0, 0, 0, 0, *reversed(slope), 40, 40, 40, 40
    assert len(say([Dropout()], {"a": {"no2": values}})) == calls


def test_zeros_that_the_neighbours_have_as_well_are_true() -> None:
    town = {}
    for number in range(6):
        values = np.maximum(dust(11) + np.random.default_rng(number).integers(-2, 3, 1000), 3)
        values[AT : AT + 6] = 0
        town[f"s{number}"] = {"no2": values}
    alone = {name: {"no2": np.where(values["no2"] > 0, values["no2"], 40)} for name, values in town.items()}
    alone["s0"] = town["s0"]
    assert say([Dropout()], town) == []
    assert {verdict.what for verdict in say([Dropout()], alone)} == {What.DROPOUT}


def test_a_storm_that_throws_values_to_zero_and_back_is_true() -> None:
    town = {}
    for number in range(6):
        random = np.random.default_rng(number)
        values = np.maximum(dust(12) + random.integers(-2, 3, 1000), 3)
        unrest = np.convolve(random.normal(0, 30, 42), (0.3, 0.6, 1), "valid")
        values[AT - 20 : AT + 20] += unrest
        town[f"s{number}"] = {"no2": np.maximum(values.round(), 0)}
    assert sum((its["no2"] == 0).sum() for its in town.values()) > 5
    assert say([Dropout()], town) == []


def test_zeros_in_a_storm_are_called_where_values_stay_far_from_it() -> None:
    town = {}
    for number in range(6):
        random = np.random.default_rng(number)
        values = np.maximum(dust(12) + random.integers(-2, 3, 1000), 3)
        values[AT - 20 : AT + 20] += random.integers(150, 230, 40)
        town[f"s{number}"] = {"no2": values}
    assert say([Dropout()], town) == []
    town["s0"]["no2"][AT : AT + 6] = 0
    assert places(say([Dropout()], town), What.DROPOUT) == [(AT, AT + 5)]


def test_zeros_count_that_come_after_true_ones() -> None:
    """A wind that was calm for an hour on a slope, then drops out from a fresh breeze."""
    random = np.random.default_rng(15)
    values: Floats = np.round(0.5 + random.gamma(2.0, 0.6, 1000), 1)
    values[AT - 8 : AT + 9] = 0.9, 0.5, 0.2, 0, 0.4, 1.1, 2.8, 4.1, 0, 0, 4.4, 0, 0, 0, 0, 3.6, 3.1
    assert places(say([Dropout()], {"a": {"wind_speed": values}}), What.DROPOUT) == [(AT, AT + 1), (AT + 3, AT + 6)]


def test_zeros_at_the_end_of_a_slope_are_called_if_neighbours_are_far_off_and_a_jump_leads_back() -> None:
    slope, high = (45, 22, 5), 60
    town = {}
    for number in range(6):
        values = np.maximum(dust(12) + np.random.default_rng(number).integers(-2, 3, 1000), 3)
        values[AT - 3 : AT] = slope
        values[AT : AT + 11] += high
        town[f"s{number}"] = {"no2": values}
    assert say([Dropout()], town) == []
    town["s0"]["no2"][AT : AT + 8] = 0
    assert places(say([Dropout()], town), What.DROPOUT) == [(AT, AT + 7)]


def test_a_constant_not_far_below_is_called_if_it_is_the_same_for_long_where_nothing_ever_is() -> None:
    """A level that has as large steps by itself now and then, as water is let off for an hour."""
    random = np.random.default_rng(18)
    values: Floats = np.round(3 + random.normal(0, 0.01, 1000), 4)
    for at in range(100, AT - 50, 50):
        values[at : at + 3] -= random.uniform(0.3, 0.6)
    lost, true = values.copy(), values.copy()
    lost[[AT, AT + 1, AT + 3, AT + 4, AT + 5]] = 2.6
    true[AT : AT + 6] = np.round(2.6 + random.normal(0, 0.01, 6), 4)
    assert places(say([Dropout()], {"a": {"level": lost}}, kind="water"), What.DROPOUT) == [
        (AT, AT + 1),
        (AT + 3, AT + 5),
    ]
    assert say([Dropout()], {"a": {"level": true}}, kind="water") == []


def test_in_a_storm_a_constant_is_called_that_is_far_enough() -> None:
    town = {}
    for number in range(6):
        random = np.random.default_rng(number)
        values = np.round(15 + random.normal(0, 0.2, 1000), 2)
        values[AT - 20 : AT + 20] += random.normal(0, 1, 40)
        town[f"s{number}"] = {"temperature": values.round(2)}
    assert say([Dropout()], town) == []
    town["s0"]["temperature"][AT : AT + 6] = 2.5
    assert places(say([Dropout()], town), What.DROPOUT) == [(AT, AT + 5)]


@pytest.mark.parametrize(("constant", "calls"), [(20.0, 0), (20.03, 1)])
def test_a_value_that_is_only_rounded_is_not_lost(constant: float, calls: int) -> None:
    values: Floats = np.round(19.58 + np.random.default_rng(3).normal(0, 0.01, 1000), 2)
    values[AT : AT + 5] = constant
    assert len(say([Dropout()], {"a": {"temperature": values}})) == calls


def test_zeros_amid_frost_are_called_though_it_was_warmer_the_day_before() -> None:
    values = weather(16)
    values[AT - 20 : AT - 4] = np.linspace(12, -6, 16).round(1)
    values[AT - 4 : AT + 12] = -7.1, -7.6, -8.2, -8.0, 0, 0, -7.7, 0, 0, 0, 0, -8.4, -8.1, -7.6, -7.2, -7.0
    assert places(say([Dropout()], {"a": {"temperature": values}}), What.DROPOUT) == [(AT, AT + 1), (AT + 3, AT + 6)]


def test_wind_falls_calm_without_a_fault() -> None:
    random = np.random.default_rng(6)
    values: Floats = np.maximum(random.normal(1.0, 1.0, 1000), 0).round(1)
    assert say([Dropout()], {"a": {"wind_speed": values}}) == []


def test_it_rains_now_and_then() -> None:
    random = np.random.default_rng(7)
    values = np.where(random.random(1000) < 0.05, np.round(random.exponential(3, 1000), 1), 0)
    assert say([Dropout()], {"a": {"rain": values}}) == []


def test_a_gust_is_no_dropout() -> None:
    values = weather(8)
    values[AT : AT + 4] += (12, 15, 9, 4)
    assert say([Dropout()], {"a": {"temperature": values}}) == []


def test_nothing_that_comes_later_changes_what_was_said() -> None:
    values = dust(1)
    values[AT : AT + 8] = 0
    whole = say([Dropout()], {"a": {"no2": values}})
    for end in (AT + 5, AT + 8, AT + 9, AT + 50):
        part = say([Dropout()], {"a": {"no2": values[:end]}})
        assert part == whole[: len(part)]
