"""Stuck: a value that repeats itself for too long is called; a calm, or the end of a range, is not."""

import numpy as np
import pytest

from gateway.edge.faults.look import What
from gateway.edge.faults.stuck import Stuck
from gateway.edge.readings import Floats
from tests.edge.faults.streams import places, say, weather

SINCE, UNTIL = 700, 730


def stuck(values: Floats) -> Floats:
    values = values.copy()
    values[SINCE : UNTIL + 1] = values[SINCE - 1]
    return values


def test_a_value_that_stays_for_a_day_is_stuck_until_it_moves() -> None:
    said = places(say([Stuck()], {"a": {"temperature": stuck(weather(1))}}), What.STUCK)
    assert len(said) == 1
    since, until = said[0]
    assert SINCE <= since <= SINCE + 3
    assert until < UNTIL, "it is known while it lasts"


def test_what_lasts_is_over_with_the_first_value_that_moves() -> None:
    values = weather(1)
    values[SINCE : SINCE + 30] = values[SINCE - 1]
    values[SINCE + 35 : SINCE + 65] = values[SINCE + 34]
    said = places(say([Stuck()], {"a": {"temperature": values}}), What.STUCK)
    assert [since // 35 for since, _ in said] == [SINCE // 35, SINCE // 35 + 1]


def test_faults_that_were_called_do_not_teach_that_this_is_usual() -> None:
    values = weather(1)
    begins = [300 + 60 * number for number in range(10)]
    for begin in begins:
        values[begin : begin + 26] = values[begin - 1]
    said = places(say([Stuck()], {"a": {"temperature": values}}), What.STUCK)
    assert [(since - 290) // 60 for since, _ in said] == list(range(10))


def test_nothing_is_called_in_ordinary_weather() -> None:
    sensors = {str(seed): {"temperature": weather(seed)} for seed in range(6)}
    assert say([Stuck()], sensors) == []


def test_a_concentration_below_what_can_be_measured_is_not_stuck() -> None:
    values = np.maximum(np.round(weather(2) * 3 - 20), 2)
    values[SINCE - 10 : UNTIL + 20] = 2
    assert say([Stuck()], {"a": {"so2": values}}) == []


def test_a_quantity_that_often_stays_has_to_stay_longer() -> None:
    rough = np.round(weather(3) / 4) * 4  # it moves every few hours only
    values = rough.copy()
    values[SINCE : SINCE + 20] = values[SINCE - 1]
    assert say([Stuck()], {"a": {"temperature": values}}) == []


def test_where_it_is_still_all_around_it_is_calm() -> None:
    sensors = {}
    for seed in range(4):
        values = weather(1) + seed
        values[SINCE : UNTIL + 1] = values[SINCE - 1]
        sensors[str(seed)] = {"temperature": values}
    assert say([Stuck()], sensors) == []


def test_low_values_that_stay_are_stuck_if_the_neighbours_rise_and_a_jump_leads_back() -> None:
    town = {}
    for number in range(5):
        random = np.random.default_rng(number)
        dust = 50 + 45 * np.sin(np.arange(1000) / 40) + 3 * weather(number)
        town[f"s{number}"] = {"pm25": np.maximum(np.round(dust + random.normal(0, 6, 1000)), 4)}
    low = int(np.argmin(town["s0"]["pm25"][700:950])) + 700
    dust = town["s0"]["pm25"].copy()
    dust[low : low + 60] = dust[low] + 3
    calm = {name: {"pm25": its["pm25"].copy()} for name, its in town.items()}
    assert say([Stuck()], calm) == []
    assert {verdict.channel for verdict in say([Stuck()], {**town, "s0": {"pm25": dust}})} == {0}


def _windy(sway: float, noise: float) -> dict[str, dict[str, Floats]]:
    """Five sensors of a wind that comes and goes by so much, m/s, each with noise of its own."""
    town = {}
    for number in range(5):
        wind = 2.2 + sway * np.sin(np.arange(1000) / 9) + np.random.default_rng(number).normal(0, noise, 1000)
        town[f"s{number}"] = {"wind_speed": np.maximum(wind.round(1), 0)}
    return town


def test_a_light_wind_that_stays_is_stuck_if_it_never_did_and_blows_elsewhere() -> None:
    town = _windy(1.8, 0.15)
    assert say([Stuck()], town) == []
    wind = town["s0"]["wind_speed"].copy()
    low = int(np.argmin(wind[700:750])) + 700
    wind[low : low + 30] = 0.3
    assert {verdict.channel for verdict in say([Stuck()], {**town, "s0": {"wind_speed": wind}})} == {0}
    # but not if it often stays so
    often = wind.copy()
    for begin in range(60, 690, 70):
        often[begin : begin + 24] = 0.3
    assert say([Stuck()], {**town, "s0": {"wind_speed": often}}) == []


def test_a_zero_that_stays_is_stuck_if_all_goes_on_elsewhere() -> None:
    town = _windy(2.3, 0.3)
    assert say([Stuck()], town) == []
    wind = town["s0"]["wind_speed"].copy()
    low = int(np.argmin(wind[700:750])) + 700
    wind[low : low + 48] = 0
    assert {verdict.channel for verdict in say([Stuck()], {**town, "s0": {"wind_speed": wind}})} == {0}
    calm = {name: {"wind_speed": its["wind_speed"].copy()} for name, its in town.items()}
    for its in calm.values():
        its["wind_speed"][low : low + 48] = np.minimum(its["wind_speed"][low : low + 48], 0.1)
    calm["s0"]["wind_speed"][low : low + 48] = 0
    assert say([Stuck()], calm) == []


def test_a_value_that_stays_in_a_quiet_time_is_stuck_if_a_jump_leads_back() -> None:
    sensors = {}
    for seed in range(3):
        values = weather(1) + seed
        values[SINCE - 20 : UNTIL + 20] = values[SINCE - 20] + 0.1 * (np.arange(UNTIL - SINCE + 40) // 2 % 2)
        sensors[str(seed)] = {"temperature": values}
    assert say([Stuck()], sensors) == []
    values = sensors["0"]["temperature"]
    values[SINCE : SINCE + 16], values[SINCE + 16 :] = values[SINCE - 1], values[SINCE + 16 :] + 6
    assert [verdict.channel for verdict in say([Stuck()], sensors)] == [0]


def test_a_channel_that_is_young_is_not_judged() -> None:
    values = weather(1, 90)
    values[40:80] = values[39]
    assert say([Stuck()], {"a": {"temperature": values}}) == []


@pytest.mark.parametrize(("at", "calls"), [(112, 0), (700, 1)])
def test_what_has_not_yet_been_still_for_long_is_given_more_time(at: int, calls: int) -> None:
    values = weather(1, at + 28)
    values[at:] = values[at - 1]
    assert len(say([Stuck()], {"a": {"temperature": values}})) == calls


def test_nothing_that_comes_later_changes_what_was_said() -> None:
    values = stuck(weather(1))
    whole = say([Stuck()], {"a": {"temperature": values}})
    for end in (SINCE + 10, SINCE + 25, UNTIL + 10):
        part = say([Stuck()], {"a": {"temperature": values[:end]}})
        assert part == whole[: len(part)]
