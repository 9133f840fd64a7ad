"""What becomes of faults, events and quiet days: sensors side by side, each with its own noise, on a common course."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels, Readings
from gateway.edge.verdict import UNCERTAIN, Judge, Judgement, Verdict, What
from gateway.judge import Call, calls
from sensors import kinds

NOW = 1_700_000_000_000
HOUR = 3_600_000
SENSORS, ROWS = 5, 260
AT = 190
Floats = npt.NDArray[np.float64]
FAULTS = set(What) - {What.NOTHING} - UNCERTAIN


class Station:
    """Decoder, inspector and judge of a few weather stations that send temperature and humidity."""

    def __init__(self) -> None:
        self.channels = Channels()
        self._decoder = Decoder([SourceConfig()], kinds.builtin(), "here", self.channels)
        self._inspector = Inspector(self.channels)
        self.judge = Judge(self.channels)

    def readings(self, messages: Sequence[tuple[int, int, float, float]]) -> Readings:
        """Of sensor, time, temperature and humidity."""
        batch = RawBatch()
        for sensor, time, temperature, humidity in messages:
            batch.topics.append(f"city/east/weather/w{sensor}")
            batch.payloads.append(f'{{"ts":{time},"temperature":{temperature:.1f},"humidity":{humidity:.1f}}}'.encode())
            batch.received.append(time)
        readings = self._decoder.decode(batch)
        self._inspector.inspect(readings)
        return readings

    def send(self, messages: Sequence[tuple[int, int, float, float]]) -> Judgement:
        return self.judge.judge(self.readings(messages))


def course(seed: int = 1) -> Floats:
    """float64[rows, sensors]: temperatures of the same days at several places."""
    draw = np.random.default_rng(seed)
    day = 18 + 6 * np.sin(np.arange(ROWS) / 24 * 2 * np.pi)
    return np.asarray(day[:, None] + np.arange(SENSORS) + draw.normal(0, 0.4, (ROWS, SENSORS)))


def messages(values: Floats, interval: int) -> list[list[tuple[int, int, float, float]]]:
    """Of each row, the messages of all sensors; their humidity does nothing in particular."""
    draw = np.random.default_rng(7)
    humid = np.clip(60 + draw.normal(0, 3, values.shape), 0, 95)
    return [
        [(sensor, NOW + row * interval, float(x), float(humid[row, sensor])) for sensor, x in enumerate(of_row)]
        for row, of_row in enumerate(values)
    ]


def judged(values: Floats, interval: int = HOUR) -> tuple[list[Verdict], list[int]]:
    """All verdicts on temperatures, and the rows in which a value of the first sensor's was part of a fault."""
    station, verdicts, rows = Station(), [], []
    for row, of_row in enumerate(messages(values, interval)):
        said = station.send(of_row)
        verdicts += [verdict for verdict in said.verdicts if verdict.channel % 2 == 0]
        rows += [row] * int(said.fault[0] > 0)
    return verdicts, rows


def faults(verdicts: Sequence[Verdict]) -> list[tuple[int, What]]:
    return [(verdict.channel, verdict.what) for verdict in verdicts if verdict.what in FAULTS]


def spike(values: Floats) -> None:
    values[AT, 0] += 15


def stuck(values: Floats) -> None:
    values[AT : AT + 20, 0] = values[AT, 0]


def dropout(values: Floats) -> None:
    values[AT : AT + 8, 0] = 0


def fahrenheit(values: Floats) -> None:
    values[AT : AT + 24, 0] = values[AT : AT + 24, 0] * 1.8 + 32


def noise(values: Floats) -> None:
    values[AT : AT + 40, 0] += np.random.default_rng(3).normal(0, 8, 40)


def offset(values: Floats) -> None:
    values[AT : AT + 40, 0] += 12


BROKEN: Sequence[tuple[Callable[[Floats], None], What]] = [
    (spike, What.SPIKE),
    (stuck, What.STUCK),
    (dropout, What.DROPOUT),
    (fahrenheit, What.UNIT),
    (noise, What.NOISE),
    (offset, What.OFFSET),
]


@pytest.mark.parametrize("interval", [100, 60_000, HOUR, 24 * HOUR])
def test_quiet_days_are_no_fault_at_any_pace(interval: int) -> None:
    assert faults(judged(course(), interval)[0]) == []


