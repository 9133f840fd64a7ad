"""Whatever is asked of any operation that the OpenAPI description names, the answer is one that it describes.

schemathesis asks: what the description gives as examples, the edges of every parameter, and what it makes up.
"""

import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs  # which schemathesis brings
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.city.app import create_app
from gateway.city.store.embedded import EmbeddedStore
from tests.city.conftest import WRITE, city_config
from tests.city.signed_in import PASSWORD

_UNCHECKED = "positive_data_acceptance"
"""No schema says that a start comes before its end, nor what the conditions of SensorThings mean: 422 and 400 do."""
_RULES = "^/api/v1/rules"
_OF_RULES = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
"""A tag that is not theirs is 412 first of all, and `try` could be a name: other checks take these for faults."""
_SENSOR = "gateway=gw-1,site=old-town,sensor=air-03"
_MOMENT = 1795413932000  # of the examples in the description
_SECRETS = {"get /api/v1/link"}
"""They take secrets, which nobody guesses."""
_AWAY = {f"get /api/v1/oidc/{route}" for route in ("start", "callback", "farewell")}
"""They send a browser to another place."""


class _Statuses:
    """Keeps which statuses each route answered with."""

    def __init__(self, app: ASGIApp, kept: dict[str, set[int]]) -> None:
        self._app, self._kept = app, kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and (route := scope.get("route")) is not None:
                self._kept[f"{scope['method'].lower()} {route.path_format}"].add(message["status"])
            await send(message)

        await self._app(scope, receive, noting if scope["type"] == "http" else send)


class _Town:
    """A city view with a sensor, an event, a gateway and an administrator, behind a real port."""

    def __init__(self, app: FastAPI, port: int, folder: Path) -> None:
        self.app, self.url = app, f"http://127.0.0.1:{port}"
        self.statuses: dict[str, set[int]] = defaultdict(set)
        app.add_middleware(_Statuses, kept=self.statuses)
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        app.state.context.hub.close()  # streams end at once, so that nothing waits for them
        now = time.time_ns() // 10**6
        lines = (
            *(f"air,{_SENSOR} pm25=31.5,pm25_qc=1i {at}" for at in (_MOMENT, now)),
            f'event,kind=air,severity=red,{_SENSOR} id="e1",quantity="pm25",value=160,limit=115,message="over" {now}',
            f'quarantine,kind=air,quantity=pm25,{_SENSOR} value=9999,flag=4i,reason="gross_range" {_MOMENT}',
            f'gateway,gateway=gw-1 received=9i,queued=4i,version="0.1.0" {now}',
        )
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Token {WRITE}"}) as client:
            written = client.post("/api/v2/write", params={"precision": "ms"}, content="\n".join(lines))
            assert written.status_code == 204, written.text
        link = (folder / "setup-link").read_text().strip().partition("#link=")[2]
        with httpx.Client(base_url=self.url) as client:
            assert client.post("/api/v1/link", json={"link": link, "password": PASSWORD}).status_code == 204
            client.headers["X-CSRF-Token"] = client.get("/api/v1/session").json()["csrf"]
            made = client.post("/api/v1/tokens", json={"label": "fuzz", "scope": "write"})
            self.token: str = made.json()["token"]
            body = {"name": "viewer", "title": "Viewer", "role": "viewer"}
            viewer = client.post("/api/v1/people", json=body).json()["link"].partition("#link=")[2]
        with httpx.Client(base_url=self.url) as client:
            assert client.post("/api/v1/link", json={"link": viewer, "password": PASSWORD}).status_code == 204
            client.headers["X-CSRF-Token"] = client.get("/api/v1/session").json()["csrf"]
            made = client.post("/api/v1/tokens", json={"label": "fuzz", "scope": "write"})
            self.viewer: str = made.json()["token"]
        self.statuses.clear()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    def let_guess(self) -> None:
        """Guesses at sign-in do not shut out everything else from this address."""
        self.app.state.context.access._addresses._most = sys.maxsize

    def fuzzed(self, *options: str, token: str | None = None, well: bool = True, rules: bool = False) -> None:
        """Lets schemathesis ask everything but the rules, or these alone; fails with its report.

        Without its store, the view may answer 503.
        """
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{self.url}/openapi.json"]
        header = () if token is None else ("--header", f"Authorization: Bearer {token}")
        always = ("--seed", "1", "--no-color", "--warnings", "off", "--generation-database", "none", "--no-shrink")
        checks = (
            "--checks",
            _OF_RULES if rules else "all",
            "--exclude-checks",
            _UNCHECKED if well else f"{_UNCHECKED},not_a_server_error",
            "--include-path-regex" if rules else "--exclude-path-regex",
            _RULES,
            "--suppress-health-check",
            "all",
            "--continue-on-failure",
        )
        done = subprocess.run(
            [*command, *always, *checks, *header, *options], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.fixture
def town(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[_Town]:
    properties = {"sensor": "air-03", "site": "old-town", "kind": "air"}
    place = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [119.7, 30.2]}, "properties": properties}
    sensors = tmp_path / "sensors.geojson"
    sensors.write_text(json.dumps({"type": "FeatureCollection", "features": [place]}))
    config = city_config(tmp_path, map={"sensors": sensors}, cases={"public": True})
    made = _Town(create_app(config, tmp_path / "no-page"), free_port(), tmp_path)
    yield made
    made.stop()


