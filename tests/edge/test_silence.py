"""Sensors that have not sent for longer than they use to, and those that only seem so."""

from collections.abc import Sequence

import numpy as np
import pytest

from gateway.config import OverrideConfig, SourceConfig
from gateway.edge.decode import Decoder
from gateway.edge.readings import Channels
from gateway.edge.silence import Silence, Silences
from sensors import kinds
from sensors.lineprotocol import Point, parse
from tests.edge.test_way import NOW, raw

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Town:
    """Sensors that send, heard by a gateway whose clocks the test turns."""

    def __init__(self, *overrides: OverrideConfig) -> None:
        self.channels = Channels()
        self.decoder = Decoder([SourceConfig()], kinds.builtin(), "gw", self.channels, overrides=overrides)
        self.time = 0  # ms, that nobody sets
        self.wall = NOW
        self.connected_since: int | None = 0
        self.silences = Silences(self.channels, lambda: self.time)
        self.lines: list[str] = []

    def send(self, *sensors: str, kind: str = "air", **values: float) -> None:
        fields = values or {"pm25": 5}
        messages = [(f"city/east/{kind}/{name}", {"ts": self.wall + self.time, **fields}) for name in sensors]
        self.silences.hear(self.decoder.decode(raw(messages, self.wall + self.time)))

    def look(self, excused: Sequence[bool] | None = None) -> list[Silence]:
        waived = None if excused is None else np.array(excused, bool)
        found = self.silences.noticed(self.wall + self.time, self.connected_since, waived)
        self.lines += [silence.line("gw") for silence in found]
        return found

    def live(self, span: int, *sensors: str, every: int = MINUTE, kind: str = "air") -> list[str]:
        """Lets time pass with sensors that send; what was noticed meanwhile."""
        told = []
        for _ in range(span // MINUTE):
            self.time += MINUTE
            if self.time % every == 0:
                self.send(*sensors, kind=kind)
            told += [f"{'+' if silence.over else '-'}{silence.sensor.name}" for silence in self.look()]
        return told


def points(*lines: str) -> list[Point]:
    found, errors = parse("\n".join(lines).encode(), "ms")
    assert errors == []
    return found


def test_a_sensor_that_stops_is_told_once_and_once_when_it_is_back() -> None:
    town = Town()
    assert town.live(HOUR, "a1", "a2") == []
    stopped = town.time
    assert town.live(DAY, "a2") == ["-a1"]
    assert town.silences.silent == 1
    assert town.live(HOUR, "a1", "a2") == ["+a1"]
    assert town.silences.silent == 0
    begin, end = points(*town.lines)
    since = NOW + stopped
    assert begin.measurement == end.measurement == "event"
    assert begin.tags == {"gateway": "gw", "kind": "air", "sensor": "a1", "severity": "blue", "site": "east"}
    assert end.tags["severity"] == "none"
    assert begin.fields["id"] == end.fields["id"] == f"air.east.a1.silence.{since}"
    assert (begin.fields["quantity"], begin.fields["limit"]) == ("silence", 600)
    assert (begin.fields["value"], end.fields["value"]) == (660, 86_460)
    assert begin.time == since + 11 * MINUTE
    assert "silent since" in str(begin.fields["message"])
    assert "sends again" in str(end.fields["message"])


def test_it_takes_the_gap_of_the_kind() -> None:
    town = Town()
    for _ in range(20):
        town.time += 10_000
        town.send("n1", kind="noise", laeq=50)
    town.time += 100_000
    assert town.look() == []
    town.time += 1
    assert [silence.limit for silence in town.look()] == [100_000], "ten times ten seconds"


def test_a_kinds_gap_can_be_set_for_a_sensor() -> None:
    town = Town(OverrideConfig.model_validate({"sensor": "slow", "interval": "1h"}))
    town.live(11 * HOUR, "slow", "a1")
    assert town.live(10 * HOUR) == ["-a1"]
    assert town.live(MINUTE) == ["-slow"]


@pytest.mark.parametrize("every", [30 * MINUTE, HOUR, 12 * HOUR])
def test_a_sensor_that_reports_less_often_than_its_kind_says_is_not_silent(every: int) -> None:
    town = Town()
    assert town.live(20 * every, "slow", every=every) == []
    assert town.live(4 * every) == [], "one or two lost messages are no silence"
    assert town.live(2 * every) == ["-slow"]


def test_a_sensor_that_sends_many_messages_every_hour_is_not_silent() -> None:
    town = Town()
    for _ in range(30):
        for _ in range(10):
            town.time += 1000
            town.send("burst")
        assert town.live(HOUR - 10_000) == []


def test_of_a_sensor_that_was_hardly_heard_yet_nothing_is_said() -> None:
    town = Town()
    town.time = MINUTE
    town.send("once")
    town.live(5 * MINUTE, "new")
    assert town.live(DAY) == []


def test_one_long_silence_does_not_make_the_next_one_unnoticed() -> None:
    town = Town()
    town.live(7 * DAY, "a1", every=MINUTE)
    assert town.live(3 * DAY) == ["-a1"]
    assert town.live(DAY, "a1") == ["+a1"]
    assert town.live(8 * HOUR) == ["-a1"]


def test_while_the_broker_is_away_nobody_is_silent() -> None:
    town = Town()
    town.live(HOUR, "a1", "a2")
    town.connected_since = None
    assert town.live(5 * HOUR) == []
    town.connected_since = town.time
    assert town.live(10 * MINUTE, "a1") == [], "they have the time that they always have"
    assert town.live(10 * MINUTE, "a1") == ["-a2"]


def test_setting_the_clock_makes_nobody_silent() -> None:
    town = Town()
    town.live(HOUR, "a1")
    for step in (5 * HOUR, -20 * HOUR):
        town.wall += step
        assert town.live(10 * MINUTE, "a1") == []
    town.live(11 * MINUTE)
    assert town.lines[-1].endswith(f" {town.wall + town.time}")


def test_a_sensor_in_maintenance_is_not_missed() -> None:
    town = Town()
    town.live(HOUR, "a1", "a2")
    for _ in range(60):
        town.time += MINUTE
        assert [silence.sensor.name for silence in town.look([True, False])] in ([], ["a2"])
    assert town.silences.silent == 1
    assert town.live(10 * MINUTE) == [], "it has time to come back"
    assert town.live(MINUTE) == ["-a1"]


def test_maintenance_ends_a_silence() -> None:
    town = Town()
    town.live(HOUR, "a1")
    assert town.live(HOUR) == ["-a1"]
    (end,) = town.look([True])
    assert (end.over, end.length) == ("in maintenance", 2 * HOUR - HOUR)
    assert town.look([True]) == []
    assert town.silences.silent == 0


def test_when_everybody_falls_silent_it_is_told_little_by_little() -> None:
    town = Town()
    names = [f"a{number}" for number in range(1200)]
    for _ in range(12):
        town.time += MINUTE
        town.send(*names)
    town.time += HOUR
    told = [len(town.look()) for _ in range(4)]
    assert told == [500, 500, 200, 0]
    assert len({line.partition(" ")[0] for line in town.lines}) == 1200


def test_sensors_without_a_rule_are_never_silent() -> None:
    town = Town()
    town.live(MINUTE)
    for _ in range(60):
        town.time += MINUTE
        town.send("odd", strange=1)
        town.send("tag", battery=80)
    assert town.live(DAY) == []


def restarted(town: Town, *, later: int = 0, order: int = 1) -> Town:
    """Another gateway that takes up what the first one knew; its channels may have other numbers."""
    other = Town()
    other.wall, other.time = town.wall + town.time + later - 5 * MINUTE, 5 * MINUTE  # another clock since boot
    other.connected_since = other.time
    names = [sensor.name for sensor in town.channels.sensors][::order]
    fields = [(f"city/east/air/{name}", {"ts": NOW, "pm25": 5}) for name in names]
    other.decoder.decode(raw(fields))
    numbers = np.arange(len(names))
    other.silences.restore(town.silences.state(numbers[::order]), numbers)
    return other


def test_after_a_restart_the_same_silence_is_not_told_again() -> None:
    town = Town()
    town.live(HOUR, "gone", "a2")
    assert town.live(HOUR, "a2") == ["-gone"]
    other = restarted(town, later=DAY, order=-1)
    assert other.live(HOUR, "a2") == []
    assert other.silences.silent == 1
    assert other.live(10 * MINUTE, "gone", "a2") == ["+gone"]
    begin, end = points(*town.lines, *other.lines)
    assert begin.fields["id"] == end.fields["id"], "the end is that of the silence that began before"


def test_after_a_restart_the_time_when_the_gateway_was_away_is_nobodys_silence() -> None:
    town = Town()
    town.live(HOUR, "a1", "a2")
    other = restarted(town, later=30 * DAY)
    assert other.live(10 * MINUTE, "a1") == []
    assert other.live(MINUTE, "a1") == ["-a2"], "it needs not be learnt again how often they send"


def test_a_state_that_is_none_changes_nothing() -> None:
    town = Town()
    town.live(HOUR, "a1", "a2")
    channels = np.arange(2)
    good = town.silences.state(channels)
    for name, wrong in (
        ("usual", np.array([1, np.nan])),
        ("usual", np.array([1, -1.0])),
        ("seen", np.array([1, 1e30])),
        ("age", np.array([-1, 1])),
        ("since", np.array([1.0, 1.0])),
        ("quiet", np.array([1, 1, 1])),
    ):
        with pytest.raises(ValueError, match="silences"):
            town.silences.restore({**good, name: wrong}, channels)
    with pytest.raises(ValueError, match="silences"):
        town.silences.restore({}, channels)
    for name, its in town.silences.state(channels).items():
        assert its.tolist() == good[name].tolist()


def test_what_was_not_heard_for_a_month_is_given_up() -> None:
    town = Town()
    town.time = MINUTE
    town.send("a1", pm25=5, no2=5)
    town.send("a2", pm25=5)
    for _ in range(31):
        town.time += DAY
        town.send("a1", pm25=5)
    assert town.silences.stale().tolist() == [False, True, True]
    other = restarted(town)
    assert other.silences.stale().tolist()[:2] == [False, True], "a restart does not begin the month anew"
