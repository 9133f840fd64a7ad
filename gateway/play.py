"""Playing a recording: the same bytes in the same order to a broker, at their own pace, faster, or as it takes them.

What it promises: a message of QoS 1 or 2 is sent until the broker has acknowledged it, over a lost connection too, so
at least once, and in order within a connection. Nothing is added to a message, unless its time of arrival is asked for.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from gateway.edge.recorded import ARRIVAL
from gateway.publish import Broker, PublishError
from gateway.publish5 import Publisher5
from sensors.stream import Damage, Message, Reader

PATIENCE = 30.0
"""Seconds for which a broker may be away."""
_AT_ONCE = 256  # messages between two looks at the clock
_MOST_EARLY = 0.002  # seconds by which a message may be sent before its time, so that neighbours go together
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Part:
    """What of a recording is played, and how often.

    Attributes:
        start: Earliest arrival, ns since 1970.
        end: Latest arrival.
        topics: Topic filters; all by default.
        limit: Messages of each round at most.
        rounds: How often; for ever when None.
    """

    start: int | None = None
    end: int | None = None
    topics: tuple[str, ...] = ()
    limit: int | None = None
    rounds: int | None = 1

    def of(self, reader: Reader) -> Iterator[Message]:
        """The messages of a round."""
        return islice(reader.messages(self.start, self.end, wanted(self.topics)), self.limit)


@dataclass(slots=True)
class Played:
    """How far it is.

    Attributes:
        taken: Messages that were read and given to the publisher.
        rounds: Rounds that were completed.
        lag: Seconds by which the last message was sent too late.
        seconds: How long it took.
        acknowledged: Messages that the broker has acknowledged.
        sent: Messages of QoS 0, which nobody acknowledges.
        refused: Messages that the broker refused, by its reason.
        left_out: Messages that no broker may be sent, by the reason.
        damage: What of the recording could not be read.
    """

    taken: int = 0
    rounds: int = 0
    lag: float = 0.0
    seconds: float = 0.0
    acknowledged: int = 0
    sent: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Messages that need nothing more."""
        return self.acknowledged + self.sent + sum(self.refused.values()) + sum(self.left_out.values())


async def play(  # noqa: PLR0913 - what can be asked for
    path: Path,
    broker: Broker,
    *,
    speed: float | None = None,
    part: Part | None = None,
    tell_arrival: bool = False,
    shift: int = 0,
    rewrite: Callable[[Message, int], bytes] | None = None,
    patience: float = PATIENCE,
    played: Played | None = None,
) -> Played:
    """Plays a recording.

    Args:
        path: The recording.
        broker: Where to publish; it must speak MQTT 5.
        speed: Times the recording's own pace; as fast as the broker takes it when None.
        part: What of it; all of it, once, by default.
        tell_arrival: Add the recorded time of arrival to each message, as the user property :data:`ARRIVAL`, and send
            all at QoS 1, in whose order brokers deliver.
        shift: ns to add to the time that is told.
        rewrite: Gives a payload in place of the recorded one, for a message and a shift in ns.
        patience: Seconds for which the broker may be away.
        played: Is kept up to date while it plays, and returned.

    Raises:
        StreamError: It is no recording.
        PublishError: The broker cannot be reached, or refuses.
    """
    part, played = part or Part(), played or Played()
    began = time.monotonic()
    with Reader(path) as reader:
        async with Publisher5(broker, patience=patience) as publisher:

            def note() -> None:
                played.acknowledged, played.sent = publisher.acknowledged, publisher.sent
                played.refused, played.left_out = dict(publisher.refused), dict(publisher.left_out)
                played.damage, played.seconds = reader.damage, time.monotonic() - began

            try:
                length = 0 if part.rounds == 1 else _length(reader, part)
                for round_ in count() if part.rounds is None else range(part.rounds):
                    before, moved = played.taken, shift + round_ * length
                    for some in _paced(part.of(reader), speed, played):
                        if isinstance(some, float):
                            note()
                            await asyncio.sleep(some)
                            continue
                        await publisher.publish_all(_changed(some, moved, rewrite, tell_arrival=tell_arrival))
                        played.taken += len(some)
                        note()
                        await asyncio.sleep(0)
                    if played.taken == before:
                        break  # nothing to play, however often
                    await publisher.drain()
                    played.rounds += 1
            finally:
                note()
    return played


