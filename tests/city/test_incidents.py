"""Cases by the HTTP API: the whole way, limits, scopes, duplicates, figures."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from gateway.city.auth import people
from gateway.city.incidents import cases as steps
from gateway.city.incidents.classes import ClassesError, load
from gateway.city.incidents.photo import MAX_BYTES
from gateway.config import ConfigError
from tests.city.conftest import both_databases, city_config, running
from tests.city.signed_in import administrator, person
from tests.city.test_reports import picture

HOUR = 3_600_000
EAST, WEST = (30.1, 119.8), (30.1, 119.2)
DISTRICTS = """{"type": "FeatureCollection", "features": [
{"type": "Feature", "properties": {"district": "east"}, "geometry": {"type": "Polygon",
 "coordinates": [[[119.5, 30], [120, 30], [120, 31], [119.5, 31], [119.5, 30]]]}},
{"type": "Feature", "properties": {"district": "west"}, "geometry": {"type": "Polygon",
 "coordinates": [[[119, 30], [119.5, 30], [119.5, 31], [119, 31], [119, 30]]]}}]}"""


class Town:
    """A city view with a person of each role."""

    def __init__(self, app: FastAPI, clients: dict[str, httpx.AsyncClient], later: Callable[[float], None]) -> None:
        self.app, self.clients, self.later = app, clients, later

    def __getitem__(self, name: str) -> httpx.AsyncClient:
        return self.clients[name]

    async def opened(self, at: tuple[float, float] = EAST, kind: str = "water") -> int:
        body = {"kind": kind, "text": "the river foams", "lat": at[0], "lon": at[1]}
        answer = await self["operator"].post("/api/v1/incidents", json=body)
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    async def step(self, who: str, number: int, action: str, status: int = 201, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        answer = await self[who].post(f"/api/v1/incidents/{number}/steps", json={"action": action, **more})
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def way(self, number: int, *actions: str) -> dict[str, Any]:
        """Takes steps, each by a role that may."""
        who = {"accept": "water", "handled": "water", "dispatch": "dispatcher"}
        for action in actions:
            body = await self.step(who.get(action, "operator"), number, action, note="done")
        return body


@pytest.fixture
async def town(tmp_path: Path, database: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    (tmp_path / "districts.geojson").write_text(DISTRICTS)
    config = city_config(
        tmp_path, database=database, cases={"watch": False}, map={"districts": tmp_path / "districts.geojson"}
    )
    ahead = 0

    def later(hours: float) -> None:
        nonlocal ahead
        ahead += round(hours * HOUR)

    monkeypatch.setattr(steps, "now_ms", lambda: people.now_ms() + ahead)
    async with running(config) as app, administrator(app, tmp_path) as admin, AsyncExitStack() as stack:
        clients = {"administrator": admin}
        for name, role, scope in (
            ("viewer", "viewer", {}),
            ("operator", "operator", {}),
            ("dispatcher", "dispatcher", {}),
            ("water", "department", {"departments": ["water"]}),
            ("traffic", "department", {"departments": ["traffic"]}),
            ("western", "operator", {"districts": ["west"]}),
        ):
            clients[name] = await stack.enter_async_context(person(app, admin, role, name=name, **scope))
        await admin.get("/api/v1/map")
        yield Town(app, clients, later)


@both_databases
async def test_a_case_goes_its_way_to_the_end(town: Town) -> None:
    number = await town.opened()
    for who, action, state in (
        ("operator", "file", "filed"),
        ("dispatcher", "dispatch", "dispatched"),
        ("water", "accept", "handling"),
        ("water", "handled", "verifying"),
        ("operator", "confirm", "closed"),
    ):
        seen = (await town[who].get(f"/api/v1/incidents/{number}")).json() if who != "water" else None
        assert seen is None or action in seen["allowed"]
        after = await town.step(who, number, action, note="done")
        assert after["state"] == state
    assert after["status"] == "ended"
    assert after["department"] == "water"
    assert after["district"] == "east"
    history = [(step["who"], step["action"]) for step in after["steps"]]
    assert history[:2] == [("operator", "open"), ("operator", "file")]
    assert after["steps"][2]["detail"] == {"department": "water"}
    assert len(history) == 6


async def test_verification_sends_back_what_is_not_done(town: Town) -> None:
    number = await town.opened()
    await town.way(number, "file", "dispatch", "accept", "handled")
    after = await town.step("operator", number, "reject", note="it still foams")
    assert (after["state"], after["reworks"]) == ("dispatched", 1)
    assert (await town.way(number, "accept", "handled", "confirm"))["state"] == "closed"


async def test_staff_show_before_and_after(town: Town) -> None:
    number = await town.opened()
    await town.way(number, "file", "dispatch", "accept")
    path = f"/api/v1/incidents/{number}/photos"
    for who, stage, status in (
        ("viewer", "before", 403),
        ("traffic", "before", 404),  # another department's
        ("dispatcher", "after", 403),
        ("water", "before", 201),
        ("water", "after", 201),
        ("operator", "later", 422),
    ):
        answer = await town[who].post(path, params={"stage": stage}, content=picture(size=(40, 20)))
        assert answer.status_code == status, (who, stage, answer.text)
    assert (await town["water"].post(path, params={"stage": "after"}, content=b"GIF89a")).status_code == 422
    assert (await town["water"].post(path, params={"stage": "after"}, content=bytes(MAX_BYTES + 1))).status_code == 413
    forged = await town["water"].post(path, params={"stage": "after"}, content=b"", headers={"X-CSRF-Token": "x"})
    assert forged.status_code == 403
    case = (await town["viewer"].get(f"/api/v1/incidents/{number}")).json()
    assert [(photo["stage"], photo["who"]) for photo in case["photos"]] == [("before", "water"), ("after", "water")]
    assert [step["detail"]["stage"] for step in case["steps"] if step["action"] == "photo"] == ["before", "after"]
    shown = await town["viewer"].get(f"{path}/{case['photos'][0]['id']}")
    assert b"MAKER-OF-THE-CAMERA" not in shown.content
    assert (await town["traffic"].get(f"{path}/{case['photos'][0]['id']}")).status_code == 404


async def test_time_runs_by_stage_and_is_said_to_run_out_before_it_does(town: Town) -> None:
    number = await town.opened()
    await town.way(number, "file", "dispatch")
    path = f"/api/v1/incidents/{number}"
    assert (await town["viewer"].get(path)).json()["status"] == "in time"
    town.later(3.1)  # of four hours for handling
    assert (await town["viewer"].get(path)).json()["status"] == "running out"
    accepted = await town.step("water", number, "accept")
    assert accepted["status"] == "running out"  # accepting gives no more time
    await town.step("water", number, "ask-extension", hours=4, note="the pump comes tomorrow")
    assert (await town["viewer"].get(path)).json()["status"] == "running out"
    assert (await town.step("dispatcher", number, "approve"))["status"] == "in time"
    town.later(5)
    assert (await town["viewer"].get(path)).json()["status"] == "late"
    late = (await town["viewer"].get("/api/v1/incidents", params={"late": True})).json()["incidents"]
    assert [item["id"] for item in late] == [number]


@both_databases
async def test_a_deferral_stops_the_time_and_gives_back_what_was_left(town: Town) -> None:
    number = await town.opened()
    await town.way(number, "file", "dispatch", "accept")
    town.later(1)
    await town.step("water", number, "ask-deferral", hours=48, note="ice")
    assert (await town.step("dispatcher", number, "approve"))["status"] == "paused"
    town.later(47)
    assert (await town["viewer"].get(f"/api/v1/incidents/{number}")).json()["status"] == "paused"
    town.later(2)
    assert (await town["viewer"].get(f"/api/v1/incidents/{number}")).json()["status"] == "late"
    assert (await town.step("water", number, "resume"))["status"] == "in time"
    town.later(3.1)
    assert (await town["viewer"].get(f"/api/v1/incidents/{number}")).json()["status"] == "late"


@both_databases
async def test_people_see_the_cases_of_their_department_and_their_districts(town: Town) -> None:
    east, west = await town.opened(EAST), await town.opened(WEST)

    async def seen(who: str) -> list[int]:
        found = (await town[who].get("/api/v1/incidents")).json()["incidents"]
        return sorted(item["id"] for item in found)

    assert await seen("viewer") == [east, west]
    assert await seen("western") == [west]
    assert await seen("water") == []
    await town.way(east, "file", "dispatch")
    assert await seen("water") == [east]
    assert await seen("traffic") == []
    assert (await town["western"].get(f"/api/v1/incidents/{east}")).status_code == 404
    await town.step("western", east, "note", status=404, note="x")
    await town.step("traffic", east, "accept", status=404)
    body = {"kind": "water", "text": "x", "lat": EAST[0], "lon": EAST[1]}
    assert (await town["western"].post("/api/v1/incidents", json=body)).status_code == 403
    await town.step("viewer", east, "note", status=403, note="x")


async def test_a_returned_case_goes_to_another_department(town: Town) -> None:
    number = await town.opened()
    await town.way(number, "file", "dispatch")
    await town.step("water", number, "ask-return", note="it is a road")
    returned = await town.step("dispatcher", number, "approve")
    assert (returned["state"], returned["department"], returned["returns"]) == ("filed", None, 1)
    assert (await town["water"].get(f"/api/v1/incidents/{number}")).status_code == 404
    await town.step("dispatcher", number, "dispatch", status=422, department="nobody")
    assert (await town.step("dispatcher", number, "dispatch", department="traffic"))["department"] == "traffic"
    assert (await town.step("traffic", number, "accept"))["state"] == "handling"


@both_databases
async def test_a_duplicate_is_merged_into_an_open_case(town: Town) -> None:
    first, second, ended = await town.opened(), await town.opened(), await town.opened()
    await town.step("operator", ended, "refuse", note="nothing there")
    for into, status in ((None, 422), (second, 422), (99, 404), (ended, 409)):
        await town.step("operator", second, "merge", status=status, into=into)
    merged = await town.step("operator", second, "merge", into=first)
    assert (merged["state"], merged["merged_into"]) == ("merged", first)
    other = (await town["viewer"].get(f"/api/v1/incidents/{first}")).json()
    assert other["steps"][-1]["detail"] == {"duplicate": second}


async def test_two_people_do_not_act_on_one_anothers_state(town: Town) -> None:
    number = await town.opened()
    seen = (await town["operator"].get(f"/api/v1/incidents/{number}")).json()["entered"]
    await town.step("operator", number, "note", note="I look at it", entered=seen)
    town.later(0.1)
    await town.way(number, "file")
    body = await town.step("dispatcher", number, "dispatch", status=409, entered=seen)
    assert "faster" in body["detail"]


@both_databases
async def test_the_history_cannot_be_changed(town: Town, tmp_path: Path, database: dict[str, str]) -> None:
    await town.opened()
    for change in ("DELETE FROM incident_step", "UPDATE incident_step SET who = 'nobody'"):
        if url := database.get("url"):
            with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(change)
        else:
            with sqlite3.connect(tmp_path / "operations.db") as file, pytest.raises(sqlite3.Error, match="append-only"):
                file.execute(change)


@both_databases
async def test_figures_say_how_well_cases_are_dealt_with(town: Town) -> None:
    empty = (await town["viewer"].get("/api/v1/incident-figures")).json()
    assert (empty["reported"], empty["filing_rate"], empty["hours_per_case"]) == (0, None, None)
    good, slow, refused, merged = [await town.opened() for _ in range(4)]
    await town.step("operator", refused, "refuse", note="nothing there")
    await town.step("operator", merged, "merge", into=good)
    for number in (good, slow):
        await town.way(number, "file", "dispatch", "accept")
    town.later(2)
    await town.way(good, "handled", "confirm")
    await town.step("water", slow, "ask-return", note="not ours")
    await town.step("dispatcher", slow, "approve")
    await town.way(slow, "dispatch", "accept")
    town.later(6)
    await town.way(slow, "handled")
    await town.step("operator", slow, "reject", note="again")
    await town.way(slow, "accept", "handled", "confirm")
    found = (await town["viewer"].get("/api/v1/incident-figures")).json()
    assert found["filing_rate"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["accurate_dispatch_rate"] == 0.5
    assert found["handled_on_time"] == 0.5
    assert found["closed_on_time"] == 0.5
    assert found["rework_rate"] == 0.5
    assert found["hours_per_case"] == pytest.approx(5, abs=0.02)
    assert found["goal_hours"] == 5.24
    assert found["by_state"] | {"closed": 2, "refused": 1, "merged": 1} == found["by_state"]


async def test_bodies_and_queries_are_checked(town: Town) -> None:
    for body in (
        {"kind": "ufo", "text": "x"},
        {"kind": "water", "text": ""},
        {"kind": "water", "text": "x", "lat": 99},
    ):
        assert (await town["operator"].post("/api/v1/incidents", json=body)).status_code == 422
    number = await town.opened()
    await town.step("operator", number, "conjure", status=422)
    await town.way(number, "file", "dispatch")
    await town.step("water", number, "ask-extension", status=422, note="because")
    assert (await town["operator"].get(f"/api/v1/incidents/{2**70}")).status_code == 404
    for query in ({"state": "lost"}, {"limit": 0}, {"before": 2**70}):
        assert (await town["operator"].get("/api/v1/incidents", params=query)).status_code == 422
    listed = (await town["viewer"].get("/api/v1/incident-classes")).json()
    assert {item["kind"] for item in listed["classes"]} >= {"air", "water", "sensor"}


async def test_the_list_is_filtered_and_paged(town: Town) -> None:
    numbers = [await town.opened(kind=kind) for kind in ("water", "air", "water")]
    await town.way(numbers[0], "file")

    async def listed(**query: Any) -> list[int]:  # noqa: ANN401 - a query's values
        found = (await town["viewer"].get("/api/v1/incidents", params=query)).json()["incidents"]
        return [item["id"] for item in found]

    assert await listed(kind="air") == [numbers[1]]
    assert await listed(state="filed") == [numbers[0]]
    assert await listed(limit=2) == [numbers[2], numbers[1]]
    assert await listed(before=numbers[1]) == [numbers[0]]
    assert await listed(district="west") == []
    await town.step("operator", numbers[2], "refuse", note="no")
    assert await listed(open=True) == [numbers[1], numbers[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('department = "water"', 'department = "nobody"'), "no department 'nobody'"),
        (('kinds = ["water"]', 'kinds = ["air"]'), "air stands in two"),
        (('file = "15m"', 'file = "soon"'), "limits.file"),
        (("public = true", "public = true\nfaults = true"), "more than one class"),
        (("[departments]", "[departments"), "classes.toml"),
    ],
)
def test_a_wrong_table_is_a_clear_error(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    import gateway.city.incidents.classes as module  # noqa: PLC0415 - for its file

    text = (Path(module.__file__).parent / "classes.toml").read_text("utf-8")
    path = tmp_path / "classes.toml"
    path.write_text(text.replace(*change, 1), "utf-8")
    with pytest.raises(ClassesError, match=message):
        load(path)


async def test_a_site_brings_its_own_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cases\.table"):
        async with running(city_config(tmp_path, cases={"table": tmp_path / "missing.toml"})):
            pass
