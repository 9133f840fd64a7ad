"""The whole way: a real broker, the agent as a process, a real database."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers.conftest import Mosquitto, Server
from tests.servers.wait import listening

START = 1_790_000_000_000
WITHIN = 60.0


def wait_for(condition: Callable[[], bool], what: str, seconds: float = WITHIN) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)


@dataclass
class Gateway:
    """The agent, as a user starts it."""

    config: Path
    health_port: int
    broker_port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers and, where there is a broker, holds its subscriptions: what is published is kept."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "-c", str(self.config)], stdout=log, stderr=log
            )
        wait_for(lambda: self.health() is not None, "the health endpoint")
        if listening(self.broker_port):
            wait_for(self.connected, "the connection")

    def connected(self) -> bool:
        """Whether the broker holds its subscriptions; a busy machine may not answer in time."""
        state = self.health()
        return state is not None and bool(state["broker"]["connected"])

    @property
    def log_path(self) -> Path:
        return self.config.with_suffix(".log")

    def log(self) -> str:
        return self.log_path.read_text("utf-8")

    def health(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/health", timeout=5) as answer:
                state: dict[str, Any] = json.load(answer)
        except OSError:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            return None
        return state

    def ledger(self) -> dict[str, int]:
        state = self.health()
        assert state is not None
        fates = ("received", "delivered", "queued", "quarantined", "dead", "duplicate", "evicted")
        return {fate: state["health"][fate] for fate in fates}

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=12)
        self.process = None
        return code

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None


MakeGateway = Callable[[int, str], Gateway]


@pytest.fixture
def make_gateway(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[MakeGateway]:
    """Factory of agents; given the broker's port and the rest of the configuration."""
    made: list[Gateway] = []

    def make(broker_port: int, rest: str) -> Gateway:
        path, port = tmp_path / f"gateway{len(made)}.toml", free_port()
        path.write_text(
            f'[gateway]\nid = "gw"\nhealth_port = {port}\nhealth_interval = "1s"\n[mqtt]\nport = {broker_port}\n{rest}',
            "utf-8",
        )
        made.append(Gateway(path, port, broker_port))
        return made[-1]

    yield make
    for gateway in made:
        if gateway.process is not None:
            gateway.kill()


def publish(port: int, messages: list[tuple[str, bytes]]) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for sent in [client.publish(topic, payload, qos=1) for topic, payload in messages]:
        sent.wait_for_publish(WITHIN)
    client.disconnect()
    client.loop_stop()


