import asyncio
import os
import random
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.batch import DeadLetter, Entry
from gateway.edge.salvage import is_cut, records
from gateway.edge.spool import FATES, Spool

OUTPUTS = ("a", "b")
ROWS = 200
_SCHEMA = """
CREATE TABLE item (id INTEGER PRIMARY KEY, number INTEGER, ratio REAL, name TEXT, body BLOB);
CREATE TABLE pair (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
"""


def items(count: int, seed: int = 1) -> list[tuple[Any, ...]]:
    """Rows of every type and of lengths around those at which a record leaves its page."""
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    numbers = [0, 1, -1, 127, -128, 2**15, -(2**23), 2**31, 2**47 - 1, -(2**63), 2**63 - 1]
    sizes = [0, 1, 100, 430, 460, 1990, 2010, 2020, 2030, 5000, 20_000, 130_000]
    return [
        (row, chance.choice(numbers), chance.random(), "ü" * (row % 7), chance.randbytes(chance.choice(sizes)))
        for row in [-5, 2**40, *range(1, count - 1)]
    ]


def pairs(count: int) -> list[tuple[str, int]]:
    return [(f"{i:05d}" + "x" * (i % 97), i) for i in range(count)]


def database(path: Path, page_size: int, *, wal: bool, rows: int = 80) -> None:
    """A database with both kinds of tables; with its log if asked for, as a killed process leaves it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size={page_size}")
    if wal:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
    db.executescript(_SCHEMA)
    db.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?)", items(rows))
    db.executemany("INSERT INTO pair VALUES (?, ?)", pairs(5 * rows))
    if wal:
        copy = path.with_suffix(".copy")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    db.close()
    if wal:
        copy.rename(path)
        Path(f"{copy}-wal").rename(f"{path}-wal")


@pytest.mark.parametrize("wal", [False, True], ids=["file", "log"])
@pytest.mark.parametrize("page_size", [512, 2048, 4096, 65536])
def test_every_record_of_every_table_is_found(tmp_path: Path, page_size: int, *, wal: bool) -> None:
    path = tmp_path / "some.db"
    database(path, page_size, wal=wal)
    assert set(items(80)) | set(pairs(400)) <= set(records(path))


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 65536])
def test_a_file_without_its_first_page_still_tells_its_page_size(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "some.db"
    database(path, page_size, wal=False)
    with path.open("r+b") as file:
        file.write(os.urandom(page_size))
    assert set(items(80)) | set(pairs(400)) <= set(records(path))


def test_rows_of_the_log_are_found_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    database(path, 2048, wal=True)
    path.unlink()
    assert set(items(80)) | set(pairs(400)) <= set(records(path))


def test_the_newest_version_of_a_record_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
    db.execute("INSERT INTO pair VALUES ('a', 1)")
    for round_ in range(3):  # each begins the log anew, and is shorter than the one before
        for number in range(10 * round_, 10 * round_ + 5 - round_):
            db.execute("UPDATE pair SET number = ?", (number,))
        if round_ < 2:
            db.execute("PRAGMA wal_checkpoint(FULL)")
    found = [columns[1] for columns in records(path) if columns[0] == "a"]
    db.close()
    assert found[-4:] == [13, 20, 21, 22], "of the file, then of the log; before them what earlier rounds left in it"


def test_a_record_is_found_in_the_file_when_its_copy_in_the_log_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    database(path, 2048, wal=False)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("UPDATE item SET body = zeroblob(length(body))")
    wal = Path(f"{path}-wal")
    wal.write_bytes(wal.read_bytes()[:32] + os.urandom(wal.stat().st_size - 32))
    assert set(items(80)) <= set(records(path))
    db.close()


def test_what_is_no_file_has_no_records(tmp_path: Path) -> None:
    assert list(records(tmp_path / "none.db")) == []
    assert list(records(tmp_path)) == []
    assert not is_cut(tmp_path / "none.db")


_START: dict[bool, tuple[bytes, bytes]] = {}


def _start(*, wal: bool) -> tuple[bytes, bytes]:
    if wal not in _START:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "some.db"
            database(path, 512, wal=wal, rows=12)
            _START[wal] = path.read_bytes(), Path(f"{path}-wal").read_bytes() if wal else b""
    return _START[wal]


_spots = st.tuples(st.integers(0, 2**18), st.binary(min_size=1, max_size=12))


@given(
    wal=st.booleans(), spots=st.lists(_spots, max_size=8), ends=st.tuples(st.integers(0, 2**19), st.integers(0, 2**19))
)
@settings(max_examples=150, deadline=None)
def test_no_damage_makes_it_fail(*, wal: bool, spots: list[tuple[int, bytes]], ends: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.db"
        for name, content, end in zip((path, Path(f"{path}-wal")), _start(wal=wal), ends, strict=True):
            data = bytearray(content)
            for at, new in spots:
                place = at % max(len(data), 1)
                data[place : place + len(new)] = new
            name.write_bytes(data[:end])
        assert all(isinstance(columns, tuple) for columns in records(path))
        assert is_cut(path) in {False, True}


@given(main=st.binary(max_size=3000), log=st.binary(max_size=3000))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_it_fail(main: bytes, log: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.db"
        path.write_bytes(b"\x0d" + main)
        Path(f"{path}-wal").write_bytes(struct.pack(">IIII", 0x377F0682, 0, 512, 0) + log)
        assert all(isinstance(columns, tuple) for columns in records(path))
        assert is_cut(path) in {False, True}


def test_a_log_is_cut_when_damage_hides_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    database(path, 512, wal=True, rows=12)
    wal = Path(f"{path}-wal")
    whole = wal.read_bytes()
    assert not is_cut(path)
    chance = random.Random(1)  # noqa: S311 - a test that can be repeated

    def damaged(change: Callable[[bytearray], object]) -> bool:
        data = bytearray(whole)
        change(data)
        wal.write_bytes(data)
        return is_cut(path)

    for _ in range(50):
        place = chance.randrange(len(whole))
        seen = damaged(lambda data, place=place: data.__setitem__(place, data[place] ^ 1))  # type: ignore[misc]
        assert seen, f"byte {place} of the log"


# A real spool, damaged


@dataclass(frozen=True)
class Whole:
    """An undamaged spool, and where in its files everything is.

    Attributes:
        files: Suffix → content: of the database, and of its log if the gateway was killed.
        rows: Id → points of each row.
        lacking: Output → ids that it has yet to get.
        pages: Id → the pages that hold the row.
        newest: Page → suffix and range of its newest copy.
    """

    files: dict[str, bytes]
    rows: dict[int, list[bytes]]
    lacking: dict[str, set[int]]
    pages: dict[int, set[int]]
    newest: dict[int, tuple[str, range]]

    def lost(self, suffix: str, damaged: range) -> set[int]:
        """Ids of the rows that have a byte of the given range on their pages."""
        gone = {
            page
            for page, (where, extent) in self.newest.items()
            if where == suffix and extent.start < damaged.stop and damaged.start < extent.stop
        }
        return {row for row, pages in self.pages.items() if pages & gone}


def _points(row: int, size: int) -> bytes:
    """Points that do not compress well."""
    chance = random.Random(row)  # noqa: S311 - a test that can be repeated
    return b"\n".join(
        b"air,sensor=a%d pm25=%.17g,pm25_qc=1i,pm10=%.17g,pm10_qc=1i %d"
        % (row, chance.random(), chance.random(), 1_790_000_000_000 + 1000 * row + point)
        for point in range(max(size // 60, 1))
    )


async def _whole(folder: Path, *, killed: bool) -> Whole:
    path = folder / "spool.db"
    spool = Spool(path, OUTPUTS)
    chance = random.Random(2)  # noqa: S311 - a test that can be repeated
    for row in range(1, ROWS + 1):
        lines = _points(row, chance.choice([100, 100, 200, 500, 1000, 3000, 10_000, 100_000 if row % 10 == 0 else 800]))
        counts = {"received": 2 * lines.count(b"\n") + 2, "queued": 2 * lines.count(b"\n") + 2}
        letters = [DeadLetter(0, "city", "city/x", b"x" * (row * 7 % 300), "not JSON")] if row % 5 == 0 else []
        counts["dead"] = len(letters)
        counts["received"] += len(letters)
        await spool.append(Entry(lines, counts={"city": counts}, dead=letters))
        if row % 9 == 0:
            await spool.delivered("a", [row - 1, row - 4])
        if row % 27 == 0:
            await spool.delivered("b", [row - 1, row - 5])
        if row == ROWS // 2 and killed:  # so that half of it is in the file, and half in the log
            await spool.close()
            spool = Spool(path, OUTPUTS)
    lacking = {name: {row.id: row.text() for row in await spool.next_rows(name, 2**30)} for name in OUTPUTS}
    if not killed:
        await spool.close()
    files = _files(path)
    assert ("-wal" in files) == killed
    for suffix, content in files.items():
        (folder / f"copy{suffix}").write_bytes(content)
    pages, newest = _pages(folder / "copy", files)
    await spool.close()
    rows = {row: text for texts in lacking.values() for row, text in texts.items()}
    return Whole(files, rows, {name: set(texts) for name, texts in lacking.items()}, pages, newest)


def _files(path: Path) -> dict[str, bytes]:
    return {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal") if Path(f"{path}{suffix}").exists()}


def _pages(path: Path, files: dict[str, bytes]) -> tuple[dict[int, set[int]], dict[int, tuple[str, range]]]:
    """Which pages hold each row, as SQLite itself says, and where the pages are."""
    db = sqlite3.connect(path)
    ids = [row for (row,) in db.execute("SELECT id FROM batch ORDER BY id")]
    (size,) = db.execute("PRAGMA page_size").fetchone()
    pages: dict[int, set[int]] = {}
    leaves: dict[str, list[int]] = {}
    chains = []
    query = "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = 'batch' ORDER BY path"
    left = iter(ids)
    for where, page, kind, cells in db.execute(query):
        if kind == "leaf":
            leaves[where] = [next(left) for _ in range(cells)]
            pages.update((row, {page}) for row in leaves[where])
        elif kind == "overflow":
            chains.append((where, page))
    for where, page in chains:  # /000/00a+000001: the first page of the overflow of cell 10 of the leaf /000
        leaf, _, cell = where.partition("+")[0].rpartition("/")
        pages[leaves[f"{leaf}/"][int(cell, 16)]].add(page)
    db.close()
    newest = {place // size + 1: ("", range(place, place + size)) for place in range(0, len(files[""]), size)}
    log = files.get("-wal", b"")
    for place in range(32, len(log), size + 24):
        newest[int.from_bytes(log[place : place + 4], "big")] = ("-wal", range(place, place + size + 24))
    return pages, newest


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Whole]:
    """A spool closed in order, and one whose gateway was killed."""
    return {killed: asyncio.run(_whole(tmp_path_factory.mktemp("whole"), killed=killed)) for killed in (False, True)}


def _damaged(whole: Whole, path: Path, seed: int, *, truncate: bool) -> tuple[str, set[int]]:
    """Writes the files with one of them damaged at a random place; says which, and the rows on the damaged pages."""
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    place = chance.randrange(sum(len(content) for content in whole.files.values()))
    where, lost = "", set[int]()
    for suffix, content in whole.files.items():
        data = bytearray(content)
        if 0 <= place < len(data):
            where = suffix
            if truncate:
                lost = whole.lost(suffix, range(place, len(data)))
                del data[place:]
            else:
                lost = whole.lost(suffix, range(place, place + 1))
                data[place] ^= chance.randrange(1, 256)
        place -= len(content)
        Path(f"{path}{suffix}").write_bytes(data)
    return where, lost


def _aside(folder: Path) -> list[str]:
    """Names of the spools that were set aside, without their logs."""
    names = [item.name for item in folder.iterdir()]
    return [name for name in names if ".damaged-" in name and not name.endswith(("-wal", "-shm"))]


@pytest.mark.parametrize("truncate", [True, False], ids=["truncated", "flipped"])
@pytest.mark.parametrize("seed", range(100))
async def test_damage_costs_no_row_outside_the_damaged_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wholes: dict[bool, Whole], seed: int, *, truncate: bool
) -> None:
    path = tmp_path / "spool.db"
    whole = wholes[seed % 2 == 1]
    where, lost = _damaged(whole, path, seed, truncate=truncate)
    shortened = truncate and where == "-wal"  # as a power cut leaves it: nobody knows what was there
    spool = Spool(path, OUTPUTS)
    try:
        found = {row.id: row.text() for name in OUTPUTS for row in await spool.next_rows(name, 2**30)}
        for name in OUTPUTS:
            rows = {row.id for row in await spool.next_rows(name, 2**30)}
            assert rows >= whole.lacking[name] - lost, "a row is missing whose pages are whole"
        assert {row: text for row, text in found.items() if whole.rows.get(row, text) != text} == {}
        assert spool.ledger().mismatches() == []
        for counts in spool.ledger().sources.values():
            assert counts["received"] == sum(counts[fate] for fate in FATES)
            assert min(counts.values()) >= 0
        assert all(name in caplog.text for name in _aside(tmp_path))
        assert shortened or found.keys() >= whole.rows.keys() or "damaged" in caplog.text
    finally:
        await spool.close()
