from pathlib import Path

import pytest

from gateway.city.app import create_app
from gateway.config import CityConfig, ConfigError
from tests.city.conftest import READ, WRITE, city_config, client_of, running

BEYOND = "203.0.113.7"


@pytest.mark.parametrize(
    ("listens", "client", "host", "headers", "status"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", {}, 200),
        ("::1", "::1", "localhost", {}, 200),
        ("127.0.0.1", "127.0.0.1", "rebound.example", {}, 401),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", {"X-Forwarded-For": BEYOND}, 401),
        ("127.0.0.1", BEYOND, "127.0.0.1", {}, 401),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1", {}, 401),
        ("0.0.0.0", BEYOND, "city.example", {}, 401),
        ("0.0.0.0", BEYOND, "city.example", {"Authorization": f"Bearer {READ}"}, 200),
        ("0.0.0.0", BEYOND, "city.example", {"Cookie": "citygate_session=guess"}, 401),
    ],
)
async def test_reading_is_open_on_loopback_alone(  # noqa: PLR0913, PLR0917 - a row of the matrix
    tmp_path: Path, listens: str, client: str, host: str, headers: dict[str, str], status: int
) -> None:
    async with running(city_config(tmp_path, listens)) as app, client_of(app, client, host) as http:
        for path in ("overview", "kinds", "map", "sensors", "events", "gateways"):
            response = await http.get(f"/api/v1/{path}", headers=headers)
            assert response.status_code == status
        assert (await http.get("/api/v1/sensors/x", headers=headers)).status_code == (404 if status == 200 else 401)
        if status == 401:
            assert (await http.get("/api/v1/stream", headers=headers)).status_code == 401
            assert (await http.get("/basemap.pmtiles", headers=headers)).status_code == 401
        assert (await http.get("/api/health")).status_code == 200


async def test_the_write_token_does_not_read(tmp_path: Path) -> None:
    async with running(city_config(tmp_path, "0.0.0.0")) as app, client_of(app, BEYOND, "city.example") as http:
        response = await http.get("/api/v1/sensors", headers={"Authorization": f"Bearer {WRITE}"})
        assert response.status_code == 401


async def test_a_session_replaces_the_token_until_it_is_ended(tmp_path: Path) -> None:
    async with running(city_config(tmp_path, "0.0.0.0")) as app, client_of(app, BEYOND, "city.example") as http:
        answer = await http.post("/api/v1/session", json={"token": READ})
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 204
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert READ not in cookie
        assert (await http.get("/api/v1/sensors")).status_code == 200
        kept = http.cookies["citygate_session"]
        assert (await http.delete("/api/v1/session")).status_code == 204
        http.cookies.set("citygate_session", kept)
        assert (await http.get("/api/v1/sensors")).status_code == 401


async def test_guessing_tokens_is_slowed_down_for_the_guesser_alone(tmp_path: Path) -> None:
    async with running(city_config(tmp_path, "0.0.0.0")) as app:
        async with client_of(app, BEYOND, "city.example") as http:
            answers = [await http.post("/api/v1/session", json={"token": f"guess {n}"}) for n in range(6)]
            assert [answer.status_code for answer in answers] == [401] * 5 + [429]
            assert int(answers[-1].headers["retry-after"]) > 0
            assert (await http.post("/api/v1/session", json={"token": READ})).status_code == 429
        async with client_of(app, "203.0.113.8", "city.example") as other:
            assert (await other.post("/api/v1/session", json={"token": READ})).status_code == 204


def test_there_is_no_default_token() -> None:
    with pytest.raises(ConfigError, match=r"write_token.*secrets\.token_urlsafe"):
        create_app(CityConfig())
    with pytest.raises(ConfigError, match=r"read_token.*other machines"):
        create_app(CityConfig.model_validate({"server": {"host": "0.0.0.0"}, "access": {"write_token": WRITE}}))
