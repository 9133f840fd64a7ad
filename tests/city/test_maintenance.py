"""Maintenance that people declare: it silences a sensor or a site, until it is over or ended."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.city.auth.people import now_ms
from tests.city.conftest import city_config, running, write
from tests.city.signed_in import administrator, person


class Town:
    """A city view with an operator and a viewer."""

    def __init__(
        self, app: FastAPI, admin: httpx.AsyncClient, operator: httpx.AsyncClient, viewer: httpx.AsyncClient
    ) -> None:
        self.app, self.admin, self.operator, self.viewer = app, admin, operator, viewer

    async def event(self, name: str, sensor: str = "a1", severity: str = "red") -> None:
        tags = f"event,gateway=g,kind=air,site=mill,sensor={sensor},severity={severity}"
        line = f'{tags} id="{name}",quantity="pm25",value=300.0,limit=150.0,message="m" {now_ms()}'
        assert (await write(self.admin, line)).status_code == 204

    async def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.viewer.get("/api/v1/alerts")).json()["alerts"]
        return found


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(running(city_config(tmp_path, cases={"watch": False})))
        admin = await stack.enter_async_context(administrator(app, tmp_path))
        roles = [await stack.enter_async_context(person(app, admin, role)) for role in ("operator", "viewer")]
        yield Town(app, admin, *roles)


def soon(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


async def test_a_site_in_maintenance_raises_no_alert_until_that_is_ended(town: Town) -> None:
    declared = await town.operator.post(
        "/api/v1/maintenance", json={"site": "mill", "until": soon(hours=1), "note": "wash"}
    )
    assert declared.status_code == 201, declared.text
    (window,) = (await town.viewer.get("/api/v1/maintenance")).json()["windows"]
    assert (window["site"], window["sensor"], window["who"], window["note"]) == ("mill", "*", "operator", "wash")
    assert (
        await write(town.admin, f"air,gateway=g,site=mill,sensor=a1 pm25=1,pm25_qc=1i {now_ms()}")
    ).status_code == 204
    (sensor,) = (await town.viewer.get("/api/v1/sensors")).json()["sensors"]
    assert sensor["maintenance"] == {"case": None, "until": window["until"], "window": window["id"]}
    await town.event("e1")
    assert await town.alerts() == []
    assert (await town.operator.delete(f"/api/v1/maintenance/{window['id']}")).status_code == 204
    await town.event("e1")
    assert [alert["state"] for alert in await town.alerts()] == ["open"]
    assert (await town.viewer.get("/api/v1/maintenance")).json()["windows"] == []
    trail = (await town.admin.get("/api/v1/audit")).json()["audit"]
    assert [(line["who"], line["action"]) for line in trail if line["about"] == f"maintenance {window['id']}"] == [
        ("operator", "ended"),
        ("operator", "declared"),
    ]


async def test_a_running_alert_is_over_while_its_sensor_is_worked_on(town: Town) -> None:
    await town.event("e1")
    assert [alert["state"] for alert in await town.alerts()] == ["open"]
    body = {"sensor": "a1", "kind": "air", "until": soon(hours=1)}
    assert (await town.operator.post("/api/v1/maintenance", json=body)).status_code == 201
    await town.event("e1")
    (alert,) = await town.alerts()
    assert (alert["state"], alert["withdrawn"]) == ("ended", None)


async def test_windows_survive_a_restart(tmp_path: Path) -> None:
    config = city_config(tmp_path, cases={"watch": False})
    async with running(config) as app, administrator(app, tmp_path) as admin:
        assert (
            await admin.post("/api/v1/maintenance", json={"site": "mill", "until": soon(hours=1)})
        ).status_code == 201
        token = (await admin.post("/api/v1/tokens", json={"label": "t", "scope": "read", "days": 1})).json()["token"]
    async with (
        running(config) as app,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {token}"},
        ) as client,
    ):
        line = f"air,gateway=g,site=mill,sensor=a1 pm25=1,pm25_qc=1i {now_ms()}"
        assert (await write(client, line)).status_code == 204
        (sensor,) = (await client.get("/api/v1/sensors")).json()["sensors"]
        assert sensor["maintenance"]["window"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"until": "2126-01-01T00:00:00Z"}, "names no sensors"),
        ({"site": "mill", "until": 4_922_985_600}, "a text such as"),
        ({"site": "mill", "until": "2020-01-01T00:00:00Z"}, "in the future"),
        ({"site": "mill", "since": "2126-01-02T00:00:00Z", "until": "2126-01-01T00:00:00Z"}, "after since"),
        ({"site": "mill", "until": "2126-01-01T00:00:00"}, "timezone"),
    ],
)
async def test_a_window_that_cannot_be_is_refused(town: Town, body: dict[str, object], says: str) -> None:
    answer = await town.operator.post("/api/v1/maintenance", json=body)
    assert answer.status_code == 422
    assert says in answer.text


async def test_only_the_desk_declares_and_ends(town: Town) -> None:
    body = {"site": "mill", "until": soon(hours=1)}
    assert (await town.viewer.post("/api/v1/maintenance", json=body)).status_code == 403
    assert (await town.operator.post("/api/v1/maintenance", json=body)).status_code == 201
    assert (await town.viewer.delete("/api/v1/maintenance/1")).status_code == 403
    assert (await town.operator.delete("/api/v1/maintenance/2")).status_code == 404
