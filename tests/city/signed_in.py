"""People who have signed in, for tests: the administrator by the first link, others by the administrator."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from tests.city.conftest import client_of

PASSWORD = "a horse that staples"


async def use_link(client: httpx.AsyncClient, link: str) -> None:
    """Chooses a password by a link, and sends what a page sends from then on."""
    used = await client.post("/api/v1/link", json={"link": link.partition("#link=")[2], "password": PASSWORD})
    assert used.status_code == 204, used.text
    who = (await client.get("/api/v1/session")).json()
    client.headers["X-CSRF-Token"] = who["csrf"]


@contextlib.asynccontextmanager
async def administrator(app: FastAPI, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Signs in the first administrator."""
    async with client_of(app) as client:
        await use_link(client, (folder / "setup-link").read_text().strip())
        yield client


@contextlib.asynccontextmanager
async def person(
    app: FastAPI,
    admin: httpx.AsyncClient,
    role: str,
    **more: Any,  # noqa: ANN401 - JSON
) -> AsyncIterator[httpx.AsyncClient]:
    """Adds a person and signs them in."""
    name = more.pop("name", role)
    added = await admin.post("/api/v1/people", json={"name": name, "title": name.title(), "role": role, **more})
    assert added.status_code == 201, added.text
    async with client_of(app) as client:
        await use_link(client, added.json()["link"])
        client.headers["X-Person"] = str(added.json()["person"]["id"])
        yield client
