"""`citygate recording`: what a recording holds, made of other forms, and written in others."""

import builtins
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from sensors.lineprotocol import parse
from sensors.stream import Message, Reader, Writer

SECOND = 10**9
START = 1_767_225_600 * SECOND
GATEWAY = '[gateway]\nid = "gw"\n[[source]]\n[[output]]\nurl = "http://127.0.0.1:1"\n'
SENT = [
    ("city/a/air/a1", b'{"ts":1767225600000,"pm25":12.5,"no2":30}'),
    ("city/a/air/a2", b"not JSON"),
    ("raw,= topic", b"\xff\x00"),
    ("quoted", b'say "\\" '),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "town.cgrec"
    with Writer(path, meta={"by": "test"}) as writer:
        for number, (topic, payload) in enumerate(SENT):
            at = number * SECOND
            writer.add(topic, payload, qos=number % 3, retain=number == 1, monotonic=at, wall=START + at + number)
            writer.flush()
    return path


def test_info_tells_counts_span_topics_and_sizes(recording: Path) -> None:
    found = json.loads(run("recording", "info", recording, "--json").stdout)
    assert (found["messages"], found["blocks"], found["retained"], found["damage"]) == (4, 4, 1, [])
    assert (found["first"], found["seconds"]) == ("2026-01-01T00:00:00.000+00:00", 3.000000003)
    assert found["qos"] == {"0": 2, "1": 1, "2": 1}
    assert found["topics"]["city/a/air/a1"] == {"messages": 1, "raw_bytes": len("".join(map(str, SENT[0]))) - 3}
    shown = run("recording", "info", recording).stdout
    assert "4 messages" in shown
    assert "city/a/air/a2" in shown


def test_info_names_damage_and_exits_with_1(recording: Path) -> None:
    data = bytearray(recording.read_bytes())
    place = data.index(b"\xc6CGBLK\r\n", 200)
    data[place + 80] ^= 1
    recording.write_bytes(data)
    result = run("recording", "info", recording)
    assert result.exit_code == 1
    assert f"byte {place:,}: a block with a wrong checksum, of 1 messages" in " ".join(result.stdout.split())


def test_a_missing_end_is_said_and_is_no_failure(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:400])
    result = run("recording", "info", recording)
    assert result.exit_code == 0
    assert "the end of a block is missing" in " ".join(result.stdout.split())


def test_a_csv_becomes_the_messages_that_replay_publishes(tmp_path: Path) -> None:
    source, path = tmp_path / "river.csv", tmp_path / "river.cgrec"
    source.write_text("zeit,pegel\n2026-01-01T00:00:02Z,1.50\n2026-01-01T00:00:00Z,1.25\n2026-01-01T00:00:03Z,x\n")
    options = ("--time-column", "zeit", "--column", "pegel=level", "--kind", "water", "--site", "bridge", "--skip-bad")
    result = run("recording", "import", source, path, *options)
    assert result.exit_code == 0, result.output
    assert "2 messages, 1 unreadable" in result.stdout
    with Reader(path) as reader:
        messages = list(reader)
    assert messages == [
        Message("city/bridge/water/river", b'{"ts":1767225600000,"level":1.25}', 1, monotonic=0, wall=START),
        Message(
            "city/bridge/water/river",
            b'{"ts":1767225602000,"level":1.50}',
            1,
            monotonic=2 * SECOND,
            wall=START + 2 * SECOND,
        ),
    ]


def test_lines_become_messages_as_they_are_in_the_order_of_time(tmp_path: Path) -> None:
    source, path = tmp_path / "points.lp", tmp_path / "points.cgrec"
    source.write_text(
        "# a comment\nweather,site=a/b temp=2.50 1767225602\n\nweather,site=c temp=1i 1767225600\nbroken\nweather x=1\n"
    )
    result = run("recording", "import", source, path, "--lines", "s")
    assert result.exit_code == 2
    assert "points.lp: line 5: " in result.output
    assert not path.exists()
    result = run(
        "recording", "import", source, path, "--lines", "s", "--skip-bad", "--topic", "lp/{site}/{measurement}"
    )
    assert "2 messages, 2 unreadable" in result.stdout
    with Reader(path) as reader:
        assert [message[:2] for message in reader] == [
            ("lp/c/weather", b"weather,site=c temp=1i 1767225600"),
            ("lp/a_b/weather", b"weather,site=a/b temp=2.50 1767225602"),
        ]


