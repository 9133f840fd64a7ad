import numpy as np
import pytest

from gateway.edge.faults.look import What
from gateway.edge.faults.noise import Noise
from gateway.edge.readings import Floats
from tests.edge.faults.streams import HOUR, START, Sensors, places, say, weather

AT, LONG = 800, 48


def _white(seed: int, size: float) -> Floats:
    return np.random.default_rng(seed).normal(0, size, LONG)


def _storm(seed: int, size: float) -> Floats:
    """Each value has to do with the one before."""
    red = np.zeros(LONG)
    for number, white in enumerate(_white(seed, size)):
        red[number] = 0.9 * red[number - 1] + white
    return red


def _said(sensors: Sensors) -> list[tuple[int, int]]:
    return places(say([Noise()], sensors), What.NOISE)


@pytest.mark.parametrize("seed", range(2, 6))
def test_random_noise_is_a_fault(seed: int) -> None:
    values = weather(1)
    values[AT : AT + LONG] += _white(seed, 4)
    ((since, until),) = _said({"a": {"temperature": values}})
    assert AT - 1 <= since <= until < AT + LONG


def test_undisturbed_readings_are_no_noise() -> None:
    assert _said({name: {"temperature": weather(seed)} for seed, name in enumerate("abc")}) == []


@pytest.mark.parametrize("seed", range(4))
def test_unrest_in_which_each_value_has_to_do_with_the_one_before_is_no_fault(seed: int) -> None:
    values = weather(1)
    values[AT : AT + LONG] += _storm(seed, 4)
    assert _said({"a": {"temperature": values}}) == []


def test_unrest_of_all_neighbours_is_no_fault() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    for seed, its in enumerate(sensors.values()):
        its["temperature"][AT : AT + LONG] += _white(seed, 4)
    assert _said(sensors) == []


def test_unrest_of_several_quantities_is_no_fault() -> None:
    values = {"temperature": weather(1), "dew_point": weather(2) - 25}
    for seed, its in enumerate(values.values()):
        its[AT : AT + LONG] += _white(seed, 4)
    assert _said({"a": values}) == []


def test_noise_beside_quantities_and_neighbours_that_go_on_is_a_fault() -> None:
    sensors = {
        name: {"temperature": weather(seed), "dew_point": weather(seed + 9) - 25} for seed, name in enumerate("abc")
    }
    sensors["b"]["temperature"][AT : AT + LONG] += _white(4, 4)
    assert len(_said(sensors)) == 1


def test_one_restless_quantity_of_some_does_not_hide_noise() -> None:
    quantities = ("temperature", "no2", "o3", "so2")
    sensors = {
        name: {quantity: weather(10 * number + seed) for number, quantity in enumerate(quantities)}
        for seed, name in enumerate("abc")
    }
    sensors["b"]["temperature"][AT : AT + LONG] += _white(4, 4)
    sensors["b"]["no2"][AT : AT + LONG] += _white(5, 4)
    assert len(_said(sensors)) == 2


def test_unrest_that_is_small_by_what_the_channel_does_otherwise_is_no_fault() -> None:
    values = np.round(15 + 10 * np.sin(np.arange(1000) * 2 * np.pi / 300), 2)
    values[AT : AT + LONG] += _white(1, 0.4)
    assert _said({"a": {"temperature": values}}) == []


@pytest.mark.parametrize("seed", range(4))
def test_what_goes_one_way_again_and_again_is_no_noise(seed: int) -> None:
    """Bubbles before a lens, say."""
    values = weather(1)
    values[AT : AT + LONG] += np.random.default_rng(seed).lognormal(1, 1, LONG)
    assert _said({"a": {"temperature": values}}) == []


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_back_to_where_it_was_and_never_goes_past_is_no_noise(seed: int) -> None:
    """Bubbles again, that stay as often as not."""
    values = weather(1) * 0.1
    random = np.random.default_rng(seed)
    values[AT : AT + 30] += random.choice((0, 1), 30) * random.uniform(5, 8, 30)
    assert _said({"a": {"temperature": values}}) == []


def test_noise_is_called_though_there_were_bubbles_before() -> None:
    values = weather(1)
    values[400 : 400 + LONG] += 10 * np.random.default_rng(3).lognormal(1, 1, LONG)
    values[AT : AT + LONG] += _white(4, 4)
    assert [since >= AT - 1 for since, _ in _said({"a": {"temperature": values}})] == [True]


def test_a_few_large_steps_are_no_noise() -> None:
    values = weather(1)
    values[AT : AT + LONG : 6] += 15
    assert _said({"a": {"temperature": values}}) == []


def test_noise_that_a_channel_has_at_times_is_its_own() -> None:
    values = weather(1)
    values[AT : AT + LONG] += _white(4, 4)
    assert len(_said({"a": {"temperature": values}})) == 1
    values[400 : 400 + LONG] += _white(2, 16)
    assert [since for since, _ in _said({"a": {"temperature": values}}) if since > AT - LONG] == []


def test_after_the_noise_readings_are_sound_again() -> None:
    values = weather(1)
    values[AT : AT + LONG] += _white(4, 4)
    quiet = values.copy()
    quiet[AT + LONG + 40 : AT + LONG + 42] += 0.1
    assert _said({"a": {"temperature": quiet}}) == _said({"a": {"temperature": values}})


def test_noise_of_a_channel_that_is_hardly_known_is_not_called() -> None:
    values = weather(1, 95)
    values[40 : 40 + LONG] += _white(4, 4)
    assert _said({"a": {"temperature": values}}) == []


def test_what_is_said_does_not_depend_on_what_comes_later() -> None:
    values = weather(1)
    values[AT : AT + LONG] += _white(4, 4)
    whole = say([Noise()], {"a": {"temperature": values}})
    assert whole
    for end in (AT + 10, AT + 20, AT + 30):
        part = say([Noise()], {"a": {"temperature": values[:end]}})
        assert part == [verdict for verdict in whole if verdict.time < START + end * HOUR]
