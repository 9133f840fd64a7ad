"""deploy/provision.py: secrets are made once, each for its reader alone, and tokens have no more rights than needed."""

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlparse

import pytest

from gateway.config import CityConfig, GatewayConfig, load

if TYPE_CHECKING:
    from tests.deploy.conftest import Site

SECRETS = {
    "broker/passwords",
    "broker/mosquitto_sub",
    "gateway/mqtt-password",
    "city/read-token",
    "city/write-token",
    "influxdb/admin-password",
    "influxdb/operator-token",
    "operator/sensor-password",
}


class FakeInfluxDB(ThreadingHTTPServer):
    """The two answers of InfluxDB 2 that provisioning asks for, with their real shapes."""

    def __init__(self, operator_token: str) -> None:
        """Listens on a port of its own."""
        super().__init__(("127.0.0.1", 0), _Answers)
        self.operator_token = operator_token
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: FakeInfluxDB

    def do_GET(self) -> None:
        if self._authorized():
            name = parse_qs(urlparse(self.path).query)["name"][0]
            self._answer(200, {"buckets": [{"id": "b1", "orgID": "o1", "name": name}] if name == "city" else []})

    def do_POST(self) -> None:
        if self._authorized():
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append(asked)
            self._answer(201, {"id": "a1", "token": f"token-{asked['permissions'][0]['action']}"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""

    def _authorized(self) -> bool:
        if self.headers["Authorization"] == f"Token {self.server.operator_token}":
            return True
        self._answer(401, {"code": "unauthorized", "message": "unauthorized access"})
        return False

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@pytest.fixture
def influxdb(site: "Site") -> Iterator[FakeInfluxDB]:
    """InfluxDB with this site's operator token."""
    server = FakeInfluxDB(site.secret("influxdb/operator-token"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _contents(site: "Site") -> dict[str, str]:
    folder = site.folder / "credentials"
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}


def test_the_first_start_makes_every_secret_for_its_reader_alone(site: "Site") -> None:
    assert set(_contents(site)) == SECRETS
    assert len({site.secret(name) for name in SECRETS}) == len(SECRETS)
    for path in (site.folder / "credentials").glob("*/*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_start_changes_nothing(site: "Site") -> None:
    before = _contents(site)
    result = site.provision("secrets")
    assert (result.returncode, result.stdout) == (0, "")
    assert _contents(site) == before


def test_a_deleted_secret_is_made_anew_and_other_accounts_are_kept(site: "Site") -> None:
    passwords = site.folder / "credentials/broker/passwords"
    old = dict(line.split(":", 1) for line in passwords.read_text("utf-8").splitlines())
    passwords.chmod(0o600)
    passwords.write_text(passwords.read_text("utf-8") + "longgang:$7$101$c2FsdA==$aGFzaA==\n", "utf-8")
    (site.folder / "credentials/gateway/mqtt-password").unlink()
    assert site.provision("secrets").returncode == 0
    new = dict(line.split(":", 1) for line in passwords.read_text("utf-8").splitlines())
    assert new.keys() == old.keys() | {"longgang"}
    assert new["gateway"] != old["gateway"]
    assert new["sensor"] == old["sensor"]


def test_services_get_tokens_with_no_more_rights_than_they_need(site: "Site", influxdb: FakeInfluxDB) -> None:
    result = site.provision("tokens", "--url", influxdb.url, "--bucket", "city")
    assert result.returncode == 0, result.stderr
    assert (site.secret("gateway/influxdb-token"), site.secret("city/influxdb-token")) == ("token-write", "token-read")
    resource = {"type": "buckets", "id": "b1", "orgID": "o1"}
    assert [asked["permissions"] for asked in influxdb.asked] == [
        [{"action": "write", "resource": resource}],
        [{"action": "read", "resource": resource}],
    ]
    assert site.provision("tokens", "--url", influxdb.url).returncode == 0
    assert len(influxdb.asked) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bucket", "town"], "has no bucket 'town'"),
        (["--url", "http://127.0.0.1:1"], "no answer from InfluxDB"),
        (["--url", "influxdb:8086"], "starts with http://"),
    ],
)
def test_a_mistake_says_what_to_do(site: "Site", influxdb: FakeInfluxDB, arguments: list[str], message: str) -> None:
    result = site.provision("tokens", "--url", influxdb.url, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_operator_token_is_named(site: "Site", influxdb: FakeInfluxDB) -> None:
    influxdb.operator_token = "another"
    result = site.provision("tokens", "--url", influxdb.url)
    assert result.returncode == 1
    assert "401" in result.stderr
    assert "operator token" in result.stderr


def test_show_prints_what_people_type_in(site: "Site") -> None:
    output = site.provision("show").stdout
    assert site.secret("city/read-token") in output
    assert site.secret("operator/sensor-password") in output
    assert site.secret("influxdb/operator-token") not in output


def test_the_shipped_configs_read_these_secrets(site: "Site", influxdb: FakeInfluxDB, root: Path) -> None:
    assert site.provision("tokens", "--url", influxdb.url).returncode == 0
    gateway = load(site.folder / "gateway.toml", GatewayConfig, {})
    assert gateway.mqtt.password is not None
    assert gateway.mqtt.password.get_secret_value() == site.secret("gateway/mqtt-password")
    assert gateway.output[0].token is not None
    assert gateway.output[0].token.get_secret_value() == "token-write"
    city = load(site.folder / "city.toml", CityConfig, {})
    assert city.access.read_token is not None
    assert city.store.token is not None
    assert city.store.token.get_secret_value() == "token-read"
    for path in (city.map.districts, city.map.sensors, city.map.basemap):
        assert path is None or path.exists(), f"{path} is not in {root}/configs"
