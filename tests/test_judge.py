import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.edge.readings import FAIL, GOOD, MISSING, REPEATED, SUSPECT, UNKNOWN, Readings
from gateway.edge.watch import Event
from gateway.judge import Call, Calls, Values, calls, poisson_upper, wilson

HOUR = 3_600_000
START = 1_700_006_400_000
ROWS = 400
FAILS, SUSPECTS = "100.0", "50.0"
"""Temperatures that no sensor can measure, and that are not plausible."""

Judge = Callable[..., dict[str, Any]]


def moment(row: float) -> str:
    return datetime.fromtimestamp((START + row * HOUR) / 1000, UTC).isoformat()


class File:
    """Hourly readings of some sensors, good but for what is put there."""

    def __init__(self, quantities: Sequence[str] = ("temperature",), sensors: int = 1) -> None:
        self.rows = {
            (row, f"s{number}", quantity): [f"{20 + row % 7 / 10:.1f}", ""]
            for row in range(ROWS)
            for number in range(sensors)
            for quantity in quantities
        }

    def put(
        self, rows: range, label: str, values: dict[int, str], quantity: str = "temperature", at: str = "s0"
    ) -> "File":
        for row in rows:
            self.rows[row, at, quantity][1] = label
        for row, value in values.items():
            self.rows[row, at, quantity][0] = value
        return self

    def write(self, path: Path) -> Path:
        lines = [f"{moment(row)},{s},weather,{q},{value},{label}" for (row, s, q), (value, label) in self.rows.items()]
        path.write_text("\n".join(["time,sensor,kind,quantity,value,label", *lines, ""]))
        return path


