"""``Ingest`` for brokers that speak MQTT 3.1.1 and nothing newer, on paho-mqtt.

It promises what ``Mqtt5Ingest`` promises, slower: some tens of microseconds a message. MQTT 3.1.1 has no receive
maximum, so back-pressure is only that reading from the socket pauses; and no user properties, so nothing tells senders.
"""

import asyncio
import contextlib
import math
import socket
import ssl
import struct

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.edge.ingest import CONNECT_TIMEOUT, GOODBYE_TIMEOUT, MAX_PACKET, Ingest, Receipt, Refused, explain_tls
from sensors.formats import Answer

_FAILURE = 128
_REFUSALS = {
    "Bad user name or password": "wrong user name or password. Check mqtt.username and password_file",
    "Not authorized": "not authorised. Check mqtt.username and password_file, and the broker's access list",
    "Client identifier not valid": "it does not accept the client id. Set mqtt.client_id",
    "Unsupported protocol version": 'it does not speak MQTT 3.1.1. Set mqtt.protocol = "5"',
}
_READS_AT_ONCE = 200
"""Packets read before the event loop gets its turn."""
_READ = 65536  # bytes at a time


class PahoIngest(Ingest):
    """``Ingest`` over MQTT 3.1.1 (``clean_session`` off, manual acknowledgement).

    The socket is served by the event loop itself, so messages are taken and acknowledged in one thread. Only
    connecting, which blocks, happens in another.
    """

    _link: "_Link | None"

    async def _session(self) -> None:
        link = _Link(self, self._secured())
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT):
                await asyncio.to_thread(link.client.connect, self._config.host, self._config.port, link.keep_alive)
        except ssl.SSLError as error:
            raise explain_tls(error) from error
        if link.closed.done():  # already: not every broker ends a handshake that it refuses
            await link.closed
        self._began(link)
        link.serve()
        try:
            await asyncio.wait([link.closed], timeout=CONNECT_TIMEOUT)
            if not link.closed.done() and not link.client.is_connected():
                msg = f"no answer to CONNECT within {CONNECT_TIMEOUT:.0f} s"
                raise TimeoutError(msg)
            await link.closed
        finally:
            link.end()

    async def _disconnect(self) -> None:
        if (link := self._link) is not None:
            await link.leave()

    def _send_acks(self, acks: list[int]) -> None:
        if (link := self._link) is not None:
            for mid in acks:
                link.client.ack(mid, 1)

    def _publish(self, answer: Answer) -> None:
        if (link := self._link) is not None:
            link.client.publish(answer.topic, answer.payload)

    def _read(self, *, on: bool) -> None:
        if (link := self._link) is not None:
            link.read(on=on)


class _Client(paho.Client):
    """A client that keeps of a packet that is too large no more than its beginning, and remembers a TLS failure."""

    failure: ssl.SSLError | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        packet = self._in_packet
        try:
            data = super()._sock_recv(min(bufsize, _READ))
        except ssl.SSLError as error:
            self.failure = error
            raise
        if len(packet["packet"]) >= MAX_PACKET and len(data) > 1:
            packet["to_process"] -= len(data) - 1  # one byte stays: none would mean that the connection ended
            data = data[:1]
        return data

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError:
            with contextlib.suppress(OSError):
                self._sock_recv(1)  # why the broker closed: an alert that came after the handshake
            raise


