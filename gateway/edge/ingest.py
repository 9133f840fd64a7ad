"""Takes messages from the broker in batches, and acknowledges them only when told to.

``Ingest`` holds what does not depend on the protocol: batching, back-pressure, reconnecting. ``Mqtt5Ingest`` speaks
MQTT v5.

When power fails, every message that was not acknowledged is still the broker's: the session outlives the connection,
and the broker delivers those messages again. Delivery is at least once; a duplicate is for a later step to find.
"""

import abc
import asyncio
import contextlib
import logging
import math
import random
import ssl
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import mqtt5

from gateway.config import MqttConfig
from gateway.edge.batch import RawBatch
from gateway.edge.recorded import ARRIVAL, arrival
from gateway.edge.tls import Tls, TlsError
from sensors.formats import Answer

log = logging.getLogger("citygate.ingest")

BACKOFF_FIRST = 0.5
"""Seconds before the first new attempt to connect; each further one waits twice as long."""
BACKOFF_CAP = 30.0
"""Longest wait between attempts, in seconds; a refused connection waits this long at once."""
CONNECT_TIMEOUT = 10.0
"""Seconds for TCP, TLS and the broker's answer."""
GOODBYE_TIMEOUT = 2.0
"""Seconds for the broker to take our last acknowledgements when we leave."""
HELD_BYTES = 64 * 2**20
"""Bytes of unacknowledged messages above which nothing more is read."""
MAX_PACKET = 2**20
"""Largest MQTT packet, in bytes; announced to the broker. Of a larger one no more than this is kept."""
RENEWAL_CHECK = 30.0
"""Seconds between looks at the TLS files."""
RENEWAL_WAIT = 10.0
"""Seconds that what was taken has to be acknowledged before the connection is made anew; else it comes twice."""
WINDOW_LEAST = 10
"""A broker's own limit of messages in flight is looked for from here; fewer are a trickle, and wait ``batch_time``."""
WINDOW_SEEN = 3
"""Batches in a row of the same size, with nothing else in flight, that show the broker's limit."""

_LONGEST_TOPIC = 65_535  # bytes
PUBACK = 0x40020000  # packet type, remaining length 2, packet id
PUBREC = 0x50020000
PUBLISH = 3  # packet type
_RETAIN, _QOS, _QOS_2, _DUPLICATE = 1, 6, 4, 8  # bits of its first byte
_PLAIN = 0x32  # a PUBLISH of QoS 1 that is neither retained nor a duplicate


class Refused(Exception):  # noqa: N818 - a state of the world, not a fault of the program
    """The broker can be reached but will not serve this gateway; the message says what to do."""


@dataclass(slots=True)
class Receipt:
    """What acknowledging a batch needs: the connection it came by, its packet ids, and what it weighs."""

    link: object
    acks: list[int] = field(default_factory=list)
    count: int = 0
    size: int = 0


def wall_clock() -> int:
    """The system's clock, ms UTC."""
    return time.time_ns() // 1_000_000


