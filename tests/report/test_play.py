"""What a report counts, on recordings of which it is known."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from gateway.config import GatewayConfig
from gateway.report import figures
from gateway.report.play import BUCKETS, Play
from gateway.streams import Stream
from tests.report.recordings import CONFIG, Message, day, reading, write


def played(path: Path, messages: list[Message], config: GatewayConfig = CONFIG) -> Play:
    play = Play(Stream(write(path / "r.cgrec", messages)), config)
    play.run(Console(stderr=True))
    return play


@pytest.fixture(scope="module")
def of_day(tmp_path_factory: pytest.TempPathFactory) -> Play:
    return played(tmp_path_factory.mktemp("day"), day())


@pytest.fixture
def said(of_day: Play) -> dict[str, Any]:
    return figures.summary(of_day)


def test_every_message_and_every_reading_is_counted_once(said: dict[str, Any]) -> None:
    assert said["messages"] == 1440 + 1320 + 2
    assert said["sensors"] == 2
    assert said["readings"] == sum(said["flags"].values()) == 2760
    assert said["flags"]["fail"] == 10
    by_source = {row["source"]: row for row in said["sources"]}
    assert by_source["city"]["reports"] == 2760
    assert by_source["city"]["quarantined"] == 10
    assert by_source["city"]["stored"] == 2750
    assert (by_source["city"]["dead"], by_source["unmatched"]["dead"]) == (1, 1)
    for row in said["sources"]:
        assert row["received"] == row["stored"] + row["quarantined"] + row["dead"] + row["duplicate"]


def test_reasons_come_with_counts_and_examples(said: dict[str, Any]) -> None:
    by_name = {row["reason"]: row for row in said["reasons"]}
    assert by_name["gross_range"]["fail"] == 10
    assert by_name["gross_range"]["channels"] == 1
    (example,) = by_name["gross_range"]["examples"]
    assert example == {
        "sensor": "east/air/a1",
        "quantity": "pm25",
        "time": "2026-09-21T19:13:20Z",
        "value": 5000.0,
        "flag": "fail",
    }
    assert by_name["gap"]["remarks"] >= 1, "a remark stands in no other column"
    assert by_name["gap"]["suspect"] == by_name["gap"]["fail"] == 0
    assert said["reasons"][-1]["reason"] == "gap"


def test_alike_dead_letters_are_one_row(tmp_path: Path) -> None:
    play = played(tmp_path, [(second, f"town/{second}", b"x") for second in range(50)])
    (alike,) = figures.summary(play)["dead_letters"]
    assert (alike["messages"], alike["reason"]) == (50, "no declared source has a topic like this one")
    assert len(alike["topics"]) == 3


def test_what_was_missing_is_told_by_a_sensors_own_interval(said: dict[str, Any]) -> None:
    late, whole = said["availability"]
    assert (late["sensor"], late["interval_s"], late["missing"], late["gaps"]) == ("east/air/a2", 60, 120, 1)
    assert late["share"] == pytest.approx(1320 / 1440)
    assert late["longest_gap_s"] == 121 * 60
    assert (whole["sensor"], whole["missing"], whole["share"]) == ("east/air/a1", 0, 1)


def test_a_sensor_that_came_late_and_left_early_lacks_both_ends(tmp_path: Path) -> None:
    frame = [reading(60 * minute, "whole", pm25=minute % 9) for minute in range(101)]
    part = [reading(60 * minute, "part", pm25=minute % 9) for minute in range(30, 81)]
    once = [reading(60, "once", pm25=1)]
    play = played(tmp_path, sorted(frame + part + once))
    by_name = {play.channels.sensors[its.sensor].name: its for its in figures.availability(play)}
    assert by_name["whole"].missing == 0
    assert by_name["part"].missing == 50
    assert by_name["part"].gaps == 2
    assert by_name["part"].strip[0] == by_name["part"].strip[-1] == 0
    assert by_name["part"].strip[60] == 1
    assert by_name["once"].share is None


def test_late_by_less_than_half_an_interval_is_not_missing(tmp_path: Path) -> None:
    times = [60 * minute + minute * 37 % 25 for minute in range(200)]
    play = played(tmp_path, [reading(time, pm25=time % 9) for time in times])
    (its,) = figures.availability(play)
    assert max(later - earlier for earlier, later in pairwise(times)) > 70
    assert its.missing == 0


def test_charts_keep_the_least_and_greatest_value_of_every_bucket(of_day: Play) -> None:
    assert of_day.buckets.shape[-1] == BUCKETS
    good, failed = of_day.buckets[:, 0, 0], of_day.buckets[:, 2, 0]
    assert np.nanmax(good[1]) <= 32
    assert np.nanmin(good[0]) >= 10
    assert np.nanmax(failed) == np.nanmin(failed) == 5000
    assert np.count_nonzero(~np.isnan(failed[0])) == 4, "ten minutes of a day in 480 parts"


def test_events_are_whole_and_the_gravest_come_first(tmp_path: Path) -> None:
    course = [10.0] * 20 + [70.0] * 10 + [130.0] * 5 + [70.0] * 5 + [10.0] * 20 + [80.0] * 5
    values = [value + number % 3 / 10 for number, value in enumerate(course)]
    play = played(tmp_path, [reading(600 * number, pm25=value) for number, value in enumerate(values)])
    grave, mild = figures.summary(play)["events"]
    assert (grave["severity"], grave["limit"]) == ("yellow", 115)
    assert grave["value"] >= 130
    assert grave["until"] is not None
    assert (mild["severity"], mild["until"]) == ("blue", None)


def test_bytes_are_counted_before_and_after(said: dict[str, Any]) -> None:
    size = said["bytes"]
    assert size["messages"] == sum(
        len(topic.encode("utf-8", "surrogateescape")) + len(payload) for _, topic, payload in day()
    )
    assert size["sent_in_full_batches"] < size["sent"] < size["line_protocol"]


def test_a_message_that_no_step_can_bear_is_a_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(Stream(write(tmp_path / "r.cgrec", [reading(60 * n, f"a{n}", pm25=n) for n in range(8)])), CONFIG)
    judge = play._filter.judge

    def fail_at_a5(readings: Any) -> Any:  # noqa: ANN401 - whatever the filter takes and gives
        if any(sensor.name == "a5" for sensor in readings.sensors):
            raise ZeroDivisionError
        return judge(readings)

    monkeypatch.setattr(play._filter, "judge", fail_at_a5)
    play.run(Console(stderr=True))
    said = figures.summary(play)
    assert said["readings"] == 7
    assert [alike["reason"] for alike in said["dead_letters"]] == ["cannot be processed: ZeroDivisionError"]


def test_rows_of_a_csv_are_read_even_if_the_site_has_other_topics(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("time,pm25\n1790000000,1\n1790000060,2\n", "utf-8")
    source = {"topic": "own/{sensor}", "kind": "air", "site": "east"}
    config = GatewayConfig.model_validate(
        {"gateway": {"id": "gw"}, "source": [source], "output": [{"url": "http://127.0.0.1"}]}
    )
    play = Play(Stream(tmp_path / "r.csv"), config)
    play.run(Console(stderr=True))
    assert figures.summary(play)["flags"]["good"] == 2
