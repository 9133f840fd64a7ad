"""Dropout: readings fall to zero, or to another constant, in a row or again and again, and come back.

What is lost falls in one step and comes back in one step, and nothing is ever between it and what is measured. A true
zero is reached on a slope, is had by the neighbours as well, or is nothing new to the channel. Zero is what most
sensors send for nothing, so steps there and back need not be rare if zeros are; another constant has to be reached and
left by steps that are very rare for the channel.
"""

import numpy as np

from gateway.edge.faults.look import (
    APART,
    COMMON_ACTIVITY,
    COUNT,
    EXCESS,
    LAST,
    MEAN,
    QUICK,
    STEADY,
    STEP,
    WINDOW,
    Look,
    What,
    Window,
)
from gateway.edge.readings import Flags, Floats, Ints

_OFTEN = 0.7  # share of steps that are none, from which a channel counts rather than measures
_UNQUIET = 2.0  # of the usual activity of the neighbours: in a storm, anything jumps
# Of zeros:
_LATER = 3  # readings after the last, when they are judged: by then a slope that leads away is seen
_LEAST = 3  # lost readings
_SELDOM = 1.3  # decades by which a run of zeros is rare at least
_FIRST = 0.3  # runs of zeros that stand for none
_RARITY = 0.7  # share of the decades by which a run of zeros is rare that counts
_BELOW = -10.0  # quantities that may be less than this are not zero for nothing: both steps have to be rare
_SLOPE = 0.6, 0.8  # on a slope to zero, the last value is less than this share of the one before, and that one of its
_MOST = 4.0  # decades that a step counts at most
_OTHER = 0.5  # share of the decades of the less steep of two steps that counts
_EVIDENCE = 3.7  # decades of all this, from which they are lost
_RARE = 1.0  # decades of the less steep step
_TIED = 0.4  # correlation with neighbours that tell
_EXPECTED = 1.35, 0.25  # usual distances from zero, and share of the usual size, that neighbours let expect at least
# Of another constant:
_AROUND = 3  # readings before and after each lost one, that have to be far from it, and on one side
_STEPS = 8.0  # mean steps
_DECADES = 4.0  # by which a step as large is rare
_FASTER = 1.5  # mean steps of those around
_MANY = 4  # lost readings
_SHARE = 0.3  # of the median distance, that the least one is

UNTIL, ENTRY, STILL, AGO, FALL, RUNS = range(6)


