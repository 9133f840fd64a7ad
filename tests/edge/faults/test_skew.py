"""Skew: a sensor whose clock is wrong by hours is called in all its quantities; days without their course are not."""

import numpy as np
import pytest

from gateway.edge.faults.look import What
from gateway.edge.faults.skew import Skew
from gateway.edge.readings import Floats
from tests.edge.faults.streams import HOUR, START, say, weather

BEGINS, HOURS = 500, 60
COUNT = 700


def town(sensors: int, seed: int = 1) -> dict[str, dict[str, Floats]]:
    """Sensors of one weather, each with a little of its own."""
    random = np.random.default_rng(seed)
    everywhere = weather(seed, COUNT)
    light = 5 * np.clip(np.sin((np.arange(COUNT) - 2) * 2 * np.pi / 24), 0, 1) + 0.2 * weather(seed + 50, COUNT)
    return {
        f"s{number}": {
            "temperature": np.round(everywhere + random.normal(0, 0.3, COUNT), 1),
            "humidity": np.round(70 - 2 * everywhere + random.normal(0, 1, COUNT), 1),
            "o3": np.round(60 + 10 * light + random.normal(0, 2, COUNT), 1),
        }
        for number in range(sensors)
    }


def shifted(values: Floats, late: int) -> Floats:
    """Those of other hours, for some days."""
    its = values.copy()
    its[BEGINS : BEGINS + HOURS] = values[BEGINS - late : BEGINS + HOURS - late]
    return its


@pytest.mark.parametrize("sensors", [1, 2, 6])
@pytest.mark.parametrize("late", [-4, 4, 8])
def test_a_clock_that_is_wrong_is_called_with_neighbours_and_without(sensors: int, late: int) -> None:
    its = town(sensors)
    its["s0"] = {quantity: shifted(values, late) for quantity, values in its["s0"].items()}
    verdicts = say([Skew()], its)
    assert {(verdict.channel, verdict.what) for verdict in verdicts} == {(number, What.SKEW) for number in range(3)}
    for verdict in verdicts:
        assert START + BEGINS * HOUR <= verdict.since < verdict.time < START + (BEGINS + 48) * HOUR


@pytest.mark.parametrize("sensors", [1, 6])
def test_a_holiday_is_no_skew(sensors: int) -> None:
    its = town(sensors)
    for of_sensor in its.values():
        for values in of_sensor.values():
            part = values[BEGINS : BEGINS + HOURS]
            part -= 0.75 * (part - np.convolve(values, np.ones(25) / 25, "same")[BEGINS : BEGINS + HOURS])
    assert say([Skew()], its) == []


def test_weather_that_comes_hours_later_is_no_skew() -> None:
    its = town(6)
    for quantity, values in its["s0"].items():
        front = np.clip((np.arange(COUNT) - BEGINS) / 4, 0, 1) * np.exp(-np.maximum(np.arange(COUNT) - BEGINS, 0) / 30)
        size = -8 if quantity == "temperature" else 16
        for number, of_sensor in enumerate(its.values()):
            of_sensor[quantity] = of_sensor[quantity] + size * np.roll(front, number % 4)
        assert len(values) == COUNT
    assert say([Skew()], its) == []


@pytest.mark.parametrize("seed", [2, 3])
def test_nothing_is_called_where_nothing_is_wrong(seed: int) -> None:
    assert say([Skew()], town(2, seed)) == []


def test_a_clock_that_is_set_right_is_no_fault_any_more() -> None:
    its = town(6)
    its["s0"] = {quantity: shifted(values, 4) for quantity, values in its["s0"].items()}
    test = Skew()
    assert {verdict.channel for verdict in say([test], its)} == {0, 1, 2}
    assert np.isfinite(test.kept[:3, :24]).all()


def test_what_is_said_does_not_depend_on_what_comes_later() -> None:
    its = town(2)
    its["s0"] = {quantity: shifted(values, 4) for quantity, values in its["s0"].items()}
    whole = say([Skew()], its)
    assert whole
    for until in (BEGINS + 8, BEGINS + 20, BEGINS + 50):
        part = say([Skew()], {name: {q: v[:until] for q, v in of.items()} for name, of in its.items()})
        last = max((verdict.time for verdict in part), default=0)
        assert part == [verdict for verdict in whole if verdict.time <= last]
