"""Who takes readings from a broker to a database: the citygate agent, and what one would use in its place."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.bench import relay
from tests.bench.load import QUANTITIES, Plan, publishers
from tests.servers.conftest import Server

TREE = Path(os.environ.get("BENCH_TREE", Path(__file__).parents[2]))
"""The checkout whose agent is measured: another version of it, with BENCH_TREE."""
_PROBED = 2  # messages of each sensor that warm a contender up


def wait(condition: Callable[[], bool], what: str, seconds: float = 60, pause: float = 0.05) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(pause)


@dataclass
class Contender:
    """A process that forwards readings.

    Attributes:
        name: As it stands in the table.
        command: What starts it.
        folder: Its configuration, data and log.
        cwd: Where it runs.
        variables: Further environment.
    """

    name: str
    command: list[str]
    folder: Path
    cwd: Path
    variables: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended: {self.log()}"
        return self._process.pid

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")[-3000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CITYGATE_")}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.cwd, env={**environment, **self.variables}
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The process stands still, so that what is published meanwhile waits at the broker."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


class Agent(Contender):
    """The citygate agent with the settings that it has of its own.

    Args:
        folder: For its configuration and its spool.
        broker_port: The broker's, on loopback.
        output: Content of its ``[[output]]``.
        health_port: For its health endpoint.
    """

    def __init__(self, folder: Path, broker_port: int, output: str, health_port: int) -> None:
        path = folder / "gateway.toml"
        path.write_text(
            f'[gateway]\nid = "bench"\nhealth_port = {health_port}\n[mqtt]\nport = {broker_port}\n'
            f"[[output]]\n{output}\n",
            "utf-8",
        )
        super().__init__("citygate", [sys.executable, "-m", "gateway", "run", "-c", str(path)], folder, TREE)
        self._url = f"http://127.0.0.1:{health_port}/health"

    def state(self) -> dict[str, Any]:
        """What its health endpoint says; empty while it does not answer."""
        assert self.pid
        try:
            with urlopen(self._url, timeout=10) as answer:  # noqa: S310 - loopback
                state: dict[str, Any] = json.load(answer)
        except OSError:
            return {}
        return state

    def await_connected(self) -> None:
        """Waits until it takes messages."""
        wait(lambda: bool(self.state().get("broker", {}).get("connected")), "the agent's connection to the broker")

    def await_delivered(self, messages: int, seconds: float = 120) -> None:
        """Waits until the database has what so many messages became."""

        def delivered() -> bool:
            health = self.state().get("health", {})
            return bool(health) and health["received"] >= messages * len(QUANTITIES) and health["queued"] == 0

        wait(delivered, "delivery", seconds, pause=0.2)


def minimal(folder: Path, broker_port: int, url: str) -> Contender:
    """The script of ``minimal.py``."""
    script = Path(__file__).with_name("minimal.py")
    return Contender("minimal script", [sys.executable, str(script), str(broker_port), url], folder, folder)


def telegraf(folder: Path, broker_port: int, url: str) -> Contender | None:
    """Telegraf, its settings as its documentation has them; None when it is not on the PATH."""
    path = shutil.which("telegraf")
    if path is None:
        return None
    (folder / "telegraf.conf").write_text(
        f"""[agent]