def wanted(filters: Sequence[str]) -> Callable[[str], bool] | None:
    """Says of a topic whether one of some filters fits it (MQTT 5, 4.7); None without filters.

    Raises:
        ValueError: One is no filter.
    """
    patterns = [_levels(one) for one in filters]
    if not patterns:
        return None
    known: dict[str, bool] = {}

    def fits(topic: str) -> bool:
        if (answer := known.get(topic)) is None:
            if len(known) >= 1 << 16:
                known.clear()
            levels = topic.split("/")
            answer = known[topic] = any(_fits(pattern, levels) for pattern in patterns)
        return answer

    return fits


def _levels(pattern: str) -> list[str]:
    levels = pattern.split("/")
    wrong = any(sign in level and level != sign for level in levels for sign in "+#") or "#" in levels[:-1]
    if wrong or not pattern:
        msg = f"topic: {pattern!r} is no topic filter: + and # are levels of their own, # the last"
        raise ValueError(msg)
    return levels


def _fits(pattern: list[str], levels: list[str]) -> bool:
    if levels[0].startswith("$") and pattern[0] in {"+", "#"}:
        return False
    for place, level in enumerate(pattern):
        if level == "#":
            return True
        if place >= len(levels) or level not in {"+", levels[place]}:
            return False
    return len(pattern) == len(levels)


def span(reader: Reader, part: Part) -> tuple[int, int] | None:
    """Earliest and latest arrival of what is played, ns since 1970; None if that is nothing."""
    if part.limit is None and not part.topics and part.start is None and part.end is None:
        summary = reader.summary()
        return None if summary.first is None or summary.last is None else (summary.first, summary.last)
    walls = [message.wall for message in part.of(reader)]
    return (min(walls), max(walls)) if walls else None


def _length(reader: Reader, part: Part) -> int:
    """How long a round is, in ns: from its first to its last arrival, and one mean interval to the next."""
    found = span(reader, part)
    number = sum(1 for _ in part.of(reader))
    return 0 if found is None else (found[1] - found[0]) + max((found[1] - found[0]) // max(number - 1, 1), 1)


def _paced(messages: Iterator[Message], speed: float | None, played: Played) -> Iterator[list[Message] | float]:
    """Messages that are due now, and seconds to wait, in turns."""
    if speed is None:
        while at_once := list(islice(messages, _AT_ONCE)):
            yield at_once
        return
    began = time.monotonic()
    some: list[Message] = []
    for elapsed, message in _elapsed(messages):
        due = elapsed / _NANO / speed
        ahead = due - (time.monotonic() - began)
        if some and (ahead > _MOST_EARLY or len(some) >= _AT_ONCE):
            yield some
            some = []
        while (ahead := due - (time.monotonic() - began)) > _MOST_EARLY:
            yield min(ahead, 1.0)
        played.lag = max(-ahead, 0.0)
        some.append(message)
    if some:
        yield some


def _elapsed(messages: Iterator[Message]) -> Iterator[tuple[int, Message]]:
    """How long after the first each message came, in ns.

    By the clock that nobody sets within a run; between two runs, and wherever that one runs backwards, by the system's.
    """
    elapsed, before = 0, None
    for message in messages:
        if before is not None:
            step = message.monotonic - before.monotonic
            if message.run != before.run or step < 0:
                step = max(message.wall - before.wall, 0)
            elapsed += step
        before = message
        yield elapsed, message


def _changed(
    messages: list[Message], shift: int, rewrite: Callable[[Message, int], bytes] | None, *, tell_arrival: bool
) -> list[Message]:
    if rewrite is not None:
        messages = [message._replace(payload=rewrite(message, shift)) for message in messages]
    return [telling(message, shift) for message in messages] if tell_arrival else messages


def telling(message: Message, shift: int) -> Message:
    """The message with its time of arrival among its properties, in place of one that it has; at QoS 1.

    Of QoS 0, a broker drops what a subscriber does not take in time; and of several QoS, one overtakes another.
    """
    text = b"%d" % (message.wall + shift)
    name = ARRIVAL.encode()
    prop = struct.pack("!BH", 0x26, len(name)) + name + struct.pack("!H", len(text)) + text
    kept = without_arrival(message.properties) if name in message.properties else message.properties
    return message._replace(properties=kept + prop, qos=1)


def without_arrival(properties: bytes) -> bytes:
    """Properties without the one that tells a time of arrival."""
    name = ARRIVAL.encode()
    mark = struct.pack("!BH", 0x26, len(name)) + name
    while (at := properties.find(mark)) >= 0:
        value = at + len(mark)
        properties = properties[:at] + properties[value + 2 + int.from_bytes(properties[value : value + 2]) :]
    return properties


__all__ = ["PATIENCE", "Part", "Played", "PublishError", "play", "span", "telling", "wanted", "without_arrival"]
