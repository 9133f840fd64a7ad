"""Formats of other packages: the document's example is built and used, and broken ones are told apart."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from sensors import formats
from sensors.formats import Declared, Decoded, Format, FormatError, PayloadError, Sample

_ROOT = Path(__file__).parents[3]
_TEXT = (_ROOT / "docs/formats/your-own.md").read_text("utf-8")
_GOOD = """
from sensors.formats import Decoded, Format, Sample
class Its(Format):
    \"\"\"Reads its own.\"\"\"
    def decode(self, topic, payload, received):
        return Decoded([Sample(1.0, {"pm25": float(payload)})])
"""
Package = Callable[..., None]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The document's package, built by pip and installed into a folder of its own; and what runs with it."""
    source, site = tmp_path_factory.mktemp("rainlog"), tmp_path_factory.mktemp("site")
    for name, block in re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```", _TEXT, re.MULTILINE | re.DOTALL):
        (source / name).write_text(block, "utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return source, {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{_ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Installs a package of one module, as far as Python can tell."""

    def install(
        code: str, name: str = "its", module: str = "its_module", version: str = "1.2", entry: str = "its"
    ) -> None:
        site = tmp_path / module
        about = site / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "ascii")
        (about / "entry_points.txt").write_text(f"[citygate.formats]\n{entry} = {module}:Its\n", "ascii")
        (site / f"{module}.py").write_text(code, "utf-8")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def _its() -> Format:
    return formats.find("its")(Declared())


def test_the_documents_package_is_built_installed_and_reads_its_payload(example: tuple[Path, dict[str, str]]) -> None:
    source, environment = example
    command = [sys.executable, "-m", "gateway", "decode", "--format", "rainlog", "--kind", "weather", "gauge.txt"]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    blocks = re.findall(r"^```text\n(.*?)^```", _TEXT, re.MULTILINE | re.DOTALL)
    assert blocks[0] == (source / "gauge.txt").read_text("utf-8")
    assert done.stdout.startswith(blocks[1]), done.stderr
    assert done.returncode == 1  # one value cannot be read
    done = subprocess.run(
        [*command, "--json", "--option", "doubt=low"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["readings"][0]["sensor"] == "RL7"
    assert "wind: expected a number, not '7.9?'" in json.loads(done.stdout)["readings"][1]["problems"]


def test_a_gateways_source_names_the_documents_format(example: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    _, environment = example
    declared = re.findall(r"^```toml\n(\[\[source\]\].*?)^```", _TEXT, re.MULTILINE | re.DOTALL)[0]
    config = tmp_path / "gateway.toml"
    config.write_text(f'[gateway]\nid = "gw"\n{declared}[[output]]\nurl = "http://127.0.0.1:8086"\n', "utf-8")
    command = [sys.executable, "-m", "gateway", "check", "-c", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'format = "rainlog"' in done.stdout
    config.write_text(config.read_text("utf-8").replace("doubt", "doupt"), "utf-8")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "format 'rainlog': option doupt: " in done.stderr
    without = environment | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown format 'rainlog'; there are " in done.stderr


def test_the_documents_package_is_listed_and_passes_its_own_tests(example: tuple[Path, dict[str, str]]) -> None:
    source, environment = example
    command = [sys.executable, "-m", "gateway", "decode", "--list", "--json"]
    listed = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    (rainlog,) = [form for form in listed if form["name"] == "rainlog"]
    assert rainlog["what"] == "Reads the lines of Rainlog gauges."
    assert [option["name"] for option in rainlog["options"]] == ["doubt"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_rainlog.py"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout


def test_the_format_of_another_package_is_found_and_listed(package: Package) -> None:
    package(_GOOD)
    assert "its" in formats.names()
    assert _its().decode("t", b"3", 0) == Decoded([Sample(1.0, {"pm25": 3.0})])
    assert (formats.find("its").__doc__, formats.find("its").__name__) == ("Reads its own.", "Its")


def test_the_names_of_built_in_formats_cannot_be_taken(package: Package) -> None:
    package(_GOOD, entry="json")
    assert formats.find("json").__module__ == "sensors.formats.json"
    assert formats.names().count("json") == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import crcmod_of_nobody", "of its 1.2 cannot be imported: ModuleNotFoundError: No module named 'crcmod"),
        ("def", "of its 1.2 cannot be imported: SyntaxError: "),
        ("raise SystemExit('no licence')", "of its 1.2 cannot be imported: SystemExit: no licence"),
        ("Other = 1", "of its 1.2 cannot be imported: AttributeError: .*'Its'"),
        ("Its = 1", "of its 1.2: its_module:Its is no subclass of sensors.formats.Format"),
        ("class Its: pass", "is no subclass of sensors.formats.Format"),
        ("from sensors.formats import Format\nclass Its(Format): pass", "its_module:Its does not define decode"),
        (_GOOD + "    options = dict", "has options that are no subclass of sensors.formats.Options"),
    ],
)
def test_a_broken_package_is_refused_by_its_name_and_costs_no_other_format(
    package: Package, code: str, message: str
) -> None:
    package(code)
    with pytest.raises(FormatError, match=f"^format 'its' .*{message}"):
        formats.find("its")
    assert formats.find("json")
    shown = CliRunner().invoke(app, ["decode", "--list"])
    assert shown.exit_code == 0
    assert "format 'its'" in shown.stdout
    assert "hj212" in shown.stdout
    refused = CliRunner().invoke(app, ["decode", "--format", "its", "-"], input=b"1")
    assert refused.exit_code == 2
    assert "format 'its'" in refused.stderr


def test_two_packages_with_one_name_are_both_named(package: Package) -> None:
    package(_GOOD)
    package(_GOOD, name="rain-tools", module="other_module", version="2.1")
    with pytest.raises(
        FormatError,
        match=r"^format 'its' is in (its 1\.2|rain-tools 2\.1) and in (its 1\.2|rain-tools 2\.1): uninstall one",
    ):
        formats.find("its")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ('{}["wind"]', "format 'its' failed: KeyError: 'wind'"),
        ("None", "format 'its' failed: TypeError: decode gave NoneType instead of Decoded"),
        ("Decoded([{}])", "format 'its' failed: TypeError: decode gave dict instead of Sample"),
        ("Decoded(None)", "format 'its' failed: TypeError: "),
        ('Decoded([Sample(1.0, {"a": "b"})])', "format 'its' failed: ValueError: could not convert string to float"),
        ('Decoded([Sample("now", {"a": 1})])', "format 'its' failed: ValueError: could not convert string to float"),
        ("1 / 0", "format 'its' failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_format_that_fails_costs_the_payload_only(package: Package, result: str, message: str) -> None:
    package(_GOOD.replace('Decoded([Sample(1.0, {"pm25": float(payload)})])', result))
    with pytest.raises(PayloadError, match=f"^{re.escape(message)}"):
        _its().decode("t", b"3", 0)


def test_a_format_that_fails_at_its_making_is_refused(package: Package) -> None:
    package(_GOOD + "    def __init__(self, declared):\n        self.table = {}[3]\n")
    with pytest.raises(FormatError, match=r"^format 'its' failed: KeyError: 3"):
        _its()


def test_every_value_of_a_format_is_a_finite_number_or_missing(package: Package) -> None:
    package(_GOOD.replace('{"pm25": float(payload)}', '{"a": 1, "b": float("inf"), "c": True, "d": float("nan")}'))
    (sample,) = _its().decode("t", b"3", 0).samples
    assert repr(sample.values) == "{'a': 1.0, 'c': 1.0, 'd': nan}"
    assert sample.problems == ("b: inf is no number",)
