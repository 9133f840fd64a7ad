import gzip
import json
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.city.app import create_app
from gateway.city.view import state
from tests.city.conftest import WRITE, city_config, client_of, running, write

AIR = "air,gateway=gw-1,site=longgang,sensor=air-01"
ID = "air:longgang:air-01"


@pytest.fixture
def now() -> int:
    """When the test began, in milliseconds: what is measured now stays fresh through the test, not through the run."""
    return time.time_ns() // 10**6


async def _get(client: httpx.AsyncClient, path: str, **params: str | int) -> dict[str, object]:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    return body


async def test_a_written_reading_is_shown_with_its_unit_and_flag(client: httpx.AsyncClient, now: int) -> None:
    assert (await write(client, f"{AIR} pm25=12.5,pm25_qc=1i,temperature_qc=4i {now}")).status_code == 204
    sensor = (await client.get("/api/v1/sensors")).json()["sensors"][0]
    assert (sensor["id"], sensor["gateway"], sensor["state"], sensor["flag"]) == (ID, "gw-1", "fresh", 4)
    values = {
        reading["quantity"]: (reading["value"], reading["unit"], reading["flag"]) for reading in sensor["readings"]
    }
    assert values == {"pm25": (12.5, "µg/m³", 1), "temperature": (None, "°C", 4)}


@pytest.mark.parametrize(("precision", "divisor"), [("ns", 1e-6), ("us", 1e-3), ("ms", 1), ("s", 1000)])
async def test_gzip_and_every_precision_are_taken(
    client: httpx.AsyncClient, precision: str, divisor: float, now: int
) -> None:
    stamp = now // 1000 * 1000
    body = gzip.compress(f"{AIR} pm25=1 {int(stamp / divisor)}".encode()) + gzip.compress(b"\n")
    headers = {"Authorization": f"Bearer {WRITE}", "Content-Encoding": "gzip"}
    response = await client.post(f"/api/v2/write?precision={precision}", content=body, headers=headers)
    assert response.status_code == 204
    series = await _get(client, f"/api/v1/sensors/{ID}/series", quantity="pm25")
    assert series["points"] == [[stamp, 1.0, 2]]


