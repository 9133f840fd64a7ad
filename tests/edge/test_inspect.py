"""Quality control: what each test says, and that it does not depend on how readings come in batches."""

import itertools
import random
import tomllib
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.reasons import Reason
from gateway.edge.watch import Event
from sensors import kinds
from tests.edge.inspecting import (
    DAY,
    FAIL,
    GOOD,
    MINUTE,
    NOW,
    SUSPECT,
    Answer,
    Inspected,
    Message,
    by_quantity,
    easily_alarmed,
)

PROBE = """
[quantities.t]
spike = { suspect = 5 }
step = 100
attenuated = { window = "8m", suspect = 0.5, fail = 0.05 }
flat = { suspect = "5m", tolerance = 0.2 }
[quantities.u]
spike = { suspect = 5, method = "average" }
events = [{ severity = "red", above = 50 }]
[quantities.v]
fail = [-100, 100]
climatology = { utc_offset = 8, usual = [{ months = [9], suspect = [0, 30] }, { hours = [23], fail = [10, 20] }] }
[quantities.calm]
attenuated = { window = "8m", suspect = 0.5, exempt_below = 1 }
[quantities.status]
healthy = [0, 0]
[[rules]]
expect = "u <= t * 1.1 + 1"
[[rules]]
same = ["t", "v"]
longest = "3m"
when = "v > 0"
[[rules]]
expect = "not (v > 25 and t > 20)"
suspects = ["v"]
"""
TITLE = {"zh": "", "en": "", "ko": ""}


def kind(text: str) -> Mapping[str, kinds.Kind]:
    data = tomllib.loads(text)
    for quantity in data["quantities"].values():
        quantity |= {"title": TITLE, "unit": ""}
    made = kinds.Kind.model_validate({"name": "probe", "title": TITLE, "interval": "1m", **data})
    return {"probe": made.model_copy(update={"quantities": {**kinds.DIAGNOSTICS, **made.quantities}})}


KNOWN = kind(PROBE)


def judged(messages: Sequence[Mapping[str, object]], by: Inspected | None = None, sensor: str = "p1") -> list[Answer]:
    """Flag and reasons of each quantity of each message."""
    return (by or Inspected(KNOWN)).answers(*((f"city/east/probe/{sensor}", message) for message in messages))


def course(quantity: str, values: Sequence[float | None], step: int = MINUTE) -> list[Mapping[str, object]]:
    return [{"ts": NOW + place * step, quantity: value} for place, value in enumerate(values)]


def having(reason: Reason, answers: Sequence[Mapping[str, tuple[int, Reason]]], quantity: str) -> list[int]:
    return [place for place, answer in enumerate(answers) if answer[quantity][1] & reason]


def test_a_spike_is_suspect_at_once_and_the_values_after_it_are_not() -> None:
    answers = judged(course("t", [20, 21, 20, 30, 20.5, 21, 20]))
    assert having(Reason.SPIKE, answers, "t") == [3]
    assert answers[3]["t"][0] == SUSPECT


def test_of_a_step_only_the_first_value_is_suspect() -> None:
    assert having(Reason.SPIKE, judged(course("t", [20, 21, 30, 31, 30, 30.5])), "t") == [2]


def test_by_the_average_a_spike_darkens_what_comes_after_it() -> None:
    assert having(Reason.SPIKE, judged(course("u", [20, 20, 32, 20, 20, 20])), "u") == [2, 3, 4]


def test_a_slope_is_no_spike() -> None:
    assert not having(Reason.SPIKE, judged(course("t", [20, 24, 28, 32])), "t")


def test_a_spike_is_not_sought_across_a_gap() -> None:
    messages = [*course("t", [20, 20]), {"ts": NOW + 60 * MINUTE, "t": 40}, {"ts": NOW + 61 * MINUTE, "t": 20}]
    assert not having(Reason.SPIKE, judged(messages), "t")


def test_the_first_value_after_a_gap_is_remarked_and_stays_good() -> None:
    messages = [{"ts": NOW + minute * MINUTE, "t": 20 + minute / 9} for minute in (0, 1, 11, 22, 23)]
    answers = judged(messages)
    assert having(Reason.GAP, answers, "t") == [3], "ten intervals are no gap yet"
    assert answers[3]["t"] == (GOOD, Reason.GAP)