flush_interval = "1s"
metric_batch_size = 5000
metric_buffer_limit = 1000000
omit_hostname = true
[[inputs.mqtt_consumer]]
servers = ["tcp://127.0.0.1:{broker_port}"]
topics = ["city/#"]
qos = 1
client_id = "telegraf"
persistent_session = true
max_undelivered_messages = 5000
topic_tag = ""
data_format = "json"
json_time_key = "ts"
json_time_format = "unix_ms"
[[inputs.mqtt_consumer.topic_parsing]]
topic = "city/+/+/+"
measurement = "_/_/measurement/_"
tags = "_/site/_/sensor"
[[outputs.influxdb_v2]]
urls = ["{url}"]
bucket = "city"
organization = "town"
token = "none"
""",
        "utf-8",
    )
    return Contender("telegraf", [path, "--config", str(folder / "telegraf.conf")], folder, folder)


_NODE_RED_FUNCTION = """
const [, site, kind, sensor] = msg.topic.split("/");
const {ts, ...fields} = msg.payload;
const values = Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(",");
return {payload: `${kind},site=${site},sensor=${sensor} ${values} ${ts}`};
"""


def node_red(folder: Path, broker_port: int, url: str, ui_port: int) -> Contender | None:
    """Node-RED with its core nodes alone: MQTT in, function, join, HTTP request; None when it is not on the PATH."""
    path = shutil.which("node-red")
    if path is None:
        return None
    flow: list[dict[str, Any]] = [
        {"id": "tab", "type": "tab", "label": "bench"},
        {
            "id": "mosquitto",
            "type": "mqtt-broker",
            "broker": "127.0.0.1",
            "port": str(broker_port),
            "clientid": "node-red",
            "cleansession": False,
            "protocolVersion": "4",
            "keepalive": "60",
        },
    ]
    way: list[dict[str, Any]] = [
        {"type": "mqtt in", "topic": "city/#", "qos": "1", "datatype": "json", "broker": "mosquitto"},
        {"type": "function", "func": _NODE_RED_FUNCTION, "outputs": 1},
        {
            "type": "join",
            "mode": "custom",
            "build": "string",
            "property": "payload",
            "propertyType": "msg",
            "joiner": "\\n",
            "joinerType": "str",
            "timeout": "1",
            "count": "5000",
        },
        {
            "type": "http request",
            "method": "POST",
            "ret": "txt",
            "url": f"{url}/api/v2/write?bucket=city&org=town&precision=ms",
        },
    ]
    for place, node in enumerate(way):
        wires = [f"step{place + 1}"] if place + 1 < len(way) else []
        flow.append({"id": f"step{place}", "z": "tab", "x": 100 * place, "y": 100, "wires": [wires], **node})
    (folder / "flows.json").write_text(json.dumps(flow), "utf-8")
    command = [path, "--userDir", str(folder), "--port", str(ui_port), "flows.json"]
    return Contender("node-red", command, folder, folder)


class Victoria:
    """VictoriaMetrics as the database, behind a door that notes when it has taken what; a context manager.

    Args:
        server: The running server.
        folder: For what the door notes.
        port: Of the door.
    """

    def __init__(self, server: Server, folder: Path, port: int) -> None:
        self._server = server
        self._record = folder / "taken"
        self._record.touch()
        command = [sys.executable, relay.__file__, str(port), str(server.port), str(self._record)]
        self._door = Server(command, port, folder)
        self.url = self._door.url

    def __enter__(self) -> Self:
        self._door.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.stop()

    def stored(self, site: str) -> int:
        """Readings of a site's sensors that can be read."""
        url = self._server.url
        urlopen(f"{url}/internal/force_flush", timeout=30).close()  # noqa: S310 - loopback
        form = {"match[]": f'{{__name__="air_humidity",site="{site}"}}'}
        with urlopen(f"{url}/api/v1/export?{urlencode(form)}", timeout=30) as answer:  # noqa: S310 - loopback
            return sum(len(set(json.loads(line)["timestamps"])) for line in answer)

    def await_stored(self, site: str, count: int, seconds: float = 120) -> float:
        """Waits until a site's readings are all there; returns when the database took the last, as ``time.time``."""
        deadline, look = time.monotonic() + seconds, 0.0
        while True:
            taken = self._record.stat().st_mtime
            if time.time() - taken > 0.3 and time.monotonic() > look:
                stored = self.stored(site)
                if stored >= count and self._record.stat().st_mtime == taken:
                    return taken
                assert time.monotonic() < deadline, f"{stored} of {count} readings stored within {seconds:.0f} s"
                look = time.monotonic() + 0.5
            time.sleep(0.02)


def warm_up(broker_port: int, database: Victoria, site: str, sensors: int) -> None:
    """Waits until the contender forwards, and lets it meet each sensor before it is measured."""
    start = time.time_ns() // 1_000_000 - 30 * 86_400_000
    probe = f"{site}-probe"

    def forwards() -> bool:
        nonlocal start
        start += 60_000
        with publishers(Plan(broker_port, probe, 1, 1, start=start, connections=1), 1) as crew:
            crew.run()
        time.sleep(0.3)
        return database.stored(probe) > 0

    wait(forwards, "the first reading stored")
    with publishers(Plan(broker_port, f"{site}-warm", sensors, _PROBED * sensors, start=start)) as crew:
        crew.run()
    database.await_stored(f"{site}-warm", _PROBED * sensors)
