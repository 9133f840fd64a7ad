"""Alerts: events put together by cause, where they may come from, and who took notice."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.config import CityConfig
from tests.city.conftest import city_config, client_of, running, write
from tests.city.signed_in import administrator, person

MINUTE = 60_000
SITES = {"west": (119.60, 30.20), "middle": (119.70, 30.20), "east": (119.78, 30.20), "far": (121.50, 30.20)}
RIVER = {"water-01": ("west", 0.0), "water-02": ("middle", 5.0), "water-03": ("east", 11.0)}


def point(at: tuple[float, float], **properties: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": at}, "properties": properties}


def title(name: str) -> dict[str, str]:
    return {"zh": name, "en": name, "ko": name}


def places() -> list[dict[str, object]]:
    features = [point(at, site=site, title=title(site)) for site, at in SITES.items()]
    features += [point(SITES["middle"], site="middle", kind="weather", sensor="weather-01", title=title("vane"))]
    for sensor, (site, km) in RIVER.items():
        its: dict[str, object] = {"site": site, "kind": "water", "sensor": sensor, "title": title(sensor)}
        features.append(point(SITES[site], **its, river="brook", river_km=km))
    return features


SOURCES = [
    point((119.70, 30.26), source="works", kind="factory", title=title("Works")),
    point((119.705, 30.24), source="dump", kind="construction", title=title("Site"), emits=["pm10"]),
    point((119.70, 30.14), source="south", kind="factory", title=title("South")),
    point((119.70, 31.20), source="distant", kind="factory", title=title("Distant")),
    {"type": "Feature", "geometry": None, "properties": {"source": "nowhere"}},
]


def config(tmp_path: Path) -> CityConfig:
    for name, features in (("sensors", places()), ("sources", SOURCES)):
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (tmp_path / f"{name}.geojson").write_text(text, "utf-8")
    section: dict[str, object] = {"sensors": tmp_path / "sensors.geojson", "sources": tmp_path / "sources.geojson"}
    return city_config(tmp_path, map=section)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running(config(tmp_path)) as app:
        yield app


@pytest.fixture
def now() -> int:
    return time.time_ns() // 1_000_000


def event(  # noqa: PLR0913 - an event is made of all of these
    site: str, at: int, *, severity: str = "yellow", quantity: str = "pm25", kind: str = "air", number: int = 1,
    since: int | None = None, value: float = 130.0,
) -> str:  # fmt: skip
    sensor = f"{kind}-{number:02}"
    identity = f"{kind}.{site}.{sensor}.{quantity}.{at if since is None else since}"
    return (
        f"event,gateway=g1,kind={kind},sensor={sensor},severity={severity},site={site}"
        f' id="{identity}",quantity="{quantity}",value={value},limit=115,message="over" {at}'
    )


def wind(at: int, direction: float, speed: float = 3.0, flag: int = 1) -> str:
    return (
        f"weather,gateway=g1,site=middle,sensor=weather-01 wind_direction={direction},wind_direction_qc={flag}i,"
        f"wind_speed={speed},wind_speed_qc={flag}i {at}"
    )


async def alerts(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/alerts", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["alerts"]
    return found


async def test_one_plume_over_several_sites_is_one_alert(client: httpx.AsyncClient, now: int) -> None:
    await write(
        client,
        event("west", now - 5 * MINUTE, quantity="pm10"),
        event("west", now - 5 * MINUTE),
        event("middle", now - 3 * MINUTE, severity="orange"),
        event("far", now - 2 * MINUTE),
        event("west", now - 2 * MINUTE, quantity="laeq", kind="noise"),
    )
    plume, *others = await alerts(client)
    assert plume["sites"] == ["west", "middle"]
    assert (plume["cause"], plume["severity"], plume["state"]) == ("air", "orange", "open")
    assert plume["title"]["en"] == "Air pollution"
    assert sorted(e["quantity"] for e in plume["events"]) == ["pm10", "pm25", "pm25"]
    assert {(a["cause"], *a["sites"]) for a in others} == {("air", "far"), ("noise.laeq", "west")}


async def test_a_cloud_that_has_left_one_site_before_it_reaches_the_next_is_one_alert(
    client: httpx.AsyncClient, now: int
) -> None:
    began = now - 20 * MINUTE
    await write(client, event("west", began), event("west", began + 9 * MINUTE, severity="none", since=began))
    assert [a["state"] for a in await alerts(client)] == ["ended"]
    await write(client, event("middle", now - 2 * MINUTE))
    (alert,) = await alerts(client)
    assert (alert["state"], alert["sites"]) == ("open", ["west", "middle"])


async def test_a_later_cause_of_the_same_kind_is_another_alert(client: httpx.AsyncClient, now: int) -> None:
    await write(client, event("west", now - 180 * MINUTE))
    await alerts(client)
    await write(client, event("middle", now))
    assert [a["sites"] for a in await alerts(client)] == [["middle"], ["west"]]


async def test_an_alert_ends_with_its_last_event_and_a_flapping_one_stays_one(
    client: httpx.AsyncClient, now: int
) -> None:
    for number in range(4):
        began = now - 8 * MINUTE + number * 2 * MINUTE
        await write(client, event("west", began))
        (alert,) = await alerts(client)
        assert alert["until"] is None
        await write(client, event("west", began + MINUTE, severity="none", since=began))
        (alert,) = await alerts(client)
        assert (alert["state"], len(alert["events"])) == ("ended", number + 1)
    await write(client, event("west", now + 30 * MINUTE))
    assert [a["state"] for a in await alerts(client)] == ["open", "ended"]


async def test_acknowledged_once_for_all_events_and_asked_again_when_graver(
    client: httpx.AsyncClient, now: int
) -> None:
    await write(client, event("west", now - 5 * MINUTE))
    (alert,) = await alerts(client)
    path = f"/api/v1/alerts/{alert['id']}/acknowledge"
    taken = (await client.post(path, json={"by": " Li ", "note": "crew is out"})).json()
    assert taken["state"] == "acknowledged"
    assert (taken["acknowledged"]["by"], taken["acknowledged"]["note"]) == ("Li", "crew is out")
    await write(client, event("middle", now - 4 * MINUTE))
    (alert,) = await alerts(client, state="acknowledged")
    assert alert["sites"] == ["west", "middle"]
    await write(client, event("middle", now - 3 * MINUTE, severity="red", since=now - 4 * MINUTE))
    (alert,) = await alerts(client, state="open")
    assert alert["severity"] == "red"
    assert (await client.post("/api/v1/alerts/none/acknowledge", json={"by": "Li"})).status_code == 404
    for wrong in ({"by": 1}, {"by": " "}, {"by": "x" * 101}):
        assert (await client.post(path, json=wrong)).status_code == 422


async def test_what_was_acknowledged_stays_so_after_a_restart(tmp_path: Path, now: int) -> None:
    settings = config(tmp_path)
    async with running(settings) as app, client_of(app) as client:
        await write(client, wind(now - 6 * MINUTE, 0), event("middle", now - 5 * MINUTE))
        (before,) = await alerts(client)
        await client.post(f"/api/v1/alerts/{before['id']}/acknowledge", json={"by": "Li"})
        (before,) = await alerts(client)
    async with running(settings) as app, client_of(app) as client:
        assert await alerts(client) == [before]
        await write(client, event("middle", now, severity="none", since=now - 5 * MINUTE))
        (after,) = await alerts(client)
        assert (after["id"], after["state"]) == (before["id"], "ended")
        assert after["events"][0]["id"] == (await client.get(f"/api/v1/alerts/{after['id']}")).json()["events"][0]["id"]


async def test_pollution_carries_the_sector_upwind_and_the_sources_in_it(client: httpx.AsyncClient, now: int) -> None:
    at = now - 5 * MINUTE
    await write(
        client,
        *(wind(at - n * MINUTE, degrees) for n, degrees in ((9, 350), (5, 10), (1, 0))),
        wind(at - 2 * MINUTE, 180, 20.0, flag=3),  # suspect
        wind(at - 30 * MINUTE, 180, 20.0),  # too old
        wind(at + MINUTE, 180, 20.0),  # too late
        event("middle", at),
    )
    (alert,) = await alerts(client)
    (sector,) = alert["wind"]
    assert min(sector["direction"], 360 - sector["direction"]) == pytest.approx(0, abs=0.1)
    assert (sector["start"], sector["end"], sector["width"]) == (330, 30, 60)
    assert (sector["speed"], sector["calm"], sector["sensors"]) == (3.0, False, ["weather:middle:weather-01"])
    assert [(s["id"], s["kind"], s["sites"]) for s in alert["sources"]] == [("works", "factory", ["middle"])]
    assert alert["sources"][0]["distance_km"] == pytest.approx(6.7, abs=0.05)
    await write(client, event("middle", now - MINUTE, quantity="pm10"))  # which the building site raises, too
    (alert,) = await alerts(client)
    assert [source["id"] for source in alert["sources"]] == ["dump", "works"]


async def test_calm_air_points_nowhere(client: httpx.AsyncClient, now: int) -> None:
    at = now - 5 * MINUTE
    await write(client, wind(at - 2 * MINUTE, 0), wind(at - MINUTE, 180), event("middle", at))
    (alert,) = await alerts(client)
    assert alert["wind"][0]["calm"] is True
    assert alert["sources"] == []


async def test_water_carries_the_stations_upstream_with_their_values(client: httpx.AsyncClient, now: int) -> None:
    await write(
        client,
        f"water,gateway=g1,site=west,sensor=water-01 nh3n=0.3,nh3n_qc=1i {now - MINUTE}",
        event("middle", now - 9 * MINUTE, quantity="nh3n", kind="water", number=2, severity="orange"),
        event("east", now - 5 * MINUTE, quantity="nh3n", kind="water", number=3, severity="blue"),
    )
    (alert,) = await alerts(client)
    assert (alert["cause"], alert["sites"], alert["wind"]) == ("water-quality", ["middle", "east"], [])
    found = [(s["sensor_id"], s["upstream_km"], s["value"], s["unit"], s["event"]) for s in alert["upstream"]]
    assert found == [
        ("water:middle:water-02", 6.0, None, "mg/L", "orange"),
        ("water:west:water-01", 11.0, 0.3, "mg/L", None),
    ]


async def test_an_open_event_that_a_flood_pushed_out_of_the_newest_still_ends(
    client: httpx.AsyncClient, now: int
) -> None:
    start = now - 50 * MINUTE
    await write(client, event("far", start))
    await alerts(client)
    flood = (event("west", start + n, quantity="laeq", kind="noise", number=n % 9) for n in range(1, 520))
    await write(client, *flood, event("far", now, severity="none", since=start))
    ended = [alert for alert in await alerts(client) if alert["cause"] == "air"]
    assert [alert["state"] for alert in ended] == ["ended"]


async def test_events_that_ended_days_ago_begin_no_alert(client: httpx.AsyncClient, now: int) -> None:
    old = now - 3 * 24 * 60 * MINUTE
    await write(client, event("west", old), event("west", old + MINUTE, severity="none", since=old))
    assert await alerts(client) == []


async def test_once_people_sign_in_their_names_are_noted_and_viewers_only_look(
    app: FastAPI, tmp_path: Path, now: int
) -> None:
    async with administrator(app, tmp_path) as admin, person(app, admin, "viewer") as viewer:
        await write(admin, event("west", now))
        (alert,) = await alerts(viewer)
        path = f"/api/v1/alerts/{alert['id']}/acknowledge"
        assert (await viewer.post(path, json={"by": "somebody"})).status_code == 403
        taken = (await admin.post(path, json={"by": "somebody else"})).json()
        assert taken["acknowledged"]["by"] == (await admin.get("/api/v1/session")).json()["name"]
        line = (await admin.get("/api/v1/audit")).json()["audit"][0]
        assert (line["who"], line["action"], line["about"]) == ("admin", "acknowledged", f"alert {alert['id']}")


async def test_alerts_need_the_right_to_read(app: FastAPI) -> None:
    async with client_of(app, "192.0.2.7") as stranger:
        assert (await stranger.get("/api/v1/alerts")).status_code == 401
        assert (await stranger.post("/api/v1/alerts/x/acknowledge", json={"by": "Li"})).status_code == 401
