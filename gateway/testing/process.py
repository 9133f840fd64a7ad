"""Programs that a test starts, each with a log and an end."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gateway

READY_WITHIN = 60.0
_STOP_WITHIN = 12.0
_TAIL = 40


class TestingError(Exception):
    """A test cannot go on; the message says what happened and what to do."""

    __test__ = False  # for pytest, which takes the name for a test's


class Process:
    """A Python program in a process of its own.

    Args:
        name: For messages.
        arguments: What Python is given.
        folder: Where it runs, and where its log is.

    Attributes:
        pid: Its number.
    """

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for pytest, which ends it in order
            )
        self.pid = self._process.pid

    def log(self) -> str:
        """All that it said."""
        return self._log.read_text("utf-8", "replace")

    def tail(self) -> str:
        """The last lines that it said."""
        return "\n".join(map(_readable, self.log().splitlines()[-_TAIL:]))

    def check(self) -> None:
        """Finds out whether it still runs.

        Raises:
            TestingError: It ended; with its last words.
        """
        if (code := self._process.poll()) is not None:
            msg = f"the {self.name} ended with exit code {code}:\n{self.tail()}"
            raise TestingError(msg)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = READY_WITHIN) -> None:
        """Returns when a condition holds.

        Raises:
            TestingError: It ended, or the condition does not hold in time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                msg = f"the {self.name} {what} within {seconds:.0f} s:\n{self.tail()}"
                raise TestingError(msg)
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it in order, and by force if it will not."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _readable(line: str) -> str:
    """A line of a log, which is JSON where no terminal is, as people read it."""
    try:
        said = json.loads(line)
        return f"{said['time'][11:23]} {said['level']:7} {said['message']}"
    except (ValueError, KeyError, TypeError):
        return line


def _environment() -> dict[str, str]:
    """This process's, without overrides of settings; a source tree that is not installed is found all the same."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CITYGATE_")}
    root = Path(gateway.__file__).parents[1]
    if "site-packages" not in root.parts:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environment.get("PYTHONPATH"))))
    return environment


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
