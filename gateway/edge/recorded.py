"""Recorded time: the time of a replayed stream, which is told by its messages and not by any clock.

The same recording then gives the same points however fast it is replayed: what a clock would do every minute is done
when the stream's own time passes a minute, and each message is judged by itself, for how a connection cuts a stream
into batches is another thing that depends on its speed.
"""

from collections.abc import Iterable, Iterator

from gateway.edge.batch import Entry

ARRIVAL = "citygate-arrival"
"""The MQTT 5 user property that tells when a message arrived where it was recorded: ns since 1970, as decimal text."""

_TICK = 60_000  # ms
_MOST_TICKS = 7 * 1440  # in a gap; after a week of silence nobody falls silent any more
_LATEST = 9_223_372_036_854  # ms; see `gateway.edge.decode`


def arrival(text: str) -> int | None:
    """The time that the property tells, ms UTC; None if it is none."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:  # noqa: PLR2004 - digits of a signed 64-bit number
        return None
    moment = int(text) // 1_000_000
    return moment if moment <= _LATEST else None


class RecordedTime:
    """Where a replayed stream is.

    Attributes:
        began: Arrival of the first message, ms UTC; None before it.
        latest: Latest arrival so far, ms UTC.
    """

    def __init__(self) -> None:
        self.began: int | None = None
        self.latest = 0

    def now(self) -> int:
        """Present time of the stream, ms UTC, which never runs backwards; 0 before its first message."""
        return self.latest

    def reach(self, moment: int) -> Iterator[int]:
        """Goes on to a message; yields the full minutes that are passed on the way, each while it is the present.

        Args:
            moment: Its arrival, ms UTC.
        """
        if self.began is None:
            self.began = self.latest = moment
        first = self.latest // _TICK + 1
        for minute in range(first, min(moment // _TICK, first + _MOST_TICKS) + 1):
            self.latest = minute * _TICK
            yield self.latest
        self.latest = max(self.latest, moment)


def merged(entries: Iterable[Entry]) -> Entry:
    """One entry of the same points, for one commit."""
    lines: dict[str, list[bytes]] = {"lines": [], "quarantine": [], "events": [], "sums": []}
    whole = Entry()
    for entry in entries:
        for name, parts in lines.items():
            if points := getattr(entry, name):
                parts.append(points)
        for source, counts in entry.counts.items():
            of_source = whole.counts.setdefault(source, {})
            for fate, number in counts.items():
                of_source[fate] = of_source.get(fate, 0) + number
        for column in ("dead", "keys", "held", "released", "answers"):
            getattr(whole, column).extend(getattr(entry, column))
    for name, parts in lines.items():
        setattr(whole, name, b"\n".join(parts))
    return whole
