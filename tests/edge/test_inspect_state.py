"""What an inspector knows can be saved, and another one goes on as if nothing had happened."""

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.edge.inspecting import DAY, MINUTE, NOW, Inspected, Message, easily_alarmed
from tests.edge.test_inspect_one import EVERY, QUANTITIES

State = dict[str, npt.NDArray[np.generic]]


def course(sensors: int, rounds: int, seed: int = 1) -> list[list[Message]]:
    """A batch a minute; each sensor always sends the same quantities."""
    draw = random.Random(seed)  # noqa: S311 - repeatable
    batches: list[list[Message]] = []
    for minute in range(rounds):
        batch: list[Message] = []
        for sensor in range(sensors):
            fields = {name: draw.choice([20, 21, 22, 55, 20.1, 20.1, None]) for name in QUANTITIES if name != "status"}
            fields["status"] = int(draw.random() < 0.1)
            batch.append((f"city/east/probe/s{sensor}", {"ts": NOW - DAY + minute * MINUTE, **fields}))
        batches.append(batch)
    return batches


def everyone(by: Inspected) -> npt.NDArray[np.int64]:
    return np.arange(len(by.channels))


def numbers(by: Inspected) -> dict[tuple[str, str], int]:
    """Channels by sensor and quantity."""
    return {(sensor.name, name): sensor.channel(name) for sensor in by.channels.sensors for name in sensor.home.names}


def test_a_restored_inspector_goes_on_as_if_nothing_had_happened() -> None:
    batches = course(5, 120)
    straight, before, after = Inspected(EVERY), Inspected(EVERY), Inspected(EVERY)
    with easily_alarmed():
        for batch in batches[:70]:
            assert straight.send(batch) == before.send(batch)
        known = before.inspector.state(everyone(before))
        running = before.watch.state(everyone(before))
        saved = {name: array.copy() for name, array in known.items()}
        before.send(batches[70])
        assert all(np.array_equal(known[name], saved[name], equal_nan=known[name].dtype == float) for name in known)

        after.decode(batches[0][::-1])  # the sensors are entered in another order, so their channels are others
        places = numbers(after)
        now = np.array([places[key] for key in numbers(before)])
        after.inspector.restore(saved, now)
        after.watch.restore(running, now)
        for batch in batches[70:]:
            answers, events = straight.send(batch)
            told, raised = after.send(batch)
            assert told == answers
            assert sorted((event.since, event.severity, event.value) for event in raised) == sorted(
                (event.since, event.severity, event.value) for event in events
            )


def test_what_is_saved_has_the_channels_first_and_can_be_cut_by_them() -> None:
    by = Inspected(EVERY)
    with easily_alarmed():
        for batch in course(3, 40):
            by.send(batch)
    whole = by.inspector.state(everyone(by))
    assert {array.shape[0] for array in whole.values()} == {len(by.channels)}
    some = np.array([17, 3, 8])
    part = by.inspector.state(some)
    assert all(np.array_equal(part[name], whole[name][some], equal_nan=part[name].dtype == float) for name in whole)


def test_state_is_the_same_after_it_was_restored() -> None:
    by, other = Inspected(EVERY), Inspected(EVERY)
    batches = course(4, 60)
    with easily_alarmed():
        for batch in batches:
            by.send(batch)
    other.decode(batches[0])
    saved = by.inspector.state(everyone(by))
    other.inspector.restore(saved, everyone(other))
    assert same(other.inspector.state(everyone(other)), saved)


def test_a_window_of_another_length_begins_anew() -> None:
    by, other = Inspected(EVERY), Inspected(EVERY, {"quantity": "t", "attenuated": {"window": "3h", "suspect": 0.5}})
    message = ("city/east/probe/s", {"ts": NOW, "t": 20.0, "calm": 2.0})
    for minute in range(20):
        by.send([("city/east/probe/s", {"ts": NOW - DAY + minute * MINUTE, "t": 20.0, "calm": 2.0})])
    other.decode([message])
    other.inspector.restore(by.inspector.state(everyone(by)), everyone(other))
    restored = other.inspector.state(everyone(other))
    assert np.isinf(restored["low"][0]).all()
    assert np.isfinite(restored["low"][1]).any()


