"""Down-sampling in the embedded store: rows of hours say what the readings said, and nothing is lost on the way."""

import asyncio
import contextlib
import math
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.city.store.base import Bucket, Reading, SensorKey, direction_buckets, worst
from gateway.city.store.embedded import _SCHEMA, EmbeddedStore
from sensors.lineprotocol import parse

HOUR, DAY = 3_600_000, 86_400_000
NOW = time.time_ns() // 10**6 // HOUR * HOUR
KEY = SensorKey("weather", "s", "w-1")
TAGS = "weather,gateway=g,site=s,sensor=w-1"
QUANTITIES = {"temperature": False, "wind_direction": True}


@contextlib.asynccontextmanager
async def opened(path: Path, raw: float = 30 * 86400.0, hourly: float = 730 * 86400.0) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(path, raw, hourly)
    await store.open()
    yield store
    await store.close()


def days(seed: int, number: int = 3, step: int = 600_000) -> list[str]:
    """Readings of some days up to now with gaps, failed and suspect ones."""
    chance, lines = random.Random(seed), []  # noqa: S311 - no secret
    for at in range(NOW - number * DAY, NOW, step):
        if at % DAY < 3 * HOUR:
            continue
        wind = f"wind_direction={(at // step * 7 + chance.randint(-30, 30)) % 360},wind_direction_qc=2i"
        flag = chance.choice((1, 1, 1, 3, 4))
        air = "temperature_qc=4i" if flag == 4 else f"temperature={chance.uniform(-9, 40)},temperature_qc={flag}i"
        lines.append(f"{TAGS} {air},{wind} {at + chance.randint(0, step - 1)}")
    return lines


async def put(store: EmbeddedStore, lines: list[str]) -> None:
    points, errors = parse("\n".join(lines).encode(), "ms")
    assert errors == []
    assert await store.write(points) == []


async def condense(store: EmbeddedStore, now: int = NOW + DAY) -> None:
    while await store.condense(now):
        pass


async def buckets(  # noqa: PLR0913, PLR0917 - a series is named by all of these
    store: EmbeddedStore, quantity: str, start: int, end: int, step: int, shift: int = 0
) -> list[Bucket]:
    direction = QUANTITIES[quantity]
    return await store.buckets(KEY, quantity, start, end, step, direction=direction, shift=shift)


