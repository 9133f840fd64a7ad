"""What the spool knows by heart: the ledger, what each output has, and the numbers to go on with.

It is one small record that every transaction writes again, so that a commit costs the pages of its rows and one more.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FATES = ("delivered", "queued", "quarantined", "dead", "duplicate", "evicted")
"""Where a received reading can be; their sum is ``received``."""
CLASSES = ("raw", "aggregate", "quarantine", "event")
"""Classes of data, of which a full spool evicts one after another. The file holds their places in this list."""

_COUNTS = ("received", *FATES)


@dataclass(slots=True)
class Account:
    """Readings by source: where they are, and how many of them the rows that wait hold.

    Attributes:
        sources: Source → received, and readings by fate.
        waiting: Source → readings in the rows and held messages that are present; what ``queued`` must be.
    """

    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def count(self, source: str, fate: str, number: int) -> None:
        """Adds readings to a fate, or to ``received``."""
        counts = self.sources.get(source)
        if counts is None:
            counts = self.sources[source] = dict.fromkeys(_COUNTS, 0)
        counts[fate] += number

    def wait(self, source: str, number: int) -> None:
        """Readings have come with a row, or, negative, have gone with it."""
        self.waiting[source] = self.waiting.get(source, 0) + number

    def move(self, source: str, before: str, after: str, number: int) -> None:
        """Readings change their fate."""
        if number:
            self.count(source, before, -number)
            self.count(source, after, number)

    def copy(self) -> "Account":
        """A copy that can be changed."""
        return Account({source: counts.copy() for source, counts in self.sources.items()}, self.waiting.copy())

    def lists(self) -> dict[str, list[int]]:
        """For the file."""
        return {source: [counts[name] for name in _COUNTS] for source, counts in self.sources.items()}

    @staticmethod
    def of(lists: Mapping[str, list[int]]) -> "Account":
        """From the file."""
        return Account({source: dict(zip(_COUNTS, counts, strict=True)) for source, counts in lists.items()})


@dataclass(slots=True)
class Position:
    """How far an output is.

    Attributes:
        ranges: First and last ids of the rows that it has, ascending; immutable, so that copies share it.
        account: Its ledger.
        dead_from: Dead letters from this id on are on its ledger.
        rows: Rows that it lacks.
        bytes: Line protocol in them.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    account: Account = field(default_factory=Account)
    dead_from: int = 1
    rows: int = 0
    bytes: int = 0

    def has(self, row: int) -> bool:
        """Whether the output has the row."""
        place = bisect_right(self.ranges, (row, 2**63))
        return place > 0 and self.ranges[place - 1][1] >= row

    def add(self, row: int) -> None:
        """The output has the row now."""
        if self.has(row):
            return
        place = bisect_left(self.ranges, (row, row))
        before, after = list(self.ranges[:place]), list(self.ranges[place:])
        first = last = row
        if before and before[-1][1] == row - 1:
            first = before.pop()[0]
        if after and after[0][0] == row + 1:
            last = after.pop(0)[1]
        self.ranges = (*before, (first, last), *after)

    def gaps(self) -> Iterator[tuple[int, int]]:
        """First and last ids between which it may lack rows."""
        start = 0
        for first, last in self.ranges:
            if start < first:
                yield start, first - 1
            start = last + 1
        yield start, 2**62

    def copy(self) -> "Position":
        """A copy that can be changed."""
        return Position(self.ranges, self.account.copy(), self.dead_from, self.rows, self.bytes)


