"""A tap on the line between broker and gateway: it remembers what the gateway acknowledged."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

_PUBLISH, _PUBACK = 3, 4


class Tap:
    """Passes MQTT 5 on, and listens.

    Args:
        port: Of the broker.

    Attributes:
        acknowledged: Topic and payload of every message whose PUBACK came by.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self.acknowledged: set[tuple[str, bytes]] = set()

    async def start(self) -> int:
        """Starts to listen; returns the port to connect to."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Cuts every line."""
        if self._server is not None:
            self._server.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _accept(self, gateway: asyncio.StreamReader, to_gateway: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cut; asyncio's server wants no word about it
                await self._join(gateway, to_gateway)
        finally:
            to_gateway.close()
            self._lines.discard(line)

    async def _join(self, gateway: asyncio.StreamReader, to_gateway: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # it is away: refuse, as its own port would
            link = to_gateway.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise
        pending: dict[int, tuple[str, bytes]] = {}

        def delivered(head: int, body: bytes) -> None:
            if head >> 4 == _PUBLISH and head & 6:  # not QoS 0, which nobody acknowledges
                end = 2 + int.from_bytes(body[:2])
                properties, start = _variable(body, end + 2)
                packet = int.from_bytes(body[end : end + 2])
                pending[packet] = body[2:end].decode(), body[start + properties :]

        def acknowledged(head: int, body: bytes) -> None:
            if head >> 4 == _PUBACK and (message := pending.pop(int.from_bytes(body[:2]), None)):
                self.acknowledged.add(message)

        pumps = [
            asyncio.create_task(_pump(broker, to_gateway, delivered)),
            asyncio.create_task(_pump(gateway, to_broker, acknowledged)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_broker.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, hear: Callable[[int, bytes], None]) -> None:
    rest = b""
    while data := await source.read(1 << 16):
        rest += data
        start = 0
        with contextlib.suppress(IndexError):  # the rest of this packet has not arrived
            while start < len(rest):
                size, body = _variable(rest, start + 1)
                if body + size > len(rest):
                    break
                hear(rest[start], rest[body : body + size])
                start = body + size
        rest = rest[start:]
        sink.write(data)
        await sink.drain()


def _variable(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends (MQTT 5, 1.5.5)."""
    value = shift = 0
    while True:
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:  # the bit that says: more follows
            return value, place
        shift += 7
