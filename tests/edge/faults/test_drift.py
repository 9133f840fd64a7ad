"""Drift: a sensor that goes evenly away from its neighbours, or steps back from there, is called; what comes slowly
everywhere is not.
"""

import numpy as np
import pytest

from gateway.edge.faults.drift import Drift
from gateway.edge.faults.look import What
from gateway.edge.readings import Floats
from tests.edge.faults.streams import HOUR, places, say, weather

SENSORS = 6
BEGINS, HOURS = 700, 60
QUARTER = HOUR // 4


def town(seed: int = 1) -> dict[str, dict[str, Floats]]:
    """Six sensors of one weather, each with a little of its own."""
    random = np.random.default_rng(seed)
    everywhere = weather(seed)
    return {
        f"s{number}": {
            "temperature": np.round(everywhere + random.normal(0, 0.3, len(everywhere)), 1),
            "humidity": np.round(60 - 2 * everywhere + random.normal(0, 1, len(everywhere)), 1),
        }
        for number in range(SENSORS)
    }


def ramp(size: float) -> Floats:
    return size * np.clip((np.arange(1000) - BEGINS) / HOURS, 0, 1) * (np.arange(1000) < BEGINS + HOURS)


@pytest.mark.parametrize("size", [9.0, -9.0])
def test_a_sensor_that_drifts_is_called_while_it_does(size: float) -> None:
    its = town()
    its["s2"]["temperature"] = its["s2"]["temperature"] + ramp(size)
    verdicts = say([Drift()], its)
    assert [(verdict.channel, verdict.what) for verdict in verdicts] == [(4, What.DRIFT)]
    (since, until) = places(verdicts, What.DRIFT)[0]
    assert BEGINS < since < until < BEGINS + 48


def test_days_that_become_warmer_everywhere_are_no_drift() -> None:
    its = town()
    for number, of_sensor in enumerate(its.values()):
        of_sensor["temperature"] = of_sensor["temperature"] + (0.8 + 0.06 * number) * ramp(9.0)
    assert say([Drift()], its) == []


def test_two_that_go_the_same_way_see_something() -> None:
    its = town()
    for name in ("s1", "s4"):
        its[name]["temperature"] = its[name]["temperature"] + ramp(9.0)
    assert say([Drift()], its) == []


def test_what_all_quantities_of_a_sensor_see_is_no_drift() -> None:
    its = town()
    its["s2"] = {"temperature": its["s2"]["temperature"] + ramp(9.0), "humidity": its["s2"]["humidity"] - ramp(18.0)}
    assert say([Drift()], its) == []


def test_without_neighbours_nothing_is_called_while_it_lasts() -> None:
    its = town()["s2"]
    its["temperature"] = its["temperature"] + ramp(9.0)
    assert say([Drift()], {"s2": {name: values[: BEGINS + HOURS] for name, values in its.items()}}) == []


def test_nothing_is_called_where_nothing_is_wrong() -> None:
    assert say([Drift()], town(2)) == []


def test_a_sensor_that_was_mended_is_learnt_anew() -> None:
    its = town()
    its["s2"]["temperature"] = its["s2"]["temperature"] + ramp(9.0)
    test = Drift()
    assert len(say([test], {name: {q: v[:900] for q, v in of.items()} for name, of in its.items()})) == 1
    its["s2"]["temperature"] = its["s2"]["temperature"] + np.roll(ramp(9.0), 200)
    # ten days after, it is not known well enough
    assert len(say([Drift()], its)) == 1


def test_what_is_said_does_not_depend_on_what_comes_later() -> None:
    its = town()
    its["s2"]["temperature"] = its["s2"]["temperature"] + ramp(9.0)
    whole = say([Drift()], its)
    for until in (730, 745, 760):
        part = say([Drift()], {name: {q: v[:until] for q, v in of.items()} for name, of in its.items()})
        last = max((verdict.time for verdict in part), default=0)
        assert part == [verdict for verdict in whole if verdict.time <= last]


def lone(seed: int = 1, *, quarters: int = 2000) -> Floats:
    """A temperature of a river every quarter of an hour, with no other sensor anywhere."""
    random = np.random.default_rng(seed)
    hours = np.arange(quarters) / 4
    slow = np.cumsum(random.normal(0, 0.02, quarters))
    return np.asarray(np.round(12 + 1.5 * np.sin(hours * np.pi / 12) + slow + random.normal(0, 0.02, quarters), 2))


