"""The Numenta Anomaly Benchmark: its layout on disk, and its score.

Rules and their constants are those of Lavin & Ahmad 2015, "Evaluating Real-Time Anomaly Detection Algorithms", as the
benchmark's own scorer applies them. The score of a corpus is 0 for a detector that says nothing and 100 for one that
finds every window at its first row and raises no other alarm.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PROBATION, _PROBATION_ROWS = 0.15, 750  # share of a file that is not scored, and its most rows


class LayoutError(ValueError):
    """A folder is not in the benchmark's layout; says what is missing or wrong, and where."""


class Profile(NamedTuple):
    """What a found window, a missed window and a false alarm weigh."""

    found: float
    missed: float
    false: float


PROFILES = {
    "standard": Profile(1, 1, 0.11),
    "reward_low_FP_rate": Profile(1, 1, 0.22),
    "reward_low_FN_rate": Profile(1, 2, 0.11),
}


@dataclass(frozen=True, slots=True)
class Series:
    """A file of the benchmark.

    Attributes:
        category: Its folder.
        file: Its name.
        stamps: Times as they are written.
        time: int64[n], ms; the benchmark's times have no zone and are read as UTC.
        value: float64[n].
        windows: int64[w, 2], first and last row of each labelled anomaly, in order.
    """

    category: str
    file: str
    stamps: list[str]
    time: Ints
    value: Floats
    windows: Ints

    @property
    def probation(self) -> int:
        """Rows at the start that are not scored."""
        return min(int(_PROBATION * len(self.value)), int(_PROBATION * 5000), _PROBATION_ROWS)

    @property
    def label(self) -> Bools:
        """bool[n], whether a row is in a window."""
        label = np.zeros(len(self.value), bool)
        for first, last in self.windows.tolist():
            label[first : last + 1] = True
        return label


class Tally(NamedTuple):
    """What a detector did on some files, before it is weighed.

    Attributes:
        windows: Labelled windows.
        found: Windows with an alarm.
        reward: Sum over found windows: 1 for an alarm at the first row, less for a later one.
        alarms: Alarms outside windows.
        penalty: Sum over these: 1 far from a window, less soon after its end.
    """

    windows: int
    found: int
    reward: float
    alarms: int
    penalty: float

    def __add__(self, other: object) -> "Tally":
        """The tally of both; unlike a plain tuple's sum."""
        if not isinstance(other, Tally):
            return NotImplemented
        return Tally(
            self.windows + other.windows,
            self.found + other.found,
            self.reward + other.reward,
            self.alarms + other.alarms,
            self.penalty + other.penalty,
        )

    def score(self, profile: Profile) -> float | None:
        """0 for silence, 100 for perfection; None where nothing is labelled."""
        if not self.windows:
            return None
        missed = self.windows - self.found
        raw = profile.found * self.reward - profile.missed * missed - profile.false * self.penalty
        null, perfect = -profile.missed * self.windows, profile.found * self.windows
        return 100 * (raw - null) / (perfect - null)


NOTHING = Tally(0, 0, 0.0, 0, 0.0)


def read(folder: Path) -> list[Series]:
    """Reads all files that the labels name.

    Args:
        folder: Holds ``data/CATEGORY/FILE.csv`` and ``labels/combined_windows.json``.

    Raises:
        LayoutError: It does not.
    """
    labels = folder / "labels" / "combined_windows.json"
    try:
        windows = json.loads(labels.read_text("utf-8"))
    except FileNotFoundError as error:
        message = (
            f"{folder} is not a copy of the benchmark: {labels} is missing (and beside labels, data/CATEGORY/*.csv)"
        )
        raise LayoutError(message) from error
    except (OSError, ValueError) as error:
        message = f"{labels}: {error}"
        raise LayoutError(message) from error
    if not isinstance(windows, dict) or not windows:
        message = f"{labels}: expected an object of CATEGORY/FILE.csv → list of [start, end]"
        raise LayoutError(message)
    return [_series(folder / "data" / name, name, windows[name], labels) for name in sorted(windows)]


def _series(path: Path, name: str, windows: object, labels: Path) -> Series:
    category, _, file = name.rpartition("/")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        if header[:2] != ["timestamp", "value"]:
            message = f"{path}: expected the columns timestamp,value"
            raise LayoutError(message)
        stamps = [row[0] for row in rows]
        time = np.array([_milliseconds(stamp) for stamp in stamps], np.int64)
        value = np.array([float(row[1]) for row in rows])
    except FileNotFoundError as error:
        message = f"{path} is missing, but {labels} names it"
        raise LayoutError(message) from error
    except (OSError, ValueError, IndexError) as error:
        if isinstance(error, LayoutError):
            raise
        message = f"{path}: {error}"
        raise LayoutError(message) from error
    try:
        first_row = {stamp: row for row, stamp in reversed(list(enumerate(time.tolist())))}
        limits = [[first_row[_milliseconds(limit)] for limit in window] for window in windows]  # type: ignore[attr-defined]
        ordered = np.array(sorted(limits), np.int64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{labels}: {name}: a window is not [start, end] of rows of that file"
        raise LayoutError(message) from error
    return Series(category, file, stamps, time, value, ordered)


def _milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp() * 1000)


def tally(series: Series, alarm: Bools) -> Tally:
    """What the alarms of one file are worth.

    Args:
        series: The file.
        alarm: bool[n], whether the detector raised an alarm at a row.
    """
    first, last = series.windows[:, 0], series.windows[:, 1]
    width = last - first + 1.0
    rows = np.flatnonzero(alarm)
    rows = rows[rows >= series.probation]
    counted = last >= series.probation
    window = np.searchsorted(first, rows, side="right") - 1  # the window that began before, -1 for none
    began, at = window >= 0, np.maximum(window, 0)
    if not len(first):
        return Tally(0, 0, 0.0, len(rows), float(len(rows)))
    inside = began & (rows <= last[at])
    hit, where = np.unique(window[inside], return_index=True)
    early = _sigmoid(-(last[hit] - rows[inside][where] + 1) / width[hit]) / _sigmoid(np.array(-1.0))
    outside = ~inside
    after, at = rows[outside], at[outside]
    late = np.where(began[outside], _sigmoid((after - last[at]) / np.maximum(width[at] - 1, 1)), -1.0)
    return Tally(int(counted.sum()), len(hit), float(early.sum()), len(after), -float(late.sum()))


def _sigmoid(y: Floats) -> Floats:
    """From 1 long before a window's end, by 0 there, to -1 after it."""
    return np.where(y > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(y, 3.0))) - 1)  # noqa: PLR2004 - the rules' own


def write_scores(folder: Path, detector: str, series: Series, score: Floats) -> None:
    """Writes one file as the benchmark's own scorer reads it.

    Args:
        folder: Becomes the benchmark's ``results`` folder.
        detector: Name of the detector.
        series: The file.
        score: float64[n], 0 … 1.
    """
    path = folder / detector / series.category / f"{detector}_{series.file}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("timestamp", "value", "anomaly_score", "label"))
        rows = zip(series.stamps, series.value.tolist(), score.tolist(), series.label.astype(int).tolist(), strict=True)
        writer.writerows(rows)


def by_category(series: Sequence[Series], tallies: Sequence[Tally]) -> dict[str, Tally]:
    """Sums of each category, in the order of their names."""
    sums: dict[str, Tally] = {}
    for one, its in sorted(zip(series, tallies, strict=True), key=lambda pair: pair[0].category):
        sums[one.category] = sums.get(one.category, NOTHING) + its
    return sums
