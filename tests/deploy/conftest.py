"""A site in a folder: the files that a device gets, with its paths and ports moved into the test's own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@dataclass
class Site:
    """A site's folder, and the programs that run in it.

    Attributes:
        folder: Stands for /etc/citygate and everything else outside the repository.
        broker_port: Where the broker listens.
    """

    folder: Path
    broker_port: int
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def secret(self, name: str) -> str:
        """A secret, by its path below the credentials."""
        return (self.folder / "credentials" / name).read_text("utf-8").strip()

    def provision(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs ``deploy/provision.py`` on this site."""
        script = str(ROOT / "deploy/provision.py")
        command = [sys.executable, script, "--root", str(self.folder / "credentials"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def start(self, name: str, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a program; its output goes to ``NAME.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | (env or {}), cwd=ROOT
            )
        self._running.append(process)
        return process

    def log(self, name: str) -> str:
        """What a program has said."""
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    def start_broker(self, mosquitto: str) -> subprocess.Popen[bytes]:
        """Starts mosquitto on the shipped files, and waits until it listens."""
        process = self.start("mosquitto", mosquitto, "-c", str(self.folder / "mosquitto/mosquitto.conf"))
        self.wait_for_port(process, "mosquitto", self.broker_port)
        return process

    def wait_for_port(self, process: subprocess.Popen[bytes], name: str, port: int) -> None:
        """Returns when the program accepts connections; fails with its log when it ends before."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"{name} does not listen on {port}: {self.log(name)}")

    @staticmethod
    def stop(process: subprocess.Popen[bytes]) -> int:
        """Asks the program to end, as systemd and docker do; returns its exit status."""
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=20)

    def stop_all(self) -> None:
        """Ends what still runs, the last started first."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def site(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Site]:
    """A site with its secrets made and the broker's and gateway's files in place."""
    made = Site(tmp_path, free_port())
    result = made.provision("secrets")
    assert result.returncode == 0, result.stderr
    broker = tmp_path / "mosquitto"
    shutil.copytree(ROOT / "deploy/mosquitto", broker)
    data = tmp_path / "broker-data"
    data.mkdir()
    config = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text("utf-8")
    for old, new in (
        ("/etc/citygate/credentials/", f"{tmp_path}/credentials/"),
        ("/etc/mosquitto/", f"{broker}/"),
        ("/var/lib/mosquitto/", f"{data}/"),
        ("listener 1883\n", f"listener {made.broker_port} 127.0.0.1\n"),
    ):
        assert old in config
        config = config.replace(old, new)
    (broker / "mosquitto.conf").write_text(config, "utf-8")
    if os.geteuid() == 0:  # mosquitto gives up root's rights, and with them the test's folder
        (broker / "conf.d/user.conf").write_text("user root\n", "utf-8")
    shutil.copy(ROOT / "configs/gateway.toml", tmp_path / "gateway.toml")
    shutil.copy(ROOT / "configs/compose/city.toml", tmp_path / "city.toml")
    shutil.copytree(ROOT / "configs", tmp_path / "map")
    yield made
    made.stop_all()
