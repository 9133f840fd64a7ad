"""The demo: broker, simulated town, gateway and city view, as the processes that a user would start.

Everything runs on loopback, from the example configurations, with tokens made for this run.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway import demo_crew, embedded_broker
from gateway.edge.spool import FATES

_READY_WITHIN = 60.0
_STOP_WITHIN = 10.0


class DemoError(Exception):
    """The demo cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Ports:
    """Where the demo listens, on loopback."""

    city: int = 8080
    mqtt: int = 1883  # MQTT 3.1.1, for sensors
    mqtt5: int = 1884  # MQTT 5, for the gateway
    health: int = 8686

    def check(self) -> None:
        """Finds out whether all are free.

        Raises:
            DemoError: Naming the port in use and the option that chooses another.
        """
        options = {"city": "--port", "mqtt": "--mqtt-port", "mqtt5": "--mqtt5-port", "health": "--health-port"}
        ports = {name: getattr(self, name) for name in options}
        for name, port in ports.items():
            if list(ports.values()).count(port) > 1:
                msg = f"port {port} is given twice; choose another with {options[name]}"
                raise DemoError(msg)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    msg = f"port {port} ({name}) cannot be used: {error.strerror}. Choose another with {options[name]}"
                    raise DemoError(msg) from error


class Demo:
    """One run of the demo.

    Args:
        ports: Where to listen.
        folder: Where its data go.
        seed: Of the simulated town.
    """

    def __init__(self, ports: Ports, folder: Path, seed: int) -> None:
        self.ports = ports
        self.folder = folder
        self.seed = seed
        self.url = f"http://127.0.0.1:{ports.city}"
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._crew: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts all four and waits until the town is on the map.

        Raises:
            DemoError: If one of them ends, or the town does not appear in time.
        """
        (self.folder / "token").touch(0o600)
        (self.folder / "token").write_text(secrets.token_urlsafe(32), "ascii")
        configs = _configs()
        data, token = str(self.folder), str(self.folder / "token")
        broker = embedded_broker.arguments(self.folder, mqtt=self.ports.mqtt, mqtt5=self.ports.mqtt5)
        await self._spawn("broker", *broker)
        await self._listening(self.ports.mqtt5, "broker")
        city = {
            "CITYGATE_SERVER__HOST": "127.0.0.1",
            "CITYGATE_SERVER__PORT": str(self.ports.city),
            "CITYGATE_STORE__TYPE": "embedded",
            "CITYGATE_STORE__PATH": f"{data}/city.db",
            "CITYGATE_ACCESS__WRITE_TOKEN_FILE": token,
            "CITYGATE_MAP__SENSORS": f"{data}/sensors.geojson",
            "CITYGATE_ALERTS__EXERCISE": "true",
            # minutes instead of hours, for who watches
            "CITYGATE_ALERTS__QUIET": "30s",
            "CITYGATE_CASES__FAULT_AFTER": "20s",
            "CITYGATE_CASES__HEALTHY_FOR": "30s",
        }
        crew = await asyncio.to_thread(demo_crew.enlist, configs / "city.toml", city)
        await self._spawn("city", "-m", "gateway", "city", "-c", str(configs / "city.toml"), **city)
        await self._spawn(
            "town", "-m", "gateway", "simulate", "--broker", f"127.0.0.1:{self.ports.mqtt}", "--seed", str(self.seed),
            "--registry", f"{data}/sensors.geojson", "--truth", f"{data}/truth.jsonl",
        )  # fmt: skip
        await self._spawn(
            "gateway", "-m", "gateway", "run", "-c", str(configs / "demo.toml"),
            CITYGATE_GATEWAY__DATA_DIR=data,
            CITYGATE_GATEWAY__HEALTH_PORT=str(self.ports.health),
            CITYGATE_MQTT__PORT=str(self.ports.mqtt5),
            CITYGATE_OUTPUT__0__URL=self.url,
            CITYGATE_OUTPUT__0__TOKEN_FILE=token,
        )  # fmt: skip
        deadline = time.monotonic() + _READY_WITHIN
        while (await self.state())["sensors"] == 0:
            self.check()
            if time.monotonic() > deadline:
                msg = f"no sensor is on the map after {_READY_WITHIN:.0f} s; see the logs in {self.folder} (--keep)"
                raise DemoError(msg)
            await asyncio.sleep(0.25)
        self._crew = asyncio.create_task(demo_crew.work(self.url, crew))

    def check(self) -> None:
        """Finds out whether all four still run.

        Raises:
            DemoError: With the last lines of the one that ended.
        """
        for name, process in self._processes.items():
            if process.returncode is not None:
                tail = "\n".join(self._log(name).read_text("utf-8", "replace").splitlines()[-8:])
                msg = f"{name} ended with exit code {process.returncode}:\n{tail}"
                raise DemoError(msg)

    async def state(self) -> dict[str, Any]:
        """What the city view and the gateway say now; zeros while they do not answer."""
        state: dict[str, Any] = {"sensors": 0, "fresh": 0, "events": 0, "ledger": {}}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, json.JSONDecodeError, KeyError):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as client:
                async with client.get(f"{self.url}/api/v1/overview") as answer:
                    overview = await answer.json()
                state["sensors"], state["fresh"] = overview["counts"]["sensors"], overview["counts"]["fresh"]
                state["events"] = overview["events"]["open"]
                async with client.get(f"http://127.0.0.1:{self.ports.health}/health") as answer:
                    state["ledger"] = (await answer.json())["health"]
        return state

    def setup_link(self) -> str:
        """The link by which somebody becomes the administrator."""
        return (self.folder / "setup-link").read_text("utf-8").strip()

    async def stop(self) -> None:
        """Stops all, the sensors first, so that the gateway can deliver what it has."""
        if self._crew is not None:
            self._crew.cancel()
        for name in ("town", "gateway", "city", "broker"):
            if (process := self._processes.get(name)) is None or process.returncode is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _spawn(self, name: str, *arguments: str, **environment: str) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CITYGATE_")}
        with self._log(name).open("wb") as output:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env=clean | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    async def _listening(self, port: int, name: str) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            self.check()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if time.monotonic() > deadline:
                    msg = f"{name} does not listen on port {port}"
                    raise DemoError(msg) from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _configs() -> Path:
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def _table(demo: Demo, state: dict[str, Any], started: float) -> Table:
    ledger = state["ledger"]
    table = Table(title=f"citygate demo · {demo.url}", title_justify="left", show_header=False, box=None)
    table.add_row("Running", f"{time.monotonic() - started:.0f} s")
    table.add_row("Sensors", f"{state['fresh']} live of {state['sensors']}")
    table.add_row("Events now", str(state["events"]))
    for name in ("received", *FATES):
        table.add_row(f"  {name}", f"{ledger.get(name, 0):,}")
    table.add_row("", "[dim]Ctrl-C stops everything[/dim]")
    return table


def _line(state: dict[str, Any], started: float) -> str:
    ledger = state["ledger"]
    return (
        f"{time.monotonic() - started:4.0f} s  {state['fresh']}/{state['sensors']} sensors live, "
        f"{state['events']} events, received {ledger.get('received', 0)}, delivered {ledger.get('delivered', 0)}, "
        f"queued {ledger.get('queued', 0)}, quarantined {ledger.get('quarantined', 0)}, dead {ledger.get('dead', 0)}"
    )


async def run(ports: Ports, *, duration: float | None, seed: int, keep: bool, data: Path | None) -> None:
    """Runs the demo until its duration is over, Ctrl-C or SIGTERM.

    Args:
        ports: Where to listen.
        duration: Seconds, or None for no end.
        seed: Of the simulated town.
        keep: Whether the data folder stays.
        data: The data folder; a new temporary one when absent.

    Raises:
        DemoError: If a port is in use, the folder cannot be used, or one of the processes ends.
    """
    ports.check()
    folder = _folder(data)
    console = Console()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    demo = Demo(ports, folder, seed)
    watching = asyncio.create_task(_watch(demo, console, duration, stopping))
    ending = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([watching, ending], return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        ending.cancel()
        await asyncio.gather(watching, ending, return_exceptions=True)
        console.print("Stopping …")
        await demo.stop()
        if keep:
            console.print(f"Data and logs are in {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _folder(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="citygate-demo-"))
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{data}: cannot make the data folder: {error.strerror}; choose another with --data"
        raise DemoError(msg) from error
    if any(data.iterdir()):
        msg = f"{data} is not empty; choose a new folder with --data"
        raise DemoError(msg)
    return data.resolve()


async def _watch(demo: Demo, console: Console, duration: float | None, stopping: asyncio.Event) -> None:
    started = time.monotonic()
    console.print("Starting broker, city view, simulated town and gateway …")
    await demo.start()
    console.print(f"Open [bold]{demo.url}[/bold] in a browser.", soft_wrap=True)
    console.print(
        "Within five minutes smoke and a stuck sensor have their cases opened and closed (docs/demo.md). To take steps"
        f" yourself, become the administrator by {demo.setup_link()}",
        soft_wrap=True,
    )
    console.print(
        f"Sensors publish to 127.0.0.1:{demo.ports.mqtt} (MQTT 3.1.1) or :{demo.ports.mqtt5} (MQTT 5), "
        f"topic city/SITE/KIND/SENSOR; the gateway's health is at http://127.0.0.1:{demo.ports.health}/health",
        soft_wrap=True,
    )
    screen = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    with screen or contextlib.nullcontext() as live:
        said = -10.0
        while not stopping.is_set() and (duration is None or time.monotonic() - started < duration):
            demo.check()
            state = await demo.state()
            if live is not None:
                live.update(_table(demo, state, started), refresh=True)
            elif time.monotonic() - said >= 10:  # noqa: PLR2004 - a line every ten seconds
                said = time.monotonic()
                console.print(_line(state, started), soft_wrap=True)
            await asyncio.sleep(1)
    console.print(_line(await demo.state(), started), soft_wrap=True)