@pytest.fixture(autouse=True)
def by_limits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither detector nor verdicts: what the filter says of these files is then known beforehand."""
    monkeypatch.setattr("gateway.edge.detect.THRESHOLD", float("inf"))
    monkeypatch.setattr("gateway.edge.filter.TESTS", ())


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    def judge(file: File, *given: str) -> dict[str, Any]:
        path = file.write(tmp_path / "suite.csv")
        done = CliRunner().invoke(app, ["evaluate", str(path), "--json", *given])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return judge


def known() -> File:
    """A file of which every figure is known."""
    return (
        File()
        .put(range(100, 104), "offset", {102: FAILS})  # found and called after two hours
        .put(range(120, 121), "offset", {120: SUSPECTS})  # found at once, not called
        .put(range(150, 153), "drift", {})  # missed
        .put(range(200, 202), "event", {200: SUSPECTS})  # suspect, and no more
        .put(range(250, 252), "event", {251: FAILS})  # taken for a fault
        .put(range(0), "", {300: FAILS, 302: SUSPECTS, 350: SUSPECTS, 104: SUSPECTS, 375: FAILS})
    )


def test_figures_of_a_file_in_which_all_is_known(judged: Judge) -> None:
    result = judged(known())
    assert (result["readings"], result["sensors"], result["channels"]) == (ROWS, 1, 1)
    offset = result["labels"]["offset"]
    assert (offset["episodes"], offset["found"], offset["recall"]) == (2, 2, 1.0)
    assert (offset["latency_median_s"], offset["latency_p90_s"]) == (3600, pytest.approx(0.9 * 7200))
    assert (offset["called_fault"], offset["fault_call_rate"]) == (1, 0.5)
    drift = result["labels"]["drift"]
    assert (drift["found"], drift["recall"], drift["latency_median_s"], drift["fault_call_rate"]) == (0, 0, None, 0)
    assert (result["faults"]["episodes"], result["faults"]["called_fault"]) == (3, 1)
    events = result["events"]
    assert (events["episodes"], events["found"], events["called_fault"]) == (2, 2, 1)
    assert events["fault_call_high"] == pytest.approx(wilson(1, 2)[1])


def test_clean_is_what_has_no_label_and_does_not_follow_one(judged: Judge) -> None:
    clean = judged(known())["clean"]
    # 12 readings have a label; as long after each (3, 0, 2, 1 and 1 hours) the filter may settle
    assert clean["readings"] == ROWS - 12 - 7
    assert clean["sensor_weeks"] == pytest.approx((ROWS - 12 - 7) / 168)
    # 300 and 302 are one alarm, 104 belongs to the offset before it
    assert (clean["false_fault_calls"], clean["alarms"], clean["readings_touched"]) == (2, 3, 4)
    assert clean["false_fault_calls_per_sensor_week"] == pytest.approx(2 / clean["sensor_weeks"])
    assert clean["share_touched"] == pytest.approx(4 / clean["readings"])


def test_a_fault_has_to_be_called_within_two_days(judged: Judge) -> None:
    late = File().put(range(100, 160), "drift", {155: FAILS}).put(range(200, 260), "drift", {248: FAILS})
    drift = judged(late)["labels"]["drift"]
    assert (drift["found"], drift["called_fault"]) == (2, 1)


def test_what_befalls_most_channels_of_a_sensor_is_one_episode(judged: Judge) -> None:
    quantities = ("temperature", "humidity", "dew_point")
    file = File(quantities)
    for quantity in quantities:
        file.put(range(100, 110), "skew", {}, quantity)
    file.put(range(200, 210), "stuck", {}, "humidity")
    labels = judged(file.put(range(105, 106), "skew", {105: FAILS}))["labels"]
    assert (labels["skew"]["episodes"], labels["skew"]["called_fault"]) == (1, 1)
    assert labels["stuck"]["episodes"] == 1


TRUTH = {"kind": "weather", "site": "replay", "quantity": "temperature", "quantities": ["temperature"]}


def told(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({**TRUTH, "amplitude": "medium", **line}) + "\n" for line in lines))
    return path


def test_with_a_truth_pairs_are_told_apart_and_an_event_of_many_sensors_is_one(judged: Judge, tmp_path: Path) -> None:
    file = File(sensors=2)
    fault = {"label": "offset", "shape": "offset", "sensor": "s0"}
    event = {"label": "event", "shape": "front", "start": moment(200), "end": moment(209)}
    lines = []
    for number, (fault_value, event_value) in enumerate(((FAILS, SUSPECTS), (FAILS, FAILS), ("20.0", "20.0"))):
        first = 100 + 20 * number
        file.put(range(first, first + 4), "offset", {first: fault_value})
        lines.append({**fault, "id": number, "pair": 10 + number, "start": moment(first), "end": moment(first + 3)})
        first += 100
        for sensor in ("s0", "s1"):
            file.put(range(first, first + 4), "event", {first: event_value} if sensor == "s1" else {}, at=sensor)
            its = {"id": 10 + number, "pair": number, "start": moment(first), "end": moment(first + 3)}
            lines.append({**event, **its, "sensor": sensor})
    result = judged(file, "--truth", str(told(tmp_path / "truth.jsonl", *lines)))
    assert result["pairs"] == {"offset": {"pairs": 3, "told_apart": 1}}
    assert (result["events"]["episodes"], result["events"]["called_fault"]) == (3, 1)
    assert result["shapes"].keys() == {"front"}
    assert result["amplitudes"].keys() == {"offset/medium", "front/medium"}
    assert judged(file)["events"]["episodes"] == 6  # without it, each sensor counts


def test_the_keys_of_the_json_are_as_documented(judged: Judge) -> None:
    result = judged(known())
    assert result.keys() == {
        "file", "units", "readings", "sensors", "channels",
        "labels", "faults", "events", "shapes", "amplitudes", "pairs", "clean",
    }  # fmt: skip
    group = {
        "episodes", "found", "recall", "latency_median_s", "latency_p90_s",
        "called_fault", "fault_call_rate", "fault_call_low", "fault_call_high",
    }  # fmt: skip
    assert all(its.keys() == group for its in (result["faults"], result["events"], *result["labels"].values()))
    assert result["clean"].keys() == {
        "readings", "sensor_weeks", "false_fault_calls", "false_fault_calls_per_sensor_week",
        "alarms", "alarms_per_sensor_week", "readings_touched", "share_touched",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_as_published(hits: int, of: int, low: float, high: float) -> None:
    assert list(wilson(hits, of)) == pytest.approx([low, high], abs=5e-5)  # Newcombe 1998, table I


def test_the_interval_of_a_count_is_close_to_the_exact_one() -> None:
    for count, exact in ((1, 5.572), (5, 11.668), (10, 18.390), (100, 121.627)):  # half a chi-square quantile
        assert poisson_upper(count) == pytest.approx(exact, rel=0.01)


# -- what the filter says ----------------------------------------------------------------------------------------------


def batch(flags: list[int]) -> Readings:
    n = len(flags)
    return Readings(
        sensors=[],
        layouts=[],
        times=np.arange(n),
        starts=np.zeros(0, np.int64),
        channel=np.arange(n) % 2,
        rule=np.zeros(n, np.int32),
        time=np.arange(n) // 2,
        value=np.zeros(n),
        flag=np.array(flags, np.uint8),
        reason=np.zeros(n, np.int16),
    )


def test_a_failed_reading_is_called_a_fault_and_a_good_one_over_a_limit_an_event() -> None:
    begun = [Event(0, 0, 0, "red", 9.0, 8.0), Event(1, 0, 0, "none", 9.0, 8.0), Event(1, 1, 0, "blue", 9.0, 8.0)]
    said = calls(batch([GOOD, UNKNOWN, REPEATED, SUSPECT, FAIL, MISSING]), begun)
    assert said.call.tolist() == [Call.EVENT, 0, 0, Call.SUSPECT, Call.FAULT, 0]


def test_what_is_said_later_of_an_earlier_reading_counts_from_when_it_was_said() -> None:
    keys = [("a", "weather", "s", "temperature"), ("a", "weather", "s", "humidity")]
    time = np.array([10, 10, 20, 20, 30, 30]) + START
    values = Values(keys, [""], np.array([0, 1, 0, 1, 0, 1]), time, np.zeros(6), np.zeros(6, np.int64))
    said = np.array(
        [
            [0, 20, 20, Call.SUSPECT, 20],
            [0, 20, 20, Call.FAULT, 30],
            [1, -9, 10, Call.EVENT, 10],
            [1, 99, 99, Call.FAULT, 99],
        ]
    )
    channel, since, until, call, made = said.T
    values.hear(Calls(channel, since + START, until + START, call.astype(np.uint8)), made + START)
    assert values.worst.tolist() == [0, Call.EVENT, Call.FAULT, 0, 0, 0]
    assert (values.suspect_at[2] - START, values.fault_at[2] - START) == (20, 30)
    assert (values.suspect_at[[0, 1, 3, 4, 5]] > time.max()).all()


# -- the gate, the plot, the rest of the command -----------------------------------------------------------------------


def many(caught: int, taken: int = 0, alarms: int = 0) -> File:
    """Twenty faults and twenty events."""
    file = File()
    for number in range(20):
        file.put(range(5 * number, 5 * number + 1), "spike", {5 * number: FAILS} if number < caught else {})
        place = 100 + 5 * number
        file.put(range(place, place + 1), "event", {place: FAILS} if number < taken else {})
    return file.put(range(0), "", {210 + 10 * number: FAILS for number in range(alarms)})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (many(18, 1, 2), None),
        (many(16, 2, 5), None),  # worse, but within what the first result leaves open
        (many(20, 0, 0), None),
        (many(12, 1, 2), "spike: called fault 60.0%, 90.0% before"),
        (many(18, 8, 2), "events called fault 40.0%, 5.0% before"),
        (many(18, 1, 19), "false fault-calls: "),
        (File().put(range(10, 11), "event", {}), "spike: none left in this recording, 20 before"),
    ],
)
def test_a_baseline_tells_what_got_worse_beyond_its_noise(now: File, told: str | None, tmp_path: Path) -> None:
    def run(file: File, *given: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["evaluate", str(file.write(tmp_path / "suite.csv")), "--json", *given])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = run(many(18, 1, 2))
    assert code == 0
    baseline = tmp_path / "old.json"
    baseline.write_text(out)
    code, out, said = run(now, "--baseline", str(baseline))
    assert code == (told is not None)
    assert [text for text in json.loads(out)["worse"] if text in said] == json.loads(out)["worse"]
    assert told is None or told in said


def test_the_plot_shows_the_misses_and_needs_nothing_else(judged: Judge, tmp_path: Path) -> None:
    plot = tmp_path / "misses.html"
    judged(known(), "--plot", str(plot))
    page = plot.read_text()
    assert page.count("<figure>") == page.count("</svg></figure>") == 5
    shown = re.findall(r"<b>(.*?)</b> — (\S+ \S+)", page)
    assert [what for what, _ in shown] == [
        "event: event called a fault",
        "drift: not found",
        "offset: found, not called a fault",
        "clean data called a fault",
        "clean data called a fault",
    ]
    assert {where for _, where in shown} == {"s0 temperature"}
    assert not re.search(r"<script|https?:|src=|@import", page)


def test_the_table_fits_a_hundred_columns(tmp_path: Path) -> None:
    path = known().write(tmp_path / "suite.csv")
    done = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["evaluate", str(path)])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 100
    (row,) = (line.split() for line in done.stdout.splitlines() if line.strip().startswith("offset"))
    assert row == ["offset", "2", "100.0%", "60", "min", "108", "min", "50.0%", "9..91"]


def test_units_are_converted_and_a_limit_is_kept(tmp_path: Path, judged: Judge) -> None:
    path = tmp_path / "co.csv"
    rows = [f"{moment(row)},s,air,co,{500 + row % 5},{'event' if row == 3 else ''}" for row in range(20)]
    path.write_text("\n".join(["time,sensor,kind,quantity,value,label", *rows, ""]))
    called = []
    for unit in ("mg/m³", "µg/m³"):
        done = CliRunner().invoke(app, ["evaluate", str(path), "--json", "--unit", f"co={unit}"])
        assert not done.stderr
        called.append(json.loads(done.stdout)["events"]["called_fault"])
    assert called == [1, 0]
    assert judged(known(), "--limit", "150")["readings"] == 150
    assert judged(known(), "--limit", "150")["labels"].keys() == {"offset"}


def test_a_unit_that_nobody_stated_is_seen_by_values_that_are_impossible_without_it_and_that_is_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "air.csv"
    rows = [f"{moment(row)},s,{500 + row % 5},{20 + row % 3},{400 + row % 3}" for row in range(20)]
    path.write_text("\n".join(["time,sensor,co,temperature,pressure", *rows, ""]))
    done = CliRunner().invoke(app, ["evaluate", str(path), "--kind", "air", "--json"])
    result = json.loads(done.stdout)
    assert result["units"] == {"co": "µg/m³"}
    assert result["clean"]["readings_touched"] == 20  # the pressure, which is impossible in every unit
    assert "co is taken to be in µg/m³" in done.stderr


def test_a_gateway_is_judged_with_its_own_limits(tmp_path: Path, judged: Judge) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[gateway]\nid = "g"\n[[output]]\nname = "o"\nurl = "http://localhost"\n'
        '[[override]]\nsensor = "s0"\nquantity = "temperature"\nfail = [-40, 101]\n'
    )
    file = File().put(range(100, 104), "offset", {102: FAILS})
    assert judged(file)["faults"]["called_fault"] == 1
    assert judged(file, "-c", str(config))["faults"]["called_fault"] == 0


def test_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    def run(*given: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["evaluate", *given])
        return done.exit_code, done.output

    file = str(known().write(tmp_path / "suite.csv"))
    odd = tmp_path / "odd.json"
    odd.write_text("[]")
    code, text = run()
    assert (code, "choose one: a labelled recording, or --nab DIR" in text) == (2, True)
    assert run(file, "--nab", str(tmp_path))[0] == 2
    code, text = run(file, "--baseline", str(odd))
    assert (code, "odd.json: not what `citygate evaluate --json` prints" in text) == (2, True)
    code, text = run(file, "--truth", str(odd))
    assert (code, "odd.json: line 1 is no object" in text) == (2, True)
    wrong = {"id": 1, "pair": None, "label": "stuck", "shape": "stuck", "sensor": "s0"}
    truth = told(tmp_path / "truth.jsonl", {**wrong, "start": moment(10), "end": moment(12)})
    code, text = run(file, "--truth", str(truth))
    assert (code, "stuck of s0 at 2023-11-15T10:00:00+00:00 is not in the recording" in text) == (2, True)
    code, text = run(file, "--unit", "temperature")
    assert (code, "expected QUANTITY=UNIT, not 'temperature'" in text) == (2, True)
    code, text = run(file, "--plot", str(tmp_path / "no" / "where.html"))
    assert (code, "where.html" in text) == (1, True)
