import asyncio
import gzip
import os
import random
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge import spool_file
from gateway.edge.batch import DeadLetter, Entry
from gateway.edge.spool import FATES, Refusal, Row, Spool, SpoolError, gzip_of
from gateway.edge.spool_row import join_crc

NOW = 1_700_000_000_000


def entry(points: int, first: int = 0, *, source: str = "city", **fates: int) -> Entry:
    """Points with two readings each; further fates count on top."""
    lines = [
        b"air,sensor=a%d pm25=%d.5,pm25_qc=1i,pm10=2,pm10_qc=1i %d" % (i, i, NOW + i)
        for i in range(first, first + points)
    ]
    counts = {"queued": 2 * points, **fates}
    return Entry(b"\n".join(lines), counts={source: {"received": sum(counts.values()), **counts}})


@asynccontextmanager
async def opened(path: Path, outputs: Iterable[str] = ("a",), **limits: float) -> AsyncIterator[Spool]:
    spool = Spool(path, list(outputs), **{"hold": 0, **limits})  # type: ignore[arg-type]
    try:
        yield spool
    finally:
        await spool.close()


def assert_exact(spool: Spool) -> None:
    ledger = spool.ledger()
    assert ledger.mismatches() == []
    for sources in (ledger.sources, *ledger.outputs.values()):
        for counts in sources.values():
            assert counts["received"] == sum(counts[fate] for fate in FATES)
            assert min(counts.values()) >= 0


def texts(rows: list[Row]) -> list[bytes]:
    return [line for row in rows for line in row.text()]