class Dropout:
    """Calls constant readings that are far from all readings around, once the channel came back from them.

    Its rows are the time until which readings have been called, ms, the size of the last step that was one,
    whether the last was none, the readings since the last zero, the last value before zero, and how often it was
    truly zero.
    """

    rows = 6

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at what comes back with a large step from a value that came twice, and at zeros some readings later."""
        ago, zero = own[AGO], (look.value == 0).nonzero()[0]
        ago += 1
        if len(zero):
            fell = zero[look.own[LAST][zero] != 0]
            own[FALL, fell] = look.own[LAST][fell]
            ago[zero] = 0
        due = (ago == _LATER).nonzero()[0]
        if len(due):
            due = due[(look.own[STEADY][due] < _OFTEN) & ~(look.beside[COMMON_ACTIVITY][due] > _UNQUIET)]
            if len(due):
                self._try_zeros(look, own, due)
        still = own[STILL]
        back = still.nonzero()[0]
        if len(back):
            back = back[(look.size[back] > _STEPS * look.own[STEP][back]) & (look.own[LAST][back] != 0)]
        if len(back):
            back = back[~look.young[back] & (look.own[STEADY][back] < _OFTEN)]
            back = back[~(look.beside[COMMON_ACTIVITY][back] > _UNQUIET)]
            back = back[_may_be_lost(look, own, back)]
        if len(back):
            self._try(look, own, back)
        still[:] = look.still
        on = look.still.nonzero()[0]
        before = own[ENTRY][on]
        own[ENTRY] = look.size
        own[ENTRY, on] = before

    @staticmethod
    def _try_zeros(look: Look, own: Floats, places: Ints) -> None:
        """Calls zeros that were lost, once values have been there again for a while."""
        window = look.window(places, WINDOW)
        lost = window.value == 0
        found = _are_new(look, own, places, window, lost)
        own[RUNS, places[~found]] += 1
        for row in np.flatnonzero(found).tolist():
            _say(look, own, int(places[row]), window.time[row], lost[row])

    @staticmethod
    def _try(look: Look, own: Floats, places: Ints) -> None:
        """Calls what was lost to another constant."""
        window = look.window(places, WINDOW)
        off = window.value - look.own[LAST, places, None]
        every = off == 0
        some = every.sum(1) >= _MANY
        if not some.any():
            return
        places, off, every = places[some], off[some], every[some]
        last = np.zeros_like(every)
        last[:, :-1] = np.logical_and.accumulate(every[:, -2::-1], 1)[:, ::-1]
        # what was lost again and again is more; but the same value of the hours before is not to hide what is lost now
        found_all, found_last = (_is_lost(look, own, places, off, lost) for lost in (every, last))
        times = window.time[some]
        for row in np.flatnonzero(found_all | found_last).tolist():
            _say(look, own, int(places[row]), times[row], (every if found_all[row] else last)[row])


def _say(look: Look, own: Floats, place: int, time: Floats, lost: Flags) -> None:
    """Calls lost readings of a channel, at their times, that have not been called."""
    number = lost.astype(np.int64)
    begins, ends = np.flatnonzero(np.diff(number, prepend=0) > 0), np.flatnonzero(np.diff(number) < 0)
    for since, until in zip(time[begins].tolist(), time[ends].tolist(), strict=True):
        if until > own[UNTIL, place]:
            look.say(place, since, until, What.DROPOUT, 0.95, ["constant", "steps there and back"])
    own[UNTIL, place] = time[ends[-1]]


def _are_new(look: Look, own: Floats, places: Ints, window: Window, lost: Flags) -> Flags:
    """bool[m], whether a channel is zero as it hardly ever is, no slope leads there, and neighbours tell otherwise.

    Args:
        look: The readings.
        own: Rows.
        places: int64[m], of channels.
        window: Of the latest k readings.
        lost: bool[m, k], which of them are zero.
    """
    many, value = lost.sum(1), window.value
    size = np.abs(value)
    into, out = ~lost[:, :-1] & lost[:, 1:], lost[:, :-1] & ~lost[:, 1:]
    slope = (_slopes(size) & into[:, 2:]).any(1) | (_slopes(size[:, ::-1]) & out[:, -3::-1]).any(1)
    fall = np.where(lost[:, 0], np.abs(own[FALL, places]), 0)[:, None]
    ends = np.concatenate((size[:, :-1] * into, size[:, 1:] * out, fall), 1)
    ends.partition(ends.shape[1] - 2, 1)
    steep, other = (np.minimum(_decades(look, places, ends[:, place]), _MOST) for place in (-1, -2))
    rare = np.log10(look.own[COUNT, places] / (own[RUNS, places] + _FIRST))
    score = steep + _OTHER * other + _RARITY * rare - np.log10(np.maximum(into.sum(1), 1))
    found: Flags = (score >= _EVIDENCE) & (many >= _LEAST) & ~slope & ~look.young[places]
    found &= rare > _SELDOM
    found &= (value > 0).any(1) != (value < 0).any(1)
    found &= (look.rules.suspect_low[look.rule[places]] > _BELOW) | (other > _RARE)
    if not found.any():
        return found
    said = _middle(np.where(lost & np.isfinite(window.common), window.common, np.nan))
    expected = look.own[MEAN, places] + look.shown[places] * said
    heard = np.isfinite(said) & (look.tie[places] > _TIED)
    least = np.maximum(
        _EXPECTED[0] * look.own[APART, places] * look.spread[places],
        _EXPECTED[1] * _middle(np.where(lost, np.nan, size)),
    )
    found &= ~heard | (np.abs(expected) > least)
    return found


def _slopes(size: Floats) -> Flags:
    """bool[m, k - 3], whether a reading, from the third to the last but one, ends a slope."""
    last, before, first = size[:, 2:-1], size[:, 1:-2], size[:, :-3]
    slopes: Flags = (last < _SLOPE[0] * before) & (before < _SLOPE[1] * first)
    return slopes


def _may_be_lost(look: Look, own: Floats, places: Ints) -> Flags:
    """bool[m], whether the steps there and back are large enough."""
    nearest = np.minimum(look.size[places], own[ENTRY][places])
    with np.errstate(invalid="ignore", divide="ignore"):
        may: Flags = nearest / look.own[STEP][places] >= _STEPS
    may &= _decades(look, places, nearest) >= _DECADES
    return may


def _is_lost(look: Look, own: Floats, places: Ints, off: Floats, lost: Flags) -> Flags:
    """bool[m], whether readings are lost.

    Args:
        look: The readings.
        own: Rows.
        places: int64[m], of channels.
        off: float64[m, k], by how much the latest readings are off the constant value.
        lost: bool[m, k], which of them may be lost.
    """
    around = np.zeros_like(lost)
    for shift in range(1, _AROUND + 1):
        around[:, shift:] |= lost[:, :-shift]
        around[:, :-shift] |= lost[:, shift:]
    around &= ~lost
    one_sided = (around & (off > 0)).any(1) != (around & (off < 0)).any(1)
    far = np.where(around, np.abs(off), np.nan)
    # the step there is known even if it was before the first of the readings
    there = own[ENTRY, places]
    nearest = np.minimum(np.nanmin(far, 1), there)
    share = nearest / np.maximum(_middle(far), there * lost[:, 0])
    # where it goes that fast all around, it goes there by itself
    pairs = around[:, 1:] & around[:, :-1]
    pace = (np.abs(np.diff(off)) * pairs).sum(1) / np.maximum(pairs.sum(1), 1)
    found: Flags = one_sided & (nearest > _FASTER * pace) & (lost.sum(1) >= _MANY) & (share >= _SHARE)
    found &= (nearest >= _STEPS * look.own[STEP, places]) & (_decades(look, places, nearest) >= _DECADES)
    return found


def _middle(values: Floats) -> Floats:
    """float64[m], medians of rows, NaN left out; several times faster than ``nanmedian``."""
    ordered, count = np.sort(values, 1), np.isfinite(values).sum(1)  # NaN come last
    every = np.arange(len(values))
    middle: Floats = (ordered[every, np.maximum(count - 1, 0) // 2] + ordered[every, count // 2]) / 2
    return middle


def _decades(look: Look, places: Ints, size: Floats) -> Floats:
    """float64[m], decades by which steps of a size are rare, also where they are not: 2 for one in a hundred."""
    quick, excess = look.own[QUICK, places], look.own[EXCESS, places]
    with np.errstate(invalid="ignore", divide="ignore"):
        rare = 2 + np.where(size > quick, (size - quick) / (2.302585 * excess), 0)
        decades: Floats = np.where(size > quick, rare, 2 * size / quick)
    return decades
