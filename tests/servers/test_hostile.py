"""Senders that are broken, or mean it: what they send is counted, and nobody else notices."""

import asyncio
import contextlib
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.publish import Broker, Publisher
from tests.chaos.parts import FATES, Site, imbalance

START = 1_700_000_000_000
SENSORS = 1000  # `[limits] sensors`
WITHIN = 60.0

Message = tuple[str, bytes]
MakeSite = Callable[..., Site]


@pytest.fixture(scope="module")
def make_site(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str, str], str]) -> Iterator[MakeSite]:
    """Factory of sites: a broker that passes everything on, a gateway and a database."""
    programs = program("mosquitto", "mosquitto"), program("influxd", "influxdb")
    with contextlib.ExitStack() as sites:

        def make(settings: str = "") -> Site:
            folder = tmp_path_factory.mktemp("hostile")
            output = 'flush_interval = "200ms"'
            site = Site(folder, *programs, output=output, settings=settings, broker="max_packet_size 100000000")
            sites.enter_context(site)
            site.broker.start()
            site.gateway.start()
            return site

        yield make


@pytest.fixture(scope="module")
def shared(make_site: MakeSite) -> Site:
    """For tests that leave the gateway as it was."""
    return make_site()


async def ledger(site: Site) -> dict[str, int]:
    """All sources together; it adds up, or the test fails."""
    sums = dict.fromkeys(("received", *FATES), 0)
    async with asyncio.timeout(WITHIN):
        while (state := await site.health()) is None or not state["broker"]["connected"]:
            site.check()
            await asyncio.sleep(0.05)
    for counts in state["ledger"].values():
        assert imbalance(counts) is None
        for fate in sums:
            sums[fate] += counts[fate]
    return sums


async def settled(site: Site, **goal: int) -> dict[str, int]:
    """The ledger, once it says what is expected."""
    counts = await ledger(site)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            while {fate: counts[fate] for fate in goal} != goal:
                await asyncio.sleep(0.05)
                counts = await ledger(site)
    assert {fate: counts[fate] for fate in goal} == goal, counts
    return counts


async def publish(site: Site, messages: Sequence[Message]) -> None:
    async with Publisher(Broker("127.0.0.1", site.broker.port)) as publisher:
        for topic, payload in messages:
            await publisher.publish(topic, payload)
        await publisher.drain()


async def stored(site: Site, sensor: str = "") -> list[list[float]]:
    where = f"WHERE sensor = '{sensor}'" if sensor else ""
    return await site.query(f"SELECT * FROM air {where}")  # noqa: S608


def ordinary(number: int, sensor: str = "good") -> Message:
    return f"city/east/air/{sensor}", b'{"ts":%d,"pm25":%.1f}' % (START + number * 60_000, 10 + number % 17)


async def nobody_else_notices(site: Site, before: dict[str, int], **grown: int) -> None:
    """Fates have grown as expected, by nothing else; a reading that follows is stored; the gateway has not fallen."""
    pid = site.gateway.pid
    number = len(await stored(site, "good"))
    await publish(site, [ordinary(number)])
    expected = {fate: before[fate] + grown.get(fate, 0) for fate in FATES}
    expected["delivered"] += 1
    await settled(site, **expected)
    rows = await site.query(f"SELECT pm25 FROM air WHERE sensor = 'good' AND time = {START + number * 60_000}ms")  # noqa: S608
    assert rows == [[START + number * 60_000, 10 + number % 17]]
    site.gateway.check()
    assert site.gateway.pid == pid
    assert "Traceback" not in site.gateway.log()


