"""Spike: one or a few readings far out, there and back between two readings.

A gust takes readings to wear off, and other quantities or neighbours feel it. What is left are spikes, but not all of
them are faults of the sensor: turbidity, dust and wind have some by themselves. So a spike is judged some readings
later, by the log-odds of what the channel does around it, of its neighbours and its company, and of how often the
channel had one as large. What is rare for the channel and no sure fault is undecided.
"""

import numpy as np

from gateway.edge.faults.look import (
    COUNT,
    EXCESS,
    INTERVAL,
    LEARNING,
    QUICK,
    STEADY,
    STEP,
    Look,
    What,
    Window,
)
from gateway.edge.readings import Floats, Ints

JUMP, AT, DUE, WIDTH, PENDING, MANY, SIZES, TOLD = range(8)
_LARGE = 4.0  # mean steps, from which a step is looked at
_WIDEST = 3  # readings that a spike has at most
_BACK = 0.5  # of its size, within which the value comes back
_BEFORE, _AFTER = 24, 12  # readings around it
_MEMORY = 60 * 86_400_000.0  # ms in which earlier spikes are forgotten
_WEEK = 7 * 86_400_000.0  # ms
_SURE = 0.3  # log-odds from which a spike is called
_WORTH = 1.5  # times the unrest around it, from which a spike is weighed at all
_PLAIN = 5.6  # e-folds by which a spike is plain, without witnesses and if it comes back
_RETURN = 0.3  # of its size: a gust has more left after a reading
_NO_COMPANY = 0.5  # what stands for the company of a quantity alone
_PERHAPS = 0.0  # log-odds from which it is suspect
_CLEAR = 8.0  # times the unrest around it, from which a spike is suspect
_FAR = 62.0  # the same times its size in spreads
_RARE, _WIDE = 5.0, 1.0  # decades and spreads, from which a step is
_PAUSE = 12  # readings between two alarms
# What is known of a spike, in the order of _evidence: its mean and spread over all that are looked at, and the
# log-odds of a fault: the constant first, then each, and each with each. By ridge-regularised logistic regression on
# recordings of air (Beijing) and of rivers (Logan) with spikes and look-alike events put in by two injectors.
_USUAL = np.array((1.79, 1.55, 0.24, 0.05, -0.91, 0.16, 1.05, 0.5, 0.29, 0.49, 0.91, 0.59))
_SPREAD = np.array((0.94, 1.01, 0.22, 0.73, 1.16, 0.26, 1.55, 0.63, 0.31, 0.7, 0.16, 0.38))
_ODDS = (
    (-4.31, 1.11, 1.1, -0.01, 0.33, -1.26, -0.42, -1.02, 0.34, 0.09, 0.67, -0.24, 0.18),
    (-0.4, -0.11, -0.47, -0.28, 0.31, 0.17, -0.27, 0.03, -0.01, 0.21, 0.32, -0.16),
    (-0.39, -0.72, 0.31, -0.32, -0.19, 0.01, -0.08, -0.22, 0.36, 0.04, -0.13),
    (-0.24, -0.03, -0.25, 0.23, 0.32, -0.07, -0.11, 0.15, -0.17, -0.2),
    (-0.16, 0.28, 0.06, -0.02, 0.04, -0.06, 0.21, 0.34, 0.25),
    (-0.26, 0.47, 0.96, 0.03, 0.07, -0.11, -0.23, -0.35),
    (-0.12, -0.25, 0.26, 0.52, -0.18, 0.05, -0.49),
    (0.04, -0.07, -0.01, -0.23, 0.26, -0.12),
    (-0.02, 0.19, -0.25, -0.31, -0.14),
    (-0.4, -0.3, -0.31, 0.03),
    (-0.39, 0.09, -0.02),
    (-0.3, -0.06),
    (-0.13,),
)


