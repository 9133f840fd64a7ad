"""Cases that open and close by themselves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.city.auth import people
from gateway.city.auth.rights import Caller, Role
from gateway.city.incidents import cases as steps
from gateway.city.incidents import follow
from gateway.city.incidents.cases import Wish
from gateway.city.incidents.follow import Follower
from tests.city.conftest import city_config, client_of, running, write

ADMIN = Caller("admin", Role.ADMINISTRATOR, "")


class Watched:
    """A city view that is looked at when the test says so, by a clock of the test."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, folder: Path) -> None:
        here = app.state.context
        self.client, self.cases = client, here.cases
        self.follower = Follower(here.cases, here.view, here.desk, city_config(folder).cases)
        self.ahead = 0

    async def look(self, minutes: float = 0) -> list[dict[str, Any]]:
        """Moves the clock, looks, and returns all cases, oldest first."""
        self.ahead += round(minutes * 60_000)
        self.follower.look(await self.follower.see())
        found: list[dict[str, Any]] = (await self.client.get("/api/v1/incidents")).json()["incidents"]
        return found[::-1]

    async def reading(self, flag: int = 1, sensor: str = "air-01") -> None:
        value = "" if flag == 4 else "pm25=12.5,"
        line = f"air,gateway=g,site=town,sensor={sensor} {value}pm25_qc={flag}i {people.now_ms()}"
        assert (await write(self.client, line)).status_code == 204

    async def event(self, event: str, severity: str, *, sensor: str = "air-01", quantity: str = "pm25") -> None:
        line = (
            f"event,gateway=g,kind=air,site=town,sensor={sensor},severity={severity}"
            f' id="{event}",quantity="{quantity}",value=300.0,limit=150.0,message="PM2.5 300" {people.now_ms()}'
        )
        assert (await write(self.client, line)).status_code == 204


@pytest.fixture
async def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    async with running(city_config(tmp_path, cases={"watch": False})) as app, client_of(app) as client:
        watched = Watched(app, client, tmp_path)
        for module in (steps, follow):
            monkeypatch.setattr(module, "now_ms", lambda: people.now_ms() + watched.ahead)
        monkeypatch.setattr("gateway.city.view.state", lambda *_: "fresh")
        yield watched


async def test_a_grave_event_opens_a_case_that_is_dispatched_by_rule(town: Watched) -> None:
    await town.reading()
    await town.event("e1", "yellow")
    assert await town.look() == []
    await town.event("e1", "orange")
    (case,) = await town.look()
    assert (case["kind"], case["state"], case["department"]) == ("air", "dispatched", "environment")
    assert (case["source"], case["severity"], case["site"], case["text"]) == ("event", "orange", "town", "PM2.5 300")
    assert len(await town.look()) == 1


async def test_events_of_one_cause_are_one_case_as_grave_as_the_gravest(town: Watched) -> None:
    await town.event("e1", "orange")
    (case,) = await town.look()
    await town.event("e2", "red", sensor="air-02")
    (again,) = await town.look()
    assert (case["id"], again["severity"]) == (again["id"], "red")
    detail = (await town.client.get(f"/api/v1/incidents/{case['id']}")).json()
    assert [step["action"] for step in detail["steps"]] == ["open", "file", "dispatch", "graver"]
    (alert,) = (await town.client.get("/api/v1/alerts")).json()["alerts"]
    assert detail["steps"][0]["detail"] == {"alert": alert["id"], "sites": ["town"]}


async def test_a_case_that_nobody_took_closes_when_its_events_are_over_for_a_while(town: Watched) -> None:
    await town.event("e1", "red")
    await town.look()
    await town.event("e1", "none")
    assert [case["state"] for case in await town.look()] == ["dispatched"]
    assert [case["state"] for case in await town.look(9)] == ["dispatched"]
    (case,) = await town.look(2)
    assert (case["state"], case["by_itself"]) == ("closed", True)