def test_a_signal_that_has_lost_its_life_is_suspect_then_failed_and_good_when_it_lives_again() -> None:
    values = [20 + (place % 2) for place in range(20)]
    weak = [20 + 0.3 * (place % 2) for place in range(20)]
    dead = [20 + 0.01 * (place % 2) for place in range(20)]
    answers = judged(course("t", [*values, *weak, *dead, 21]))
    found = having(Reason.ATTENUATED, answers, "t")
    assert found == list(range(28, 60)), "from eight minutes after it weakened"
    assert [answers[place]["t"][0] for place in (28, 47, 48, 59, 60)] == [SUSPECT, SUSPECT, FAIL, FAIL, GOOD]


def test_a_short_history_is_not_attenuated() -> None:
    assert not having(Reason.ATTENUATED, judged(course("t", [20, 20.3] * 4)), "t")
    sparse = [{"ts": NOW + minute * MINUTE, "t": 20.0} for minute in (0, 4, 8, 12)]
    assert not having(Reason.ATTENUATED, judged(sparse), "t"), "three values are no signal"


def test_after_a_silence_of_a_window_attenuation_is_learnt_anew() -> None:
    messages = [*course("t", [20.0] * 12), *({"ts": NOW + (40 + m) * MINUTE, "t": 20.0} for m in range(8))]
    assert having(Reason.ATTENUATED, judged(messages), "t") == list(range(8, 12))


def test_what_is_exempt_is_not_attenuated() -> None:
    assert not having(Reason.ATTENUATED, judged(course("calm", [0.5] * 20)), "calm")
    assert having(Reason.ATTENUATED, judged(course("calm", [1.5] * 20)), "calm")


def test_climatology_is_told_in_the_standard_time_of_the_place() -> None:
    evening = NOW - NOW % DAY + 15 * 60 * MINUTE  # 23:00 at UTC+8, in September
    messages = [{"ts": evening + hours * 60 * MINUTE, "v": value} for hours, value in ((-1, 25), (0, 25), (1, 31))]
    answers = judged(messages)
    assert [answer["v"] for answer in answers] == [
        (GOOD, Reason(0)),
        (FAIL, Reason.CLIMATOLOGY | Reason.GAP),
        (SUSPECT, Reason.CLIMATOLOGY | Reason.GAP),
    ]
    october = ("city/a/probe/p", {"ts": evening + 11 * DAY - 60 * MINUTE, "v": -50})
    assert Inspected(KNOWN).answers(october, now=NOW + 12 * DAY)[0]["v"] == (GOOD, Reason(0)), "no range for it"


def test_quantities_that_contradict_each_other_are_all_suspect() -> None:
    (answer,) = judged([{"ts": NOW, "u": 40, "t": 20, "v": 1}])
    assert answer == {
        "u": (SUSPECT, Reason.CONTRADICTION),
        "t": (SUSPECT, Reason.CONTRADICTION),
        "v": (GOOD, Reason(0)),
    }
    assert judged([{"ts": NOW, "u": 22, "t": 20}])[0]["u"] == (GOOD, Reason(0))


def test_a_rule_may_name_who_is_to_blame() -> None:
    (answer,) = judged([{"ts": NOW, "v": 26, "t": 21}])
    assert answer == {"v": (SUSPECT, Reason.CONTRADICTION), "t": (GOOD, Reason(0))}


@pytest.mark.parametrize("other", [None, 500])
def test_a_missing_or_impossible_value_contradicts_nothing(other: float | None) -> None:
    messages: list[Mapping[str, object]] = [{"ts": NOW, "t": 21, "v": other}, {"ts": NOW + MINUTE, "t": None, "u": 40}]
    answers = judged(messages)
    assert answers[0]["t"] == (GOOD, Reason(0))
    assert answers[1]["u"] == (GOOD, Reason(0))


