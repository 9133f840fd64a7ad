"""The pytest plugin: fixtures, the marker ``recording`` and the option ``--update-recordings``.

It is loaded wherever citygate is installed, so it loads nothing but pytest until a test asks for one of its fixtures.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gateway.testing.agent import Gateway
    from gateway.testing.broker import Broker
    from gateway.testing.golden import Golden
    from gateway.testing.playing import Replay
    from gateway.testing.store import Store

_CONFIG = "citygate_config"
_WRITTEN = pytest.StashKey[list[Path]]()
_GATEWAY = pytest.StashKey["Gateway"]()
_MARKER = (
    "recording(file, speed='max', config=None, **columns): replay a recorded stream through a broker and a gateway; "
    "the fixture `replayed` has what came of it (citygate)"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option and the setting."""
    group = parser.getgroup("citygate")
    group.addoption(
        "--update-recordings", action="store_true", help="write the golden results of replayed recordings anew"
    )
    parser.addini(
        _CONFIG, "configuration of the gateway that tests run, from the folder of this file", default="gateway.toml"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_WRITTEN] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test with the marker gets its replay, whether it asks for the fixture or not."""
    names = getattr(item, "fixturenames", [])
    if item.get_closest_marker("recording") and "replayed" not in names:
        names.append("replayed")


@pytest.fixture
def gateway_config(request: pytest.FixtureRequest) -> Path:
    """The ``gateway.toml`` that the test runs; override it in a ``conftest.py`` to choose another way."""
    from gateway.testing.playing import found  # noqa: PLC0415

    marker = request.node.get_closest_marker("recording")
    name = str((marker and marker.kwargs.get("config")) or request.config.getini(_CONFIG))
    with _told():
        return found(name, _folders(request), "the gateway's configuration")


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> "Iterator[Broker]":
    """An MQTT broker on free ports, empty, that answers."""
    from gateway.testing.broker import Broker  # noqa: PLC0415

    with _told():
        started = Broker(_folder(request))
    yield started
    started.stop()


@pytest.fixture
def store() -> "Iterator[Store]":
    """A server that takes what the gateway writes, and gives it back as readings, events and verdicts."""
    from gateway.testing.store import Store  # noqa: PLC0415

    started = Store()
    yield started
    started.close()


@pytest.fixture
def gateway(
    request: pytest.FixtureRequest, broker: "Broker", store: "Store", gateway_config: Path
) -> "Iterator[Gateway]":
    """A gateway with the site's configuration that has subscribed at the broker."""
    from gateway.testing.agent import Gateway  # noqa: PLC0415

    with _told():
        recorded = request.node.get_closest_marker("recording") is not None
        started = Gateway(gateway_config, broker, store, _folder(request), recorded=recorded)
    request.node.stash[_GATEWAY] = started
    yield started
    started.stop()


@pytest.fixture
def replayed(request: pytest.FixtureRequest) -> "Replay":
    """What came of the recording that the marker names, once all of it is delivered."""
    from gateway.testing.playing import found, replay  # noqa: PLC0415

    with _told():
        file, speed, options = _recording(request)
        path = found(file, _folders(request), "the recording")
        started: Gateway = request.getfixturevalue("gateway")
        return replay(path, started, speed=speed, options=options)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> "Iterator[Golden]":
    """Compares a replay with the golden result kept in ``golden/`` beside the test."""
    from gateway.testing.golden import Golden  # noqa: PLC0415

    update = request.config.getoption("--update-recordings")
    comparing = Golden(request.path.parent / "golden", request.node.name, update=update)
    yield comparing
    request.config.stash[_WRITTEN] += comparing.written


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows, where a test failed, the last lines that its gateway said."""
    report = yield
    if report.when == "call" and report.failed and (running := item.stash.get(_GATEWAY, None)) is not None:
        report.sections.append(("the gateway's log", running.process.tail()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names the golden results that were written."""
    if written := config.stash.get(_WRITTEN, []):
        terminalreporter.section("golden results written: look at what changed before you commit")
        for path in written:
            terminalreporter.line(str(path))


def _recording(request: pytest.FixtureRequest) -> tuple[str, float | str, dict[str, object]]:
    marker = request.node.get_closest_marker("recording")
    if marker is None:
        pytest.fail("the fixture `replayed` needs @pytest.mark.recording('FILE')", pytrace=False)
    options = dict(marker.kwargs)
    names = [*marker.args, *([options.pop("file")] if "file" in options else [])]
    if len(names) != 1 or not isinstance(names[0], str | Path):
        pytest.fail("@pytest.mark.recording needs the recording's file: recording('FILE', speed='max')", pytrace=False)
    options.pop("config", None)
    return str(names[0]), options.pop("speed", "max"), options


def _folders(request: pytest.FixtureRequest) -> list[Path]:
    """Where files are looked for: beside the test, then where pytest's configuration is."""
    return [
        request.path.parent,
        *([request.config.inipath.parent] if request.config.inipath else []),
        request.config.rootpath,
    ]


def _folder(request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own, which pytest keeps for a while after a failure."""
    folder: Path = request.getfixturevalue("tmp_path")
    return folder


@contextmanager
def _told() -> Iterator[None]:
    """Shows an error of this package by its text alone: a person is to mend a file, not this code."""
    from gateway.testing.process import TestingError  # noqa: PLC0415

    try:
        yield
    except TestingError as error:
        pytest.fail(str(error), pytrace=False)