@pytest.mark.parametrize("authorization", [None, "Token wrong", "Basic abc", "Token "])
async def test_nothing_is_written_without_the_write_token(client: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = await client.post("/api/v2/write", content=f"{AIR} pm25=1", headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert (await _get(client, "/api/v1/sensors"))["sensors"] == []


async def test_good_lines_are_stored_and_bad_ones_named(client: httpx.AsyncClient, now: int) -> None:
    response = await write(client, f"{AIR} pm25=1 {now}", "nonsense", "cpu,host=a usage=1", f"{AIR} pm10=2 {now}")
    assert response.status_code == 400
    assert response.json()["code"] == "invalid"
    assert [error["line"] for error in response.json()["errors"]] == [2, 3]
    assert "no tag 'sensor'" in response.json()["message"]
    (sensor,) = (await client.get("/api/v1/sensors")).json()["sensors"]
    assert [reading["quantity"] for reading in sensor["readings"]] == ["pm25", "pm10"]


async def test_broken_and_oversized_bodies_are_told_apart(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Token {WRITE}", "Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(40 * 2**20))
    for content, status in ((b"no gzip", 400), (gzip.compress(b"m,sensor=a f=1")[:-9], 400), (bomb, 413)):
        assert (await client.post("/api/v2/write", content=content, headers=headers)).status_code == status


async def test_a_series_keeps_gaps_flags_and_quarantine_apart(client: httpx.AsyncClient, now: int) -> None:
    start = now // 60_000 * 60_000 - 600_000
    await write(
        client,
        f"{AIR} pm25=10,pm25_qc=1i {start}",
        f"{AIR} pm25=20,pm25_qc=3i {start + 10_000}",
        f"{AIR} pm25_qc=4i {start + 20_000}",
        f"{AIR} pm25=30,pm25_qc=1i {start + 180_000}",
        "quarantine,gateway=gw-1,kind=air,quantity=pm25,sensor=air-01,site=longgang"
        f' value=9999,flag=4i,reason="gross_range" {start + 20_000}',
    )
    path = f"/api/v1/sensors/{ID}/series"
    raw = await _get(client, path, quantity="pm25", start=start, end=now)
    assert raw["points"] == [
        [start, 10, 1],
        [start + 10_000, 20, 3],
        [start + 20_000, None, 4],
        [start + 180_000, 30, 1],
    ]
    assert raw["quarantined"] == [[start + 20_000, 9999, 4, "gross_range"]]
    stepped = await _get(client, path, quantity="pm25", start=start, end=now, step=60)
    assert stepped["points"] == [[start, 15, 4, 10, 20], [start + 180_000, 30, 1, 30, 30]]
    for wrong in ({"start": "yesterday"}, {"start": str(now), "end": str(now - 1)}, {"step": "-1"}, {"step": "0.001"}):
        query = {"quantity": "pm25", "start": "0", **wrong}
        response = await client.get(path, params=query)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
    assert (await client.get(path, params={"quantity": "pm99"})).status_code == 404


async def test_the_mean_of_directions_around_north_is_north(client: httpx.AsyncClient, now: int) -> None:
    start = now // 60_000 * 60_000 - 60_000
    await write(client, f"{AIR} wind_direction=350 {start}", f"{AIR} wind_direction=10 {start + 1}")
    series = await _get(client, f"/api/v1/sensors/{ID}/series", quantity="wind_direction", step=60)
    mean = series["points"][0][1]  # type: ignore[index]
    assert min(mean, 360 - mean) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("age", "interval", "expected"),
    [
        (30, 1, "fresh"),
        (31, 1, "silent"),
        (120, 60, "fresh"),
        (121, 60, "stale"),
        (600, 60, "stale"),
        (601, 60, "silent"),
    ],
)
def test_age_in_intervals_makes_the_state(age: float, interval: float, expected: str) -> None:
    assert state(age, interval) == expected


async def test_an_event_lasts_from_its_first_point_to_its_end(client: httpx.AsyncClient, now: int) -> None:
    def line(severity: str, value: float, at: int, event: str = "e1") -> str:
        return (
            f"event,gateway=gw-1,kind=air,sensor=air-01,severity={severity},site=longgang"
            f' id="{event}",quantity="pm25",value={value},limit=115,message="over" {at}'
        )

    await write(client, f"{AIR} pm25=1 {now}", line("yellow", 120, now - 9000), line("orange", 160, now - 5000))
    await write(client, line("none", 90, now - 1000), line("red", 300, now - 20_000, "e2"))
    events = (await client.get("/api/v1/events")).json()["events"]
    assert [(e["id"], e["severity"], e["value"], e["until"] is None) for e in events] == [
        ("e1", "orange", 160, False),
        ("e2", "red", 300, True),
    ]
    assert [e["id"] for e in (await client.get("/api/v1/events?open=true&limit=1")).json()["events"]] == ["e2"]
    assert len((await client.get(f"/api/v1/sensors/{ID}")).json()["events"]) == 2
    assert (await client.get("/api/v1/overview")).json()["events"] == {"open": 1, "by_severity": {"red": 1}}


async def test_a_gateway_shows_its_newest_ledger(client: httpx.AsyncClient, now: int) -> None:
    await write(
        client,
        f'gateway,gateway=g received=9i,queued=4i,version="0.1.0",clock_known=1i,cpu_s=2.5 {now}',
        f"gateway,gateway=g queued=5i {now - 1}",
    )
    (gateway,) = (await client.get("/api/v1/gateways")).json()["gateways"]
    assert (gateway["ledger"]["received"], gateway["ledger"]["queued"], gateway["version"]) == (9, 4, "0.1.0")
    assert gateway["more"] == {"clock_known": 1, "cpu_s": 2.5}
    assert (await client.get("/api/v1/overview")).json()["gateways"] == {"total": 1, "alive": 1, "backlog": 4}


async def test_the_registry_names_and_places_sensors_and_is_read_again_when_it_changes(
    tmp_path: Path, now: int
) -> None:
    title = {"zh": "龙岗", "en": "Longgang", "ko": "룽강"}
    point = {"type": "Point", "coordinates": [119.7, 30.2]}

    def features(name: str) -> str:
        sensor = {"sensor": "air-01", "site": "longgang", "kind": "air", "title": {**title, "en": name}, "interval": 5}
        site = {"site": "longgang", "role": "town", "title": title}
        return json.dumps(
            {
                "type": "FeatureCollection",
                "features": [{"type": "Feature", "geometry": point, "properties": p} for p in (sensor, site, {})],
            }
        )

    path = tmp_path / "sensors.geojson"
    path.write_text(features("First"))
    async with running(city_config(tmp_path, map={"sensors": path})) as app, client_of(app) as client:
        await write(client, f"{AIR} pm25=1 {now}")
        for content, name in ((None, "First"), (features("Second one"), "Second one"), ("{broken", "Second one")):
            if content:
                path.write_text(content)
            (sensor,) = (await client.get("/api/v1/sensors")).json()["sensors"]
            assert (sensor["title"]["en"], sensor["site_title"]["en"]) == (name, "Longgang")
            assert (sensor["lon"], sensor["lat"], sensor["interval_s"]) == (119.7, 30.2, 5)
        shown = (await client.get("/api/v1/map")).json()
        assert shown["center"] == [119.7, 30.2]
        assert len(shown["sites"]["features"]) == 1


async def test_every_error_is_a_problem_detail_and_every_answer_is_guarded(app: FastAPI) -> None:
    @app.get("/api/v1/boom")
    async def boom() -> None:
        msg = "secret detail"
        raise RuntimeError(msg)

    async with client_of(app) as client:
        expected = {"/api/v1/boom": 500, "/api/nope": 404, "/api/v1/sensors/x": 404, "/api/v1/events?limit=0": 422}
        for path, status in expected.items():
            response = await client.get(path)
            assert response.status_code == response.json()["status"] == status
            assert response.headers["content-type"] == "application/problem+json"
            assert "secret" not in response.text
        page = await client.get("/")
        assert page.status_code == 503
        assert "npm" in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
        docs = await client.get("/docs")
        assert "/api/v1/overview" in docs.text
        assert "<script" not in docs.text
        assert "http://" not in docs.text.replace("http://127.0.0.1", "")
        assert "https://" not in docs.text


async def test_files_of_the_page_are_packed_and_known_again(tmp_path: Path) -> None:
    script = "let a = 1;\n" * 500
    (tmp_path / "page" / "assets").mkdir(parents=True)
    (tmp_path / "page" / "index.html").write_text("<!doctype html><title>t</title>")
    (tmp_path / "page" / "assets" / "a.js").write_text(script)
    async with client_of(create_app(city_config(tmp_path), tmp_path / "page")) as client:
        for encoding in ("gzip", "identity", "gzip"):
            answer = await client.get("/assets/a.js", headers={"Accept-Encoding": encoding})
            assert answer.text == script
            assert answer.headers.get("content-encoding", "identity") == encoding
            assert "immutable" in answer.headers["cache-control"]
        again = await client.get("/assets/a.js", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        part = await client.get("/assets/a.js", headers={"Range": "bytes=0-9"})
        assert (part.status_code, part.text) == (206, script[:10])
        assert "doctype" in (await client.get("/")).text
