"""People by the HTTP API, over SQLite and PostgreSQL alike."""

import logging
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from gateway.city.auth import people as known
from gateway.city.database.engine import Database
from gateway.config import ConfigError
from tests.city.conftest import READ, both_databases, city_config, client_of, running, write
from tests.city.signed_in import PASSWORD, administrator, person, use_link


@pytest.fixture
async def app(tmp_path: Path, database: dict[str, str]) -> AsyncIterator[FastAPI]:
    async with running(city_config(tmp_path, database=database)) as app:
        yield app


@pytest.fixture
async def admin(app: FastAPI, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with administrator(app, tmp_path) as client:
        yield client


@both_databases
async def test_the_first_administrator_is_made_by_a_link_that_works_once(app: FastAPI, tmp_path: Path) -> None:
    path = tmp_path / "setup-link"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = path.read_text().strip().partition("#link=")[2]
    async with client_of(app, "203.0.113.7", "city.example") as client:
        for weak in ("short", "aaaaaaaaaaaaaaaa", "the-admin-password"):
            refused = await client.post("/api/v1/link", json={"link": link, "password": weak})
            assert refused.status_code == 422
        assert (await client.get("/api/v1/link", headers={"X-Link": link})).json() == {"name": "admin"}
        await use_link(client, f"#link={link}")
        who = (await client.get("/api/v1/session")).json()
        assert (who["name"], who["role"]) == ("admin", "administrator")
        again = await client.post("/api/v1/link", json={"link": link, "password": PASSWORD})
        assert again.status_code == 404
        assert "citygate user link" in again.json()["detail"]


async def test_the_links_secret_reaches_no_log_without_a_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(city_config(tmp_path)):
        secret = (tmp_path / "setup-link").read_text().strip().partition("#link=")[2]
    assert "setup-link" in caplog.text
    assert secret not in caplog.text


@both_databases
async def test_a_restart_makes_a_new_link_until_someone_has_a_password(
    tmp_path: Path, database: dict[str, str]
) -> None:
    config = city_config(tmp_path, database=database)
    async with running(config):
        old = (tmp_path / "setup-link").read_text()
    async with running(config) as app:
        assert (tmp_path / "setup-link").read_text() != old
        async with client_of(app) as client:
            gone = await client.get("/api/v1/link", headers={"X-Link": old.strip().partition("#link=")[2]})
            assert gone.status_code == 404
        async with administrator(app, tmp_path):
            pass
    async with running(config) as app:
        assert not (tmp_path / "setup-link").exists()
        async with client_of(app) as client:
            signed_in = await client.post("/api/v1/session", json={"name": "admin", "password": PASSWORD})
            assert signed_in.status_code == 204


async def test_this_machine_reads_freely_until_someone_has_a_password(app: FastAPI, tmp_path: Path) -> None:
    async with client_of(app) as client:
        assert (await client.get("/api/v1/sensors")).status_code == 200
        assert (await client.get("/api/v1/people")).status_code == 403
        async with administrator(app, tmp_path):
            assert (await client.get("/api/v1/sensors")).status_code == 401
            by_token = await client.get("/api/v1/sensors", headers={"Authorization": f"Bearer {READ}"})
            assert by_token.status_code == 200
            assert (await write(client, "air,site=s,sensor=a pm25=1 1700000000000")).status_code == 204


@pytest.mark.parametrize(
    ("headers", "secure"), [({}, False), ({"X-Forwarded-Proto": "https"}, True), ({"X-Forwarded-Proto": "http"}, False)]
)
async def test_the_cookie_is_for_this_site_alone(tmp_path: Path, headers: dict[str, str], *, secure: bool) -> None:
    async with running(city_config(tmp_path)) as app, administrator(app, tmp_path) as admin:
        body = {"name": "admin", "password": PASSWORD}
        cookie = (await admin.post("/api/v1/session", json=body, headers=headers)).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert ("Secure" in cookie) is secure


async def test_a_change_needs_what_another_site_cannot_know(admin: httpx.AsyncClient) -> None:
    body = {"name": "lin", "title": "Lin", "role": "viewer"}
    right = admin.headers.pop("X-CSRF-Token")
    for header in ({}, {"X-CSRF-Token": "guess"}):
        assert (await admin.post("/api/v1/people", json=body, headers=header)).status_code == 403
        assert (await admin.delete("/api/v1/session", headers=header)).status_code == 403
    assert (await admin.post("/api/v1/people", json=body, headers={"X-CSRF-Token": right})).status_code == 201


async def test_wrong_passwords_are_slowed_down_by_address_and_by_name(app: FastAPI, tmp_path: Path) -> None:
    async with administrator(app, tmp_path):
        answers = []
        for number in range(11):
            async with client_of(app, f"203.0.113.{number // 4}", "city.example") as client:
                body = {"name": "admin", "password": f"a wrong password {number}"}
                answers.append((await client.post("/api/v1/session", json=body)).status_code)
        assert answers == [401] * 10 + [429]
        async with client_of(app, "203.0.113.99", "city.example") as client:
            for number in range(6):
                answer = await client.post("/api/v1/session", json={"name": f"nobody{number}", "password": "x"})
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0


@both_databases
async def test_who_is_disabled_is_out_at_once(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with person(app, admin, "viewer") as viewer:
        made = await viewer.post("/api/v1/tokens", json={"label": "script"})
        token = {"Authorization": f"Bearer {made.json()['token']}"}
        assert (await viewer.get("/api/v1/sensors")).status_code == 200
        change = await admin.patch(f"/api/v1/people/{viewer.headers['X-Person']}", json={"disabled": True})
        assert change.json()["disabled"] is True
        assert (await viewer.get("/api/v1/sensors")).status_code == 401
        async with client_of(app) as script:
            assert (await script.get("/api/v1/sensors", headers=token)).status_code == 401
            body = {"name": "viewer", "password": PASSWORD}
            assert (await script.post("/api/v1/session", json=body)).status_code == 401
        link = await admin.post(f"/api/v1/people/{viewer.headers['X-Person']}/link")
        assert link.status_code == 409


@both_databases
async def test_the_last_administrator_stays_one(app: FastAPI, admin: httpx.AsyncClient) -> None:
    for change in ({"disabled": True}, {"role": "viewer"}):
        refused = await admin.patch("/api/v1/people/1", json=change)
        assert refused.status_code == 409
        assert "last administrator" in refused.json()["detail"]
    async with person(app, admin, "administrator", name="second") as second:
        assert (await second.patch("/api/v1/people/1", json={"role": "viewer"})).status_code == 200
        assert (await admin.get("/api/v1/people")).status_code == 401  # another role: sign in again


@both_databases
async def test_a_changed_password_ends_every_other_session(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with client_of(app) as other:
        await other.post("/api/v1/session", json={"name": "admin", "password": PASSWORD})
        assert (await other.get("/api/v1/people")).status_code == 200
        new = {"old": PASSWORD, "new": "quite another phrase"}
        assert (await admin.put("/api/v1/session/password", json={**new, "old": "wrong"})).status_code == 403
        assert (await admin.put("/api/v1/session/password", json=new)).status_code == 204
        assert (await admin.get("/api/v1/people")).status_code == 200
        assert (await other.get("/api/v1/people")).status_code == 401


@both_databases
async def test_a_token_does_what_its_scope_says_until_it_ends(
    app: FastAPI, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {}
    for scope in ("read", "write"):
        made = await admin.post("/api/v1/tokens", json={"label": scope, "scope": scope, "days": 1})
        tokens[scope] = {"Authorization": f"Bearer {made.json()['token']}"}
    listed = (await admin.get("/api/v1/tokens")).text
    assert all(header["Authorization"].removeprefix("Bearer ") not in listed for header in tokens.values())
    async with client_of(app) as script:
        for scope, status in (("read", 403), ("write", 201)):
            body = {"name": f"by-{scope}", "title": "x", "role": "viewer"}
            assert (await script.get("/api/v1/people", headers=tokens[scope])).status_code == 200
            answer = await script.post("/api/v1/people", json=body, headers=tokens[scope])
            assert answer.status_code == status
        more = await script.post("/api/v1/tokens", json={"label": "more"}, headers=tokens["write"])
        assert more.status_code == 403
        assert (await admin.delete("/api/v1/tokens/1")).status_code == 204
        assert (await script.get("/api/v1/people", headers=tokens["read"])).status_code == 401
        later = known.now_ms() + 86_400_001
        monkeypatch.setattr(known, "now_ms", lambda: later)
        assert (await script.get("/api/v1/people", headers=tokens["write"])).status_code == 401


@both_databases
async def test_a_person_cannot_end_anothers_token(app: FastAPI, admin: httpx.AsyncClient) -> None:
    await admin.post("/api/v1/tokens", json={"label": "mine"})
    async with person(app, admin, "viewer") as viewer:
        assert (await viewer.delete("/api/v1/tokens/1")).status_code == 404
        theirs = (await viewer.post("/api/v1/tokens", json={"label": "theirs"})).json()["about"]["id"]
    assert (await admin.delete(f"/api/v1/tokens/{theirs}")).status_code == 204


@both_databases
async def test_sessions_and_links_end(app: FastAPI, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await admin.post("/api/v1/people", json={"name": "lin", "title": "Lin", "role": "viewer"})
    start = known.now_ms()
    monkeypatch.setattr(known, "now_ms", lambda: start + known.SESSION_MS + 1)
    assert (await admin.get("/api/v1/people")).status_code == 401
    monkeypatch.setattr(known, "now_ms", lambda: start + known.LINK_MS + 1)
    body = {"link": added.json()["link"].partition("=")[2], "password": PASSWORD}
    async with client_of(app) as late:
        assert (await late.post("/api/v1/link", json=body)).status_code == 404


@both_databases
async def test_every_change_is_on_the_trail_and_stays_there(
    app: FastAPI, admin: httpx.AsyncClient, tmp_path: Path, database: dict[str, str]
) -> None:
    async with person(app, admin, "viewer") as viewer:
        await admin.patch(f"/api/v1/people/{viewer.headers['X-Person']}", json={"title": "V"})
        token = (await viewer.post("/api/v1/tokens", json={"label": "script"})).json()["about"]["id"]
        await viewer.delete(f"/api/v1/tokens/{token}")
        await viewer.delete("/api/v1/session")
    async with client_of(app) as guesser:
        await guesser.post("/api/v1/session", json={"name": "viewer", "password": "wrong"})
        await guesser.post("/api/v1/session", json={"name": "a password typed here", "password": "wrong"})
    text = (await admin.get("/api/v1/audit", params={"limit": 1000})).text
    lines = (await admin.get("/api/v1/audit", params={"limit": 10})).json()["audit"]
    assert [(line["who"], line["action"]) for line in lines] == [
        ("", "sign-in refused"),
        ("viewer", "sign-in refused"),
        ("viewer", "signed out"),
        ("viewer", "revoked"),
        ("viewer", "made"),
        ("admin", "changed"),
        ("viewer", "signed in"),
        ("viewer", "chose a password by a link"),
        ("admin", "made a link"),
        ("admin", "added"),
    ]
    assert lines[5]["detail"] == {"was": {"title": "Viewer"}, "now": {"title": "V"}}
    assert PASSWORD not in text
    assert "typed here" not in text
    older = (await admin.get("/api/v1/audit", params={"before": lines[-1]["id"]})).json()["audit"]
    assert older[0]["id"] == lines[-1]["id"] - 1
    for change in ("DELETE FROM audit", "UPDATE audit SET who = 'nobody'"):
        if url := database.get("url"):
            with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(change)
        else:
            with sqlite3.connect(tmp_path / "operations.db") as file, pytest.raises(sqlite3.Error, match="append-only"):
                file.execute(change)


async def test_nothing_secret_is_kept_in_the_clear(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    made = (await admin.post("/api/v1/tokens", json={"label": "script"})).json()["token"]
    files = _files(tmp_path)
    kept = b"".join(part.read_bytes() for part in files)
    for plain in (PASSWORD, made, admin.cookies["citygate_session"], admin.headers["X-CSRF-Token"]):
        assert plain.encode() not in kept
    assert b"$argon2id$" in kept
    assert all(stat.S_IMODE(part.stat().st_mode) == 0o600 for part in files)


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("operations.db*"))


async def test_bodies_are_checked(admin: httpx.AsyncClient) -> None:
    for body in (
        {"name": "two words", "title": "x", "role": "viewer"},
        {"name": "x", "title": "x", "role": "emperor"},
        {"name": "x", "title": "", "role": "viewer"},
        {"name": "x", "title": "x", "role": "viewer", "password": "chosen by another"},
    ):
        assert (await admin.post("/api/v1/people", json=body)).status_code == 422
    same = {"name": "admin", "title": "x", "role": "viewer"}
    assert (await admin.post("/api/v1/people", json=same)).status_code == 409
    assert (await admin.patch("/api/v1/people/99", json={"title": "x"})).status_code == 404
    assert (await admin.patch(f"/api/v1/people/{2**70}", json={"title": "x"})).status_code == 404
    assert (await admin.patch("/api/v1/people/1", json={"disabled": 0})).status_code == 422
    unchanged = await admin.patch("/api/v1/people/1", json={})
    assert (unchanged.status_code, unchanged.json()["role"]) == (200, "administrator")
    for body in ({}, {"name": "admin"}, {"token": "x", "name": "admin", "password": "y"}):
        assert (await admin.post("/api/v1/session", json=body)).status_code == 422


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    async with running(city_config(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "operations.db") as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Exception, match="made by a newer citygate"):
        async with running(city_config(tmp_path)):
            pass


def test_only_postgresql_is_taken_by_url(tmp_path: Path) -> None:
    for url in ("mysql://x/y", "nonsense", "sqlite:///x.db"):
        with pytest.raises(ConfigError, match=r"database\.url"):
            Database(city_config(tmp_path, database={"url": url}))


@both_databases
async def test_a_person_sees_where_they_are_signed_in_and_signs_out_elsewhere(
    app: FastAPI, admin: httpx.AsyncClient
) -> None:
    async with client_of(app, "203.0.113.7", "city.example") as phone, client_of(app) as desk:
        for client, agent in ((phone, "Phone/1"), (desk, "Desk/2")):
            body = {"name": "admin", "password": PASSWORD}
            await client.post("/api/v1/session", json=body, headers={"User-Agent": agent})
        listed = (await admin.get("/api/v1/sessions")).json()["sessions"]
        where = {(one["address"], one["agent"]) for one in listed}
        assert where >= {("203.0.113.7", "Phone/1"), ("127.0.0.1", "Desk/2")}
        assert [one["this"] for one in listed].count(True) == 1
        (on_phone,) = [one["id"] for one in listed if one["agent"] == "Phone/1"]
        async with person(app, admin, "viewer") as viewer:
            assert (await viewer.delete(f"/api/v1/sessions/{on_phone}")).status_code == 404
        assert (await admin.delete(f"/api/v1/sessions/{on_phone}")).status_code == 204
        assert (await phone.get("/api/v1/people")).status_code == 401
        assert (await desk.get("/api/v1/people")).status_code == 200
        assert (await admin.delete("/api/v1/sessions")).status_code == 204
        assert (await desk.get("/api/v1/people")).status_code == 401
        assert len((await admin.get("/api/v1/sessions")).json()["sessions"]) == 1


@both_databases
async def test_people_tell_when_they_last_signed_in(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with person(app, admin, "viewer"):
        pass
    await admin.post("/api/v1/people", json={"name": "lin", "title": "Lin", "role": "viewer"})
    seen = {one["name"]: one["last_sign_in"] for one in (await admin.get("/api/v1/people")).json()["people"]}
    assert seen["admin"]
    assert seen["viewer"]
    assert seen["lin"] is None


@both_databases
async def test_the_trail_is_searched_and_downloaded(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with person(app, admin, "viewer", name="=lin") as viewer:
        await viewer.post("/api/v1/tokens", json={"label": "script"})

    async def found(**query: str) -> list[tuple[str, str]]:
        lines = (await admin.get("/api/v1/audit", params=query)).json()["audit"]
        return [(line["who"], line["action"]) for line in lines]

    assert await found(who="LIN", what="made") == [("=lin", "made")]
    assert await found(what="person =lin", who="admin") == [("admin", "made a link"), ("admin", "added")]
    assert await found(who="%") == []
    assert await found(end="2020-01-01T00:00:00Z") == []
    assert len(await found(start="2020-01-01T00:00:00Z")) == len(await found())
    assert (await admin.get("/api/v1/audit", params={"start": "soon"})).status_code == 422
    csv = await admin.get("/api/v1/audit.csv", params={"who": "lin"})
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in csv.headers["content-disposition"]
    rows = csv.text.removeprefix("\ufeff").splitlines()
    assert rows[0] == "id,time,who,address,action,about,detail"
    assert len(rows) == 1 + len(await found(who="lin"))
    assert ",'=lin," in rows[1]  # no formula
