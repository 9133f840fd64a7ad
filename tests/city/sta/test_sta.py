"""SensorThings by HTTP: sets, links, options, pages."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.city.conftest import city_config, client_of, running, write

ROOT = "/sta/v1.1"
FIRST = 1_795_413_600_000  # 2026-11-23T06:00:00Z
SITE = "o'b/x"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A town of two air stations, of which one is placed, and a road."""
    title = {"zh": "空气 01", "en": "Air 01", "ko": "대기 01"}
    properties = {"site": SITE, "kind": "air", "sensor": "a1", "title": title}
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [119.7, 30.2]}, "properties": properties}
    (tmp_path / "sensors.geojson").write_text(json.dumps({"features": [feature]}))
    config = city_config(tmp_path, map={"sensors": tmp_path / "sensors.geojson"})
    async with running(config) as app, client_of(app) as client:
        lines = [f"air,site={SITE},sensor=a1 pm25={n},pm25_qc=1i,o3=40 {FIRST + n * 1000}" for n in range(250)]
        lines += [f"air,site=z,sensor=a2 pm25={n},pm25_qc=3i {FIRST + n * 1000}" for n in range(3)]
        lines += [f"air,site=z,sensor=a2 pm25_qc=4i {FIRST + 9000}", f"traffic,site=z,sensor=t1 speed=50 {FIRST}"]
        assert (await write(client, *lines)).status_code == 204
        yield client


