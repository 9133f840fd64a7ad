import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway import nab
from gateway.__main__ import app
from gateway.evaluate import detect, summary

STANDARD, LOW_FP, LOW_FN = nab.PROFILES.values()
ROWS = 100  # of a small file: rows 0 to 14 are probation


def series(windows: list[tuple[int, int]], rows: int = ROWS, category: str = "a") -> nab.Series:
    time = np.arange(rows) * 300_000
    limits = np.array(windows, np.int64).reshape(-1, 2)
    return nab.Series(category, "f.csv", [str(t) for t in time], time, np.zeros(rows), limits)


def alarms(*rows: int, of: int = ROWS) -> nab.Bools:
    alarm = np.zeros(of, bool)
    alarm[list(rows)] = True
    return alarm


def sigma(y: float) -> float:
    return 2 / (1 + math.exp(5 * y)) - 1


def test_silence_scores_0_and_an_alarm_at_the_first_row_of_every_window_100() -> None:
    two = series([(20, 29), (60, 79)])
    for profile in nab.PROFILES.values():
        assert nab.tally(two, alarms()).score(profile) == 0
        assert nab.tally(two, alarms(20, 60)).score(profile) == pytest.approx(100)


def test_only_the_first_alarm_of_a_window_counts_and_a_later_one_is_worth_less() -> None:
    its = nab.tally(series([(20, 29)]), alarms(24, 25, 29))
    assert (its.found, its.alarms) == (1, 0)
    assert its.reward == pytest.approx(sigma(-6 / 10) / sigma(-1))  # row 24 is the sixth from the end of ten


def test_a_false_alarm_costs_most_where_no_window_came_before() -> None:
    its = nab.tally(series([(40, 49)]), alarms(20))
    assert (its.alarms, its.penalty) == (1, 1)
    assert its.score(STANDARD) == pytest.approx(100 * -0.11 / 2)
    assert its.score(LOW_FP) == pytest.approx(100 * -0.22 / 2)
    assert its.score(LOW_FN) == pytest.approx(100 * -0.11 / 3)


def test_a_false_alarm_costs_less_soon_after_a_window() -> None:
    one = series([(40, 49)])
    assert nab.tally(one, alarms(52)).penalty == pytest.approx(-sigma(3 / 9))
    assert nab.tally(one, alarms(90)).penalty == 1  # beyond three widths it is just false


def test_a_missed_window_costs_twice_where_misses_weigh_twice() -> None:
    its = nab.tally(series([(20, 29), (60, 69)]), alarms(20))
    assert its.score(STANDARD) == pytest.approx(50)
    assert its.score(LOW_FN) == pytest.approx(100 * ((1 - 2) + 4) / (2 + 4))


def test_nothing_counts_in_probation() -> None:
    assert nab.tally(series([(30, 39)]), alarms(14)) == nab.Tally(1, 0, 0, 0, 0)
    assert nab.tally(series([(30, 39)]), alarms(15)).alarms == 1
    long = series([], rows=20_000)
    assert nab.tally(long, alarms(749, of=20_000)).alarms == 0  # 15 % would be 3,000 rows, but it ends at 750
    assert nab.tally(long, alarms(750, of=20_000)).alarms == 1


def test_files_are_summed_before_they_are_weighed() -> None:
    corpus = [series([(20, 29)], category="b"), series([], category="a"), series([(60, 69)], category="b")]
    tallies = [nab.tally(corpus[0], alarms(20)), nab.tally(corpus[1], alarms(50)), nab.tally(corpus[2], alarms())]
    result = summary(corpus, tallies)
    assert result["overall"]["standard"] == pytest.approx(100 * (1 - 1 - 0.11 + 2) / 4)
    assert list(result["categories"]) == ["a", "b"]
    assert result["categories"]["a"]["standard"] is None  # nothing to find there
    assert result["categories"]["b"]["standard"] == pytest.approx(50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A benchmark of one file: a quiet sensor that jumps at row 400."""
    draw = np.random.default_rng(1)
    value = draw.normal(20, 0.5, 600)
    value[400:] += 30
    data = tmp_path / "nab" / "data" / "realTraffic"
    data.mkdir(parents=True)
    stamps = [f"2015-09-{1 + row // 288:02} {row // 12 % 24:02}:{row % 12 * 5:02}:00" for row in range(600)]
    rows = "".join(f"{stamp},{number}\n" for stamp, number in zip(stamps, value.round(2).tolist(), strict=True))
    (data / "speed.csv").write_text("timestamp,value\n" + rows, "utf-8")
    labels = tmp_path / "nab" / "labels"
    labels.mkdir()
    windows = {"realTraffic/speed.csv": [[stamps[380] + ".000000", stamps[420] + ".000000"]]}
    (labels / "combined_windows.json").write_text(json.dumps(windows), "utf-8")
    return tmp_path / "nab"


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_finds_a_jump_and_prints_scores(folder: Path) -> None:
    result = evaluate("--nab", folder, "--json")
    scores = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (scores["overall"]["windows"], scores["overall"]["found"]) == (1, 1)
    assert scores["overall"]["standard"] > 60
    assert scores["city"] == scores["categories"]["realTraffic"]
    assert "overall" in evaluate("--nab", folder).stdout


def test_scores_are_written_as_the_official_scorer_reads_them(folder: Path, tmp_path: Path) -> None:
    assert evaluate("--nab", folder, "--scores-out", tmp_path / "results").exit_code == 0
    path = tmp_path / "results" / "citygate" / "realTraffic" / "citygate_speed.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert list(rows[0]) == ["timestamp", "value", "anomaly_score", "label"]
    assert [row["label"] for row in rows].index("1") == 380
    assert sum(row["label"] == "1" for row in rows) == 41
    assert rows[0]["timestamp"] == "2015-09-01 00:00:00"
    (corpus,) = nab.read(folder)
    ((_, alarm),) = detect([corpus])
    assert [float(row["anomaly_score"]) >= 0.5 for row in rows] == alarm.tolist()


def test_what_is_wrong_with_a_folder_is_said(folder: Path) -> None:
    missing = evaluate("--nab", folder / "data")
    assert missing.exit_code == 2
    assert "is not a copy of the benchmark" in missing.stderr
    path = folder / "data" / "realTraffic" / "speed.csv"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "2015-09-01 00:10:00,much\n", *lines[4:]]), "utf-8")
    broken = evaluate("--nab", folder)
    assert (broken.exit_code, "speed.csv" in broken.stderr, "much" in broken.stderr) == (2, True, True)
    path.write_text("".join(lines[:390]), "utf-8")
    short = evaluate("--nab", folder)
    assert (short.exit_code, "a window is not" in short.stderr) == (2, True)
    path.unlink()
    gone = evaluate("--nab", folder)
    assert (gone.exit_code, "is missing" in gone.stderr) == (2, True)
