"""Drift: a sensor that goes evenly away from its neighbours, alone, is called; what comes slowly everywhere is not."""

import numpy as np
import pytest

from gateway.edge.faults.drift import Drift
from gateway.edge.faults.look import What
from gateway.edge.readings import Floats
from tests.edge.faults.streams import places, say, weather

SENSORS = 6
BEGINS, HOURS = 700, 60


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


def test_without_neighbours_nothing_is_called() -> None:
    its = town()["s2"]
    its["temperature"] = its["temperature"] + ramp(9.0)
    assert say([Drift()], {"s2": its}) == []


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