async def get(client: httpx.AsyncClient, path: str, **options: str) -> dict[str, Any]:
    answer = await client.get(f"{ROOT}{path}", params={f"${name}": value for name, value in options.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def names(client: httpx.AsyncClient, path: str, **options: str) -> list[str]:
    return [entity["name"] for entity in (await get(client, path, **options))["value"]]


AIR = f"'air:{SITE.replace(chr(39), chr(39) * 2)}:a1'"
STREAM = AIR[:-1] + ":pm25'"


async def test_the_root_lists_the_sets_and_every_link_leads_somewhere(client: httpx.AsyncClient) -> None:
    seen = set()
    for entry in (await get(client, ""))["value"]:
        answer = await client.get(entry["url"])
        assert answer.status_code == 200
        entity = answer.json()["value"][0]
        for key, link in entity.items():
            if key.endswith(("Link", "navigationLink")):
                seen.add(key)
                assert (await client.get(link)).status_code == 200, link
        itself = (await client.get(entity["@iot.selfLink"])).json()
        assert itself == entity
    assert len(seen) == 10


async def test_a_sensor_is_a_thing_with_datastreams_and_a_place(client: httpx.AsyncClient) -> None:
    thing = await get(client, f"/Things({AIR})", expand="Locations,Datastreams($expand=ObservedProperty;$select=name)")
    assert (thing["@iot.id"], thing["name"]) == (f"air:{SITE}:a1", "Air 01")
    assert thing["properties"]["title"]["zh"] == "空气 01"
    assert thing["Locations"][0]["location"] == {"type": "Point", "coordinates": [119.7, 30.2]}
    assert [(stream["name"], stream["ObservedProperty"]["@iot.id"]) for stream in thing["Datastreams"]] == [
        ("Air 01: PM2.5", "air:pm25"),
        ("Air 01: O₃", "air:o3"),
    ]
    stream = await get(client, f"/Datastreams({STREAM})")
    assert stream["unitOfMeasurement"]["symbol"] == "µg/m³"
    assert stream["observedArea"]["type"] == "Point"
    assert await get(client, f"/Things({AIR})/name") == {"name": "Air 01"}
    assert (await client.get(f"{ROOT}/Datastreams({STREAM})/Thing/name/$value")).text == "Air 01"
    assert (await get(client, f"/Datastreams({STREAM})/Thing/Locations({AIR})"))["name"] == "Air 01"


async def test_entities_are_filtered_ordered_selected_and_paged(client: httpx.AsyncClient) -> None:
    assert await names(client, "/Things", filter="properties/kind eq 'air'", orderby="name desc") == ["a2", "Air 01"]
    assert await names(client, "/Things", filter="Datastreams/ObservedProperty/@iot.id eq 'traffic:speed'") == ["t1"]
    assert await names(client, "/Things", filter="Locations/name ne null") == ["Air 01"]
    page = await get(client, "/Datastreams", top="2", count="true", select="id", orderby="id")
    assert page["@iot.count"] == 4
    assert page["value"] == [{"@iot.id": f"air:{SITE}:a1:o3"}, {"@iot.id": f"air:{SITE}:a1:pm25"}]
    rest = (await client.get(page["@iot.nextLink"])).json()
    assert [entity["@iot.id"] for entity in rest["value"]] == ["air:z:a2:pm25", "traffic:z:t1:speed"]
    assert "@iot.nextLink" not in rest


async def test_observations_carry_time_result_and_quality(client: httpx.AsyncClient) -> None:
    page = await get(client, f"/Datastreams({STREAM})/Observations", top="1", orderby="phenomenonTime desc")
    (newest,) = page["value"]
    assert (newest["phenomenonTime"], newest["result"]) == ("2026-11-23T06:04:09.000Z", 249)
    assert newest["resultQuality"] == {"qartod": 1, "name": "good"}
    # a value that failed is no observation
    other = await get(client, "/Datastreams('air:z:a2:pm25')/Observations", count="true")
    assert [(o["result"], o["resultQuality"]["name"]) for o in other["value"]] == [
        (0, "suspect"),
        (1, "suspect"),
        (2, "suspect"),
    ]
    assert other["@iot.count"] == 3


@pytest.mark.parametrize("options", [{}, {"orderby": "phenomenonTime desc"}, {"filter": "result ge 0"}])
async def test_pages_hold_every_observation_once(client: httpx.AsyncClient, options: dict[str, str]) -> None:
    page = await get(client, f"/Datastreams({STREAM})/Observations", top="99", **options)
    results = [entity["result"] for entity in page["value"]]
    pages = 1
    while link := page.get("@iot.nextLink"):
        # what comes in while one reads moves no page
        await write(
            client,
            f"air,site={SITE},sensor=a1 pm25=999 {FIRST - pages * (1 if 'orderby' not in options else -(10**6))}",
        )
        page = (await client.get(link)).json()
        results += [entity["result"] for entity in page["value"]]
        pages += 1
    assert pages == 3
    assert sorted(results) == list(range(250))


async def test_observations_are_filtered_by_time_and_result(client: httpx.AsyncClient) -> None:
    inside = "phenomenonTime ge 2026-11-23T06:00:10Z and phenomenonTime lt 2026-11-23T06:00:20Z"
    page = await get(client, f"/Datastreams({STREAM})/Observations", filter=inside, count="true", skip="8")
    assert ([o["result"] for o in page["value"]], page["@iot.count"]) == ([18, 19], 10)
    page = await get(
        client, f"/Datastreams({STREAM})/Observations", filter=f"{inside} and result mod 5 eq 0", count="true"
    )
    assert ([o["result"] for o in page["value"]], page["@iot.count"]) == ([10, 15], 2)
    page = await get(client, "/Observations", filter="Datastream/@iot.id eq 'air:z:a2:pm25' and result gt 0", top="1")
    assert [o["result"] for o in page["value"]] == [1]
    page = await get(client, f"/Datastreams({STREAM})/Observations", orderby="result desc", skip="1", top="2")
    assert [o["result"] for o in page["value"]] == [248, 247]


async def test_all_observations_come_by_datastream_or_by_time(client: httpx.AsyncClient) -> None:
    page = await get(client, "/Observations", skip="499", top="2", count="true")
    assert page["@iot.count"] == 504
    assert [o["@iot.id"] for o in page["value"]] == [f"air:{SITE}:a1:pm25@{FIRST + 249_000}", f"air:z:a2:pm25@{FIRST}"]
    rest = (await client.get(page["@iot.nextLink"])).json()
    assert rest["value"][0]["@iot.id"] == f"air:z:a2:pm25@{FIRST + 1000}"
    page = await get(
        client, "/Observations", orderby="phenomenonTime desc", top="2", select="result", expand="Datastream"
    )
    assert sorted(o["Datastream"]["name"] for o in page["value"]) == ["Air 01: O₃", "Air 01: PM2.5"]


async def test_the_newest_of_all_are_found_beside_a_datastream_that_fails(client: httpx.AsyncClient) -> None:
    late = FIRST + 10**7
    await write(client, *(f"air,site=n,sensor=n{n} pm25={n} {late + n}" for n in range(9)))
    await write(client, f"air,site=n,sensor=n0 pm25=50 {late + 100}", f"air,site=n,sensor=n0 pm25_qc=4i {late + 200}")
    page = await get(client, "/Observations", orderby="phenomenonTime desc", top="3", select="result")
    assert [entity["result"] for entity in page["value"]] == [50, 8, 7]
    page = (await client.get(page["@iot.nextLink"])).json()
    assert [entity["result"] for entity in page["value"]] == [6, 5, 4]


async def test_expanded_observations_have_their_own_pages(client: httpx.AsyncClient) -> None:
    inner = "Observations($top=2;$orderby=phenomenonTime desc;$count=true;$select=result)"
    (stream,) = (await get(client, "/Datastreams", filter=f"id eq {STREAM}", expand=inner))["value"]
    assert stream["Observations"] == [{"result": 249}, {"result": 248}]
    assert stream["Observations@iot.count"] == 250
    page = (await client.get(stream["Observations@iot.nextLink"])).json()
    assert page["value"] == [{"result": 247}, {"result": 246}]


@pytest.mark.parametrize(
    ("path", "options", "status", "detail"),
    [
        ("/Things", {"filter": "colour eq 'red'"}, 400, "$filter: at character 1: there is no property 'colour'"),
        ("/Things", {"orderby": "shade"}, 400, "$orderby: at character 1: there is no property 'shade'"),
        ("/Things", {"select": "colour"}, 400, "$select: Things have id, name"),
        ("/Things", {"expand": "Friends"}, 400, "$expand: Things lead to Locations, Datastreams, not to 'Friends'"),
        ("/Things", {"skiptoken": "x"}, 400, "$skiptoken: only next links"),
        ("/Observations", {"skiptoken": "x@1"}, 400, "$skiptoken: 'x@1' is not from a next link"),
        ("/Observations", {"orderby": "phenomenonTime", "skip": "60000"}, 400, "$orderby: more than 50000"),
        ("/Observations", {"filter": "Datastream eq 1"}, 400, "there is no property 'Datastream'"),
        ("/Nothings", {}, 404, "there is no 'Nothings'; there are Things"),
        ("/Things('no:such:thing')", {}, 404, "there is no Things('no:such:thing')"),
        ("/Things(5)", {}, 404, "ids are text in quotes"),
        ("/Things/name", {}, 404, "'Things' is many"),
        ("/Things('traffic:z:t1')/colour", {}, 404, "Things have no 'colour'"),
        ("/Observations('air:z:a2:pm25@12')", {}, 404, "there is no Observations("),
        ("/Things('traffic:z:t1')/Datastreams('air:z:a2:pm25')", {}, 404, "there is no Datastreams("),
        ("/Things()", {}, 404, "ids are text in quotes"),
        ("/(", {}, 404, "is no address"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, path: str, options: dict[str, str], status: int, detail: str
) -> None:
    answer = await client.get(f"{ROOT}{path}", params={f"${name}": value for name, value in options.items()})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]


async def test_an_answer_has_an_end(client: httpx.AsyncClient) -> None:
    nested = "Datastreams/Thing/Datastreams/Observations($top=10000)"
    stream = await client.get(f"{ROOT}/Things({AIR})", params={"$expand": nested})
    assert stream.status_code == 200
    for _ in range(4):
        nested = f"Datastreams($expand=Thing($expand={nested}))" if nested.count("(") < 6 else nested
    answer = await client.get(f"{ROOT}/Things({AIR})", params={"$expand": nested})
    assert answer.status_code == 400
    assert "$expand" in answer.json()["detail"]


async def test_reading_needs_the_right_to_read(tmp_path: Path) -> None:
    async with running(city_config(tmp_path, host="0.0.0.0")) as app, client_of(app, "192.0.2.7") as client:
        for path in ("", "/Things", "/Things('a')", "/Things('a')/Datastreams"):
            assert (await client.get(ROOT + path)).status_code == 401


async def test_every_set_is_in_the_reference_with_its_options(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for entry in (await get(client, ""))["value"]:
        path = f"{ROOT}/{entry['name']}"
        listed = {parameter["name"] for parameter in paths[path]["get"]["parameters"]}
        assert {"$filter", "$expand", "$orderby", "$select", "$top", "$skip", "$count"} <= listed
        of_one = {parameter["name"] for parameter in paths[f"{path}({{id}})"]["get"]["parameters"]}
        assert of_one == {"id", "$expand", "$select"}
        assert {"200", "400", "404"} <= set(paths[path]["get"]["responses"])
