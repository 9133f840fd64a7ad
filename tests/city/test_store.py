import contextlib
import math
import random
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.city.store.base import HOUR_MS, Heard, SensorKey, Store, StoreError, TooManyPointsError
from gateway.city.store.embedded import _SCHEMA, EmbeddedStore
from gateway.city.store.influx import InfluxStore
from gateway.config import StoreSection
from sensors.lineprotocol import parse

NOW = time.time_ns() // 10**6 // 60_000 * 60_000
KEY = SensorKey("air", 'it\'s, a "site" = \\x', "air-01")
SITE = KEY.site.replace(",", "\\,").replace(" ", "\\ ").replace("=", "\\=")
AIR = f"air,gateway=g1,sensor=air-01,site={SITE}"
TAGS = f"kind=air,sensor=air-01,site={SITE}"


def verdict(identity: str, quantity: str, what: str, *ages: int, more: str) -> str:
    """A line about a verdict: since, until and time as seconds before now."""
    since, until, time_ = (NOW - age * 1000 for age in ages)
    tags = f"verdict,gateway=g1,quantity={quantity},what={what},{TAGS}"
    return f'{tags} id="{identity}",since={since}i,until={until}i,{more} {time_}'


LINES = f"""
{AIR} pm25=10,pm25_qc=1i,battery=90,battery_qc=1i {NOW - 120_000}
{AIR} pm25=20,pm25_qc=3i {NOW - 110_000}
{AIR} pm25_qc=4i {NOW - 50_000}
{AIR} wind_direction=350,wind_direction_qc=1i {NOW - 50_000}
{AIR} wind_direction=10,wind_direction_qc=1i {NOW - 40_000}
air,gateway=g2,sensor=air-01,site={SITE} pm25=30,pm25_qc=2i {NOW - 30_000}
quarantine,gateway=g1,quantity=pm25,{TAGS} value=-5,flag=4i,reason="gross_range" {NOW - 50_000}
event,gateway=g1,severity=yellow,{TAGS} id="e1",quantity="pm25",value=120,limit=115,message="an \"e\"" {NOW - 60_000}
event,gateway=g1,severity=red,{TAGS} id="e2",quantity="pm25",value=300,limit=250,message="m" {NOW - 50_000}
event,gateway=g1,severity=none,{TAGS} id="e2",quantity="pm25",value=3,limit=250,message="m" {NOW - 40_000}
{verdict("v1", "pm25", "drift", 90, 80, 80, more='confidence=0.8,reason="neighbours"')}
{verdict("v1", "pm25", "nothing", 90, 60, 50, more='confidence=1.0,reason="over"')}
{verdict("v2", "battery", "stuck", 70, 40, 40, more='confidence=0.9,reason="flat_line"')}
{verdict("v3", "pm25", "undecided", 30, 30, 30, more='confidence=0.5,reason="rare step"')}
{verdict("v3", "pm25", "spike", 30, 30, 20, more='confidence=0.9,reason="alone"')}
gateway,gateway=g1 received=9i,queued=1i,uptime_s=5.5,version="0.1.0" {NOW}
gateway,gateway=g1 received=8i {NOW - 10_000}
""".replace('an "e"', r"an \"e\"").encode()