def _operations(app: FastAPI) -> set[str]:
    return {f"{method} {path}" for path, operations in app.openapi()["paths"].items() for method in operations}


@pytest.mark.slow
def test_every_operation_answers_as_described_whatever_it_is_asked(town: _Town) -> None:
    town.let_guess()
    town.fuzzed("--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--max-time", "25", token=town.token)
    town.fuzzed("--phases", "examples,coverage,fuzzing", "--max-examples", "20", token=town.token, rules=True)
    unanswered = {
        operation
        for operation in _operations(town.app)
        if operation not in _SECRETS | _AWAY
        and operation.startswith("get ")
        and ("{" not in operation or "/sensors/" in operation or "/sta/" in operation)
        and 200 not in town.statuses[operation]
    }
    assert unanswered == set()  # what there is was found, so that answers were looked at and not refusals alone


@pytest.mark.slow
def test_readings_are_written_or_refused_as_described(town: _Town) -> None:
    town.fuzzed("--include-path", "/api/v2/write", "--max-examples", "50", "--max-time", "5", token=WRITE)
    assert {204, 400, 422} <= town.statuses["post /api/v2/write"]


@pytest.mark.slow
def test_a_viewer_is_answered_or_refused_as_described(town: _Town) -> None:
    town.let_guess()
    town.fuzzed("--phases", "examples,coverage", "--mode", "positive", token=town.viewer)
    assert town.statuses["get /api/v1/overview"] >= {200}
    for operation in ("post /api/v1/people", "post /api/v1/incidents", "get /api/v1/audit"):
        assert town.statuses[operation] <= {401, 403}, operation


@pytest.mark.slow
def test_who_has_not_signed_in_is_refused_as_described(town: _Town) -> None:
    town.fuzzed("--phases", "examples,coverage", "--mode", "positive")
    assert town.statuses["get /api/v1/overview"] == {401}
    town.fuzzed("--phases", "examples", token="wrong")
    assert {401, 429} <= set().union(*town.statuses.values())


@pytest.mark.slow
def test_a_store_that_fails_is_told_as_described(town: _Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: EmbeddedStore) -> sqlite3.Connection:
        msg = "disk I/O error"
        raise sqlite3.OperationalError(msg)

    monkeypatch.setattr(EmbeddedStore, "_connection", broken)
    town.app.state.context.view.store.freshness = 0.0
    town.let_guess()
    town.fuzzed("--phases", "examples", token=town.token, well=False)
    for operation in (
        "get /api/v1/sensors/{sensor_id}",
        "get /api/v1/sensors/{sensor_id}/series",
        "get /sta/v1.1/Things",
    ):
        assert 503 in town.statuses[operation]


def test_every_answer_but_a_page_has_a_shape_and_every_problem_an_example(tmp_path: Path) -> None:
    description = create_app(city_config(tmp_path), tmp_path / "no-page").openapi()
    assert not re.search(r"HTTPValidationError", json.dumps(description))
    shared = description["components"]["responses"]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for status, said in operation["responses"].items():
                answer = shared[said["$ref"].rpartition("/")[2]] if "$ref" in said else said
                assert answer["description"], (method, path, status)
                if status >= "400":
                    (content,) = answer["content"].values()
                    assert "schema" in content, (method, path, status)
                    assert "$ref" not in said or content["example"]["status"] == int(status), (method, path, status)


@pytest.fixture
def description(tmp_path: Path) -> dict[str, Any]:
    return create_app(city_config(tmp_path), tmp_path / "no-page").openapi()


def _allows(description: dict[str, Any], schema: dict[str, Any], example: object) -> bool:
    return jsonschema_rs.is_valid({**schema, "components": description["components"]}, example)


def _operations_of(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in description["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in operations.items())


def test_what_an_operation_needs_has_examples_that_its_schema_allows(description: dict[str, Any]) -> None:
    for name, operation in _operations_of(description):
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            given = parameter.get("example") or [*schema.get("examples", []), *parameter.get("examples", [])]
            assert given or not parameter["required"], (name, parameter["name"])
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            schema = description["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
            parts = schema["properties"].items()
            examples = (
                body["schema"].get("examples")
                or schema.get("examples")
                or [{part: said["examples"][0] for part, said in parts}]
            )
            assert all(_allows(description, body["schema"], example) for example in examples), name


def test_every_answer_in_json_has_an_example_that_its_schema_allows(description: dict[str, Any]) -> None:
    for name, operation in _operations_of(description):
        for status, said in operation["responses"].items():
            for kind, content in said.get("content", {}).items():
                if status < "300" and "json" in kind:
                    assert _allows(description, content.get("schema", {}), content["example"]), name
