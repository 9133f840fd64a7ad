"""Signing in by a real provider of OpenID Connect, by HTTP."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from gateway.config import CityConfig, OidcSection
from tests.city.conftest import city_config, client_of, running
from tests.city.signed_in import administrator
from tests.oidc_provider import SECRET, Provider, provider

CITY = "http://city.example"
COOKIES = ("citygate_session", "citygate_oidc")


@pytest.fixture
def sso(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Provider]:
    with provider(free_port(), tmp_path / "provider.log") as found:
        yield found


@pytest.fixture
def config(sso: Provider, tmp_path: Path) -> CityConfig:
    return city_config(tmp_path, oidc=sso.settings(CITY))


@pytest.fixture
async def app(config: CityConfig) -> AsyncIterator[FastAPI]:
    async with running(config) as app:
        yield app


@pytest.fixture
async def admin(app: FastAPI, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with administrator(app, tmp_path) as client:
        yield client


async def _sent(client: httpx.AsyncClient) -> str:
    """Where the city view sends a browser that wants to sign in."""
    answer = await client.get("/api/v1/oidc/start")
    assert answer.status_code == 303
    return answer.headers["location"]


def _vouched(address: str, sub: str | None) -> str:
    """Signs in at the provider; where it sends the browser back. Without a sub, the person says no."""
    body = {"action": "deny"} if sub is None else {"sub": sub}
    answer = httpx.post(address, data=body)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


async def _enter(client: httpx.AsyncClient, sub: str | None) -> str:
    """Signs in; where the browser ends, which holds the session if all went well."""
    back = _vouched(await _sent(client), sub)
    assert back.startswith(f"{CITY}/api/v1/oidc/callback?")
    answer = await client.get(back)
    assert answer.status_code == 303
    if "citygate_session" in client.cookies:
        who = (await client.get("/api/v1/session")).json()
        client.headers["X-CSRF-Token"] = who.get("csrf") or ""
    return str(answer.headers["location"])


async def test_somebody_signs_in_with_the_role_that_the_provider_says(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with client_of(app, "203.0.113.7", "city.example") as client:
        assert await _enter(client, "1") == "/#sso=in"
        who = (await client.get("/api/v1/session")).json()
        assert (who["name"], who["role"], who["single_sign_on"]) == ("lin", "operator", True)
        assert (await client.get("/api/v1/people")).status_code == 403
    (lin,) = [one for one in (await admin.get("/api/v1/people")).json()["people"] if one["name"] == "lin"]
    assert (lin["title"], lin["active"], lin["single_sign_on"]) == ("林晓", True, True)
    lines = (await admin.get("/api/v1/audit")).json()["audit"]
    assert [(line["who"], line["action"], line["about"]) for line in lines[:2]] == [
        ("lin", "signed in", "session"),
        ("single sign-on", "added", "person lin"),
    ]
    async with client_of(app, "203.0.113.7", "city.example") as client:
        assert await _enter(client, "2") == "/#sso=in"
        assert (await client.get("/api/v1/people")).status_code == 200  # the strongest of several roles


async def test_the_provider_is_asked_by_code_with_pkce_state_and_nonce(app: FastAPI) -> None:
    async with client_of(app, host="city.example") as client:
        address = urlsplit(await _sent(client))
        asked = {key: value[0] for key, value in parse_qs(address.query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert len(asked["state"]) >= 20
        assert len(asked["nonce"]) >= 20
        assert len(asked["code_challenge"]) == 43
        assert SECRET not in address.query
        async with client_of(app, host="city.example") as other:
            again = parse_qs(urlsplit(await _sent(other)).query)
            assert all(again[key] != [asked[key]] for key in ("state", "nonce", "code_challenge"))


async def test_the_cookies_are_for_this_site_alone_and_for_https_behind_it(app: FastAPI) -> None:
    async with client_of(app, host="city.example") as client:
        client.headers["X-Forwarded-Proto"] = "https"
        begun = (await client.get("/api/v1/oidc/start")).headers["set-cookie"]
        assert all(part in begun for part in ("HttpOnly", "SameSite=lax", "Secure", "Path=/api/v1/oidc"))
        client.cookies.set("citygate_oidc", begun.partition("=")[2].partition(";")[0])
        done = await client.get(_vouched((await client.get("/api/v1/oidc/start")).headers["location"], "1"))
        assert done.headers["location"] == "/#sso=late"  # the cookie is of the attempt before


async def test_an_answer_counts_once_for_the_browser_that_began(app: FastAPI) -> None:
    async with client_of(app, host="city.example") as victim, client_of(app, host="city.example") as other:
        back = _vouched(await _sent(other), "1")
        await _sent(victim)
        for client, address in ((victim, back), (other, back.replace("state=", "state=x")), (other, back)):
            assert (await client.get(address)).headers["location"] == "/#sso=late"
            assert "citygate_session" not in client.cookies
        back = _vouched(await _sent(other), "1")
        assert (await other.get(back)).headers["location"] == "/#sso=in"
        assert (await other.get(back)).headers["location"] == "/#sso=late"


@pytest.mark.parametrize(("sub", "why"), [("3", "no-role"), ("4", "taken"), (None, "failed")])
async def test_who_has_no_right_to_be_here_is_told_why(
    app: FastAPI, admin: httpx.AsyncClient, sub: str | None, why: str
) -> None:
    async with client_of(app, host="city.example") as client:
        assert await _enter(client, sub) == f"/#sso={why}"
        assert "citygate_session" not in client.cookies
    assert [one["name"] for one in (await admin.get("/api/v1/people")).json()["people"]] == ["admin"]
    if sub is not None:
        line = (await admin.get("/api/v1/audit")).json()["audit"][0]
        assert (line["action"], line["detail"]) == ("sign-in refused", {"why": why})


async def test_another_role_at_the_provider_is_one_here_and_ends_what_was_open(app: FastAPI, sso: Provider) -> None:
    async with client_of(app, host="city.example") as first, client_of(app, host="city.example") as second:
        await _enter(first, "1")
        sso.know("1", preferred_username="lin2", name="Lin", groups=["admins"])
        await _enter(second, "1")
        who = (await second.get("/api/v1/session")).json()
        assert (who["name"], who["role"]) == ("lin", "administrator")  # the same person under any name
        assert (await first.get("/api/v1/session")).status_code == 401
        sso.know("1", preferred_username="lin", groups=[])
        assert await _enter(first, "1") == "/#sso=no-role"
        assert (await second.get("/api/v1/session")).status_code == 401


async def test_who_is_disabled_here_stays_out(app: FastAPI, admin: httpx.AsyncClient) -> None:
    async with client_of(app, host="city.example") as client:
        await _enter(client, "1")
        number = (await client.get("/api/v1/session")).json()["person"]
        assert (await admin.patch(f"/api/v1/people/{number}", json={"disabled": True})).status_code == 200
        assert (await client.get("/api/v1/session")).status_code == 401
        assert await _enter(client, "1") == "/#sso=disabled"


async def test_a_provider_that_does_not_answer_sends_back_to_the_page_and_local_accounts_go_on(
    app: FastAPI, admin: httpx.AsyncClient, sso: Provider
) -> None:
    async with client_of(app, host="city.example") as client:
        back = _vouched(await _sent(client), "1")
        sso.stop()
        assert (await client.get(back)).headers["location"] == "/#sso=unreachable"
        assert await _sent(client) == "/#sso=unreachable"
        assert (await client.get("/api/v1/oidc/farewell")).headers["location"] == "/"
    assert (await admin.get("/api/v1/people")).status_code == 200


async def test_signing_out_goes_on_at_the_provider(app: FastAPI, sso: Provider) -> None:
    async with client_of(app, host="city.example") as client:
        await _enter(client, "1")
        assert (await client.delete("/api/v1/session")).status_code == 204
        away = urlsplit((await client.get("/api/v1/oidc/farewell")).headers["location"])
        assert f"{away.scheme}://{away.netloc}" == sso.url
        assert parse_qs(away.query)["post_logout_redirect_uri"] == [f"{CITY}/"]


async def test_the_first_administrator_still_has_a_link_while_none_can_sign_in(
    app: FastAPI, config: CityConfig, tmp_path: Path
) -> None:
    async with client_of(app, host="city.example") as client:
        await _enter(client, "1")
    async with client_of(app) as here:
        assert (await here.get("/api/v1/overview")).status_code == 401  # somebody can sign in, so everybody must
    async with running(config) as anew, administrator(anew, tmp_path) as admin:
        assert (await admin.get("/api/v1/people")).status_code == 200


async def test_nothing_secret_is_logged(
    app: FastAPI, sso: Provider, caplog: pytest.LogCaptureFixture, config: CityConfig
) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    async with client_of(app, host="city.example") as client:
        back = _vouched(await _sent(client), "1")
        code = parse_qs(urlsplit(back).query)["code"][0]
        assert (await client.get(back.replace(code, "wrong"))).headers["location"] == "/#sso=failed"
        sso.stop()
        await client.get("/api/v1/oidc/start")
    assert "single sign-on" in caplog.text
    assert code not in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(config)


async def test_begun_attempts_are_slowed_down(app: FastAPI) -> None:
    async with client_of(app, host="city.example") as client:
        statuses = [(await client.get("/api/v1/oidc/start")).status_code for _ in range(31)]
    assert statuses == [303] * 30 + [429]


async def test_without_a_provider_there_is_none(tmp_path: Path) -> None:
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        assert (await client.get("/api/v1/oidc")).json() == {"title": None}
        for path in ("start", "callback", "farewell"):
            assert (await client.get(f"/api/v1/oidc/{path}")).status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"client_id": ""}, "'client_id'"),
        ({"url": ""}, "'url'"),
        ({"issuer": "http://sso.example"}, "not https"),
        ({"roles": {"ops": "god"}}, "roles"),
        ({"default_role": "administrator"}, "default_role"),
    ],
)
def test_a_mistake_in_the_settings_is_named(change: dict[str, object], says: str) -> None:
    whole = {"issuer": "https://sso.example", "client_id": "c", "url": "https://city.example", **change}
    with pytest.raises(ValueError, match=says):
        OidcSection.model_validate(whole)