class Spike:
    """Calls readings that are far out between others that are not.

    Its rows are the last large step and its count, the count at which a spike is judged, its width and its
    size, the number of earlier spikes and the sum of the logarithms of their sizes, and the
    count of the last alarm.
    """

    rows = 8

    def judge(self, look: Look, own: Floats) -> None:
        """Finds large steps, steps back, and judges the spikes that are due."""
        fading = look.own[INTERVAL] / -_MEMORY
        fading += 1
        own[MANY] *= fading
        own[SIZES] *= fading
        waiting = own[DUE].nonzero()[0]
        if len(waiting):
            due = waiting[own[DUE][waiting] <= look.own[COUNT][waiting]]
            if len(due):
                for width in np.unique(own[WIDTH, due]).astype(int).tolist():
                    self._decide(look, own, due[own[WIDTH, due] == width], width)
                own[DUE, due] = 0
        places = (look.size > _LARGE * look.own[STEP]).nonzero()[0]
        if len(places):
            places = places[~(look.young[places] | look.gap[places])]
            if len(places):
                self._step(look, own, places)

    @staticmethod
    def _step(look: Look, own: Floats, places: Ints) -> None:
        """A large step is the way back from the last one, or a new one."""
        count, step = look.own[COUNT][places], look.step[places]
        jump, width = own[JUMP][places], count - own[AT][places]
        recent = (width <= _WIDEST).nonzero()[0]
        fresh = places
        if len(recent):
            its, size, after = places[recent], np.abs(jump[recent]), width[recent]
            left = np.abs(look.value[its] - look.back(after.astype(np.int64) + 1, its))
            back = (step[recent] * jump[recent] < 0) & (left < _BACK * size)
            ended = back & ((own[DUE][its] == 0) | (size > own[PENDING][its]))
            these = its[ended]
            own[DUE, these] = count[recent][ended] + _AFTER
            own[WIDTH, these], own[PENDING, these] = after[ended], size[ended]
            # what goes up and down within a spike is no new one
            within = recent[back | (np.abs(step[recent]) < _BACK * size)]
            fresh, step, count = np.delete(places, within), np.delete(step, within), np.delete(count, within)
        own[JUMP, fresh], own[AT, fresh] = step, count
        rare = look.rarity[places] > _RARE
        if not np.count_nonzero(rare):
            return
        rare &= look.size[places] > _WIDE * look.spread[places]
        rare &= look.own[COUNT][places] - own[TOLD][places] > _PAUSE
        for place in places[rare].tolist():
            own[TOLD, place] = look.own[COUNT, place]
            look.say(place, look.time[place], look.time[place], What.UNDECIDED, 0.5, ["rare step"])

    def _decide(self, look: Look, own: Floats, places: Ints, width: int) -> None:
        """Judges spikes of one width that ended some readings ago."""
        window = look.window(places, _BEFORE + width + _AFTER + 1)
        size, out = _sizes(window.value, width)
        step = np.maximum(look.own[STEP, places], 1e-12)
        unrest = np.maximum(_moves(window.value, width).mean(1), 0.1 * step)
        # how often the channel had spikes as large: their sizes fall off by a power
        logarithm = np.log(np.maximum(size / step, _LARGE) / _LARGE)
        many, sizes = own[MANY, places], own[SIZES, places]
        as_large = many * np.exp(-logarithm * (many + 1) / (sizes + 0.5))
        weeks = np.minimum(look.own[COUNT, places] * look.own[INTERVAL, places], _MEMORY) / _WEEK
        rate = np.log((as_large + 0.3) / (weeks + 2))
        own[MANY, places] += size > 0
        own[SIZES, places] += np.where(size > 0, logarithm, 0)
        worth = (size > _WORTH * unrest) & (look.own[COUNT, places] > LEARNING + window.value.shape[1])
        at = np.flatnonzero(worth)
        if not len(at):
            return
        places, size, clear = places[at], size[at], size[at] / unrest[at]
        evidence = _evidence(look, places, window.some(at), size, out[at], clear, rate[at])
        far = size / np.maximum(look.spread[places], 1e-12)
        suspect = (evidence > _PERHAPS) | ((clear > _CLEAR) & (clear * far > _FAR))
        suspect &= own[TOLD, places] < own[AT, places] - _PAUSE
        for number in np.flatnonzero((evidence > _SURE) | suspect).tolist():
            place, its = int(places[number]), window.time[at[number]]
            since, until = its[_BEFORE], its[_BEFORE + width - 1]
            if evidence[number] > _SURE:
                look.say(place, since, until, What.SPIKE, 0.9, ["there and back", "alone"])
            else:
                look.say(place, since, until, What.UNDECIDED, 0.5, ["there and back"])


