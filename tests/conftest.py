"""What all tests share: real programs, and what is said when one is missing.

A test that needs a program which is not there skips with the reason ``NAME is not installed: apt-get install PACKAGE``.
The reasons are gathered at the end of the run, and with ``CI=true`` each of them is a failure.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

MISSING = re.compile(r"(\S+) is not installed: apt-get install ([\w.+-]+)")


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Finds a program's path by its name and its Debian package; the test skips when it is not installed."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed: apt-get install {package}")
        return path

    return find


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives ports of loopback that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(folder),
            str(Path(__file__).parents[1]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("citygate-*.whl")
    return built


def _missing(report: pytest.TestReport | pytest.CollectReport) -> re.Match[str] | None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    return MISSING.search(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``CI=true`` nothing goes untested: a skip for want of a program becomes a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and (found := _missing(report)):
        report.outcome = "failed"
        report.longrepr = f"{found[0]} (CI=true: every server must be there)"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says by name what to install so that everything is tested."""
    counts: dict[str, int] = {}
    packages: set[str] = set()
    for report in terminalreporter.stats.get("skipped", []):
        if found := _missing(report):
            counts[found[1]] = counts.get(found[1], 0) + 1
            packages.add(found[2])
    if counts:
        tests = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        terminalreporter.section("not tested for want of a program", yellow=True)
        terminalreporter.line(f"missing (tests): {tests}")
        terminalreporter.line(f"to run them too: sudo apt-get install {' '.join(sorted(packages))}", bold=True)