async def test_a_case_that_was_handled_is_confirmed_by_its_sensor(town: Watched) -> None:
    await town.event("e1", "red")
    (case,) = await town.look()
    town.cases.act(ADMIN, case["id"], Wish("accept"))
    await town.event("e1", "none")
    await town.look()
    assert [item["state"] for item in await town.look(11)] == ["handling"]
    town.cases.act(ADMIN, case["id"], Wish("handled", note="the stack is off"))
    (closed,) = await town.look()
    assert (closed["state"], closed["by_itself"]) == ("closed", False)
    detail = (await town.client.get(f"/api/v1/incidents/{case['id']}")).json()
    assert (detail["steps"][-1]["who"], detail["steps"][-1]["action"]) == ("citygate", "confirm")


async def test_a_closed_case_is_not_opened_again_by_the_event_that_had_it(town: Watched) -> None:
    await town.event("e1", "red")
    (case,) = await town.look()
    for action in ("accept", "handled", "confirm"):
        town.cases.act(ADMIN, case["id"], Wish(action, note="done"))
    assert [item["state"] for item in await town.look(30)] == ["closed"]
    await town.event("e2", "red", quantity="wind")
    assert [item["state"] for item in await town.look()] == ["closed", "dispatched"]


async def test_a_lasting_fault_opens_a_maintenance_case_that_closes_when_the_sensor_is_well(town: Watched) -> None:
    await town.reading(flag=4)
    assert await town.look() == []
    assert await town.look(4) == []
    (case,) = await town.look(2)
    assert (case["kind"], case["source"], case["department"]) == ("sensor", "fault", "maintenance")
    assert case["sensor"] == "air:town:air-01"
    for sensor, count in (("air:town:air-01", 1), ("air:town:air-02", 0)):
        of_it = await town.client.get("/api/v1/incidents", params={"sensor": sensor})
        assert len(of_it.json()["incidents"]) == count
    assert "pm25" in case["text"]
    assert len(await town.look(60)) == 1
    await town.reading()
    assert [item["state"] for item in await town.look()] == ["dispatched"]
    await town.reading(flag=4)
    await town.look(6)
    await town.reading()
    await town.look()
    assert [item["state"] for item in await town.look(9)] == ["dispatched"]
    (closed,) = await town.look(2)
    assert (closed["state"], closed["by_itself"]) == ("closed", True)


async def test_a_short_fault_is_no_case(town: Watched) -> None:
    await town.reading(flag=4)
    await town.look()
    await town.reading()
    await town.look(3)
    await town.reading(flag=4)
    assert await town.look(3) == []


async def test_a_silent_sensor_is_a_maintenance_case_and_no_pollution(town: Watched) -> None:
    await town.reading()
    await town.event("s1", "orange", quantity="silence")
    (case,) = await town.look()
    assert (case["kind"], case["severity"], case["sensor"]) == ("sensor", None, "air:town:air-01")
    await town.event("s1", "none", quantity="silence")
    await town.look()
    (closed,) = await town.look(11)
    assert closed["state"] == "closed"


async def test_a_faulty_sensor_is_in_maintenance_and_what_it_raised_is_withdrawn(town: Watched) -> None:
    async def alert() -> dict[str, Any]:
        (found,) = (await town.client.get("/api/v1/alerts")).json()["alerts"]
        return dict(found)

    async def sensor() -> dict[str, Any]:
        return dict((await town.client.get("/api/v1/sensors/air:town:air-01")).json())

    await town.reading()
    await town.event("e1", "yellow")
    await town.look()
    assert ((await alert())["state"], (await sensor())["maintenance"]) == ("open", None)
    await town.reading(flag=4)
    await town.look()
    (case,) = await town.look(6)
    await town.reading(flag=4)
    await town.look()
    assert (case["kind"], (await sensor())["maintenance"]) == (
        "sensor",
        {"case": case["id"], "until": None, "window": None},
    )
    assert ((await alert())["state"], (await alert())["withdrawn"]) == ("ended", "maintenance")
    await town.event("e2", "red", quantity="so2")
    assert len(await town.look()) == 1
    assert [event["id"] for event in (await alert())["events"]] == ["e1"]
    await town.event("e1", "none")
    await town.event("e2", "none", quantity="so2")
    await town.reading()
    await town.look()
    assert [item["state"] for item in await town.look(11)] == ["closed"]
    await town.reading()
    assert (await sensor())["maintenance"] is None
    assert (await alert())["withdrawn"]


