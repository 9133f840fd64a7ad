"""Every route, for every role and for those who have not signed in, as written here by hand once more.

A route that is missing from the matrix fails the first test: who adds one says here whose it is.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from gateway.city.app import create_app
from gateway.city.auth.rights import READING, RIGHTS, Role, row
from gateway.city.view import now_ms
from tests.city.conftest import READ, city_config, client_of, running, write
from tests.city.signed_in import administrator, person
from tests.city.test_reports import picture

# n: not signed in, v: viewer, o: operator, p: dispatcher, t: department, A: administrator
MATRIX = """
nvoptA GET    /openapi.json
nvoptA GET    /api/health
-voptA GET    /api/v1/overview
-voptA GET    /api/v1/scales
-voptA GET    /api/v1/kinds
-voptA GET    /api/v1/map
-voptA GET    /api/v1/sensors
-voptA GET    /api/v1/sensors.geojson
-voptA GET    /api/v1/sensors/{sensor_id}
-voptA GET    /api/v1/sensors/{sensor_id}/series
-voptA GET    /api/v1/events
-voptA GET    /api/v1/gateways
-voptA GET    /api/v1/stream
-voptA GET    /api/v1/sensors/{sensor_id}/readings.csv
-voptA GET    /api/v1/sensors/{sensor_id}/wholeness
-voptA GET    /api/v1/months/{month}
-voptA GET    /api/v1/past
-voptA GET    /api/v1/courses
-voptA GET    /api/v1/alerts
-voptA GET    /api/v1/alerts/{alert_id}
--op-A POST   /api/v1/alerts/{alert_id}/acknowledge
-voptA GET    /api/v1/events/{event_id}/cap.xml
-voptA GET    /api/v1/channels
-voptA GET    /api/v1/rules
-----A POST   /api/v1/rules
-----A PUT    /api/v1/rules/{name}
-----A DELETE /api/v1/rules/{name}
-----A POST   /api/v1/rules/try
-voptA GET    /api/v1/maintenance
--op-A POST   /api/v1/maintenance
--op-A DELETE /api/v1/maintenance/{window_id}
nvoptA POST   /api/v1/session
-voptA GET    /api/v1/session
nvoptA DELETE /api/v1/session
-voptA PUT    /api/v1/session/password
-voptA GET    /api/v1/sessions
-voptA DELETE /api/v1/sessions
-voptA DELETE /api/v1/sessions/{session_id}
nvoptA GET    /api/v1/link
nvoptA POST   /api/v1/link
nvoptA GET    /api/v1/oidc
nvoptA GET    /api/v1/oidc/start
nvoptA GET    /api/v1/oidc/callback
nvoptA GET    /api/v1/oidc/farewell
-----A GET    /api/v1/people
-----A POST   /api/v1/people
-----A PATCH  /api/v1/people/{person_id}
-----A POST   /api/v1/people/{person_id}/link
-voptA GET    /api/v1/tokens
-voptA POST   /api/v1/tokens
-voptA DELETE /api/v1/tokens/{token_id}
-----A GET    /api/v1/audit
-----A GET    /api/v1/audit.csv
-voptA GET    /api/v1/incidents
--op-A POST   /api/v1/incidents
-voptA GET    /api/v1/incidents/{incident_id}
--optA POST   /api/v1/incidents/{incident_id}/steps
--optA POST   /api/v1/incidents/{incident_id}/photos
-voptA GET    /api/v1/incidents/{incident_id}/photos/{photo_id}
-voptA GET    /api/v1/incident-classes
-voptA GET    /api/v1/incident-figures
nvoptA GET    /api/v1/report-classes
nvoptA POST   /api/v1/reports
nvoptA PUT    /api/v1/reports/{receipt}/photo
nvoptA GET    /api/v1/reports/{receipt}
-voptA GET    /sta/v1.1
-voptA GET    /sta/v1.1/Things
-voptA GET    /sta/v1.1/Things({id})
-voptA GET    /sta/v1.1/Locations
-voptA GET    /sta/v1.1/Locations({id})
-voptA GET    /sta/v1.1/Datastreams
-voptA GET    /sta/v1.1/Datastreams({id})
-voptA GET    /sta/v1.1/Sensors
-voptA GET    /sta/v1.1/Sensors({id})
-voptA GET    /sta/v1.1/ObservedProperties
-voptA GET    /sta/v1.1/ObservedProperties({id})
-voptA GET    /sta/v1.1/Observations
-voptA GET    /sta/v1.1/Observations({id})
-voptA GET    /sta/v1.1/FeaturesOfInterest
-voptA GET    /sta/v1.1/FeaturesOfInterest({id})
-voptA GET    /sta/v1.1/{path:path}
nvoptA POST   /api/v2/write
nvoptA GET    /docs
-voptA GET    /basemap.pmtiles
nvoptA GET    /
"""
LETTERS = {"": "n", "viewer": "v", "operator": "o", "dispatcher": "p", "department": "t", "administrator": "A"}
ALLOWED = {" ".join(line[6:].split()): line[:6] for line in MATRIX.strip().splitlines()}
_ENDLESS = "GET /api/v1/stream"
_SELF = {
    "DELETE /api/v1/session",
    "DELETE /api/v1/sessions",
    "PUT /api/v1/session/password",
    "POST /api/v1/session",
    "POST /api/v1/link",
}
"""They end or begin sessions: who may call them is tested with what they do."""
_FOUND = {
    "sensor_id": "air:old-town:air-03",
    "event_id": "e1",
    "month": "2026-11",
    "incident_id": "1",
    "photo_id": "1",
    "id": "'air:old-town:air-03'",
    "path": "Things('air:old-town:air-03')/name",
}


def _routes(routes: Iterable[object]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in sorted(route.methods or ()) if method != "HEAD")
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from _routes(included.routes)


def test_the_matrix_names_every_route_and_no_other_and_is_what_the_table_says(tmp_path: Path) -> None:
    routes = list(_routes(create_app(city_config(tmp_path), tmp_path / "no-page").routes))
    assert ALLOWED.keys() == set(routes)
    assert {line for route in routes if (line := row(*route.split()))} == RIGHTS.keys()
    for route, letters in ALLOWED.items():
        if route != "GET /openapi.json":  # FastAPI's own: the description is for everyone
            roles = RIGHTS[row(*route.split()) or ""]
            assert letters.replace("-", "") == "".join(
                letter for role, letter in LETTERS.items() if roles is None or role in roles
            ), route


def test_a_viewer_changes_nothing_but_what_is_their_own_or_anyones() -> None:
    own = re.compile(r"/api/v1/(sessions?|tokens|link|reports)\b|/api/v2/write")
    changes = [
        route
        for route, letters in ALLOWED.items()
        if route.split()[0] not in READING and "v" in letters and not own.search(route)
    ]
    assert changes == []


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running(city_config(tmp_path, cases={"watch": False, "public": True})) as app:
        yield app


@pytest.fixture
async def clients(app: FastAPI, tmp_path: Path) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """One client a role, and one that nobody has signed in with, in a town with an alert and a case with a photo."""
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(administrator(app, tmp_path))
        found = {"": await stack.enter_async_context(client_of(app)), Role.ADMINISTRATOR.value: admin}
        for role in Role:
            if role != Role.ADMINISTRATOR:
                known = {"departments": ["water"]} if role == Role.DEPARTMENT else {}
                found[role.value] = await stack.enter_async_context(person(app, admin, role.value, **known))
        tags, at = "site=old-town,sensor=air-03", now_ms()
        event = (
            f'event,gateway=g,kind=air,severity=red,{tags} id="e1",quantity="pm25",value=160,limit=115,message="m" {at}'
        )
        assert (await write(admin, f"air,gateway=g,{tags} pm25=31.5,pm25_qc=1i {at}", event)).status_code == 204
        assert (await admin.post("/api/v1/incidents", json={"kind": "water", "text": "foam"})).status_code == 201
        photo = await admin.post("/api/v1/incidents/1/photos?stage=before", content=picture(size=(40, 20)))
        assert photo.status_code == 201
        for action in ("file", "dispatch"):
            assert (await admin.post("/api/v1/incidents/1/steps", json={"action": action})).status_code == 201
        (alert,) = (await admin.get("/api/v1/alerts")).json()["alerts"]
        _FOUND["alert_id"] = alert["id"]
        yield found


def _path(route: str) -> str:
    return re.sub(r"{(\w+)(:path)?}", lambda part: _FOUND.get(part[1], "99"), route.split()[1])


@pytest.mark.parametrize("role", LETTERS)
async def test_every_route_answers_those_whom_the_matrix_names(
    clients: dict[str, httpx.AsyncClient], role: str
) -> None:
    wrong = []
    for route, letters in ALLOWED.items():
        method = route.split()[0]
        allowed = LETTERS[role] in letters
        if allowed and (route == _ENDLESS or route in _SELF):
            continue
        answer = await clients[role].request(method, _path(route), json={})
        if route == "POST /api/v2/write":
            right = answer.status_code == 401  # whoever asks, only the write token counts
        elif allowed:
            right = answer.status_code not in {401, 403, 405, 500}
        else:
            right = answer.status_code == (403 if role else 401) and answer.json()["status"] == answer.status_code
        if not right:
            wrong.append((route, answer.status_code))
    assert wrong == []


async def test_what_is_there_is_given_to_those_whom_the_matrix_names(clients: dict[str, httpx.AsyncClient]) -> None:
    absent = {"GET /basemap.pmtiles", "GET /", "GET /api/v1/link", "GET /api/v1/reports/{receipt}", _ENDLESS}
    absent |= {route for route in ALLOWED if "/oidc/" in route}  # single sign-on is off
    needed = {
        "GET /api/v1/sensors/{sensor_id}/series": "?quantity=pm25",
        "GET /api/v1/courses": "?kind=air&quantity=pm25",
        "GET /api/v1/past": "?at=2026-11-23T14:00:00Z",
    }
    for route in ALLOWED:
        if route.startswith("GET ") and route not in absent and not re.search(r"/sta/v1.1/[D-O]\w+\({id}", route):
            answer = await clients["administrator"].get(_path(route) + needed.get(route, ""))
            assert answer.status_code == 200, (route, answer.text)


async def test_a_token_that_may_only_read_changes_nothing(app: FastAPI, clients: dict[str, httpx.AsyncClient]) -> None:
    made = await clients["administrator"].post("/api/v1/tokens", json={"label": "reader", "scope": "read"})
    for token in (made.json()["token"], READ):
        async with client_of(app) as client:
            client.headers["Authorization"] = f"Bearer {token}"
            assert (await client.get("/api/v1/incidents/1")).status_code == 200
            for route, letters in ALLOWED.items():
                if route.split()[0] not in READING and "n" not in letters:
                    answer = await client.request(route.split()[0], _path(route), json={})
                    assert answer.status_code == 403, (route, answer.text)


async def test_a_session_changes_nothing_without_its_own_secret(clients: dict[str, httpx.AsyncClient]) -> None:
    admin = clients["administrator"]
    csrf = admin.headers.pop("X-CSRF-Token")
    for route, letters in ALLOWED.items():
        if route.split()[0] not in READING and "n" not in letters:
            answer = await admin.request(route.split()[0], _path(route), json={})
            assert answer.status_code == 403, (route, answer.text)
    admin.headers["X-CSRF-Token"] = csrf


@pytest.mark.parametrize(
    ("role", "held"),
    [
        ("department", {"departments": ["traffic"]}),
        ("department", {"departments": []}),
        ("operator", {"districts": ["east"]}),
        ("viewer", {"districts": ["east"]}),
        ("administrator", {"districts": ["east"]}),
    ],
)
async def test_cases_of_others_are_as_if_they_were_not(
    app: FastAPI, clients: dict[str, httpx.AsyncClient], role: str, held: dict[str, list[str]]
) -> None:
    async with person(app, clients["administrator"], role, name="held", **held) as client:
        assert (await client.get("/api/v1/incidents")).json() == {"incidents": []}
        small = picture(size=(40, 20))
        answers = {
            "case": await client.get("/api/v1/incidents/1"),
            "photo": await client.get("/api/v1/incidents/1/photos/1"),
            "step": await client.post("/api/v1/incidents/1/steps", json={"action": "note", "note": "hm"}),
            "new photo": await client.post("/api/v1/incidents/1/photos?stage=before", content=small),
        }
        if role == "viewer":
            assert answers.pop("step").status_code == answers.pop("new photo").status_code == 403
        assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
        if role in {"operator", "administrator"}:
            opened = await client.post("/api/v1/incidents", json={"kind": "water", "text": "foam"})
            assert opened.status_code == 403, "a case without a position is in no district"
    case = (await clients["administrator"].get("/api/v1/incidents/1")).json()
    assert [step["action"] for step in case["steps"]] == ["open", "photo", "file", "dispatch"]
