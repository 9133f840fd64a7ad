"""The database is away for the whole of a long stream, and comes back: what is new must not wait behind what is old."""

import asyncio
import time
from dataclasses import dataclass, field

from gateway.publish import Broker, Publisher
from tests.chaos.chaos import Progress
from tests.chaos.load import Load
from tests.chaos.parts import Broken, Site

_STUCK = 120.0  # s without any progress after which it is not slow but stuck


@dataclass(frozen=True)
class Fresh:
    """A message sent after the database's return, while old ones still waited.

    Attributes:
        seconds: From sending it until it was stored.
        backlog: Part of the backlog that still waited when it was stored.
    """

    seconds: float
    backlog: float


@dataclass
class Outage:
    """What came of it.

    Attributes:
        readings: Sent while the database was away.
        away: Seconds that it was away.
        noticed: Seconds from its return until it got a first message.
        drained: Seconds from its return until it had all.
        fresh: What was sent after the return.
        ledger: Of the source, at the end.
        problems: Promises that were not kept, for people.
    """

    readings: int = 0
    away: float = 0.0
    noticed: float = 0.0
    drained: float = 0.0
    fresh: list[Fresh] = field(default_factory=list)
    ledger: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


async def run(site: Site, seed: int, readings: int, progress: Progress = lambda _sent, _struck: None) -> Outage:
    """Sends with the database away, starts it, and sends single messages while it gets what waited.

    Args:
        site: Its parts; the database runs.
        seed: Of the values.
        readings: To send while the database is away.
        progress: Is told how many readings were sent.

    Returns:
        What came of it.
    """
    load = Load(seed, readings // 5 + 1000)  # of which the last ones are sent one by one
    old = load.messages - 1000
    outage = Outage(old * 5)
    site.database.kill()
    began = time.monotonic()
    site.broker.start()
    site.gateway.start()
    await _until(site, "the gateway's connection", "connected", 1)
    async with Publisher(Broker("127.0.0.1", site.broker.port)) as publisher:
        for number in range(old):
            await publisher.publish(*load.message(number))
            if not number % 500:
                progress(number * 5, 0)
        await publisher.drain()
        await _until(site, "the whole of it in the spool", "queued", outage.readings)
        site.database.start()
        outage.away = time.monotonic() - began
        returned = time.monotonic()
        sent = old
        while sent < load.messages:
            at = time.monotonic()
            await publisher.publish(*load.message(sent))
            backlog = await _stored(site, load, sent) / outage.readings
            sent += 1
            if sent == old + 1:
                outage.noticed = time.monotonic() - returned
            if not backlog:
                break
            outage.fresh.append(Fresh(time.monotonic() - at, backlog))
    outage.ledger = await _until(site, "all delivered", "queued", 0)
    del outage.ledger["connected"]
    outage.drained = time.monotonic() - returned
    unsent = range(sent, load.messages)
    outage.problems = await load.differences(site, unsent)
    if outage.ledger["delivered"] != sent * 5 or outage.ledger["evicted"]:
        outage.problems.append(f"ledger: {sent * 5} readings were sent: {outage.ledger}")
    return outage


async def _stored(site: Site, load: Load, number: int) -> int:
    """Waits for a message; returns how many readings were queued then."""
    began = time.monotonic()
    while time.monotonic() - began < _STUCK:
        try:
            if await load.has(site, number):
                return (await _counts(site))["queued"]
        except OSError:  # not yet back
            pass
        await asyncio.sleep(0.05)
    msg = f"a fresh message was not stored within {_STUCK:.0f} s"
    raise Broken(msg)


async def _counts(site: Site) -> dict[str, int]:
    while (state := await site.health()) is None:
        site.gateway.check()
        await asyncio.sleep(0.1)
    counts: dict[str, int] = state["ledger"].get("city", {})
    return {"connected": int(state["broker"]["connected"]), **counts}


async def _until(site: Site, what: str, fate: str, goal: int) -> dict[str, int]:
    counts, since = await _counts(site), time.monotonic()
    seen = counts
    while counts.get(fate) != goal:
        if counts != seen:
            seen, since = counts, time.monotonic()
        elif time.monotonic() - since > _STUCK:
            msg = f"{what} did not come, and nothing moved for {_STUCK:.0f} s: {counts}"
            raise Broken(msg)
        await asyncio.sleep(0.1)
        counts = await _counts(site)
    return counts
