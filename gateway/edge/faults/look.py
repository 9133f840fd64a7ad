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
        young: bool[n], of which too little is known for a verdict.
        spread: float64[n], standard deviation.
        verdicts: What was said.
        fault: uint8[n], the fault that each reading is part of.
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
        count = own[COUNT]
        self.young: Flags = count < LEARNING
        self.elapsed: Floats = time - own[TIME]
        self.gap: Flags = self.elapsed > 4.5 * own[INTERVAL]
        self.step: Floats = value - own[LAST]
        self.size: Floats = np.abs(self.step)
        self.spread: Floats = np.sqrt(own[VARIANCE])

    @cached_property
    def rarity(self) -> Floats:
        """float64[n], decades by which the step is rare for its channel; 0 up to the size of one in a hundred."""
        excess = self.own[EXCESS]
        with np.errstate(invalid="ignore", divide="ignore"):
            decades = 2 + (self.size - self.own[QUICK]) / (2.302585 * excess)
        return np.where((excess > 0) & (self.size > self.own[QUICK]), decades, 0.0)

    @cached_property
    def slope(self) -> Floats:
        """float64[n], how much of the neighbours' level a channel shows: 0 without neighbours."""
        square = self.own[COMMON_SQUARE]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.clip(self.own[COMMON_PRODUCT] / square, 0, 1.5)
        return np.where((square > 0) & (self.own[PAIRS] > LEARNING), slope, 0.0)

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

    def back(self, steps: int, places: Ints | slice = slice(None)) -> Floats:
        """float64[m], the value so many readings ago; 0 is this one. Undefined before the first."""
        channel = self.channel[places]
        return self._history.values[channel, (self.own[COUNT, places].astype(np.int64) - steps) % WINDOW]

    def window(self, places: Ints, readings: int) -> "Window":
        """The latest readings of some of the channels, at most ``WINDOW``; those before the first are undefined."""
        return self._history.window(
            self.channel[places], self.own[COUNT, places].astype(np.int64), self.time[places], readings
        )

    def level(self, places: Ints, values: Floats) -> Floats:
        """float64[m, k], values in units of each channel's spread."""
        with np.errstate(invalid="ignore", divide="ignore"):
            level: Floats = (values - self.own[MEAN, places, None]) / self.spread[places, None]
        return level

    def begin(self, place: int, what: What, since: float, confidence: float, reasons: Sequence[str]) -> None:
        """A fault began, was just recognised, and lasts: until :meth:`end`, readings are part of it."""
        self.own[CALLED, place], self.own[SINCE, place] = what, since
        self.fault[place] = what
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


class Window(NamedTuple):
    """The latest readings of some channels, from old to new.

    Attributes:
        value: float64[m, k].
        time: float64[m, k], ms UTC.
        common: float32[m, k], level of the neighbours; NaN where not known, as of the newest.
    """

    value: Floats
    time: Floats
    common: Singles


class History:
    """The last readings of every channel."""

    def __init__(self) -> None:
        self.values: Floats = np.zeros((0, WINDOW))
        self.elapsed: Singles = np.zeros((0, WINDOW), np.float32)
        self.commons: Halves = np.zeros((0, WINDOW), np.float16)

    def make_room(self, channels: int) -> None:
        """Makes room for more channels."""
        for name in ("values", "elapsed", "commons"):
            old = getattr(self, name)
            new = np.zeros((channels, WINDOW), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def add(self, channel: Ints, count: Ints, value: Floats, elapsed: Floats, common: Floats) -> None:
        """Remembers a reading of each of some channels; what the neighbours said belongs to the reading before."""
        place = count % WINDOW
        self.values[channel, place] = value
        self.elapsed[channel, place] = elapsed
        self.commons[channel, place] = np.nan
        self.commons[channel, (count - 1) % WINDOW] = common

    def window(self, channel: Ints, count: Ints, time: Floats, readings: int) -> Window:
        """The latest readings of channels, from old to new."""
        at = (count[:, None] - np.arange(readings - 1, -1, -1)) % WINDOW
        rows = channel[:, None]
        later = np.zeros((len(channel), readings))
        # a reading's time is that of the newest, less what elapsed between
        later[:, :-1] = np.cumsum(self.elapsed[rows, at[:, :0:-1]].astype(np.float64), 1)[:, ::-1]
        return Window(self.values[rows, at], time[:, None] - later, self.commons[rows, at].astype(np.float32))


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
