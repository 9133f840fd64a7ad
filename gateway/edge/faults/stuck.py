"""Stuck: a sensor sends one value again and again, while what it measures goes on.

Some quantities hardly move by themselves, and all are still at the end of what they can be: no wind, saturated air, a
concentration below the limit of detection. So a run of one value is held against the longest that the channel had by
itself: within its range, and, apart from that, at the ends of it, where it takes more to call it.
"""

import numpy as np

from gateway.edge.faults.look import (
    APART,
    CALLED,
    COMMON_ACTIVITY,
    COUNT,
    HELD,
    INTERVAL,
    LAST,
    QUICK,
    STEADY,
    STEP,
    TIME,
    WINDOW,
    Look,
    What,
)
from gateway.edge.readings import Flags, Floats, Ints

RUN, LONGEST, LOW, HIGH, ASIDE = range(5)
_OUTSIDE, _INSIDE, _AT_END = range(3)
_MEMORY = 28 * 86_400_000.0  # ms in which the longest run is forgotten
_LONGER = 0.5  # repeats more than the longest run, which fades, from which a run is longer
_FEW = 2  # repeats that any channel may have by itself
_SHORT = 4  # repeats at an end of the range that any channel may have
_OFTEN = 0.7  # share of steps that are none, from which a channel counts rather than measures
_BEYOND = 0.03  # share of the values beyond each end of the usual range
_PACE = 0.02  # of the spread, by which the ends follow
_EDGE = 0.05  # of the range, that is its end
_LEAST = 0.01  # of the range, off the very end
_NEAR = 0.2  # of the range, within which a bound is what ends it
_AWAY = 0.5  # of the range, from which a value is none of its own
_QUIET = 0.4  # of the usual activity
_CALM = 0.1  # the same, where hardly anything moves
_AS_EVER = 1.0  # the same, where all goes on
_ASIDE = 3  # readings of the neighbours at both ends that do not count
_SEEN = 3.0  # usual distances from what the neighbours say
_JUMP = 6.0  # mean steps; a value that comes back with such a step was not there all the time


class Stuck:
    """Calls a value that repeats itself for too long.

    Its rows are the repeats so far, the most that were the channel's own, the ends of its usual range, and the most
    repeats that were the channel's own at these ends or beyond.
    """

    rows = 5

    def judge(self, look: Look, own: Floats) -> None:
        """Counts repeats, calls what is too long, and ends what moves again."""
        run, longest, low, high, aside = own
        still = look.still
        tried = (run >= 1.5 * _FEW + 6).nonzero()[0]  # mostly there are none
        if len(tried):
            tried = tried[(run[tried] >= 1.5 * longest[tried] + 6) & ~look.young[tried]]
            self._try(look, own, tried, still)
        kept = 1 - look.own[INTERVAL] / _MEMORY
        longest *= kept
        np.maximum(longest, _FEW, out=longest)
        aside *= kept
        ended = ((run > min(_FEW, _SHORT) + _LONGER) & ~still).nonzero()[0]
        if len(ended):
            most = np.minimum(longest[ended], np.maximum(aside[ended], _SHORT)) + _LONGER
            ended = ended[(run[ended] > most) & (look.own[CALLED][ended] != What.STUCK)]
            inside = _inside(look, own, ended) == _INSIDE
            for most, its in ((longest, ended[inside]), (aside, ended[~inside])):
                # a fault that was not seen teaches little
                taught = np.where(look.young[its], np.inf, 1.5 * most[its] + 3)
                most[its] = np.maximum(most[its], np.minimum(run[its], taught))
        run += 1
        run *= still
        if look.some_young:
            first = look.own[COUNT] == 1
            low[:] = np.where(first | (look.young & (look.value < low)), look.value, low)
            high[:] = np.where(first | (look.young & (look.value > high)), look.value, high)
        pace = _PACE * look.spread
        inwards = _BEYOND * pace
        low += inwards
        beyond = (look.value < low).nonzero()[0]
        low[beyond] -= pace[beyond]
        high -= inwards
        beyond = (look.value > high).nonzero()[0]
        high[beyond] += pace[beyond]

    @staticmethod
    def _try(look: Look, own: Floats, places: Ints, still: Flags) -> None:
        """Calls and ends.

        Args:
            look: The readings.
            own: Rows.
            places: int64[m], of long runs.
            still: bool[n], whether the run goes on.
        """
        of_stuck = look.own[CALLED, places] == What.STUCK
        over = places[of_stuck & ~still[places]]
        look.end(over)
        own[RUN, over] = 0  # it teaches nothing of what the channel does by itself
        places = places[~of_stuck]
        places = places[look.own[CALLED, places] == 0]
        where, steady = _inside(look, own, places), look.own[STEADY, places] >= _OFTEN
        goes_on = still[places]
        many = own[RUN, places] + goes_on
        plain = (where == _INSIDE) & ~steady
        # at an end of what is usual it may be calm: then what neighbours tell is believed, if this is far from that
        far = (look.size[places] > look.own[QUICK, places]) | ((where == _AT_END) & ~steady & _is_apart(look, places))
        # a channel that is young has not had its longest run yet
        older = 1 + 500 / look.own[COUNT, places]
        # or if it was never still for so long there, either
        most = np.maximum(np.maximum(own[LONGEST, places], own[ASIDE, places]), _SHORT)
        longer = (where != _INSIDE) & ~steady & (many >= 2 * most * older + 12)
        # zero may be all that there is, unless neighbours are as active as ever
        zero = look.own[LAST, places] == 0
        longer &= ~zero | (look.beside[COMMON_ACTIVITY, places] > _AS_EVER)
        its = plain | ((where != _OUTSIDE) & far) | longer
        places, plain, longer, where, goes_on = places[its], plain[its], longer[its], where[its], goes_on[its]
        zero, many, usual = zero[its], many[its], own[LONGEST, places] * older[its]
        look.own[HELD, places[goes_on]] = look.own[COUNT, places[goes_on]] + 1
        back = ~goes_on & (look.size[places] > _JUMP * look.own[STEP, places])
        moved = _moved_beside(look, places, many)
        # where it is quiet all around, it may be quiet here; but then nothing leads back with a rare step
        activity = look.beside[COMMON_ACTIVITY, places]
        lively, calm = ~(activity < _QUIET), activity < _CALM
        rare = look.size[places] > look.own[QUICK, places]
        called = (moved | (back & (lively | rare))) & (moved | plain) & (many >= 1.5 * usual + 6)
        called |= goes_on & lively & (moved | plain) & (many >= 2 * usual + 12)
        called |= goes_on & plain & ~calm & (many >= 3 * usual + 18)
        called |= longer & lively & ((where == _AT_END) | zero)
        for number in np.flatnonzero(called).tolist():
            place, repeats = int(places[number]), int(many[number])
            # as many repeats as are usual may be its own
            since = _since(look, place, repeats - int(own[LONGEST, place]) + (not goes_on[number]))
            if goes_on[number]:
                look.begin(place, What.STUCK, since, 0.95, ["repeated"])
            else:
                look.say(place, since, look.own[TIME, place], What.STUCK, 0.9, ["repeated", "step back"])
                own[RUN, place] = 0