@dataclass(slots=True)
class State:
    """What the writer knows without reading rows; a transaction works on a copy.

    Attributes:
        serial: Ascending with every transaction.
        next_row: Id of the next row; likewise the next two.
        next_dead: As above, of dead letters.
        next_held: As above, of held messages.
        low: Below this id there are no rows.
        evicted: By class, the id below which there are no rows of it.
        held_low: Below this id there are no held messages.
        dead_low: Below this id there are no dead letters.
        time: Wall clock last known, ms UTC; 0 if never.
        dead_dropped: Dead letters dropped at the bound.
        account: The whole ledger.
        outputs: By name, how far each is.
        recent: Keys that are not in a block yet, 8 bytes each.
        blocks: Id and number of keys of each block of keys, the oldest keys first.
        rows: Rows present.
        size: Bytes of the rows and held messages present.
        dead_rows: Dead letters present.
        dead_bytes: Size of their payloads.
        changed: Whether there is something to write.
    """

    serial: int = 0
    next_row: int = 1
    next_dead: int = 1
    next_held: int = 1
    low: int = 1
    evicted: tuple[int, ...] = (1,) * len(CLASSES)
    held_low: int = 1
    dead_low: int = 1
    time: int = 0
    dead_dropped: int = 0
    account: Account = field(default_factory=Account)
    outputs: dict[str, Position] = field(default_factory=dict)
    recent: bytes = b""
    blocks: tuple[tuple[int, int], ...] = ()
    rows: int = 0
    size: int = 0
    dead_rows: int = 0
    dead_bytes: int = 0
    changed: bool = False

    def copy(self) -> "State":
        """A copy that can be changed. By hand, for it is made for every request."""
        return State(
            self.serial,
            self.next_row,
            self.next_dead,
            self.next_held,
            self.low,
            self.evicted,
            self.held_low,
            self.dead_low,
            self.time,
            self.dead_dropped,
            self.account.copy(),
            {name: position.copy() for name, position in self.outputs.items()},
            self.recent,
            self.blocks,
            self.rows,
            self.size,
            self.dead_rows,
            self.dead_bytes,
            self.changed,
        )

    def accounts(self) -> Iterator[Account]:
        """The whole ledger, and that of each output."""
        yield self.account
        for position in self.outputs.values():
            yield position.account

    def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Adds an entry's counts to every ledger."""
        for account in self.accounts():
            for source, numbers in counts.items():
                for name, number in numbers.items():
                    account.count(source, name, number)

    def gone(self, row: int, kind: int) -> bool:
        """Whether the row has left the spool for good, because every output has it, or because it was evicted."""
        everywhere = bool(self.outputs) and all(position.has(row) for position in self.outputs.values())
        return everywhere or row < max(self.low, self.evicted[kind])

    def text(self) -> str:
        """For the file; all but what is counted when the file is opened."""
        return json.dumps(
            {
                "next": [self.next_row, self.next_dead, self.next_held],
                "low": [self.low, self.held_low, self.dead_low, *self.evicted],
                "rows": self.rows,
                "time": self.time,
                "dropped": self.dead_dropped,
                "sources": self.account.lists(),
                "outputs": {
                    name: [position.dead_from, position.ranges, position.account.lists()]
                    for name, position in self.outputs.items()
                },
            },
            separators=(",", ":"),
        )

    @staticmethod
    def of(serial: int, text: str, recent: bytes) -> "State":
        """From the file."""
        stored: dict[str, Any] = json.loads(text)
        low, held_low, dead_low, *evicted = stored["low"]
        next_row, next_dead, next_held = stored["next"]
        return State(
            serial,
            next_row,
            next_dead,
            next_held,
            low,
            tuple(evicted),
            held_low,
            dead_low,
            time=stored["time"],
            dead_dropped=stored["dropped"],
            account=Account.of(stored["sources"]),
            outputs={
                name: Position(tuple((first, last) for first, last in ranges), Account.of(lists), dead_from)
                for name, (dead_from, ranges, lists) in stored["outputs"].items()
            },
            recent=recent,
            rows=stored["rows"],
        )


def readings_of(text: object) -> dict[str, int]:
    """Source → readings, as a row holds it; nothing if it is damaged."""
    try:
        return {str(source): int(count) for source, count in json.loads(text).items()}  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        return {}


def text_of(readings: Mapping[str, int]) -> str:
    """What a row holds of its readings."""
    return json.dumps(readings, separators=(",", ":")) if readings else "{}"


def tidy(ranges: Iterable[tuple[int, int]], low: int) -> tuple[tuple[int, int], ...]:
    """Ranges without those below the oldest row."""
    return tuple(span for span in ranges if span[1] >= low)


__all__ = ["CLASSES", "FATES", "Account", "Position", "State", "readings_of", "text_of", "tidy"]
