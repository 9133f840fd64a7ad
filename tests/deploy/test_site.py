"""The components of docker-compose.yml, started without containers from the same files."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import paho.mqtt.publish
import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Site

TIMEOUT = 60.0


@pytest.fixture
def running(site: "Site", program: Callable[[str, str], str]) -> "Site":
    """A site whose broker runs; the gateway's and city view's tokens stand in for InfluxDB's."""
    for name in ("gateway/influxdb-token", "city/influxdb-token"):
        (site.folder / "credentials" / name).write_text("of no use to the server that stands in\n", "utf-8")
    site.start_broker(program("mosquitto", "mosquitto"))
    return site


def _publish(site: "Site", observed: int) -> None:
    paho.mqtt.publish.single(
        "city/longgang/air/air-01",
        json.dumps({"ts": observed, "pm25": 12.5, "pm10": 30.0}),
        qos=1,
        hostname="127.0.0.1",
        port=site.broker_port,
        auth={"username": "sensor", "password": site.secret("operator/sensor-password")},
    )


def _start_gateway(site: "Site", port: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {
        "CITYGATE_GATEWAY__DATA_DIR": str(site.folder / "gateway-data"),
        "CITYGATE_GATEWAY__HEALTH_PORT": str(port),
        "CITYGATE_MQTT__PORT": str(site.broker_port),
        **env,
    }
    config = str(site.folder / "gateway.toml")
    process = site.start("gateway", sys.executable, "-m", "gateway", "run", "-c", config, env=environment)
    site.wait_for_port(process, "gateway", port)
    # before it is connected and has subscribed, the broker keeps nothing for it
    _wait_for(lambda: _get(f"http://127.0.0.1:{port}/health")["broker"]["connected"], site, "gateway")
    return process


def _get(url: str, token: str | None = None, data: bytes | None = None) -> Any:  # noqa: ANN401 - whatever JSON holds
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:  # noqa: S310 - own server
        text = answer.read()
        return json.loads(text) if text.strip() else None


def _wait_for(ask: Callable[[], Any], site: "Site", *logs: str) -> Any:  # noqa: ANN401 - what `ask` gives
    deadline = time.monotonic() + TIMEOUT
    last: object = None
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except (OSError, ValueError) as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"no answer in {TIMEOUT:.0f} s ({last}): " + "\n".join(site.log(name) for name in logs))


def test_a_reading_reaches_the_city_view_through_the_shipped_files(
    running: "Site", program: Callable[[str, str], str], free_port: Callable[[], int]
) -> None:
    site = running
    store_port, rpc_port, health_port, city_port = (free_port() for _ in range(4))
    store = f"http://127.0.0.1:{store_port}"
    influxd = site.start(
        "influxd",
        program("influxd", "influxdb"),
        env={
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{rpc_port}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{store_port}",
            "INFLUXDB_META_DIR": str(site.folder / "influxdb/meta"),
            "INFLUXDB_DATA_DIR": str(site.folder / "influxdb/data"),
            "INFLUXDB_DATA_WAL_DIR": str(site.folder / "influxdb/wal"),
            "INFLUXDB_REPORTING_DISABLED": "true",
        },
    )
    site.wait_for_port(influxd, "influxd", store_port)
    create = urllib.parse.urlencode({"q": "CREATE DATABASE city"}).encode()
    _wait_for(lambda: _get(f"{store}/query", data=create), site, "influxd")
    gateway = _start_gateway(
        site, health_port, {"CITYGATE_OUTPUT__0__TYPE": "influxdb1", "CITYGATE_OUTPUT__0__URL": store}
    )
    city = site.start(
        "city",
        sys.executable,
        *("-m", "gateway", "city", "-c", str(site.folder / "city.toml")),
        env={
            "CITYGATE_SERVER__PORT": str(city_port),
            "CITYGATE_STORE__TYPE": "influxdb1",
            "CITYGATE_STORE__URL": store,
            "CITYGATE_STORE__PATH": str(site.folder / "city.db"),
        },
    )
    site.wait_for_port(city, "city", city_port)
    view = f"http://127.0.0.1:{city_port}"
    assert _wait_for(lambda: _get(f"{view}/api/health"), site, "city")["status"] == "ok"

    _publish(site, int(time.time() * 1000))
    sensors = _wait_for(
        lambda: _get(f"{view}/api/v1/sensors", site.secret("city/read-token"))["sensors"], site, "gateway", "city"
    )
    assert [sensor["id"] for sensor in sensors] == ["air:longgang:air-01"]
    assert {reading["quantity"]: reading["value"] for reading in sensors[0]["readings"]} == {"pm25": 12.5, "pm10": 30.0}
    assert sensors[0]["gateway"] == "gw-1"

    with pytest.raises(urllib.error.HTTPError) as refused:
        _get(f"{view}/api/v1/sensors")
    assert refused.value.code == 401
    assert site.stop(gateway) == 0, site.log("gateway")
    assert site.stop(city) == 0, site.log("city")
    secrets = [path.read_text("utf-8").strip() for path in (site.folder / "credentials").glob("*/*-*")]
    for name in ("gateway", "city", "mosquitto"):
        assert not any(secret in site.log(name) for secret in secrets), f"{name} logs a secret"


def test_the_shipped_gateway_config_writes_to_the_api_of_influxdb_2(
    running: "Site", program: Callable[[str, str], str], free_port: Callable[[], int]
) -> None:
    site = running
    store_port, health_port = free_port(), free_port()
    victoria = site.start(
        "victoria-metrics",
        program("victoria-metrics", "victoria-metrics"),
        f"-storageDataPath={site.folder / 'victoria'}",
        f"-httpListenAddr=127.0.0.1:{store_port}",
    )
    site.wait_for_port(victoria, "victoria-metrics", store_port)
    gateway = _start_gateway(site, health_port, {"CITYGATE_OUTPUT__0__URL": f"http://127.0.0.1:{store_port}"})
    observed = int(time.time() * 1000)
    _publish(site, observed)
    query = urllib.parse.urlencode({"match[]": "air_pm25"})
    series = _wait_for(lambda: _get(f"http://127.0.0.1:{store_port}/api/v1/export?{query}"), site, "gateway")
    assert series["values"] == [12.5]
    assert series["timestamps"] == [observed]
    assert series["metric"]["sensor"] == "air-01"
    assert site.stop(gateway) == 0, site.log("gateway")
