"""What residents report: without signing in, with photographs of which only the pixels are kept."""

import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from gateway.city.auth import people
from gateway.city.incidents import cases, photo
from tests.city.conftest import both_databases, city_config, client_of, running
from tests.city.signed_in import administrator, person

BEYOND = "203.0.113.7"
REPORT = {"kind": "water", "text": "the river foams", "lat": 30.1, "lon": 119.2}


_PLACE = {1: "N", 2: (30.0, 6.0, 36.0), 3: "E", 4: (119.0, 12.0, 18.0)}


def picture(kind: str = "JPEG", size: tuple[int, int] = (2400, 1200), place: dict[int, Any] = _PLACE) -> bytes:
    """A photograph that says where and by what it was taken, and that lies on its side."""
    image = Image.new("RGB", size, (200, 30, 30))
    written = Image.Exif()
    written[0x010F] = "MAKER-OF-THE-CAMERA"
    written[0x0112] = 6  # to be turned by 90 degrees
    written.get_ifd(0x8825).update(place)
    out = io.BytesIO()
    image.save(out, kind, exif=written)
    return out.getvalue()


@pytest.fixture
async def app(tmp_path: Path, database: dict[str, str]) -> AsyncIterator[FastAPI]:
    config = city_config(tmp_path, "0.0.0.0", database=database, cases={"watch": False, "public": True})
    async with running(config) as app:
        yield app


@pytest.fixture
async def resident(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, BEYOND, "city.example") as client:
        yield client


async def _sent(client: httpx.AsyncClient) -> str:
    answer = await client.post("/api/v1/reports", json=REPORT)
    assert answer.status_code == 201, answer.text
    receipt: str = answer.json()["receipt"]
    return receipt


@both_databases
async def test_a_report_is_a_case_whose_receipt_shows_what_becomes_of_it(
    app: FastAPI, resident: httpx.AsyncClient, tmp_path: Path
) -> None:
    receipt = await _sent(resident)
    assert re.fullmatch(r"[2-9A-HJKMNP-TV-Z]{4}(-[2-9A-HJKMNP-TV-Z]{4}){2}", receipt)
    assert (await resident.put(f"/api/v1/reports/{receipt}/photo", content=picture())).status_code == 204
    async with administrator(app, tmp_path) as admin, person(app, admin, "viewer") as viewer:
        (case,) = (await admin.get("/api/v1/incidents")).json()["incidents"]
        assert (case["source"], case["text"], case["state"]) == ("public", "the river foams", "reported")
        await admin.post("/api/v1/incidents/1/steps", json={"action": "file"})
        await admin.post("/api/v1/incidents/1/steps", json={"action": "note", "note": "Wang looks at it"})
        status = await resident.get(f"/api/v1/reports/{receipt}")
        assert (status.json()["state"], status.json()["steps"]) == ("filed", ["reported", "filed"])
        assert "Wang" not in status.text
        assert "admin" not in status.text
        detail = (await viewer.get("/api/v1/incidents/1")).json()
        path = f"/api/v1/incidents/1/photos/{detail['photos'][0]['id']}"
        shown = await viewer.get(path)
        assert (shown.headers["content-type"], shown.status_code) == ("image/jpeg", 200)
        assert (await resident.get(path)).status_code == 401
        assert (await viewer.get("/api/v1/incidents/1/photos/99")).status_code == 404


@both_databases
async def test_the_position_of_a_photograph_is_taken_by_consent_alone(
    app: FastAPI, resident: httpx.AsyncClient, tmp_path: Path
) -> None:
    bare = {"kind": "water", "text": "the river foams"}
    expected = []
    async with administrator(app, tmp_path) as admin:
        for body, query, place in (
            (bare, "", (None, None)),
            (bare, "?place=false", (None, None)),
            (bare, "?place=true", (30.11, 119.205)),
            (REPORT, "?place=true", (REPORT["lat"], REPORT["lon"])),  # the resident has said where it is
        ):
            receipt = (await resident.post("/api/v1/reports", json=body)).json()["receipt"]
            sent = await resident.put(f"/api/v1/reports/{receipt}/photo{query}", content=picture())
            assert sent.status_code == 204, sent.text
            expected.append(place)
        cases = (await admin.get("/api/v1/incidents")).json()["incidents"]
        assert [(case["lat"], case["lon"]) for case in reversed(cases)] == expected
        shown = await admin.get("/api/v1/incidents/3/photos/3")
        assert b"Exif" not in shown.content


