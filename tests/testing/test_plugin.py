"""The pytest plugin, as a site uses it: projects of their own, run by a pytest of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sensors.stream import MAGIC, Writer

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example"
CONFIG = '[gateway]\nid = "gw"\n[[output]]\nurl = "http://influx.example.org:8086"\n'
CSV = "time,site,kind,sensor,pm25\n" + "".join(
    f"{1_790_000_000 + 60 * i},east,air,a1,{10 + i % 3}\n" for i in range(20)
)


def run_pytest(folder: Path, *arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the tests of a project; the plugin is the one of this tree, whatever is installed."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(["-p", "gateway.testing.plugin"] * plugin)]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


class Project:
    """A project with a configuration, a recording and a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("pytest.ini", "[pytest]\n")
        self.write("gateway.toml", CONFIG)
        self.write("day.csv", CSV)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def says(self, test: str, *arguments: str, code: int = 1) -> str:
        """What pytest says of a test."""
        self.write(
            "test_it.py",
            f"import pytest\nfrom gateway.testing import assert_flags, assert_ledger, assert_stored\n{test}",
        )
        done = run_pytest(self.folder, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


REPLAYED = "@pytest.mark.recording('day.csv')\ndef test_it(replayed, golden):\n    "


def test_the_example_holds() -> None:
    done = run_pytest(EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_golden_result_is_asked_for_written_and_compared(project: Project) -> None:
    assert "no golden result yet. Run pytest --update-recordings" in project.says(REPLAYED + "golden(replayed)")
    said = project.says(REPLAYED + "golden(replayed)", "--update-recordings", code=0)
    path = project.folder / "golden" / "test_it.txt"
    assert str(path) in said
    text = path.read_text("utf-8")
    assert "east/air/a1 pm25  2026-09-21T14:13:20Z  10  good\n" in text
    assert "city  received 20  delivered 20\n" in text
    path.write_text(text.replace("14:14:20Z  11  good", "14:14:20Z  11.5  good"), "utf-8")
    said = project.says(REPLAYED + "golden(replayed)")
    assert "-east/air/a1 pm25  2026-09-21T14:14:20Z  11.5  good" in said
    assert "+east/air/a1 pm25  2026-09-21T14:14:20Z  11  good" in said
    assert "gateway gw started" in said, "the gateway's log"


def test_a_replay_is_there_even_if_nobody_asks_for_it(project: Project) -> None:
    test = "def test_it(store):\n    assert len(store.points(sensor='a1')) == 20\n    assert not store.quarantine()"
    project.says("@pytest.mark.recording('day.csv')\n" + test, code=0)


def test_columns_and_topics_are_declared_in_the_marker(project: Project) -> None:
    project.write("other.csv", "when;x\n".replace(";", ",") + "2026-03-01 00:00,7.5\n2026-03-01 00:01,NaN\n")
    project.write("own.toml", CONFIG + '[[source]]\ntopic = "own/{site}/{kind}/{sensor}"\n')
    project.says(
        "@pytest.mark.recording('other.csv', config='own.toml', time='when', columns={'x': 'pm25'}, kind='air',\n"
        "    site='east', timezone='Asia/Shanghai', topic='own/{site}/{kind}/{sensor}')\n"
        "def test_it(replayed):\n"
        "    assert_stored(replayed.points(), [('2026-02-28T16:00:00Z', 7.5, 'good')])",
        code=0,
    )


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("'dya.csv'", "the recording 'dya.csv' is not there; looked for "),
        ("", "needs the recording's file: recording('FILE', speed='max')"),
        ("'day.csv', speed=0", "speed: expected a number above 0 or 'max', not 0"),
        ("'day.csv', colour='red'", "recording day.csv: got an unexpected keyword argument 'colour'"),
        ("'day.csv', kind='airr'", "no kind 'airr' (did you mean 'air'?)"),
        ("'cut.cgrec', kind='air'", "recording cut.cgrec: 'kind' says how to read a CSV"),
        ("'cut.cgrec'", "cut.cgrec: ends in its header"),
        ("'day.csv', config='none.toml'", "the gateway's configuration 'none.toml' is not there; looked for "),
        ("'day.csv', config='bad.toml'", "output[0].ulr: unknown key; did you mean 'url'?"),
        ("'day.csv', config='kind.toml'", "unknown kind 'airr'; did you mean 'air'?"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(project: Project, marker: str, says: str) -> None:
    (project.folder / "cut.cgrec").write_bytes(MAGIC)
    project.write("bad.toml", CONFIG.replace("url", "ulr"))
    project.write("kind.toml", CONFIG + '[[source]]\ntopic = "a/{site}/{sensor}"\nkind = "airr"\n')
    said = project.says(f"@pytest.mark.recording({marker})\ndef test_it(replayed): pass")
    assert says in said
    assert "Traceback" not in said
    assert "gateway/testing/" not in said, "its own code is no help"


def test_a_recording_of_messages_that_was_cut_is_replayed_as_far_as_it_goes(project: Project) -> None:
    whole = project.folder / "whole.cgrec"
    with Writer(whole) as writer:
        for number in range(4100):
            payload = b'{"ts":%d,"pm25":%d}' % (1_790_000_000 + number, number % 7)
            writer.add("city/east/air/a1", payload, qos=1, monotonic=number, wall=1_790_000_000 * 10**9)
    (project.folder / "cut.cgrec").write_bytes(whole.read_bytes()[:-200])
    test = "@pytest.mark.recording('cut.cgrec')\ndef test_it(replayed): assert_ledger(replayed.ledger, received=4000)"
    said = project.says(test, code=0)
    assert "UserWarning" in said
    assert "bytes passed over" in said


def test_without_the_marker_the_fixture_says_what_it_needs(project: Project) -> None:
    said = project.says("def test_it(replayed): pass")
    assert "the fixture `replayed` needs @pytest.mark.recording('FILE')" in said


def test_a_gateway_that_dies_is_told_with_its_last_words(project: Project) -> None:
    test = (
        "import os, signal\ndef test_it(broker, gateway):\n    os.kill(gateway.process.pid, signal.SIGKILL)\n"
        "    broker.publish('city/east/air/a1', {'ts': 1790000000, 'pm25': 1})\n    gateway.settle()"
    )
    said = project.says(test)
    assert "the gateway ended with exit code -9" in said
    assert "gateway gw started" in said


def test_it_costs_nothing_where_it_is_not_used(project: Project) -> None:
    heavy = "numpy pydantic aiohttp msgspec tomli_w typer rich iotcore mqtt5 influxdb_client gateway.config"
    project.write(
        "conftest.py",
        "import sys\ndef pytest_sessionfinish():\n"
        f"    assert not set({heavy.split()!r}) & set(sys.modules)\n    print('nothing is loaded')\n",
    )
    assert "nothing is loaded" in project.says("def test_it(): pass", "--capture=no", code=0)
