"""A publisher for recordings: MQTT 5, at every QoS, with the properties as they were recorded.

What it promises is what `gateway.publish` does, for QoS 1 and 2; a message of QoS 0 is sent once, while there is a
connection. No more messages are in flight than the broker's Receive Maximum. What no broker may be sent is left out and
counted: it would end the connection, and every one after it.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from gateway.edge.ingest import variable_integer as read_integer
from gateway.publish import Broker, Link, Publisher, PublishError, variable_integer
from sensors.stream import Message

WINDOW = 16_000
"""Messages in flight, if the broker allows as many."""
_AT_ONCE = 2**16  # bytes that are written together
_REFUSED = {
    0x01: "it does not speak MQTT 5",  # as 3.1.1 says it
    0x84: "it does not speak MQTT 5",
    0x85: "it does not accept the client id",
    0x86: "wrong username or password",
    0x87: "not authorised",
    0x8A: "this client is banned",
    0x8C: "it wants another way to authenticate",
}
"""CONNACK reason codes (MQTT 5, 3.2.2.2) that another attempt would not change."""
_REASONS = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x87: "not authorised",
    0x8E: "another client took the session over",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
}
_FATAL = {0x81, 0x82, 0x87, 0x90, 0x93, 0x95, 0x9A, 0x9B}  # of a DISCONNECT: it would come again
_FAILURE = 0x80
_LONG_TOPIC = 0xFFFF
# MQTT 5, 2.2.2.2: properties of a PUBLISH, and what they hold
_BYTE, _FOUR, _TEXT, _PAIR = 1, 4, -1, -2
_PROPERTIES = {0x01: _BYTE, 0x02: _FOUR, 0x03: _TEXT, 0x08: _TEXT, 0x09: _TEXT, 0x26: _PAIR}
_OFTEN_ALLOWED = 0x26


class Link5(Link):
    """One connection of a `Publisher5`.

    Attributes:
        receive_max: Messages that the broker lets be in flight.
        max_packet: Bytes of the largest packet that it takes.
        max_qos: Highest QoS that it takes.
        retains: Whether it retains messages.
        open: Is set while more can be written.
    """

    version = 5
    properties = b"\x00"  # none
    refusals: Mapping[int, str] = _REFUSED

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        acknowledge: Callable[[int], None],
        heard: Callable[[int, int, int], None],
    ) -> None:
        super().__init__(broker, client_id, acknowledge)
        self._tell = heard
        self._waiting = 0  # bytes
        self.receive_max = 0xFFFF
        self.max_packet = 0xFFFFFFFF
        self.max_qos = 2
        self.retains = True
        self.open = asyncio.Event()
        self.open.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of who waits to write."""
        super().connection_lost(exc)
        self.open.set()

    def pause_writing(self) -> None:
        """The broker takes less than it is sent."""
        self.open.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.open.set()

    def send(self, packet: bytes) -> None:
        """Writes with what else there is, once that is much or this turn of the event loop is over."""
        super().send(packet)
        self._waiting += len(packet)
        if self._waiting >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._waiting = 0
        if self._out:
            super()._flush()

    def data_received(self, data: bytes) -> None:
        """Takes what the broker says."""
        self._heard = self._loop.time()
        self._in += data
        buffer, at, end = self._in, 0, len(self._in)
        tell = self._tell
        while at + 2 <= end:
            head, length, body = buffer[at], buffer[at + 1], at + 2
            if length & 0x80:
                try:
                    length, body = read_integer(buffer, at + 1)
                except IndexError:
                    break
            if body + length > end:
                break
            at = body + length
            match head & 0xF0:
                case 0x40 | 0x50 | 0x70 if length >= 2:  # noqa: PLR2004 - PUBACK, PUBREC, PUBCOMP: a packet id
                    number, code = buffer[body] << 8 | buffer[body + 1], buffer[body + 2] if length > 2 else 0  # noqa: PLR2004
                    tell(head & 0xF0, number, code)
                case 0x20 if not self.answer.done() and length >= 2:  # noqa: PLR2004 - CONNACK
                    self._limits(bytes(buffer[body + 2 : at]))
                    self.answer.set_result(buffer[body + 1])
                case 0xE0:  # DISCONNECT
                    tell(0xE0, 0, buffer[body] if length else 0)
                case 0xD0:  # PINGRESP
                    pass
                case _:
                    self.abort()
                    return
        del buffer[:at]

    def _limits(self, data: bytes) -> None:
        """Reads the properties of a CONNACK (MQTT 5, 3.2.2.3)."""
        sizes = {0x11: 4, 0x21: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x22: 2, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2}
        try:
            length, at = read_integer(data, 0)
        except IndexError:
            return
        end = min(at + length, len(data))
        while at < end:
            kind, at = data[at], at + 1
            if (size := sizes.get(kind)) is None:
                pairs = 2 if kind == _OFTEN_ALLOWED else 1
                for _ in range(pairs):  # texts
                    at += 2 + int.from_bytes(data[at : at + 2])
                continue
            value = int.from_bytes(data[at : at + size])
            at += size
            match kind:
                case 0x21:
                    self.receive_max = value or 0xFFFF
                case 0x24:
                    self.max_qos = value
                case 0x25:
                    self.retains = bool(value)
                case 0x27:
                    self.max_packet = value


