"""Servers that answer anything: whatever the sequence, every valid point is stored and none stops another."""

import asyncio
import gzip
import logging
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.edge.servers import _Resolver
from gateway.edge.spool import Spool
from tests.edge.forwarding import NOW, TOKEN, Server, entry, forwarding, lines_of, output, points
from tests.servers.wait import until

pytestmark = pytest.mark.usefixtures("short_delays")

Writer = asyncio.StreamWriter
Trick = Callable[["Hostile", Writer, list[bytes]], Awaitable[None]]
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Hostile(Server):
    """A server of sockets, which keeps what it accepts and plays tricks."""

    def __init__(self) -> None:
        super().__init__()
        self.trick: Callable[[list[bytes]], Trick | None] = lambda _: None
        self.authorizations: list[str] = []
        self._connections: set[Writer] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.decode().split("\r\n"))
                }
                body = await reader.readexactly(int(headers["content-length"]))
                lines = gzip.decompress(body).removesuffix(b"\n").split(b"\n")
                self.authorizations.append(headers.get("authorization", ""))
                trick = self.trick(lines)
                if trick:
                    await trick(self, writer, lines)
                else:
                    self.stored.update(lines)
                    writer.write(NO_CONTENT)
                await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._connections.discard(writer)

    def script(self, *tricks: Trick) -> None:  # type: ignore[override]
        """Plays these tricks, one a request, and then accepts."""
        left = iter(tricks)
        self.trick = lambda _: next(left, None)

    def close(self) -> None:
        for writer in self._connections:
            writer.transport.abort()


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    server = Hostile()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield server
    listener.close()
    server.close()


def says(text: bytes, *, close: bool = False) -> Trick:
    async def answer(_: Hostile, writer: Writer, __: list[bytes]) -> None:
        writer.write(text)
        await writer.drain()
        if close:
            writer.close()

    return answer