def _since(look: Look, place: int, readings: int) -> float:
    """When the value came that has been there for so many readings, this one included; about, if that is long ago."""
    if readings < WINDOW:
        return float(look.window(np.array([place]), WINDOW).time[0, -readings])
    return float(look.time[place] - (readings - 1) * look.own[INTERVAL, place])


def _is_apart(look: Look, places: Ints) -> Flags:
    """bool[m], whether the value is far from what the neighbours let expect."""
    expected = look.slope[places] * look.common[places]
    apart: Flags = np.abs(look.level_before[places] - expected) > _SEEN * look.own[APART, places]
    return apart & (look.slope[places] > 0) & look.paired[places]


def _moved_beside(look: Look, places: Ints, many: Floats) -> Flags:
    """bool[m], whether the neighbours say that it should have moved in that time, as far as the window tells."""
    if not len(places):
        return np.zeros(0, np.bool_)
    common = look.window(places, WINDOW).common.astype(np.float64)
    ago = np.arange(WINDOW - 1, -1, -1)
    # a calm that is common begins and ends for one after another
    common[(ago > many[:, None] - _ASIDE) | (ago < _ASIDE)] = np.nan
    way = np.fmax.reduce(common, 1) - np.fmin.reduce(common, 1)
    moved: Flags = look.slope[places] * way > _SEEN * look.own[APART, places]
    return moved & (look.slope[places] > 0)


def _inside(look: Look, own: Floats, places: Ints) -> Ints:
    """int64[m], whether the value before is in the usual range, at an end of it that is due to a bound, or neither."""
    value, low, high = look.own[LAST][places], own[LOW][places], own[HIGH][places]
    rule, rules = look.rule[places], look.rules
    wide = high - low
    edge, away = _EDGE * wide, _AWAY * wide
    # zero is a bound of what does not cross it
    bottoms = (rules.suspect_low[rule], rules.exempt_low[rule], np.where(low < -edge, -np.inf, 0))
    tops = (rules.suspect_high[rule], rules.exempt_high[rule], np.where(high > edge, np.inf, 0))
    # where the channel has been, for no stuck sensor takes it elsewhere
    inside: Flags = (value > low - away) & (value < high + away)
    for bottom, top in zip(bottoms, tops, strict=True):
        inside &= (value > bottom) & (value < top)
    off_bottom, off_top = value > low + edge, value < high - edge
    if np.count_nonzero(inside & ~(off_bottom & off_top)):
        # at an end of that: it may be what ends it
        near = _NEAR * wide
        off_bottom |= _none_near(bottoms, low, near)
        off_top |= _none_near(tops, high, near)
        # the end itself may be all that can be sent there
        off_end = np.minimum(np.abs(value - low), np.abs(value - high)) > _LEAST * wide
        off_end |= _none_near(bottoms, value, edge) & _none_near(tops, value, edge)
        where = np.where(off_bottom & off_top, _INSIDE, np.where(off_end, _AT_END, _OUTSIDE))
        return np.where(inside, where, _OUTSIDE)
    return np.where(inside, _INSIDE, _OUTSIDE)


def _none_near(bounds: tuple[Floats, ...], end: Floats, near: Floats) -> Flags:
    """bool[m], whether no bound is near an end."""
    first, second, third = (np.abs(bound - end) > near for bound in bounds)
    return first & second & third