async def test_a_verdict_takes_back_what_a_fault_has_raised(town: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.city.alerts.faults._EVERY_S", 0)
    await town.reading()
    began = people.now_ms()
    await town.event("e1", "orange")
    await town.event("e2", "yellow", sensor="air-02")
    (pollution,) = await town.look()
    assert (pollution["kind"], pollution["severity"]) == ("air", "orange")
    line = (
        "verdict,gateway=g,kind=air,quantity=pm25,sensor=air-01,site=town,what=offset"
        f' id="v1",since={began - 60_000}i,until={began + 60_000}i,confidence=0.9,reason="step" {began + 90_000}'
    )
    assert (await write(town.client, line)).status_code == 204
    await town.look()
    cases = await town.look()
    assert [(case["kind"], case["sensor"]) for case in cases[1:]] == [("sensor", "air:town:air-01")]
    assert "offset" in cases[1]["text"]
    (alert,) = (await town.client.get("/api/v1/alerts")).json()["alerts"]
    assert (alert["state"], alert["severity"], alert["withdrawn"]) == ("open", "yellow", None)
    await town.event("e2", "none", sensor="air-02")
    await town.look()
    assert [case["state"] for case in await town.look(11)] == ["closed", "closed"]


async def test_an_undecided_verdict_takes_nothing_back(town: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.city.alerts.faults._EVERY_S", 0)
    now = people.now_ms()
    await town.event("e1", "yellow")
    tags = "verdict,gateway=g,kind=air,quantity=pm25,sensor=air-01,site=town"
    line = f'{tags},what=undecided id="v1",since={now - 60_000}i,until={now + 60_000}i,confidence=0.5,reason="x" {now}'
    assert (await write(town.client, line)).status_code == 204
    assert await town.look() == []
    (alert,) = (await town.client.get("/api/v1/alerts")).json()["alerts"]
    assert (alert["state"], alert["withdrawn"]) == ("open", None)


async def test_an_event_that_outlives_the_maintenance_of_its_sensor_is_one(town: Watched) -> None:
    await town.reading()
    await town.event("e1", "yellow")
    await town.reading(flag=4)
    await town.look()
    (case,) = await town.look(6)
    for action in ("accept", "handled", "confirm"):
        town.cases.act(ADMIN, case["id"], Wish(action, note="it is sound"))
    await town.look()
    await town.reading()
    await town.look()
    (alert,) = (await town.client.get("/api/v1/alerts")).json()["alerts"]
    assert (alert["state"], alert["withdrawn"]) == ("open", None)


async def test_a_fault_whose_case_was_ended_by_hand_does_not_open_another_at_once(town: Watched) -> None:
    await town.reading(flag=4)
    await town.look()
    (case,) = await town.look(6)
    for action in ("accept", "handled", "confirm"):
        town.cases.act(ADMIN, case["id"], Wish(action, note="it is to be scrapped"))
    assert [item["state"] for item in await town.look(60)] == ["closed"]


async def test_the_running_view_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_EVERY_S", 0.05)
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        line = f'event,kind=air,site=town,sensor=a,severity=red id="e1",quantity="pm25" {people.now_ms()}'
        assert (await write(client, line)).status_code == 204
        async with asyncio.timeout(20):
            while not (await client.get("/api/v1/incidents")).json()["incidents"]:  # noqa: ASYNC110 - the server's doing
                await asyncio.sleep(0.05)
