"""``citygate report``, as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from tests.report.recordings import day, reading, write

CONFIG = """
[gateway]
id = "gw-harbour"
[mqtt]
username = "gateway"
password_file = "credentials/there-is-no-such-file"
[[override]]
kind = "air"
quantity = "pm25"
fail = [0, 25]
[[output]]
url = "https://influx.example.org"
token_file = "credentials/there-is-no-such-file"
"""


def report(*words: str | Path, code: int = 0) -> str:
    """What the command prints; of a failure, what it complains of."""
    done = CliRunner().invoke(app, ["report", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def test_the_page_and_a_summary_are_made(tmp_path: Path) -> None:
    page = tmp_path / "day.html"
    said = report(write(tmp_path / "day.cgrec", day()), "-o", page, "--title", "Harbour & co")
    assert said.startswith(
        "2,762 messages of 2 sensors: 2,760 readings, 0 suspect, 10 failed, 0 events, 2 dead letters\n"
    )
    assert "<h1>Harbour &amp; co</h1>" in page.read_text("utf-8")


def test_a_gateways_own_configuration_is_used_and_its_secrets_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIG, "utf-8")
    recording = write(tmp_path / "r.cgrec", [reading(60 * n, pm25=24 + n % 3) for n in range(30)])
    out = tmp_path / "r.html"
    said = json.loads(report(recording, "-c", tmp_path / "gateway.toml", "-o", out, "--json"))
    assert said["gateway"] == "gw-harbour"
    assert said["flags"]["fail"] == 10
    assert said["reasons"][0]["reason"] == "gross_range"


def test_the_page_is_named_after_the_recording_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "river.csv").write_text("t,level\n2026-03-01 00:00,1.5\n2026-03-01 00:10,1.6\n", "utf-8")
    report("river.csv", "--time-column", "t", "--timezone", "Asia/Shanghai", "--site", "north")
    text = (tmp_path / "river.html").read_text("utf-8")
    assert "2026-03-01 00:00 to 2026-03-01 00:10, times in Asia/Shanghai" in text.replace("<time>", "").replace(
        "</time>", ""
    )
    assert "north/water/river" in text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["none.cgrec"], 2, "none.cgrec: No such file or directory"),
        (["cut.cgrec"], 2, "ends in its header"),
        (["day.cgrec", "--kind", "air"], 2, "'kind' says how to read a CSV"),
        (["day.cgrec", "--timezone", "Atlantis"], 2, "no zone 'Atlantis'"),
        (["day.cgrec", "-c", "bad.toml"], 2, "output[0].ulr: unknown key; did you mean 'url'?"),
        (["day.cgrec", "-o", "no/such/folder.html"], 1, "no/such/folder.html"),
        (["bad.csv"], 2, "no column of the time"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = write(tmp_path / "day.cgrec", [reading(0, pm25=1)])
    (tmp_path / "cut.cgrec").write_bytes(recording.read_bytes()[:10])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n", "utf-8")
    (tmp_path / "bad.toml").write_text(CONFIG.replace("url", "ulr"), "utf-8")
    assert says in report(*words, code=code)
