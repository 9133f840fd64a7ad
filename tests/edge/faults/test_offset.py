"""Offset: a constant that comes and goes at a stroke is called; what is true is not."""

import numpy as np
import pytest

from gateway.edge.readings import Floats
from tests.edge.faults.jumping import Watch, days, told

MANY = 22
AT, FOR = 380, 30  # hours


def temperatures(sensors: int, seed: int = 1) -> Floats:
    return days(MANY, sensors, middle=12, size=3, seed=seed)


@pytest.mark.parametrize("sensors", [1, 2, 6])
@pytest.mark.parametrize("offset", [-9.0, 9.0])
def test_an_offset_is_called_soon_after_it_is_over_with_neighbours_and_without(sensors: int, offset: float) -> None:
    values = temperatures(sensors)
    values[AT : AT + FOR, 0] += offset
    watch = Watch("temperature")
    assert told(watch.see(values[: AT + FOR])) == []
    assert told(watch.see(values[AT + FOR :][:8])) == [("OFFSET", AT, AT + FOR - 1)]


@pytest.mark.parametrize("offset", [-9.0, 9.0])
def test_what_neighbours_do_not_see_for_two_days_is_called_while_it_lasts(offset: float) -> None:
    values = temperatures(6)
    values[AT : AT + 72, 0] += offset
    watch = Watch("temperature")
    assert told(watch.see(values[: AT + 40])) == []
    (what, since, until), *more = told(watch.see(values[AT + 40 : AT + 60]))
    assert (what, since, more) == ("OFFSET", AT, [])
    assert AT + 44 <= until < AT + 48
    assert watch.lasting(0)
    assert [what for what, _, _ in told(watch.see(values[AT + 60 :]))] == ["NOTHING"]
    assert not watch.lasting(0)


def test_what_does_not_end_is_the_new_level_after_five_days() -> None:
    values = temperatures(6)
    values[AT:, 0] += 9
    watch = Watch("temperature")
    watch.see(values[: AT + 100])
    assert watch.lasting(0)
    watch.see(values[AT + 100 : AT + 126])
    assert not watch.lasting(0)


@pytest.mark.parametrize("sensors", [1, 6])
def test_an_offset_is_not_over_with_a_step_that_leads_back_only_in_part(sensors: int) -> None:
    values = temperatures(sensors)
    values[AT : AT + FOR, 0] += 9
    values[AT + FOR - 10 : AT + FOR - 7, 0] -= 4
    (called,) = told(Watch("temperature").see(values))
    assert called == ("OFFSET", AT, AT + FOR - 1)


def test_a_step_of_the_only_neighbour_is_none_of_the_channel() -> None:
    values = temperatures(2)
    values[AT : AT + FOR, 0] += 9
    values[AT + 8 : AT + 12, 1] += 12
    said = told(Watch("temperature").see(values))
    assert ("OFFSET", AT, AT + FOR - 1) in said


@pytest.mark.parametrize("sensors", [1, 6])
def test_nothing_is_called_where_nothing_is_wrong(sensors: int) -> None:
    for seed in range(3):
        assert Watch("temperature").see(temperatures(sensors, seed)) == []


@pytest.mark.parametrize("sensors", [1, 6])
def test_a_front_is_no_offset(sensors: int) -> None:
    """It comes within some hours, to one sensor after the other, and wears off."""
    values = temperatures(sensors)
    hour = np.arange(len(values))
    for sensor in range(sensors):
        since = hour - AT - sensor % 3
        rise = np.clip(since / 4, 0, 1)
        values[:, sensor] -= 9 * rise * np.exp(-np.maximum(since - 20, 0) / 8)
    assert Watch("temperature").see(values) == []


def test_a_step_that_all_neighbours_see_is_none() -> None:
    values = temperatures(6)
    values[AT : AT + FOR] += 9
    assert Watch("temperature").see(values) == []


def test_a_step_that_stays_is_none() -> None:
    """A level that is another for good may be true: a weir was opened."""
    values = days(MANY, 1, middle=4, size=0.2)
    values[AT:] += 0.9
    assert Watch("level", "water").see(values) == []


@pytest.mark.parametrize("sensors", [1, 6])
@pytest.mark.parametrize("lasted", [8, 11])
def test_an_offset_of_less_than_half_a_day_is_called_where_all_else_is_smooth(lasted: int, sensors: int) -> None:
    values = temperatures(sensors)
    values[AT : AT + lasted, 0] += 9
    assert told(Watch("temperature").see(values)) == [("OFFSET", AT, AT + lasted - 1)]


def test_what_lasts_for_less_than_half_a_day_and_comes_back_in_part_is_none() -> None:
    values = temperatures(1)
    values[AT : AT + 9, 0] += 9
    values[AT + 9 : AT + 40, 0] += np.linspace(4, 0, 31)
    assert Watch("temperature").see(values) == []


def test_an_offset_is_called_whose_days_course_is_larger_than_itself() -> None:
    """It begins at noon, and by night the level is below that of before: without neighbours, this tells nothing."""
    noon, values = AT + 10, days(MANY, 1, middle=12, size=9)
    before = values[noon - 1, 0]
    values[noon : noon + 24, 0] += 12
    assert values[noon : noon + 24, 0].min() < before
    assert told(Watch("temperature").see(values)) == [("OFFSET", noon, noon + 23)]


@pytest.mark.parametrize("many", [1, 2, 6])
def test_what_is_over_within_hours_is_no_offset(many: int) -> None:
    values = temperatures(6)
    values[AT : AT + many, 0] += 9
    assert Watch("temperature").see(values) == []


def test_an_offset_before_a_channel_is_known_is_not_called() -> None:
    values = temperatures(6)
    values[50:80, 0] += 9
    assert Watch("temperature").see(values) == []


def test_an_offset_goes_on_over_a_restart() -> None:
    values = temperatures(3)
    values[AT : AT + FOR, 0] += 9
    whole, again = Watch("temperature"), Watch("temperature")
    whole.see(values[: AT + 10])
    whole.judge.finish()
    again.see(values[: AT + 10])
    again.judge.finish()
    channels = np.arange(3)
    again.judge.restore(whole.judge.state(channels), channels)
    assert told(again.see(values[AT + 10 :])) == [("OFFSET", AT, AT + FOR - 1)]


def test_what_is_said_does_not_depend_on_what_comes_later() -> None:
    values = temperatures(3)
    values[AT : AT + FOR, 0] += 9
    said = Watch("temperature").see(values)
    assert said
    for end in (AT + FOR, AT + FOR + 5, AT + FOR + 8, len(values) - 40):
        before = Watch("temperature").see(values[:end])
        assert before == said[: len(before)]
