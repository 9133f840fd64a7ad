"""Real servers on free ports of loopback, each with its data in a folder of its own."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.wait import listening

Program = Callable[[str, str], str]
FreePort = Callable[[], int]


@dataclass
class Server:
    """A server process that can be stopped and started again on the same port with the same data.

    Attributes:
        command: What starts it.
        port: Where it listens.
        folder: Its data, configuration and log.
        ready: Path that answers 2xx when it is ready; without one, accepting connections is enough.
    """

    command: list[str]
    port: int
    folder: Path
    ready: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, cwd=self.folder
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, f"{self.command[0]} ended: {self.log()}"
            assert time.monotonic() < deadline, f"{self.command[0]} is not ready: {self.log()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in order, as systemd does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Ends it as a power failure does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        if self.ready is None:
            return listening(self.port)
        try:
            with urllib.request.urlopen(self.url + self.ready, timeout=2) as answer:  # noqa: S310 - loopback
                return bool(answer.status < 300)
        except (urllib.error.URLError, OSError):
            return False


class Mosquitto(Protocol):
    """Starts a mosquitto with further lines of configuration."""

    def __call__(self, *lines: str, anonymous: bool = True) -> Server: ...


@pytest.fixture
def mosquitto(tmp_path: Path, program: Program, free_port: FreePort) -> Iterator[Mosquitto]:
    """Factory of mosquitto brokers with persistence and without limits of messages in flight or queued."""
    path = program("mosquitto", "mosquitto")
    started: list[Server] = []

    def start(*lines: str, anonymous: bool = True) -> Server:
        port = free_port()
        folder = tmp_path / f"mosquitto-{port}"
        folder.mkdir()
        config = [
            "persistence true",
            f"persistence_location {folder}/",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            *(["user root"] if os.geteuid() == 0 else []),
            f"listener {port} 127.0.0.1",
            f"allow_anonymous {str(anonymous).lower()}",
        ]
        overridden = {line.split()[0] for line in lines} - {"listener"}
        config = [*(line for line in config if line.split()[0] not in overridden), *lines]
        (folder / "mosquitto.conf").write_text("\n".join(config) + "\n", "utf-8")
        server = Server([path, "-c", str(folder / "mosquitto.conf")], port, folder)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def influxdb(tmp_path: Path, program: Program, free_port: FreePort) -> Iterator[Server]:
    """InfluxDB 1.x, empty and without authentication: `/write` and `/query`."""
    path = program("influxd", "influxdb")
    port, folder = free_port(), tmp_path / "influxdb"
    folder.mkdir()
    (folder / "influxdb.conf").write_text(
        f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
index-version = "tsi1"
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[monitor]
store-enabled = false
""",
        "utf-8",
    )
    server = Server([path, "run", "-config", str(folder / "influxdb.conf")], port, folder, ready="/ping")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def victoria_metrics(tmp_path: Path, program: Program, free_port: FreePort) -> Iterator[Server]:
    """VictoriaMetrics: `/api/v2/write` and `/write`."""
    path = program("victoria-metrics", "victoria-metrics")
    port, folder = free_port(), tmp_path / "victoria-metrics"
    folder.mkdir()
    command = [path, f"-storageDataPath={folder}/data", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y"]
    server = Server(command, port, folder, ready="/health")
    server.start()
    yield server
    server.stop()


@dataclass
class IotcoreBroker:
    """The embedded broker and the ports of its two listeners."""

    server: Server
    v5_port: int
    v4_port: int


@pytest.fixture
def iotcore_broker(tmp_path: Path, free_port: FreePort) -> Iterator[IotcoreBroker]:
    """The broker of the `iotcore` wheel, with a listener for MQTT v5 and one for 3.1.1."""
    v5_port, v4_port, folder = free_port(), free_port(), tmp_path / "iotcore"
    folder.mkdir()
    listeners = "".join(
        f"""
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 200
dynamic_filters = true
"""
        for version, port in (("v4", v4_port), ("v5", v5_port))
    )
    config = folder / "rumqttd.toml"
    config.write_text(
        f"""id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
{listeners}""",
        "utf-8",
    )
    server = Server([sys.executable, "-m", "iotcore", "--config", str(config)], v5_port, folder)
    server.start()
    deadline = time.monotonic() + 10
    while not listening(v4_port):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)
    yield IotcoreBroker(server, v5_port, v4_port)
    server.kill()