@pytest.fixture(params=["embedded", "influx"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each store with the same readings."""
    if request.param == "embedded":
        embedded = EmbeddedStore(tmp_path / "new" / "city.db", 30 * 86400)
        await embedded.open()
        points, errors = parse(LINES, "ms")
        assert errors == []
        assert await embedded.write(points) == []
        yield embedded
        await embedded.close()
        return
    url, database = request.getfixturevalue("influxd"), f"t{uuid.uuid4().hex}"
    async with aiohttp.ClientSession() as http:
        await http.post(f"{url}/query", data={"q": f"CREATE DATABASE {database}"})
        answer = await http.post(f"{url}/write", params={"db": database, "precision": "ms"}, data=LINES)
        assert answer.status == 204, await answer.text()
    influx = InfluxStore(StoreSection.model_validate({"type": "influxdb1", "url": url, "database": database}))
    await influx.open()
    yield influx
    await influx.close()


async def test_the_newest_reading_of_each_quantity_is_kept_whoever_heard_it(store: Store) -> None:
    for _ in range(2):
        (sensor,) = await store.latest()
        assert (sensor.key, sensor.gateway) == (KEY, "g2")
        assert {name: (r.value, r.flag) for name, r in sensor.readings.items()} == {
            "pm25": (30, 2),
            "battery": (90, 1),
            "wind_direction": (10, 1),
        }


async def test_readings_come_in_order_with_the_failed_ones_as_gaps(store: Store) -> None:
    readings = await store.readings(KEY, "pm25", NOW - 120_000, NOW)
    assert [tuple(r) for r in readings] == [
        (NOW - 120_000, 10, 1),
        (NOW - 110_000, 20, 3),
        (NOW - 50_000, None, 4),
        (NOW - 30_000, 30, 2),
    ]
    assert await store.readings(KEY, "pm25", NOW, NOW + 1) == []
    assert await store.readings(SensorKey("air", "no", "one"), "pm25", 0, NOW) == []
    (failed,) = await store.quarantined(KEY, "pm25", NOW - 120_000, NOW)
    assert tuple(failed) == (NOW - 50_000, -5, 4, "gross_range")


async def test_a_step_gives_mean_extremes_and_the_worst_flag(store: Store) -> None:
    buckets = await store.buckets(KEY, "pm25", NOW - 120_000, NOW, 60_000, direction=False)
    assert [tuple(b) for b in buckets] == [(NOW - 120_000, 15, 3, 10, 20), (NOW - 60_000, 30, 4, 30, 30)]
    (north,) = await store.buckets(KEY, "wind_direction", NOW - 120_000, NOW, 60_000, direction=True)
    assert north.mean is not None
    assert min(north.mean, 360 - north.mean) == pytest.approx(0, abs=1e-6)


async def test_a_page_holds_readings_with_a_value_from_either_end(store: Store) -> None:
    async def times(limit: int, *, newest_first: bool = False, offset: int = 0) -> list[int]:
        page = await store.page(KEY, "pm25", NOW - 120_000, NOW, limit, newest_first=newest_first, offset=offset)
        return [NOW - reading.time for reading in page]

    assert await times(9) == [120_000, 110_000, 30_000]
    assert await times(2, newest_first=True) == [30_000, 110_000]
    assert await times(2, offset=2) == [30_000]
    (last,) = await store.page(KEY, "pm25", NOW - 110_000, NOW - 30_000, 9)
    assert tuple(last) == (NOW - 110_000, 20, 3)
    assert await store.count(KEY, "pm25", NOW - 120_000, NOW - 30_000) == 2
    assert await store.count(KEY, "none", NOW - 120_000, NOW) == 0
    assert await store.page(KEY, "none", NOW - 120_000, NOW, 9) == []


async def test_means_of_a_kind_leave_out_what_is_suspect_or_failed(store: Store) -> None:
    means = await store.means("air", ["pm25", "battery", "o3"], NOW - 120_000, NOW, 60_000, energy=False)
    assert {name: [tuple(step) for step in steps] for (key, name), steps in means.items() if key == KEY} == {
        "pm25": [(NOW - 120_000, 10, 1), (NOW - 60_000, 30, 1)],
        "battery": [(NOW - 120_000, 90, 1)],
    }
    assert len(means) == 2
    assert await store.means("noise", ["laeq"], NOW - 120_000, NOW, 60_000, energy=True) == {}
    assert await store.means("air", ["pm25"], NOW - 20_000, NOW, 60_000, energy=False) == {}


async def test_levels_have_the_mean_of_their_energy(store: Store) -> None:
    steps = (await store.means("air", ["wind_direction"], NOW - 120_000, NOW, 60_000, energy=True))[
        KEY, "wind_direction"
    ]
    assert [step.number for step in steps] == [2]
    assert steps[0].mean == pytest.approx(350 - 10 * math.log10(2))


async def test_events_are_put_together_from_their_points(store: Store) -> None:
    events = await store.events(10)
    assert [(e.last.id, e.last.severity, e.since, e.until) for e in events] == [
        ("e2", "red", NOW - 50_000, NOW - 40_000),
        ("e1", "yellow", NOW - 60_000, None),
    ]
    assert events[1].last.message == 'an "e"'
    assert [e.last.id for e in await store.events(1, open_only=True)] == ["e1"]
    assert len(await store.events(10, key=KEY)) == 2
    assert await store.events(10, key=SensorKey("air", "no", "one")) == []


async def test_a_verdict_counts_as_it_was_last_revised_and_lasts_until_it_is_over(store: Store) -> None:
    said = await store.verdicts(NOW - 120_000, NOW)
    assert [(v.id, v.key, v.quantity, v.what, NOW - v.since, NOW - v.until, v.lasts) for v in said] == [
        ("v3", KEY, "pm25", "spike", 30_000, 30_000, False),
        ("v2", KEY, "battery", "stuck", 70_000, 40_000, True),
        ("v1", KEY, "pm25", "drift", 90_000, 60_000, False),
    ]
    assert (said[0].confidence, said[0].reason, said[2].over) == (0.9, "alone", True)
    assert [v.id for v in await store.verdicts(NOW - 10_000, NOW)] == ["v2"]
    assert [v.id for v in await store.verdicts(NOW - 120_000, NOW - 80_000, channel=(KEY, "pm25"))] == ["v1"]
    assert await store.verdicts(0, NOW, channel=(KEY, "o3")) == []


async def test_sensors_and_events_are_given_as_they_were(store: Store) -> None:
    (then,) = await store.latest_at(NOW - 45_000, NOW - 3_600_000)
    assert {name: (r.time, r.value, r.flag) for name, r in then.readings.items()} == {
        "pm25": (NOW - 50_000, None, 4),
        "battery": (NOW - 120_000, 90, 1),
        "wind_direction": (NOW - 50_000, 350, 1),
    }
    assert await store.latest_at(NOW - 120_001, NOW - 3_600_000) == []
    (late,) = await store.latest_at(NOW, NOW - 40_000)
    assert set(late.readings) == {"pm25"}
    before = {e.last.id: e.until for e in await store.events_at(NOW - 41_000, NOW - 3_600_000)}
    assert before == {"e1": None, "e2": None}
    after = {e.last.id: e.until for e in await store.events_at(NOW, NOW - 3_600_000)}
    assert after == {"e1": None, "e2": NOW - 40_000}


async def test_steps_may_begin_between_the_multiples_of_their_length(store: Store) -> None:
    for quantity, direction in (("pm25", False), ("wind_direction", True)):
        buckets = await store.buckets(KEY, quantity, NOW - 120_000, NOW, 60_000, direction=direction, shift=25_000)
        expected = [NOW - 155_000, NOW - 95_000, NOW - 35_000] if quantity == "pm25" else [NOW - 95_000]
        assert [bucket.time for bucket in buckets] == expected


async def test_the_newest_health_of_a_gateway_counts(store: Store) -> None:
    (gateway,) = await store.gateways()
    assert (gateway.gateway, gateway.time) == ("g1", NOW)
    assert gateway.fields["received"] == 9
    assert gateway.fields["version"] == "0.1.0"


async def test_an_embedded_store_keeps_everything_over_a_restart_and_prunes_by_age(tmp_path: Path) -> None:
    for attempt in range(2):
        store = EmbeddedStore(tmp_path / "city.db", 30 * 86400)
        await store.open()
        if attempt == 0:
            await store.write(parse(LINES, "ms")[0])
            before = await store.readings(KEY, "pm25", 0, NOW)
        else:
            assert await store.readings(KEY, "pm25", 0, NOW) == before
            await store.prune(NOW - 45_000, 0)
            assert await store.quarantined(KEY, "pm25", 0, NOW) == []
            assert {e.last.id for e in await store.events(9)} == {"e1", "e2"}, "an open event is kept, however old"
            assert {v.id for v in await store.verdicts(0, NOW)} == {"v2", "v3"}
            await store.prune(NOW + 3_600_000, 0)
            assert await store.readings(KEY, "pm25", 0, NOW) == []
            assert [e.last.id for e in await store.events(9)] == ["e1"]
        await store.close()


@pytest.mark.slow
async def test_a_hundred_thousand_points_are_written_and_read_quickly(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "city.db", 30 * 86400)
    await store.open()
    values = random.Random(1)  # noqa: S311 - no secret
    started = time.monotonic()
    for first in range(0, 100_000, 5000):
        body = "\n".join(
            f"air,gateway=g,site=s{n % 6},sensor=a{n % 60} pm25={values.random()},pm25_qc=1i {NOW - 10**7 + n * 100}"
            for n in range(first, first + 5000)
        )
        assert await store.write(parse(body.encode(), "ms")[0]) == []
    written = time.monotonic() - started
    started = time.monotonic()
    assert len(await store.latest()) == 60
    buckets = await store.buckets(SensorKey("air", "s0", "a0"), "pm25", 0, NOW, 60_000, direction=False)
    read = time.monotonic() - started
    assert len(buckets) == pytest.approx(167, abs=2)
    assert written < 60
    assert read < 2
    with pytest.raises(TooManyPointsError):
        await store._in(store._readers, EmbeddedStore._raw, SensorKey("air", "s0", "a0"), "pm25", 0, NOW, 100)
    await store.close()


async def test_a_silent_influxdb_is_named_with_what_to_do() -> None:
    store = InfluxStore(StoreSection.model_validate({"type": "influxdb1", "url": "http://127.0.0.1:9"}))
    await store.open()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9 does not answer.*check url"):
        await store.latest()
    await store.close()


async def test_a_missing_database_is_named(influxd: str) -> None:
    store = InfluxStore(StoreSection.model_validate({"type": "influxdb1", "url": influxd, "database": "none"}))
    await store.open()
    with pytest.raises(StoreError, match="database 'none'"):
        await store.gateways()
    await store.close()


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "city.db", 30 * 86400)
    await store.open()
    await store._in(store._writer, lambda _, connection: connection.execute("PRAGMA user_version = 99"))
    await store.close()
    again = EmbeddedStore(tmp_path / "city.db", 30 * 86400)
    with pytest.raises(StoreError, match="newer citygate"):
        await again.open()
    await again.close()


async def test_a_file_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "city.db")) as connection:
        connection.executescript(f"{_SCHEMA[0]}PRAGMA user_version = 1;")
        connection.execute("INSERT INTO sensor VALUES (1, ?, ?, ?, 'g1')", KEY)
        connection.execute("INSERT INTO channel VALUES (1, 1, 'pm25')")
        connection.execute("INSERT INTO reading VALUES (1, ?, 7, 1)", (NOW - 1000,))
        connection.commit()
    store = EmbeddedStore(tmp_path / "city.db", 30 * 86400)
    await store.open()
    assert [r.value for r in await store.readings(KEY, "pm25", 0, NOW)] == [7]
    assert await store.write(parse(LINES, "ms")[0]) == []
    assert len(await store.verdicts(0, NOW)) == 3
    await store.close()


async def test_hours_in_which_a_sensor_was_heard_leave_out_what_it_says_of_itself(store: Store) -> None:
    hours = {at // HOUR_MS for at in (NOW - 120_000, NOW - 110_000, NOW - 50_000, NOW - 40_000, NOW - 30_000)}
    heard = await store.heard(NOW - 120_000, NOW, {"battery"})
    assert heard[KEY] == Heard(NOW - 120_000, frozenset(hours))
    assert (await store.heard(NOW - 120_000, NOW, {"battery", "pm25"}))[KEY].hours == {
        at // HOUR_MS for at in (NOW - 50_000, NOW - 40_000)
    }
    assert (await store.heard(NOW - 20_000, NOW, {"battery"}))[KEY].hours == set()