class _Link:
    """One connection of a ``PahoIngest``; a friend of that class."""

    def __init__(self, ingest: PahoIngest, tls: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        config = ingest._config  # noqa: SLF001
        self.keep_alive = min(math.ceil(config.keep_alive), 0xFFFF)
        self._ingest = ingest
        self._status = ingest._status_topic  # noqa: SLF001
        self._username = config.username
        self.leaving = False
        self._accepted = False
        self._socket: socket.socket | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=ingest._client_id,  # noqa: SLF001
            clean_session=False,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT
        client.will_set(self._status, b"offline", qos=1, retain=True)
        if config.username is not None:
            client.username_pw_set(config.username, config.password.get_secret_value() if config.password else None)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    def serve(self) -> None:
        """Lets the event loop serve the socket that is now connected."""
        connected = self.client.socket()
        assert isinstance(connected, socket.socket)  # noqa: S101 - no WebSockets here
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else acknowledgements wait for one another
        self._socket = connected
        self.client.on_socket_close = lambda *_: self._forget()
        self.client.on_socket_register_write = lambda *_: self._writable(on=True)
        self.client.on_socket_unregister_write = lambda *_: self._writable(on=False)
        self._writable(on=self.client.want_write())
        self.read(on=True)
        self._beat()

    def read(self, *, on: bool) -> None:
        """Pauses or resumes reading."""
        if self._socket is None:
            return
        if on:
            self.loop.add_reader(self._socket, self._readable)
            self.loop.call_soon(self._readable)  # bytes may wait inside the TLS layer
        else:
            self.loop.remove_reader(self._socket)

    async def leave(self) -> None:
        """Disconnects, once the broker has taken the last acknowledgements: it answers to what follows them."""
        taken = asyncio.Event()
        self.leaving = True
        self.client.on_publish = lambda *_: taken.set()
        stopped = self._ingest._stopped  # noqa: SLF001
        self.client.publish(self._status, b"offline" if stopped else b"online", qos=1, retain=True)
        self.read(on=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(taken.wait(), GOODBYE_TIMEOUT)
        self.client.disconnect()
        self.client.loop_write()
        self.end()

    def end(self) -> None:
        """Closes the socket; nothing of this connection happens afterwards."""
        if self._pulse is not None:
            self._pulse.cancel()
        connected = self._socket
        self._forget()
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.close()
        self._finish(None)

    def _forget(self) -> None:
        if self._socket is not None:
            self.loop.remove_reader(self._socket)
            self.loop.remove_writer(self._socket)
            self._socket = None

    def _writable(self, *, on: bool) -> None:
        if self._socket is None:
            return
        if on:
            self.loop.add_writer(self._socket, self.client.loop_write)
        else:
            self.loop.remove_writer(self._socket)

    def _readable(self) -> None:
        ingest = self._ingest
        for _ in range(_READS_AT_ONCE):
            before = ingest._held  # noqa: SLF001
            if self._socket is None or (ingest._paused and not self.leaving):  # noqa: SLF001
                break
            if not self._read_packet():
                break
            if ingest._held == before and not self._pending():  # noqa: SLF001
                break
        else:
            self.loop.call_soon(self._readable)
        ingest._settle()  # noqa: SLF001

    def _read_packet(self) -> bool:
        try:
            return self.client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS
        except (ValueError, IndexError, struct.error) as error:
            self._finish(ConnectionError(f"the broker sent a packet that cannot be read: {error}"))
            self.end()
            return False

    def _pending(self) -> bool:
        """Whether bytes wait inside the TLS layer, of which the event loop knows nothing."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _beat(self) -> None:
        if self._ingest._paused:  # noqa: SLF001
            # paho would miss the answer to its ping while nothing is read; any packet keeps the session alive
            self.client.publish(self._status, b"online", retain=True)
        else:
            self.client.loop_misc()
        if self._socket is not None and self.keep_alive:
            self._pulse = self.loop.call_later(min(1.0, self.keep_alive / 4), self._beat)

    def _finish(self, error: Exception | None) -> None:
        if self.closed.done():
            return
        if error is None:
            self.closed.set_result(None)
        else:
            self.closed.set_exception(error)

    def _on_connect(
        self, client: paho.Client, _data: object, flags: paho.ConnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        if code.is_failure:
            self._finish(Refused(f"refused the connection: {_REFUSALS.get(str(code)) or str(code).lower()}"))
            return
        self._accepted = True
        client.subscribe([(pattern, 1) for pattern in self._ingest.filters])
        client.publish(self._status, b"online", retain=True)
        self._ingest._accepted(session_present=flags.session_present)  # noqa: SLF001

    def _on_subscribe(
        self, _client: paho.Client, _data: object, _mid: int, codes: list[ReasonCode], _more: Properties | None
    ) -> None:
        for pattern, code in zip(self._ingest.filters, codes, strict=False):
            if code.value >= _FAILURE:
                msg = f"refused the subscription to '{pattern}'. Let user {self._username!r} read it"
                self._finish(Refused(msg))
                return
        self._ingest._subscribed()  # noqa: SLF001

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        ingest = self._ingest
        if self.leaving and (message.qos or ingest._stopped):  # noqa: SLF001
            return  # the broker delivers it again
        batch = ingest._filling  # noqa: SLF001
        receipt = batch.receipt
        assert isinstance(receipt, Receipt)  # noqa: S101
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            topic = error.object.decode(errors="backslashreplace")
        batch.topics.append(topic)
        batch.payloads.append(bytes(message.payload))
        if message.retain:
            batch.retained.add(len(batch.topics) - 1)
        if message.dup:
            batch.redelivered.add(len(batch.topics) - 1)
        if message.qos == 1:
            receipt.acks.append(message.mid)
        ingest._took(1, len(message.payload) + len(topic))  # noqa: SLF001

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.DisconnectFlags,
        code: ReasonCode,
        _more: Properties | None,
    ) -> None:
        if self.leaving:
            self._finish(None)
            return
        error = self.client.failure or ConnectionError(f"the connection ended: {str(code).lower()}")
        self._finish(error if self._accepted else self._ingest._explain(error))  # noqa: SLF001
