"""Offset: a constant is added to a channel at a stroke, and is taken away at a stroke.

What is left of a channel's steps when those of its neighbours are taken away is its own: a step of some size that
nothing before it came near may be where an offset began. From there the level must stay away, the steps in between must
stay small, and a step of the same size must lead back. A true thing does not do so: it comes in several steps, wears
off, or is seen by the neighbours. Each of these counts against an offset by how much it is of the step's size, so that
nothing depends on what the quantity is.
"""

import numpy as np

from gateway.edge.faults.look import (
    APART,
    CALLED,
    COMMON,
    COUNT,
    INTERVAL,
    LAST,
    SINCE,
    STEP,
    TIME,
    ZEROS,
    Look,
    What,
    confidence,
)
from gateway.edge.readings import Floats, Ints

_HOUR, _DAY = 3_600_000.0, 86_400_000.0  # ms
_LEAST, _UNLIKE = 0.35, 5.0  # of the spread, and of the mean step: a step that matters
_SHORTEST, _LONGEST = 5.5 * _HOUR, 47 * _HOUR  # an offset lasts for longer than the top of an event
_LONG, _NEW_LEVEL = 44 * _HOUR, 5 * _DAY  # after which it is called while it lasts, and is no fault any more
_SURE = 3.6  # log-odds that this takes,
_FAR = 6.5  # usual distances that it was away from what neighbours let expect all the time,
_TIED = 0.5  # correlation with these,
_MANY = 3  # and so many of them: of two sensors that part, either may be off
_OFTEN = 0.5  # share of zeros, from which a quantity comes and goes
_READINGS = 8  # that it takes at least
_BEFORE = 12  # readings in which nothing came near the step
_QUIET = 6  # readings that tell the level before
_AFTER = 4  # readings in which nothing comes near the step back
_ITS_OWN = 0.6  # share of what is left of a step that must be in the values themselves
_LIKE, _LIKE_RAW = 0.6, 0.8  # by how much of its size the step back may differ, and that of the values themselves
# What counts against an offset: log-odds by what each is of the step's size, from the Beijing and Logan recordings.
_FOR = 5.9
_AGAINST_BEFORE = 5.0  # the largest step before
_AGAINST_WITHIN = 6.0  # and within
_AGAINST_SHORT = 3.5  # the part of a day that it was shorter than one
_FOR_LEVEL = 1.5  # the least that the level was away
_AGAINST_RETURN = 9.0  # the difference of the two steps
_AGAINST_AFTER = 5.0  # the largest step after

# Its rows.
(
    _VALUE,  # the reading before the last
    _COMMON,  # what neighbours said last
    _SINCE,  # time of the first reading of what may be an offset, ms; 0 if there is none
    _SIZE,  # of its step
    _LEVEL,  # before
    _ODDS,  # for it, as of its beginning
    _WITHIN,  # the largest step since, by its size
    _LOW,  # the least that the level was away since, by its size: 0 to 1
    _BEGAN,  # count of readings at its beginning
    _RETURN,  # and when it seemed to be over; 0 before
    _USUAL,  # distance from what neighbours let expect, before
    _OVER,  # odds for it, as of its end
    _SOME,  # whether there are enough neighbours to tell whose step it is that only they make, or only the channel
) = range(13)