async def test_what_was_appended_is_there_after_closing(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        assert await spool.append(entry(3)) == 1
        assert await spool.append(entry(2, 3, quarantined=1, duplicate=4)) == 2
        before = spool.ledger()
    async with opened(tmp_path / "spool.db") as spool:
        assert spool.ledger() == before
        assert spool.ledger().total == {
            "received": 15, "delivered": 0, "queued": 10, "quarantined": 1, "dead": 0, "duplicate": 4, "evicted": 0
        }  # fmt: skip
        rows = await spool.next_rows("a", 2**20)
        assert [row.id for row in rows] == [1, 2]
        assert b"\n".join(texts(rows)) == entry(5).lines
        assert spool.backlog("a").rows == 2
        await spool.delivered("a", [1, 2])
        assert spool.backlog("a").rows == 0
        assert spool.ledger().bytes == 0
        assert spool.ledger().total["delivered"] == 10
        assert_exact(spool)


async def test_rows_come_from_either_end_within_the_bytes_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        for i in range(10):
            await spool.append(entry(10, 10 * i))
        size = len(entry(10).lines) + 1
        assert [row.id for row in await spool.next_rows("a", 3 * size + 60)] == [1, 2, 3]
        assert [row.id for row in await spool.next_rows("a", 3 * size + 60, newest_first=True)] == [8, 9, 10]
        assert [row.id for row in await spool.next_rows("a", 1)] == [1]
        await spool.delivered("a", [8, 9, 10])
        assert [row.id for row in await spool.next_rows("a", 1, newest_first=True)] == [7]


async def test_a_row_stays_until_every_output_has_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        for i in range(3):
            await spool.append(entry(1, i))
        await spool.delivered("a", [3, 1])
        await spool.delivered("a", [3, 1])
        assert [row.id for row in await spool.next_rows("a", 2**20)] == [2]
        assert spool.ledger().total["delivered"] == 0
        await spool.delivered("b", [3])
        assert spool.ledger().total["delivered"] == 2
        assert spool.ledger().outputs["a"]["city"]["delivered"] == 4
    async with opened(tmp_path / "spool.db", ["b", "c"]) as spool:
        assert [row.id for row in await spool.next_rows("b", 2**20)] == [1, 2]
        assert [row.id for row in await spool.next_rows("c", 2**20)] == [1, 2]
        await spool.delivered("b", [1, 2])
    async with opened(tmp_path / "spool.db", ["b"]) as spool:
        assert spool.ledger().total["delivered"] == 6
        assert spool.ledger().total["queued"] == 0
        assert_exact(spool)


async def test_a_refused_point_is_a_dead_letter_and_the_rest_is_delivered(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        await spool.append(entry(4))
        (row,) = await spool.next_rows("a", 2**20)
        await spool.delivered("a", [1], [Refusal(1, 2, row.text()[2], "field type conflict")])
        await spool.delivered("b", [1], [Refusal(1, 2, row.text()[2], "field type conflict")])
        total = spool.ledger().total
        assert (total["delivered"], total["dead"], total["queued"]) == (6, 2, 0)
        for output in "ab":
            assert spool.ledger().outputs[output]["city"] == spool.ledger().sources["city"]
        letters = await spool.dead_letters()
        assert [dead.output for dead in letters] == ["b", "a"]
        assert letters[0].payload == row.text()[2]
        assert (letters[0].source, letters[0].reason) == ("city", "field type conflict")
        assert_exact(spool)


async def test_the_oldest_rows_are_evicted_at_the_size_limit_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", max_bytes=20_000) as spool:
        for i in range(400):
            await spool.append(entry(20, 20 * i))
            assert spool.ledger().bytes <= 20_000
        total = spool.ledger().total
        assert total["evicted"] > 0
        assert total["queued"] == sum(row.lines * 2 for row in await spool.next_rows("a", 2**30))
        assert (await spool.next_rows("a", 1, newest_first=True))[0].id == 400
        assert_exact(spool)


async def test_dead_letters_are_bounded_and_the_dropped_counted(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", dead_rows=10, dead_bytes=1000) as spool:
        for i in range(30):
            letter = DeadLetter(NOW, "city", "city/x", b"%03d" % i * 50, "not JSON")
            await spool.append(Entry(counts={"city": {"received": 1, "dead": 1}}, dead=[letter]))
        letters = await spool.dead_letters()
        assert [dead.payload[:3] for dead in letters] == [b"029", b"028", b"027", b"026", b"025", b"024"]
        assert spool.ledger().dead_letters == 6
        assert spool.ledger().dead_dropped == 24
        assert spool.ledger().total["dead"] == 30


async def test_on_a_full_disk_nothing_is_kept_and_the_message_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        await spool.append(entry(10))
        before = spool.ledger()
        (pages,) = await spool._do(lambda: spool._store.db.execute("PRAGMA page_count").fetchone())
        await spool._do(lambda: spool._store.db.execute(f"PRAGMA max_page_count={pages + 1}").fetchone())
        noise = Entry(os.urandom(50_000).replace(b"\n", b""), counts={"city": {"received": 1, "queued": 1}})
        with pytest.raises(SpoolError, match="the disk is full"):
            await spool.append(noise)
        assert spool.ledger() == before
        await spool._do(lambda: spool._store.db.execute("PRAGMA max_page_count=100000").fetchone())
        assert await spool.append(noise) == 2
        assert_exact(spool)


async def test_one_bad_request_does_not_spoil_those_committed_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        wrong = Entry(counts={"city": {"received": 1, "queued": 1}})
        entries = [entry(1, i) for i in range(5)] + [wrong] + [entry(1, i) for i in range(5)]
        results = await asyncio.gather(*(spool.append(item) for item in entries), return_exceptions=True)
        assert isinstance(results.pop(5), ValueError)
        assert results == list(range(1, 11))
        assert spool.ledger().total["received"] == 20


async def test_a_second_gateway_cannot_open_the_spool(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db"):
        with pytest.raises(SpoolError, match="another gateway uses this spool"):
            Spool(tmp_path / "spool.db", ["a"])


async def test_a_spool_of_another_version_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(spool_file, "SCHEMA_VERSION", 99)
        async with opened(tmp_path / "spool.db") as spool:
            await spool.append(entry(1))
    before = (tmp_path / "spool.db").read_bytes()
    with pytest.raises(SpoolError, match="has version 99"):
        Spool(tmp_path / "spool.db", ["a"])
    assert (tmp_path / "spool.db").read_bytes() == before


async def test_another_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("CREATE TABLE other (a)")
    db.close()
    with pytest.raises(SpoolError, match="is no spool"):
        Spool(tmp_path / "spool.db", ["a"])


async def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 1000)
    async with opened(tmp_path / "spool.db") as spool:
        assert await spool.append(entry(1)) == 1
    assert "set aside" in caplog.text
    assert sum(path.name.startswith("spool.db.damaged-") for path in tmp_path.iterdir()) == 1  # noqa: ASYNC240


@pytest.mark.parametrize("seed", range(20))
async def test_a_damaged_spool_opens_with_what_can_be_read(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "spool.db"
    async with opened(path) as spool:
        for i in range(40):
            await spool.append(entry(100, 100 * i))
    content = bytearray(path.read_bytes())
    dice = random.Random(seed)  # noqa: S311 - a test that can be repeated
    if seed % 2:
        content = content[: dice.randrange(len(content))]
    else:
        for _ in range(10):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)
    async with opened(path) as spool:
        known = set(entry(4000).lines.split(b"\n"))
        while rows := await spool.next_rows("a", 2**20):
            assert known.issuperset(texts(rows))
            await spool.delivered("a", [row.id for row in rows])
        await spool.append(entry(1))
        assert_exact(spool)


@pytest.mark.parametrize(
    "column", ["body = x'00' || substr(body, 2)", "body = 'text'", "readings = x'ff'", "lines = 1"]
)
async def test_damage_found_while_running_costs_only_the_damaged_row(tmp_path: Path, column: str) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        for i in range(5):
            await spool.append(entry(10, 10 * i))
        await spool._do(lambda: spool._store.db.execute(f"UPDATE batch SET {column} WHERE id = 3"))  # noqa: S608
        rows = await spool.next_rows("a", 2**20)
        assert [row.id for row in rows] == [1, 2, 4, 5]
        assert spool.backlog("a").rows == 4
        assert spool.ledger().total["dead"] == 20
        assert "damaged" in (await spool.dead_letters())[0].reason
        assert_exact(spool)


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.edge.spool import Spool
from tests.edge.test_spool import entry
async def main():
    spool = Spool(Path(sys.argv[1]), ["a", "b"], max_bytes=100_000, hold=0)
    for i in range(100_000):
        print(await spool.append(entry(20, i, duplicate=1)), flush=True)
        if i % 3 == 0:
            rows = await spool.next_rows("a", 2000, newest_first=i % 2 == 0)
            await spool.delivered("a", [row.id for row in rows])
            await spool.delivered("b", [row.id for row in rows][:2])
asyncio.run(main())
"""


@pytest.mark.parametrize("commits", [1, 2, 7, 20, 50])
async def test_a_kill_takes_nothing_that_was_appended(tmp_path: Path, commits: int) -> None:
    path = tmp_path / "spool.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as writer:  # noqa: ASYNC220 - to be killed
        assert writer.stdout
        for _ in range(commits):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        told = writer.stdout.read().split(b"\n")[:-1]
        last = int(told[-1]) if told else last
    async with opened(path, ["a", "b"], max_bytes=100_000) as spool:
        counts = spool.ledger().sources["city"]
        assert counts["duplicate"] in {last, last + 1}  # the last commit may not have been told
        assert counts["received"] == 41 * counts["duplicate"]
        rows = {row.id for output in "ab" for row in await spool.next_rows(output, 2**30)}
        assert counts["queued"] == 40 * len(rows)
        assert_exact(spool)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8))
def test_joined_rows_are_one_gzip_member(parts: list[bytes]) -> None:
    rows = []
    for i, text in enumerate(parts):
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        body = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        rows.append(Row(i, 0, 1, len(text), zlib.crc32(text), body))
    one = zlib.decompressobj(31)
    assert one.decompress(gzip_of(rows)) == b"".join(parts)
    assert one.eof
    assert not one.unused_data
    assert gzip.decompress(gzip_of(rows)) == b"".join(parts)


@given(st.binary(), st.integers(0, 2**34), st.binary())
@settings(max_examples=50)
def test_checksums_join_at_any_length(first: bytes, zeros: int, last: bytes) -> None:
    assert join_crc(zlib.crc32(first), zlib.crc32(last), len(last)) == zlib.crc32(first + last)
    once = join_crc(join_crc(zlib.crc32(first), 0, zeros), 0, 5)
    assert once == join_crc(zlib.crc32(first), 0, zeros + 5)
