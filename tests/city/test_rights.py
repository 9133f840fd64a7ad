"""Every route, for every role and for those who have not signed in: what the table says is what happens."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.city.app import create_app
from gateway.city.auth.rights import READING, RIGHTS, Role, row
from tests.city.conftest import city_config, client_of, running
from tests.city.signed_in import administrator, person

_ENDLESS = "GET /api/v1/stream"
_SELF = {"DELETE /api/v1/session", "PUT /api/v1/session/password", "POST /api/v1/session", "POST /api/v1/link"}


def _routes(routes: Iterable[object]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield from (f"{method} {route.path}" for method in sorted(route.methods or ()))
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from _routes(included.routes)


def test_the_table_names_every_route_and_no_other(tmp_path: Path) -> None:
    routes = list(_routes(create_app(city_config(tmp_path), tmp_path / "no-page").routes))
    assert [route for route in routes if row(*route.split()) is None] == []
    assert set(RIGHTS) == {row(*route.split()) for route in routes}


def test_a_viewer_changes_nothing_but_what_is_their_own_or_anyones() -> None:
    own = re.compile(r"/api/v1/(session|tokens|link|reports)|/api/v2/write")
    changes = [
        route
        for route, roles in RIGHTS.items()
        if route.split()[0] not in READING and (roles is None or Role.VIEWER in roles) and not own.search(route)
    ]
    assert changes == []


@pytest.fixture
async def clients(tmp_path: Path) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """One client a role, and one that nobody has signed in with."""
    async with running(city_config(tmp_path)) as app, administrator(app, tmp_path) as admin, client_of(app) as nobody:
        found = {"": nobody, Role.ADMINISTRATOR.value: admin}
        for role in Role:
            if role != Role.ADMINISTRATOR:
                found[role.value] = await _entered(app, admin, role)
        yield found


async def _entered(app: FastAPI, admin: httpx.AsyncClient, role: Role) -> httpx.AsyncClient:
    context = person(app, admin, role.value)
    client = await context.__aenter__()
    outlives = client_of(app)
    outlives.cookies, outlives.headers = client.cookies, client.headers
    await context.__aexit__(None, None, None)
    return outlives


async def test_every_route_answers_those_whom_the_table_names(clients: dict[str, httpx.AsyncClient]) -> None:
    wrong = []
    for route, roles in RIGHTS.items():
        method, path = route.split()
        for name, client in clients.items():
            allowed = roles is None or name in roles
            if allowed and (route == _ENDLESS or route in _SELF):
                continue  # the first never ends, the others end the session; both have tests of their own
            answer = await client.request(method, re.sub(r"{\w+}", "99", path.removesuffix("*")), json={})
            if route == "POST /api/v2/write":
                right = answer.status_code == 401  # whoever asks, only the write token counts
            elif allowed:
                right = answer.status_code not in {401, 403}
            else:
                right = answer.status_code == (403 if name else 401)
            if not right:
                wrong.append((route, name, answer.status_code))
    assert wrong == []
