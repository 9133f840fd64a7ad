from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from gateway.edge import detect
from gateway.edge.detect import LEARNING, THRESHOLD, Detector, Judged

MINUTES = 5 * 60_000
DAY = 288  # readings
Floats = npt.NDArray[np.float64]


def recorded(channels: int, rows: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], Floats]:
    """Times and values [rows, channels] as they come: days, noise, jumps, steps, gaps, nothing, late, absurd."""
    draw = np.random.default_rng(seed)
    step = np.where(draw.random((rows, channels)) < 0.01, 50 * MINUTES, MINUTES)
    time = 1_700_000_000_000 + step.cumsum(0)
    level = (draw.random((rows, channels)) < 0.003).cumsum(0) * 2.0
    value = level + np.sin(time / 86_400_000 * 2 * np.pi) + draw.normal(0, 0.2, (rows, channels))
    value[draw.random((rows, channels)) < 0.005] += 9
    value[:, 0] = 4.0
    value[:, 1] = np.round(value[:, 1])
    value[draw.random((rows, channels)) < 0.01] = np.nan
    value[rows // 2, 2:5] = np.inf, -1e300, 1e300
    late = draw.random((rows, channels)) < 0.01
    time[late] -= 100 * MINUTES
    return time, value


def run(detector: Detector, time: npt.NDArray[np.int64], value: Floats) -> Judged:
    """All channels of each row in one call; float64[rows, channels] and bool[rows, channels]."""
    channel = np.arange(value.shape[1])
    rows = [detector.score(channel, *row) for row in zip(time, value, strict=True)]
    return Judged(np.array([row.evidence for row in rows]), np.array([row.alarm for row in rows]))


def alarms(value: Floats) -> list[int]:
    """Rows at which one channel, read every five minutes, raises an alarm."""
    detector = Detector()
    return [row for row, x in enumerate(value.tolist()) if detector.score_one(0, row * MINUTES, x)[1]]


def quiet(rows: int, seed: int = 1) -> Floats:
    """A daily course with a little noise."""
    day = np.sin(np.arange(rows) / DAY * 2 * np.pi)
    return 20 + 5 * day + np.random.default_rng(seed).normal(0, 0.5, rows)


def same(one: Judged, other: Judged) -> bool:
    return np.array_equal(one.evidence, other.evidence) and np.array_equal(one.alarm, other.alarm)


def test_what_comes_later_changes_nothing_that_was_said() -> None:
    time, value = recorded(20, 1200)
    whole = run(Detector(), time, value)
    assert whole.alarm.any()
    for end in (1, 59, 150, 400, 1199):
        prefix = run(Detector(), time[:end], value[:end])
        assert same(prefix, Judged(whole.evidence[:end], whole.alarm[:end]))


def test_one_reading_at_a_time_and_many_at_once_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_RENEWED", 700)
    time, value = recorded(20, 2600)  # beyond the longest memory
    together = run(Detector(), time, value)
    one = Detector(1)
    for row in range(len(value)):
        for channel in (0, 1, 2, 3, 4, 19):
            said = one.score_one(channel, int(time[row, channel]), float(value[row, channel]))
            assert said == (together.evidence[row, channel], together.alarm[row, channel])


def test_channels_may_come_in_any_order_and_any_number() -> None:
    time, value = recorded(60, 800)
    draw = np.random.default_rng(2)
    together, apart = Detector(), Detector(1)
    for row in range(len(value)):
        judged = together.score(np.arange(60), time[row], value[row])
        order = draw.permutation(60)
        for channel in np.split(order, np.sort(draw.choice(60, draw.integers(3), replace=False))):
            part = apart.score(channel, time[row, channel], value[row, channel])
            assert same(part, Judged(judged.evidence[channel], judged.alarm[channel]))


def test_a_restored_detector_goes_on_as_if_nothing_had_happened() -> None:
    time, value = recorded(30, 1000)
    whole = run(Detector(), time, value)
    before = Detector()
    run(before, time[:437], value[:437])
    saved = before.state(np.arange(30))
    run(before, time[437:600], value[437:600])  # what is saved is not touched by what comes after
    after = Detector(1)
    after.score(np.arange(40, 60), time[0, :20], value[0, :20])  # here the channels have other numbers and places
    after.restore(saved, np.arange(30)[::-1])
    turned = Judged(whole.evidence[437:, ::-1], whole.alarm[437:, ::-1])
    assert same(run(after, time[437:, ::-1], value[437:, ::-1]), turned)


def test_what_is_not_its_state_is_refused_and_changes_nothing() -> None:
    detector = Detector()
    channel = np.arange(20)
    run(detector, *recorded(20, 200))
    good = detector.state(channel)
    square, count, cell = good["values"].copy(), good["values"].copy(), good["counts"].copy()
    square[3, 5], count[3, 27], cell[3, 5] = -1, -1, cell[3, 5] + 1
    for bad in (
        {},
        {"values": good["values"]},
        {"values": good["values"][:, 1:], "counts": good["counts"]},
        {"values": good["values"], "counts": good["counts"][1:]},
        {"values": np.zeros((20, 71), np.float32), "counts": good["counts"]},
        {"values": np.full_like(good["values"], np.nan), "counts": good["counts"]},
        {"values": good["values"], "counts": np.full_like(good["counts"], 200)},
        {"values": square, "counts": good["counts"]},
        {"values": count, "counts": good["counts"]},
        {"values": good["values"], "counts": cell},
    ):
        with pytest.raises(ValueError, match="state"):
            detector.restore(bad, channel)
    assert all(np.array_equal(array, good[name]) for name, array in detector.state(channel).items())


def test_the_less_sensitive_a_channel_the_more_evidence_an_alarm_takes() -> None:
    time, value = recorded(40, 1200)
    detectors = {factor: Detector() for factor in (0.0, 0.5, 1.0, 2.0)}
    raised = dict.fromkeys(detectors, 0)
    for row in zip(time, value, strict=True):
        for factor, detector in detectors.items():
            judged = detector.score(np.arange(40), *row, factor)
            assert (judged.evidence[judged.alarm] * factor > THRESHOLD).all()
            raised[factor] += int(judged.alarm.sum())
    assert raised[0.0] == 0 < raised[0.5] < raised[1.0] < raised[2.0]


def test_sensitivity_is_that_of_each_channel() -> None:
    time, value = recorded(40, 1000)
    factors = np.linspace(0, 2, 40)
    many, few = Detector(), Detector()
    raised = np.zeros(40)
    for row in range(len(value)):
        judged = many.score(np.arange(40), time[row], value[row], factors)
        part = few.score(np.arange(10), time[row, :10], value[row, :10], factors[:10])
        assert same(part, Judged(judged.evidence[:10], judged.alarm[:10]))
        raised += judged.alarm
    assert raised[0] == 0
    assert raised[20:].sum() > raised[:20].sum()


def test_state_does_not_grow_over_a_million_readings() -> None:
    detector = Detector(1000)
    channel = np.arange(1000)
    detector.score(channel, np.zeros(1000, np.int64), np.zeros(1000))
    size = held(detector)
    draw = np.random.default_rng(3)
    for row in range(1, 1001):
        detector.score(channel, np.full(1000, row * MINUTES), draw.normal(0, 1, 1000))
    assert held(detector) == size
    assert size / 1000 <= 4096
    assert all(np.isfinite(array).all() for array in detector.state(channel).values())


def held(detector: Detector) -> int:
    """Bytes of all its arrays."""
    return sum(array.nbytes for array in (detector._state, detector._counts, detector._places._place))


def test_only_channels_that_are_judged_take_memory() -> None:
    detector = Detector(8)
    for channel in range(0, 10_000, 2000):
        detector.score_one(channel, MINUTES, 1.0)
    assert detector._state.shape[1] == 8


def test_room_is_made_for_new_channels_and_the_old_ones_are_kept() -> None:
    value = quiet(600)
    value[500] = 90
    alone, crowded = Detector(1), Detector(1)
    for row, x in enumerate(value.tolist()):
        if row % 100 == 0:
            crowded.score_one(1 + row, row * MINUTES, x)
        assert crowded.score_one(0, row * MINUTES, x) == alone.score_one(0, row * MINUTES, x)


def test_a_spike_a_step_and_a_missing_day_raise_alarms_at_once() -> None:
    spike, step, flat = quiet(3000), quiet(3000), quiet(3000)
    spike[2500] += 25
    step[2500:] += 12
    flat[2500:2700] = flat[2499]
    assert 2500 in alarms(spike)
    assert set(alarms(step)) & set(range(2500, 2512))
    assert set(alarms(flat)) & set(range(2500, 2700))


def test_a_value_that_is_common_but_not_at_this_hour_raises_an_alarm() -> None:
    noon_at_night = quiet(6000)
    first = 19 * DAY + DAY // 4  # where the day is highest
    noon_at_night[first : first + 20] = noon_at_night[first - DAY // 2 : first + 20 - DAY // 2]
    assert set(alarms(noon_at_night)) & set(range(first, first + 20))


def test_what_happens_every_day_hardly_ever_raises_an_alarm() -> None:
    pumping = quiet(9000)
    pumping[np.arange(9000) % DAY < 3] += 15
    assert len([row for row in alarms(pumping) if row > 10 * DAY]) <= 2  # of 21 times


@pytest.mark.parametrize(
    "noise",
    [
        lambda draw: draw.normal(0, 1, 5000),
        lambda draw: draw.normal(0, 1, 5000).cumsum(),
        lambda draw: np.exp(draw.normal(0, 1, 5000)),
        lambda draw: draw.poisson(0.2, 5000).astype(float),
        lambda draw: (draw.random(5000) < 0.01).astype(float),
    ],
    ids=["normal", "random walk", "skewed", "counts", "switch"],
)
def test_noise_of_any_kind_raises_few_alarms(noise: Callable[[np.random.Generator], Floats]) -> None:
    raised = [len(alarms(noise(np.random.default_rng(seed)))) for seed in range(5)]
    assert sum(raised) <= 5 * 10  # two in a thousand readings


def test_values_that_never_change_raise_none() -> None:
    assert alarms(np.full(3000, 7.5)) == []
    assert alarms(np.zeros(3000)) == []


def test_a_channel_that_is_being_learnt_raises_none() -> None:
    wild = np.random.default_rng(5).normal(0, 1, LEARNING)
    wild[LEARNING // 2 :: 7] *= 1000
    detector = Detector()
    assert alarms(wild) == []
    assert detector.learning(np.array([0, 10_000])).all()
    for row, x in enumerate(wild.tolist()):
        detector.score_one(0, row * MINUTES, x)
    assert detector.learning(np.array([0, 1])).tolist() == [False, True]


def test_an_alarm_is_not_repeated_while_it_lasts() -> None:
    value = quiet(3000)
    value[2500:2560] += 40
    assert len([row for row in alarms(value) if 2500 <= row < 2560]) <= 2


def test_missing_late_and_repeated_readings_have_no_evidence_and_teach_nothing() -> None:
    detector = Detector()
    for row, x in enumerate(quiet(500).tolist()):
        detector.score_one(0, row * MINUTES, x)
    saved = detector.state(np.array([0]))
    for time, value in ((500 * MINUTES, np.nan), (500 * MINUTES, np.inf), (499 * MINUTES, 80.0), (0, 80.0)):
        assert detector.score_one(0, time, value) == (0.0, False)
    assert all(np.array_equal(array, saved[name]) for name, array in detector.state(np.array([0])).items())


def test_a_call_in_which_nothing_can_be_judged_says_nothing() -> None:
    detector = Detector(0)
    for size in (0, 3, 50):
        judged = detector.score(np.arange(size), np.full(size, MINUTES), np.full(size, np.nan))
        assert judged.evidence.tolist() == [0.0] * size
        assert judged.alarm.tolist() == [False] * size


def test_evidence_is_more_than_the_threshold_wherever_there_is_an_alarm() -> None:
    time, value = recorded(20, 1200)
    judged = run(Detector(), time, value)
    assert (judged.evidence[judged.alarm] > THRESHOLD).all()
    assert (judged.evidence >= 0).all()