TOPIC = "city/east/air/{}"
DEAD = {
    "NaN": b'{"ts":%d,"pm25":NaN}',
    "Infinity": b'{"ts":%d,"pm25":-Infinity}',
    "1e999": b'{"ts":%d,"pm25":1e999}',
    "an integer of 400 digits": b'{"ts":%%d,"pm25":1%b}' % (b"0" * 400),
    "an integer of 5,000 digits": b'{"ts":%%d,"pm25":1%b}' % (b"0" * 5000),
    "a time of 400 digits": b'{"ts":1%b,"pm25":1}' % (b"0" * 400),
    "a time before the calendar": b'{"ts":"0001-01-01T00:00:00+14:00","pm25":1}',
    "a time after the calendar": b'{"ts":"9999-12-31T23:59:59-14:00","pm25":1}',
    "a time that is true": b'{"ts":true,"pm25":1}',
    "no UTF-8": b'\xff\xfe{"ts":%d,"pm25":1}',
    "no UTF-8 within": b'{"ts":%d,"pm25":"\xc3\x28"}',
    "half a surrogate": b'{"ts":%d,"\\ud800":1}',
    "lists 900 deep": b'{"ts":%%d,"pm25":%b1%b}' % (b"[" * 900, b"]" * 900),
    "lists 990 deep": b'{"ts":%%d,"pm25":%b1%b}' % (b"[" * 990, b"]" * 990),
    "lists 100,000 deep": b'{"ts":%%d,"pm25":%b1%b}' % (b"[" * 100_000, b"]" * 100_000),
    "objects 100,000 deep, cut off": b'{"a":' * 40_000,
    "a text": b'{"ts":%d,"pm25":"high"}',
    "a list": b'{"ts":%d,"pm25":[1,2,3]}',
    "an object": b'{"ts":%d,"pm25":{"value":1}}',
    "no object": b"12.5",
    "nothing": b"",
    "a quantity that writes its own fields": b'{"ts":%d,"pm25=1,forged":1}',
    "a quantity that writes its own line": b'{"ts":%d,"a 1\\nair,sensor=forged pm25":1}',
    "900,000 bytes": b'{"ts":%%d,"note":"%b","pm25":1}' % (b"x" * 900_000),
}


@pytest.mark.parametrize("payload", DEAD.values(), ids=DEAD)
async def test_what_cannot_be_read_is_one_dead_letter(shared: Site, payload: bytes) -> None:
    before, sensor = await ledger(shared), f"bad{zlib.crc32(payload)}"
    await publish(shared, [(TOPIC.format(sensor), payload.replace(b"%d", b"%d" % START))])
    await nobody_else_notices(shared, before, dead=1)
    assert not await stored(shared, sensor)


async def test_a_value_that_cannot_be_read_costs_not_the_one_beside_it(shared: Site) -> None:
    before = await ledger(shared)
    await publish(shared, [("city/east/air/half", b'{"ts":%d,"pm25":1e999,"pm10":20,"o3":[]}' % START)])
    await nobody_else_notices(shared, before, dead=2, delivered=1)
    assert await site_values(shared, "half") == [20]


async def site_values(site: Site, sensor: str) -> list[float]:
    return [row[1] for row in await site.query(f"SELECT pm10 FROM air WHERE sensor = '{sensor}'")]  # noqa: S608


async def test_a_time_from_before_the_clock_was_set_is_kept_as_it_was_sent(shared: Site) -> None:
    before = await ledger(shared)
    await publish(shared, [("city/east/air/dawn", b'{"ts":"1970-01-01T00:05:00Z","pm25":1}')])
    await nobody_else_notices(shared, before, delivered=1)
    assert [row[0] for row in await stored(shared, "dawn")] == [300_000]


@pytest.mark.parametrize(
    "topic",
    [
        "city/east/airr/a1",
        "city/east/air/",
        "city//air/a1",
        "city/east/air/a b",
        "city/east/air/a,forged=1",
        'city/east/air/a"',
        "city/east/air/" + "a" * 65,
        "city/east/air/" + "a" * 60_000,
        "city/e\u202east/air/a1",
    ],
    ids=lambda topic: topic[:30],
)
async def test_a_topic_that_does_not_match_is_one_dead_letter(shared: Site, topic: str) -> None:
    before = await ledger(shared)
    await publish(shared, [(topic, ordinary(0)[1])])
    await nobody_else_notices(shared, before, dead=1)


@pytest.mark.parametrize("level", [b"\xff\xfe", b"a\x00b", b"\xed\xa0\x80", b"a\x01b", b"+"], ids=repr)
async def test_a_topic_that_is_no_text_harms_only_its_sender(shared: Site, level: bytes) -> None:
    before = await ledger(shared)
    topic = b"city/east/air/" + level
    body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", 1) + ordinary(0)[1]
    await asyncio.to_thread(_raw, shared.broker.port, b"\x32" + bytes([len(body)]) + body)
    await nobody_else_notices(shared, before, dead=(await ledger(shared))["dead"] - before["dead"])


async def test_sixteen_megabytes_harm_nobody(shared: Site) -> None:
    before = await ledger(shared)
    await publish(shared, [(TOPIC.format("huge"), b'{"ts":%d,"note":"%b","pm25":1}' % (START, b"x" * 2**24))])
    await nobody_else_notices(shared, before)  # the broker keeps from us what is larger than we ask for
    assert not await stored(shared, "huge")