class Offset:
    """Calls an offset when it is over; or while it lasts, if it is far from all that neighbours let expect."""

    rows = 13

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at the reading before, whose neighbours are known by now."""
        last, common, usual, called = look.own[LAST], look.beside[COMMON], look.shown, look.own[CALLED]
        if not look.all_paired:
            common = np.where(look.paired, common, own[_COMMON])
        step = last - own[_VALUE]
        jump = step - usual * (common - own[_COMMON])
        own[_VALUE], own[_COMMON] = last, common
        if look.some_faulty:
            self._end(look, own, (called == What.OFFSET).nonzero()[0], jump)
            named = called > 0
            own[_SINCE, named] = 0
            own[_BEGAN, named] = look.own[COUNT, named]  # what leads back from a fault is no beginning
        places = (own[_SINCE] > 0).nonzero()[0]
        if len(places):
            over = own[_RETURN][places] > 0
            going = places[~over]
            for place in places[over].tolist():
                if look.own[COUNT, place] >= own[_RETURN, place] + _AFTER:
                    own[_RETURN, place] = 0
                    _decide(look, own, place)
            if len(going):
                away = last[going] - usual[going] * common[going]
                self._follow(look, own, going, step[going], (jump[going], away))
        size = np.abs(jump)
        places = (size > np.maximum(_LEAST * look.spread, _UNLIKE * look.own[STEP])).nonzero()[0]
        if len(places):
            size, step, jump = size[places], step[places], jump[places]
            begins = (
                (np.abs(step) > _ITS_OWN * size)
                & (step * jump > 0)
                & ~look.young[places]
                & (called[places] == 0)
                & (look.own[ZEROS][places] < _OFTEN)
                & (own[_SINCE][places] == 0)
                & (look.own[COUNT][places] > own[_BEGAN][places] + _BEFORE)
            )
            if np.count_nonzero(begins):
                self._begin(look, own, places[begins], jump[begins])

    @staticmethod
    def _begin(look: Look, own: Floats, places: Ints, jump: Floats) -> None:
        """Steps that stand alone may be where an offset begins."""
        window = look.window(places, _BEFORE + 3)
        value, common = window.value, window.common
        common = np.where(np.isnan(common), own[_COMMON][places][:, None], common)
        rest = value - look.shown[places][:, None] * common
        steps = np.maximum.reduce(_mix(rest[:, 1:-2] - rest[:, :-3], value[:, 1:-2] - value[:, :-3]), 1)
        odds = _FOR - _AGAINST_BEFORE * steps / np.abs(jump)
        count = look.own[COUNT][places]
        lone = (window.elapsed(1) < 3 * look.own[INTERVAL][places]) & (odds > 0) & (count > _BEFORE + 3)
        if np.count_nonzero(lone):
            its = lone.nonzero()[0]
            at = places[its]
            own[_SINCE, at], own[_SIZE, at] = look.own[TIME][at], jump[its]
            own[_LEVEL, at] = np.add.reduce(rest[its, -2 - _QUIET : -2], 1) / _QUIET
            own[_ODDS, at], own[_WITHIN, at], own[_LOW, at], own[_RETURN, at] = odds[its], 0, 1, 0
            own[_BEGAN, at], own[_USUAL, at] = count[its], look.own[APART][at] * look.spread[at]
            own[_SOME, at] = [_has_some(look, place) for place in at.tolist()]

    @staticmethod
    def _follow(look: Look, own: Floats, places: Ints, step: Floats, seen: tuple[Floats, Floats]) -> None:
        """Whether it is still as an offset is, and whether it seems to be over: by what of a step is own, and level."""
        _, _, since, size, level, odds, within, low, began, _, usual, _, some = own.take(places, 1)
        of_size, raw, away = seen[0] / size, step / size, (seen[1] - level) / size
        mixed = _mix(of_size, raw, some)
        lasted = look.own[TIME][places] - since
        back = (np.abs(of_size + 1) < _LIKE) & (lasted > _SHORTEST)
        back &= np.abs(raw + 1) < _LIKE_RAW
        if np.count_nonzero(back):
            now = _odds(odds, within, low) - _AGAINST_RETURN * np.abs(of_size + 1)
            now -= _AGAINST_SHORT * np.maximum(1 - lasted / _DAY, 0)
            count = look.own[COUNT][places]
            back &= (now > 0) & (count - began >= _READINGS)
            over = places[back]
            own[_RETURN, over], own[_OVER, over] = count[back], now[back]
            mixed[back], away[back] = 0, np.inf
        np.maximum(within, mixed, out=within)
        np.minimum(low, np.maximum(away, 0), out=low)
        own[_WITHIN, places], own[_LOW, places] = within, low
        now = _odds(odds, within, low)
        if np.count_nonzero(sure := ~back & (lasted > _LONG) & (now > _SURE)):
            sure &= low * np.abs(size) > _FAR * usual
            sure &= look.paired[places] & (look.tie[places] > _TIED)
            for number in np.flatnonzero(sure).tolist():
                place = int(places[number])
                if _has_some(look, place):
                    its = ("step", "level", "neighbours")
                    look.begin(place, What.OFFSET, since[number], confidence(now[number]), its)
        none = places[~back & ((now < 0) | (lasted > _LONGEST))]
        own[_SINCE, none] = own[_BEGAN, none] = 0

    @staticmethod
    def _end(look: Look, own: Floats, places: Ints, jump: Floats) -> None:
        """Offsets that last are over when a step leads back, or when they have become the channel's new level."""
        size = own[_SIZE, places]
        over = np.abs(jump[places] + size) < _LIKE * np.abs(size)
        over |= look.own[TIME, places] - look.own[SINCE, places] > _NEW_LEVEL
        look.end(places[over])


def _odds(odds: Floats, within: Floats, low: Floats) -> Floats:
    """For offsets, as of now."""
    return np.asarray(odds - _AGAINST_WITHIN * within + _FOR_LEVEL * low)


def _has_some(look: Look, place: int) -> bool:
    """Whether a channel has enough neighbours."""
    return bool(np.count_nonzero((look.rule == look.rule[place]) & ~look.young) > _MANY)


def _decide(look: Look, own: Floats, place: int) -> None:
    """It seemed to be over some readings ago: whether it was; if not, it goes on."""
    window = look.window(np.array([place]), _AFTER + 3)
    common = np.where(np.isnan(window.common), own[_COMMON, place], window.common)
    # the reading before the step back, and from then on
    value, size, some = window.value[0, :-1], own[_SIZE, place], own[_SOME, place]
    rest = value - look.shown[place] * common[0, :-1]
    steps = _mix(np.diff(rest), np.diff(value), some) / abs(size)
    left = (rest[1:] - own[_LEVEL, place]) / size
    odds = own[_OVER, place] - _AGAINST_AFTER * steps[1:].max()
    if odds > 0:
        its = ("step", "level", "return")
        look.say(place, own[_SINCE, place], window.time[0, 0], What.OFFSET, confidence(odds), its)
        own[_SINCE, place] = own[_BEGAN, place] = 0
    own[_WITHIN, place] = max(own[_WITHIN, place], steps.max())
    own[_LOW, place] = min(own[_LOW, place], max(left.min(), 0))


def _mix(own: Floats, raw: Floats, some: Floats | float = 1.0) -> Floats:
    """Size of steps: what is a channel's own counts twice, but what only a few neighbours show is theirs."""
    own, raw = np.abs(own), np.abs(raw)
    return np.asarray((2 * np.where(some, own, np.minimum(own, raw)) + raw) / 3)
