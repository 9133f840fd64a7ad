"""What the steps of the edge hand to one another: a batch of raw messages in, one entry for the spool out."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RawBatch:
    """Messages as the broker delivered them, in columns of equal length.

    Attributes:
        topics: Topic of each message.
        payloads: Payload of each message, as it came.
        received: Time of arrival of each message, ms UTC, wall clock.
        retained: Whether the broker had stored the message from before the subscription.
        receipt: What ``acknowledge()`` needs; opaque to everyone but the ingest that made it.
    """

    topics: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    retained: list[bool] = field(default_factory=list)
    receipt: object = None


@dataclass(slots=True)
class DeadLetter:
    """A message that could not be read, kept whole.

    Attributes:
        received: Time of arrival, ms UTC.
        source: The declared source on whose ledger it counts.
        topic: Topic as it came.
        payload: Payload as it came.
        reason: Why it could not be read, for people.
    """

    received: int
    source: str
    topic: str
    payload: bytes
    reason: str


@dataclass(slots=True)
class Entry:
    """One batch, ready for the spool.

    Attributes:
        lines: Line protocol, times in ms, separated by newlines, none at the end; may be empty.
        counts: Source → readings of this batch by fate: received, queued, quarantined, dead, duplicate.
        dead: Messages that could not be read.
    """

    lines: bytes = b""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
