"""Limits of a kind's file, replaced for some sites and sensors."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.check import check
from gateway.config import ConfigError, GatewayConfig, load
from gateway.edge.reasons import Reason
from gateway.edge.source import SourceError
from sensors import kinds
from tests.edge.inspecting import MINUTE, NOW, Inspected, easily_alarmed

GATEWAY = """
[gateway]
id = "gw"
[[output]]
url = "http://127.0.0.1:8086"
"""


def made(*overrides: Mapping[str, object]) -> Inspected:
    return Inspected(None, *overrides)


def flag(by: Inspected, quantity: str, value: float, topic: str, time: int = NOW) -> int:
    (answer,) = by.answers((topic, {"ts": time, quantity: value}))
    return answer[quantity][0]


def test_a_limit_holds_for_the_sensors_that_fit_and_no_others() -> None:
    by = made({"site": "har*", "kind": "water", "quantity": "level", "suspect": [0, 2], "fail": [0, 3]})
    assert flag(by, "level", 2.2, "city/harbour/water/w1") == 3
    assert flag(by, "level", 3.2, "city/harbour/water/w2") == 4
    assert flag(by, "level", 2.2, "city/east/water/w1") == 1
    assert flag(by, "temperature", 37, "city/harbour/water/w3") == 1, "another quantity"


def test_of_several_that_fit_the_last_one_wins_key_by_key() -> None:
    by = made(
        {"quantity": "temperature", "kind": "air", "suspect": [0, 30], "step": 1},
        {"quantity": "temperature", "sensor": "a1", "suspect": [0, 35]},
    )
    assert flag(by, "temperature", 33, "city/east/air/a1") == 1
    assert flag(by, "temperature", 33, "city/east/air/a2") == 3
    assert flag(by, "temperature", 31, "city/east/air/a1", NOW + MINUTE) == 3, "the step is that of the first"


def test_a_test_can_be_removed() -> None:
    by = made({"site": "lab", "quantity": "temperature", "remove": ["suspect", "step"]})
    assert flag(by, "temperature", 50, "city/lab/air/a1") == 1
    assert flag(by, "temperature", 50, "city/east/air/a1") == 3


def test_the_detector_can_be_switched_off_for_some_sensors() -> None:
    by = made(
        {"sensor": "deaf", "quantity": "pm25", "sensitivity": 0},
        {"sensor": "keen", "quantity": "pm25", "sensitivity": 10},
    )
    marked = set()
    with easily_alarmed():
        for minute in range(80):
            value = 20 + minute % 3 + 60 * (minute == 70)
            for name in ("deaf", "keen"):
                (answer,) = by.answers((f"city/east/air/{name}", {"ts": NOW + minute * MINUTE, "pm25": value}))
                if answer["pm25"][1] & Reason.UNUSUAL:
                    marked.add(name)
    assert marked == {"keen"}


def test_alarms_of_a_section_of_the_river() -> None:
    by = made({"sensor": "w1", "quantity": "level", "events": [{"severity": "red", "above": 1}]})
    _, (event,) = by.send([(f"city/r/water/{name}", {"ts": NOW, "level": 2}) for name in ("w1", "w2")])
    assert by.channels.sensors[by.channels.owner[event.channel]].name == "w1"
    assert (event.severity, event.limit) == ("red", 1)


def test_a_sensor_that_reports_hourly_has_no_gaps_and_its_spikes_are_seen() -> None:
    by = made({"sensor": "slow", "interval": "1h"})
    for name, flags in (("slow", [1, 1, 3, 1]), ("quick", [1, 1, 1, 1])):
        values = [20, 21, 40, 20.5]
        topic = f"city/east/weather/{name}"
        assert [
            flag(by, "temperature", value, topic, NOW + hour * 60 * MINUTE) for hour, value in enumerate(values)
        ] == flags, "across a gap no spike is sought"


def test_limits_are_kept_once_however_many_sensors_have_them() -> None:
    by = made({"site": "s1", "quantity": "level", "step": 1}, {"site": "s*", "quantity": "level", "suspect": [0, 9]})
    before = len(by.channels.rules.all)
    for number in range(300):
        by.answers((f"city/s{number % 3}/water/w{number}", {"ts": NOW, "level": 1, "ph": 7}))
    assert len(by.channels.rules.all) == before + 2


def test_limits_are_right_for_sensors_that_come_in_one_batch() -> None:
    overrides: list[dict[str, object]] = [
        {"sensor": f"a{number}", "quantity": "pm25", "suspect": [0, number]} for number in range(1, 50)
    ]
    by = made(*overrides)
    answers = by.answers(*((f"city/east/air/a{number}", {"ts": NOW, "pm25": 25.5}) for number in range(1, 50)))
    assert [answer["pm25"][0] for answer in answers] == [3] * 25 + [1] * 24


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            'quantity = "temprature"\nstep = 1',
            "override[0].quantity: unknown quantity 'temprature'; did you mean 'temperature'?",
        ),
        ('kind = "sea"\nquantity = "level"\nstep = 1', "override[0].kind: no kind is like 'sea'"),
        ('kind = "noise"\nquantity = "level"\nstep = 1', "unknown quantity 'level'; did you mean 'laeq'?"),
        ('quantity = "level"\nstepp = 1', "override[0].stepp: unknown key; did you mean 'step'?"),
        (
            'quantity = "level"\nflat = { suspct = "1h" }',
            "override[0].flat.suspct: unknown key; did you mean 'suspect'?",
        ),
        ('quantity = "level"', "changes nothing: add one of fail, suspect"),
        ("step = 1", "'step' is a limit of a quantity: add 'quantity'"),
        ('quantity = "wind_direction"\nspike = { suspect = 3 }', "wind_direction is an angle"),
    ],
)
def test_an_override_that_cannot_be_is_refused_with_the_nearest_name(
    tmp_path: Path, override: str, problem: str
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{GATEWAY}[[override]]\n{override}\n", "utf-8")
    with pytest.raises((ConfigError, SourceError)) as refused:
        check(path, as_json=False)
    assert problem in str(refused.value)


def test_check_shows_the_limits_in_effect(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    override = '[[override]]\nsite = "harbour"\nkind = "water"\nquantity = "level"\nsuspect = [0, 6]\n'
    override += 'flat = { suspect = "2h" }'
    path.write_text(f'{GATEWAY}{override}\n[[override]]\nsite = "*"\nkind = "soil"\ninterval = "1h"\n', "utf-8")
    assert load(path, GatewayConfig).override[0].suspect == (0, 6)
    shown = json.loads(check(path, as_json=True))["effective"]
    level = next(each for each in shown if each["quantity"] == "level")
    assert (level["site"], level["kind"], level["suspect"], level["fail"]) == ("harbour", "water", [0, 6], [0, 20])
    assert level["flat"]["suspect"] == "7200s"
    assert level["step"] == 0.3
    assert {each["quantity"]: each["gap"] for each in shown if each["kind"] == "soil"}["moisture"] == "36000s"


def test_the_examples_of_the_document_can_be_used_as_they_are(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs/filter.md").read_text("utf-8")
    examples = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
    of_config = [example for example in examples if "[[override]]" in example or "[[maintenance]]" in example]
    overrides = "".join(of_config)
    tests = [example for example in examples if example not in of_config]
    assert len(of_config) >= 2
    assert len(tests) >= 3
    title = 'title = { zh = "", en = "", ko = "" }\n'
    names = ("temperature", "pm25", "pm10", "flow", "speed", "occupancy")
    quantities = "".join(f'[quantities.{name}]\n{title}unit = ""\n' for name in names)
    folder = tmp_path / "kinds"
    folder.mkdir()
    folder.joinpath("mixed.toml").write_text(f'{title}interval = "1m"\n{quantities}{"".join(tests)}', "utf-8")
    path = tmp_path / "gateway.toml"
    path.write_text(GATEWAY.replace('id = "gw"', 'id = "gw"\nkinds_dir = "kinds"') + overrides, "utf-8")
    assert "mixed" in kinds.known(folder)
    assert json.loads(check(path, as_json=True))["effective"]
    again = tmp_path / "again.toml"
    again.write_text(check(path, as_json=False), "utf-8")
    assert check(again, as_json=True) == check(path, as_json=True), "what is printed can be loaded again"
