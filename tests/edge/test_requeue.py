"""Dead letters that are tried again: everything good arrives, and the ledger stays exact."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.config import LimitsConfig, SourceConfig
from gateway.edge.batch import DeadLetter, Entry, RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from gateway.edge.redact import Redactor
from gateway.edge.requeue import requeue
from gateway.edge.spool import Refusal, Spool
from sensors import kinds

NOW = 1_790_000_000_000


@dataclass
class Gateway:
    """The steps of the way over one spool; made anew as by a restart with another configuration."""

    spool: Spool
    source: SourceConfig

    def __post_init__(self) -> None:
        self.channels = Channels()
        self.decoder = Decoder([self.source], kinds.builtin(), "gw", self.channels, LimitsConfig())
        self.decoder.remember(self.spool.keys())
        self.redactor = Redactor(self.decoder.sources, self.decoder.kinds)
        self.filter = Filter(self.channels)

    async def take(self, *messages: tuple[str, bytes]) -> None:
        batch = RawBatch([t for t, _ in messages], [p for _, p in messages], [NOW] * len(messages))
        readings = self.decoder.decode(batch)
        entry = encode(readings, self.filter.judge(readings), self.channels, "gw")
        await self.spool.append(entry)
        self.decoder.remember(entry.keys)

    async def again(self) -> int:
        ids = [dead.id for dead in await self.spool.dead_letters(1000)]
        return await requeue(self.spool, self.redactor, self.decoder, self.filter, self.channels, "gw", ids)


@asynccontextmanager
async def spooled(folder: Path) -> AsyncIterator[Spool]:
    spool = Spool(folder / "spool.db", ["a", "b"])
    try:
        yield spool
        assert spool.ledger().mismatches() == []
    finally:
        await spool.close()


async def texts(spool: Spool, output: str = "a") -> list[bytes]:
    return [line for row in await spool.next_rows(output, 2**20) for line in row.text()]


async def test_messages_are_read_once_the_source_is_mended(tmp_path: Path) -> None:
    messages = [(f"town/east/air/a{i}", b'{"ts":%d,"pm25":%d}' % (NOW + i, i % 10)) for i in range(500)]
    async with spooled(tmp_path) as spool:
        await Gateway(spool, SourceConfig()).take(*messages)
        assert spool.ledger().total["dead"] == 500
        mended = Gateway(spool, SourceConfig(topic="town/{site}/{kind}/{sensor}"))
        assert await mended.again() == 500
        assert len(await texts(spool)) == 500
        assert await spool.dead_letters() == []
        total = spool.ledger().total
        assert (total["received"], total["queued"], total["dead"]) == (500, 500, 0)
        await mended.take(*messages[:10])
        assert spool.ledger().total["duplicate"] == 10, "what was tried again is known when it is delivered again"


async def test_what_fails_again_is_a_dead_letter_with_the_reason_of_now(tmp_path: Path) -> None:
    async with spooled(tmp_path) as spool:
        await Gateway(spool, SourceConfig()).take(("town/east/air/a", b"no JSON"))
        (before,) = await spool.dead_letters()
        assert await Gateway(spool, SourceConfig(topic="town/{site}/{kind}/{sensor}")).again() == 1
        (after,) = await spool.dead_letters()
        assert (after.payload, after.received) == (before.payload, before.received)
        assert after.id > before.id
        assert "no declared source" in before.reason
        assert "no declared source" not in after.reason
        assert spool.ledger().total["dead"] == spool.ledger().total["received"] == 1


async def test_the_rest_of_a_message_that_was_read_in_part_arrives(tmp_path: Path) -> None:
    payload = b'{"ts":%d,"pm25":7,"pm 10":9}' % NOW
    async with spooled(tmp_path) as spool:
        await Gateway(spool, SourceConfig()).take(("city/east/air/a", payload))
        assert [b"pm10=" in line for line in await texts(spool)] == [False]
        mended = Gateway(spool, SourceConfig(rename={"pm 10": "pm10"}))
        assert await mended.again() == 1
        lines = await texts(spool)
        assert any(b"pm10=9" in line for line in lines)
        assert {line.rpartition(b" ")[2] for line in lines} == {b"%d" % NOW}, "of the same point"


@pytest.mark.parametrize("payload", [b'{"a b":1,"c d":2,"pm25":"x"}', b'{"a b":1,"c d":2,"pm25":7}'])
async def test_a_message_that_left_several_letters_goes_once(tmp_path: Path, payload: bytes) -> None:
    async with spooled(tmp_path) as spool:
        gateway = Gateway(spool, SourceConfig())
        await gateway.take(("city/east/air/a", payload))
        before = len(await spool.dead_letters())
        assert before >= 2
        first, *_ = await spool.dead_letters(1)
        way = (gateway.redactor, gateway.decoder, gateway.filter, gateway.channels, "gw")
        assert await requeue(spool, *way, [first.id]) == before
        assert len(await spool.dead_letters()) == before, "as many as before, though all of them went"
        assert spool.ledger().total["dead"] == before


async def test_one_message_does_not_fill_the_disk_with_letters(tmp_path: Path) -> None:
    payload = json.dumps({f"n{i}": "x" for i in range(5000)}).encode()
    async with spooled(tmp_path) as spool:
        gateway = Gateway(spool, SourceConfig())
        await gateway.take(("city/east/air/a", payload))
        letters = await spool.dead_letters()
        assert len(letters) == 8
        assert spool.ledger().total["dead"] == 5000
        assert letters[0].reason == "n7: expected a number, not 'x'; and 4992 more"
        assert await gateway.again() == 8
        assert len(await spool.dead_letters()) == 8
        assert spool.ledger().total["dead"] == 5000


async def test_a_refused_point_goes_to_the_output_that_refused_it_and_to_no_other(tmp_path: Path) -> None:
    async with spooled(tmp_path) as spool:
        await Gateway(spool, SourceConfig()).take(("city/east/air/a", b'{"ts":%d,"pm25":7,"pm10":8}' % NOW))
        (row,) = await spool.next_rows("a", 2**20)
        (point,) = row.text()
        await spool.delivered("a", [row.id], [Refusal(row.id, 0, point, "field type conflict")])
        await spool.delivered("b", [row.id])
        assert spool.ledger().total["dead"] == 2
        assert await Gateway(spool, SourceConfig()).again() == 1
        assert await texts(spool, "a") == [point]
        assert await texts(spool, "b") == []
        assert (spool.ledger().total["dead"], spool.ledger().total["queued"]) == (0, 2)


async def test_of_a_flood_the_first_message_arrives_and_the_others_stay_counted(tmp_path: Path) -> None:
    async with spooled(tmp_path) as spool:
        flood = DeadLetter(NOW, "city", "city/east/air/a", b'{"ts":%d,"pm25":7}' % NOW, "flooding", 40)
        await spool.append(Entry(counts={"city": {"received": 40, "dead": 40}}, dead=[flood]))
        assert await Gateway(spool, SourceConfig()).again() == 1
        assert len(await texts(spool)) == 1
        total = spool.ledger().total
        assert (total["received"], total["queued"], total["dead"]) == (40, 1, 39)


async def test_a_message_that_a_step_cannot_bear_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spooled(tmp_path) as spool:
        messages = [(f"town/east/air/a{i}", b'{"ts":%d,"pm25":%d}' % (NOW, i)) for i in range(20)]
        await Gateway(spool, SourceConfig()).take(*messages)
        mended = Gateway(spool, SourceConfig(topic="town/{site}/{kind}/{sensor}"))
        decode = mended.decoder.decode

        def poisoned(batch: RawBatch) -> object:
            if messages[7][0] in batch.topics:
                raise ZeroDivisionError
            return decode(batch)

        monkeypatch.setattr(mended.decoder, "decode", poisoned)
        assert await mended.again() == 20
        assert len(await texts(spool)) == 19
        (letter,) = await spool.dead_letters()
        assert letter.topic == messages[7][0]
        assert "ZeroDivisionError" in letter.reason


async def test_letters_that_are_gone_meanwhile_are_passed_over(tmp_path: Path) -> None:
    async with spooled(tmp_path) as spool:
        gateway = Gateway(spool, SourceConfig())
        await gateway.take(("city/east/air/a", b"no JSON"))
        assert (
            await requeue(spool, gateway.redactor, gateway.decoder, gateway.filter, gateway.channels, "gw", [1, 99])
            == 1
        )