@pytest.mark.parametrize(("damage", "what"), BROKEN)
def test_a_fault_of_one_sensor_is_called_by_its_name(damage: Callable[[Floats], None], what: What) -> None:
    values = course()
    damage(values)
    verdicts, _ = judged(values)
    called = [verdict for verdict in verdicts if verdict.what in FAULTS]
    assert (0, what) in faults(verdicts)
    assert {channel for channel, _ in faults(verdicts)} == {0}
    assert all(NOW + (AT - 12) * HOUR <= verdict.since <= verdict.time for verdict in called)
    assert all(verdict.reasons and 0.5 < verdict.confidence <= 1 for verdict in called)


@pytest.mark.parametrize("damage", [stuck, dropout, fahrenheit])
def test_values_of_a_fault_that_goes_on_are_marked_until_it_ends(damage: Callable[[Floats], None]) -> None:
    values = course()
    damage(values)
    changed = np.flatnonzero((values != course()).any(1))
    _, rows = judged(values)
    assert rows
    assert rows[-1] == changed[-1]
    assert set(rows) <= set(range(changed[0] - 1, changed[-1] + 1))


def test_a_spike_is_called_a_fault_of_the_reading_that_it_was() -> None:
    values = course()
    spike(values)
    station, called = Station(), []
    for of_row in messages(values, HOUR):
        readings = station.readings(of_row)
        said = calls(readings, [], station.judge.judge(readings))
        called += said.time[(said.call == Call.FAULT) & (said.channel == 0)].tolist()
    assert called == [NOW + AT * HOUR]


def test_a_front_that_crosses_all_sensors_is_no_fault() -> None:
    values = course()
    for sensor in range(SENSORS):
        values[AT + sensor :, sensor] -= 12
    assert faults(judged(values)[0]) == []


def test_a_gust_that_wears_off_is_no_fault() -> None:
    values = course()
    values[AT : AT + 6, 0] += [4, 8, 6, 4, 2, 1]
    assert faults(judged(values)[0]) == []


def test_a_calm_that_all_sensors_share_is_no_fault() -> None:
    values = course()
    values[AT : AT + 20] = values[AT]
    assert faults(judged(values)[0]) == []


def test_what_is_exempt_from_the_flat_line_test_is_never_stuck() -> None:
    station = Station()
    draw = np.random.default_rng(2)
    said = []
    for row in range(ROWS):
        humid = 60 + float(draw.normal(0, 3)) if row < AT else 99.0
        said += station.send([(0, NOW + row * HOUR, 15 + float(draw.normal(0, 1)), humid)]).verdicts
    assert What.STUCK not in {verdict.what for verdict in said}


def test_a_sensor_that_has_just_come_is_only_learnt() -> None:
    values = course()[:90]
    values[60, 0] += 15
    values[70:85, 1] = 20
    assert judged(values)[0] == []


def broken() -> list[tuple[int, int, float, float]]:
    values = course()
    for sensor, (damage, _) in enumerate(BROKEN[:SENSORS]):
        column = values[:, [sensor]]
        damage(column)
        values[:, sensor] = column[:, 0]
    return [message for row in messages(values, HOUR) for message in row]


@pytest.mark.parametrize("size", [7, 2000])
def test_a_batch_says_what_its_messages_say_one_after_another(size: int) -> None:
    sent = broken()
    one, many = Station(), Station()
    single = [one.send([message]) for message in sent]
    whole = [many.send(sent[first : first + size]) for first in range(0, len(sent), size)]
    assert [verdict for said in whole for verdict in said.verdicts] == [v for said in single for v in said.verdicts]
    assert np.array_equal(np.concatenate([x.fault for x in whole]), np.concatenate([x.fault for x in single]))
    assert any(said.fault.any() for said in single)


def test_a_batch_that_is_taken_back_leaves_no_trace() -> None:
    sent = broken()
    plain, undone = Station(), Station()
    for first in range(0, len(sent), 60):
        part = sent[first : first + 60]
        undone.judge.judge(undone.readings([(sensor, time - 1, 40 - x, y) for sensor, time, x, y in part]))
        undone.judge.undo()
        again, once = undone.judge.judge(plain_readings(undone, part)), plain.send(part)
        assert again.verdicts == once.verdicts
        assert np.array_equal(again.fault, once.fault)


def plain_readings(station: Station, part: Sequence[tuple[int, int, float, float]]) -> Readings:
    """Readings whose flags and reasons are those of a fresh look: the inspector has seen others in between."""
    readings = station.readings(part)
    readings.flag[:], readings.reason[:] = 1, 0
    return readings