def _evidence(  # noqa: PLR0913, PLR0917 - columns
    look: Look, places: Ints, window: Window, size: Floats, out: Floats, clear: Floats, rate: Floats
) -> Floats:
    """float64[m], log-odds that spikes are faults."""
    width, value, spread = out.shape[1], window.value, look.spread[places]
    own = look.own[:, places]
    inside = slice(_BEFORE, _BEFORE + width)
    sign = np.sign(out.sum(1))[:, None]
    # the moves just before and after it
    near = _moves(value, width)[:, _BEFORE - 4 : _BEFORE + 2].mean(1) + 0.1 * own[STEP]
    rest = np.abs(value[:, _BEFORE + width] - value[:, _BEFORE - 1]) / size
    # how far it is beyond all that was around it
    around = np.concatenate((value[:, :_BEFORE], value[:, _BEFORE + width :]), 1)
    edge = ((sign * value[:, inside]).mean(1) - (sign * around).max(1)) / size
    # what neighbours and company show of it
    common = _sizes(window.common.astype(np.float64), width)[1].mean(1)
    heard = np.isfinite(common)
    shared = np.where(heard, np.abs(common * look.slope[places]) * spread / size, 0)
    tie = np.where(heard, look.tie[places], 0)
    company = np.array([_company(look, int(place), width) for place in places])
    more = (size - own[QUICK]) / (2.302585 * np.maximum(own[EXCESS], 1e-12))
    rarity = np.where((more > 0) & (own[EXCESS] > 0), np.log(3 + np.maximum(more, 0)), 0)
    even = np.abs(out).min(1) / np.abs(out).max(1)
    said = np.stack(
        (
            np.clip(np.log(clear), 0, 4),
            np.clip(np.log(size / np.maximum(near, 1e-12)), 0, 4),
            np.minimum(rest, 1),
            np.clip(edge, -1, 1),
            rate,
            np.minimum(shared, 1),
            company,
            rarity,
            own[STEADY],
            np.full(len(places), width - 1.0),
            even,
            tie,
        ),
        1,
    )
    said = np.clip((said - _USUAL) / _SPREAD, -3, 3)
    said = np.concatenate((np.ones((len(places), 1)), said), 1)
    odds: Floats = sum(said[:, n] * (said[:, n:] @ np.array(row)) for n, row in enumerate(_ODDS))
    # a channel without any witness is unlike those that the odds are from
    plain = np.log(size / (size / clear + rest * size + 0.02 * spread)) - rate
    plain += 0.5 * np.minimum(np.log(size / np.maximum(spread, 1e-12)), 1)
    plainly = (plain > _PLAIN) & (rest < _RETURN) & ~heard & (company == _NO_COMPANY)
    return np.where(plainly, np.maximum(odds, 2 * _SURE), odds)


def _moves(value: Floats, width: int) -> Floats:
    """float64[m, 35], size of the steps before and after spikes."""
    moves = np.abs(np.diff(value))
    return np.concatenate((moves[:, : _BEFORE - 1], moves[:, _BEFORE + width :]), 1)


def _sizes(value: Floats, width: int) -> tuple[Floats, Floats]:
    """How far out spikes are, float64[m], 0 if not all to one side; and how far each reading is, float64[m, width]."""
    before, after = value[:, _BEFORE - 1, None], value[:, _BEFORE + width, None]
    share = np.arange(1, width + 1) / (width + 1)
    out = value[:, _BEFORE : _BEFORE + width] - before - (after - before) * share
    one_way = np.abs(np.sign(out).sum(1)) == width
    return np.where(one_way, np.abs(out).min(1), 0.0), out


def _company(look: Look, place: int, width: int) -> float:
    """How much another quantity of the sensor moved at that time, logarithm of times its own unrest."""
    others = np.flatnonzero((look.sensor == look.sensor[place]) & ~look.young)
    others = others[others != place]
    if not len(others):
        return _NO_COMPANY
    value = look.window(others, _BEFORE + width + _AFTER + 1).value
    out = np.abs(_sizes(value, width)[1]).mean(1)
    usual = np.maximum(_moves(value, width).mean(1), look.own[STEP, others])
    return float(np.log((out / np.maximum(usual, 1e-12)).max() + 0.5))
