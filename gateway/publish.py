"""A publisher for simulation and for replay of readings: MQTT 3.1.1, QoS 1, nothing else.

Every broker speaks 3.1.1, and a publisher needs six of its packets, so they are written here: paho spends some 400 µs
on a message once thousands are in flight, this spends about 5.

What it promises: a message that `publish` took is sent until the broker has acknowledged it, over as many connections
as that needs, in order within a connection; so at least once. It is kept in memory only.
"""

import asyncio
import contextlib
import os
import signal
import ssl
import struct
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

KEEP_ALIVE = 30
_CONNECT_WITHIN = 10.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_REFUSED = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not accept the client id",
    4: "wrong username or password",
    5: "not authorised",
}
"""CONNACK return codes (MQTT 3.1.1, 3.2.2.3) that another attempt would not change; 3 is "unavailable"."""


class PublishError(Exception):
    """The broker cannot be reached or refuses; the message is for people."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where and as whom to publish.

    Attributes:
        tls: A context to use TLS with; None for plain TCP.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        """``HOST:PORT``."""
        return f"{self.host}:{self.port}"


def broker(  # the options that `simulate` and `replay` share
    address: str,
    *,
    username: str | None = None,
    password_file: Path | None = None,
    tls: bool = False,
    tls_ca: Path | None = None,
) -> Broker:
    """Reads the options of the command line.

    Args:
        address: ``HOST``, ``HOST:PORT`` or ``[IPv6]:PORT``; the port is 1883, or 8883 with TLS, by default.
        username: Name to log in with.
        password_file: File with the password, its last newline not included.
        tls: Use TLS with the system's authorities.
        tls_ca: Use TLS with this authority's certificate.

    Raises:
        PublishError: If the address or a file is wrong.
    """
    tls = tls or tls_ca is not None
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, "8883" if tls else "1883"
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        msg = f"broker: expected HOST:PORT, not {address!r}"
        raise PublishError(msg)
    try:
        password = password_file.read_text("utf-8").removesuffix("\n") if password_file else None
        context = ssl.create_default_context(cafile=tls_ca) if tls else None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{tls_ca if password_file is None else password_file}: {error}"
        raise PublishError(msg) from error
    if password is not None and username is None:
        msg = "a password needs a username"
        raise PublishError(msg)
    return Broker(host.strip("[]"), int(port), username, password, context)


class Link(asyncio.Protocol):
    """One connection of a publisher.

    Attributes:
        answer: CONNACK's code, 0 if the broker accepts.
        closed: Is done when the connection is over.
    """

    version = 4  # MQTT 3.1.1, 3.1.2.2
    properties = b""  # of CONNECT
    refusals: Mapping[int, str] = _REFUSED

    def __init__(self, broker: Broker, client_id: str, acknowledge: Callable[[int], None]) -> None:
        self._broker = broker
        self._client_id = client_id
        self._acknowledge = acknowledge
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._in = bytearray()
        self._heard = self._loop.time()
        self.answer: asyncio.Future[int] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says CONNECT."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self._transport = transport
        flags = 0x02  # a clean session, or start: what is in flight is sent again anyway
        fields = [self._client_id.encode()]
        for flag, text in ((0x80, self._broker.username), (0x40, self._broker.password)):
            if text is not None:
                flags |= flag
                fields.append(text.encode())
        body = b"\x00\x04MQTT" + struct.pack("!BBH", self.version, flags, KEEP_ALIVE) + self.properties
        body += b"".join(struct.pack("!H", len(field)) + field for field in fields)
        transport.write(b"\x10" + variable_integer(len(body)) + body)
        self._loop.call_later(KEEP_ALIVE / 2, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        """Says in ``closed`` that it is over."""
        self._transport = None
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("the broker closed the connection"))
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, packet: bytes) -> None:
        """Writes with all else that this turn of the event loop writes."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packet)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _ping(self) -> None:
        if self._transport is None:
            return
        if self._loop.time() - self._heard > 1.5 * KEEP_ALIVE:
            self.abort()
            return
        self.send(b"\xc0\x00")
        self._loop.call_later(KEEP_ALIVE / 2, self._ping)

    def data_received(self, data: bytes) -> None:
        """Takes what the broker says."""
        self._heard = self._loop.time()
        self._in += data
        buffer, at, end = self._in, 0, len(self._in) - 1
        # All that a broker says to a publisher has less than 128 bytes: one byte of type, one of length.
        while at < end and at + 1 + buffer[at + 1] <= end:
            match buffer[at] & 0xF0:
                case 0x40:  # PUBACK
                    self._acknowledge(buffer[at + 2] << 8 | buffer[at + 3])
                case 0x20 if not self.answer.done():  # CONNACK
                    self.answer.set_result(buffer[at + 3])
                case 0xD0:  # PINGRESP
                    pass
                case _:
                    self.abort()
                    return
            at += 2 + buffer[at + 1]
        del buffer[:at]

    def goodbye(self) -> None:
        """Sends what waits and DISCONNECT, and closes."""
        if self._transport is not None:
            self._transport.write(b"".join(self._out) + b"\xe0\x00")
            self._out.clear()
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()


