"""The departments of the demo: they accept the cases that alerts open, and report each handled once its alert is over.

They are one person without a password, who acts by an API token as any program could. Cases of sensors' faults they
leave alone, for those close by themselves.
"""

import asyncio
import contextlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from gateway.city.auth.people import People
from gateway.city.auth.rights import Caller, Role
from gateway.city.database.engine import Database
from gateway.city.incidents.classes import load as load_classes
from gateway.config import CityConfig, load

NAME = "demo-crew"
_EVERY_S = 2.0
_ON_THE_WAY_S = 15.0  # from a case's dispatch until somebody accepts it
_HANDLED = "On site: it is over."


def enlist(config: Path, environment: dict[str, str]) -> str:
    """Adds the person to the city view's database, before that starts.

    Args:
        config: The city view's configuration.
        environment: Which overrides it.

    Returns:
        Their API token.
    """
    settings = load(config, CityConfig, environment)
    database = Database(settings)
    database.open()
    try:
        people = People(database)
        demo = Caller("citygate demo", Role.ADMINISTRATOR, "")
        departments = list(load_classes(settings.cases.table).departments)
        crew, _ = people.add(demo, NAME, "Simulated departments", Role.DEPARTMENT, [], departments)
        _, token = people.add_token(Caller(NAME, Role.DEPARTMENT, "", crew.id, csrf=""), "demo", "write", 365)
    finally:
        database.close()
    return token


async def work(url: str, token: str) -> None:
    """Works until it is cancelled.

    Args:
        url: Of the city view.
        token: The API token.
    """
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(total=5)) as client:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                for case in (await _get(client, "/api/v1/incidents?open=true&limit=500"))["incidents"]:
                    await _look_at(client, case)
            await asyncio.sleep(_EVERY_S)


async def _look_at(client: aiohttp.ClientSession, case: dict[str, Any]) -> None:
    if case["source"] != "event":
        return
    path = f"/api/v1/incidents/{case['id']}"
    if case["state"] == "dispatched":
        if time.time() - datetime.fromisoformat(case["entered"]).timestamp() > _ON_THE_WAY_S:
            await _step(client, path, {"action": "accept", "entered": case["entered"]})
    elif case["state"] == "handling":
        steps = (await _get(client, path))["steps"]
        accepted = [step["who"] for step in steps if step["action"] == "accept"]
        alert = await _get(client, f"/api/v1/alerts/{steps[0]['detail']['alert']}")
        if accepted[-1:] == [NAME] and alert["state"] == "ended":
            await _step(client, path, {"action": "handled", "note": _HANDLED, "entered": case["entered"]})


async def _get(client: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with client.get(path, raise_for_status=True) as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def _step(client: aiohttp.ClientSession, path: str, step: dict[str, Any]) -> None:
    async with client.post(f"{path}/steps", json=step):  # somebody may have been faster
        pass
