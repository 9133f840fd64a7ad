"""What is broken here: a broker, a gateway and a database, each a real program in a process group of its own."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.servers.wait import until

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "mosquitto" / "mosquitto.conf"
_OWN = ("allow_anonymous", "password_file", "acl_file", "listener", "persistence_location", "include_dir", "log_dest")
FATES = ("delivered", "queued", "quarantined", "dead", "duplicate", "evicted")


class Broken(Exception):  # noqa: N818 - a state of the site
    """A promise was not kept; the message says which."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Part:
    """A program that is started, ended in order, and killed, again and again.

    Attributes:
        name: Of its log.
        command: What starts it.
        folder: Where its log is.
        port: Where it listens.
    """

    name: str
    command: list[str]
    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, and does not wait for anything."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )

    def log(self) -> str:
        """All that it said."""
        return (self.folder / f"{self.name}.log").read_text("utf-8", errors="replace")

    def check(self) -> None:
        """Sees to it that it runs.

        Raises:
            Broken: If it ended although nobody killed it.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            msg = f"{self.name} ended by itself with exit code {code}: {self.log()[-2000:]}"
            raise Broken(msg)

    def kill(self) -> None:
        """Ends it, and all that it started, as a power failure does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def stop(self, within: float, *, kill: bool = False) -> bool:
        """Asks it to end.

        Args:
            within: Seconds that it has for this.
            kill: Whether to kill it when they are over.

        Returns:
            Whether it ended in time.

        Raises:
            Broken: If it did not, and was not to be killed; or if it ended with an error.
        """
        process = self._process
        assert process is not None
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await until(lambda: process.poll() is not None, within)
        code = process.poll()
        if code is None and not kill:
            msg = f"{self.name} did not stop within {within:.0f} s"
            raise Broken(msg)
        # asked before its handlers were there, a program ends by the signal itself
        if code not in (None, 0, -signal.SIGTERM):
            msg = f"{self.name} stopped with exit code {code}: {self.log()[-2000:]}"
            raise Broken(msg)
        self.kill()
        return code is not None


class Site:
    """A broker with the shipped limits, a database, and a gateway between them; a context manager.

    Args:
        folder: For configurations, data and logs.
        mosquitto: Path of the broker's program.
        influxd: Path of the database's program.
        output: Further lines of the gateway's output.
        settings: Further tables of the gateway's configuration.
        broker: Lines in place of those shipped.
    """

    def __init__(  # noqa: PLR0913 - three programs and their settings
        self, folder: Path, mosquitto: str, influxd: str, *, output: str = "", settings: str = "", broker: str = ""
    ) -> None:
        self.folder = folder
        self.broker = self._broker(mosquitto, broker)
        self.database = self._database(influxd)
        self.config = folder / "gateway.toml"
        self._output, self._settings = output, settings
        command = [sys.executable, "-m", "gateway", "run", "-c", str(self.config)]
        self.gateway = Part("gateway", command, folder, free_port())
        self.configure(self.broker.port)

    def confine(self, folder: Path, size: str) -> None:
        """Gives the gateway a small file system of its own, which is gone when it ends.

        Args:
            folder: Where it is mounted.
            size: As mount takes it.
        """
        mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        self.gateway.command = ["unshare", *user, "--mount", "sh", "-c", mount, str(folder), *self.gateway.command]

    def __enter__(self) -> Self:
        """Starts the database alone, with an empty database in it."""
        try:
            self.database.start()
            self._create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves nothing running."""
        for part in self.parts.values():
            part.kill()

    @property
    def parts(self) -> dict[str, Part]:
        """By name."""
        return {part.name: part for part in (self.gateway, self.database, self.broker)}

    def check(self) -> None:
        """Sees to it that everything runs that was started.

        Raises:
            Broken: If something ended although nobody killed it.
        """
        for part in self.parts.values():
            part.check()

    def configure(self, broker_port: int) -> None:
        """Writes the gateway's configuration.

        Args:
            broker_port: Where the gateway finds the broker.
        """
        self.config.write_text(
            f'[gateway]\nid = "chaos"\nhealth_port = {self.gateway.port}\nhealth_interval = "1s"\n'
            f"[mqtt]\nport = {broker_port}\n{self._settings}\n"
            f'[[output]]\ntype = "influxdb1"\nurl = "http://127.0.0.1:{self.database.port}"\n{self._output}\n',
            "utf-8",
        )

    async def health(self) -> dict[str, Any] | None:
        """What ``/health`` says; None while the gateway does not answer."""
        return await asyncio.to_thread(self._health)

    async def status(self) -> dict[str, Any]:
        """What ``citygate status --json`` says."""
        command = [sys.executable, "-m", "gateway", "status", "-c", str(self.config), "--json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        output, _ = await process.communicate()
        if process.returncode:
            msg = f"citygate status: exit code {process.returncode}"
            raise Broken(msg)
        state: dict[str, Any] = json.loads(output)
        return state

    async def query(self, text: str) -> list[list[Any]]:
        """Asks the database; the rows of all series, times in ms.

        Raises:
            OSError: If it does not answer.
        """
        return await asyncio.to_thread(self._query, text)

    async def ready(self) -> None:
        """Returns when the database answers."""
        while True:
            self.database.check()
            with contextlib.suppress(OSError, ValueError):
                await self.query("SHOW DATABASES")
                return
            await asyncio.sleep(0.1)

    def _create(self) -> None:
        while True:
            self.database.check()
            with contextlib.suppress(OSError, ValueError):
                self._query("CREATE DATABASE city")
                return

    def _query(self, text: str) -> list[list[Any]]:
        asked = urllib.parse.urlencode({"db": "city", "q": text, "epoch": "ms"})
        request = urllib.request.Request(f"http://127.0.0.1:{self.database.port}/query?{asked}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            result = json.load(answer)["results"][0]
        if "error" in result:
            msg = f"the database says: {result['error']}"
            raise ValueError(msg)
        return [row for series in result.get("series", []) for row in series["values"]]

    def _health(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.port}/health", timeout=10) as answer:
                state: dict[str, Any] = json.load(answer)
        except (OSError, ValueError):
            return None
        return state

    def _broker(self, program: str, lines: str) -> Part:
        folder, port = self.folder / "broker", free_port()
        folder.mkdir()
        replaced = ("#", *_OWN, *(line.split()[0] for line in lines.splitlines()))
        shipped = [line for line in SHIPPED.read_text("utf-8").splitlines() if not line.startswith(replaced)]
        own = [
            *lines.splitlines(),
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            f"persistence_location {folder}/",
            "log_dest stderr",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([*filter(None, shipped), *own, ""]), "utf-8")
        return Part("broker", [program, "-c", str(config)], self.folder, port)

    def _database(self, program: str) -> Part:
        folder, port = self.folder / "database", free_port()
        folder.mkdir()
        config = folder / "influxdb.conf"
        config.write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
index-version = "tsi1"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[monitor]
store-enabled = false
""",
            "utf-8",
        )
        return Part("database", [program, "run", "-config", str(config)], self.folder, port)


def imbalance(counts: dict[str, int]) -> str | None:
    """What is wrong with one line of the ledger; None if it adds up."""
    total = sum(counts[fate] for fate in FATES)
    return None if counts["received"] == total else f"received {counts['received']} but the fates are {total}: {counts}"
