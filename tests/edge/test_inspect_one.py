"""Few values are judged one after another, many by array operations: both say the same, and learn the same."""

import itertools
import random
from collections.abc import Mapping, Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge import detect, inspect
from gateway.edge.reasons import Reason
from gateway.edge.watch import Event
from tests.edge.inspecting import DAY, MINUTE, NOW, Answer, Inspected, Message, by_quantity, easily_alarmed
from tests.edge.test_inspect import PROBE, kind

EVERY = kind(
    PROBE.replace(
        'flat = { suspect = "5m", tolerance = 0.2 }', 'flat = { suspect = "5m", fail = "8m", tolerance = 0.2 }'
    )
    + """
[quantities.w]
fail = [-50, 400]
suspect = [-20, 300]
step = 10
flat = { suspect = "3m", fail = "6m", exempt_below = 0, exempt_above = 60 }
sensitivity = 2
events = [
    { severity = "blue", above = 20 }, { severity = "yellow", below = 1 }, { severity = "orange", above = 30 },
    { severity = "red", above = 55 },
]
[quantities.angle]
fail = [0, 360]
step = 90
direction = true
flat = { suspect = "4m" }
"""
)
SENSORS = ("a", "b", "c")
QUANTITIES = ("t", "u", "v", "w", "calm", "angle", "status", "battery", "unknown")


def judge(by: Inspected, messages: Sequence[Message], *, few: bool) -> tuple[list[Answer], list[Event]]:
    """A batch by one of the two ways."""
    with patch.object(inspect, "_FEW", 10_000 if few else 0), patch.object(detect, "_SINGLE", 10_000 if few else 1):
        readings = by.decode(messages)
        by.inspector.inspect(readings)
        events = by.watch.watch(readings)
        return by_quantity(readings), sorted(events, key=lambda event: (event.channel, event.time))


def same_state(one: Inspected, other: Inspected) -> bool:
    channels = np.arange(len(one.channels))
    here, there = one.inspector.state(channels), other.inspector.state(channels)
    return all(np.array_equal(here[name], there[name], equal_nan=name == "tests") for name in here)


def compare(batches: Sequence[Sequence[Message]]) -> tuple[Reason, list[Event]]:
    """Judges batches in both ways, some of them again after they were taken back; all reasons and events."""
    reasons, told = Reason(0), []
    one, many = Inspected(EVERY), Inspected(EVERY)
    with easily_alarmed():
        for number, messages in enumerate(batches):
            answers, events = judge(one, messages, few=True)
            assert (answers, events) == judge(many, messages, few=False)
            assert same_state(one, many)
            for answer in answers:
                for _, reason in answer.values():
                    reasons |= reason
            told += events
            if number % 3 == 0:
                for by in (one, many):
                    by.inspector.undo()
                    by.watch.undo()
                assert judge(one, messages, few=True) == judge(many, messages, few=False)
                assert same_state(one, many)
    return reasons, told


def message(time: int, sensor: str, fields: Mapping[str, object]) -> Message:
    return f"city/east/probe/{sensor}", {"ts": time, **fields}


VALUES: st.SearchStrategy[object] = st.sampled_from(
    [0, 20, 20.1, 20.5, 21, 26, 33, 55, -5, 350, 500, None, 1e308, -1e308]
)
FIELDS = st.dictionaries(st.sampled_from(QUANTITIES), VALUES, min_size=1, max_size=6)
STEPS = st.sampled_from([1, 1, 1, 1, 2, 12, 0, -3])  # minutes
AHEAD = st.sampled_from([0] * 9 + [2 * DAY])
BATCHES = st.lists(
    st.tuples(
        STEPS, st.lists(st.tuples(st.sampled_from(SENSORS), AHEAD, FIELDS), min_size=1, unique_by=lambda m: m[0])
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(BATCHES)
def test_both_ways_say_and_learn_the_same(
    batches: list[tuple[int, list[tuple[str, int, Mapping[str, object]]]]],
) -> None:
    times = itertools.accumulate(minutes * MINUTE for minutes, _ in batches)
    compare(
        [
            [message(NOW + time + ahead, sensor, fields) for sensor, ahead, fields in some]
            for time, (_, some) in zip(times, batches, strict=True)
        ]
    )


def test_both_ways_say_and_learn_the_same_over_a_long_time_in_which_every_test_says_something() -> None:
    draw = random.Random(3)  # noqa: S311 - repeatable
    batches, time = [], NOW - DAY
    hang = dict.fromkeys(QUANTITIES, 0)
    values: dict[tuple[str, str], object] = {}
    for _ in range(600):
        time += draw.choice([1, 1, 1, 1, 1, 1, 1, 2, 12, 0, -3]) * MINUTE
        messages = []
        for sensor in draw.sample(SENSORS, draw.randint(1, 3)):
            for name in QUANTITIES:
                hang[name] = max(hang[name] - 1, 0) or (draw.randrange(8, 40) if draw.random() < 0.02 else 0)
                if not hang[name]:
                    calm = draw.gauss(21, draw.choice([0.01, 0.1, 1, 1, 9]))
                    values[sensor, name] = draw.choice([calm] * 20 + [None, 500, 350, 0, -30])
            its = {name: values[sensor, name] for name in draw.sample(QUANTITIES, 4) if (sensor, name) in values}
            its |= {name: draw.choice([0] * 9 + [1, 120]) for name in ("status",) if name in its}
            messages.append(message(time + draw.choice([0] * 60 + [3 * DAY]), sensor, its or {"t": 20}))
        batches.append(messages)
    reasons, events = compare(batches)
    by_tests = {reason for reason in Reason if reason <= Reason.UNUSUAL}  # what comes after is not of this step
    assert {*reasons} == by_tests - {Reason.NO_TIME, Reason.CLOCK, Reason.PAST}
    assert {event.severity for event in events} == {"none", "blue", "yellow", "orange", "red"}


@pytest.mark.parametrize("few", [True, False])
def test_an_error_in_the_last_step_leaves_everything_as_it_was(few: bool) -> None:  # noqa: FBT001 - a parameter
    by, beside = Inspected(EVERY), Inspected(EVERY)
    series = [
        [message(NOW + minute * MINUTE, "a", {"t": minute % 7, "u": 20, "w": minute % 5})] for minute in range(40)
    ]
    with easily_alarmed():
        for number, messages in enumerate(series):
            if number % 5 == 0:
                with (
                    patch.object(detect.Detector, "_single", _third_time_broken(detect.Detector._single)),
                    pytest.raises(ArithmeticError),
                ):
                    judge_singly(by, messages, few=few)
                by.inspector.undo()
            assert judge_singly(by, messages, few=few) == judge_singly(beside, messages, few=few)
            assert same_state(by, beside)


def judge_singly(by: Inspected, messages: Sequence[Message], *, few: bool) -> list[Answer]:
    """The tests by one of the two ways, the detector a value at a time."""
    with patch.object(inspect, "_FEW", 10_000 if few else 0):
        readings = by.decode(messages)
        by.inspector.inspect(readings)
        return by_quantity(readings)


def _third_time_broken(single: object) -> object:
    calls = itertools.count(1)

    def broken(*arguments: object) -> object:
        if next(calls) == 3:
            raise ArithmeticError
        return single(*arguments)  # type: ignore[operator]

    return broken