class Publisher5(Publisher):
    """Publishes messages as they were recorded; an async context manager.

    Args:
        broker: Where to publish.
        patience: As of `Publisher`.

    Attributes:
        sent: Messages of QoS 0 that were sent.
        refused: Messages that the broker took and refused, by its reason.
        left_out: Messages that cannot be sent, by the reason.
    """

    _link: Link5 | None

    def __init__(self, broker: Broker, *, patience: float | None = None) -> None:
        super().__init__(broker, patience=patience, window=WINDOW)
        self.sent = 0
        self.refused: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._topics: dict[str, bytes | None] = {}

    @property
    def done(self) -> int:
        """Messages that need nothing more."""
        return self.acknowledged + self.sent + self.refused.total() + self.left_out.total()

    async def publish_all(self, messages: Iterable[Message]) -> None:
        """Takes messages in their order; waits while the broker takes no more.

        Raises:
            PublishError: The broker cannot be reached any more.
        """
        flight = self._flight
        for topic, payload, qos, retain, properties, *_ in messages:
            if (link := self._link) is None or not link.open.is_set():
                link = await self._writable()
            if len(flight) >= self._window and qos:
                await self._until(self._half_empty)
                link = self._link or await self._writable()
            name = self._topics[topic] if topic in self._topics else self._name(topic)
            if name is None:
                self.left_out["not a topic that can be published to"] += 1
                continue
            level = min(qos, link.max_qos)
            first = b"\0" if not properties else _sendable(properties)
            if first is None:
                self.left_out["properties that are none"] += 1
                continue
            number = b""
            if level:
                number = self._number()
            size = len(name) + len(number) + len(first) + len(payload)
            if size + 5 > link.max_packet:
                self.left_out[f"larger than the {link.max_packet:,} bytes that the broker takes"] += 1
                continue
            head = bytes((0x30 | level << 1 | (retain and link.retains),))
            packet = b"".join((head, variable_integer(size), name, number, first, payload))
            if level:
                flight[self._next] = packet
            else:
                self.sent += 1
            link.send(packet)

    def _number(self) -> bytes:
        """A packet id that is free."""
        while True:
            self._next = self._next % 0xFFFF + 1
            if self._next not in self._flight:
                return self._next.to_bytes(2)

    async def _writable(self) -> Link5:
        """The connection, once there is one that takes more."""
        while True:
            if (link := self._link) is None:
                await self._until(lambda: self._link is not None)
            elif not link.open.is_set():
                await link.open.wait()
            else:
                return link

    def _half_empty(self) -> bool:
        # So that publisher and connection take turns with hundreds of messages, not with one.
        return len(self._flight) <= self._window // 2

    def _name(self, topic: str) -> bytes | None:
        """A topic as it stands in a packet; None if it may not."""
        try:
            name: bytes | None = topic.encode()
        except UnicodeEncodeError:
            name = None
        if not name or len(name) > _LONG_TOPIC or any(sign in topic for sign in "+#\0"):
            name = None
        if len(self._topics) >= 1 << 16:
            self._topics.clear()
        self._topics[topic] = None if name is None else struct.pack("!H", len(name)) + name
        return self._topics[topic]

    def _new_link(self) -> Link5:
        return Link5(self._broker, self._client_id, self._acknowledge, self._heard)

    def _begin(self, link: Link) -> None:
        assert isinstance(link, Link5)  # noqa: S101 - what _new_link makes
        self._window = min(WINDOW, link.receive_max)
        super()._begin(link)  # of QoS 2, too, what was received and not released: it went with the session
        self._moved.set()

    def _heard(self, kind: int, number: int, code: int) -> None:
        """What the broker says of a message, or of the connection."""
        if kind == 0xE0:  # noqa: PLR2004 - DISCONNECT
            if code in _FATAL:
                self._failure = PublishError(f"{self._broker} ends the connection: {_REASONS[code]}")
                self._moved.set()
            return
        if code >= _FAILURE and number in self._flight:
            del self._flight[number]
            self.refused[_REASONS.get(code, f"reason {code:#x}")] += 1
            self._moved.set()
            return
        if kind == 0x50:  # noqa: PLR2004 - PUBREC
            if number in self._flight and self._link is not None:
                self._link.send(b"\x62\x02" + number.to_bytes(2))  # PUBREL
            return
        self._acknowledge(number)


@lru_cache(4096)
def _sendable(properties: bytes) -> bytes | None:
    """Properties with their length, as they stand in a packet; None if they may not.

    Topic alias and subscription identifiers are of a connection, and never of a recorded message.
    """
    at, end = 0, len(properties)
    while at < end:
        if (size := _PROPERTIES.get(properties[at])) is None:
            return None
        at += 1
        if size > 0:
            at += size
            continue
        for _ in range(-size):
            at += 2 + int.from_bytes(properties[at : at + 2])
    return variable_integer(end) + properties if at == end else None
