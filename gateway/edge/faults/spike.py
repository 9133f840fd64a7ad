"""Spike: one or a few readings far out, there and back between two readings.

A gust takes readings to wear off, and other quantities or neighbours feel it. What is left are spikes, but not all of
them are faults of the sensor: turbidity, dust and wind have some by themselves. So a spike is judged some readings
later, by what the channel does around it, by its neighbours and its company, and by how often the channel had one as
large. What is rare for the channel and no sure fault is undecided.
"""

import numpy as np

from gateway.edge.faults.look import (
    COMMON_JUMPS,
    COUNT,
    INTERVAL,
    LEARNING,
    STEADY,
    STEP,
    Look,
    What,
)
from gateway.edge.readings import Floats, Ints

JUMP, AT, DUE, WIDTH, SEEN, MANY, SIZES, TOLD = range(8)
_LARGE = 5.0  # mean steps, from which a step is looked at
_WIDEST = 3  # readings that a spike has at most
_BACK = 0.5  # of its size, within which the value comes back
_BEFORE, _AFTER = 24, 12  # readings around it
_MEMORY = 60 * 86_400_000.0  # ms in which earlier spikes are forgotten
_WEEK = 7 * 86_400_000.0  # ms
_RETURN = 0.3  # of its size: a gust has more left after a reading
_SHARED = 0.15  # of its size, that neighbours show
_JUMPED = 0.1  # share of the neighbours
_COMPANY = 3.0  # times its own unrest, by which another quantity may move
_SURE = 5.6  # e-folds of evidence
_CLEAR = 8.0  # times the unrest around it, from which a spike is suspect
_FAR = 50.0  # the same times its size in spreads
_RARE, _WIDE = 5.0, 1.0  # decades and spreads, from which a step is
_PAUSE = 12  # readings between two alarms
_COUNTS = 0.7  # share of steps that are none, from which a channel counts rather than measures