@pytest.mark.parametrize("data", [b"", b"GIF89a", picture()[:300], picture(place={1: "N", 2: (91.0, 0.0, 0.0)})])
def test_a_photograph_that_does_not_say_where_it_was_taken_has_no_position(data: bytes) -> None:
    assert photo.position(data) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_of_a_photograph_only_the_pixels_are_kept(kind: str) -> None:
    kept = photo.rewritten(picture(kind))
    image = Image.open(io.BytesIO(kept))
    assert image.format == "JPEG"
    assert image.size == (800, 1600)  # upright, and made small
    assert dict(image.getexif()) == {}
    assert b"MAKER-OF-THE-CAMERA" not in kept
    assert b"Exif" not in kept


@pytest.mark.parametrize(
    "content",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a" + bytes(50), picture()[:3000], b"<?php echo 1;"],
)
async def test_what_is_no_photograph_is_refused(resident: httpx.AsyncClient, content: bytes) -> None:
    receipt = await _sent(resident)
    refused = await resident.put(f"/api/v1/reports/{receipt}/photo", content=content)
    assert refused.status_code == 422
    assert "picture" in refused.json()["detail"]


async def test_a_photograph_that_is_too_large_is_refused(resident: httpx.AsyncClient) -> None:
    receipt = await _sent(resident)
    path = f"/api/v1/reports/{receipt}/photo"
    assert (await resident.put(path, content=bytes(photo.MAX_BYTES + 1))).status_code == 413
    bomb = io.BytesIO()
    Image.new("1", (5000, 5000)).save(bomb, "PNG")
    assert (await resident.put(path, content=bomb.getvalue())).status_code == 422


async def test_a_report_takes_three_photographs_for_a_while(
    resident: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = picture(size=(40, 20))
    first, second = await _sent(resident), await _sent(resident)
    answers = [(await resident.put(f"/api/v1/reports/{first}/photo", content=small)).status_code for _ in range(4)]
    assert answers == [204, 204, 204, 409]
    later = people.now_ms() + 16 * 60_000
    monkeypatch.setattr(cases, "now_ms", lambda: later)
    assert (await resident.put(f"/api/v1/reports/{second}/photo", content=small)).status_code == 409


async def test_an_address_reports_no_more_than_five_times_in_ten_minutes(
    app: FastAPI, resident: httpx.AsyncClient
) -> None:
    answers = [(await resident.post("/api/v1/reports", json=REPORT)).status_code for _ in range(6)]
    assert answers == [201] * 5 + [429]
    async with client_of(app, "203.0.113.8", "city.example") as other:
        assert (await other.post("/api/v1/reports", json=REPORT)).status_code == 201


async def test_only_classes_for_the_public_are_reported(resident: httpx.AsyncClient) -> None:
    listed = (await resident.get("/api/v1/report-classes")).json()["classes"]
    assert "water" in {item["kind"] for item in listed}
    assert "sensor" not in {item["kind"] for item in listed}
    for body in ({**REPORT, "kind": "sensor"}, {**REPORT, "text": ""}, {**REPORT, "text": "x" * 2001}):
        assert (await resident.post("/api/v1/reports", json=body)).status_code == 422
    assert (await resident.get("/api/v1/reports/AAAA-BBBB-CCCC")).status_code == 404
    assert (await resident.put("/api/v1/reports/AAAA-BBBB-CCCC/photo", content=b"x")).status_code == 404


async def test_nothing_is_reported_unless_the_town_wants_it(tmp_path: Path) -> None:
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        assert (await client.get("/api/v1/report-classes")).status_code == 404
        assert (await client.post("/api/v1/reports", json=REPORT)).status_code == 404
        assert (await client.get("/api/v1/reports/AAAA-BBBB-CCCC")).status_code == 404
        assert (await client.put("/api/v1/reports/AAAA-BBBB-CCCC/photo", content=b"x")).status_code == 404
