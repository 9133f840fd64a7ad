"""Tap: an ingest that takes messages as they stand in the packets, for a recording.

Beside topic and payload it keeps QoS, retain and the properties, byte for byte, and the time of arrival by two clocks.
It has a session of its own at the broker, publishes nothing, and asks for each message at the QoS at which it was
published.
"""

import asyncio
import time
from dataclasses import dataclass, field

import mqtt5

from gateway.config import MqttConfig
from gateway.edge.batch import RawBatch
from gateway.edge.ingest import PUBACK, PUBLISH, PUBREC, Link, Mqtt5Ingest, Receipt, Refused, variable_integer
from sensors.stream import MAX_MESSAGE

_RESERVED_QOS = 3


class TapError(Exception):
    """The broker could not be reached, or refused, from the start; the message is for people."""


@dataclass(slots=True)
class Tapped(RawBatch):
    """Messages as they stood in their packets; ``received`` is in ns by the monotonic clock.

    Attributes:
        heads: First byte of each packet: QoS, retain and duplicate.
        properties: Properties of each message, as they came, without their length.
        walls: Time of arrival of each message, ns since 1970, by the system's clock.
    """

    heads: list[int] = field(default_factory=list)
    properties: list[bytes] = field(default_factory=list)
    walls: list[int] = field(default_factory=list)


class Tap(Mqtt5Ingest):
    """Delivers batches of :class:`Tapped`.

    Args:
        config: Broker and session.
        filters: Topic filters.
        keep: Leave the session with the broker, so that it keeps what comes until the next time; else it is new now
            and forgotten at the end.

    Raises:
        TapError: From ``batches()``, if the first attempt to connect fails.
    """

    _batch_type = Tapped

    def __init__(self, config: MqttConfig, filters: list[str], *, keep: bool) -> None:
        super().__init__(config, filters, now=time.monotonic_ns)
        self.keeps = keep
        self.resumes = keep  # or, after the first connection, this run's own session

    def _new_link(self, loop: asyncio.AbstractEventLoop) -> Link:
        return _TapLink(self, loop)

    async def _session(self) -> None:
        try:
            await super()._session()
        except (Refused, OSError, EOFError, ValueError) as error:
            if self._had_session and not isinstance(error, Refused):
                raise
            msg = f"{self._config.host}:{self._config.port}: {str(error) or type(error).__name__}"
            raise TapError(msg) from error
        finally:
            self.resumes = self.resumes or self._had_session

    def _took(self, count: int, size: int) -> None:
        batch = self._filling
        assert isinstance(batch, Tapped)  # noqa: S101 - what _batch_type makes
        batch.walls += [time.time_ns()] * count
        super()._took(count, size)


class _TapLink(Link):
    """One connection of a ``Tap``."""

    max_packet = MAX_MESSAGE
    _ingest: Tap

    def __init__(self, ingest: Tap, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(ingest, loop)
        self._topics: dict[bytes, str] = {}

    def connect(self) -> mqtt5.ConnectPacket:
        """A session without a last will."""
        config, password = self._config, self._config.password
        return mqtt5.ConnectPacket(
            config.client_id or "",
            username=config.username,
            password=password.get_secret_value().encode() if password else None,
            clean_start=not self._ingest.resumes,
            keep_alive=min(int(config.keep_alive), 0xFFFF),
            session_expiry_interval=min(int(config.session_expiry), 0xFFFFFFFF),
            receive_max=config.receive_max,
            max_packet_size=self.max_packet,
        )

    def subscription(self, pattern: str) -> mqtt5.TopicFilter:
        """Messages as they were published."""
        return mqtt5.TopicFilter(
            pattern,
            max_qos=mqtt5.QoS.EXACTLY_ONCE,
            retain_as_published=True,
            retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
        )

    def status(self, payload: bytes) -> bytes:  # noqa: ARG002 - says nothing to anybody
        """No packet: a recording is to leave no trace."""
        return b""

    def goodbye(self) -> bytes:
        """Ends the session, too, unless it is to be kept."""
        ends = self._ingest._stopped and not self._ingest.keeps  # noqa: SLF001
        return mqtt5.DisconnectPacket(session_expiry_interval=0 if ends else None).write()

    def _fill(self, data: bytes, start: int) -> int:
        ingest = self._ingest
        batch = ingest._filling  # noqa: SLF001
        assert isinstance(batch, Tapped)  # noqa: S101 - what _batch_type makes
        assert isinstance(batch.receipt, Receipt)  # noqa: S101
        acks, before = batch.receipt.acks, len(batch.topics)
        room = self._config.batch_size - before
        position, end = start, len(data)
        while position < end and room and not self.closed.done():
            head = data[position]
            if head >> 4 != PUBLISH:
                if not (size := self._other(data, position)):
                    break
                position += size
                continue
            try:
                length, body = variable_integer(data, position + 1)
            except IndexError:
                break
            if body + length > end:
                break
            if (parts := _parts(data, head >> 1 & 3, body, body + length)) is None:
                error = ConnectionError("the broker sent a packet whose lengths contradict each other")
                self._give_up(error, mqtt5.DisconnectReasonCode.MALFORMED_PACKET)
                break
            position = body + length
            ack, name, properties, payload = parts
            if self.leaving and ack:
                continue  # the broker delivers it again
            if ack:
                acks.append(ack)
            batch.topics.append(self._topics.get(name) or self._topic(name))
            batch.payloads.append(payload)
            batch.heads.append(head)
            batch.properties.append(properties)
            room -= 1
        if taken := len(batch.topics) - before:
            ingest._took(taken, position - start)  # noqa: SLF001
        return position

    def _other(self, data: bytes, position: int) -> int:
        """Handles a packet that is no message; its length, or 0 if it has not all come."""
        try:
            packet, size = mqtt5.read(memoryview(data)[position:])
        except IndexError:
            return 0
        except BaseException as error:  # noqa: BLE001 - the codec panics on what it does not expect
            self._unreadable(data, position, error)
            return 0
        self._handle(packet)
        return size

    def _topic(self, name: bytes) -> str:
        if len(self._topics) >= 1 << 16:
            self._topics.clear()
        topic = self._topics[name] = name.decode("utf-8", "surrogateescape")
        return topic

    def _measure(self) -> None:
        try:
            length, body = variable_integer(self._rest, 1)
        except IndexError:
            return
        if length + body > self.max_packet:
            error = ConnectionError(f"the broker sent a packet of {length:,} bytes, more than it was told to")
            self._give_up(error, mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE)


def _parts(data: bytes, qos: int, at: int, end: int) -> tuple[int, bytes, bytes, bytes] | None:
    """Of a PUBLISH: how it is acknowledged (0: not), topic, properties, payload; None if it is none.

    Args:
        data: Holds the packet.
        qos: Its QoS.
        at: Where its body begins.
        end: Where it ends.
    """
    topic_end = at + 2 + int.from_bytes(data[at : at + 2])
    packet_id = int.from_bytes(data[topic_end : topic_end + 2]) if qos else 0
    try:
        length, properties = variable_integer(data, topic_end + (2 if qos else 0))
    except IndexError:
        return None
    payload = properties + length
    if qos == _RESERVED_QOS or payload > end or (qos and not packet_id) or topic_end == at + 2:
        return None
    ack = packet_id | PUBREC - PUBACK if qos == 2 else packet_id  # noqa: PLR2004 - QoS 2
    return ack, data[at + 2 : topic_end], data[properties:payload], data[payload:end]
