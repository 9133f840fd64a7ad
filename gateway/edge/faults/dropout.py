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
_OUT = 4.0  # spreads that zero is off the mean: then it is nothing that a channel counts to
# Of zeros:
_LATER = 3  # readings after the last, when they are judged: by then a slope that leads away is seen
_LEAST = 3  # lost readings
_SELDOM = 1.3  # decades by which a run of zeros is rare at least
_FIRST = 0.3  # runs of zeros that stand for none
_BELOW = -10.0  # quantities that may be less than this are not zero for nothing: both steps have to be rare
_SLOPE = 0.6, 0.8  # on a slope to zero, the last value is less than this share of the one before, and that one of its
_MOST = 4.0  # decades that a step counts at most
_OTHER = 0.5  # share of the decades of the less steep of two steps that counts
_SAID = 2.0, 6.0  # usual distances from zero that neighbours let expect, from which, and up to which, they are evidence
_TELLS = 0.3  # decades for each
_NOTHING = 0.1  # share of the usual size around, up to which a value is next to nothing
_EVIDENCE = 4.3  # decades of all this, from which they are lost,
_AGAIN, _EVIDENCE_AGAIN = 3, 6.0  # and, lost so often, even where neighbours are not far from zero
_SURELY, _STEEP = 5.0, 3.0  # usual distances of the neighbours, and decades of one step: the other may be a slope
_BESIDE = 2  # readings before and after each lost one, that have to be on one side of zero
_RARE = 1.0  # decades of the less steep step
_TIED = 0.4  # correlation with neighbours that tell
_EXPECTED = 1.35, 0.25  # usual distances from zero, and share of the usual size, that neighbours let expect at least
_AROUND = 3  # readings before and after each lost one that are around it
_FASTER = 1.5  # mean steps of those around, that the steps there and back are larger than
# Of another constant:
_STEPS = 8.0  # mean steps
_DECADES = 4.0  # by which a step as large is rare
_DECADES_SAME = 2.0  # the same, if it is unlikely by so many decades
_UNLIKELY = 3.5  # that as many readings are the same, of a channel
_LEAST_STILL, _HARDLY_STILL = 0.01, 0.1  # whose share of steps that are none is at least, and at most, so large
_MANY = 4  # lost readings
_SHARE = 0.3  # of the median distance, that the least one is
_FINEST = 1e-9  # no less is told apart

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
            measures = look.own[STEADY][due] < _OFTEN
            measures |= np.abs(look.own[MEAN][due]) > _OUT * look.spread[due]
            due = due[measures]
            if len(due):
                self._try_zeros(look, own, due)
        still = own[STILL]
        back = still.nonzero()[0]
        if len(back):
            back = back[(look.size[back] > _STEPS * look.own[STEP][back]) & (look.own[LAST][back] != 0)]
        if len(back):
            back = back[~look.young[back] & (look.own[STEADY][back] < _OFTEN)]
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
        every = window.value == 0
        # zeros that are true may have come shortly before: those count that are less than a few readings apart
        apart = ~every[:, :-3] & ~every[:, 1:-2] & ~every[:, 2:-1]
        last = every.copy()
        last[:, :-3] &= ~np.logical_or.accumulate(apart[:, ::-1], 1)[:, ::-1]
        found_all, found_last = (_are_new(look, own, places, window, lost) for lost in (every, last))
        found = found_all | found_last
        own[RUNS, places[~found]] += 1
        for row in np.flatnonzero(found).tolist():
            _say(look, own, int(places[row]), window.time[row], (last if found_last[row] else every)[row])

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
    around = _beside(lost, _AROUND) & (size > 0)
    # where it goes that fast all around, it goes there by itself; and from next to nothing, there is no step
    usual_end = ends.sum(1) / np.maximum(np.count_nonzero(ends, 1), 1)
    found: Flags = usual_end > _FASTER * _pace(value, around)
    nothing = np.where(ends > 0, ends, np.inf).min(1) <= _NOTHING * _middle(np.where(around, size, np.nan))
    # in a storm, steps are larger everywhere
    ends /= _unrest(look, places)[:, None]
    steep, other = (np.minimum(_decades(look, places, ends[:, place]), _MOST) for place in (-1, -2))
    rare = np.log10(look.own[COUNT, places] / (own[RUNS, places] + _FIRST))
    score = steep + _OTHER * other + rare - np.log10(np.maximum(into.sum(1), 1))
    found &= (many >= _LEAST) & ~look.young[places] & (rare > _SELDOM)
    beside = _beside(lost, _BESIDE) & (value != 0)
    found &= (beside & (value > 0)).any(1) != (beside & (value < 0)).any(1)
    found &= (look.rules.suspect_low[look.rule[places]] > _BELOW) | (other > _RARE)
    found &= score >= _EVIDENCE - _TELLS * (_SAID[1] - _SAID[0])
    if not found.any():
        return found
    said = _middle(np.where(lost & np.isfinite(window.common), window.common, np.nan))
    expected = np.abs(look.own[MEAN, places] + look.shown[places] * said)
    heard = np.isfinite(said) & (look.tie[places] > _TIED)
    usual = look.own[APART, places] * look.spread[places]
    with np.errstate(divide="ignore"):
        tells = _TELLS * (np.minimum(expected / usual, _SAID[1]) - _SAID[0])
    found &= score + np.where(heard, tells, 0) >= _EVIDENCE
    least = np.maximum(_EXPECTED[0] * usual, _EXPECTED[1] * _middle(np.where(value == 0, np.nan, size)))
    again = (into.sum(1) >= _AGAIN) & (score > _EVIDENCE_AGAIN)
    found &= ~heard | (expected > least) | again
    # on one side it may have gone to zero by itself
    found &= ~(slope | nothing) | (heard & (expected > _SURELY * usual) & (steep > _STEEP))
    return found