def test_quantities_that_all_repeat_themselves_are_suspect_while_one_alone_may() -> None:
    both: list[Mapping[str, object]] = [{"ts": NOW + m * MINUTE, "t": 20, "v": 5} for m in range(5)]
    assert having(Reason.CONTRADICTION, judged(both), "v") == [3, 4]
    one: list[Mapping[str, object]] = [{"ts": NOW + m * MINUTE, "t": 20, "v": 5 + m % 2} for m in range(5)]
    assert not having(Reason.CONTRADICTION, judged(one), "v")
    night: list[Mapping[str, object]] = [{"ts": NOW + m * MINUTE, "t": 20, "v": 0} for m in range(5)]
    assert not having(Reason.CONTRADICTION, judged(night), "v")


def test_what_a_sensor_says_of_itself_holds_for_its_values_until_it_says_otherwise() -> None:
    by = Inspected(KNOWN)
    messages: list[Mapping[str, object]] = [
        {"ts": NOW, "t": 20},
        {"ts": NOW + MINUTE, "t": 20.5, "status": 1, "v": None},
        {"ts": NOW + 2 * MINUTE, "t": 21},
        {"ts": NOW + 3 * MINUTE, "battery": 2},
        {"ts": NOW + 4 * MINUTE, "status": 0, "t": 20},
    ]
    answers = judged(messages, by)
    assert [answer.get("t", (0,))[0] for answer in answers] == [GOOD, SUSPECT, SUSPECT, 0, SUSPECT]
    assert answers[1]["status"] == (GOOD, Reason(0)), "it told the truth"
    assert not answers[1]["v"][1] & Reason.DIAGNOSTICS, "there is no value to doubt"
    assert judged([{"ts": NOW, "t": 20}], by, "p2")[0]["t"][0] == GOOD, "another sensor"
    assert judged([{"ts": NOW + 5 * MINUTE, "battery": 60, "t": 20.1}], by)[0]["t"] == (GOOD, Reason(0))


def test_a_low_battery_does_not_silence_an_alarm() -> None:
    (answer,), (event,) = Inspected(KNOWN).send([("city/east/probe/p1", {"ts": NOW, "u": 60, "battery": 3})])
    assert (event.severity, event.value, event.since) == ("red", 60, NOW)
    assert answer["u"] == (SUSPECT, Reason.DIAGNOSTICS)


def test_every_reason_has_a_bit_of_its_own_and_fits_its_column() -> None:
    bits = [reason.value for reason in Reason]
    assert all(bit & (bit - 1) == 0 for bit in bits)
    assert max(bits) < 2**31


VALUES: st.SearchStrategy[object] = st.sampled_from([20, 20.0, 20.1, 20.5, 21, 26, 30, 55, -5, 500, None])
FIELDS: st.SearchStrategy[Mapping[str, object]] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys("tuv", VALUES),
        "calm": st.sampled_from([0, 2]),
        "status": st.sampled_from([0, 1, None]),
        "battery": st.integers(0, 10),
    },
)
STEPS = st.sampled_from([1, 1, 1, 1, 2, 12, 0, -3])  # minutes
COURSE = st.lists(st.tuples(st.sampled_from(["b", "b", "c"]), STEPS, FIELDS), max_size=60)


@settings(max_examples=200, deadline=None)
@given(COURSE, st.data())
def test_values_are_judged_alike_however_they_come_in_batches(
    steps: list[tuple[str, int, Mapping[str, object]]], data: st.DataObject
) -> None:
    times = itertools.accumulate(minutes * MINUTE for _, minutes, _ in steps)
    messages: list[Message] = [
        (f"city/a/probe/{sensor}", {"ts": NOW + time, **fields})
        for time, (sensor, _, fields) in zip(times, steps, strict=True)
    ]
    cuts = sorted({0, len(messages), *data.draw(st.lists(st.integers(0, len(messages)), max_size=4))})
    together, apart = Inspected(KNOWN), Inspected(KNOWN)

    def answers(by: Inspected, some: list[Message], *, twice: bool) -> list[Answer]:
        readings = by.decode(some)
        reason = readings.reason.copy()
        by.inspector.inspect(readings)
        said = by_quantity(readings)
        if twice:
            by.inspector.undo()  # as if it had not been, but for what the detector has learnt
            readings.reason[:] = reason
            by.inspector.inspect(readings)
        by.decoder.remember(readings.keys)
        return said

    with easily_alarmed():
        assert [
            answer for a, b in itertools.pairwise(cuts) for answer in answers(together, messages[a:b], twice=False)
        ] == [answer for message in messages for answer in answers(apart, [message], twice=True)]


