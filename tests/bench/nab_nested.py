"""How good the detector's design is on files that it was not chosen on: nested cross-validation over the benchmark.

Run as ``python -m tests.bench.nab_nested NAB``; a few minutes a seed. A bank of views, twice as many as the detector
has, is computed for all files. The files are then dealt to five folds. For each fold, views and threshold are chosen on
the other four, by leaving out one view after another as long as that helps there, and only then is the fold itself
scored. The printed score is that of all folds together, weighed as the benchmark weighs a corpus.

For comparison, the detector's own views with nothing but the threshold chosen on the other folds.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway import nab
from gateway.edge.detect import calibrate

Floats = npt.NDArray[np.float64]
Tallies = list[list[nab.Tally]]  # [files][thresholds]

FOLDS = 5
LEVELS = (1, 3, 10, 30, 100, 300, 2000)
SPREADS = (30, 100)
RECORDS = ((1, 0.0), (30, 0.0), (30, 3e-4), (100, 0.0), (300, 0.0))  # level, share of its range forgotten a reading
SMOOTHED = (1, 10, 30)
SEASONS = (24, 168)  # hours
OWN = "level3 record1 record30-0.0003 record300 spread30 spread100 hour1 hour10 change1 change10 change30".split()  # noqa: SIM905
SHARES = np.geomspace(0.001, 0.03, 16)  # of rows that are beyond a threshold
SMOOTH = 8  # neighbouring thresholds that are judged together, so that no single one is chosen by luck
BINS = 16


class Bank:
    """Views of some channels, one row after another.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        self.level = {span: np.zeros(channels) for span in (*LEVELS, 5)}
        self.mean: dict[object, Floats] = {}
        self.range = {which: (np.zeros(channels), np.zeros(channels)) for which in RECORDS}
        self.cells = {"hour": np.zeros((channels, 24, BINS + 2)), "change": np.zeros((channels, BINS, BINS + 2))}
        self.season = {hours: (np.zeros((channels, hours)), np.zeros((channels, hours))) for hours in SEASONS}
        self.size = channels

    def _average(self, name: object, span: float, value: Floats, row: int) -> tuple[Floats, Floats]:
        """A mean that fades over a span of readings, before and after a value."""
        mean = self.mean.setdefault(name, np.zeros(self.size))
        before = mean[: len(value)].copy()
        mean[: len(value)] += max(1 / span, 1 / (row + 1)) * (value - before)
        return before, mean[: len(value)].copy()

    def views(self, row: int, hour: npt.NDArray[np.int64], value: Floats) -> dict[str, tuple[Floats, ...]]:
        """Views of the first len(value) channels; what has two sides has a view a side."""
        n = len(value)
        made: dict[str, tuple[Floats, ...]] = {}
        if row == 0:
            self.level = {span: np.copy(value) for span in self.level}
            self.range = {which: (value.copy(), value.copy()) for which in RECORDS}
        before = {span: level[:n].copy() for span, level in self.level.items()}
        for span, level in self.level.items():
            level[:n] += max(1 / span, 1 / (row + 1)) * (value - level[:n])
        now = {span: level[:n].copy() for span, level in self.level.items()}
        for span in (3, 10, 100):
            made[f"level{span}"] = (np.abs(now[span] - before[2000]),)
        made["step"] = (np.abs(value - before[30]),)
        drift, _ = self._average("drift", 100, now[100], row)
        made["drift"] = (np.maximum(now[100] - drift, 0), np.maximum(drift - now[100], 0))
        self._spreads(row, value, before, made)
        for which in RECORDS:
            span, forget = which
            high, low = (limit[:n] for limit in self.range[which])
            level, forgotten = now[span], (high - low) * forget
            made[f"record{span}{-forget:.4f}".removesuffix("-0.0000")] = (
                np.maximum(level - high, 0),
                np.maximum(low - level, 0),
            )
            high[:], low[:] = np.maximum(level, high - forgotten), np.minimum(level, low + forgotten)
        self._rarities(row, hour, value, before, made)
        for hours in SEASONS:
            made[f"season{hours}"] = (self._season(row, hours, hour % hours, value - before[2000]),)
        return made

    def _spreads(self, row: int, value: Floats, before: dict[int, Floats], made: dict[str, tuple[Floats, ...]]) -> None:
        for name, off in (("spread", (value - before[30]) ** 2), ("activity", np.abs(value - before[1]))):
            for span in SPREADS:
                _, spread = self._average((name, span), span, off, row)
                spread = np.sqrt(spread) if name == "spread" else spread
                usual, _ = self._average(("usual", name, span), 2000, spread, row)
                made[f"{name}{span}"] = (np.abs(spread - usual),)

    def _rarities(
        self,
        row: int,
        hour: npt.NDArray[np.int64],
        value: Floats,
        before: dict[int, Floats],
        made: dict[str, tuple[Floats, ...]],
    ) -> None:
        centred, change = value - self.level[2000][: len(value)], value - before[5]
        _, variance = self._average("variance", 2000, (value - before[2000]) * centred, row)
        _, changes = self._average("changes", 2000, change * change, row)
        varies = variance > 0
        cell = _bin(centred / np.sqrt(np.where(varies, variance, 1))) + 1
        rows = {"hour": hour % 24, "change": _bin(change / np.sqrt(np.where(changes > 0, changes, 1)))}
        channel = np.arange(len(value))
        for name, which in rows.items():
            cells = self.cells[name]
            counts = cells[channel, which]
            total = counts.sum(1)
            near = 2 * counts[channel, cell] + counts[channel, cell - 1] + counts[channel, cell + 1]
            rare = np.log10((4 * total + 0.4 * BINS) / (near + 0.4))
            rare = np.where(varies & (total > 5), np.maximum(rare, 0), 0)
            cells[channel, which, cell] += varies
            full = total + varies >= 256
            cells[channel[full], which[full]] = np.floor(cells[channel[full], which[full]] / 2)
            for span in SMOOTHED:
                made[f"{name}{span}"] = (self._average((name, span), span, rare, row)[1],)

    def _season(self, row: int, hours: int, hour: npt.NDArray[np.int64], value: Floats) -> Floats:
        """What is left, over ten readings, when the mean of that hour is taken off; 0 where that does not help."""
        channel = np.arange(len(value))
        mean, seen = self.season[hours]
        left = np.where(seen[channel, hour] > 0, value - mean[channel, hour], value)
        seen[channel, hour] += 1
        mean[channel, hour] += np.maximum(0.02, 1 / seen[channel, hour]) * (value - mean[channel, hour])
        _, with_it = self._average(("with", hours), 300, np.abs(left), row)
        _, without = self._average(("without", hours), 300, np.abs(value), row)
        _, smooth = self._average(("left", hours), 10, left, row)
        return np.abs(smooth) * np.clip(3 * (1 - with_it / np.where(without > 0, without, 1)), 0, 1)


