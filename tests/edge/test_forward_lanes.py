"""Fresh readings beside a backlog, and through outages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.config import OutputConfig
from gateway.edge import forward
from gateway.edge.forward import Forwarder
from gateway.edge.servers import Server as Away
from gateway.edge.spool import Spool, SpoolError
from tests.edge.forwarding import BAD, NOW, Server, entry, forwarding, lines_of, output, points
from tests.servers.wait import until

pytestmark = pytest.mark.usefixtures("short_delays")

BACKLOG = points(0, 20_000)
FRESH = points(50_000, 50_001)


def is_old(lines: list[bytes]) -> bool:
    return any(int(line.rsplit(b" ", 1)[1]) < NOW + 50_000 for line in lines)


async def filled(path: Path, *, size: int = 200) -> None:
    spool = Spool(path / "spool.db", ["out"])
    await asyncio.gather(*(spool.append(entry(points(i, i + size))) for i in range(0, 20_000, size)))
    await spool.close()


async def test_a_slow_request_of_the_backlog_delays_nothing_fresh(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path)
    async with forwarding(tmp_path, output(server, batch_bytes="20KB")) as (spool, forwarder):
        await until(lambda: len(server.requests) > 2)
        server.slow = is_old
        await asyncio.sleep(0)
        for i in range(10):
            await spool.append(entry(points(50_000 + i, 50_001 + i)))
            await until(lambda: points(50_000 + i, 50_001 + i) in server.stored)  # noqa: B023
        assert spool.backlog("out").rows > 0
        server.release.set()
        assert await forwarder.flush(20)
        assert server.stored == lines_of(BACKLOG, points(50_000, 50_010))


async def test_bad_points_in_the_backlog_delay_nothing_fresh(tmp_path: Path, server: Server) -> None:
    bad = points(0, 20_000).split(b"\n")[3:9000:90]
    server.refuse(*bad)
    await filled(tmp_path)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await until(lambda: spool.backlog("out").rows < 100)
        for i in range(10):
            await spool.append(entry(points(50_000 + i, 50_001 + i)))
            await until(lambda: points(50_000 + i, 50_001 + i) in server.stored)  # noqa: B023
        assert await forwarder.flush(60)
        assert server.stored == lines_of(BACKLOG, points(50_000, 50_010)) - set(bad)
        assert spool.ledger().total["dead"] == len(bad)


async def test_a_fresh_request_full_of_bad_points_does_not_hold_up_the_next(tmp_path: Path, server: Server) -> None:
    bad = BACKLOG.split(b"\n")[:20_000:200]
    server.refuse(*bad)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(90_000, 90_001)))
        await until(lambda: bool(server.stored))
        await spool.append(entry(BACKLOG))
        await until(lambda: len(server.requests) > 20)
        await spool.append(entry(FRESH))
        await until(lambda: FRESH in server.stored)
        assert spool.ledger().total["dead"] == 0
        assert await forwarder.flush(60)
        assert spool.ledger().total["dead"] == len(bad)


async def test_the_backlog_keeps_to_its_bytes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr("gateway.edge.forward.time.monotonic", lambda: clock)
    monkeypatch.setattr("gateway.edge.forward.asyncio.sleep", sleep)
    budget = forward._Budget(1000)
    sizes = [number * 997 % 5000 for number in range(50)]
    for size in sizes:
        await budget.spend(size)
    assert clock == pytest.approx(sum(sizes[:-1]) / 1000)
    clock += 3600
    before = clock
    await budget.spend(4000)
    assert clock == before
    await budget.spend(1)
    assert clock == before + 4  # an idle hour has saved up nothing


async def test_requests_of_the_backlog_are_small_when_its_budget_is(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path, size=20)
    async with forwarding(tmp_path, output(server, backlog_rate="2KB", batch_bytes="50KB")) as (spool, _):
        await until(lambda: len(server.requests) > 1)
        assert len(server.requests[1][1]) <= 8 * 2000  # a second's worth, before compression
        await spool.append(entry(FRESH))
        await until(lambda: FRESH in server.stored)


async def test_after_an_outage_the_newest_come_first_and_the_backlog_beside(tmp_path: Path, server: Server) -> None:
    server.answer = lambda _: web.Response(status=503)
    async with forwarding(tmp_path, output(server, batch_bytes="20KB")) as (spool, forwarder):
        for i in range(0, 20_000, 200):
            await spool.append(entry(points(i, i + 200)))
        await spool.append(entry(FRESH))
        away = len(server.requests)
        await until(lambda: len(server.requests) > away + 3)
        probes = server.requests[-1:]
        assert all(len(body) < 20_000 for _, body in probes)
        server.requests.clear()
        server.answer = lambda _: None
        await until(lambda: len(server.requests) > 20)
        first = b"".join(body for _, body in server.requests[:3])  # what asked, and one of each lane
        assert FRESH in first
        assert b" %d\n" % (NOW + 19_999) in first
        assert await forwarder.flush(20)
        assert server.stored == lines_of(BACKLOG, FRESH)


async def test_while_the_server_is_away_one_small_request_at_a_time_asks_for_it(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path, size=2000)
    under_way: list[int] = []

    def away(_: list[bytes]) -> web.Response:
        under_way.append(len(server.requests))
        return web.Response(status=500)

    server.answer = away
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await until(lambda: len(server.requests) > 12)
        assert all(len(body) <= 17_000 for _, body in server.requests[2:])
        server.answer = lambda _: None
        assert await forwarder.flush(20)
        assert spool.ledger().total["delivered"] == 20_000
        assert server.stored == lines_of(BACKLOG)


def test_the_wait_for_a_server_is_never_longer_than_the_interval(tmp_path: Path, server: Server) -> None:
    del tmp_path
    config = output(server, flush_interval="2s")
    away = Away(config)
    waits = []
    for attempt in range(64):
        away._unconnected = attempt
        waits.append(away._connect_within())
    assert waits[:3] == [2, 2, 2]
    assert max(waits) < config.timeout
    assert sum(wait == 2 for wait in waits) == 48


@pytest.mark.parametrize("interval", [0.2, 1.0, 5.0])
async def test_delays_grow_to_the_interval_and_no_further(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    monkeypatch.undo()
    spool = Spool(tmp_path / "spool.db", ["out"])
    forwarder = Forwarder(spool, output(server, flush_interval=f"{interval}s"))
    delays = [forwarder._delay() for _ in range(50)]
    assert all(delay <= interval for delay in delays)
    assert len(set(delays)) > 40  # a fleet does not return all at once
    await spool.close()


async def test_both_lanes_wait_when_the_server_asks_for_it(tmp_path: Path, server: Server) -> None:
    await filled(tmp_path)
    answered = 0

    def busy(_: list[bytes]) -> web.Response | None:
        nonlocal answered
        answered += 1
        return web.Response(status=429, headers={"Retry-After": "3600"}) if answered == 6 else None

    server.answer = busy
    async with forwarding(tmp_path, output(server, batch_bytes="20KB")) as (spool, forwarder):
        await until(lambda: forwarder.status()["state"] == "retrying")
        before = len(server.requests)
        await spool.append(entry(FRESH))
        assert not await forwarder.flush(0.3)
        assert len(server.requests) <= before + 1  # what was under way in the other lane
        assert FRESH not in server.stored
        assert "429" in forwarder.status()["last_error"]


async def test_a_point_at_which_the_server_fails_stops_no_other(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_STUCK_DELAY", 2.0)
    poison = {points(i, i + 1) for i in (0, 7777)}
    expected = lines_of(BACKLOG)
    mended = False

    def fail(lines: list[bytes]) -> web.Response | None:
        return web.Response(status=500, text="panic") if poison & set(lines) and not mended else None

    server.answer = fail
    await filled(tmp_path)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await until(lambda: server.stored == expected - poison, 60)
        await spool.append(entry(FRESH))
        await until(lambda: FRESH in server.stored)
        assert spool.ledger().dead_letters == 0
        await until(lambda: spool.backlog("out").rows <= 2)
        mended = True
        assert await forwarder.flush(20)
        assert server.stored == lines_of(BACKLOG, FRESH)


async def test_requests_fit_a_link_on_which_large_ones_take_too_long(tmp_path: Path, server: Server) -> None:
    server.slow = lambda lines: len(lines) > 350
    await filled(tmp_path, size=500)
    async with forwarding(tmp_path, output(server, timeout="200ms", batch_bytes="50KB")) as (spool, _):
        await until(lambda: len(server.stored) > 5000, 60)
        await spool.append(entry(FRESH))
        await until(lambda: FRESH in server.stored)
        assert spool.ledger().dead_letters == 0
        server.release.set()


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        (1, [0]),
        (1, [4999]),
        (5, [2500]),
        (50, [4999, 0]),
        (10, range(40, 50)),
        (5, range(0, 5000, 500)),
        (3, range(300)),
    ],
    ids=["first", "last", "middle", "both ends", "ten together", "ten apart", "three hundred"],
)
async def test_bad_points_cost_themselves_and_few_requests(
    tmp_path: Path, server: Server, rows: int, bad: list[int]
) -> None:
    lines = points(0, 5000).split(b"\n")
    refused = {lines[i] for i in bad}

    def judge(offered: list[bytes]) -> web.Response | None:
        found = refused & set(offered)
        return web.json_response({**BAD, "message": f"cannot parse {min(found)!r}"}, status=422) if found else None

    server.answer = judge
    spool = Spool(tmp_path / "spool.db", ["out"])
    size = -(-5000 // rows)
    for first in range(0, 5000, size):
        await spool.append(entry(points(first, min(first + size, 5000))))
    await spool.close()
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        assert await forwarder.flush(60)
        assert server.stored == set(lines) - refused
        letters = await spool.dead_letters(1000)
        assert {letter.payload for letter in letters} == refused
        assert all(letter.reason == f"cannot parse {letter.payload!r}" for letter in letters)
        counts: Any = spool.ledger().total
        assert (counts["delivered"], counts["dead"]) == (5000 - len(refused), len(refused))
        assert len(server.requests) <= (25 if len(refused) == 1 else 15 * len(refused) + 5)


async def test_a_spool_that_cannot_be_read_for_a_moment_leaves_nothing_behind(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        assert await forwarder.flush(20)
        read, failures = spool.next_rows, 3

        async def fail(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
            nonlocal failures
            failures -= 1
            if failures >= 0:
                message = "the file is locked"
                raise SpoolError(message)
            return await read(*arguments, **settings)

        monkeypatch.setattr(spool, "next_rows", fail)
        await spool.append(entry(points(10, 20)))
        await until(lambda: len(server.stored) == 20)
        assert "locked" in forwarder.status()["last_error"]


def test_an_output_says_its_budget() -> None:
    assert OutputConfig.model_validate({"url": "http://a", "backlog_rate": "64KB"}).backlog_rate == 64_000
