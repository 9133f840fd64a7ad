"""Grades of sites and districts, as the API gives them from what is in the store."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from gateway.city.app import create_app
from gateway.city.means import HOUR_MS, STEP_MS, RunningMeans
from gateway.city.places import Districts
from gateway.city.store.base import Means, SensorKey, StepMean, Store
from gateway.config import ConfigError
from tests.city.conftest import city_config, client_of, running, write

NOW = 1_795_413_932_000  # 2026-11-23 14:05:32 +08:00
MINUTE = 60_000
AIR = "air,gateway=g1,site=old-town,sensor=air-01"


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is a Monday afternoon in China."""
    for module in ("view", "stream"):
        monkeypatch.setattr(f"gateway.city.{module}.now_ms", lambda: NOW)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def feature(kind: str, site: str, sensor: str, lon: float, **properties: object) -> dict[str, object]:
    place = {"type": "Point", "coordinates": [lon, 30.5]}
    return {
        "type": "Feature",
        "geometry": place,
        "properties": {"kind": kind, "site": site, "sensor": sensor, "interval": 60, **properties},
    }


def square(district: str, west: float) -> dict[str, object]:
    ring = [[west, 30], [west + 1, 30], [west + 1, 31], [west, 31], [west, 30]]
    title = {"zh": district, "en": district, "ko": district}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"district": district, "title": title},
    }


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    features = [
        feature("air", "old-town", "air-01", 119.5),
        feature("air", "old-town", "air-02", 120.5),
        feature("water", "river", "water-01", 119.5, target="III"),
        feature("water", "river", "water-02", 119.5, target="III", water="lake"),
        feature("water", "river", "water-03", 119.5),
        feature("noise", "old-town", "noise-01", 119.5, zone="2"),
        feature("noise", "old-town", "noise-02", 119.5, zone="9"),
        feature("traffic", "old-town", "traffic-01", 119.5, road="arterial"),
        feature("traffic", "old-town", "traffic-02", 120.5, road="expressway"),
        feature("traffic", "old-town", "traffic-03", 120.5),
        feature("parking", "old-town", "parking-01", 130.0),
    ]
    sensors, districts = tmp_path / "sensors.geojson", tmp_path / "districts.geojson"
    sensors.write_text(json.dumps({"features": features}))
    districts.write_text(json.dumps({"features": [square("west", 119), square("east", 120)]}))
    async with running(city_config(tmp_path, map={"sensors": sensors, "districts": districts})) as app:
        yield app