def _beside(lost: Flags, readings: int) -> Flags:
    """bool[m, k], which readings are not lost, but within so many of one that is."""
    beside = np.zeros_like(lost)
    for shift in range(1, readings + 1):
        beside[:, shift:] |= lost[:, :-shift]
        beside[:, :-shift] |= lost[:, shift:]
    return beside & ~lost


def _pace(value: Floats, around: Flags) -> Floats:
    """float64[m], the mean step between readings that follow one another and are both around lost ones."""
    pairs = around[:, 1:] & around[:, :-1]
    pace: Floats = (np.abs(np.diff(value)) * pairs).sum(1) / np.maximum(pairs.sum(1), 1)
    return pace


def _slopes(size: Floats) -> Flags:
    """bool[m, k - 3], whether a reading, from the third to the last but one, ends a slope."""
    last, before, first = size[:, 2:-1], size[:, 1:-2], size[:, :-3]
    slopes: Flags = (last < _SLOPE[0] * before) & (before < _SLOPE[1] * first)
    return slopes


def _may_be_lost(look: Look, own: Floats, places: Ints) -> Flags:
    """bool[m], whether the steps there and back are large enough, if what is between them is the same for long."""
    nearest = np.minimum(look.size[places], own[ENTRY][places]) / _unrest(look, places)
    may: Flags = nearest >= _STEPS * look.own[STEP][places]
    may &= _decades(look, places, nearest) >= _DECADES_SAME
    return may


def _unrest(look: Look, places: Ints) -> Floats:
    """float64[m], by how much steps are larger everywhere, in a storm; 1 without."""
    unrest: Floats = np.fmax(look.beside[COMMON_ACTIVITY, places] / _UNQUIET, 1)
    return unrest


def _is_lost(look: Look, own: Floats, places: Ints, off: Floats, lost: Flags) -> Flags:
    """bool[m], whether readings are lost.

    Args:
        look: The readings.
        own: Rows.
        places: int64[m], of channels.
        off: float64[m, k], by how much the latest readings are off the constant value.
        lost: bool[m, k], which of them may be lost.
    """
    around = _beside(lost, _AROUND)
    one_sided = (around & (off > 0)).any(1) != (around & (off < 0)).any(1)
    far = np.where(around, np.abs(off), np.nan)
    # the step there is known even if it was before the first of the readings
    there = own[ENTRY, places]
    nearest = np.minimum(np.nanmin(far, 1), there)
    share = nearest / np.maximum(_middle(far), there * lost[:, 0])
    # where it goes that fast all around, it goes there by itself
    found: Flags = one_sided & (nearest > _FASTER * _pace(off, around)) & (lost.sum(1) >= _MANY) & (share >= _SHARE)
    # what it goes to by a large step is hardly the same again and again, in a row or not
    steady = look.own[STEADY, places]
    unlikely = (1 - lost.sum(1)) * np.log10(np.maximum(steady, _LEAST_STILL))
    same = (unlikely >= _UNLIKELY) & (steady <= _HARDLY_STILL)
    size = nearest / _unrest(look, places)
    found &= size >= _STEPS * look.own[STEP, places]
    found &= _decades(look, places, size) >= np.where(same, _DECADES_SAME, _DECADES)
    return found & ~_is_rounded(look.own[LAST, places], off, lost, nearest)


def _is_rounded(value: Floats, off: Floats, lost: Flags, nearest: Floats) -> Flags:
    """bool[m], whether a constant is no more than rounded: it has fewer digits than the readings around.

    Args:
        value: float64[m], the constant.
        off: float64[m, k], by how much readings are off it.
        lost: bool[m, k], which are none.
        nearest: float64[m], by how much the nearest is off it.
    """
    digit = 10 ** np.ceil(np.log10(np.maximum(nearest, _FINEST)) - _FINEST)
    every = (value[:, None] + off) / digit[:, None]
    whole = np.abs(every - np.rint(every)) < 1e-6  # noqa: PLR2004 - as good as none
    rounded: Flags = (whole | ~lost).all(1) & ((whole & ~lost).sum(1) < 0.5 * (~lost).sum(1))
    return rounded & (nearest <= digit / 2)


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
