import base64
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.__main__ import app
from tests.sensors.formats import documents

AIR = b'{"ts":1700000000,"pm25":12.5,"temperature":61,"no2":null,"noise":"loud"}'
CONFIG = """
[gateway]
id = "gw-7"
[[source]]
name = "vendor"
topic = "vendor/+/{sensor}"
site = "north"
kind = "air"
time = "t"
rename = { P25 = "pm25", T = "temperature" }
units = { temperature = "K" }
[[source]]
[[output]]
url = "http://127.0.0.1:8086"
"""


def decode(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["decode", *map(str, arguments)], input=stdin)


def shown(*arguments: str | Path, stdin: bytes) -> dict[str, Any]:
    result = decode(*arguments, "--json", "-", stdin=stdin)
    assert result.exit_code in {0, 1}, result.output
    lines: dict[str, Any] = json.loads(result.stdout)
    return lines


def value(becomes: dict[str, Any], quantity: str) -> dict[str, Any]:
    values: list[dict[str, Any]] = becomes["readings"][0]["values"]
    return next(value for value in values if value["quantity"] == quantity)


def test_no_name_reaches_the_terminal_as_a_command() -> None:
    payload = json.dumps({"pm25": 1, "a\x1b[2Jb": 3, "c": "\x1b[31m"}).encode()
    result = decode("--format", "json", "--topic", "city/a/air/x\x1b[31m", "-", stdin=payload)
    assert "\\x1b[2J" in result.output
    assert "\x1b" not in result.output


def test_what_is_read_though_it_is_loose_is_said() -> None:
    payload = documents.payload("hj212/several.txt")
    assert shown("--format", "hj212", stdin=payload)["loose"] == ["no QN", "spaces between the parts"]
    result = decode("--format", "hj212", "-", stdin=payload)
    assert "loose    read, though not as the standard says: no QN\n" in result.output


def test_a_payload_is_shown_from_its_bytes_to_what_is_stored() -> None:
    result = decode("--format", "json", "--kind", "air", "--unit", "temperature=degF", "-", stdin=AIR)
    steps = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert steps == ["bytes", "reading", "stored", "dead"]
    assert "2023-11-14T22:13:20.000+00:00" in result.stdout
    assert "16.11111111  °C" in result.stdout
    assert "noise: expected a number, not 'loud'" in result.stdout
    assert result.exit_code == 1


def test_every_value_is_shown_as_sent_and_as_stored() -> None:
    becomes = shown("-f", "json", "--kind", "air", "--unit", "temperature=degF", stdin=AIR)
    temperature = value(becomes, "temperature")
    assert (temperature["sent"], temperature["unit"], temperature["stored_unit"]) == (61.0, "degF", "°C")
    assert temperature["stored"] == pytest.approx(16.11111111)
    assert value(becomes, "no2")["quality"] == "missing"
    assert becomes["readings"][0]["problems"] == ["noise: expected a number, not 'loud'"]


def test_the_topic_tells_whose_payload_it_is() -> None:
    becomes = shown("-f", "json", "--topic", "city/north/weather/w1", stdin=b'{"ts":1700000000000,"temperature":7}')
    assert becomes["kind"] == "weather"
    assert becomes["stored"] == {
        "raw": ["weather,gateway=gateway,sensor=w1,site=north temperature=7.0,temperature_qc=1i 1700000000000"]
    }


def test_without_kind_and_topic_the_kind_is_the_one_that_fits_best() -> None:
    assert shown("-f", "json", stdin=b'{"ts":1,"pm25":1,"no2":2}')["kind"] == "air"
    assert shown("-f", "json", stdin=b'{"ts":1,"ph":7,"turbidity":2}')["kind"] == "water"


def test_what_fails_is_shown_in_quarantine() -> None:
    stored = shown("-f", "json", "--kind", "air", stdin=b'{"ts":1700000000,"temperature":900}')["stored"]
    assert "quantity=temperature" in stored["quarantine"][0]


def test_a_quantity_that_the_kind_has_not_is_pointed_out_with_the_nearest() -> None:
    becomes = shown("-f", "json", "--kind", "air", stdin=b'{"temp":7}')
    assert "did you mean 'temperature'?" in value(becomes, "temp")["note"]
    renamed = shown("-f", "json", "--kind", "air", "--rename", "temp=temperature", stdin=b'{"temp":7}')
    assert value(renamed, "temperature")["note"] == ""


