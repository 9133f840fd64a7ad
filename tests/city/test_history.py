"""The past through the API: files, wholeness, and series that fit a chart."""

import csv
import io
import random
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.city import export
from gateway.city.models import iso
from gateway.city.store.base import SensorKey
from gateway.city.store.embedded import EmbeddedStore
from sensors import lineprotocol
from tests.city.conftest import write

AIR = "air,gateway=gw-1,site=longgang,sensor=air-01"
ID = "air:longgang:air-01"
MINUTE, HOUR = 60_000, 3_600_000


@pytest.fixture
def now() -> int:
    """When the test began, in milliseconds."""
    return time.time_ns() // 10**6


async def _rows(client: httpx.AsyncClient, **params: str | int) -> list[dict[str, str]]:
    answer = await client.get(f"/api/v1/sensors/{ID}/readings.csv", params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert answer.content.startswith("\ufeff".encode())
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


async def test_a_file_has_every_value_with_its_flag_and_the_quarantined_ones_apart(
    client: httpx.AsyncClient, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PART", 2)  # several parts, and an end between two of them
    await write(client, *(f"{AIR} pm25={n}.25,pm25_qc={3 if n == 1 else 1}i {now - 60_000 + n}" for n in range(4)))
    tags = "gateway=gw-1,kind=air,quantity=pm25,sensor=air-01,site=longgang"
    await write(client, rf'quarantine,{tags} value=-9999,flag=4i,reason="=cmd|x, \"y\"" {now - 60_000 + 2}')
    rows = await _rows(client, quantity="pm25")
    assert [(row["value"], row["flag"], row["quarantined"]) for row in rows] == [
        ("0.25", "1", "no"),
        ("1.25", "3", "no"),
        ("2.25", "1", "no"),
        ("-9999.0", "4", "yes"),
        ("3.25", "1", "no"),
    ]
    assert {row["unit"] for row in rows} == {"µg/m³"}
    assert {row["sensor"] for row in rows} == {ID}
    assert rows[3]["reason"] == '\'=cmd|x, "y"'
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


async def test_a_file_without_values_still_names_its_columns(client: httpx.AsyncClient, now: int) -> None:
    await write(client, f"{AIR} pm25=1 {now}")
    answer = await client.get(f"/api/v1/sensors/{ID}/readings.csv", params={"start": now - 2 * HOUR, "end": now - HOUR})
    assert answer.text.lstrip("\ufeff").splitlines() == [",".join(export.COLUMNS)]
    assert "air_longgang_air-01" in answer.headers["content-disposition"]
    for params, status in (({"quantity": "no2"}, 404), ({"start": "soon"}, 422)):
        assert (await client.get(f"/api/v1/sensors/{ID}/readings.csv", params=params)).status_code == status


async def test_a_hole_is_a_gap_and_lowers_the_availability(client: httpx.AsyncClient, now: int) -> None:
    end = now // (2 * MINUTE) * (2 * MINUTE)
    here = [n for n in range(60) if not 20 <= n < 40]  # a kind's interval is at most a minute
    await write(client, *(f"{AIR} pm25=1,pm25_qc=1i {end - (60 - n) * MINUTE}" for n in here))
    whole = (await client.get(f"/api/v1/sensors/{ID}/wholeness", params={"end": end})).json()
    assert whole["availability"] == pytest.approx(2 / 3, abs=0.05)
    (gap,) = (gap for gap in whole["gaps"] if gap["seconds"] > 600)
    assert gap["seconds"] == pytest.approx(1200, abs=180)
    assert set(whole["flags"]) == {"1"}


async def test_a_chart_gets_no_more_points_than_it_asks_for(client: httpx.AsyncClient, now: int) -> None:
    end = now // HOUR * HOUR
    await write(client, *(f"{AIR} pm25={n % 7} {end - n * 30_000}" for n in range(1, 481)))  # four hours
    span: dict[str, str | int] = {"quantity": "pm25", "start": end - 4 * HOUR, "end": end}
    for most, step in ((480, None), (479, 60.0), (100, 300.0), (10, 3600.0)):
        series = (await client.get(f"/api/v1/sensors/{ID}/series", params={**span, "most": most})).json()
        assert series["step"] == step
        assert len(series["points"]) <= most
    hourly = (await client.get(f"/api/v1/sensors/{ID}/series", params={**span, "most": 100, "step": 3600})).json()
    assert [point[0] for point in hourly["points"]] == [end - n * HOUR for n in (4, 3, 2, 1)]


async def test_a_chart_that_asks_for_nothing_gets_a_bounded_answer_that_keeps_the_peak(
    client: httpx.AsyncClient, now: int
) -> None:
    times = [now - n * 1000 for n in range(4000)]
    await write(client, *(f"{AIR} pm25={999 if at == times[1234] else 5} {at}" for at in times))
    span: dict[str, str | int] = {"quantity": "pm25", "start": now - 2 * HOUR, "end": now + 1}
    series = (await client.get(f"/api/v1/sensors/{ID}/series", params=span)).json()
    assert (series["step"], len(series["points"]) <= 1000) == (10.0, True)
    assert max(point[4] for point in series["points"]) == 999


async def test_what_is_older_than_single_readings_comes_by_the_hour(
    client: httpx.AsyncClient, app: FastAPI, now: int
) -> None:
    then = now // (24 * HOUR) * 24 * HOUR - 40 * 24 * HOUR  # two hours of one day
    await write(client, *(f"{AIR} pm25={n} {then + n * MINUTE}" for n in range(120)), f"{AIR} pm25=7 {now}")
    await app.state.context.view.store.prune(now - 30 * 24 * HOUR, 0)
    span: dict[str, str | int] = {"quantity": "pm25", "start": then, "end": then + 24 * HOUR}
    for asked, step, means in (
        ({}, 3600, [29.5, 89.5]),
        ({"step": 60}, 3600, [29.5, 89.5]),
        ({"step": 86_400}, 86_400, [59.5]),
    ):
        series = (await client.get(f"/api/v1/sensors/{ID}/series", params={**span, **asked})).json()
        assert (series["step"], [point[1] for point in series["points"]]) == (step, means)


async def test_days_begin_where_the_viewer_lives(client: httpx.AsyncClient) -> None:
    midnight = 1_700_000_000_000 // 86_400_000 * 86_400_000 - 8 * HOUR  # in UTC+8
    await write(client, *(f"{AIR} pm25={day} {midnight + day * 24 * HOUR + HOUR}" for day in range(2)))
    span: dict[str, str | int] = {"quantity": "pm25", "start": midnight, "end": midnight + 48 * HOUR, "step": 86_400}
    series = (await client.get(f"/api/v1/sensors/{ID}/series", params={**span, "offset": -8 * 3600})).json()
    assert [point[:2] for point in series["points"]] == [[midnight, 0], [midnight + 24 * HOUR, 1]]


async def test_quarantined_values_are_thinned_for_a_chart_and_counted(
    client: httpx.AsyncClient, app: FastAPI, now: int
) -> None:
    tags = "gateway=gw-1,kind=air,quantity=pm25,sensor=air-01,site=longgang"
    await write(client, f"{AIR} pm25=1 {now}")
    await write(client, *(f'quarantine,{tags} value=1,flag=4i,reason="stuck" {now - n * 1000}' for n in range(1, 36)))
    series = (await client.get(f"/api/v1/sensors/{ID}/series", params={"quantity": "pm25", "most": 10})).json()
    assert (len(series["quarantined"]), series["quarantined_total"]) == (9, 35)
    assert app.state.context.view.failure is None


async def test_a_series_says_what_the_filter_said_of_it(client: httpx.AsyncClient, now: int) -> None:
    tags = "gateway=gw-1,kind=air,quantity=pm25,sensor=air-01,site=longgang"
    fields = f'id="v",since={now - 2000}i,until={now - 1000}i,confidence=0.9,reason="there and back+alone"'
    written = await write(
        client, f"{AIR} pm25=1 {now}", f"verdict,{tags},what=spike {fields} {now}", f"verdict,{tags} id=1 {now}"
    )
    assert (written.status_code, written.json()["errors"][0]["line"]) == (400, 3)
    series = (await client.get(f"/api/v1/sensors/{ID}/series", params={"quantity": "pm25"})).json()
    (said,) = series["verdicts"]
    assert (said["what"], said["lasts"], said["reason"]) == ("spike", False, "there and back+alone")
    assert said["since"] < said["until"] < said["time"]
    earlier: dict[str, str | int] = {"quantity": "pm25", "end": now - 2000}
    assert (await client.get(f"/api/v1/sensors/{ID}/series", params=earlier)).json()["verdicts"] == []


async def test_the_town_is_shown_as_it_was(client: httpx.AsyncClient, now: int) -> None:
    then = now // 10_000 * 10_000 - HOUR
    other = "air,gateway=gw-1,site=longgang,sensor=air-02"
    await write(client, f"{AIR} pm25=10,pm25_qc=1i {then - 5000}", f"{AIR} pm25=20,pm25_qc=3i {then + 1}")
    await write(client, f"{other} pm25=7,pm25_qc=1i {then - HOUR}", f"{AIR} pm25=30,pm25_qc=1i {now - 20_000}")
    tags = "gateway=gw-1,kind=air,sensor=air-01,site=longgang"
    fields = 'id="e",quantity="pm25",value={},limit=115,message="m"'
    await write(
        client,
        f"event,{tags},severity=yellow {fields.format(120)} {then - 60_000}",
        f"event,{tags},severity=red {fields.format(300)} {then - 30_000}",
        f"event,{tags},severity=none {fields.format(3)} {then + 15_000}",
    )
    past = (await client.get("/api/v1/past", params={"at": then + 9_999})).json()
    assert past["resolution_s"] == 10
    assert [(s["id"], s["state"], s["flag"], s["severity"], s["values"]) for s in past["sensors"]] == [
        (ID, "fresh", 1, "red", {"pm25": 10}),
        ("air:longgang:air-02", "silent", 1, None, {"pm25": 7}),
    ]
    assert [event["severity"] for event in past["events"]] == ["red"]
    later = (await client.get("/api/v1/past", params={"at": then + 20_000})).json()
    assert (later["sensors"][0]["flag"], later["sensors"][0]["severity"], later["events"]) == (3, None, [])
    future = (await client.get("/api/v1/past", params={"at": now + HOUR})).json()
    assert future["sensors"][0]["values"] == {"pm25": 30}
    long_ago = (await client.get("/api/v1/past", params={"at": "2001-01-01T00:00:00Z"})).json()
    assert (long_ago["sensors"], long_ago["events"]) == ([], [])
    assert (await client.get("/api/v1/past", params={"at": "soon"})).status_code == 422


async def test_the_last_day_is_told_by_the_hour_and_beside_what_is_usual(client: httpx.AsyncClient, now: int) -> None:
    here, hour = "traffic,gateway=gw-1,site=longgang,sensor=t-1", now // HOUR * HOUR
    days = [f"{here} speed={speed},speed_qc=1i {hour - day * 24 * HOUR + MINUTE}" for day, speed in ((1, 40), (3, 50))]
    await write(
        client,
        *days,
        f"{here} speed=90,speed_qc=1i {hour - 25 * HOUR}",  # neither this hour of another day nor the last day
        f"{here} speed=30,speed_qc=1i {hour - HOUR}",
        f"{here} speed=200,speed_qc=3i {hour - HOUR + 1}",  # suspect
        f"{here} speed=20,speed_qc=1i {now}",
    )
    params = {"kind": "traffic", "quantity": "speed"}
    found = (await client.get("/api/v1/courses", params=params)).json()
    assert (found["unit"], found["courses"]) == (
        "km/h",
        [{"id": "traffic:longgang:t-1", "points": [[hour - HOUR, 30], [hour, 20]], "usual": 45, "days": 2}],
    )
    for wrong in ({"quantity": "pm25"}, {"kind": "ghosts"}, {"kind": "weather", "quantity": "wind_direction"}):
        assert (await client.get("/api/v1/courses", params=params | wrong)).status_code == 404


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
async def test_times_in_a_file_are_those_of_the_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    times = sorted(chance.sample(range(63_072_000_000, 1_800_000_000_000), 500))
    store = EmbeddedStore(tmp_path / "city.db", 100 * 366 * 86_400.0)
    await store.open()
    points, _ = lineprotocol.parse("\n".join(f"{AIR} pm25=1 {at}" for at in times).encode(), "ms")
    await store.write(points)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        parts = [part async for part in export.csv_of(store, SensorKey(*ID.split(":")), {"pm25": ""}, 0, 2 * 10**12)]
        expected = [iso(at) for at in times]
    time.tzset()
    await store.close()
    assert [line.partition(",")[0] for line in "".join(parts).splitlines()[1:]] == expected
