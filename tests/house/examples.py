"""The answers in the API's description, as a town gave them: ``python -m tests.house.examples`` asks it again.

Of every list the first item is kept, of numbers the first two.
"""

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from gateway.city.view import now_ms
from tests.browser.town import registry, sources
from tests.city.conftest import city_config, running, write
from tests.city.signed_in import administrator
from tests.city.test_reports import picture

FILE = Path(__file__).parents[2] / "gateway" / "city" / "examples.json"
_ID = {
    "sensor_id": "air:longgang:air-01",
    "event_id": "e1",
    "incident_id": "1",
    "person_id": "2",
    "month": "2026-11",
    "name": "river-high",
    "id": "'air:longgang:air-01'",
    "path": "Things('air:longgang:air-01')/Datastreams",
}
_IDS_OF = {
    "Datastreams": "'air:longgang:air-01:pm25'",
    "ObservedProperties": "'air:pm25'",
    "Observations": "'air:longgang:air-01:pm25@{at}'",
}
_QUERIES = {
    "/api/v1/sensors/{sensor_id}/series": {"quantity": "pm25"},
    "/api/v1/courses": {"kind": "air", "quantity": "pm25"},
    "/api/v1/past": {"at": "2026-11-23T14:00:00+08:00"},
    "/api/v1/incidents/{incident_id}/photos": {"stage": "before"},
    "/sta/v1.1/Observations": {"$filter": "phenomenonTime gt 2026-01-01T00:00:00Z"},
}
_BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/people": {"name": "lin", "title": "Lin Xiao", "role": "department", "departments": ["water"]},
    "/api/v1/tokens": {"label": "dashboard", "scope": "read"},
    "/api/v1/incidents": {
        "kind": "facility",
        "text": "A lamp post leans",
        "lat": 30.17,
        "lon": 119.2,
    },
    "/api/v1/incidents/{incident_id}/steps": {"action": "file"},
    "/api/v1/maintenance": {"kind": "water", "until": "2126-11-24T12:00:00+08:00", "note": "cleaning"},
    "/api/v1/reports": {"kind": "water", "text": "The river foams", "lat": 30.17, "lon": 119.2},
    "/api/v1/alerts/{alert_id}/acknowledge": {"by": "Lin", "note": "The works has been called"},
}
_RULE = {
    "name": "river-high",
    "title": {"zh": "河水偏高", "en": "The river is high", "ko": "하천 수위 높음"},
    "severity": "yellow",
    "kind": "water",
    "quantity": "level",
    "above": 2.8,
    "hold": "5m",
}
_BODIES |= dict.fromkeys(("/api/v1/rules", "/api/v1/rules/try", "/api/v1/rules/{name}"), _RULE)
_SECRET = re.compile(r'"(token|link|csrf)": "[^"]{20,}"')


def shortened(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """An answer with one item of every list."""
    if isinstance(answer, list):
        pair = all(isinstance(item, (int, float)) for item in answer)  # a range, or a position
        return answer[:2] if pair else [shortened(item) for item in answer[:1]]
    if isinstance(answer, dict):
        return {name: shortened(item) for name, item in answer.items()}
    return answer


def json_operations(app: FastAPI) -> list[tuple[str, str]]:
    """Methods and paths that answer with JSON."""
    return [
        (method, path)
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        for status, said in operation["responses"].items()
        if status < "300" and any("json" in kind for kind in said.get("content", {}))
    ]


async def recorded(folder: Path) -> dict[str, Any]:
    """The answers of a town, by method and path."""
    (folder / "sensors.geojson").write_text(json.dumps(registry()), encoding="utf-8")
    (folder / "sources.geojson").write_text(json.dumps(sources()), encoding="utf-8")
    where = {"sensors": folder / "sensors.geojson", "sources": folder / "sources.geojson"}
    config = city_config(folder, map=where, cases={"watch": False, "public": True})
    found: dict[str, Any] = {}
    async with running(config) as app, administrator(app, folder) as client:
        at = now_ms()
        tags = "site=longgang,sensor=air-01"
        fields = 'id="e1",quantity="pm25",value=160,limit=115,message="pm25 160 over 115"'
        await write(
            client,
            f"air,gateway=gw-1,{tags} pm25=160,pm25_qc=1i {at}",
            f"event,gateway=gw-1,kind=air,severity=orange,{tags} {fields} {at}",
            f'gateway,gateway=gw-1 received=900i,delivered=896i,queued=4i,uptime_s=3600,version="0.1.0" {at}',
        )
        alerts = (await client.get("/api/v1/alerts")).json()["alerts"]
        ids = {**_ID, "alert_id": alerts[0]["id"]}
        for method, path in sorted(json_operations(app), key=lambda one: (one[0] == "get", one[1].count("/"))):
            found[f"{method} {path}"] = await _asked(client, method, path, ids, at)
    return dict(sorted(found.items()))


async def _asked(client: httpx.AsyncClient, method: str, path: str, ids: dict[str, str], at: int) -> Any:  # noqa: ANN401
    of = re.sub(r".*/(\w+)\(.*", r"\1", path)
    known = {**ids, "id": _IDS_OF.get(of, ids["id"]).format(at=at)}
    address = re.sub(r"{(\w+)}", lambda part: known[part[1]], path)
    body: dict[str, Any] = {} if method == "get" else {"json": _BODIES.get(path, {})}
    if path.endswith("/photos"):
        body = {"content": picture(size=(40, 20))}
    headers = {"X-Link": ids.get("link", "")}
    if method != "get" and path.startswith("/api/v1/rules"):
        headers["If-Match"] = (await client.get("/api/v1/rules")).json()["tag"]
    answer = await client.request(method, address, params=_QUERIES.get(path), headers=headers, **body)
    if not answer.is_success:
        msg = f"{method} {address}: {answer.text}"
        raise RuntimeError(msg)
    if path == "/api/v1/reports":
        ids["receipt"] = answer.json()["receipt"]
    if path == "/api/v1/people/{person_id}/link":
        ids["link"] = answer.json()["link"].partition("#link=")[2]
    return json.loads(_SECRET.sub(r'"\1": "…"', json.dumps(shortened(answer.json()), ensure_ascii=False)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        text = json.dumps(asyncio.run(recorded(Path(made))), ensure_ascii=False, indent=1)
    FILE.write_text(text + "\n", encoding="utf-8")
