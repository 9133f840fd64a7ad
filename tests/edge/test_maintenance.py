"""Sensors that are worked on: what they say is stored, and nobody judges it, learns from it or raises an alarm."""

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from gateway.check import check
from gateway.config import ConfigError, GatewayConfig, MaintenanceConfig, load
from gateway.edge.encode import encode
from gateway.edge.filter import Findings
from gateway.edge.maintenance import Maintenance
from gateway.edge.readings import Flags, Readings
from tests.edge.test_way import A1, MINUTE, NOW, Message, Way, raw

HOUR = 60 * MINUTE
GATEWAY = '[gateway]\nid = "gw"\n[[output]]\nurl = "http://127.0.0.1:8086"\n'


def iso(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat()


def declared(since: int | None = NOW, until: int = NOW + HOUR, **sensors: str) -> MaintenanceConfig:
    return MaintenanceConfig.model_validate({"since": since and iso(since), "until": iso(until), **sensors})


def text(**sensors: str) -> str:
    patterns = "".join(f'{key} = "{pattern}"\n' for key, pattern in sensors.items())
    return f"[[maintenance]]\n{patterns}since = {iso(NOW)}\nuntil = {iso(NOW + HOUR)}\n"


class Town(Way):
    """The way of a reading with maintenance around what judges it."""

    def __init__(self, *works: MaintenanceConfig, file: Path = Path("none.toml")) -> None:
        super().__init__()
        self.maintenance = Maintenance(self.channels, works, file)

    def readings(self, *messages: Message) -> Readings:
        return self.decoder.decode(raw(messages, NOW + 2 * HOUR))

    def hidden(self, *messages: Message) -> list[bool]:
        mask = self.maintenance.mask(readings := self.readings(*messages))
        return [False] * len(readings.channel) if mask is None else mask.tolist()

    def judge(self, readings: Readings) -> Findings:
        with self.maintenance.unjudged(readings):
            return self.filter.judge(readings)

    def judged(self, *messages: Message) -> tuple[list[int], list[str]]:
        """Flags, and lines as they are stored."""
        readings = self.readings(*messages)
        entry = encode(readings, self.judge(readings), self.channels, "gw")
        return readings.flag.tolist(), (entry.lines + b"\n" + entry.quarantine).decode().split("\n")


@pytest.mark.parametrize(
    ("sensors", "which"),
    [
        ({"sensor": "a1"}, [True, False, False, True]),
        ({"sensor": "a*"}, [True, True, False, True]),
        ({"site": "harb*"}, [False, True, False, False]),
        ({"kind": "water"}, [False, False, True, False]),
        ({"site": "east", "kind": "air", "sensor": "?1"}, [True, False, False, True]),
        ({"sensor": "*"}, [True, True, True, True]),
        ({"sensor": "b*"}, [False, False, False, False]),
    ],
)
def test_it_concerns_the_sensors_that_the_patterns_name(sensors: dict[str, str], which: list[bool]) -> None:
    topics = (A1, "city/harbour/air/a2", "city/east/water/w1", A1)
    messages = [(topic, {"ts": NOW + place, "temperature": 5}) for place, topic in enumerate(topics)]
    assert Town(declared(NOW, NOW + HOUR, **sensors)).hidden(*messages) == which


def test_the_time_of_observation_counts_however_late_a_reading_comes() -> None:
    town = Town(declared(sensor="a1"))
    times = (NOW - 1, NOW, NOW + HOUR - 1, NOW + HOUR)
    assert town.hidden(*((A1, {"ts": time, "pm25": 5}) for time in times)) == [False, True, True, False]


def test_without_a_beginning_all_before_the_end_is_concerned() -> None:
    town = Town(declared(None, sensor="a1"))
    assert town.hidden((A1, {"ts": NOW - 1000 * HOUR, "pm25": 5}), (A1, {"ts": NOW + HOUR, "pm25": 5})) == [True, False]


def test_of_several_declarations_each_counts() -> None:
    town = Town(declared(sensor="a1"), declared(NOW + HOUR, NOW + 2 * HOUR, site="east"))
    times = (NOW, NOW + HOUR, NOW + 2 * HOUR)
    assert town.hidden(*((A1, {"ts": time, "pm25": 5}) for time in times)) == [True, True, False]


def test_a_sensor_that_is_seen_later_is_concerned_too() -> None:
    town = Town(declared(sensor="a*"))
    assert town.hidden((A1, {"ts": NOW, "pm25": 5})) == [True]
    assert town.hidden(("city/east/air/a7", {"ts": NOW, "pm25": 5}), (A1, {"ts": NOW, "no2": 5})) == [True, True]


def test_where_nobody_works_nothing_is_looked_at() -> None:
    town = Town(declared(NOW + 9 * HOUR, NOW + 10 * HOUR, sensor="a1"), declared(sensor="b*"))
    readings = town.readings((A1, {"ts": NOW, "pm25": 5}))
    value = readings.value
    assert town.maintenance.mask(readings) is None
    with town.maintenance.unjudged(readings):
        assert readings.value is value


def test_a_value_beyond_an_alarm_limit_is_no_event() -> None:
    town = Town(declared(sensor="a1"))
    readings = town.readings((A1, {"ts": NOW, "pm25": 300}), ("city/east/air/a2", {"ts": NOW, "pm25": 300}))
    (event,) = town.judge(readings).events
    assert town.channels.sensors[town.channels.owner[event.channel]].name == "a2"


def test_values_are_stored_with_the_flag_not_evaluated_and_none_is_kept_apart() -> None:
    flags, lines = Town(declared(sensor="a1")).judged((A1, {"ts": NOW, "pm25": 99_999, "no2": 5, "o3": None}))
    assert flags == [2, 2, 9]
    assert lines[0].startswith("air,gateway=gw,sensor=a1,site=east pm25=99999.0,pm25_qc=2i,")
    assert "no2=5.0,no2_qc=2i" in lines[0]
    assert not any("quarantine" in line for line in lines)


def test_the_reason_is_told_beside_those_that_a_reading_had_before() -> None:
    town = Town(declared(NOW, NOW + 5 * HOUR, sensor="a1"))
    readings = town.readings((A1, {"pm25": 5}))  # without a time
    town.judge(readings)
    assert readings.reason.tolist() == [262144 | 1]


def test_nobody_who_judges_sees_the_values() -> None:
    town = Town(declared(sensor="a1"))
    readings = town.readings((A1, {"ts": NOW, "pm25": 5, "no2": 6}), ("city/east/air/a2", {"ts": NOW, "pm25": 7}))
    with town.maintenance.unjudged(readings):
        assert np.isnan(readings.value).tolist() == [True, True, False]
    assert readings.value.tolist() == [5, 6, 7]


def test_nothing_is_learnt_meanwhile() -> None:
    worked_on, absent = Town(declared(sensor="a1")), Town()
    before = [(A1, {"ts": NOW - MINUTE * (30 - minute), "temperature": 10 + minute % 3}) for minute in range(30)]
    work = [(A1, {"ts": NOW + MINUTE * minute, "temperature": 40 - minute}) for minute in range(5)]
    after = [(A1, {"ts": NOW + HOUR + MINUTE * minute, "temperature": 10 + minute % 3}) for minute in range(30)]
    for town in (worked_on, absent):
        assert town.judged(*before)[0] == [1] * 30
    assert worked_on.judged(*work)[0] == [2] * 5
    assert worked_on.judged(*after)[0] == absent.judged(*after)[0]


def test_a_step_that_fails_leaves_the_values_as_they_came() -> None:
    town = Town(declared(sensor="a1"))
    readings = town.readings((A1, {"ts": NOW, "pm25": 5}))
    with pytest.raises(ZeroDivisionError), town.maintenance.unjudged(readings):
        raise ZeroDivisionError
    assert readings.value.tolist() == [5]


def test_who_is_worked_on_now_is_known() -> None:
    town = Town(declared(sensor="a1"))
    town.lines({"ts": NOW, "pm25": 5})
    town.lines({"ts": NOW, "pm25": 5}, topic="city/east/air/b1")
    now: Flags | None = town.maintenance.sensors(NOW + 1)
    assert now is not None
    assert now.tolist() == [True, False]
    assert town.maintenance.sensors(NOW + HOUR) is None


def test_the_file_is_read_when_it_appears_changes_and_goes(tmp_path: Path) -> None:
    file = tmp_path / "maintenance.toml"
    town = Town(declared(sensor="declared"), file=file)
    message = (A1, {"ts": NOW, "pm25": 5})
    assert town.hidden(message) == [False]
    file.write_text(text(sensor="a1"), "utf-8")
    town.maintenance.check()
    assert town.hidden(message) == [True]
    file.write_text(text(sensor="a2"), "utf-8")
    os.utime(file, ns=(0, 0))  # however short the time between
    town.maintenance.check()
    assert town.hidden(message) == [False]
    assert town.hidden(("city/east/air/declared", {"ts": NOW, "pm25": 5})) == [True], "what is configured stays"
    file.write_text(text(sensor="a*"), "utf-8")
    town.maintenance.check()
    assert town.hidden(message) == [True]
    file.unlink()
    town.maintenance.check()
    assert town.hidden(message) == [False]


def test_a_file_with_a_mistake_changes_nothing_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "maintenance.toml"
    file.write_text(text(sensor="a1"), "utf-8")
    town = Town(file=file)
    message = (A1, {"ts": NOW, "pm25": 5})
    for mistake, told in (
        ("[[maintenance]", "not valid TOML"),
        (text(senser="a1"), "maintenance[0].senser: unknown key; did you mean 'sensor'?"),
    ):
        file.write_text(mistake, "utf-8")
        for _ in range(5):
            town.maintenance.check()
        assert told in town.maintenance.problem
        assert str(file) in town.maintenance.problem
        assert town.hidden(message) == [True]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2, "each is told once"
    file.write_text(text(sensor="a9"), "utf-8")
    town.maintenance.check()
    assert (town.maintenance.problem, town.hidden(message)) == ("", [False])


def test_a_folder_or_a_pipe_in_the_place_of_the_file_does_not_stop_the_gateway(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for name in ("pipe.toml", ""):
        town = Town(declared(sensor="a1"), file=tmp_path / name)
        assert town.hidden((A1, {"ts": NOW, "pm25": 5})) == [True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("until = 2026-03-01T08:00:00Z", "names no sensors: add 'site', 'sensor' or 'kind'"),
        ('sensor = "a"', "maintenance[0].until: missing; add it"),
        ('sensor = "a"\nuntil = 2026-03-01T08:00:00', "such as 2026-03-01T08:00:00+08:00, not 2026-03-01"),
        ('sensor = "a"\nuntil = "soon"', "not soon"),
        ('sensor = "a"\nuntil = 2026-03-01', "a time with its offset from UTC"),
        ('sensor = "a"\nsince = 2026-03-02T08:00:00Z\nuntil = 2026-03-01T08:00:00Z', "before it begins"),
        ('sensr = "a"\nuntil = 2026-03-01T08:00:00Z', "did you mean 'sensor'?"),
    ],
)
def test_a_mistake_in_the_configuration_says_what_to_change(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{GATEWAY}[[maintenance]]\n{text}\n", "utf-8")
    with pytest.raises(ConfigError) as refused:
        load(path, GatewayConfig)
    assert problem in str(refused.value)


def test_times_may_be_in_any_time_zone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    work = '[[maintenance]]\nsite = "harbour"\nsince = "2026-03-01T08:00:00+08:00"\nuntil = 2026-03-01T01:00:00Z\n'
    path.write_text(GATEWAY + work, "utf-8")
    config = load(path, GatewayConfig)
    (declaration,) = config.maintenance
    assert declaration.since == datetime(2026, 3, 1, tzinfo=UTC)
    assert config.gateway.maintenance == tmp_path / "maintenance.toml", "beside the configuration"
    assert "2026-03-01 01:00:00+00:00" in check(path, as_json=False)
