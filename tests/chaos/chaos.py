"""The broker, the gateway and the database are killed at random while readings flow; then everything must be there."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.publish import Broker, Publisher
from tests.chaos.load import QUANTITIES, Load
from tests.chaos.parts import Broken, Part, Site, imbalance
from tests.chaos.tap import Tap

_STUCK = 120.0  # s without any progress after which it is not slow but stuck
_STOPS = 60.0  # s that a broker may need to write down what it holds


@dataclass(frozen=True)
class Plan:
    """How much is sent, and how often what is broken.

    Attributes:
        seed: Of the values and of the schedule.
        readings: To send.
        kills: Of the gateway.
        database_kills: Of the database.
        restarts: Clean ones, of the broker.
        broker_kills: Of the broker; what it held in memory is lost then.
        pace: What all times of the schedule but the graces are multiplied with.
    """

    seed: int
    readings: int
    kills: int
    database_kills: int = 0
    restarts: int = 0
    broker_kills: int = 0
    pace: float = 1.0


@dataclass(frozen=True)
class Strike:
    """One blow.

    Attributes:
        pause: Seconds since the one before, at pace 1.
        part: What it hits.
        grace: Seconds between being asked to end and being killed; 0 for a kill, None for ending in order.
        away: Seconds until it is started again.
    """

    pause: float
    part: str
    grace: float | None
    away: float


@dataclass
class Result:
    """What came of it.

    Attributes:
        readings: Sent.
        strikes: How often what was done.
        seconds: How long it took.
        ledger: Of the source, at the end.
        problems: Promises that were not kept, for people.
    """

    readings: int = 0
    strikes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ledger: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


Progress = Callable[[int, int], None]
"""Is told, again and again, how many readings were sent and how many blows were struck."""


def schedule(plan: Plan) -> list[Strike]:
    """The same blows for the same plan."""
    draw = random.Random(plan.seed)  # noqa: S311 - repeatable
    between = draw.uniform
    strikes = [
        # a third of them while it starts
        *(
            Strike(between(*((0, 1.5) if draw.random() < 1 / 3 else (1.5, 6))), "gateway", 0, between(0, 0.5))
            for _ in range(plan.kills)
        ),
        # beside them, kills while it stops
        *(Strike(between(1, 5), "gateway", between(0, 0.3), 0) for _ in range((plan.kills + 9) // 10)),
        *(Strike(between(0, 4), "database", 0, between(0, 4)) for _ in range(plan.database_kills)),
        *(Strike(between(0, 4), "broker", None, between(0, 2)) for _ in range(plan.restarts)),
        *(Strike(between(2, 5), "broker", 0, between(0, 2)) for _ in range(plan.broker_kills)),
    ]
    draw.shuffle(strikes)
    return strikes


async def run(site: Site, plan: Plan, progress: Progress = lambda _sent, _struck: None) -> Result:
    """Sends and strikes by the plan, waits until all is quiet again, and looks at what is there.

    Args:
        site: Its parts; the database runs.
        plan: What to do.
        progress: Is told how it goes.

    Returns:
        What came of it; an error of a part is one of its problems.
    """
    chaos = _Chaos(site, plan, progress)
    try:
        await chaos.run()
    except (Broken, TimeoutError) as error:
        chaos.result.problems.append(str(error))
    return chaos.result


class _Chaos:
    def __init__(self, site: Site, plan: Plan, progress: Progress) -> None:
        self._site, self._plan, self._progress = site, plan, progress
        self._strikes = schedule(plan)
        self._load = Load(plan.seed, plan.readings // len(QUANTITIES))
        self._draw = random.Random(plan.seed + 1)  # noqa: S311 - of the bursts; repeatable
        self._returning: dict[str, asyncio.Task[None]] = {}
        self._sent = self._struck = 0
        self._last: dict[str, int] = {}
        self._tap = Tap(site.broker.port) if plan.broker_kills else None
        self.result = Result(self._load.readings)

    async def run(self) -> None:
        began = time.monotonic()
        try:
            if self._tap:
                self._site.configure(await self._tap.start())
            self._site.broker.start()
            self._site.gateway.start()
            await self._until(self._connected, "the gateway's connection", self._last_moved)
            await self._break()
            await self._verify()
        finally:
            if self._tap:
                await self._tap.close()
        self.result.seconds = time.monotonic() - began

    # While it goes

    async def _break(self) -> None:
        async with Publisher(Broker("127.0.0.1", self._site.broker.port)) as publisher:
            beside = [asyncio.create_task(self._watch()), asyncio.create_task(self._send(publisher))]
            try:
                for strike in self._strikes:
                    await self._strike(strike)
                await asyncio.gather(*self._returning.values())
                await beside[1]
                await self._quiet(publisher)
            finally:
                for task in [*beside, *self._returning.values()]:
                    task.cancel()
                await asyncio.gather(*beside, *self._returning.values(), return_exceptions=True)

    async def _send(self, publisher: Publisher) -> None:
        """Sends in bursts, and spreads them over the blows; keeps the last message back."""
        last = self._load.messages - 1
        burst = max(1, last // (len(self._strikes) + 1) // 8)
        while self._sent < last:
            goal = min(last, last * (self._struck + 1) // (len(self._strikes) + 1))
            for number in range(self._sent, min(goal, self._sent + self._draw.randint(1, 2 * burst))):
                await publisher.publish(*self._load.message(number))
                self._sent = number + 1
            self._progress(self._sent * len(QUANTITIES), self._struck)
            await asyncio.sleep(self._draw.uniform(0, 0.5))

    async def _strike(self, strike: Strike) -> None:
        await asyncio.sleep(strike.pause * self._plan.pace)
        if (before := self._returning.pop(strike.part, None)) is not None:
            await before
        part = self._site.parts[strike.part]
        part.check()
        if strike.grace == 0:
            part.kill()
            what = f"{strike.part} killed"
        elif await part.stop(_STOPS if strike.grace is None else strike.grace, kill=strike.grace is not None):
            what = f"{strike.part} stopped"
        else:
            what = f"{strike.part} killed while it stopped"
        self.result.strikes[what] = self.result.strikes.get(what, 0) + 1
        self._returning[strike.part] = asyncio.create_task(_return(part, strike.away * self._plan.pace))
        if self._tap:  # a broker that forgot the gateway's session keeps nothing for it: go on when it is back
            await self._returning[strike.part]
            await self._until(self._connected, "the gateway's connection", self._last_moved)
        self._struck += 1
        self._progress(self._sent * len(QUANTITIES), self._struck)

    async def _watch(self) -> None:
        """The ledger adds up at any moment, and never goes back; a kill may take back what was noted as delivered."""
        while True:
            if (state := await self._site.health()) is not None and "city" in state["ledger"]:
                self._judge(state)
            await asyncio.sleep(0.5)

    def _judge(self, state: dict[str, Any]) -> None:
        counts = state["ledger"]["city"]
        for ledger in (state["ledger"], *(output["ledger"] for output in state["outputs"])):
            for part in ledger.values():
                if problem := imbalance(part):
                    self._problem(f"ledger: {problem}")
        if state["alarms"]:
            self._problem(f"alarms: {state['alarms']}")
        for fate in ("received", "duplicate"):
            if counts[fate] < self._last.get(fate, 0):
                self._problem(f"ledger: {fate} went back from {self._last[fate]} to {counts[fate]}")
        self._last = counts

    def _problem(self, text: str) -> None:
        if len(self.result.problems) < 20:  # enough to read
            self.result.problems.append(text)

    # Afterwards

    async def _quiet(self, publisher: Publisher) -> None:
        """Sends the last message, behind which the broker holds nothing, and waits until all is delivered."""
        await self._until(self._connected, "the gateway's connection", self._last_moved)
        await self._until(_done(publisher), "the broker's acknowledgements", lambda: publisher.acknowledged)
        await publisher.publish(*self._load.message(self._load.messages - 1))
        await self._until(_done(publisher), "the broker's acknowledgements", lambda: publisher.acknowledged)
        self._progress(self._load.readings, self._struck)
        await self._until(self._delivered, "delivery", self._last_moved)

    async def _connected(self) -> bool:
        state = await self._site.health()
        return state is not None and bool(state["broker"]["connected"])

    async def _delivered(self) -> bool:
        state = await self._site.health()
        counts = {} if state is None else state["ledger"].get("city", {})
        if not counts or counts["queued"]:
            return False
        return await self._load.has(self._site, self._load.messages - 1)

    def _last_moved(self) -> object:
        return self._last

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str, moving: Callable[[], object]) -> None:
        seen, since = moving(), time.monotonic()
        while True:
            self._site.check()
            with contextlib.suppress(OSError):
                if await condition():
                    return
            if moving() != seen:
                seen, since = moving(), time.monotonic()
            elif time.monotonic() - since > _STUCK:
                msg = f"{what} did not come, and nothing moved for {_STUCK:.0f} s"
                raise Broken(msg)
            await asyncio.sleep(0.1)

    async def _verify(self) -> None:
        state = await self._site.status()
        counts = self.result.ledger = state["ledger"]["city"]
        self._judge(state)
        optional: set[int] | range = set()
        if self._tap:
            optional = set(range(self._load.messages)) - _numbers(self._load, self._tap)
        for difference in await self._load.differences(self._site, optional):
            self._problem(difference)
        if self._tap:
            return
        sent = self._load.readings
        for part in (counts, *(output["ledger"]["city"] for output in state["outputs"])):
            if part["received"] - part["duplicate"] != sent or part["delivered"] != sent:
                self._problem(f"ledger: {sent} readings were sent, but it says {part}")


async def _return(part: Part, away: float) -> None:
    await asyncio.sleep(away)
    part.start()


def _done(publisher: Publisher) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return not publisher.in_flight

    return done


def _numbers(load: Load, tap: Tap) -> set[int]:
    return {load.number(topic, json.loads(payload)["ts"]) for topic, payload in tap.acknowledged}
