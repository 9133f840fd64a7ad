"""The ledger, whole and by output; held messages, keys, and dead letters that are queued again."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.edge.batch import DeadLetter, Entry, Held
from gateway.edge.spool import Ledger, Peek, Refusal, Spool, SpoolError
from tests.edge.test_spool import NOW, assert_exact, entry, opened, texts

MEGABYTE = 2**20


def held(number: int = 0, readings: int = 2) -> Held:
    return Held("city", "city/x", b"%d" % number, readings, "boot", 1000 + number, NOW)


def holding(*messages: Held) -> Entry:
    readings = sum(message.readings for message in messages)
    return Entry(counts={"city": {"received": readings, "queued": readings}}, held=list(messages))


def unread(number: int = 0, readings: int = 1) -> Entry:
    letter = DeadLetter(NOW, "city", "city/x", b"%d" % number, "not JSON", readings)
    return Entry(counts={"city": {"received": readings, "dead": readings}}, dead=[letter])


async def refuse(spool: Spool, output: str, *lines: int) -> None:
    """The output takes all it lacks, but for these lines of each row."""
    rows = await spool.next_rows(output, MEGABYTE)
    bad = [Refusal(row.id, line, row.text()[line], "conflict") for row in rows for line in lines]
    await spool.delivered(output, [row.id for row in rows], bad)


async def test_every_output_has_its_own_ledger(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        await spool.append(entry(5, duplicate=1, quarantined=2))
        await refuse(spool, "a", 0)
        ledger = spool.ledger()
        fates = {"received": 13, "delivered": 8, "queued": 0, "quarantined": 2, "dead": 2, "duplicate": 1, "evicted": 0}
        assert ledger.outputs["a"]["city"] == fates
        assert ledger.outputs["b"]["city"] == {**fates, "delivered": 0, "queued": 10, "dead": 0}
        assert ledger.total == ledger.outputs["b"]["city"]
        assert_exact(spool)


async def test_the_ledger_of_a_later_output_begins_with_what_is_queued(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a"]) as spool:
        await spool.append(entry(5))
        await refuse(spool, "a")
        mixed = entry(3, quarantined=2)
        mixed.quarantine = b"quarantine,sensor=a value=1 5"
        await spool.append(mixed)
        await spool.append(holding(held()))
        await spool.append(unread())
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        assert spool.ledger().outputs["b"]["city"] == {
            "received": 10, "delivered": 0, "queued": 8, "quarantined": 2, "dead": 0, "duplicate": 0, "evicted": 0
        }  # fmt: skip
        assert_exact(spool)
        (letter,) = await spool.dead_letters()
        await spool.requeue([letter.id], entry(1))
        await refuse(spool, "b")
        assert spool.ledger().outputs["b"]["city"]["delivered"] == 8
        assert_exact(spool)


async def test_a_ledger_says_in_words_what_does_not_add_up() -> None:
    fates = {"received": 10, "delivered": 4, "queued": 3, "quarantined": 0, "dead": 0, "duplicate": 0, "evicted": 3}
    exact = Ledger({"city": fates}, {"a": {"city": fates}}, 0, 0, 0, {"city": 3}, {"a": {"city": 3}})
    assert exact.mismatches() == []
    wrong = {**fates, "delivered": -4}
    (unequal, negative) = replace(exact, outputs={"a": {"city": wrong}}).mismatches()
    assert unequal.startswith("source 'city', output 'a': 10 received, but 2")
    assert "delivered is -4" in negative
    (missing,) = replace(exact, waiting={}).mismatches()
    assert missing == "source 'city': 3 queued, but 0 in the spool"
    (strange,) = replace(exact, waiting={"city": 3, "river": 1}).mismatches()
    assert "'river': 0 queued, but 1" in strange


async def test_keys_and_the_time_are_known_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", keys_kept=1000) as spool:
        assert (spool.keys(), spool.known_time) == ([], 0)
        expected: list[int] = []
        for number in range(200):
            keys = [2**64 - 1 - 1000 * number - i for i in range(1 + number % 30)]
            await spool.append(replace(entry(1), keys=keys, time=NOW + number))
            expected += keys
        await spool.append(entry(1))
        assert spool.known_time == NOW + 199
    async with opened(tmp_path / "spool.db", keys_kept=1000) as spool:
        assert spool.keys() == expected[-1000:]
        assert spool.known_time == NOW + 199
        await spool.append(Entry(time=5, keys=list(range(3000))))  # the clock was ahead
    async with opened(tmp_path / "spool.db", keys_kept=1000) as spool:
        assert spool.keys() == list(range(2000, 3000))
        assert spool.known_time == 5


async def test_held_messages_wait_and_are_released_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        assert await spool.append(holding(held(0), held(1, 3))) == 0
        assert spool.ledger().total["queued"] == 5
        assert spool.ledger().bytes > 0
        assert_exact(spool)
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        first, second = await spool.held(10)
        assert first == replace(held(0), id=first.id)
        assert [message.id for message in await spool.held(1)] == [first.id]
        await spool.append(replace(entry(1), released=[first.id]))
        assert await spool.held(10) == [second]
        await spool.append(replace(entry(1, quarantined=1), released=[second.id]))
        assert spool.ledger().total["received"] == 5
        assert spool.ledger().total["queued"] == 4
        assert_exact(spool)
        assert spool._state.held_low == 3


async def test_readings_that_are_nowhere_are_an_error(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        for wrong in (
            Entry(counts={"city": {"received": 1, "queued": 1}}),
            Entry(counts={"city": {"received": 1, "queued": 1}}, held=[held(readings=2)]),
            Entry(held=[held()]),
        ):
            with pytest.raises(ValueError, match="queued"):
                await spool.append(wrong)
        assert spool.ledger().total["received"] == 0


async def test_a_message_that_can_be_read_now_leaves_the_dead_letters(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b"]) as spool:
        for number in range(3):
            await spool.append(unread(number, readings=5))
        assert spool.ledger().total["dead"] == 15
        letters = await spool.dead_letters()
        assert (letters[0].payload, letters[0].readings, letters[0].output) == (b"2", 5, "")
        assert await spool.requeue([letters[0].id, letters[2].id], entry(4)) == 2
        assert [letter.id for letter in await spool.dead_letters()] == [letters[1].id]
        assert spool.ledger().total == {
            "received": 13, "delivered": 0, "queued": 8, "quarantined": 0, "dead": 5, "duplicate": 0, "evicted": 0
        }  # fmt: skip
        before = spool.ledger()
        with pytest.raises(LookupError, match="no dead letter"):
            await spool.requeue([letters[1].id, letters[0].id], entry(4))
        assert spool.ledger() == before
        assert_exact(spool)


@pytest.mark.parametrize("early", [True, False], ids=["while the row is here", "after it has gone"])
async def test_a_refused_point_is_queued_again_for_its_output_alone(tmp_path: Path, *, early: bool) -> None:
    async with opened(tmp_path / "spool.db", ["a", "b", "c"]) as spool:
        await spool.append(entry(4))
        (row,) = await spool.next_rows("a", MEGABYTE)
        await refuse(spool, "a", 1, 2)
        await refuse(spool, "b", 2)
        if not early:
            await refuse(spool, "c")
            assert spool.ledger().total["dead"] == 4
        letters = await spool.dead_letters()
        assert await spool.requeue([letter.id for letter in letters]) == 3
        assert_exact(spool)
        assert await spool.dead_letters() == []
        assert sorted(texts(await spool.next_rows("a", MEGABYTE))) == row.text()[1:3]
        assert texts(await spool.next_rows("b", MEGABYTE)) == [row.text()[2]]
        assert texts(await spool.next_rows("c", MEGABYTE)) == (row.text() if early else [])
        for output in "abc":
            await refuse(spool, output)
            assert_exact(spool)
        for counts in (spool.ledger().total, *(spool.ledger().outputs[output]["city"] for output in "abc")):
            assert (counts["received"], counts["delivered"], counts["dead"]) == (8, 8, 0)
        assert spool.ledger().bytes == 0


async def test_a_refused_point_stays_when_its_output_is_no_longer_configured(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db", ["a"]) as spool:
        await spool.append(entry(2))
        await refuse(spool, "a", 0)
    async with opened(tmp_path / "spool.db", ["b"]) as spool:
        (letter,) = await spool.dead_letters()
        assert await spool.requeue([letter.id]) == 0
    async with opened(tmp_path / "spool.db", ["a"]) as spool:  # its ledger is a new one
        assert await spool.requeue([letter.id]) == 1
        await refuse(spool, "a")
        assert spool.ledger().total["delivered"] == 4
        assert spool.ledger().outputs["a"]["city"]["received"] == 2
        assert_exact(spool)


async def test_who_looks_in_while_rows_come_and_go_sees_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"

    def look() -> list[str]:
        with Peek(path) as peek:
            return peek.ledger().mismatches()

    async with opened(path) as spool:
        await spool.append(entry(1))
        for _ in range(50):
            looking = asyncio.create_task(asyncio.to_thread(look))
            while not looking.done():
                row = await spool.append(entry(1))
                await spool.delivered("a", [row])
            assert await looking == []


async def test_another_process_looks_in_and_asks(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    async with opened(path, ["a", "b"]) as spool:
        mixed = entry(3, quarantined=1)
        mixed.quarantine = b"quarantine,sensor=a value=1 5"
        await spool.append(mixed)
        await refuse(spool, "a", 0)
        await spool.append(unread())
        await spool.append(holding(held()))
        assert await spool.requests() == []
        with Peek(path) as peek:
            assert [(row.id, row.kind, row.lines, row.outputs) for row in peek.rows()] == [
                (1, "raw", 3, ("b",)),
                (2, "quarantine", 1, ("b",)),
            ]
            row = peek.row(1)
            assert row
            assert row.text() == entry(3).lines.split(b"\n")
            assert peek.row(3) is None
            assert peek.ledger() == spool.ledger()
            assert peek.held() == await spool.held(9)
            letters = peek.dead_letters()
            assert [letter.output for letter in letters] == ["", "a", "a"]
            peek.ask([letters[0].id, letters[1].id, 999])
        assert await spool.requests() == sorted(letter.id for letter in letters[:2])
        await spool.requeue([letters[1].id])
        assert await spool.requests() == [letters[0].id]
    with Peek(path) as peek:  # nobody else has it open
        assert len(peek.dead_letters()) == 2
    with pytest.raises(SpoolError, match=r"other\.db"):
        Peek(tmp_path / "other.db")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SpoolError, match="damaged"):
        Peek(path)


async def test_an_idle_spool_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.edge.spool._NOTE_WITHIN", 0.05)
    path = tmp_path / "spool.db"

    def files() -> dict[str, tuple[int, bytes]]:
        names = [file for file in tmp_path.iterdir() if not file.name.endswith("-shm")]  # the log's index, in memory
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in names}

    def noted() -> int:
        with sqlite3.connect(path) as db:
            return int(db.execute("SELECT count(*) FROM batch").fetchone()[0])

    async with opened(path) as spool:
        await spool.append(entry(3))
        before = files()
        rows = await spool.next_rows("a", MEGABYTE)
        await spool.next_rows("a", MEGABYTE, without=[1])
        await spool.requests()
        await spool.held(5)
        await spool.dead_letters()
        assert files() == before
        await spool.delivered("a", [row.id for row in rows])
        while noted():  # noqa: ASYNC110 - another connection sees it when it is on the disk
            await asyncio.sleep(0.01)
        before = files()
        await asyncio.sleep(0.2)
        assert files() == before


async def test_rows_on_their_way_are_not_given_out_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.db") as spool:
        for number in range(6):
            await spool.append(entry(10, 10 * number))
        size = len(entry(10, 50).lines) + 1
        assert [row.id for row in await spool.next_rows("a", 2 * size, without={1, 3})] == [2, 4]
        assert [row.id for row in await spool.next_rows("a", 2 * size, newest_first=True, without=[6])] == [4, 5]
        assert await spool.next_rows("a", size, without=range(1, 7)) == []


async def test_a_delivery_that_a_kill_takes_is_sent_again_and_counted_once(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, time; from pathlib import Path; from gateway.edge.spool import Spool\n"
        "from tests.edge.test_spool import entry\n"
        "async def main():\n"
        "    spool = Spool(Path(sys.argv[1]), ['a'])\n"
        "    for i in range(3): await spool.append(entry(2, i))\n"
        "    await spool.delivered('a', [1])\n"
        "    await spool.append(entry(2, 3))\n"
        "    await spool.delivered('a', [2, 3])\n"
        "    print(spool.ledger().total['delivered'], flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "spool.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:  # noqa: ASYNC220
        assert writer.stdout
        assert writer.stdout.readline() == b"12\n"
        writer.send_signal(signal.SIGKILL)
    async with opened(tmp_path / "spool.db") as spool:
        rows = await spool.next_rows("a", MEGABYTE)
        assert [row.id for row in rows] == [2, 3, 4]
        await spool.delivered("a", [row.id for row in rows])
        assert spool.ledger().total["delivered"] == 16
        assert_exact(spool)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6), st.integers(0, 3), st.sampled_from(["city", "river"])),
        st.tuples(st.just("deliver"), st.sampled_from("abc"), st.booleans(), st.integers(0, 3)),
        st.tuples(st.just("hold"), st.integers(1, 3)),
        st.tuples(st.just("release"), st.integers(1, 3)),
        st.tuples(st.just("requeue"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("reopen"), st.sampled_from(["a", "b", "ab", "abc"])),
    ),
    max_size=30,
)
LIMITS: dict[str, Any] = {"max_bytes": 3000, "hold": 0, "dead_rows": 6, "dead_bytes": 1000, "keys_kept": 20}


class Play:
    """Does to a spool whatever comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = "ab"
        self.spool = Spool(path, self.names, **LIMITS)

    async def append(self, points: int, others: int, source: str) -> None:
        made = entry(points, source=source, quarantined=others, duplicate=1)
        made.quarantine = b"\n".join([b"quarantine,sensor=a value=1 5"] * others)
        made.events = b"event,sensor=a value=1 5" if others else b""
        made.sums = b"gateway received=1i 5"
        made.keys = list(range(points))
        await self.spool.append(made)

    async def deliver(self, output: str, newest: bool, refused: int) -> None:  # noqa: FBT001 - as drawn
        if output in self.names:
            rows = await self.spool.next_rows(output, 500, newest_first=newest)
            bad = [Refusal(row.id, line, text, "no") for row in rows for line, text in enumerate(row.text())]
            await self.spool.delivered(output, [row.id for row in rows], bad[:refused])

    async def hold(self, count: int) -> None:
        await self.spool.append(holding(*(held(number) for number in range(count))))

    async def release(self, count: int) -> None:
        released = [message.id for message in await self.spool.held(count)]
        made = entry(len(released)) if released else Entry()
        await self.spool.append(replace(made, released=released))

    async def requeue(self, count: int, unreadable: bool) -> None:  # noqa: FBT001 - as drawn
        if unreadable:
            await self.spool.append(unread(readings=count))
        letters = (await self.spool.dead_letters())[:count]
        again = sum(letter.readings for letter in letters if not letter.output)
        made = Entry(counts={"city": {"received": again, "duplicate": again}})
        await self.spool.requeue([letter.id for letter in letters], made)

    async def reopen(self, outputs: str) -> None:
        before = self.spool.ledger()
        await self.spool.close()
        self.spool = Spool(self.path, outputs, **LIMITS)
        if outputs == self.names:
            assert self.spool.ledger() == before
        self.names = outputs

    async def check(self) -> None:
        assert_exact(self.spool)
        for output in self.names:
            rows = await self.spool.next_rows(output, 2**30)
            assert self.spool.backlog(output).rows == len(rows)
            assert self.spool.backlog(output).bytes == sum(row.raw_bytes for row in rows)


@example([("append", 1, 0, "city"), *[("deliver", "b", False, 1), ("requeue", 1, False)] * 3])
@given(OPERATIONS)
@settings(max_examples=50, deadline=None)
def test_the_ledger_is_exact_after_any_sequence(operations: list[tuple[Any, ...]]) -> None:
    async def play(folder: Path) -> None:
        game = Play(folder / "spool.db")
        try:
            for name, *arguments in operations:
                try:
                    await getattr(game, name)(*arguments)
                except SpoolError as error:  # full, and the look that check() takes gave its oldest rows out
                    if "just being sent" not in str(error):
                        raise
                await game.check()
        finally:
            await game.spool.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
