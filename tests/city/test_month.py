"""A month of the town: its cases by class, district and department, its alerts, its sensors' availability."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.city import view
from gateway.city.database.tables import Incident
from gateway.city.incidents.cases import Report
from tests.city.conftest import city_config, client_of, running, write

HOUR = 3_600_000
OCTOBER = round(datetime(2026, 10, 1).astimezone().timestamp()) * 1000
NOVEMBER = round(datetime(2026, 11, 1).astimezone().timestamp()) * 1000
DEPARTMENT = {"water": "water", "noise": "enforcement"}
NOW = NOVEMBER + 100 * HOUR


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    config = city_config(tmp_path, cases={"watch": False}, store={"path": tmp_path / "city.db", "retention": "3650d"})
    monkeypatch.setattr(view, "now_ms", lambda: NOW)
    async with running(config) as app:
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def _case(app: FastAPI, opened: int, kind: str, district: str | None, hours: float | None) -> None:
    """A case of a kind, closed after some hours."""
    cases = app.state.context.cases
    made = cases.open(Report("hand", kind, "a case", district=district), "test")
    with cases.database.write() as transaction:
        case = transaction.get_one(Incident, made.id)
        case.opened, case.filed, case.dispatched, case.department = opened, opened, opened, DEPARTMENT[kind]
        if hours is not None:
            case.handled = case.closed = opened + round(hours * HOUR)
            case.state = "closed"


async def test_cases_are_counted_in_the_month_in_which_they_were_opened(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    _case(app, OCTOBER - 1, "water", "east", 2)
    _case(app, OCTOBER, "water", "east", 4)
    _case(app, NOVEMBER - 1, "noise", "west", 30)
    _case(app, NOVEMBER - 2, "water", None, None)
    _case(app, NOVEMBER, "water", "east", 1)
    month = (await client.get("/api/v1/months/2026-10")).json()
    total = month["total"]
    assert (total["reported"], total["hours_per_case"], total["closed_on_time"]) == (3, 17.0, 0.5)
    assert (month["over"], month["goal_hours"]) == (True, 5.24)

    def rows(part: str) -> dict[str | None, tuple[int, float | None]]:
        return {row["name"]: (row["reported"], row["hours_per_case"]) for row in month[part]}

    assert rows("classes") == {"water": (2, 4.0), "noise": (1, 30.0)}
    assert rows("districts") == {"east": (1, 4.0), "west": (1, 30.0), None: (1, None)}
    assert rows("departments") == {"water": (2, 4.0), "enforcement": (1, 30.0)}


def _heard(sensor: str, hours: range) -> list[str]:
    return [
        f"air,gateway=g,site=s,sensor={sensor} pm25=3,pm25_qc=1i {NOVEMBER + hour * HOUR + 60_000}" for hour in hours
    ]


async def test_sensors_are_available_in_the_hours_in_which_they_were_heard(client: httpx.AsyncClient) -> None:
    lines = _heard("whole", range(-5, 100)) + _heard("half", range(0, 100, 2)) + _heard("new", range(80, 100))
    lines += _heard("dead", range(-5, 0))
    lines += [f"air,gateway=g,site=s,sensor=half battery=3 {NOVEMBER + hour * HOUR}" for hour in range(100)]
    lines.append(f"noise,gateway=g,site=s,sensor=failing laeq_qc=4i {NOVEMBER}")
    assert (await write(client, *lines)).status_code == 204
    month = (await client.get("/api/v1/months/2026-11")).json()
    assert month["over"] is False
    kinds = {row["kind"]: (row["sensors"], row["availability"]) for row in month["sensors"]}
    assert kinds == {"air": (4, round((1 + 0.5 + 1 + 0) / 4, 4)), "noise": (1, 0.01)}
    worst = [(row["id"], row["availability"]) for row in month["worst"]]
    assert worst == [("air:s:dead", 0), ("noise:s:failing", 0.01), ("air:s:half", 0.5)]


async def test_alerts_are_counted_by_kind_and_gravest_severity(client: httpx.AsyncClient) -> None:
    def event(name: str, kind: str, severity: str, at: int, quantity: str = "pm25") -> str:
        tags = f"gateway=g,site={name},sensor=s-{name},kind={kind},severity={severity}"
        return f'event,{tags} id="{name}",quantity="{quantity}",value=200,limit=150,message="over" {at}'

    lines = [
        event("a", "air", "orange", NOVEMBER + HOUR),
        event("a", "air", "red", NOVEMBER + 2 * HOUR),
        event("b", "water", "yellow", NOVEMBER + HOUR, "level"),
        event("c", "noise", "blue", NOVEMBER + HOUR, "silence"),
        event("d", "water", "red", NOVEMBER - HOUR, "level"),
    ]
    assert (await write(client, *lines)).status_code == 204
    await client.get("/api/v1/alerts")
    month = (await client.get("/api/v1/months/2026-11")).json()
    found = {row.pop("kind"): row for row in month["alerts"]}
    assert found == {
        "air": {"blue": 0, "yellow": 0, "orange": 0, "red": 1},
        "water": {"blue": 0, "yellow": 1, "orange": 0, "red": 0},
        "silence": {"blue": 1, "yellow": 0, "orange": 0, "red": 0},
    }


async def test_a_month_is_written_as_one_and_has_begun(client: httpx.AsyncClient) -> None:
    for month in ("2026-13", "2026-1", "november", "1969-12"):
        assert (await client.get(f"/api/v1/months/{month}")).status_code == 422
    later = await client.get("/api/v1/months/2026-12")
    assert (later.status_code, later.json()["detail"]) == (404, "The month 2026-12 has not begun.")
    empty = (await client.get("/api/v1/months/2026-02")).json()
    assert (empty["total"]["reported"], empty["sensors"], empty["alerts"]) == (0, [], [])