def same(one: State, other: State) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=one[name].dtype == float) for name in one)


def changed(name: str, change: Callable[[npt.NDArray[np.float64]], object]) -> Callable[[State], None]:
    def damage(state: State) -> None:
        change(state[name])  # type: ignore[arg-type]

    return damage


def put(place: tuple[int | slice, ...], value: float) -> Callable[[npt.NDArray[np.float64]], object]:
    return lambda array: array.__setitem__(place, value)


def replaced(name: str, make: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]) -> Callable[[State], None]:
    def damage(state: State) -> None:
        state[name] = make(state[name])

    return damage


def missing(name: str) -> Callable[[State], None]:
    def damage(state: State) -> None:
        del state[name]

    return damage


ARRAYS = ("tests", "unwell", "low", "high", "block", "since", "values", "counts")


@pytest.mark.parametrize(
    "damage",
    [
        *(missing(name) for name in ARRAYS),
        *(replaced(name, lambda array: array[1:]) for name in ARRAYS),
        *(replaced(name, lambda array: array[..., None]) for name in ARRAYS),
        *(replaced(name, lambda array: array.astype(np.float32)) for name in ARRAYS),
        *(changed("tests", put((0, row), np.nan)) for row in (0, 1, 3, 4)),
        *(changed("tests", put((0, row), np.inf)) for row in (0, 3)),
        changed("tests", put((0, 0), 1.5)),
        changed("tests", put((0, 3), NOW + 1)),
        changed("tests", put((0, 0), -float(1 << 62))),
        changed("low", put((0, 0), np.nan)),
        changed("low", put((0, slice(None)), 1e9)),
        changed("values", put((0, 30), np.nan)),
        changed("values", put((0, 5), -1.0)),
        changed("counts", put((0, 18), 250)),
    ],
)
def test_what_cannot_be_a_state_is_refused_and_changes_nothing(damage: Callable[[State], None]) -> None:
    by, other = Inspected(EVERY), Inspected(EVERY)
    batches = course(2, 30)
    for batch in batches:
        by.send(batch)
    for batch in batches[:10]:
        other.send(batch)
    saved, before = by.inspector.state(everyone(by)), other.inspector.state(everyone(other))
    damage(saved)
    with pytest.raises(ValueError, match=r"state|windows"):
        other.inspector.restore(saved, everyone(other))
    assert same(other.inspector.state(everyone(other)), before)


def test_nothing_saved_is_nothing_restored() -> None:
    by = Inspected(EVERY)
    nobody = np.empty(0, np.int64)
    by.inspector.restore(by.inspector.state(nobody), nobody)
    assert by.answers(("city/east/probe/s", {"ts": NOW, "u": 20}))[0]["u"][0] == 1


def test_how_many_channels_are_still_being_learnt() -> None:
    by = Inspected(EVERY)
    with easily_alarmed():
        for minute in range(20):
            by.send([("city/east/probe/s", {"ts": NOW + minute * MINUTE, "u": 20, "angle": 5, "battery": 90, "x": 1})])
            learning = by.inspector.learning(everyone(by))
            assert learning == (minute < 5), "an angle, a diagnosis and an unknown quantity are never learnt"
        by.decode([("city/east/probe/s2", {"ts": NOW, "u": 20, "v": 1})])
        assert by.inspector.learning(everyone(by)) == 2


def held(thing: object) -> int:
    """Bytes of all arrays that an object holds, and the number of all else that it holds."""
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, dict):
        return len(thing) + sum(map(held, thing.values()))
    if isinstance(thing, list | tuple | set):
        return len(thing) + sum(map(held, thing))
    known = type(thing).__module__ in {"gateway.edge.attenuation", "gateway.edge.detect", "gateway.edge.runs"}
    return held(vars(thing)) if known and hasattr(thing, "__dict__") else 1


def test_state_does_not_grow_with_time() -> None:
    by = Inspected(EVERY)
    sizes = []
    with easily_alarmed():
        for number, batch in enumerate(course(3, 400)):
            by.send(batch)
            if number % 50 == 10:
                by.inspector.inspect(by.decode([]))
                by.inspector.undo()  # what a batch could be taken back with
                sizes.append(held(vars(by.inspector)))
    assert sizes[-1] == sizes[0]
