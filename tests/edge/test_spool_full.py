"""The spool when its size limit is reached or its disk is full, on a real file system of 8 MB."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.edge.batch import DeadLetter, Entry, Held
from gateway.edge.spool import Peek, Spool, SpoolError
from tests.edge.test_spool import NOW, assert_exact, entry, opened, texts

MEGABYTE = 2**20
NAMES = ("air", "gateway", "quarantine", "event")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"no file system of 8 MB without the right to mount one: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def noise(number: int, size: int = 20_000) -> Entry:
    """An entry that cannot be compressed; 100 readings."""
    text = random.Random(number).randbytes(size // 2).hex().encode()  # noqa: S311 - it can be repeated
    return Entry(b"air,sensor=a v=%s %d" % (text, number), counts={"city": {"received": 100, "queued": 100}})


def fill(folder: Path) -> Path:
    """What another program does to the disk."""
    path = folder / "other"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


async def drain(spool: Spool, output: str = "a") -> set[bytes]:
    lines: set[bytes] = set()
    while rows := await spool.next_rows(output, MEGABYTE):
        lines.update(texts(rows))
        await spool.delivered(output, [row.id for row in rows])
    return lines


async def test_load_on_a_small_disk_evicts_the_oldest_and_recovers(small: Path) -> None:
    async with opened(small / "spool.db", ["a", "b"]) as spool:
        last = 0
        for number in range(2000):
            last = await spool.append(noise(number))
            if number % 100 == 0:
                assert_exact(spool)
        ledger = spool.ledger()
        assert ledger.total["received"] == 200_000
        assert ledger.total["evicted"] > 0
        assert ledger.bytes > 4 * MEGABYTE  # the disk is used
        assert (await spool.next_rows("a", 1, newest_first=True))[0].id == last
        kept = ledger.total["queued"] // 100
        for output in "ab":
            assert await drain(spool, output) == {noise(number).lines for number in range(2000 - kept, 2000)}
        assert spool.ledger().total["delivered"] == 100 * kept
        assert_exact(spool)
    async with opened(small / "spool.db", ["a", "b"]) as spool:
        evicted = spool.ledger().total["evicted"]
        for number in range(100):
            await spool.append(noise(number))
        assert spool.ledger().total["evicted"] == evicted
        assert_exact(spool)


async def test_a_disk_filled_by_another_program_holds_the_messages_back_and_takes_deliveries(small: Path) -> None:
    async with opened(small / "spool.db", hold=3600) as spool:
        for number in range(50):
            await spool.append(noise(number))
        other = fill(small)
        before = spool.ledger()
        for number in range(50, 60):
            with pytest.raises(SpoolError, match="disk is full"):
                await spool.append(noise(number, 200_000))
        assert spool.ledger() == before
        assert await drain(spool) == {noise(number).lines for number in range(50)}
        await spool.append(Entry(counts={"city": {"received": 1, "duplicate": 1}}))
        other.unlink()
        for number in range(50, 150):
            await spool.append(noise(number))
        total = spool.ledger().total
        assert (total["received"], total["delivered"], total["queued"]) == (15_001, 5000, 10_000)
        assert_exact(spool)


async def test_a_full_disk_evicts_after_the_hold_and_goes_on_until_there_is_room(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr("gateway.edge.spool_store.monotonic", lambda: clock)
    async with opened(small / "spool.db", hold=60) as spool:
        for number in range(200):
            await spool.append(noise(number))
        other = fill(small)
        with pytest.raises(SpoolError, match="disk is full"):
            await spool.append(noise(200))
        clock += 59
        with pytest.raises(SpoolError, match="disk is full"):
            await spool.append(noise(200))
        assert spool.ledger().total["evicted"] == 0
        clock += 2
        for number in range(200, 300):
            await spool.append(noise(number))
        assert spool.ledger().total["evicted"] >= 5000
        assert_exact(spool)
        other.unlink()
        await drain(spool)
        evicted = spool.ledger().total["evicted"]
        for number in range(100):
            await spool.append(noise(number))
        assert spool.ledger().total["evicted"] == evicted
        assert_exact(spool)


async def test_a_spool_opens_and_delivers_on_a_disk_that_is_full(small: Path) -> None:
    async with opened(small / "spool.db") as spool:
        for number in range(50):
            await spool.append(noise(number))
    fill(small)
    async with opened(small / "spool.db", ["a", "new"], hold=3600) as spool:
        with pytest.raises(SpoolError, match="disk is full"):
            await spool.append(noise(50))
        for output in ("a", "new"):
            assert await drain(spool, output) == {noise(number).lines for number in range(50)}
        assert spool.ledger().total["delivered"] == 5000
        assert_exact(spool)


async def test_dead_letters_do_not_fill_a_small_disk(small: Path) -> None:
    async with opened(small / "spool.db") as spool:
        for number in range(300):
            letter = DeadLetter(NOW, "city", "city/x", os.urandom(50_000), "not JSON")
            await spool.append(Entry(counts={"city": {"received": 1, "dead": 1}}, dead=[letter]))
            await spool.append(noise(number))
        ledger = spool.ledger()
        assert ledger.dead_letters > 0
        assert ledger.dead_letters + ledger.dead_dropped == ledger.total["dead"] == 300
        assert ledger.total["queued"] > 0
        assert_exact(spool)


async def test_the_ballast_is_given_up_on_a_full_disk_and_taken_again(small: Path) -> None:
    reserve = small / "spool.db.reserve"
    async with opened(small / "spool.db", hold=3600) as spool:
        size = reserve.stat().st_size
        assert size > 0
        for number in range(20):
            await spool.append(noise(number))
        other = fill(small)
        await spool._do(spool._store.full)  # as when a transaction has no room
        assert not reserve.exists()
        other.unlink()
        await spool.append(noise(20))
        assert reserve.stat().st_size == size
        assert_exact(spool)


async def test_classes_are_evicted_in_the_declared_order(tmp_path: Path) -> None:
    def mixed(number: int) -> Entry:
        made = entry(20, 20 * number, quarantined=3)
        made.quarantine = b"quarantine,sensor=a value=%d %d" % (number, NOW)
        made.events = b"event,sensor=a value=%d %d" % (number, NOW)
        made.sums = b"gateway,gateway=g received=%d %d" % (number, NOW)
        return made

    async def classes(spool: Spool) -> dict[str, int]:
        with Peek(spool.path) as peek:  # rows that an output is given would not be evicted under its hands
            lines = texts([row for waiting in peek.rows() if (row := peek.row(waiting.id))])
        return {name: sum(line.startswith(name.encode()) for line in lines) for name in NAMES}

    async with opened(tmp_path / "spool.db", ["a", "b"], max_bytes=20_000) as spool:
        number = 0
        while not spool.ledger().total["evicted"]:
            await spool.append(mixed(number))
            number += 1
        assert_exact(spool)
        assert spool.ledger().total["quarantined"] == 3 * number
        assert await classes(spool) == {
            "air": 20 * number - spool.ledger().total["evicted"] // 2,
            "gateway": number,
            "quarantine": number,
            "event": number,
        }
        for _ in range(50):
            await spool.append(mixed(number))
            number += 1
            assert_exact(spool)
        counts = await classes(spool)
        assert counts["air"] <= 20  # the newest entry is not evicted for itself
        assert counts["gateway"] <= 1
        assert 0 < counts["quarantine"] < counts["event"] == number
        assert spool.ledger().total["quarantined"] == 3 * counts["quarantine"]
    async with opened(tmp_path / "other.db", max_bytes=12_000, evict=["event"]) as spool:  # type: ignore[arg-type]
        number = 0
        while (await classes(spool))["event"] == number:
            await spool.append(mixed(number))
            number += 1
        assert (await classes(spool))["air"] == 20 * number
        assert spool.ledger().total["evicted"] == 0
        assert_exact(spool)


async def test_a_full_spool_refuses_until_the_hold_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = 1000.0
    monkeypatch.setattr("gateway.edge.spool_store.monotonic", lambda: clock)
    async with opened(tmp_path / "spool.db", max_bytes=100_000, hold=60) as spool:
        kept = 8
        for number in range(kept):
            await spool.append(noise(number))
        with pytest.raises(SpoolError, match="size limit"):
            await spool.append(noise(kept))
        clock += 61
        for number in range(10):  # no new wait for each of them
            await spool.append(noise(kept + number))
        assert spool.ledger().total["evicted"] == 1000
        assert sum("evicted" in record.message for record in caplog.records) == 1
        await drain(spool)
        for number in range(kept):
            await spool.append(noise(number))
        with pytest.raises(SpoolError, match="size limit"):  # it was well again: the broker holds anew
            await spool.append(noise(kept))
        assert spool.ledger().total["evicted"] == 1000
        assert_exact(spool)


async def test_what_is_just_being_sent_is_not_evicted(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", max_bytes=20_000) as spool:
        for number in range(3):
            await spool.append(noise(number, 10_000))
        (oldest, *_) = await spool.next_rows("a", 1)
        with pytest.raises(SpoolError, match="just being sent"):
            await spool.append(noise(3, 12_000))
        await spool.delivered("a", [oldest.id])
        await spool.append(noise(4, 3_000))
        assert spool.ledger().total["delivered"] == 100
        assert spool.ledger().total["evicted"] == 0
        assert_exact(spool)


async def test_held_messages_are_evicted_after_the_readings(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", max_bytes=50_000) as spool:
        held = [Held("city", "city/x", b"{}", 2, "boot", 5, 0)]
        await spool.append(Entry(counts={"city": {"received": 2, "queued": 2}}, held=held))
        for number in range(10):
            await spool.append(noise(number))
        assert len(await spool.held(10)) == 1
        await spool.append(noise(10, 99_000))
        assert await spool.held(10) == []
        assert spool.ledger().total["evicted"] == 1002
        assert_exact(spool)
