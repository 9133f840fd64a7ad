"""Whatever sensors send: no step raises, the ledger is exact, and every line is line protocol."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.city.lineprotocol import parse
from gateway.config import SourceConfig
from tests.edge.test_way import NOW, Way

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