def response(status: str, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status.encode(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def reset(_: Hostile, writer: Writer, __: list[bytes]) -> None:
    writer.transport.abort()


async def stores_and_hangs_up(server: Hostile, writer: Writer, lines: list[bytes]) -> None:
    server.stored.update(lines)
    writer.transport.abort()


async def stores_and_answers_half(server: Hostile, writer: Writer, lines: list[bytes]) -> None:
    server.stored.update(lines)
    writer.write(b"HTTP/1.1 204 No Con")
    writer.close()


async def never_ends(_: Hostile, writer: Writer, __: list[bytes]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def drips(_: Hostile, writer: Writer, __: list[bytes]) -> None:
    for byte in b"HTTP/1.1 204 No Content and then some":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def drips_a_body(_: Hostile, writer: Writer, __: list[bytes]) -> None:
    writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n")
    for _i in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def says_nothing(_: Hostile, __: Writer, ___: list[bytes]) -> None:
    await asyncio.sleep(3600)


PAST, FUTURE = formatdate(0, usegmt=True), formatdate(NOW / 1000 + 1e9, usegmt=True)
TRICKS: dict[str, Trick] = {
    "reset": reset,
    "stored and hung up": stores_and_hangs_up,
    "stored and half answered": stores_and_answers_half,
    "never-ending body": never_ends,
    "slow head": drips,
    "slow body": drips_a_body,
    "silence": says_nothing,
    "no HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n", close=True),
    "a status that is no number": says(b"HTTP/1.1 abc what\r\n\r\n", close=True),
    "an enormous head": says(b"HTTP/1.1 204 No\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", close=True),
    "hints without end": says(b"HTTP/1.1 102 Processing\r\n\r\n" * 50, close=True),
    "half a body": says(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf", close=True),
    "half an OK": says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", close=True),
    "a broken chunk": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=True),
    "invalid gzip": says(response("500 Oops", b"no gzip", b"Content-Encoding: gzip")),
    "OK in invalid gzip": says(response("200 OK", b"no gzip", b"Content-Encoding: gzip")),
    "301": says(response("301 Moved", b"", b"Location: http://127.0.0.1:1/")),
    "307": says(response("307 Moved", b"", b"Location: /elsewhere")),
    "308 without a place": says(response("308 Moved")),
    "HTML 200": says(response("200 OK", b"<!DOCTYPE html><p>Log in", b"Content-Type: text/html")),
    "HTML 400": says(response("400 Bad", b"<html>Bad", b"Content-Type: text/html")),
    "JSON 200": says(response("200 OK", b'{"status": "fine"}')),
    "deep JSON": says(response("500 Oops", b"[" * 60_000)),
    "no UTF-8": says(response("500 Oops", bytes(range(256)))),
    "401": says(response("401 Unauthorized", b'{"message": "no"}')),
    "403": says(response("403 Forbidden")),
    "404": says(response("404 Not Found", b'{"code": "not found", "message": "bucket"}')),
    "429 0": says(response("429 Slow", b"", b"Retry-After: 0")),
    "429 garbage": says(response("429 Slow", b"", b"Retry-After: \xff\xfe soon")),
    "503 a moment": says(response("503 Busy", b"", b"Retry-After: 0.02")),
    "503 past": says(response("503 Busy", b"", b"Retry-After: " + PAST.encode())),
    "503 by its own clock": says(
        response("503 Busy", b"", b"Retry-After: " + FUTURE.encode(), b"Date: " + FUTURE.encode())
    ),
    "500": says(response("500 Oops", b'{"error": "engine: closed"}')),
    "504": says(response("504 Gateway Timeout")),
    "999": says(response("999 What")),
    "413": says(response("413 Too Large", b'{"code": "request too large"}')),
}


@pytest.mark.parametrize("kind", ["influxdb2", "influxdb1"])
@pytest.mark.parametrize("trick", [name for name in TRICKS if name != "413"])
async def test_any_trick_played_twice_loses_nothing(tmp_path: Path, hostile: Hostile, trick: str, kind: str) -> None:
    hostile.script(TRICKS[trick], TRICKS[trick])
    async with forwarding(tmp_path, output(hostile, kind, timeout="150ms")) as (spool, forwarder):
        await spool.append(entry(points(0, 300)))
        await until(lambda: spool.ledger().total["delivered"] == 300)
        assert hostile.stored == lines_of(points(0, 300))
        assert spool.ledger().dead_letters == 0
        assert forwarder.status()["state"] == "ok"


@pytest.mark.parametrize("seed", range(16))
async def test_no_sequence_of_tricks_loses_a_valid_point(
    tmp_path: Path, hostile: Hostile, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chance = random.Random(seed)  # noqa: S311
    everything = points(0, 3000).split(b"\n")
    bad = set(chance.sample(everything, chance.choice([0, 1, 5])))
    refuse = says(response("422 Unprocessable", b'{"message": "one is bad"}'))
    share = chance.choice([0.05, 0.2, 0.4])

    def play(lines: list[bytes]) -> Trick | None:
        if chance.random() < share:
            name = chance.choice(list(TRICKS))
            stores = name.startswith("stored") and bad & set(lines)
            if not stores and (name != "413" or len(lines) > 1):
                return TRICKS[name]
        if len(lines) > 1 and chance.random() < 0.02:
            return refuse  # a whim
        return refuse if bad & set(lines) else None

    hostile.trick = play
    spool = Spool(tmp_path / "spool.db", ["out"])
    for first in range(0, 1500, 100):
        await spool.append(entry(points(first, first + 100)))
    await spool.close()
    async with forwarding(tmp_path, output(hostile, timeout="100ms", batch_bytes="20KB")) as (spool, forwarder):
        for first in range(1500, 3000, 50):
            await spool.append(entry(points(first, first + 50)))
            await asyncio.sleep(0.01)
        await until(lambda: hostile.stored >= set(everything) - bad, 120)
        hostile.trick = lambda lines: refuse if bad & set(lines) else None
        assert await forwarder.flush(60)
        assert hostile.stored == set(everything) - bad
        assert {letter.payload for letter in await spool.dead_letters()} == bad
        assert spool.ledger().total["delivered"] == 3000 - len(bad)
        assert TOKEN not in repr(forwarder.status())
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
async def test_requests_get_as_small_as_the_server_wants(tmp_path: Path, hostile: Hostile, most: int) -> None:
    hostile.trick = lambda lines: TRICKS["413"] if len(lines) > most else None
    async with forwarding(tmp_path, output(hostile)) as (spool, forwarder):
        for first in range(0, 1200, 300):
            await spool.append(entry(points(first, first + 300)))
        assert await forwarder.flush(30)
        assert hostile.stored == lines_of(points(0, 1200))
        assert spool.ledger().dead_letters == 0


async def test_a_point_too_large_for_the_server_is_dead_once_it_takes_others(tmp_path: Path, hostile: Hostile) -> None:
    large = b'air,sensor=a text="%s" 5' % (b"x" * 50_000)
    hostile.trick = lambda lines: TRICKS["413"] if sum(map(len, lines)) > 40_000 else None
    async with forwarding(tmp_path, output(hostile)) as (spool, forwarder):
        await spool.append(entry(points(0, 100) + b"\n" + large + b"\n" + points(100, 200)))
        assert await forwarder.flush(20)
        assert hostile.stored == lines_of(points(0, 200))
        (letter,) = await spool.dead_letters()
        assert letter.payload == large


async def test_an_answer_without_end_is_not_kept(tmp_path: Path, hostile: Hostile) -> None:
    async def streams(server: Hostile, writer: Writer, lines: list[bytes]) -> None:
        writer.write(b'HTTP/1.1 400 Bad\r\n\r\n{"message": "')
        await never_ends(server, writer, lines)

    bad = points(3, 4)
    hostile.trick = lambda lines: streams if bad in lines else None
    async with forwarding(tmp_path, output(hostile)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        assert await forwarder.flush(20)
        (letter,) = await spool.dead_letters()
        assert letter.payload == bad
        assert len(letter.reason) <= 500


async def test_a_new_token_is_read_when_the_old_one_is_refused(
    tmp_path: Path, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("the-old-secret\n")
    refuse = says(response("401 Unauthorized", b"unknown: Token the-old-secret"))
    hostile.trick = lambda _: None if hostile.authorizations[-1] == "Token the-new-secret" else refuse
    config = output(hostile, token=None, token_file=file)
    async with forwarding(tmp_path, config) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: len(hostile.authorizations) > 2)
        assert "check 'token_file'" in forwarder.status()["last_error"]
        file.unlink()
        asked = len(hostile.authorizations)
        await until(lambda: len(hostile.authorizations) > asked + 2)
        file.write_text("the-new-secret\n")
        assert await forwarder.flush(20)
        assert hostile.stored == lines_of(points(0, 10))
        shown = caplog.text + repr(forwarder.status()) + repr(vars(forwarder)) + repr(config)
        assert "-secret" not in shown


async def test_a_password_that_the_server_repeats_is_not_shown(
    tmp_path: Path, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def repeats(server: Hostile, writer: Writer, _: list[bytes]) -> None:
        writer.write(response("401 No", f"{server.authorizations[-1]} is gw:{TOKEN}".encode()))

    hostile.script(repeats)
    async with forwarding(tmp_path, output(hostile, "influxdb1")) as (spool, forwarder):
        await spool.append(entry(points(0, 1)))
        await until(lambda: spool.ledger().total["delivered"] == 1)
        shown = caplog.text + repr(forwarder.status())
    assert "********" in shown
    assert TOKEN not in shown
    assert hostile.authorizations[0].removeprefix("Basic ") not in shown


async def test_a_connection_that_the_server_closed_while_idle_is_no_trouble(tmp_path: Path, hostile: Hostile) -> None:
    async with forwarding(tmp_path, output(hostile)) as (spool, forwarder):
        for number in range(5):
            await spool.append(entry(points(number, number + 1)))
            await until(lambda: spool.ledger().total["delivered"] == number + 1)  # noqa: B023
            hostile.close()
        assert forwarder.status()["last_error"] is None


async def test_a_connection_that_is_never_made_is_given_up_in_a_second(
    tmp_path: Path, hostile: Hostile, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", port))
        full.listen(0)
        for client in (first, second):  # whoever comes now is not answered
            client.settimeout(0)
            client.connect_ex(("127.0.0.1", port))
        hostile.url = f"http://127.0.0.1:{port}"
        async with forwarding(tmp_path, output(hostile, timeout="1h")) as (spool, forwarder):
            await spool.append(entry(points(0, 10)))
            await until(lambda: "no connection in time" in (forwarder.status()["last_error"] or ""))
            full.close()
            async with await asyncio.start_server(hostile.serve, "127.0.0.1", port, limit=2**20):
                assert await forwarder.flush(20)
                hostile.close()
    assert hostile.stored == lines_of(points(0, 10))


async def test_the_address_found_last_serves_while_name_servers_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = [{"host": "192.0.2.1"}]
    lookups = 0
    silent = False

    async def resolve(*_: object) -> list[Any]:
        nonlocal lookups
        lookups += 1
        if silent:
            await asyncio.sleep(3600)
        return found

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr("gateway.edge.servers._LOOKUP", 0.01)
    resolver = _Resolver()
    assert await resolver.resolve("influx.example.org") == found
    silent = True
    for _ in range(5):
        assert await resolver.resolve("influx.example.org") == found
    assert lookups == 2  # no threads pile up
    assert resolver._lookup is not None
    resolver._lookup.cancel()
