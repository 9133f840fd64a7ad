"""What the steps of the edge hand to one another: a batch of raw messages in, one entry for the spool out."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sensors.formats import Answer
from sensors.kinds import Personal

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, frozen=True)
class Boot:
    """A run of the machine whose wall clock is not known yet.

    Attributes:
        id: The kernel's boot id.
        offset: Provisional wall clock minus time since boot, ms: what ``RawBatch.received`` was made with.
        floor: Latest wall-clock time that was ever known here, ms UTC; 0 if none was.
    """

    id: str
    offset: int
    floor: int


class Seen(NamedTuple):
    """A personal value that was taken out of a message; lives in memory, until its message is judged."""

    name: str
    rule: Personal
    value: str

    def __repr__(self) -> str:
        """Without the value, so that no log can show it."""
        return f"Seen({self.name})"


@dataclass(slots=True, frozen=True)
class Taken:
    """What was personal in a message.

    Attributes:
        sealed: Whether its payload must not be written, nor quoted.
        readable: Whether what was declared personal could be taken out of the payload.
        salt: Tells the message from others that differ from it in nothing else; says nothing by itself.
        seen: Values of which pseudonyms or counts are wanted.
        known: Names that reasons may quote all the same.
        own: Normal names of fields whose text is needed to read the message.
    """

    sealed: bool
    readable: bool
    salt: int
    seen: tuple[Seen, ...] = ()
    known: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


@dataclass(slots=True)
class RawBatch:
    """Messages as the broker delivered them, in columns of equal length.

    Attributes:
        topics: Topic of each message.
        payloads: Payload of each message, as it came.
        received: Time of arrival of each message, ms UTC, by the gateway's clock.
        retained: Places of messages that the broker had stored from before the subscription.
        redelivered: Places of messages that the broker says it may have delivered before (DUP).
        senders: Place → the sender as the broker names it, where a source asks for it.
        told: Places of messages that tell when they arrived, where that is believed; ``received`` says it.
        personal: Place → what was personal in the message.
        boot: While the wall clock is not known: of which run of the machine ``received`` tells; otherwise None.
        estimated: Whether ``received`` is an estimate, because the clock of that run never became known.
        held: Place in the spool of each message, if they were held there; otherwise empty.
        again: Whether these are dead letters that are tried again: what was read in part is known, and no duplicate.
        receipt: What ``acknowledge()`` needs; opaque to everyone but the ingest that made it.
    """

    topics: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    retained: set[int] = field(default_factory=set)
    redelivered: set[int] = field(default_factory=set)
    senders: dict[int, str] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    personal: dict[int, Taken] = field(default_factory=dict)
    boot: Boot | None = None
    estimated: bool = False
    held: list[int] = field(default_factory=list)
    again: bool = False
    receipt: object = None

    def halves(self) -> "tuple[RawBatch, RawBatch]":
        """Two batches of the same messages, without the receipt."""
        middle = len(self.topics) // 2
        return self._part(0, middle), self._part(middle, len(self.topics))

    def singles(self) -> "Iterator[RawBatch]":
        """A batch of each message, without the receipt."""
        if len(self.topics) > 1:
            for half in self.halves():
                yield from half.singles()
        elif self.topics:
            yield self

    def _part(self, start: int, end: int) -> "RawBatch":
        return RawBatch(
            self.topics[start:end],
            self.payloads[start:end],
            self.received[start:end],
            {place - start for place in self.retained if start <= place < end},
            {place - start for place in self.redelivered if start <= place < end},
            {place - start: sender for place, sender in self.senders.items() if start <= place < end},
            {place - start for place in self.told if start <= place < end},
            {place - start: taken for place, taken in self.personal.items() if start <= place < end},
            self.boot,
            self.estimated,
            self.held[start:end],
            self.again,
        )


@dataclass(slots=True)
class DeadLetter:
    """A message that could not be read, kept whole up to the bound on payloads; without its payload if that is sealed.

    Attributes:
        received: Time of arrival, ms UTC.
        source: The declared source on whose ledger it counts.
        topic: Topic as it came.
        payload: Payload as it came.
        reason: Why it could not be read, for people.
        readings: For how many readings on the ledger it stands.
    """

    received: int
    source: str
    topic: str
    payload: bytes
    reason: str
    readings: int = 1


@dataclass(slots=True, frozen=True)
class Held:
    """A message without a time of its own that arrived while the wall clock was not known; it waits for its time.

    Attributes:
        source: The declared source.
        topic: Topic as it came.
        payload: Payload as it came.
        readings: How many readings it holds; they are queued on the ledger.
        boot: Boot id of the run in which it arrived.
        moment: Time since that boot, ms.
        floor: Latest wall-clock time known before, ms UTC.
        id: Its place in the spool; 0 before it is there.
    """

    source: str
    topic: str
    payload: bytes
    readings: int
    boot: str
    moment: int
    floor: int
    id: int = 0


@dataclass(slots=True)
class Entry:
    """One batch, ready for the spool. Line protocol has times in ms, newlines between points, none at the end.

    Attributes:
        lines: Points of readings; class ``raw``. May be empty, as all of the following.
        quarantine: Points of failed values; class ``quarantine``.
        events: Points of events; class ``event``.
        sums: The gateway's own health and ledger; class ``aggregate``.
        counts: Source → readings of this batch by fate: received, queued, quarantined, dead, duplicate.
        dead: Messages that could not be read.
        keys: Of the messages read, by which their redelivery is known: unsigned 64-bit numbers.
        held: Messages that wait for the clock; their readings are in ``counts`` as queued.
        released: Places in the spool of the held messages that this entry is made of; they leave it.
        time: Wall clock, ms UTC, if it is known; the spool remembers the latest.
        answers: To be published once this is on disk.
    """

    lines: bytes = b""
    quarantine: bytes = b""
    events: bytes = b""
    sums: bytes = b""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    time: int | None = None
    answers: list[Answer] = field(default_factory=list)
