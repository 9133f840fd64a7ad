"""What a test for a fault looks at: one reading of each of some channels, with all that is known of each channel."""

from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Bytes, Flags, Floats, Indices, Ints, Rules

Singles = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

WINDOW = 44
"""Readings of a channel that are remembered."""
LEARNING = 100
"""Readings of a channel before which no fault is called."""


class What(IntEnum):
    """What a verdict says."""

    NOTHING = 0
    STUCK = 1
    SPIKE = 2
    DRIFT = 3
    OFFSET = 4
    NOISE = 5
    DROPOUT = 6
    UNIT = 7
    SKEW = 8
    EVENT = 9
    UNDECIDED = 10


def confidence(odds: float) -> float:
    """The probability, 0 to 1, that log-odds stand for."""
    return float(1 / (1 + np.exp(-odds)))


class Verdict(NamedTuple):
    """What is said of some readings of a channel.

    Attributes:
        channel: Its number.
        since: Time of the first reading concerned, ms UTC.
        until: Of the last one.
        time: When it was known: of the reading that decided.
        what: A fault, an event, or undecided.
        confidence: 0 to 1.
        reasons: Names of what it rests upon.
    """

    channel: int
    since: int
    until: int
    time: int
    what: What
    confidence: float
    reasons: tuple[str, ...]


# Rows of a channel's state that every test may read; those of the tests follow.
(
    COUNT,  # readings
    TIME,  # of the last one, ms
    INTERVAL,  # usual time between two, ms
    LAST,  # value
    MEAN,  # over two weeks
    VARIANCE,
    STEP,  # mean size of a step
    STEADY,  # share of steps that are none
    ZEROS,  # share of values that are zero
    ACTIVITY,  # mean size of the latest steps
    TURNS,  # share of the latest steps that went against the one before
    SIGN,  # of the last step
    QUICK,  # the size that one step in a hundred is above
    EXCESS,  # by how much those are above it on average
    JUMPED,  # time of the last rare step, ms
    CALLED,  # the fault that lasts, a What
    SINCE,  # its first reading, ms
    HELD,  # count of readings until which hardly anything is learnt
    PAIRS,  # readings that had neighbours
    COMMON_SQUARE,  # mean square of what the neighbours said
    COMMON_PRODUCT,  # mean product of that and the own level
    APART,  # mean distance from what the neighbours let expect
) = range(22)
OWN = 22
# What is known of the neighbours of a channel as of the last minute.
COMMON, COMMON_ACTIVITY, COMMON_JUMPS = range(3)


