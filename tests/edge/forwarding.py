"""A forwarder between a spool and a server that answers what the test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web
from pydantic import SecretStr

from gateway.config import OutputConfig
from gateway.edge.batch import Entry
from gateway.edge.forward import Forwarder
from gateway.edge.spool import FATES, Spool

NOW = 1_700_000_000_000
TOKEN = "a-token-that-must-not-be-seen"
BAD = {"code": "invalid", "message": "unable to parse 'bad': missing fields"}


def points(first: int, last: int) -> bytes:
    return b"\n".join(b"air,sensor=a pm25=%d,pm25_qc=1i %d" % (i, NOW + i) for i in range(first, last))


def entry(lines: bytes) -> Entry:
    number = lines.count(b"\n") + 1
    return Entry(lines, counts={"city": {"received": number, "queued": number}})


class Server:
    """Keeps the points that it accepts; answers what the test wants, and what it is slow at when released."""

    def __init__(self) -> None:
        self.stored: set[bytes] = set()
        self.requests: list[tuple[web.Request, bytes]] = []
        self.answer: Callable[[list[bytes]], web.Response | None] = lambda _: None
        self.url = ""
        self.slow: Callable[[list[bytes]], bool] = lambda _: False
        self.release = asyncio.Event()

    async def write(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has unzipped it
        self.requests.append((request, body))
        lines = body.removesuffix(b"\n").split(b"\n")
        if self.slow(lines):
            await self.release.wait()
        answer = self.answer(lines)
        if answer is None:
            self.stored.update(lines)
            return web.Response(status=204)
        return answer

    def refuse(self, *bad: bytes, status: int = 400) -> None:
        """Refuses the whole request for one of these points, as InfluxDB 2 does."""
        self.answer = lambda lines: web.json_response(BAD, status=status) if set(bad) & set(lines) else None

    def script(self, *answers: web.Response | None) -> None:
        """Gives these answers, one a request, and then accepts."""
        left: Iterator[web.Response | None] = iter(answers)
        self.answer = lambda _: next(left, None)


def output(server: Server, kind: str = "influxdb2", **settings: object) -> OutputConfig:
    if kind == "influxdb1":
        login: dict[str, object] = {"username": "gw", "password": SecretStr(TOKEN)}
    else:
        login = {"org": "town", "token": SecretStr(TOKEN)}
    keys = {"name": "out", "type": kind, "url": server.url, "flush_interval": "20ms", **login, **settings}
    return OutputConfig.model_validate(keys)


@asynccontextmanager
async def forwarding(path: Path, config: OutputConfig) -> AsyncIterator[tuple[Spool, Forwarder]]:
    spool = Spool(path / "spool.db", [config.name])
    forwarder = Forwarder(spool, config)
    task = asyncio.create_task(forwarder.run())
    try:
        yield spool, forwarder
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        counts = spool.ledger().total
        assert counts["received"] == sum(counts[fate] for fate in FATES)
        await spool.close()


def lines_of(*parts: bytes) -> set[bytes]:
    return set(b"\n".join(parts).split(b"\n"))