def exported(recording: Path, *arguments: object) -> Result:
    result = run("recording", "export", recording, *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_messages_are_exported_as_csv_line_protocol_and_parquet(recording: Path, tmp_path: Path) -> None:
    exported(recording, tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["time"] == "2026-01-01T00:00:00.000000000Z"
    assert rows[1]["time"] == "2026-01-01T00:00:01.000000001Z"
    assert [(row["topic"], row["encoding"]) for row in rows[1:3]] == [
        ("city/a/air/a2", "utf-8"),
        ("raw,= topic", "base64"),
    ]
    assert [rows[0]["payload"], rows[2]["payload"]] == [SENT[0][1].decode(), "/wA="]

    exported(recording, tmp_path / "m.lp")
    points, errors = parse((tmp_path / "m.lp").read_bytes())
    assert not errors
    assert [point.tags["topic"] for point in points] == [topic for topic, _ in SENT]
    assert [point.fields["payload"] for point in points][3] == SENT[3][1].decode()

    exported(recording, tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table["topic"].to_pylist() == [topic for topic, _ in SENT]
    assert table["time"].cast("int64").to_pylist() == [START + n * SECOND + n for n in range(4)]
    assert table["qos"].to_pylist() == [0, 1, 2, 0]


def test_readings_are_exported_by_a_gateways_sources(recording: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(GATEWAY)
    result = exported(recording, "-", "--format", "csv", "-c", config)
    assert result.stdout.splitlines() == [
        "time,site,kind,sensor,quantity,value",
        "2026-01-01T00:00:00.000000000Z,a,air,a1,pm25,12.5",
        "2026-01-01T00:00:00.000000000Z,a,air,a1,no2,30.0",
    ]
    assert "3 messages unreadable" in result.stderr
    result = exported(recording, "-", "--format", "line", "-c", config)
    assert result.stdout.splitlines()[0] == f"air,sensor=a1,site=a pm25=12.5 {START}"
    exported(recording, tmp_path / "r.parquet", "-c", config)
    assert pq.read_table(tmp_path / "r.parquet").to_pydict()["value"] == [12.5, 30.0]
    back = run("recording", "import", _csv(recording, config, tmp_path), tmp_path / "back.cgrec")
    assert "1 messages, 0 unreadable" in back.stdout


def _csv(recording: Path, config: Path, folder: Path) -> Path:
    exported(recording, folder / "r.csv", "-c", config)
    return folder / "r.csv"


def test_a_window_and_topics_are_exported_alone(recording: Path) -> None:
    result = exported(
        recording, "-", "-f", "csv", "--from", "1s", "--to", "2026-01-01T00:00:02+00:00", "--topic", "city/#"
    )
    assert [line.split(",")[2] for line in result.stdout.splitlines()[1:]] == ["city/a/air/a2"]


def test_nothing_is_overwritten_by_an_export(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    result = run("recording", "export", recording, tmp_path / "there.csv")
    assert result.exit_code == 2
    assert "exists; choose another name" in result.output
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_parquet_without_its_package_says_what_to_install(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as Python's own
        if name.startswith("pyarrow"):
            msg = "No module named 'pyarrow'"
            raise ModuleNotFoundError(msg, name="pyarrow")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    result = run("recording", "export", recording, tmp_path / "x.parquet")
    assert result.exit_code == 2
    assert "needs the package 'pyarrow': install it with  pip install 'citygate[parquet]'" in result.output
    assert not (tmp_path / "x.parquet").exists()