def test_alarms_and_events_of_many_sensors_do_not_depend_on_batches() -> None:
    draw = random.Random(1)  # noqa: S311 - repeatable
    messages: list[Message] = [
        (
            f"city/a/probe/s{sensor}",
            {"ts": NOW + minute * MINUTE + sensor, "calm": draw.gauss(2, 1), "u": draw.gauss(48, 1)},
        )
        for minute in range(60)
        for sensor in draw.sample(range(40), 30)
    ]
    together, apart = Inspected(KNOWN), Inspected(KNOWN)
    with easily_alarmed():
        whole, events = together.send(messages)
        cuts = [0, *sorted(draw.sample(range(len(messages)), 40)), len(messages)]
        parts = [apart.send(messages[a:b]) for a, b in itertools.pairwise(cuts)]
    assert whole == [answer for answers, _ in parts for answer in answers]
    assert sorted(events, key=order) == sorted((event for _, raised in parts for event in raised), key=order)
    assert events
    assert 20 < len(having(Reason.UNUSUAL, whole, "u")) < len(whole) / 4
    channels = np.arange(len(apart.channels))
    one, other = together.inspector.state(channels), apart.inspector.state(channels)
    assert all(np.array_equal(one[name], other[name], equal_nan=name == "tests") for name in one)


def order(event: Event) -> tuple[int, int]:
    return event.channel, event.time


def test_what_is_unusual_is_suspect_and_still_raises_an_event() -> None:
    known = kind('[quantities.w]\nsuspect = [0, 60]\nevents = [{ severity = "red", above = 50 }]')
    usual = course("w", [20 + minute % 3 for minute in range(300)])
    for value, charge, reason, raised in (
        (55, 80, Reason.UNUSUAL, 1),
        (55, 3, Reason.UNUSUAL | Reason.DIAGNOSTICS, 1),
        (65, 80, Reason.UNUSUAL | Reason.SUSPECT_RANGE, 0),
    ):
        by = Inspected(known)
        assert not having(Reason.UNUSUAL, judged(usual, by), "w")
        (unusual,), events = by.send(
            [("city/east/probe/p1", {"ts": NOW + 300 * MINUTE, "w": value, "battery": charge})]
        )
        assert unusual["w"] == (SUSPECT, reason)
        assert len(events) == raised


@pytest.mark.parametrize("sensitivity", [0, 0.01])
def test_a_quantity_may_be_less_sensitive_or_not_at_all(sensitivity: float) -> None:
    spiky = course("w", [20 + minute % 3 for minute in range(300)] + [45])
    for factor, unusual in ((1, [300]), (sensitivity, [])):
        known = kind(f"[quantities.w]\nsensitivity = {factor}")
        assert having(Reason.UNUSUAL, judged(spiky, Inspected(known)), "w") == unusual


def test_an_angle_and_a_diagnosis_are_never_unusual() -> None:
    series = [3 + minute % 3 for minute in range(300)] + [300]
    for key in ("direction = true", "healthy = [0, 400]"):
        known = kind(f"[quantities.w]\n{key}")
        assert not having(Reason.UNUSUAL, judged(course("w", series), Inspected(known)), "w")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('expect = "t < w"', "unknown quantity 'w'; known: t, u, v"),
        ('expect = "t + 1"', "compares nothing"),
        ('expect = "t <"', "cannot be read"),
        ('expect = "t < __import__(1)"', "neither arithmetic nor a comparison"),
        ('expect = "t < u.real"', "neither arithmetic nor a comparison"),
        ('expect = "t < 1e999"', "neither arithmetic nor a comparison"),
        ('when = "t < 1"', "exactly one of"),
        ('same = ["t", "u"]', "belong together"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(f"{PROBE}\n[[rules]]\n{text}")


def test_an_angle_has_no_spikes() -> None:
    with pytest.raises(ValueError, match="an angle has no spike"):
        kind(PROBE.replace("[quantities.u]", "[quantities.u]\ndirection = true"))
