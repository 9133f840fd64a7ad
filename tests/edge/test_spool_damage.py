"""A damaged spool opens, keeps every row outside the damaged pages, and says what it has set aside."""

import asyncio
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.edge.batch import DeadLetter, Entry
from gateway.edge.spool import Spool, SpoolError
from gateway.edge.spool_file import PAGE_SIZE
from tests.edge.test_spool import NOW, assert_exact, entry, opened

ROWS = 40
SIZES = (3, 40, 300)  # points of a row: several rows on a page, and several pages a row
FRAGMENT = 24


@dataclass
class Pristine:
    """A spool before the damage.

    Attributes:
        folder: Where it is.
        name: Its file that is to be damaged.
        rows: Its rows.
        pages: Pages of that file, or frames of the log, that hold a part of each row.
        start: Where the first of them begins.
        step: How long they are.
    """

    folder: Path
    name: str
    rows: dict[int, bytes]
    pages: dict[int, set[int]]
    start: int
    step: int


async def fill(spool: Spool) -> None:
    for number in range(ROWS):
        made = entry(SIZES[number % len(SIZES)], 1000 * number, quarantined=1, dead=1)
        made.quarantine = b"quarantine,sensor=a value=%d %d" % (number, NOW)
        made.keys = list(range(100 * number, 100 * number + 100))
        made.dead = [DeadLetter(NOW, "city", "city/x", b"%d" % number, "not JSON")]
        made.time = NOW + number
        await spool.append(made)
    await spool.delivered("a", range(31, 51))
    await spool.delivered("b", range(41, 61))
    await spool.append(Entry(counts={"city": {"received": 1, "duplicate": 1}}))


async def present(spool: Spool) -> dict[int, bytes]:
    return {row.id: row.body for output in "ab" for row in await spool.next_rows(output, 2**30)}


@pytest.fixture(scope="module", params=["spool.db", "spool.db-wal"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    """A spool as it is left when it is closed, or, with its log, when its process is killed."""
    folder = tmp_path_factory.mktemp("pristine")
    name: str = request.param

    async def make() -> dict[int, bytes]:
        async with opened(folder / "spool.db", "ab") as spool:
            await fill(spool)
            if name.endswith("-wal"):
                shutil.copytree(folder, folder / "killed")
            return await present(spool)

    rows = asyncio.run(make())
    if name.endswith("-wal"):
        folder /= "killed"
    content = (folder / name).read_bytes()
    start, step = (32, PAGE_SIZE + 24) if name.endswith("-wal") else (0, PAGE_SIZE)
    pages: dict[int, set[int]] = {}
    for row, body in rows.items():
        pages[row] = set()
        for place in range(0, max(len(body) - FRAGMENT, 1), FRAGMENT):
            found = content.find(body[place : place + FRAGMENT])
            while found >= 0:
                pages[row].add((found - start) // step)
                found = content.find(body[place : place + FRAGMENT], found + 1)
    return Pristine(folder, name, rows, pages, start, step)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cut", [False, True], ids=["flipped", "cut"])
async def test_damage_costs_only_the_rows_of_the_damaged_pages(
    pristine: Pristine, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int, *, cut: bool
) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test that can be repeated
    content = (pristine.folder / pristine.name).read_bytes()
    for attempt in range(20):
        folder = shutil.copytree(pristine.folder, tmp_path / str(attempt))
        place = dice.randrange(len(content))
        page = (place - pristine.start) // pristine.step
        flipped = content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]
        (folder / pristine.name).write_bytes(content[:place] if cut else flipped)
        damaged = {*range(page, len(content) // pristine.step + 1)} if cut else {page}
        caplog.clear()
        async with opened(folder / "spool.db", "ab") as spool:
            kept = await present(spool)
            assert_exact(spool)
            for row, body in pristine.rows.items():
                if damaged.isdisjoint(pristine.pages[row]):
                    assert kept.get(row) == body, (attempt, place, row)
            if not (cut and pristine.name.endswith("-wal")):  # that is how the log ends when the power goes
                assert kept.items() <= pristine.rows.items()
                assert kept == pristine.rows or "damaged" in caplog.text
            assert await spool.append(entry(1)) not in kept
            assert_exact(spool)


@pytest.mark.parametrize("hindered", [False, True], ids=["at once", "when it is possible"])
async def test_a_file_that_is_damaged_while_it_is_in_use_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, hindered: bool
) -> None:
    path = tmp_path / "spool.db"
    async with opened(path, "ab") as spool:
        await fill(spool)
        before = await present(spool)
        db = spool._store.db  # nobody else uses it now
        for pragma in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'batch'").fetchone()
        content = bytearray(path.read_bytes())
        content[(root - 1) * PAGE_SIZE : root * PAGE_SIZE] = bytes([255] * PAGE_SIZE)
        path.write_bytes(content)
        if hindered:
            with monkeypatch.context() as patch:
                patch.setattr("gateway.edge.spool_store.found", lambda _: 1 / 0)
                for _ in range(2):
                    with pytest.raises(SpoolError):
                        await spool.append(entry(1))
        assert await present(spool) == before
        assert await spool.append(entry(1)) > max(before)
        assert_exact(spool)
        assert spool.ledger().total["evicted"] == 0
        assert "malformed" in caplog.text
    async with opened(path, "ab") as spool:
        assert len(await present(spool)) == len(before) + 1
        assert len(spool.keys()) == 100 * ROWS
        assert spool.known_time == NOW + ROWS - 1