def readings(count: int, start: int = START) -> list[tuple[str, bytes]]:
    return [
        (f"city/east/air/a{i % 10}", b'{"ts":%d,"pm25":%.1f}' % (start + i // 10 * 60_000, 10 + i % 17))
        for i in range(count)
    ]


def query(server: Server, text: str) -> list[list[Any]]:
    url = f"{server.url}/query?{urllib.parse.urlencode({'db': 'city', 'q': text, 'epoch': 'ms'})}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as answer:  # noqa: S310
        result = json.load(answer)["results"][0]
    return [row for series in result.get("series", []) for row in series["values"]]


def output(server: Server) -> str:
    query(server, "CREATE DATABASE city")
    return f'[[output]]\ntype = "influxdb1"\nurl = "{server.url}"\nflush_interval = "200ms"\n'


def stored(server: Server) -> int:
    rows = query(server, "SELECT count(pm25) FROM air")
    return int(rows[0][1]) if rows else 0


def test_every_message_is_stored_once_with_its_value(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    publish(broker.port, readings(3000))
    wait_for(lambda: stored(influxdb) == 3000, "all points stored")
    rows = query(influxdb, "SELECT pm25, pm25_qc FROM air WHERE sensor = 'a3' ORDER BY time")
    assert [(row[0], row[1]) for row in rows] == [(START + i * 60_000, 10 + (i * 10 + 3) % 17) for i in range(300)]
    assert {row[2] for row in rows} == {1}
    wait_for(lambda: gateway.ledger()["delivered"] == 3000, "the ledger to say so")
    wait_for(lambda: bool(query(influxdb, "SELECT last(delivered) FROM gateway")), "the gateway's health to be stored")


def test_a_killed_agent_goes_on_where_it_was(mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    publish(broker.port, readings(500))
    for part in range(1, 5):
        wait_for(lambda: gateway.ledger()["received"] > 0, "something received")
        gateway.kill()
        publish(broker.port, readings(500, START + part * 86_400_000))
        gateway.start()
    wait_for(lambda: stored(influxdb) == 2500, "all points stored")
    wait_for(lambda: gateway.ledger()["queued"] == 0, "everything delivered")
    ledger = gateway.ledger()
    assert ledger["received"] == sum(count for fate, count in ledger.items() if fate != "received")
    assert gateway.stop() == 0


def test_sigterm_commits_acknowledges_and_delivers_within_ten_seconds(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb).replace("200ms", "60s"))
    gateway.start()
    publish(broker.port, readings(100))
    wait_for(lambda: gateway.ledger()["received"] == 100, "all received")
    assert gateway.stop() == 0
    assert stored(influxdb) == 100
    gateway.start()
    assert gateway.ledger()["received"] == 100, "nothing was left unacknowledged, and the ledger lasts"


def test_without_the_database_everything_waits_in_the_spool(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    influxdb.stop()
    gateway.start()
    publish(broker.port, readings(300))
    wait_for(lambda: gateway.ledger()["queued"] == 300, "all queued")
    wait_for(lambda: str(influxdb.port) in gateway.log(), "a word about it")
    influxdb.start()
    wait_for(lambda: stored(influxdb) == 300, "all points stored")


def test_the_broker_may_come_later_and_go(mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway) -> None:
    broker = mosquitto()
    broker.stop()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    state = gateway.health()
    assert state is not None
    assert state["broker"]["connected"] is False
    wait_for(lambda: f"127.0.0.1:{broker.port}" in gateway.log(), "a log line that names the broker")
    broker.start()
    wait_for(gateway.connected, "the connection")
    publish(broker.port, readings(50))
    wait_for(lambda: stored(influxdb) == 50, "all points stored")


def test_what_cannot_be_read_stops_nothing(mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    good = readings(20)
    bad = [("city/east/air/a1", b"\xff{"), ("city/east/airr/a1", b'{"ts":1790000000000,"pm25":1}')]
    publish(broker.port, [*good[:10], *bad, *good[10:]])
    wait_for(lambda: stored(influxdb) == 20, "the good points stored")
    wait_for(lambda: gateway.ledger()["dead"] == 2, "two dead letters")
    assert "not valid JSON" in gateway.log()
    assert "unknown kind 'airr'; did you mean 'air'?" in gateway.log()


def test_a_wrong_token_is_said_aloud_and_costs_nothing(
    mosquitto: Mosquitto, tmp_path: Path, make_gateway: MakeGateway, free_port: Callable[[], int]
) -> None:
    broker, city_port = mosquitto(), free_port()
    (tmp_path / "right").write_text("right-token-of-the-city", "ascii")
    (tmp_path / "token").write_text("wrong-token-of-the-city", "ascii")
    (tmp_path / "city.toml").write_text(
        f'[server]\nport = {city_port}\n[access]\nwrite_token_file = "right"\n[store]\npath = "city.db"\n', "utf-8"
    )
    command = [sys.executable, "-m", "gateway", "city", "-c", str(tmp_path / "city.toml")]
    city = Server(command, city_port, tmp_path, ready="/api/health")
    city.start()
    try:
        rest = f'[[output]]\nurl = "{city.url}"\ntoken_file = "token"\nflush_interval = "200ms"\n'
        gateway = make_gateway(broker.port, rest)
        gateway.start()
        publish(broker.port, readings(20))
        wait_for(lambda: "401" in gateway.log() and "token" in gateway.log(), "a log line that says what to do")
        assert gateway.ledger()["queued"] == 20
        assert "wrong-token-of-the-city" not in gateway.log()
        gateway.stop()
        (tmp_path / "token").write_text("right-token-of-the-city", "ascii")
        gateway.start()
        wait_for(lambda: gateway.ledger()["delivered"] == 20, "delivery with the right token")
    finally:
        city.stop()


def test_a_bad_configuration_ends_with_exit_code_2_and_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[gateway]\nid = "gw"\n[[output]]\nulr = "http://127.0.0.1:1"\n', "utf-8")
    for command in ("run", "check", "status"):
        done = subprocess.run(
            [sys.executable, "-m", "gateway", command, "-c", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "output[0].ulr: unknown key; did you mean 'url'?" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_idle_agent_is_small_and_brings_no_web_stack(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    check = "import sys, gateway.edge.agent; sys.exit(bool({'fastapi', 'sqlalchemy', 'pint'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb).replace("influxdb1", "influxdb2"))
    gateway.start()
    assert gateway.process is not None
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text("ascii").split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") <= 90e6


def test_status_shows_the_ledger_of_a_running_gateway(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    command = [sys.executable, "-m", "gateway", "status", "-c", str(gateway.config)]
    absent = subprocess.run(command, capture_output=True, text=True, check=False)
    assert absent.returncode == 1
    assert "Is it running?" in absent.stderr
    gateway.start()
    publish(broker.port, readings(10))
    wait_for(lambda: gateway.ledger()["delivered"] == 10, "delivery")
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["ledger"]["city"]["delivered"] == 10
    assert "quarantined" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.health_port}/metrics", timeout=5) as answer:
        assert 'citygate_delivered_total{gateway="gw"} 10' in answer.read().decode()
