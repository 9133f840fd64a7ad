"""Whatever sensors send: no step raises, the ledger is exact, and every line is line protocol."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import SourceConfig
from gateway.edge.batch import Entry
from sensors import kinds
from sensors.lineprotocol import parse
from tests.edge.test_way import DAY, MINUTE, NOW, TOLERANT, Message, Way, total

FOREIGN = SourceConfig(
    name="foreign",
    topic="x/{sensor}/#",
    kind="water",
    site="s",
    time=None,
    units={"level": "cm", "temperature": "degF"},
)
NAMES = st.sampled_from(
    ["ts", "pm25", "level", "temperature", "wind_direction", "q_qc", "time", "a,b", "名", ""]
) | st.text(max_size=5)
NUMBERS = (
    st.floats(allow_nan=False) | st.integers(-(10**40), 10**40) | st.sampled_from(["12", "NaN", "NNW", "1e999", "١٢"])
)
VALUES: st.SearchStrategy[object] = (
    NUMBERS | st.none() | st.booleans() | st.text(max_size=4) | st.just([]) | st.just({})
)
TIMES = st.sampled_from([NOW, 0, -1, 1e18, 9.3e18, 1e25, "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "", None])
OBJECTS = st.builds(lambda fields, ts: {**fields, "ts": ts}, st.dictionaries(NAMES, VALUES, max_size=5), TIMES | VALUES)
PAYLOADS = OBJECTS.map(lambda fields: json.dumps(fields).encode()) | st.binary(max_size=20)
TOPICS = st.sampled_from(["city/a/air/b", "city/a/water/b", "x/a", "x/a/b/c", "city//air/b", "city/a/air/c\n", "x/é/1"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=30))
def test_whatever_is_sent_the_ledger_is_exact_and_every_line_can_be_stored(messages: list[tuple[str, bytes]]) -> None:
    entry = Way(SourceConfig(), FOREIGN).send(messages)
    for counts in entry.counts.values():
        assert counts["received"] == sum(count for fate, count in counts.items() if fate != "received")
        assert min(counts.values()) >= 0
    assert sum(counts["dead"] for counts in entry.counts.values()) == len(entry.dead)
    for lines in (entry.lines, entry.quarantine, entry.events):
        if lines:
            points, errors = parse(lines, "ms")
            assert not errors
            assert len(points) == lines.count(b"\n") + 1


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_every_number_is_stored_as_it_was_sent(numbers: list[float]) -> None:
    messages: list[Message] = [("city/a/air/b", {"ts": NOW + i, "radon": number}) for i, number in enumerate(numbers)]
    lines = Way().send(messages).lines.decode().splitlines()
    written = [float(line.split("radon=")[1].split(",")[0]) for line in lines]
    assert list(map(repr, written)) == list(map(repr, numbers))


COURSE = st.lists(
    st.tuples(
        st.sampled_from(["city/a/air/b", "city/a/air/c", "city/a/level/d", "x/a"]),
        st.fixed_dictionaries(
            {},
            optional={
                "ts": st.integers(-3, 12).map(lambda minute: NOW + minute * MINUTE)
                | st.sampled_from([None, 0, NOW + 9 * DAY]),
                "pm25": st.sampled_from([10, 70, 70.0, 120, 300, 5000, None, "x"]),
                "temperature": st.sampled_from([20, 20.0, 21, 30, None]),
                "level": st.sampled_from([1, 1.1, 1.2, 1.3, 2]),
            },
        ),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, kinds.Kind]:
    folder = tmp_path_factory.mktemp("kinds")
    folder.joinpath("level.toml").write_text(TOLERANT, "utf-8")
    return kinds.known(folder)


@settings(max_examples=150, deadline=None)
@given(COURSE, st.integers(1, 10), st.data())
def test_messages_are_judged_alike_in_one_batch_and_one_by_one(
    known: Mapping[str, kinds.Kind], messages: list[Message], rounds: int, data: st.DataObject
) -> None:
    cuts = sorted({0, len(messages), *data.draw(st.lists(st.integers(0, len(messages)), max_size=rounds))})
    together, apart = Way(SourceConfig(), FOREIGN, known=known), Way(SourceConfig(), FOREIGN, known=known)
    some = [together.send(messages[a:b]) for a, b in itertools.pairwise(cuts)]
    each = [apart.send([message]) for message in messages]
    for part in ("lines", "quarantine", "events"):
        assert said(some, part) == said(each, part)
    assert Counter(map(repr, (letter for entry in some for letter in entry.dead))) == Counter(
        map(repr, (letter for entry in each for letter in entry.dead))
    )
    assert sum((Counter(total(entry)) for entry in some), Counter()) == sum(
        (Counter(total(entry)) for entry in each), Counter()
    )


def said(entries: Sequence[Entry], part: str) -> list[str]:
    """Lines of each series, one after another."""
    lines = [line for entry in entries for line in getattr(entry, part).decode().splitlines()]
    return sorted(lines, key=lambda line: line.split(" ")[0] if part == "lines" else line)