def test_a_source_of_a_gateway_reads_as_it_is_declared(tmp_path: Path) -> None:
    config, payload = tmp_path / "gateway.toml", tmp_path / "payload"
    config.write_text(CONFIG)
    payload.write_bytes(b'{"t":1700000000,"P25":8,"T":283.15}')
    for how in (["--topic", "vendor/x/v1"], ["--source", "vendor", "--topic", "vendor/x/v1"]):
        result = decode("-c", config, *how, payload, "--json")
        assert json.loads(result.stdout)["stored"]["raw"] == [
            "air,gateway=gw-7,sensor=v1,site=north pm25=8.0,pm25_qc=1i,temperature=10.0,temperature_qc=1i 1700000000000"
        ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "vendro", "-"], "there is none; the configuration has vendor, city"),
        (["-"], "add --source or --topic"),
        (["--source", "vendor", "-"], "add --topic: the source 'vendor' reads topics like vendor/+/{sensor}"),
        (["--source", "vendor", "--topic", "a/b", "-"], "reads topics like vendor/+/{sensor}"),
        (["--topic", "city/a/air/b", "--kind", "air", "-"], "with -c the source declares them"),
    ],
)
def test_what_does_not_fit_a_configuration_is_wrong_usage(tmp_path: Path, arguments: list[str], says: str) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG)
    result = decode("-c", config, *arguments, stdin=AIR)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-"], "choose one: --format NAME, or -c FILE"),
        (["-f", "jsn", "-"], "unknown format 'jsn'; there are"),
        (["-f", "json"], "name a file with the payload"),
        (["-f", "json", "no/such"], "cannot read no/such"),
        (["-f", "json", "--hex", "-"], "this is no hex"),
        (["-f", "json", "--kind", "airr", "-"], "did you mean 'air'?"),
        (
            ["-f", "json", "--option", "zone=x", "-"],
            "option zone: there is none of that name; its options: each",
        ),
        (["-f", "json", "--option", "zone", "-"], "expected KEY=VALUE"),
        (["-f", "json", "--rename", "a", "-"], "expected NAME=NAME"),
        (["-f", "json", "--received", "2026-01-01T00:00:00", "-"], "a time with its offset from UTC"),
        (["-f", "json", "--topic", "a", "--topic", "b", "-"], "2 topics for 1 payloads"),
    ],
)
def test_wrong_usage_says_what_to_change(arguments: list[str], says: str) -> None:
    result = decode(*arguments, stdin=AIR)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_unreadable_payload_exits_1_and_says_why() -> None:
    becomes = shown("-f", "json", "--kind", "air", stdin=b"\xff\x00")
    assert becomes["hex"] == "ff00"
    assert "not valid JSON" in becomes["error"]
    assert becomes["dead_letters"] == [becomes["error"]]
    result = decode("-f", "json", "-", stdin=b"\xff\x00")
    assert result.exit_code == 1
    assert "0000  ff 00" in result.stdout


@pytest.mark.parametrize("how", ["--hex", "--base64"])
def test_bytes_may_be_pasted_as_hex_or_base64(how: str) -> None:
    text = AIR.hex(" ").encode() if how == "--hex" else base64.encodebytes(AIR)
    assert shown("-f", "json", how, stdin=text)["text"] == AIR.decode()


def test_several_payloads_are_read_in_order_one_line_of_json_each(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}").write_text(f'{{"ts":170000000{number},"pm25":{number}}}')
    result = decode("-f", "json", "--json", tmp_path / "1", tmp_path / "2")
    sent = [json.loads(line)["readings"][0]["values"][0]["sent"] for line in result.stdout.splitlines()]
    assert sent == [1.0, 2.0]
    assert result.exit_code == 0


def test_the_list_names_every_format_with_what_it_reads() -> None:
    assert "json  Reads JSON payloads" in decode("--list").stdout
    listed = json.loads(decode("--list", "--json").stdout)
    for form in listed:
        assert form["what"]
        assert all(option["description"] for option in form["options"]), form["name"]