def rise(size: float, hours: int, *, shape: float = 1.0, ends: int = 1800) -> Floats:
    """A way up that ends in one step back."""
    of_it = np.clip((np.arange(2000) - ends) / (4 * hours) + 1, 0, 1) ** shape
    return np.asarray(size * of_it * (np.arange(2000) < ends))


@pytest.mark.parametrize(("size", "hours"), [(4.0, 24), (-4.0, 36), (4.0, 60)])
def test_a_lone_sensor_that_drifted_is_called_when_it_is_put_right(size: float, hours: int) -> None:
    its = {"s": {"temperature": np.round(lone() + rise(size, hours), 2)}}
    verdicts = say([Drift()], its, interval=QUARTER, kind="water")
    assert [verdict.what for verdict in verdicts] == [What.DRIFT]
    ((since, until),) = places(verdicts, What.DRIFT, interval=QUARTER)
    assert until == 1799
    assert 1800 - 4 * hours < since < 1800 - 2 * hours
    assert verdicts[0].time - verdicts[0].until < 2 * HOUR


def test_where_neighbours_bear_witness_none_is_called_for_a_step_back() -> None:
    its = {f"s{n}": {"temperature": lone(n)} for n in range(4)}
    its["s0"]["temperature"] = np.round(its["s0"]["temperature"] + rise(4.0, 36), 2)
    verdicts = say([Drift()], its, interval=QUARTER, kind="water")
    assert not any("return" in verdict.reasons for verdict in verdicts)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rise(4.0, 36, shape=0.0), id="a level that ends in a step"),
        pytest.param(rise(4.0, 36) + 4.0 * (np.arange(2000) >= 1800), id="a rise that stays"),
        pytest.param(np.interp(np.arange(2000), [1650, 1800, 1950], [0, 4, 0]), id="a rise and a fall"),
        pytest.param(8.0 * (np.arange(2000) >= 1800), id="a step alone"),
        pytest.param(rise(4.0, 36) - 4.0 * (np.arange(2000) >= 1800), id="a step to somewhere else"),
        pytest.param(rise(4.0, 36) + rise(-3.0, 6, ends=1800), id="a rise that turns"),
    ],
)
def test_what_only_resembles_a_drift_that_was_put_right_is_not_called(change: Floats) -> None:
    its = {"s": {"temperature": np.round(lone() + change, 2)}}
    assert say([Drift()], its, interval=QUARTER, kind="water") == []


def test_a_rise_that_was_over_before_the_step_is_none() -> None:
    change = rise(4.0, 36)
    change[1792:1900] += np.interp(np.arange(108), [0, 7, 107], [0, -2, -2])
    assert say([Drift()], {"s": {"temperature": np.round(lone() + change, 2)}}, interval=QUARTER, kind="water") == []


def test_a_step_among_others_puts_nothing_right() -> None:
    change = rise(4.0, 36)
    change[1794:1796] += 2
    assert say([Drift()], {"s": {"temperature": np.round(lone() + change, 2)}}, interval=QUARTER, kind="water") == []


def test_a_value_that_is_stuck_before_the_step_does_not_drift() -> None:
    values = np.round(lone() + rise(4.0, 36), 2)
    values[1785:1800] = values[1785]
    assert say([Drift()], {"s": {"temperature": values}}, interval=QUARTER, kind="water") == []


def test_what_a_sensor_said_before_it_was_silent_for_days_is_not_of_yesterday() -> None:
    values = lone(quarters=2600)
    values[:2000] += rise(4.0, 36)
    values[2390:] = lone(quarters=2600)[1814:2024]
    values[1800:2376], values[2376:2390] = np.nan, lone()[1800:1814] + 4
    assert say([Drift()], {"s": {"temperature": np.round(values, 2)}}, interval=QUARTER, kind="water") == []


def test_a_sensor_that_sends_every_second_for_minutes_is_only_looked_at() -> None:
    values = np.round(12 + np.random.default_rng(1).normal(0, 0.02, 300), 2)
    values[200:] += 5
    assert say([Drift()], {"s": {"temperature": values}}, interval=1000, kind="water") == []