async def grades(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/api/v1/overview")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["grades"]
    return found


def place(found: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    (one,) = [item for item in found[group] if item["place"] == name]
    return dict(one)


async def test_the_index_of_now_is_that_of_the_last_hour(client: httpx.AsyncClient) -> None:
    lines = [f"{AIR} pm25=75,pm25_qc=1i,pm10=30 {NOW - n * MINUTE}" for n in range(60)]
    lines += [f"{AIR} pm25=900,pm25_qc=3i {NOW - 30_000}", f"{AIR} pm25=900,pm25_qc=1i {NOW - 70 * MINUTE}"]
    assert (await write(client, *lines)).status_code == 204
    found = await grades(client)
    now = found["town"]["air"]["now"]
    assert now["cn"] == {
        "value": 114,
        "level": "light",
        "primary": ["pm25"],
        "sub": {"pm25": 114, "pm10": 30},
        "provisional": False,
        "hours": None,
    }
    assert now["us"]["value"] == 165  # 151 + 49 * (75 - 55.5) / (125.4 - 55.5) = 164.7
    assert (now["kr"]["value"], now["kr"]["sub"]) == (None, {"pm25": 250, "pm10": 50})
    assert found["town"]["air"]["day"]["cn"]["value"] is None
    assert place(found, "sites", "old-town")["air"] == found["town"]["air"]


async def test_an_hour_with_few_readings_is_provisional(client: httpx.AsyncClient) -> None:
    await write(client, *(f"{AIR} pm25=35 {NOW - n * MINUTE}" for n in range(44)))
    other = AIR.replace("air-01", "air-02").replace("old-town", "river")
    await write(client, *(f"{other} pm25=35 {NOW - n * MINUTE}" for n in range(45)))
    found = await grades(client)
    sites = {name: place(found, "sites", name)["air"]["now"]["cn"]["provisional"] for name in ("old-town", "river")}
    assert sites == {"old-town": True, "river": False}


async def test_the_index_of_24_hours_is_over_full_hours(client: httpx.AsyncClient) -> None:
    hour = NOW // HOUR_MS * HOUR_MS
    lines = [f"{AIR} pm25=60 {hour - n * MINUTE}" for n in range(1, 20 * 60)]
    await write(client, *lines, f"{AIR} pm25=800 {hour - 25 * HOUR_MS}", f"{AIR} pm25=800 {hour + 1}")
    day = (await grades(client))["town"]["air"]["day"]
    assert (day["cn"]["value"], day["cn"]["hours"], day["cn"]["primary"]) == (100, 20, ["pm25"])
    assert (day["us"]["value"], day["us"]["hours"]) == (154, 20)


async def test_a_place_has_the_mean_of_its_stations(client: httpx.AsyncClient) -> None:
    other = AIR.replace("air-01", "air-02")
    for line, value in ((AIR, 35), (other, 85)):
        await write(client, *(f"{line} pm25={value} {NOW - n * MINUTE}" for n in range(60)))
    found = await grades(client)
    assert (found["town"]["air"]["stations"], found["town"]["air"]["now"]["cn"]["value"]) == (2, 100)
    assert [(d["place"], d["air"]["now"]["cn"]["value"]) for d in found["districts"]] == [("west", 50), ("east", 123)]


async def test_a_section_has_its_class_worst_factor_and_target(client: httpx.AsyncClient) -> None:
    water = "water,gateway=g1,site=river,sensor=water-"
    await write(
        client,
        f"{water}01 nh3n=1.0,tp=0.1,ph=7 {NOW - 20 * MINUTE}",
        f"{water}01 nh3n=1.4,tp=0.1,ph=7 {NOW}",
        f"{water}02 tp=0.1 {NOW}",  # class II in a river, IV in a lake
        f"{water}03 tp=0.3,codmn=9 {NOW - 61 * MINUTE - STEP_MS}",  # too old for the last hour, and silent
    )
    found = await grades(client)
    assert [(s["sensor_id"][-2:], s["level"], s["worst"], s["over"]) for s in found["water"]] == [
        ("01", "IV", ["nh3n"], True),
        ("02", "IV", ["tp"], True),
    ]
    assert found["water"][0]["values"] == {"nh3n": 1.2, "tp": 0.1, "ph": 7}
    assert found["water"][0]["factors"] == {"nh3n": "IV", "tp": "II", "ph": "I"}
    assert place(found, "sites", "river")["water"] == {"sections": 2, "level": "IV", "worst": ["nh3n"], "over": 2}


async def test_a_slow_water_station_is_judged_by_its_newest_reading(tmp_path: Path) -> None:
    sensors = tmp_path / "slow.geojson"
    station = feature("water", "river", "water-01", 119.5, interval=4 * 3600)
    sensors.write_text(json.dumps({"features": [station]}))
    async with running(city_config(tmp_path, map={"sensors": sensors})) as app, client_of(app) as client:
        await write(client, f"water,site=river,sensor=water-01 codmn=3,tp=9,tp_qc=3i {NOW - 3 * HOUR_MS}")
        (section,) = (await grades(client))["water"]
        assert (section["level"], section["values"], section["target"]) == ("II", {"codmn": 3}, None)


async def test_noise_is_compared_with_the_limit_of_its_zone_by_day_and_by_night(client: httpx.AsyncClient) -> None:
    noise, dawn = "noise,site=old-town,sensor=noise-01 laeq", NOW // HOUR_MS * HOUR_MS - 8 * HOUR_MS  # 06:00 local
    lines = [f"{noise}=70 {NOW}", *(f"{noise}=50 {NOW - n * MINUTE}" for n in range(1, 10))]
    lines += [f"{noise}=58 {dawn}", f"{noise}=51 {dawn - 1}", f"{noise}=51 {dawn - 8 * HOUR_MS}"]
    lines += [f"{noise}=90 {dawn - 8 * HOUR_MS - 1}", f"noise,site=old-town,sensor=noise-02 laeq=99 {NOW}"]
    await write(client, *lines)
    found = await grades(client)
    (meter,) = found["noise"]
    assert (meter["zone"], meter["period"]) == ("2", "day")
    assert meter["now"] == {"level": 60.4, "limit": 60, "over": True}  # a tenth of the energy of 70 dB, and the rest
    assert meter["day"] == {"level": 60.2, "limit": 60, "over": True}
    assert meter["night"] == {"level": 51.0, "limit": 50, "over": True}
    assert found["town"]["noise"] == {"meters": 1, "over": 1}


async def test_roads_are_graded_by_their_class_and_the_town_by_flow(client: httpx.AsyncClient) -> None:
    road = "traffic,gateway=g1,site=old-town,sensor=traffic-"
    await write(
        client,
        f"{road}01 speed=25,flow=900,occupancy=30 {NOW}",
        f"{road}02 speed=50,flow=300,occupancy=9 {NOW}",
        f"{road}03 speed=3,flow=300,occupancy=9 {NOW}",
    )
    found = await grades(client)
    assert [(r["sensor_id"][-2:], r["level"], r["index"]) for r in found["roads"]] == [
        ("01", "light", 5.0),
        ("02", "light", 4.0),
    ]
    assert found["town"]["traffic"] == {"roads": 2, "index": 4.8, "level": "light"}
    assert place(found, "districts", "east")["traffic"] == {"roads": 1, "index": 4.0, "level": "basically-free"}
    await write(client, f"{road}01 speed=0,flow=0,occupancy=0 {NOW + 1}")
    found = await grades(client)
    assert [(r["sensor_id"][-2:], r["empty"]) for r in found["roads"]] == [("02", False), ("01", True)]
    assert found["town"]["traffic"]["index"] == 4.0


async def test_places_left_are_those_of_car_parks_that_report(client: httpx.AsyncClient) -> None:
    await write(
        client,
        f"parking,site=old-town,sensor=parking-01 occupied=60,capacity=100 {NOW}",
        f"parking,site=old-town,sensor=parking-02 free=7,capacity=50 {NOW}",
        f"parking,site=old-town,sensor=parking-03 free=7,capacity=50 {NOW - HOUR_MS}",
        f"parking,site=old-town,sensor=parking-04 free=7,free_qc=3i,capacity=50 {NOW}",
    )
    found = await grades(client)
    assert found["town"]["parking"] == {"left": 47, "capacity": 150}
    assert found["town"]["air"] is None
    assert found["districts"] == []


async def test_sensors_are_geojson_with_their_grade(client: httpx.AsyncClient) -> None:
    await write(
        client,
        *(f"{AIR} pm25=75 {NOW - n * MINUTE}" for n in range(60)),
        f"noise,site=old-town,sensor=noise-07 laeq=50 {NOW}",
    )
    answer = await client.get("/api/v1/sensors.geojson")
    assert answer.headers["content-type"] == "application/geo+json"
    air, noise = answer.json()["features"]
    assert air["geometry"] == {"type": "Point", "coordinates": [119.5, 30.5]}
    assert air["properties"]["values"] == {"pm25": 75}
    grade = air["properties"]["grade"]
    assert (grade["level"], grade["colour"], grade["value"], grade["title"]["zh"]) == (
        "light",
        "#ff7e00",
        114,
        "轻度污染",
    )
    assert (noise["geometry"], noise["properties"]["grade"]) == (None, None)
    chosen = await client.get("/api/v1/sensors.geojson", params={"kind": "noise"})
    assert [item["id"] for item in chosen.json()["features"]] == ["noise:old-town:noise-07"]


async def test_scales_say_what_a_level_means_and_where_it_is_from(client: httpx.AsyncClient) -> None:
    scales = (await client.get("/api/v1/scales")).json()
    assert [level["upto"] for level in scales["air"]["cn"]["levels"]] == [50, 100, 150, 200, 300, 500]
    assert scales["air"]["cn"]["source"].startswith("HJ 633-2026")
    assert scales["water"]["levels"][-1] == {
        "name": "worse",
        "title": {"zh": "劣Ⅴ类", "en": "Worse than V", "ko": "Ⅴ등급 미달"},
        "colour": "#d7263d",
        "upto": None,
    }
    assert scales["zones"]["4a"]["night"] == 55
    assert scales["roads"]["branch"]["above"] == [35, 25, 15, 10]


async def test_however_many_ask_the_store_is_asked_once(app: FastAPI, client: httpx.AsyncClient) -> None:
    view = app.state.context.view
    asked = []
    means = view.store.means

    async def counted(kind: str, *args: object, **more: object) -> Means:
        asked.append(kind)
        found: Means = await means(kind, *args, **more)
        return found

    view.store.means = counted
    for kept in view.grading.means:
        kept.age_s = 60.0
    for _ in range(5):
        assert (await client.get("/api/v1/overview")).status_code == 200
        assert (await client.get("/api/v1/sensors.geojson")).status_code == 200
    assert sorted(asked) == ["air", "air", "noise", "noise", "water"]


async def test_a_look_asks_only_for_what_may_have_changed() -> None:
    key = SensorKey("air", "s", "a")

    hour = NOW // HOUR_MS * HOUR_MS

    class Asked:
        def __init__(self) -> None:
            self.spans: list[tuple[int, int, int]] = []
            self.value = 10.0

        async def means(self, *args: Any, **_: object) -> Means:  # noqa: ANN401 - as the protocol
            _, _, start, end, step = args
            self.spans.append((start, end, step))
            first = max(start, hour + STEP_MS) // step * step
            return {(key, "pm25"): [StepMean(at, self.value, 10) for at in range(first, end, step)]}

    store = Asked()
    kept = RunningMeans(cast("Store", store), "air", ["pm25"])
    await kept.look(NOW)
    assert [step for _, _, step in store.spans] == [STEP_MS, HOUR_MS]
    assert store.spans[0][0] <= NOW - HOUR_MS < store.spans[0][0] + STEP_MS
    assert store.spans[1][:2] == (hour - 24 * HOUR_MS, hour)
    store.value = 30.0
    await kept.look(NOW + MINUTE)
    assert store.spans[2:] == [(hour, NOW + MINUTE + 1, STEP_MS)]  # this step, from 14:05, and the one before
    mean = kept.last_hour(key, "pm25", 60)
    assert mean is not None
    assert mean.mean == 30.0
    assert mean.coverage == pytest.approx(10 / 60)
    await kept.look(NOW + 5 * MINUTE)  # a new step: all of the hour, for what came late
    assert store.spans[3:] == [(hour - 10 * STEP_MS, NOW + 5 * MINUTE + 1, STEP_MS)]
    mean = kept.last_hour(key, "pm25", 60)
    assert mean is not None
    assert mean.coverage == pytest.approx(20 / 60)
    await kept.look(NOW + HOUR_MS)
    assert store.spans[-1] == (hour - 23 * HOUR_MS, hour + HOUR_MS, HOUR_MS)


def test_a_district_holds_what_is_inside_its_rings_and_not_in_their_holes() -> None:
    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    hole = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
    far = [[[20, 0], [21, 0], [21, 1], [20, 1], [20, 0]]]
    geometry = {"type": "MultiPolygon", "coordinates": [[ring, hole], far]}
    broken = {"properties": {"district": "b"}, "geometry": {"type": "Polygon", "coordinates": [[["x", 1]]]}}
    river = {"properties": {"river": True}, "geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}}
    found = Districts({"features": [broken, river, {"properties": {"district": "a"}, "geometry": geometry}]})
    inside = [found.at(*at) for at in ((1, 1), (5, 5), (20.5, 0.5), (11, 5), (-1, 5))]
    assert inside == ["a", None, "a", None, None]
    assert found.titles == {"a": None}


async def test_a_wrong_table_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "noise.toml").write_text("quantity = 3")
    with pytest.raises(ConfigError, match=r"grades\.tables_dir: .*noise\.toml: "):
        create_app(city_config(tmp_path, grades={"tables_dir": tmp_path}))


async def test_a_page_gets_the_grades_by_the_stream(app: FastAPI, client: httpx.AsyncClient) -> None:
    await write(client, f"{AIR} pm25=35 {NOW}")
    hub = app.state.context.hub
    async for message in hub.listen(None):
        if b"event: grades" in message:
            body = json.loads(message.split(b"data: ", 1)[1])
            assert body["town"]["air"]["now"]["cn"]["value"] == 50
            break
    hub.close()
