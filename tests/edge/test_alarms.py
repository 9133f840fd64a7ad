"""The gateway's own rules: what they raise, when it ends, and that a restart loses none."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import ConfigError, GatewayConfig, GatewayRuleConfig, load
from gateway.edge.alarms import Alarm, Alarms
from tests.edge.inspecting import MINUTE, NOW, Inspected

TITLE = {"zh": "试", "en": 'A "test"', "ko": "시험"}
DUST = {"name": "high", "title": TITLE, "severity": "orange", "kind": "air", "quantity": "pm10", "above": 280}


class Watched(Inspected):
    """A gateway's filter with rules; stations that report each minute."""

    def __init__(self, *rules: Mapping[str, object], path: Path | None = None) -> None:
        super().__init__()
        self.alarms = Alarms(self.channels, [GatewayRuleConfig.model_validate(rule) for rule in rules], path)

    def say(
        self, minute: float, sensor: str = "a1", kind: str = "air", site: str = "mill", **values: float
    ) -> list[Alarm]:
        time = NOW + round(minute * MINUTE)
        readings = self.decode([(f"city/{site}/{kind}/{sensor}", {"ts": time, **values})], time)
        self.inspector.inspect(readings)
        self.decoder.remember(readings.keys)
        return self.alarms.look(readings)

    def course(self, *values: float) -> list[tuple[int, str]]:
        """Minute and severity of what is raised by a PM10 each minute."""
        return [
            (minute, alarm.severity) for minute, value in enumerate(values) for alarm in self.say(minute, pm10=value)
        ]


def test_a_limit_begins_at_once_and_ends_when_the_value_is_back_at_clear() -> None:
    by = Watched({**DUST, "clear": 260})
    assert by.course(200, 290, 270, 290, 270, 260, 250) == [(1, "orange"), (5, "none")]


def test_a_limit_that_must_hold_begins_only_then_and_is_not_over_before_it_has_been_for_so_long() -> None:
    by = Watched({**DUST, "hold": "2m", "release": "2m"})
    assert by.course(290, 200, 290, 290, 290, 200, 290, 200, 200, 200) == [(4, "orange"), (9, "none")]


def test_a_rate_is_told_from_the_lowest_value_of_its_time() -> None:
    by = Watched(
        {
            "name": "rise",
            "title": TITLE,
            "severity": "red",
            "kind": "air",
            "quantity": "pm10",
            "change": 50,
            "within": "3m",
        }
    )
    assert by.course(100, 120, 140, 160, 170, 170, 170) == [(3, "red"), (5, "none")]


def test_an_expression_is_about_quantities_of_one_message() -> None:
    by = Watched(
        {
            "name": "fog",
            "title": TITLE,
            "severity": "blue",
            "kind": "weather",
            "when": "humidity >= 98 and wind_speed < 2",
        }
    )
    assert by.say(0, "m1", "weather", humidity=98.5, wind_speed=3.0) == []
    (begun,) = by.say(1, "m1", "weather", humidity=98.6, wind_speed=1.9)
    (ended,) = by.say(2, "m1", "weather", humidity=97.0, wind_speed=1.8)
    assert (begun.quantity, begun.severity, ended.severity, ended.since) == ("fog", "blue", "none", begun.since)


def test_several_sensors_of_a_site_together_are_one_alarm() -> None:
    by = Watched({**DUST, "sensors": 2})
    assert by.say(0, "a1", pm10=300) == []
    assert by.say(0.1, "a2", site="weir", pm10=300) == []
    (begun,) = by.say(0.2, "a3", pm10=290)
    assert by.say(1, "a1", pm10=310) == []
    (ended,) = by.say(1.1, "a3", pm10=200)
    assert (begun.key, ended.key, ended.severity) == (begun.key, begun.key, "none")


def test_a_value_that_is_not_good_raises_nothing() -> None:
    by = Watched({**DUST, "above": 100})
    assert by.say(0, pm10=99999.0) == []


def test_an_alarm_is_an_event_of_the_line_protocol() -> None:
    by = Watched(DUST)
    (begun,) = by.say(0, pm10=290)
    assert begun.line("gw") == (
        f"event,gateway=gw,kind=air,sensor=a1,severity=orange,site=mill"
        f' id="air.mill.a1.high.{NOW}",quantity="pm10",value=290.0,limit=280.0,'
        f'message="A \\"test\\": pm10 290 at mill" {NOW}'
    )


def test_an_alarm_that_ran_is_told_again_after_a_restart_and_ends_under_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "spool.alarms"
    (begun,) = Watched(DUST, path=path).say(0, pm10=290)
    after = Watched(DUST, path=path)
    assert after.say(3, pm10=300) == [begun]
    assert after.say(4, pm10=300) == []
    (ended,) = after.say(5, pm10=200)
    assert (ended.since, ended.severity) == (begun.since, "none")


def test_a_batch_that_is_taken_back_raises_its_alarm_again() -> None:
    by = Watched(DUST)
    (begun,) = by.say(0, pm10=290)
    by.alarms.undo()
    (again,) = by.say(1, pm10=290)
    assert (begun.severity, again.severity) == ("orange", "orange")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('kind = "water"\nabsent = "2h"', "by itself who is silent"),
        ('index = "aqi"\nabove = 150', "the city view knows"),
        ('kind = "water"\nquantity = "level"\nabove = 2\nsensors = 3\nof = "town"', "several gateways"),
    ],
)
def test_a_rule_that_needs_more_than_the_gateway_is_refused(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "gateway.toml"
    rule = f'[[rule]]\nname = "r"\ntitle = {{ zh = "a", en = "b", ko = "c" }}\nseverity = "red"\n{line}\n'
    path.write_text(
        f'[gateway]\nid = "g"\n[[output]]\nname = "o"\ntype = "influxdb1"\nurl = "http://127.0.0.1:1"\n'
        f'database = "d"\n{rule}'
    )
    with pytest.raises(ConfigError, match=says):
        load(path, GatewayConfig, {})