def _raw(port: int, packet: bytes) -> None:
    """Connects, sends, and reads until the broker has said something or thrown us out."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil" + packet + b"\xc0\x00")
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\xd0\x00" not in answer and (part := link.recv(100)):
                answer += part


async def test_a_client_of_many_names_gets_no_more_than_the_limit(make_site: MakeSite) -> None:
    site = make_site(f"[limits]\nsensors = {SENSORS}")
    await ledger(site)
    known = [ordinary(number, f"k{number % 10}") for number in range(50)]
    await publish(site, known)
    before = await settled(site, delivered=50)
    await publish(site, [(f"city/east/air/x{number}", ordinary(0)[1]) for number in range(5000)])
    more = SENSORS - 10
    counts = await settled(site, delivered=50 + more, dead=before["dead"] + 5000 - more, queued=0)
    await publish(site, [ordinary(100 + number, f"k{number}") for number in range(10)])
    await settled(site, delivered=counts["delivered"] + 10)
    state = await site.health()
    assert state is not None
    assert state["health"]["sensors"] == SENSORS
    assert len(await site.query("SHOW TAG VALUES FROM air WITH KEY = sensor")) == SENSORS
    assert "limits.sensors" in site.gateway.log()


async def test_a_sensor_that_floods_loses_its_own_readings_alone(make_site: MakeSite) -> None:
    site = make_site()
    counts = await ledger(site)
    others, turn = 20, 1000
    turns = 0
    async with Publisher(Broker("127.0.0.1", site.broker.port)) as publisher, asyncio.timeout(WITHIN):
        while not counts["dead"]:  # a thousand times as fast as each of the others
            for number in range(turns * turn, (turns + 1) * turn):
                await publisher.publish("city/east/air/flood", b'{"ts":%d,"pm25":%d}' % (START + number, number % 50))
            for other in range(others):
                await publisher.publish(*ordinary(turns, f"calm{other}"))
            turns += 1
            await asyncio.sleep(0.2)
            counts = await ledger(site)
        await publisher.drain()
    counts = await settled(site, received=turns * (turn + others), queued=0)
    assert counts["delivered"] + counts["dead"] == counts["received"]
    assert len(await stored(site)) == counts["delivered"]
    assert len(await stored(site, "flood")) == counts["delivered"] - turns * others
    assert "flood" in site.gateway.log()
    await nobody_else_notices(site, counts)


async def test_a_retained_message_without_a_time_is_no_new_reading(make_site: MakeSite) -> None:
    site = make_site()
    before = await ledger(site)
    site.gateway.kill()
    untimed, timed = ("city/east/air/r1", b'{"pm25":1}'), ("city/east/air/r2", b'{"ts":%d,"pm25":2}' % START)
    async with Publisher(Broker("127.0.0.1", site.broker.port)) as publisher:
        for topic, payload in (untimed, timed):
            await publisher.publish(topic, payload)
        await publisher.drain()
    site.config.write_text(site.config.read_text("utf-8").replace("[mqtt]", '[mqtt]\nclient_id = "another"'), "utf-8")
    await asyncio.to_thread(_retain, site.broker.port, [untimed, timed])
    site.gateway.start()
    await settled(site, duplicate=before["duplicate"] + 1, delivered=before["delivered"] + 1)
    assert not await stored(site, "r1")
    assert len(await stored(site, "r2")) == 1


def _retain(port: int, messages: Sequence[Message]) -> None:
    for topic, payload in messages:
        body = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", 1) + payload
        _raw(port, b"\x33" + bytes([len(body)]) + body)


async def test_dead_letters_are_bounded(make_site: MakeSite) -> None:
    site = make_site()
    before = await ledger(site)
    junk = b"x" * 4096
    await publish(site, [(TOPIC.format("junk"), junk)] * 12_000)
    await nobody_else_notices(site, before, dead=12_000)
    rows, size = await asyncio.to_thread(_dead_letters, site.folder / "data" / "spool.db")
    assert 0 < rows <= 10_000
    assert size <= 2**24


def _dead_letters(path: Path) -> tuple[int, int]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as spool:
        rows, size = spool.execute("SELECT count(*), sum(length(payload)) FROM dead").fetchone()
    return rows, size