class Spike:
    """Calls readings that are far out between others that are not.

    Its rows are the last large step and its count, the count at which a spike is judged, its width, the share of
    neighbours that jumped meanwhile, the number of earlier spikes and the sum of the logarithms of their sizes, and the
    count of the last alarm.
    """

    rows = 8

    def judge(self, look: Look, own: Floats) -> None:
        """Finds large steps, steps back, and judges the spikes that are due."""
        own[MANY : SIZES + 1] *= 1 - look.own[INTERVAL] / _MEMORY
        waiting = np.flatnonzero(own[DUE])
        if len(waiting):
            seen = own[SEEN, waiting]
            own[SEEN, waiting] = np.fmax(seen, look.beside[COMMON_JUMPS, waiting])
            due = waiting[own[DUE, waiting] <= look.own[COUNT, waiting]]
            if len(due):
                for width in np.unique(own[WIDTH, due]).astype(int).tolist():
                    self._decide(look, own, due[own[WIDTH, due] == width], width)
                own[DUE, due] = 0
        large = look.size > _LARGE * look.own[STEP]
        if large.any():
            places = np.flatnonzero(large & ~(look.young | look.gap) & (look.own[STEADY] < _COUNTS))
            if len(places):
                self._step(look, own, places)

    @staticmethod
    def _step(look: Look, own: Floats, places: Ints) -> None:
        """A large step is the way back from the last one, or a new one."""
        count, step = look.own[COUNT, places], look.step[places]
        jump, width = own[JUMP, places], count - own[AT, places]
        size = np.minimum(np.abs(jump), np.abs(step))
        back = (width <= _WIDEST) & (np.abs(jump + step) < _BACK * size) & (own[DUE, places] == 0)
        its = places[back]
        own[DUE, its], own[WIDTH, its], own[SEEN, its] = count[back] + _AFTER, width[back], 0
        new = places[~back]
        own[JUMP, new], own[AT, new] = step[~back], count[~back]
        rare = (look.rarity[places] > _RARE) & (np.abs(step) > _WIDE * look.spread[places])
        rare &= count - own[TOLD, places] > _PAUSE
        for place in places[rare].tolist():
            own[TOLD, place] = look.own[COUNT, place]
            look.say(place, look.time[place], look.time[place], What.UNDECIDED, 0.5, ["rare step"])

    def _decide(self, look: Look, own: Floats, places: Ints, width: int) -> None:
        """Judges spikes of one width that ended some readings ago."""
        window = look.window(places, _BEFORE + width + _AFTER + 1)
        size, out = _sizes(window.value, width)
        step, spread = np.maximum(look.own[STEP, places], 1e-12), np.maximum(look.spread[places], 1e-12)
        moves = np.abs(np.diff(window.value))
        moves = np.concatenate((moves[:, : _BEFORE - 1], moves[:, _BEFORE + width :]), 1)
        unrest = np.maximum(moves.mean(1), 0.1 * step)
        rest = np.abs(window.value[:, _BEFORE + width] - window.value[:, _BEFORE - 1])
        clear, far = size / unrest, size / spread
        # how often the channel had spikes as large: their sizes fall off by a power
        logarithm = np.log(np.maximum(size / step, _LARGE) / _LARGE)
        many, sizes = own[MANY, places], own[SIZES, places]
        as_large = many * np.exp(-logarithm * (many + 1) / (sizes + 0.5))
        weeks = np.minimum(look.own[COUNT, places] * look.own[INTERVAL, places], _MEMORY) / _WEEK
        evidence = np.log(size / (unrest + rest + 0.02 * spread) + 1e-12) - np.log((as_large + 0.3) / (weeks + 2))
        evidence += 0.5 * np.minimum(np.log(far + 1e-12), 1)
        own[MANY, places] += size > 0
        own[SIZES, places] += np.where(size > 0, logarithm, 0)
        back = (rest < _RETURN * size) & (size > 0)
        sure = back & (own[SEEN, places] < _JUMPED) & (evidence > _SURE)
        sure &= look.own[COUNT, places] > LEARNING + window.value.shape[1]
        suspect = back & (clear > _CLEAR) & (clear * far > _FAR)
        for number in np.flatnonzero(sure | suspect).tolist():
            place = int(places[number])
            since, until = window.time[number, [_BEFORE, _BEFORE + width - 1]]
            common = np.nan_to_num(_sizes(window.common[number : number + 1].astype(float), width)[1][0].mean())
            shared = common * look.slope[place] * spread[number] * np.sign(out[number, 0]) / size[number]
            if sure[number] and abs(shared) < _SHARED and _calm(look, place, width):
                look.say(place, since, until, What.SPIKE, 0.9, ["there and back", "alone"])
            elif suspect[number] and own[TOLD, place] < own[AT, place] - _PAUSE:
                look.say(place, since, until, What.UNDECIDED, 0.5, ["there and back"])


def _sizes(value: Floats, width: int) -> tuple[Floats, Floats]:
    """How far out spikes are, float64[m], 0 if not all to one side; and how far each reading is, float64[m, width]."""
    before, after = value[:, _BEFORE - 1, None], value[:, _BEFORE + width, None]
    share = np.arange(1, width + 1) / (width + 1)
    out = value[:, _BEFORE : _BEFORE + width] - before - (after - before) * share
    one_way = np.abs(np.sign(out).sum(1)) == width
    return np.where(one_way, np.abs(out).min(1), 0.0), out


def _calm(look: Look, place: int, width: int) -> bool:
    """Whether the other quantities of the sensor did nothing unusual at that time."""
    others = np.flatnonzero((look.sensor == look.sensor[place]) & ~look.young)
    others = others[others != place]
    if not len(others):
        return True
    value = look.window(others, _BEFORE + width + _AFTER + 1).value
    out = np.abs(_sizes(value, width)[1]).mean(1)
    moves = np.abs(np.diff(value))
    moves = np.concatenate((moves[:, : _BEFORE - 1], moves[:, _BEFORE + width :]), 1)
    usual = np.maximum(moves.mean(1), look.own[STEP, others])
    return bool((out <= _COMPANY * usual).all())