def expected(readings: list[Reading], quantity: str, step: int, shift: int = 0) -> list[Bucket]:
    """What steps of readings are, by the definition of it."""
    if QUANTITIES[quantity]:
        return direction_buckets(readings, step, shift)
    groups: dict[int, list[Reading]] = {}
    for reading in readings:
        groups.setdefault((reading.time - shift) // step * step + shift, []).append(reading)
    found = []
    for at, group in sorted(groups.items()):
        values = [reading.value for reading in group if reading.value is not None]
        mean, low, high = (sum(values) / len(values), min(values), max(values)) if values else (None, None, None)
        found.append(Bucket(at, mean, worst(reading.flag for reading in group), low, high))
    return found


def same(ones: list[Bucket], others: list[Bucket], *, circle: bool) -> None:
    assert [(one.time, one.flag) for one in ones] == [(other.time, other.flag) for other in others]
    for one, other in zip(ones, others, strict=True):
        if circle and one.mean is not None and other.mean is not None:
            assert math.cos(math.radians(one.mean - other.mean)) == pytest.approx(1, abs=1e-6)
        else:
            assert one.mean == pytest.approx(other.mean)
        assert (one.low, one.high) == (other.low, other.high)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quantity", QUANTITIES)
async def test_means_of_hours_say_what_the_readings_say(tmp_path: Path, seed: int, quantity: str) -> None:
    lines = days(seed)
    random.Random(seed).shuffle(lines)  # noqa: S311 - no secret
    async with opened(tmp_path / "city.db") as store:
        for state in ("all due", "all condensed", "some late"):
            await put(store, lines[: len(lines) * 3 // 4] if state == "all due" else lines)
            if state == "all condensed":
                await condense(store)
            for start, end in ((NOW - 3 * DAY, NOW), (NOW - 2 * DAY + 1_234_567, NOW - 7_654_321), (NOW - 99, NOW)):
                readings = await store.readings(KEY, quantity, start, end)
                for step, shift in ((HOUR, 0), (DAY, 8 * HOUR), (5 * HOUR, 0), (DAY, HOUR // 2), (420_000, 0)):
                    found = await buckets(store, quantity, start, end, step, shift)
                    same(found, expected(readings, quantity, step, shift), circle=QUANTITIES[quantity])
            lines += [f"{TAGS} temperature=99,wind_direction=9 {NOW - 2 * DAY + 5 * HOUR + n * 1000}" for n in range(9)]


async def test_single_readings_go_and_the_hours_stay_for_as_long_as_was_asked(tmp_path: Path) -> None:
    async with opened(tmp_path / "city.db") as store:
        await put(store, days(1))
        span = NOW - 3 * DAY, NOW
        before = await buckets(store, "temperature", *span, HOUR)
        await store.prune(NOW - DAY, 0)
        assert min(r.time for r in await store.readings(KEY, "temperature", 0, NOW)) >= NOW - DAY
        same(await buckets(store, "temperature", *span, HOUR), before, circle=False)
        fine = await buckets(store, "temperature", *span, 600_000)
        assert {b.time % HOUR for b in fine if b.time < NOW - DAY} == {0}, "what is old comes by the hour"
        same([b for b in fine if b.time < NOW - DAY], [b for b in before if b.time < NOW - DAY], circle=False)
        await store.prune(NOW - DAY, NOW - 2 * DAY)
        left = await buckets(store, "temperature", *span, HOUR)
        same(left, [b for b in before if b.time >= NOW - 2 * DAY], circle=False)


async def test_in_which_hours_a_sensor_was_heard_is_known_when_its_readings_have_gone(tmp_path: Path) -> None:
    async with opened(tmp_path / "city.db") as store:
        await put(store, days(1))
        before = (await store.heard(NOW - 3 * DAY, NOW, {"wind_direction"}))[KEY]
        await store.prune(NOW - DAY, 0)
        after = (await store.heard(NOW - 3 * DAY, NOW, {"wind_direction"}))[KEY]
        assert (after.hours, after.first // HOUR) == (before.hours, before.first // HOUR)


async def test_what_comes_after_its_hours_readings_have_gone_is_added_once(tmp_path: Path) -> None:
    at = NOW - 2 * DAY
    async with opened(tmp_path / "city.db") as store:
        await put(store, [f"{TAGS} temperature={n},temperature_qc=1i,wind_direction={n} {at + n}" for n in range(3)])
        await store.prune(NOW - DAY, 0)
        for _ in range(2):  # a gateway that does not know whether it was heard sends again
            await put(store, [f"{TAGS} temperature=9,temperature_qc=3i,wind_direction=1 {at + 9}"])
        await condense(store)
        assert await store.readings(KEY, "temperature", 0, NOW) == []
        (mean,) = await buckets(store, "temperature", at, at + HOUR, HOUR)
        assert tuple(mean) == (at, 3, 3, 0, 9)
        (wind,) = await buckets(store, "wind_direction", at, at + HOUR, HOUR)
        assert wind.mean == pytest.approx(1)


async def test_a_file_without_hours_gets_them_in_small_steps_that_may_be_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "city.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{_SCHEMA[0]}{_SCHEMA[1]}PRAGMA user_version = 2;")
        connection.execute("INSERT INTO sensor VALUES (1, ?, ?, ?, 'g')", KEY)
        connection.execute("INSERT INTO channel VALUES (1, 1, 'temperature')")
        rows = [(at, at % 77) for at in range(NOW - 9 * DAY, NOW, 300_000) if (at // DAY) % 3]
        connection.executemany("INSERT INTO reading VALUES (1, ?, ?, 1)", rows)
        connection.commit()
    more, rounds = True, 0
    while more:
        async with opened(path) as store:
            readings = [Reading(at, value, 1) for at, value in rows]
            found = await buckets(store, "temperature", NOW - 9 * DAY, NOW, HOUR)
            same(found, expected(readings, "temperature", HOUR), circle=False)
            more, rounds = await store.condense(NOW + HOUR), rounds + 1
    assert rounds > 2
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (hours,) = connection.execute("SELECT count(*) FROM hour").fetchone()
        assert hours == len({at // HOUR for at, _ in rows})
        assert connection.execute("SELECT * FROM due").fetchall() == []


_BUSY = """
import asyncio, sys
from pathlib import Path
from tests.city import test_hours as its
async def main():
    its.NOW = now = int(sys.argv[2])  # the hour may have changed since
    async with its.opened(Path(sys.argv[1])) as store:
        lines = its.days(5, 9)
        for number in range(0, len(lines), 25):
            await its.put(store, lines[number : number + 25])
            print(number + 25, flush=True)
            await store.condense(now + its.DAY)
            await store.prune(now - 7 * its.DAY, 0)
asyncio.run(main())
"""


@pytest.mark.parametrize("after", [3, 10, 20])
async def test_killed_in_the_midst_nothing_is_lost(tmp_path: Path, after: int) -> None:
    path = tmp_path / "city.db"
    program = sys.executable, "-c", _BUSY, str(path), str(NOW)
    busy = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert busy.stdout is not None
    stored = [int(await busy.stdout.readline()) for _ in range(after)][-1]
    busy.kill()
    await busy.wait()
    async with opened(tmp_path / "whole.db") as whole, opened(path) as store:
        lines = days(5, 9)
        await put(whole, lines)
        until = int(lines[stored - 1].rpartition(" ")[2]) // HOUR * HOUR
        assert until > NOW - 9 * DAY
        for _ in range(2):
            for quantity, circle in QUANTITIES.items():
                span = NOW - 9 * DAY, until, HOUR
                same(await buckets(store, quantity, *span), await buckets(whole, quantity, *span), circle=circle)
            await condense(store)
