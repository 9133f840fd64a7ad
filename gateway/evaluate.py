"""`citygate evaluate`: how good the adaptive detector is, by rules that others have set.

The detector is the one that runs on the device, with the settings that it has there: one for every series, and nothing
that is not known at a row's time.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway import nab
from gateway.edge.detect import THRESHOLD, Detector

_NAME = "citygate"
"""The detector's name among the benchmark's results."""
_CITY = frozenset({"ambient_temperature_system_failure.csv", "machine_temperature_system_failure.csv", "nyc_taxi.csv"})
"""Files like a town's own, beside the category realTraffic."""
_STRIDE = 500
"""Rows between two moves of the progress bar."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def main(folder: Path, *, scores_out: Path | None, as_json: bool) -> None:
    """Runs the detector over the Numenta Anomaly Benchmark and prints its scores.

    Args:
        folder: The benchmark's folder.
        scores_out: Folder that becomes the benchmark's ``results``, for its own scorer.
        as_json: Print JSON instead of a table.

    Raises:
        nab.LayoutError: The folder is not in the benchmark's layout.
        OSError: The scores cannot be written.
    """
    corpus = nab.read(folder)
    verdicts = detect(corpus)
    if scores_out is not None:
        for series, (evidence, alarm) in zip(corpus, verdicts, strict=True):
            nab.write_scores(scores_out, _NAME, series, np.where(alarm, evidence / (evidence + THRESHOLD), 0.0))
    result = summary(corpus, [nab.tally(series, alarm) for series, (_, alarm) in zip(corpus, verdicts, strict=True)])
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        _show(result)


def detect(corpus: Sequence[nab.Series]) -> list[tuple[Floats, Bools]]:
    """Evidence and alarms of every row, float64[n] and bool[n] a file; the files run side by side, as channels do."""
    length = np.array([len(series.value) for series in corpus])
    rows = int(length.max())
    time, value = np.zeros((rows, len(corpus)), np.int64), np.zeros((rows, len(corpus)))
    for number, series in enumerate(corpus):
        time[: length[number], number], value[: length[number], number] = series.time, series.value
    evidence, alarm = np.zeros(value.shape), np.zeros(value.shape, bool)
    detector = Detector()
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("rows"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=rows)
        for row in range(rows):
            channel = np.flatnonzero(length > row)
            evidence[row, channel], alarm[row, channel] = detector.score(
                channel, time[row, channel], value[row, channel]
            )
            if row % _STRIDE == 0:
                progress.update(task, completed=row)
        progress.update(task, completed=rows)
    return [(evidence[:end, number], alarm[:end, number]) for number, end in enumerate(length.tolist())]


def summary(corpus: Sequence[nab.Series], tallies: Sequence[nab.Tally]) -> dict[str, Any]:
    """Scores of the corpus, of each category and of the city subset, as `--json` prints them."""
    city = [
        its
        for series, its in zip(corpus, tallies, strict=True)
        if series.category == "realTraffic" or series.file in _CITY
    ]
    return {
        "files": len(corpus),
        "rows": sum(len(series.value) for series in corpus),
        "overall": _scores(sum(tallies, nab.NOTHING)),
        "city": _scores(sum(city, nab.NOTHING)),
        "categories": {name: _scores(its) for name, its in nab.by_category(corpus, tallies).items()},
    }


def _scores(its: nab.Tally) -> dict[str, Any]:
    scores = {name: its.score(profile) for name, profile in nab.PROFILES.items()}
    return scores | {"windows": its.windows, "found": its.found, "false_alarms": its.alarms}


def _show(result: dict[str, Any]) -> None:
    table = Table(title=f"Numenta Anomaly Benchmark, {result['files']} files, {result['rows']:,} rows", box=None)
    table.add_column("")
    for heading in ("standard", "low FP", "low FN", "windows", "found", "false alarms"):
        table.add_column(heading, justify="right")
    rows = {**result["categories"], "city subset": result["city"], "overall": result["overall"]}
    for name, its in rows.items():
        scores = ["" if its[profile] is None else f"{its[profile]:.2f}" for profile in nab.PROFILES]
        table.add_row(name, *scores, *(str(its[key]) for key in ("windows", "found", "false_alarms")))
    Console().print(table)
