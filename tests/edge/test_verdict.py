"""What all tests for faults share: when readings are judged, what is failed, what neighbours are, how state is kept."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from gateway.config import SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.faults import TESTS
from gateway.edge.faults.look import CALLED, COMMON, Look, Verdict, What
from gateway.edge.inspect import Inspector
from gateway.edge.readings import FAIL, GOOD, Channels, Floats, Readings
from gateway.edge.verdict import Judge
from sensors import kinds

NOW = 1_790_000_000_000
MINUTE = 60_000


class High:
    """Calls a value above 400 a fault, for as long as it lasts."""

    rows = 1

    def judge(self, look: Look, own: Floats) -> None:
        own[0] += 1
        high = look.value > 400
        for place in np.flatnonzero(high & (look.own[CALLED] == 0)).tolist():
            look.begin(place, What.OFFSET, look.time[place], 0.9, ["high"])
        look.end(np.flatnonzero(~high & (look.own[CALLED] > 0)))


class Gateway:
    """Decodes, inspects and judges."""

    def __init__(self) -> None:
        self.channels = Channels()
        self.decoder = Decoder([SourceConfig()], kinds.builtin(), "gw", self.channels)
        self.inspector = Inspector(self.channels)
        self.judge = Judge(self.channels, [High()])

    def take(self, messages: Sequence[tuple[str, dict[str, float]]]) -> tuple[Readings, list[Verdict]]:
        raw = RawBatch()
        for sensor, payload in messages:
            raw.topics.append(f"city/east/air/{sensor}")
            raw.payloads.append(json.dumps(payload).encode())
            raw.received.append(NOW)
        readings = self.decoder.decode(raw)
        self.decoder.remember(readings.keys)
        self.inspector.inspect(readings)
        return readings, self.judge.judge(readings)


def stream(minutes: int, faulty: range) -> Iterator[tuple[str, dict[str, float]]]:
    """Three sensors, a message a minute each; one of them is far too high for a while."""
    values = np.random.default_rng(4).normal(100, 5, (minutes, 3)).round(1)
    for minute in range(minutes):
        for number, sensor in enumerate("abc"):
            value = float(values[minute, number]) + (400 if sensor == "b" and minute in faulty else 0)
            yield sensor, {"ts": NOW + minute * MINUTE + number, "pm25": value, "no2": 20 + minute % 7}


def test_a_fault_is_known_a_minute_later_and_then_fails_what_belongs_to_it() -> None:
    gateway = Gateway()
    flags, known = [], []
    for message in stream(20, range(10, 15)):
        readings, verdicts = gateway.take([message])
        known += [(message[1]["ts"], verdict) for verdict in verdicts]
        if message[0] == "b":
            flags.append(int(readings.flag[0]))
    first = known[0]
    assert (first[1].what, first[1].since) == (What.OFFSET, NOW + 10 * MINUTE + 1)
    assert first[0] == NOW + 11 * MINUTE, "with the first reading of the next minute"
    assert flags[11:16] == [FAIL] * 5
    assert set(flags[16:]) == {GOOD}, "it was over, and a minute later that was known"


def test_how_readings_come_in_batches_changes_nothing() -> None:
    messages = list(stream(300, range(200, 230)))
    answers = set()
    for size in (1, 7, 100, len(messages)):
        gateway, flags, verdicts = Gateway(), [], []
        for start in range(0, len(messages), size):
            readings, said = gateway.take(messages[start : start + size])
            flags += readings.flag.tolist()
            verdicts += said
        verdicts += gateway.judge.finish()
        answers.add((tuple(flags), tuple(verdicts), gateway.judge.state(np.arange(6))["state"].tobytes()))
    assert len(answers) == 1
    (answer,) = answers
    assert FAIL in answer[0]


def test_a_gateway_that_starts_again_goes_on_where_it_was() -> None:
    messages = list(stream(300, range(200, 230)))
    whole = Gateway()
    whole.take(messages[:600])
    whole.judge.finish()
    again = Gateway()
    again.take([("z", {"ts": NOW - MINUTE, "pm25": 1.0}), *messages[:3]])  # in another order: channels 1 to 6
    again.judge.finish()
    channels = np.arange(6)
    again.judge.restore(whole.judge.state(channels), channels + 1)
    ours, theirs = again.take(messages[600:]), whole.take(messages[600:])
    assert (ours[0].flag == FAIL).tolist() == (theirs[0].flag == FAIL).tolist()
    assert [verdict[1:] for verdict in ours[1]] == [verdict[1:] for verdict in theirs[1]]
    assert len(theirs[1]) > 0


def test_a_state_of_another_version_is_refused_and_changes_nothing() -> None:
    gateway = Gateway()
    gateway.take(list(stream(5, range(0))))
    gateway.judge.finish()
    good = gateway.judge.state(np.arange(6))
    broken = [
        {**good, "state": good["state"][:, 1:]},
        {**good, "values": np.full_like(good["values"], np.nan)},
        {name: array for name, array in good.items() if name != "elapsed"},
        {},
    ]
    for state in broken:
        with pytest.raises(ValueError, match="judge"):
            gateway.judge.restore(state, np.arange(6))
    now = gateway.judge.state(np.arange(6))
    assert all(now[name].tobytes() == good[name].tobytes() for name in good)


class Ears:
    """Remembers what the neighbours of each channel say."""

    rows = 0

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}

    def judge(self, look: Look, _own: Floats) -> None:
        self.heard.update(zip(look.channel.tolist(), look.beside[COMMON].tolist(), strict=True))


def test_neighbours_are_the_same_quantity_at_other_sensors() -> None:
    gateway, ears = Gateway(), Ears()
    gateway.judge = Judge(gateway.channels, [ears])
    random = np.random.default_rng(1)
    for minute in range(250):
        high = 30 if minute >= 240 else 0
        for number, sensor in enumerate("abc"):
            value = random.normal(100, 5) + high * (sensor != "a")
            gateway.take([(sensor, {"ts": NOW + minute * MINUTE + number, "pm25": value})])
    assert ears.heard[0] > 3, "both others are far above their level"
    assert 1 < ears.heard[1] < ears.heard[0], "one of the others is"


def test_a_sensor_that_is_the_only_one_has_no_neighbours() -> None:
    gateway, ears = Gateway(), Ears()
    gateway.judge = Judge(gateway.channels, [ears])
    for minute in range(150):
        gateway.take([("a", {"ts": NOW + minute * MINUTE, "pm25": minute % 10})])
    assert np.isnan(ears.heard[0])


def test_all_that_every_test_knows_is_saved_and_taken_up() -> None:
    """Four days of readings every ten minutes, so that those that look at days have something to keep."""
    gateway, other = Gateway(), Gateway()
    for each in (gateway, other):
        each.judge = Judge(each.channels, [test() for test in TESTS])
    random = np.random.default_rng(2)
    for number in range(600):
        gateway.take(
            [
                (name, {"ts": NOW + number * 10 * MINUTE + place, "no2": round(float(random.normal(30, 3)), 1)})
                for place, name in enumerate("abc")
            ]
        )
    gateway.judge.finish()
    channels = np.arange(3)
    known = gateway.judge.state(channels)
    assert {"skew", "drift"} < set(known)
    assert np.isfinite(known["skew"]).any()
    other.take([(name, {"ts": NOW, "no2": 1.0}) for name in "cab"])
    other.judge.restore(known, channels)
    assert {name: its.tobytes() for name, its in other.judge.state(channels).items()} == {
        name: its.tobytes() for name, its in known.items()
    }
    assert sum(its[0].nbytes for its in known.values()) < 1900, "bytes a channel"
