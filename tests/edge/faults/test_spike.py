import numpy as np
import pytest

from gateway.edge.faults.look import What
from gateway.edge.faults.spike import Spike
from tests.edge.faults.streams import HOUR, START, places, say, weather

AT = 800


@pytest.mark.parametrize(("readings", "size"), [(1, 20), (1, -20), (2, -25)])
def test_readings_far_out_between_others_that_are_not_are_a_fault(readings: int, size: float) -> None:
    values = weather(1)
    values[AT : AT + readings] += size
    verdicts = say([Spike()], {"a": {"temperature": values}})
    assert places(verdicts, What.SPIKE) == [(AT, AT + readings - 1)]


def test_undisturbed_readings_are_none() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abc")}
    assert say([Spike()], sensors) == []


def test_a_gust_that_wears_off_is_no_fault() -> None:
    values = weather(1)
    values[AT : AT + 8] += 20 * np.exp(-np.arange(8) / 1.2)
    assert places(say([Spike()], {"a": {"temperature": values}}), What.SPIKE) == []


def test_a_step_that_lasts_is_no_spike() -> None:
    values = weather(1)
    values[AT : AT + 30] += 20
    assert places(say([Spike()], {"a": {"temperature": values}}), What.SPIKE) == []


def test_what_neighbours_feel_is_no_fault() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    for its in sensors.values():
        its["temperature"][AT] += 20
    assert places(say([Spike()], sensors), What.SPIKE) == []


def test_what_another_quantity_feels_is_no_fault() -> None:
    values = {"temperature": weather(1), "dew_point": weather(2) - 12}
    values["temperature"][AT] += 20
    values["dew_point"][AT] += 12
    assert places(say([Spike()], {"a": values}), What.SPIKE) == []


def test_a_spike_beside_quantities_and_neighbours_that_go_on_is_a_fault() -> None:
    sensors = {
        name: {"temperature": weather(seed), "dew_point": weather(seed + 9) - 12} for seed, name in enumerate("abc")
    }
    sensors["b"]["temperature"][AT] += 20
    assert places(say([Spike()], sensors), What.SPIKE) == [(AT, AT)]


def test_what_one_neighbour_feels_is_no_fault() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    for name in "bd":
        sensors[name]["temperature"][AT] += 20
    assert places(say([Spike()], sensors), What.SPIKE) == []


def test_what_a_neighbour_felt_a_reading_earlier_is_no_fault() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    sensors["b"]["temperature"][AT] += 20
    sensors["d"]["temperature"][AT - 1] += 20
    assert places(say([Spike()], sensors), What.SPIKE) == []


def test_what_neighbours_feel_is_no_fault_where_they_miss_readings() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    for its in sensors.values():
        its["temperature"][AT] += 20
    for name in "bcde":
        sensors[name]["temperature"][[AT + 3, AT + 5, AT + 6]] = np.nan
    assert (AT, AT) not in places(say([Spike()], sensors), What.SPIKE)


def test_beside_a_missing_reading_a_spike_is_less_sure() -> None:
    called = []
    for missing in (AT - 8, AT - 1):
        values = weather(1)
        values[AT] += 8
        values[missing] = np.nan
        called.append(places(say([Spike()], {"a": {"temperature": values}}), What.SPIKE))
    assert called == [[(AT, AT)], []]


def test_what_wears_off_is_a_fault_where_a_part_is_more_than_its_whole() -> None:
    called = []
    for more in (100, 2):
        values = weather(1) + 10
        dust = {"pm10": values + more, "pm25": values.copy()}
        dust["pm25"][[AT, AT + 1]] += [8, 4]
        called.append(places(say([Spike()], {"a": dust}), What.SPIKE))
    assert called == [[], [(AT, AT)]]


def test_what_wears_off_is_a_fault_where_it_is_below_zero_alone() -> None:
    called = []
    for least in (20, 6):
        values = weather(1)
        values += least - values[AT - 100 :].min()
        at = AT - 100 + int(values[AT - 100 :].argmin())
        values[[at, at + 1]] -= [8, 4]
        called.append(len(places(say([Spike()], {"a": {"so2": values}}), What.SPIKE)))
    assert called == [0, 1]


def test_a_reading_that_is_only_rounded_is_none() -> None:
    values = np.round(8.7 + 0.1 * np.sin(np.arange(1000) * 2 * np.pi / 24), 2)
    values[AT] = 9
    assert places(say([Spike()], {"a": {"ph": values}}, kind="water"), What.SPIKE) == []
    values[AT] = 8.98
    assert places(say([Spike()], {"a": {"ph": values}}, kind="water"), What.SPIKE) == [(AT, AT)]


def test_a_spike_where_all_rise_steeply_is_a_fault() -> None:
    sensors = {name: {"temperature": weather(seed)} for seed, name in enumerate("abcde")}
    for its in sensors.values():
        its["temperature"][AT - 2 : AT + 3] += [2, 4, 6, 4, 2]
    sensors["b"]["temperature"][AT] += 20
    assert places(say([Spike()], sensors), What.SPIKE) == [(AT, AT)]


def test_a_channel_that_has_spikes_by_itself_is_not_called_for_another() -> None:
    values = weather(1)
    values[120:AT:40] += 20
    before = len(places(say([Spike()], {"a": {"temperature": values}}), What.SPIKE))
    values[AT + 7] += 20
    assert len(places(say([Spike()], {"a": {"temperature": values}}), What.SPIKE)) == before


def test_a_spike_of_a_channel_that_is_hardly_known_is_not_called() -> None:
    values = weather(1, 120)
    values[60] += 20
    assert say([Spike()], {"a": {"temperature": values}}) == []


def test_a_jump_that_is_rare_is_suspect_once() -> None:
    values = weather(1)
    values[AT:] += 20
    assert places(say([Spike()], {"a": {"temperature": values}}), What.UNDECIDED) == [(AT, AT)]


def test_a_rare_jump_soon_after_another_is_suspect_too() -> None:
    values = weather(1)
    values[AT : AT + 6] += 20
    assert places(say([Spike()], {"a": {"temperature": values}}), What.UNDECIDED) == [(AT, AT), (AT + 6, AT + 6)]


def test_short_showers_are_no_spikes() -> None:
    generator = np.random.default_rng(1)
    showers = np.where(generator.random(1000) < 0.03, generator.exponential(3, 1000).round(1), 0.0)
    assert say([Spike()], {"a": {"rain": showers}}) == []


def test_what_is_said_does_not_depend_on_what_comes_later() -> None:
    values = weather(1)
    values[[500, AT]] += 20
    whole = say([Spike()], {"a": {"temperature": values}})
    assert len(whole) > 1
    for end in (505, 520, 810):
        part = say([Spike()], {"a": {"temperature": values[:end]}})
        assert part == [verdict for verdict in whole if verdict.time < START + end * HOUR]
