import os
import random
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.salvage import is_cut, records

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