class Publisher:
    """Publishes at QoS 1 over as many connections as it takes; an async context manager.

    Args:
        broker: Where to publish.
        patience: Seconds without a connection after which it gives up; for ever when None. Without patience the first
            attempt to connect must succeed.
        window: Messages in flight, not yet acknowledged.

    Attributes:
        acknowledged: Messages that the broker has acknowledged.
    """

    def __init__(self, broker: Broker, *, patience: float | None = None, window: int = 2000) -> None:
        self._broker = broker
        self._patience = patience
        self._window = window
        self._client_id = f"citygate-{os.urandom(6).hex()}"
        self._flight: dict[int, bytes] = {}
        self._next = 0
        self._link: Link | None = None
        self._moved = asyncio.Event()
        self._failure: PublishError | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.acknowledged = 0

    async def __aenter__(self) -> Self:
        """Connects; with patience, a broker that is not there yet is waited for in the background.

        Raises:
            PublishError: If the broker refuses, or cannot be reached and there is limited patience.
        """
        if self._patience is not None:
            try:
                await self._connect()
            except ConnectionError as error:
                raise PublishError(str(error)) from error
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Says goodbye. What is still in flight stays unacknowledged: see `drain`."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._link is not None:
            self._link.goodbye()

    @property
    def in_flight(self) -> int:
        """Messages taken and not yet acknowledged."""
        return len(self._flight)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Takes a message; waits while the window is full.

        Raises:
            PublishError: If the broker cannot be reached any more.
        """
        if len(self._flight) >= self._window:
            # Down to a half, so that publisher and connection take turns with hundreds of messages, not with one.
            await self._until(lambda: len(self._flight) <= self._window // 2)
        while True:
            self._next = self._next % 0xFFFF + 1
            if self._next not in self._flight:
                break
        name = topic.encode()
        body = b"%b%b%b%b" % (struct.pack("!H", len(name)), name, struct.pack("!H", self._next), payload)
        packet = self._flight[self._next] = b"\x32" + variable_integer(len(body)) + body
        if self._link is not None:
            self._link.send(packet)

    async def drain(self) -> None:
        """Waits until the broker has acknowledged everything.

        Raises:
            PublishError: If the broker cannot be reached any more.
        """
        await self._until(lambda: not self._flight)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._failure is not None:
                raise self._failure
            self._moved.clear()
            await self._moved.wait()

    def _acknowledge(self, packet_id: int) -> None:
        if self._flight.pop(packet_id, None) is not None:
            self.acknowledged += 1
            self._moved.set()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                _, link = await loop.create_connection(
                    self._new_link,
                    self._broker.host,
                    self._broker.port,
                    ssl=self._broker.tls,
                )
                try:
                    code = await link.answer
                except BaseException:
                    link.abort()
                    raise
        except TimeoutError as error:
            msg = f"{self._broker}: no answer within {_CONNECT_WITHIN:.0f} s"
            raise ConnectionError(msg) from error
        except OSError as error:
            msg = f"{self._broker}: {os.strerror(error.errno) if error.errno and error.errno > 0 else error}"
            raise ConnectionError(msg) from error
        if code:
            link.abort()
            if code in link.refusals:
                msg = f"{self._broker} refuses the connection: {link.refusals[code]}"
                raise PublishError(msg)
            msg = f"{self._broker} is unavailable"
            raise ConnectionError(msg)
        self._link = link
        self._begin(link)

    def _new_link(self) -> Link:
        return Link(self._broker, self._client_id, self._acknowledge)

    def _begin(self, link: Link) -> None:
        """Sends again what the last connection left unacknowledged."""
        for packet in self._flight.values():
            link.send(packet)

    async def _keep(self) -> None:
        """Keeps a connection for as long as the publisher lives."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._link is not None:
                    await self._link.closed
                    self._link = None
                    _say(f"lost the connection to {self._broker}, connecting again")
                since, pause = loop.time(), _SHORTEST_PAUSE
                while self._link is None:
                    try:
                        await self._connect()
                    except ConnectionError as error:
                        if self._patience is not None and loop.time() - since >= self._patience:
                            raise PublishError(str(error)) from error
                        if pause == _SHORTEST_PAUSE:
                            _say(f"{error}; trying again")
                        await asyncio.sleep(pause)
                        pause = min(_LONGEST_PAUSE, pause * 2)
        except PublishError as error:
            self._failure = error
            self._moved.set()


async def until_signal(work: Coroutine[Any, Any, None]) -> bool:
    """Runs until done or SIGTERM or SIGINT; says whether it was left to finish."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def variable_integer(size: int) -> bytes:
    """A remaining length (MQTT 3.1.1, 2.2.3; MQTT 5, 1.5.5)."""
    digits = bytearray()
    while True:
        size, digit = divmod(size, 128)
        digits.append(digit | 0x80 if size else digit)
        if not size:
            return bytes(digits)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the commands' own voice