class Look:
    """One reading of each of n channels. Everything about a channel is from before this reading, unless stated.

    Levels are in units of a channel's spread, *z* = (value - mean) / spread; what the neighbours say is the median of
    their levels. It is known of every reading but the newest.

    Attributes:
        channel: int64[n], numbers, each once.
        rule: int64[n], places in ``rules``.
        rules: Limits of quantities.
        sensor: int64[n], to which sensor each channel belongs.
        time: float64[n], ms UTC.
        value: float64[n].
        own: float64[rows, n], the state of each channel; a test may write its own rows and ``HELD``.
        beside: float64[3, n], level, activity (relative to usual) and share that jumped, of neighbours; or NaN.
        step: float64[n], change from the reading before.
        size: float64[n], how large it is.
        elapsed: float64[n], time from the reading before, ms.
        gap: bool[n], whether that is far more than usual.
        still: bool[n], whether there is no change.
        young: bool[n], of which too little is known for a verdict.
        some_young: Whether there are any.
        spread: float64[n], standard deviation.
        paired: bool[n], which have neighbours.
        all_paired, some_paired: Whether all have, or some.
        verdicts: What was said.
        fault: uint8[n], the fault that each reading is part of.
        some_faulty: Whether some fault lasts.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - columns
        self,
        channel: Ints,
        rule: Indices,
        rules: Rules,
        sensor: Indices,
        time: Floats,
        value: Floats,
        own: Floats,
        beside: Floats,
        history: "History",
    ) -> None:
        self.channel, self.rule, self.rules, self.sensor = channel, rule, rules, sensor
        self.time, self.value, self.own, self.beside = time, value, own, beside
        self._history = history
        self.verdicts: list[Verdict] = []
        self.fault: Bytes = own[CALLED].astype(np.uint8)
        self.some_faulty = bool(np.count_nonzero(self.fault))
        self.young: Flags = own[COUNT] < LEARNING
        self.some_young = np.count_nonzero(self.young) > 0
        self.elapsed: Floats = time - own[TIME]
        self.gap: Flags = self.elapsed > 4.5 * own[INTERVAL]
        self.step: Floats = value - own[LAST]
        self.size: Floats = np.abs(self.step)
        self.still: Flags = self.size == 0
        self.spread: Floats = np.sqrt(own[VARIANCE])
        self.paired: Flags = np.isfinite(beside[COMMON])
        many = np.count_nonzero(self.paired)
        self.all_paired, self.some_paired = many == len(time), many > 0

    @cached_property
    def quick(self) -> Ints:
        """int64[m], places whose step is beyond the size of one in a hundred."""
        quick: Ints = np.nonzero(self.size > self.own[QUICK])[0]
        return quick

    @cached_property
    def rarity(self) -> Floats:
        """float64[n], decades by which the step is rare for its channel; 0 up to the size of one in a hundred."""
        rarity = np.zeros(len(self.size))
        at = self.quick
        excess = self.own[EXCESS].take(at)
        if np.count_nonzero(excess) < len(at):
            at = at[excess > 0]
            excess = self.own[EXCESS].take(at)
        rarity[at] = 2 + (self.size.take(at) - self.own[QUICK].take(at)) / (2.302585 * excess)
        return rarity

    @cached_property
    def common(self) -> Floats:
        """float64[n], what the neighbours say, 0 without any."""
        common: Floats = self.beside[COMMON]
        return common if self.all_paired else np.where(self.paired, common, 0)

    @cached_property
    def told(self) -> Flags:
        """bool[n], which channels had enough readings with neighbours to know what those tell of them."""
        told: Flags = self.own[PAIRS] > LEARNING
        return told

    @cached_property
    def slope(self) -> Floats:
        """float64[n], how much of the neighbours' level a channel shows: 0 without neighbours."""
        square = self.own[COMMON_SQUARE]
        known = (square > 0) & self.told
        many = np.count_nonzero(known)
        if not many:
            return np.zeros(len(square))
        if many == len(known):
            return np.asarray(np.minimum(np.maximum(self.own[COMMON_PRODUCT] / square, 0), 1.5))
        slope = np.minimum(np.maximum(self.own[COMMON_PRODUCT] / np.where(known, square, 1), 0), 1.5)
        return np.where(known, slope, 0.0)

    @cached_property
    def shown(self) -> Floats:
        """float64[n], the same in the channel's unit; all of it, as long as it is not known how much."""
        if np.count_nonzero(self.told) == len(self.told):
            return np.asarray(self.slope * self.spread)
        return np.asarray(np.where(self.told, self.slope, 1) * self.spread)

    @cached_property
    def level_before(self) -> Floats:
        """float64[n], level of the reading before; 0 of a channel without spread."""
        off = self.own[LAST] - self.own[MEAN]
        if np.count_nonzero(self.spread) == len(off):
            off /= self.spread
        else:
            off /= np.where(self.spread > 0, self.spread, np.inf)
        return np.asarray(off)

    @cached_property
    def tie(self) -> Floats:
        """float64[n], correlation of the level with the neighbours'."""
        square = self.own[COMMON_SQUARE]
        with np.errstate(invalid="ignore", divide="ignore"):
            tie = np.clip(self.own[COMMON_PRODUCT] / np.sqrt(square), -1, 1)
        return np.where((square > 0) & (self.own[PAIRS] > LEARNING), tie, 0.0)

    def company(self, of_channels: Floats) -> Floats:
        """float64[n], the mean over the other quantities of the same sensor; NaN values do not count, NaN if none."""
        known = np.isfinite(of_channels)
        place = np.unique(self.sensor, return_inverse=True)[1]
        many = np.bincount(place, known)[place] - known
        total = np.bincount(place, np.where(known, of_channels, 0))[place] - np.where(known, of_channels, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = total / many
        return mean

    def back(self, steps: int | Ints, places: Ints | slice = slice(None)) -> Floats:
        """float64[m], the value so many readings ago; 0 is this one. Undefined before the first."""
        channel = self.channel[places]
        value: Floats = self._history.values[(self.own[COUNT][places].astype(np.int64) - steps) % WINDOW, channel]
        return value

    def window(self, places: Ints, readings: int) -> "Window":
        """The latest readings of some of the channels, at most ``WINDOW``; those before the first are undefined."""
        count = self.own[COUNT][places].astype(np.int64)
        return Window(self._history, self.channel[places], count, self.time[places], readings)

    def level(self, places: Ints, values: Floats) -> Floats:
        """float64[m, k], values in units of each channel's spread."""
        with np.errstate(invalid="ignore", divide="ignore"):
            level: Floats = (values - self.own[MEAN, places, None]) / self.spread[places, None]
        return level

    def begin(self, place: int, what: What, since: float, confidence: float, reasons: Sequence[str]) -> None:
        """A fault began, was just recognised, and lasts: until :meth:`end`, readings are part of it."""
        self.own[CALLED, place], self.own[SINCE, place] = what, since
        self.fault[place] = what
        self.some_faulty = True
        self.say(place, since, self.time[place], what, confidence, reasons)

    def end(self, places: Ints) -> None:
        """The faults that last in these channels are over, which is told; these readings are no part of them."""
        for place in places[self.own[CALLED, places] > 0].tolist():
            self.say(place, self.own[SINCE, place], self.own[TIME, place], What.NOTHING, 1.0, ("over",))
        self.own[CALLED, places] = 0
        self.fault[places] = 0

    def say(  # noqa: PLR0913, PLR0917 - a verdict's
        self, place: int, since: float, until: float, what: What, confidence: float, reasons: Sequence[str]
    ) -> None:
        """A verdict on readings of the past."""
        channel, now = int(self.channel[place]), int(self.time[place])
        self.verdicts.append(Verdict(channel, int(since), int(until), now, what, confidence, tuple(reasons)))


class Window:
    """The latest readings of some channels, from old to new; each column is read when it is asked for.

    Args:
        history: Of all channels; it must not be added to meanwhile.
        channel: int64[m].
        count: int64[m], readings of each so far.
        time: float64[m], of the newest, ms UTC.
        readings: How many, k.
    """

    def __init__(self, history: "History", channel: Ints, count: Ints, time: Floats, readings: int) -> None:
        self._history, self._channel, self._count, self._time, self._readings = history, channel, count, time, readings

    def some(self, rows: Ints) -> "Window":
        """That of some of the channels."""
        return Window(self._history, self._channel[rows], self._count[rows], self._time[rows], self._readings)

    @cached_property
    def _at(self) -> Ints:
        """int64[m, k], where they are in a column of the history."""
        back = np.arange(1 - self._readings, 1)
        slot = (self._count[:, None] + back) % WINDOW
        return np.asarray(slot * self._history.values.shape[1] + self._channel[:, None])

    @cached_property
    def value(self) -> Floats:
        """float64[m, k]."""
        return self._history.values.reshape(-1)[self._at]

    def elapsed(self, back: int) -> Singles:
        """float32[m], time from the reading before to the one so many readings ago, ms; 0 is the newest."""
        return self._history.elapsed.reshape(-1)[self._at[:, -1 - back]]

    @cached_property
    def time(self) -> Floats:
        """float64[m, k], ms UTC."""
        later = np.zeros((len(self._channel), self._readings))
        # a reading's time is that of the newest, less what elapsed between
        elapsed = self._history.elapsed.reshape(-1)[self._at[:, :0:-1]]
        later[:, :-1] = np.cumsum(elapsed.astype(np.float64), 1)[:, ::-1]
        return np.asarray(self._time[:, None] - later)

    @cached_property
    def common(self) -> Singles:
        """float32[m, k], level of the neighbours; NaN where not known, as of the newest."""
        return self._history.commons.reshape(-1)[self._at].astype(np.float32)


class History:
    """The last readings of every channel.

    Attributes:
        values: float64[``WINDOW``, channels]; a channel's readings come in turn, its nth is at n % ``WINDOW``.
        elapsed: float32, time from the reading before, ms.
        commons: float16, level of the neighbours; NaN where not known.
    """

    def __init__(self) -> None:
        self.values: Floats = np.zeros((WINDOW, 0))
        self.elapsed: Singles = np.zeros((WINDOW, 0), np.float32)
        self.commons: Halves = np.zeros((WINDOW, 0), np.float16)

    def make_room(self, channels: int) -> None:
        """Makes room for more channels."""
        for name in ("values", "elapsed", "commons"):
            old = getattr(self, name)
            new = np.zeros((WINDOW, channels), old.dtype)
            new[:, : old.shape[1]] = old
            setattr(self, name, new)

    def add(self, which: slice | Ints, count: Floats | float, value: Floats, elapsed: Floats, common: Floats) -> None:
        """Remembers a reading of each of some channels; what the neighbours said belongs to the reading before.

        Args:
            which: The channels.
            count: float64[n], how many readings each has had with this one; or the same of all, which is faster.
            value: float64[n].
            elapsed: float64[n], time from the reading before, ms.
            common: float64[n], level of the neighbours.
        """
        at: int | Ints
        if isinstance(count, float):
            at = int(count) % WINDOW
        else:
            at = count.astype(np.int64) % WINDOW
            which = np.arange(which.start, which.stop) if isinstance(which, slice) else which
        self.values[at, which], self.elapsed[at, which] = value, elapsed
        self.commons[at, which] = np.nan
        self.commons[at - 1, which] = common


@runtime_checkable
class Keeping(Protocol):
    """A test that keeps more of a channel than its rows.

    Attributes:
        kept: float32[channels, k].
    """

    kept: Singles

    def make_room(self, channels: int) -> None:
        """Makes room for so many channels."""


class Test(Protocol):
    """A test for one fault.

    Attributes:
        rows: How many rows of state it keeps for a channel; they begin with 0.
    """

    rows: int

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at readings; says, begins and ends faults of its kind.

        Args:
            look: The readings.
            own: float64[rows, n], its own rows of state, to be written in place.
        """
