"""Unit: values that go on as before when they are converted back are called; what is true is not."""

import numpy as np
import pytest

from gateway.edge.readings import Floats
from tests.edge.faults.jumping import Watch, days, told

MANY = 22
AT, FOR = 380, 16  # hours

# of each kind and quantity: middle and size of its values, and what another unit makes of them
UNITS = [
    ("air", "temperature", 0.0, 3.0, 1.8, 32.0),
    ("air", "pressure", 1010.0, 4.0, 0.750062, 0.0),
    ("air", "pm25", 80.0, 15.0, 0.001, 0.0),
    ("air", "no2", 50.0, 9.0, 0.001, 0.0),
    ("water", "conductivity", 400.0, 15.0, 0.001, 0.0),
    ("water", "level", 0.8, 0.05, 3.28084, 0.0),
]


def converted(values: Floats, factor: float, offset: float) -> Floats:
    sent = values.copy()
    sent[AT : AT + FOR, 0] = values[AT : AT + FOR, 0] * factor + offset
    return sent


@pytest.mark.parametrize("sensors", [1, 5])
@pytest.mark.parametrize(("kind", "quantity", "middle", "size", "factor", "offset"), UNITS)
def test_another_unit_is_called(  # noqa: PLR0913, PLR0917 - a case
    kind: str, quantity: str, middle: float, size: float, factor: float, offset: float, sensors: int
) -> None:
    values = days(MANY, sensors, middle=middle, size=size)
    verdicts = told(Watch(quantity, kind).see(converted(values, factor, offset)))
    assert [verdict[:2] for verdict in verdicts if verdict[0] == "UNIT"] == [("UNIT", AT)]
    assert Watch(quantity, kind).see(values) == []


def test_another_unit_is_called_within_hours_and_until_it_is_over() -> None:
    values = days(MANY, 3, middle=80, size=15)
    watch = Watch("pm25")
    sent = converted(values, 0.001, 0)
    assert told(watch.see(sent[: AT + 8])) == [("UNIT", AT, AT + 5)]
    watch.judge.finish()
    channel = 0
    assert watch.lasting(channel)
    watch.see(sent[AT + 8 : AT + FOR + 2])
    assert not watch.lasting(channel)


@pytest.mark.parametrize("sensors", [1, 5])
def test_a_true_rise_by_as_much_is_not_called(sensors: int) -> None:
    """A gale is 3.6 times what the wind was, and not in km/h: it comes within hours, and is gusty."""
    gusts = np.exp(np.random.default_rng(3).normal(0, 0.3, (24 * MANY, sensors)))
    values = np.abs(days(MANY, sensors, middle=4, size=1)) * gusts
    hour = np.arange(len(values))
    storm = np.clip((hour - AT) / 3, 0, 1) * np.clip((AT + 20 - hour) / 6, 0, 1)
    assert Watch("wind_speed").see(values * (1 + 2.6 * storm[:, None])) == []


def test_what_comes_down_to_nothing_is_not_another_unit() -> None:
    values = days(MANY, 3, middle=30, size=5)
    values[AT : AT + FOR, 0] = 0.1
    assert [name for name, _, _ in told(Watch("so2").see(values)) if name == "UNIT"] == []


def test_a_jump_to_where_no_unit_leads_is_an_offset() -> None:
    values = days(MANY, 3, middle=0, size=3)
    values[AT : AT + 8, 0] += 15
    assert told(Watch("temperature").see(values)) == [("OFFSET", AT, AT + 7)]


def test_a_lasting_unit_survives_a_restart() -> None:
    values = converted(days(MANY, 3, middle=80, size=15), 0.001, 0)
    whole, again = Watch("pm25"), Watch("pm25")
    for watch in (whole, again):
        watch.see(values[: AT + 3])
        watch.judge.finish()
    channels = np.arange(3)
    again.judge.restore(whole.judge.state(channels), channels)
    assert told(again.see(values[AT + 3 :])) == [("UNIT", AT, AT + 5), ("NOTHING", AT, AT + 15)]


def test_digits_tell_a_unit_where_no_step_does() -> None:
    values = days(MANY, 1, middle=1.5, size=0.8).clip(0.1).round(1)
    assert told(Watch("wind_speed", "air").see(values)) == []
    verdicts = told(Watch("wind_speed", "air").see(converted(values, 3.6, 0.0).round(3)))
    assert [verdict[0] for verdict in verdicts][:1] == ["UNIT"]
    assert AT <= verdicts[0][1] <= AT + 2


def test_a_gas_in_ppb_is_told_by_its_digits() -> None:
    """Half of what it was is nothing rare, and it is sent in tenths."""
    values = days(MANY, 1, middle=50, size=20, seed=2).clip(2).round()
    sent = converted(values, 0.5314, 0.0).round(1)
    verdicts = told(Watch("no2", "air").see(sent))
    assert [name for name, _, _ in verdicts] == ["UNIT", "NOTHING"]
    assert AT <= verdicts[0][1] <= AT + 2
    assert verdicts[1][2] <= AT + FOR + 1


def test_a_milligram_sent_for_a_microgram_is_called() -> None:
    """The gateway was told that the sensor sends µg/m³, and converts; then it sends mg/m³."""
    values = days(MANY, 3, middle=1.2, size=0.4).clip(0.1).round(1)
    verdicts = told(Watch("co", "air").see(converted(values, 0.001, 0.0).round(4)))
    assert [verdict[:2] for verdict in verdicts if verdict[0] == "UNIT"] == [("UNIT", AT)]


def test_the_same_fraction_again_and_again_is_no_other_unit() -> None:
    """Whatever is added to a coarse value keeps its few fractions: 2.017 is 2.2 or 2.3 mg/m³ in ppm by chance alone."""
    values = days(MANY, 1, middle=1.5, size=0.4).clip(0.1).round(1)
    for shift in (0.017, 0.031, 0.048, 0.072):
        moved = values.copy()
        moved[AT : AT + 48] += shift
        assert told(Watch("co", "air").see(moved)) == []


def test_more_digits_than_before_are_no_other_unit() -> None:
    random = np.random.default_rng(5)
    values = days(MANY, 1, middle=1.5, size=0.8).clip(0.1).round(1)
    values[AT:, 0] = (values[AT:, 0] + random.normal(0, 0.02, len(values) - AT)).clip(0).round(2)
    assert told(Watch("wind_speed", "air").see(values)) == []