class Ingest(abc.ABC):
    """A persistent session at a broker that yields batches; base of the protocol versions.

    A batch is complete with ``batch_size`` messages, or ``batch_time`` after its first message, whichever is first, or
    as soon as the broker will send no more before something is acknowledged. Memory is bounded whatever the broker
    does: with more than ``receive_max`` messages (or 64 MiB) unacknowledged, reading from the connection pauses.

    Everything happens in the event loop's thread, and every method must be called there.

    Args:
        config: Broker and session. ``client_id`` must be set: it is the session's name at the broker.
        filters: Topic filters to subscribe to, at QoS 1.
        sender_properties: Names of user properties in which the broker tells the sender.
        now: Stamps of arrival, ms UTC.

    Attributes:
        filters: As given.
        connected: Whether the broker accepted the connection and holds the subscriptions.

    Raises:
        ValueError: If ``client_id`` is not set.
    """

    _batch_type = RawBatch

    def __init__(
        self,
        config: MqttConfig,
        filters: list[str],
        *,
        sender_properties: frozenset[str] = frozenset(),
        now: Callable[[], int] = wall_clock,
    ) -> None:
        if config.client_id is None:
            msg = "client_id must be set: without a name the broker cannot keep the session"
            raise ValueError(msg)
        self.connected = False
        self._config = config
        self.filters = filters
        self._sender_properties = sender_properties
        self._now = now
        self._client_id = config.client_id
        self._status_topic = f"citygate/{config.client_id}/status"
        self._stopped = False
        self._paused = False
        self._tls = Tls("[mqtt]", config.tls_ca, config.tls_cert, config.tls_key) if config.tls else None
        self._context: ssl.SSLContext | None = None  # of the present connection
        self._renewing = False
        self._idle = asyncio.Event()  # nothing taken is unacknowledged
        self._link: object = None  # the present connection
        self._had_session = False
        self._granted = False  # the broker said once that it holds these subscriptions, and still has the session
        self._filling = self._batch_type(receipt=Receipt(None))
        self._arrivals: dict[int, int] = {}  # place in that batch → time of arrival, of those just appended
        self._ready: deque[RawBatch] = deque()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._held = 0  # messages taken and not acknowledged, whatever connection they came by
        self._held_bytes = 0
        self._window = 0  # the broker's own limit of messages in flight, once seen
        self._last_timed = 0  # size of the last batch that its age completed
        self._timed_alike = 0
        self._supervisor: asyncio.Task[None] | None = None

    async def batches(self) -> AsyncIterator[RawBatch]:
        """Connects, stays connected, and yields what arrives.

        Connecting is tried for ever, so this ends only after ``stop()``, when everything pending was yielded.

        Yields:
            Batches in the order of arrival, none empty.
        """
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise())
            self._supervisor.add_done_callback(lambda _: self._changed.set())
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._stopped:
                return
            if self._supervisor.done():
                self._supervisor.result()  # a fault in this program: let it be seen
                return
            self._changed.clear()
            await self._changed.wait()

    def acknowledge(self, batch: RawBatch) -> None:
        """Tells the broker that the messages of a batch are ours.

        Messages of an earlier connection are not acknowledged: the broker delivers them again anyway. Acknowledging a
        batch twice does nothing.

        Args:
            batch: A batch from ``batches()``; call it after the commit.
        """
        receipt = batch.receipt
        assert isinstance(receipt, Receipt)  # noqa: S101 - ``receipt`` is opaque only to others
        if receipt.acks and receipt.link is self._link:
            self._send_acks(receipt.acks)
        self._held -= receipt.count
        self._held_bytes -= receipt.size
        batch.receipt = Receipt(None)
        if not self._held:
            self._idle.set()
        self._throttle()

    def answer(self, answer: Answer) -> None:
        """Publishes an answer at QoS 0, if the broker is there: who is not answered asks again."""
        if (
            not answer.topic
            or len(answer.topic.encode("utf-8", "replace")) > _LONGEST_TOPIC
            or set("+#\0") & {*answer.topic}
        ):
            log.warning("not answered: %r is no topic to publish to", answer.topic[:80])
        elif self.connected:
            self._publish(answer)

    async def stop(self) -> None:
        """Takes nothing new. What is pending is still yielded, and can be acknowledged until ``close()``."""
        self._stopped = True
        self._throttle()
        self._complete()
        self._changed.set()

    async def close(self) -> None:
        """Disconnects; the broker keeps the session and whatever was not acknowledged."""
        await self.stop()
        if self._link is not None:
            await self._disconnect()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    # What a protocol version provides

    @abc.abstractmethod
    async def _session(self) -> None:
        """Connects, subscribes, and returns or raises when the connection is over; ``_ended()`` is called after it."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Ends the present connection in order, and returns when it is over; says goodbye only after ``stop()``."""

    @abc.abstractmethod
    def _send_acks(self, acks: list[int]) -> None:
        """Acknowledges messages of the present connection."""

    @abc.abstractmethod
    def _publish(self, answer: Answer) -> None:
        """Publishes at QoS 0 by the present connection."""

    @abc.abstractmethod
    def _read(self, *, on: bool) -> None:
        """Pauses or resumes reading from the present connection."""

    # What they share

    async def _supervise(self) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            refused = False
            watch = asyncio.create_task(self._watch())
            try:
                await self._session()
                reason = f"it closed the connection; if it repeats, does another client use the id '{self._client_id}'?"
            except Refused as error:
                refused, reason = True, str(error)
            except (OSError, EOFError, ValueError) as error:
                reason = str(error) or type(error).__name__
            finally:
                watch.cancel()
                self._ended()
            if self._stopped:
                return
            if self._renewing:
                self._renewing, attempt = False, 0
                continue
            attempt = 0 if time.monotonic() - began > BACKOFF_CAP else attempt + 1
            delay = BACKOFF_CAP if refused else min(BACKOFF_CAP, BACKOFF_FIRST * 2 ** min(attempt - 1, 16))
            delay *= random.uniform(0.5, 1)  # noqa: S311 - so that a fleet does not return all at once
            place = f"{self._config.host}:{self._config.port}"
            log.log(
                logging.ERROR if refused else logging.WARNING,
                "broker %s: %s; next attempt in %.1f s",
                place,
                reason,
                delay,
                extra={"broker": place, "client_id": self._client_id, "delay_s": round(delay, 1)},
            )
            await asyncio.sleep(delay)
            if self._stopped:
                return

    async def _watch(self) -> None:
        """Ends the session in order when the TLS files are new, so that the next one uses them."""
        while self._tls is not None:
            await asyncio.sleep(RENEWAL_CHECK)
            if not self.connected or self._tls.current() is self._context:
                continue
            log.info("broker %s:%s: connecting again with the new TLS files", self._config.host, self._config.port)
            self._renewing = True
            self._throttle()
            self._complete()
            self._idle.clear()
            if self._held:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), RENEWAL_WAIT)
            await self._disconnect()
            return

    def _began(self, link: object) -> None:
        self._link = link
        self._paused = False
        self._complete()
        self._filling.receipt = Receipt(link)

    def _ended(self) -> None:
        self._link = None
        self.connected = False
        self._complete()

    def _accepted(self, *, session_present: bool) -> None:
        place = f"{self._config.host}:{self._config.port}"
        extra = {"broker": place, "client_id": self._client_id, "session_present": session_present}
        if self._had_session and not session_present:
            log.warning(
                "broker %s forgot the session of %s: messages it held meanwhile are lost. Turn its persistence on",
                place,
                self._client_id,
                extra=extra,
            )
        else:
            log.info("connected to broker %s as %s", place, self._client_id, extra=extra)
        self._had_session = True
        self._granted &= session_present
        self.connected = self._granted
        self._throttle()

    def _subscribed(self) -> None:
        """Notes that the broker holds the subscriptions: all that is published from now on is delivered."""
        self._granted = self.connected = True

    def _took(self, count: int, size: int) -> None:
        """Accounts for messages just appended to the batch being filled."""
        batch = self._filling
        receipt = batch.receipt
        assert isinstance(receipt, Receipt)  # noqa: S101
        receipt.count += count
        receipt.size += size
        self._held += count
        self._held_bytes += size
        batch.received += [self._now()] * count
        if self._arrivals:
            batch.told.update(self._arrivals)
            for place, arrived in self._arrivals.items():
                batch.received[place] = arrived
            self._arrivals.clear()
        if len(batch.topics) >= self._config.batch_size:
            self._complete()

    def _settle(self) -> None:
        """Decides, after a read, whether the batch waits for more and whether more is read."""
        if self._held > self._window:
            self._window = 0
        if self._filling.topics:
            if self._held >= self._config.receive_max or self._held == self._window:
                self._complete()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._config.batch_time, self._aged)
        self._throttle()

    def _aged(self) -> None:
        # A broker with a limit of its own (mosquitto: 20) sends that many and then waits for us, as we wait for it.
        count = len(self._filling.topics)
        alike = count == self._last_timed and count == self._held and count >= WINDOW_LEAST
        self._timed_alike = self._timed_alike + 1 if alike else 1
        self._last_timed = count
        if self._timed_alike >= WINDOW_SEEN:
            self._window = count
        self._complete()

    def _complete(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filling.topics:
            self._ready.append(self._filling)
            self._filling = self._batch_type(receipt=Receipt(self._link))
            self._changed.set()

    def _throttle(self) -> None:
        pause = (
            self._stopped or self._renewing or self._held > self._config.receive_max or self._held_bytes > HELD_BYTES
        )
        if pause != self._paused and self._link is not None:
            self._paused = pause
            self._read(on=not pause)

    def _secured(self) -> ssl.SSLContext | None:
        if self._tls is not None:
            try:
                self._context = self._tls.current()
            except TlsError as error:
                msg = f"cannot connect: [mqtt] {error}"
                raise Refused(msg) from error
        return self._context

    def _explain(self, error: Exception) -> Exception:
        """What to raise in place of the error that ended a connection before the broker answered."""
        if isinstance(error, ssl.SSLError):
            return explain_tls(error)
        if self._tls is not None and isinstance(error, ConnectionError):
            return Refused(f"it closed the connection during the TLS handshake ({error}). {_CERTIFICATE_WANTED}")
        return error


def explain_tls(error: ssl.SSLError) -> Refused:
    """Turns a failed handshake into a message that says what to do.

    Args:
        error: What the handshake raised.

    Returns:
        The exception to raise in its place.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(
            f"the broker's certificate is not trusted: {error.verify_message}. "
            "Set mqtt.tls_ca to the CA that signed it, and mqtt.host to a name in it"
        )
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "alert" not in reason:  # it was not the broker that found fault
        hint = "Check that mqtt.port is the broker's TLS port"
    elif "expired" in reason:
        hint = "Renew the client certificate (mqtt.tls_cert), and check this device's clock and the broker's"
    elif "unknown ca" in reason or "bad certificate" in reason:
        hint = "The broker must trust the CA that signed the client certificate (mqtt.tls_cert)"
    else:
        hint = _CERTIFICATE_WANTED
    return Refused(f"the TLS handshake failed: {reason}. {hint}")


_CERTIFICATE_WANTED = "Does it want a client certificate (mqtt.tls_cert, tls_key)?"
_REFUSALS = {  # by number: the codec's enumerations cannot be hashed
    int(mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION): 'it does not speak MQTT v5. Set mqtt.protocol = "3.1.1"',
    int(mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID): "it does not accept the client id. Set mqtt.client_id",
    int(mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD): "wrong user name or password. "
    "Check mqtt.username and password_file",
    int(mqtt5.ConnAckReasonCode.NOT_AUTHORIZED): "not authorised. "
    "Check mqtt.username and password_file, and the broker's access list",
    int(mqtt5.ConnAckReasonCode.BANNED): "this client is banned. Ask the broker's operator",
    int(mqtt5.ConnAckReasonCode.RETAIN_NOT_SUPPORTED): "it has no retained messages, which the gateway's status needs",
}


class Mqtt5Ingest(Ingest):
    """``Ingest`` over MQTT v5, on a sans-io codec; about a microsecond a message.

    Its status is the retained message ``online`` or ``offline`` at ``citygate/{client_id}/status``; the latter is its
    last will. Messages that a publisher made unreadable (a topic that is not UTF-8, say) are yielded with their topic
    escaped, so that one of them cannot stop the stream.
    """

    _link: "Link | None"

    def _new_link(self, loop: asyncio.AbstractEventLoop) -> "Link":
        return Link(self, loop)

    async def _session(self) -> None:
        loop = asyncio.get_running_loop()
        link = self._new_link(loop)
        tls = self._secured()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(lambda: link, self._config.host, self._config.port, ssl=tls)
        except ssl.SSLError as error:
            raise explain_tls(error) from error
        except TimeoutError as error:
            msg = f"no connection within {CONNECT_TIMEOUT:.0f} s"
            raise TimeoutError(msg) from error
        try:
            await asyncio.wait([link.closed], timeout=CONNECT_TIMEOUT)  # returns at once when it is over
            if not link.closed.done() and not link.accepted:
                msg = f"no answer to CONNECT within {CONNECT_TIMEOUT:.0f} s"
                raise TimeoutError(msg)
            await link.closed
        finally:
            link.transport.abort()

    async def _disconnect(self) -> None:
        link = self._link
        if link is None:
            return
        if link.accepted:
            # The broker closes. If we did, with messages unread, TCP would reset and our last PUBACKs could be lost.
            link.leaving = True
            link.transport.write(link.goodbye())
            link.transport.resume_reading()
            await asyncio.wait([link.closed], timeout=GOODBYE_TIMEOUT)
        link.transport.abort()

    def _send_acks(self, acks: list[int]) -> None:
        if self._link is not None:
            self._link.transport.write(struct.pack(f">{len(acks)}I", *[PUBACK | ack for ack in acks]))

    def _publish(self, answer: Answer) -> None:
        if self._link is not None and not self._link.transport.is_closing():
            self._link.transport.write(mqtt5.PublishPacket(answer.topic, payload=answer.payload).write())

    def _read(self, *, on: bool) -> None:
        link = self._link
        if link is None or link.transport.is_closing():
            return
        if on:
            link.heard = link.loop.time()
            link.transport.resume_reading()
        else:
            link.transport.pause_reading()


class Link(asyncio.Protocol):
    """One connection of an ``Mqtt5Ingest``; a friend of that class."""

    transport: asyncio.Transport
    max_packet = MAX_PACKET

    def __init__(self, ingest: Mqtt5Ingest, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed: asyncio.Future[None] = loop.create_future()
        self.accepted = False
        self.leaving = False
        self.heard = loop.time()
        self._ingest = ingest
        self._config = ingest._config  # noqa: SLF001
        self._rest = b""
        self._large = bytearray()  # the beginning of a packet that is too large
        self._missing = 0  # bytes of it still to come
        self._retain = True
        self._keep_alive = self._config.keep_alive
        self._pulse: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says CONNECT."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        ingest = self._ingest
        ingest._began(self)  # noqa: SLF001
        self.heard = self.loop.time()
        transport.write(self.connect().write())

    def connect(self) -> mqtt5.ConnectPacket:
        """How the session begins."""
        ingest, config = self._ingest, self._config
        return mqtt5.ConnectPacket(
            ingest._client_id,  # noqa: SLF001
            username=config.username,
            password=config.password.get_secret_value().encode() if config.password else None,
            clean_start=False,
            will=mqtt5.Will(
                ingest._status_topic,  # noqa: SLF001
                payload=b"offline",
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain=True,
            ),
            keep_alive=min(math.ceil(config.keep_alive), 0xFFFF),
            session_expiry_interval=min(math.ceil(config.session_expiry), 0xFFFFFFFF),
            receive_max=config.receive_max,
            max_packet_size=self.max_packet,
        )

    def goodbye(self) -> bytes:
        """What is sent when the connection ends in order."""
        status = self.status(b"offline") if self._ingest._stopped else b""  # noqa: SLF001
        return status + mqtt5.DisconnectPacket().write()

    def subscription(self, pattern: str) -> mqtt5.TopicFilter:
        """How a filter is subscribed to."""
        return mqtt5.TopicFilter(
            pattern,
            max_qos=mqtt5.QoS.AT_LEAST_ONCE,
            retain_as_published=False,
            retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Says in ``closed`` why it is over."""
        if self._pulse is not None:
            self._pulse.cancel()
        if self.closed.done():
            return
        if exc is not None:
            self.closed.set_exception(exc if self.accepted else self._ingest._explain(exc))  # noqa: SLF001
        elif self.accepted:
            self.closed.set_result(None)
        else:
            msg = 'it closed the connection without an answer. If it speaks no MQTT v5, set mqtt.protocol = "3.1.1"'
            self.closed.set_exception(ConnectionError(msg))

    def data_received(self, data: bytes) -> None:
        """The hot path: bytes of the connection to columns of the batch being filled."""
        self.heard = self.loop.time()
        if self.leaving and self._ingest._stopped:  # noqa: SLF001
            return
        if self._missing:
            data = self._pass_over(data)
        elif self._rest:
            data = self._rest + data
        position = 0
        while position < len(data) and not self.closed.done():
            following = self._fill(data, position)
            if following == position:  # the rest of this packet has not arrived
                break
            position = following
        self._rest = data[position:]
        if self._rest and not self.closed.done():
            self._measure()
        self._ingest._settle()  # noqa: SLF001

    def _fill(self, data: bytes, start: int) -> int:
        """Takes whole packets of ``data`` from ``start``, as many as the batch has room for; returns where it ended."""
        batch = self._ingest._filling  # noqa: SLF001
        receipt = batch.receipt
        assert isinstance(receipt, Receipt)  # noqa: S101
        before = len(batch.topics)
        room = self._config.batch_size - before
        topic, payload, ack = batch.topics.append, batch.payloads.append, receipt.acks.append
        read, view, position, end = mqtt5.read, memoryview(data), start, len(data)
        looked_at = self.leaving or self._ingest._sender_properties or self._config.recorded_time  # noqa: SLF001
        plain = -1 if looked_at else _PLAIN
        while position < end and room:
            try:
                packet, size = read(view[position:])
            except IndexError:
                break
            except BaseException as error:  # noqa: BLE001 - the codec panics on a topic that is not UTF-8
                if (salvaged := self._unreadable(data, position, error)) is None:
                    break
                packet, size = salvaged
            head = data[position]
            position += size
            if head == plain:
                topic(packet.topic)  # type: ignore[union-attr]
                payload(packet.payload)  # type: ignore[union-attr]
                ack(packet.packet_id)  # type: ignore[union-attr,arg-type]
                room -= 1
            elif isinstance(packet, mqtt5.PublishPacket):
                self._take(head, packet, batch, receipt)
                room -= 1
            else:
                self._handle(packet)
                if self.closed.done():
                    break
        if taken := len(batch.topics) - before:
            self._ingest._took(taken, position - start)  # noqa: SLF001
        return position

    def _measure(self) -> None:
        """Begins to pass over the packet that has begun to arrive, if it is too large."""
        try:
            length, body = variable_integer(self._rest, 1)
        except IndexError:
            return
        if length + body <= self.max_packet:
            return
        if self._rest[0] >> 4 != PUBLISH:
            msg = f"the broker sent a packet of {length} bytes that is no message"
            self._give_up(ConnectionError(msg), mqtt5.DisconnectReasonCode.PACKET_TOO_LARGE)
            return
        self._large, self._missing, self._rest = bytearray(self._rest), length + body - len(self._rest), b""

    def _pass_over(self, data: bytes) -> bytes:
        """Takes a message that is too large, with the beginning of its payload; returns what follows it."""
        part = data[: self._missing]
        self._missing -= len(part)
        self._large += part[: max(0, MAX_PACKET - len(self._large))]
        if self._missing:
            return b""
        ingest, large = self._ingest, bytes(self._large)
        self._large = bytearray()
        salvaged = _salvage(large, 0, whole=False)
        if salvaged is None:
            error = ConnectionError("the broker sent a packet whose lengths contradict each other")
            self._give_up(error, mqtt5.DisconnectReasonCode.MALFORMED_PACKET)
            return b""
        batch = ingest._filling  # noqa: SLF001
        assert isinstance(batch.receipt, Receipt)  # noqa: S101
        before = len(batch.topics)
        self._take(large[0], salvaged[0], batch, batch.receipt)
        ingest._took(len(batch.topics) - before, len(large))  # noqa: SLF001
        return data[len(part) :]

    def _unreadable(self, data: bytes, position: int, error: BaseException) -> tuple[mqtt5.PublishPacket, int] | None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        salvaged = _salvage(data, position)
        if salvaged is None:
            self._give_up(_not_mqtt5(error, accepted=self.accepted), mqtt5.DisconnectReasonCode.MALFORMED_PACKET)
        return salvaged

    def _take(self, head: int, packet: mqtt5.PublishPacket, batch: RawBatch, receipt: Receipt) -> None:
        """Takes a message that is not plain: retained, a duplicate, with a sender, or of another QoS than 1.

        (Of QoS 2 are those of a subscription that an older session left.)
        """
        qos = head & _QOS
        if self.leaving and qos:
            return  # the broker delivers it again
        place = len(batch.topics)
        batch.topics.append(packet.topic)
        batch.payloads.append(packet.payload)
        if head & _RETAIN:
            batch.retained.add(place)
        if head & _DUPLICATE:
            batch.redelivered.add(place)
        if self._config.recorded_time:
            for name, value in packet.user_properties:
                if name == ARRIVAL and (arrived := arrival(value)) is not None:
                    self._ingest._arrivals[place] = arrived  # noqa: SLF001
        names = self._ingest._sender_properties  # noqa: SLF001
        if names and (senders := {value for name, value in packet.user_properties if name in names}):
            # A publisher can add properties too. Where they differ, the joined name is no level of any topic.
            batch.senders[place] = "/".join(sorted(senders))
        if packet.packet_id is not None:
            receipt.acks.append(packet.packet_id | (PUBREC - PUBACK if qos == _QOS_2 else 0))

    def _handle(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PubRelPacket():  # the message was acknowledged by PUBREC when its batch was
                self.transport.write(mqtt5.PubCompPacket(packet.packet_id).write())
            case mqtt5.ConnAckPacket():
                self._connected(packet)
            case mqtt5.SubAckPacket():
                self._subscribed(packet)
            case mqtt5.DisconnectPacket():
                self._dismissed(packet)
            case _:
                pass  # PINGRESP: that it was heard is all it says

    def _connected(self, packet: mqtt5.ConnAckPacket) -> None:
        code = packet.reason_code
        if code != mqtt5.ConnAckReasonCode.SUCCESS:
            reason = _REFUSALS.get(int(code)) or code.name.lower().replace("_", " ")
            detail = f" (it says: {packet.reason_str})" if packet.reason_str else ""
            busy = code in (mqtt5.ConnAckReasonCode.SERVER_BUSY, mqtt5.ConnAckReasonCode.SERVER_UNAVAILABLE)
            kind = ConnectionError if busy else Refused
            self._give_up(kind(f"refused the connection: {reason}{detail}"))
            return
        self.accepted = True
        self._retain = packet.retain_available
        asked = self._config.session_expiry
        if packet.session_expiry_interval is not None and packet.session_expiry_interval < int(asked):
            log.warning(
                "the broker keeps messages for an absent gateway only %d s, not %d s (mqtt.session_expiry)",
                packet.session_expiry_interval,
                asked,
                extra={"client_id": self._ingest._client_id},  # noqa: SLF001
            )
        if packet.server_keep_alive is not None:
            self._keep_alive = float(packet.server_keep_alive)
        if self._keep_alive:
            self._pulse = self.loop.call_later(self._keep_alive / 2, self._beat)
        filters = [self.subscription(pattern) for pattern in self._ingest.filters]
        self.transport.write(mqtt5.SubscribePacket(1, filters).write() + self.status(b"online"))
        self._ingest._accepted(session_present=packet.session_present)  # noqa: SLF001

    def _subscribed(self, packet: mqtt5.SubAckPacket) -> None:
        for pattern, code in zip(self._ingest.filters, packet.reason_codes, strict=False):
            if int(code) > int(mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE):
                reason = code.name.lower().replace("_", " ")
                msg = f"refused the subscription to '{pattern}': {reason}. Let user {self._config.username!r} read it"
                self._give_up(Refused(msg), mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION)
                return
            if code == mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE:
                log.warning("the broker grants only QoS 0 for '%s': it keeps nothing for an absent gateway", pattern)
        self._ingest._subscribed()  # noqa: SLF001

    def _dismissed(self, packet: mqtt5.DisconnectPacket) -> None:
        if packet.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
            name = self._ingest._client_id  # noqa: SLF001
            msg = f"another client connected as '{name}'. Give every gateway its own gateway.id (or mqtt.client_id)"
            self._give_up(Refused(msg))
        else:
            reason = packet.reason_str or packet.reason_code.name.lower().replace("_", " ")
            self._give_up(ConnectionError(f"the broker disconnected: {reason}"))

    def _beat(self) -> None:
        """Twice in each keep-alive: probes the broker, and gives up on one that has been silent for a whole one."""
        silent = self.loop.time() - self.heard
        if silent >= self._keep_alive * 0.99 and not self._ingest._paused:  # noqa: SLF001
            self._give_up(ConnectionError(f"the broker has been silent for {silent:.1f} s"))
            return
        self.transport.write(mqtt5.PingReqPacket().write())
        self._pulse = self.loop.call_later(self._keep_alive / 2, self._beat)

    def status(self, payload: bytes) -> bytes:
        """The packet that publishes the gateway's status."""
        return mqtt5.PublishPacket(self._ingest._status_topic, payload, retain=self._retain).write()  # noqa: SLF001

    def _give_up(self, error: Exception, reason: mqtt5.DisconnectReasonCode | None = None) -> None:
        if not self.closed.done():
            self.closed.set_exception(error)
        if reason is not None:
            self.transport.write(mqtt5.DisconnectPacket(reason_code=reason).write())
        self.transport.close()


def _not_mqtt5(error: BaseException, *, accepted: bool) -> Exception:
    if accepted:
        return ConnectionError(f"the broker sent a packet that cannot be read: {error}")
    return Refused(f'the answer is not MQTT v5 ({error}). If the broker speaks only 3.1.1, set mqtt.protocol = "3.1.1"')


def _salvage(data: bytes, start: int, *, whole: bool = True) -> tuple[mqtt5.PublishPacket, int] | None:
    """Reads a PUBLISH that the codec cannot, with its topic escaped and its properties passed over.

    Args:
        data: Holds the packet.
        start: Where it begins.
        whole: Whether all of it must be there; else of the payload that is taken which is.

    Returns:
        The packet and its length in bytes, or None if this is no PUBLISH or its lengths contradict each other.
    """
    head = data[start]
    qos = head >> 1 & 3
    try:
        length, body = variable_integer(data, start + 1)
        end = body + length
        topic_end = body + 2 + int.from_bytes(data[body : body + 2])
        packet_id = int.from_bytes(data[topic_end : topic_end + 2]) if qos else None
        skip, payload = variable_integer(data, topic_end + (2 if qos else 0))
    except IndexError:
        return None
    payload += skip
    if head >> 4 != PUBLISH or qos == 3 or payload > end or (whole and end > len(data)):  # noqa: PLR2004 - reserved
        return None
    topic = data[body + 2 : topic_end].decode(errors="backslashreplace")
    try:
        packet = mqtt5.PublishPacket(topic, data[payload:end], qos=mqtt5.QoS(qos), packet_id=packet_id)
    except ValueError:  # a topic of no length, or a packet id of 0
        return None
    return packet, end - start


def variable_integer(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """Reads a variable byte integer (MQTT 5, 1.5.5).

    Returns:
        Its value, and where it ends.

    Raises:
        IndexError: It is not all there, or longer than four bytes.
    """
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says: more follows
            return value, position
    raise IndexError
