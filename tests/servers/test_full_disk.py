"""The spool's file system is full: nothing falls, nothing is lost unseen, and it mends itself when there is space."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.publish import Broker, Publisher
from tests.chaos.load import QUANTITIES, Load
from tests.chaos.parts import Site, imbalance

SIZE = 8 * 2**20
CHUNK = 1000
WITHIN = 120.0

MakeSite = Callable[[str], Site]


@pytest.fixture
def make_site(tmp_path: Path, program: Callable[[str, str], str]) -> Iterator[MakeSite]:
    """Factory of sites whose spool has a file system of 8 MB; given the settings of the spool."""
    programs = program("mosquitto", "mosquitto"), program("influxd", "influxdb")
    small = tmp_path / "small"
    small.mkdir()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    trial = ["unshare", *user, "--mount", "mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(small)]
    done = subprocess.run([program("unshare", "util-linux"), *trial[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    with contextlib.ExitStack() as sites:

        def make(settings: str) -> Site:
            site = Site(
                tmp_path,
                *programs,
                output='flush_interval = "200ms"',
                settings=f'[spool]\npath = "{small}/spool.db"\n{settings}',
            )
            site.confine(small, str(SIZE))
            return sites.enter_context(site)

        yield make


def small(site: Site) -> Path:
    """The small file system, seen from outside."""
    return Path(f"/proc/{site.gateway.pid}/root{site.folder}/small")


async def state_of(site: Site) -> dict[str, Any]:
    """What ``/health`` says; its ledger adds up, or the test fails."""
    async with asyncio.timeout(WITHIN):
        while (state := await site.health()) is None or not state["broker"]["connected"]:
            site.check()
            await asyncio.sleep(0.05)
    for counts in state["ledger"].values():
        assert imbalance(counts) is None
    return state


async def until(site: Site, condition: Callable[[dict[str, Any]], bool]) -> dict[str, int]:
    """The source's ledger once the state is as expected; the gateway runs all the time."""
    state: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            while not condition(state := await state_of(site)):  # noqa: ASYNC110 - another program's state
                await asyncio.sleep(0.1)
    assert condition(state), state
    counts: dict[str, int] = state["ledger"].get("city", {})
    return counts


@contextlib.asynccontextmanager
async def running(site: Site, *, database: bool) -> AsyncIterator[Publisher]:
    if not database:
        site.database.kill()
    site.broker.start()
    site.gateway.start()
    await state_of(site)
    async with Publisher(Broker("127.0.0.1", site.broker.port)) as publisher:
        yield publisher


async def send(publisher: Publisher, load: Load, numbers: range) -> None:
    for number in numbers:
        await publisher.publish(*load.message(number))
    await publisher.drain()


def full(state: dict[str, Any]) -> bool:
    return state["status"] == "alarm" and any("disk is full" in alarm for alarm in state["alarms"])


async def fill(site: Site, publisher: Publisher, load: Load) -> int:
    """Sends until the gateway says that the disk is full; returns how many messages."""
    sent = 0
    while not full(await state_of(site)):
        assert sent + CHUNK < load.messages, "the disk is not full"
        await send(publisher, load, range(sent, sent + CHUNK))
        sent += CHUNK
    return sent


def taken(messages: int) -> Callable[[dict[str, Any]], bool]:
    """Whether the gateway has all that was sent."""

    def condition(state: dict[str, Any]) -> bool:
        counts = state["ledger"].get("city")
        return counts is not None and counts["received"] - counts["duplicate"] == messages * len(QUANTITIES)

    return condition


async def all_delivered(site: Site, messages: int) -> dict[str, int]:
    await until(site, taken(messages))
    return await until(site, lambda state: not state["ledger"]["city"]["queued"])


@pytest.mark.slow
async def test_a_disk_that_fills_up_evicts_the_oldest_and_counts_them(make_site: MakeSite) -> None:
    site = make_site('hold = "5s"')
    load = Load(1, 300 * CHUNK, bulky=True)
    async with running(site, database=False) as publisher:
        sent = await fill(site, publisher, load)
        await send(publisher, load, range(sent, sent + 5 * CHUNK))
        counts = await until(site, taken(sent + 5 * CHUNK))
        assert 0 < counts["evicted"] < counts["queued"]
        site.database.start()
        await all_delivered(site, sent + 5 * CHUNK)
        await send(publisher, load, range(sent + 5 * CHUNK, sent + 6 * CHUNK))
        sent += 6 * CHUNK
        counts = await all_delivered(site, sent)
    assert counts["delivered"] + counts["evicted"] == sent * len(QUANTITIES)
    assert not await load.differences(site, range(load.messages))
    rows = await site.query("SELECT count(pm25) FROM air")
    assert rows[0][1] * len(QUANTITIES) == counts["delivered"]
    assert await load.has(site, sent - 1)
    assert not await load.has(site, 0)
    assert "Traceback" not in site.gateway.log()


@pytest.mark.slow
async def test_a_disk_that_fills_up_leaves_the_rest_with_the_broker(make_site: MakeSite) -> None:
    site = make_site('hold = "1h"')
    load = Load(2, 300 * CHUNK, bulky=True)
    async with running(site, database=False) as publisher:
        sent = await fill(site, publisher, load)
        counts = (await state_of(site))["ledger"]["city"]
        assert counts["received"] < sent * len(QUANTITIES)
        site.database.start()
        counts = await all_delivered(site, sent)
    assert counts["evicted"] == 0
    assert not await load.differences(site, range(sent, load.messages))
    assert "Traceback" not in site.gateway.log()


async def test_a_disk_that_others_filled_is_waited_for(make_site: MakeSite) -> None:
    site = make_site('hold = "1h"')
    load = Load(3, 3000, bulky=True)
    async with running(site, database=True) as publisher:
        await send(publisher, load, range(1000))
        await all_delivered(site, 1000)
        ballast = small(site) / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        await send(publisher, load, range(1000, 3000))
        await until(site, full)
        ballast.unlink()
        counts = await all_delivered(site, 3000)
    assert counts["evicted"] == 0
    assert not await load.differences(site)
    assert "Traceback" not in site.gateway.log()