def _bin(z: Floats) -> npt.NDArray[np.int64]:
    return np.clip((z + 3) / 6 * BINS, 0, BINS - 1).astype(np.int64)


def surprises(corpus: Sequence[nab.Series]) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Squared surprise of every view at every row, by view and file; the longest file comes first."""
    length = [len(series.value) for series in corpus]
    bank, own, names = Bank(len(corpus)), None, []
    said: dict[str, list[npt.NDArray[np.float32]]] = {}
    for row in range(length[0]):
        n = sum(size > row for size in length)
        hour = np.array([series.time[row] for series in corpus[:n]]) // 3_600_000
        made = bank.views(row, hour, np.array([series.value[row] for series in corpus[:n]]))
        views = np.array([side for sides in made.values() for side in sides])
        if own is None:
            own = np.zeros((3 * len(views), n))
            names = [name for name, sides in made.items() for _ in sides]
            said = {name: [np.zeros(size, np.float32) for size in length] for name in made}
        for view, place, surprise in zip(*calibrate(own, 0, row + 1.0, views), strict=True):
            said[names[view]][place][row] = surprise * surprise
    return said


def decide(series: nab.Series, evidence: Floats, thresholds: Floats) -> list[nab.Tally]:
    """What the detector's rule makes of evidence, at each threshold."""
    age = np.arange(len(evidence))
    faded = np.log1p(-np.log(2) / np.clip(0.06 * age, 60, 600)).cumsum()
    alarm = np.zeros((len(thresholds), len(evidence)), bool)
    memory, last, before = np.zeros(len(thresholds)), np.full(len(thresholds), -1000), 0
    for row in np.flatnonzero(evidence > thresholds[0]).tolist():
        now = evidence[row]
        memory *= np.exp(faded[row] - faded[before])
        raised = (now > thresholds) & (now > memory) & (row - last > 20)
        np.maximum(memory, now, out=memory)
        memory[raised], last[raised], before = 1.5**0.5 * now, row, row
        alarm[:, row] = raised
    return [nab.tally(series, one) for one in alarm]


class Trials:
    """Scores sets of views, each set once.

    Args:
        corpus: The files.
        said: Squared surprise by view and file.
    """

    def __init__(self, corpus: Sequence[nab.Series], said: dict[str, list[npt.NDArray[np.float32]]]) -> None:
        self.corpus, self.said = corpus, said
        self._done: dict[frozenset[str], Tallies] = {}

    def tallies(self, views: frozenset[str]) -> Tallies:
        """Of every file at every threshold."""
        if views not in self._done:
            evidence = [
                np.sqrt(sum(self.said[view][file].astype(float) for view in sorted(views)))
                for file in range(len(self.corpus))
            ]
            thresholds = np.quantile(np.concatenate(evidence), 1 - SHARES)[::-1]
            self._done[views] = [
                decide(series, its, np.sort(thresholds)) for series, its in zip(self.corpus, evidence, strict=True)
            ]
        return self._done[views]

    def curve(self, views: frozenset[str], files: Sequence[int], profile: str) -> Floats:
        """Score of some files at every threshold."""
        tallies = self.tallies(views)
        sums = [sum((tallies[file][place] for file in files), nab.NOTHING) for place in range(len(SHARES))]
        return np.array([its.score(nab.PROFILES[profile]) or 0.0 for its in sums])

    def worth(self, views: frozenset[str], files: Sequence[int]) -> float:
        """How good a set of views is on some files: at the best few neighbouring thresholds."""
        both = 0.7 * self.curve(views, files, "standard") + 0.3 * self.curve(views, files, "reward_low_FP_rate")
        return float(np.convolve(both, np.ones(SMOOTH) / SMOOTH, "valid").max())

    def choose(self, files: Sequence[int]) -> frozenset[str]:
        """Leaves out one view after another, as long as it helps on these files."""
        views = frozenset(self.said)
        best = self.worth(views, files)
        while len(views) > 1:
            value, fewer = max((self.worth(views - {view}, files), views - {view}) for view in sorted(views))
            if value <= best:
                break
            best, views = value, fewer
        return views

    def nested(self, folds: Sequence[int], choose: Callable[[Sequence[int]], frozenset[str]]) -> dict[str, float]:
        """Score of all folds, each with what was chosen on the others."""
        total = nab.NOTHING
        for fold in range(FOLDS):
            train = [file for file, its in enumerate(folds) if its != fold]
            views = choose(train)
            curve = np.convolve(self.curve(views, train, "standard"), np.ones(3) / 3, "valid")
            place = 1 + int(curve.argmax())
            tallies = self.tallies(views)
            total += sum((tallies[file][place] for file, its in enumerate(folds) if its == fold), nab.NOTHING)
            print(f"  fold {fold + 1}: {len(views)} views: {' '.join(sorted(views))}", flush=True)
        return {name: total.score(profile) or 0.0 for name, profile in nab.PROFILES.items()}


def deal(corpus: Sequence[nab.Series], seed: int) -> list[int]:
    """Deals the files of each category to folds in turn."""
    draw = np.random.default_rng(seed)
    folds, turn = [0] * len(corpus), 0
    for category in sorted({series.category for series in corpus}):
        files = [file for file, series in enumerate(corpus) if series.category == category]
        for file in draw.permutation(files).tolist():
            folds[file], turn = turn % FOLDS, turn + 1
    return folds


def main() -> None:
    """Prints scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the benchmark: data/ and labels/")
    parser.add_argument("--seeds", type=int, default=1, help="how often the files are dealt anew")
    arguments = parser.parse_args()
    corpus = sorted(nab.read(arguments.folder), key=lambda series: -len(series.value))
    trials = Trials(corpus, surprises(corpus))
    for seed in range(arguments.seeds):
        folds = deal(corpus, seed)
        for label, choose in (("the detector's views", lambda _: frozenset(OWN)), ("views chosen", trials.choose)):
            scores = trials.nested(folds, choose)
            print(
                f"seed {seed}, {label}:", ", ".join(f"{name} {score:.2f}" for name, score in scores.items()), flush=True
            )


if __name__ == "__main__":
    main()
