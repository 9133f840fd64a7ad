"""Noise: random noise lies on top of what a sensor measures, for half a day or so.

What is added knows nothing of the reading before: steps turn again and again, and the change over two readings is no
larger than over one. In a storm each value has to do with the one before, and the other quantities of the sensor and
its neighbours are unquiet, too. Bubbles, drops and puffs go one way, and come back to where it was; noise goes up as
often as down, which is asked of channels whose neighbours tell too little. Some sensors are noisy at times by
themselves, so only more than that is called.
"""

import numpy as np

from gateway.edge.faults.look import (
    ACTIVITY,
    CALLED,
    COMMON_ACTIVITY,
    COMMON_JUMPS,
    COUNT,
    INTERVAL,
    STEADY,
    STEP,
    TURNS,
    WINDOW,
    Look,
    What,
)
from gateway.edge.readings import Flags, Floats, Ints

NEXT, RECORD, BOUT, LAST, SEEN = range(5)
_TIME = 6 * 3_600_000.0  # ms that are looked at
_FEWEST, _MOST = 15, 25  # readings: fewer where they come slowly and neighbours bear witness
_AGAIN = 2  # readings from one look to the next
_UNREST = 2.0  # usual activity, from which a channel is looked at
_ALTERNATING = 0.5  # share of steps that turn: two in three in noise, one in two in a random walk
_SERIAL = -0.3  # correlation of a step and the next: -0.5 in noise
_GROWTH = 1.35  # mean square of a change over two readings by that over one: 1 in noise, 2 in a random walk
_EVEN = 0.6  # median step by the mean: 0.85 in noise, less where single steps stand out
_MORE_BESIDE, _MORE = 2.5, 3.0  # times the usual step that the median step is: less for fewer readings, with witnesses
_LEAST = 0.1  # of the spread, that the median step is
_UNQUIET_BESIDE, _UNQUIET = 2.0, 1.5  # usual activity of others, from which there is a storm
_LOPSIDED = 0.5  # skewness, from which it goes one way
_BACK = 0.25  # median steps, from where it was before, within which it is back there
_JUMPED = 0.15  # share of the neighbours that jumped,
_KEPT = 0.9  # and what is left of it from one look to the next
_SOME = 3  # other quantities, of which one may be unquiet by itself
_TOGETHER = 5.0  # squared correlation of steps, times their number, from which two channels move together
_RECORD = 0.4  # of the strongest noise of other times, from which noise is more than the channel has by itself
_MEMORY = 80 * 86_400_000.0  # ms in which earlier noise is forgotten
_BETWEEN = 86_400_000.0  # ms without noise, after which it is another time
_COUNTS = 0.7  # share of steps that are none, from which a channel counts rather than measures


class Noise:
    """Calls channels whose readings have nothing to do with one another any more.

    Its rows are the count at which to look again, how strong earlier noise was, how strong that of this time is, when
    it was seen last, ms, and the share of neighbours that jumped meanwhile.
    """

    rows = 5

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at what is unquiet, and ends what is calm again."""
        unquiet = look.own[ACTIVITY] > _UNREST * look.own[STEP]
        if look.some_faulty:
            look.end(((look.own[CALLED] == What.NOISE) & ~unquiet).nonzero()[0])
        places = unquiet.nonzero()[0]
        if len(places):
            places = places[
                (look.own[TURNS][places] > _ALTERNATING)
                & (look.own[COUNT][places] >= own[NEXT][places])
                & ~look.young[places]
                & (look.own[STEADY][places] < _COUNTS)
            ]
        if len(places):
            own[NEXT, places] = look.own[COUNT][places] + _AGAIN
            few = look.own[INTERVAL][places] * _MOST > 2 * _TIME
            few &= np.isfinite(look.beside[COMMON_ACTIVITY][places])
            for its, beside in ((places[few], True), (places[~few], False)):
                if len(its):
                    self._look(look, own, its, beside=beside)

    @staticmethod
    def _look(look: Look, own: Floats, places: Ints, *, beside: bool) -> None:
        """Calls noise: by few readings, if there are neighbours to bear witness."""
        window = look.window(places, _FEWEST if beside else _MOST)
        rough, strength = _roughness(window.value)
        places, strength = places[rough], strength[rough]
        if not len(places):
            return
        # it began with the first step as large as most of them
        steps = np.diff(window.value[rough])
        first = np.argmax(np.abs(steps) > strength[:, None], 1) + 1
        since = window.time[rough, first]
        usual = np.maximum(look.own[STEP, places], 1e-300)
        more = strength / usual
        others = np.fmax(look.beside[COMMON_ACTIVITY, places], 1)
        least = _MORE_BESIDE if beside else _MORE
        for number in np.flatnonzero(more > least).tolist():
            company = _company(look, int(places[number]), steps[number], beside=beside)
            others[number] = max(others[number], company)
        more /= np.sqrt(others)
        another = look.time[places] - own[LAST, places] > _BETWEEN
        record = own[RECORD, places] * np.exp((own[LAST, places] - look.time[places]) / _MEMORY)
        record = np.where(another, np.maximum(record, own[BOUT, places]), record)
        called = (more > np.maximum(least, _RECORD * record)) & (look.own[CALLED, places] == 0)
        called &= (others < (_UNQUIET_BESIDE if beside else _UNQUIET)) & (strength > _LEAST * look.spread[places])
        if not beside:
            lopsided = np.abs(_skewness(window.value[rough])) > _LOPSIDED
            called &= ~lopsided & ~_comes_back(look.window(places, WINDOW).value, strength)
            # what goes one way does not tell how much noise the channel has
            more[lopsided] = 0
        own[RECORD, places], own[LAST, places] = record, look.time[places]
        own[BOUT, places] = np.maximum(np.where(another, 0, own[BOUT, places]), more)
        seen = np.where(another, 0, _KEPT * own[SEEN, places])
        own[SEEN, places] = np.fmax(seen, look.beside[COMMON_JUMPS, places])
        called &= own[SEEN, places] < _JUMPED
        for number in np.flatnonzero(called).tolist():
            look.begin(int(places[number]), What.NOISE, since[number], 0.9, ["unrelated", "alone"])


def _company(look: Look, place: int, steps: Floats, *, beside: bool) -> float:
    """How unquiet the most unquiet of the sensor's other quantities is, in its usual steps; 0 if there is none.

    One that moves together with this one, or neighbours that do, are as unquiet as can be. Where neighbours bear
    witness, the one that is most unquiet of some does not count: it may be so by itself.
    """
    others = (look.sensor == look.sensor[place]) & ~look.young & (look.own[STEADY] < _COUNTS)
    others[place] = False
    places = np.flatnonzero(others)
    many = len(steps) + 1
    common = np.diff(look.window(np.array([place]), many).common.astype(np.float64))
    step = np.concatenate((np.diff(look.window(places, many).value), np.nan_to_num(common)))
    together = (step @ steps) ** 2 > _TOGETHER / len(steps) * (step**2).sum(1) * (steps @ steps)
    if together.any():
        return np.inf
    if not len(places):
        return 0.0
    unquiet = np.sort(np.median(np.abs(step[:-1]), 1) / np.maximum(look.own[STEP, places], 1e-300))
    return float(unquiet[-2 if beside and len(places) >= _SOME else -1])


def _roughness(value: Floats) -> tuple[Flags, Floats]:
    """Which of some windows are white noise, bool[m], and their median step, float64[m].

    Args:
        value: float64[m, k].
    """
    step = np.diff(value)
    rough = ((value[:, 2:] - value[:, :-2]) ** 2).mean(1) < _GROWTH * (step**2).mean(1)
    rough &= (step[:, 1:] * step[:, :-1] < 0).mean(1) > _ALTERNATING
    if not np.count_nonzero(rough):
        return rough, np.zeros(len(value))
    size = np.abs(step)
    median, mean = np.median(size, 1), size.mean(1)
    # a few large steps do not decide
    step = np.clip(step - step.mean(1, keepdims=True), -3 * median[:, None], 3 * median[:, None])
    serial = (step[:, 1:] * step[:, :-1]).sum(1) < _SERIAL * (step**2).sum(1)
    return rough & serial & (median > _EVEN * mean), median


def _comes_back(value: Floats, strength: Floats) -> Flags:
    """bool[m], whether the latest readings come back to where they were before again and again, and never go past.

    Args:
        value: float64[m, ``WINDOW``].
        strength: float64[m], median step of the latest readings.
    """
    before = np.median(value[:, :-_MOST], 1, keepdims=True)
    off = (value[:, -_MOST:] - before) / strength[:, None]
    up, down = (off > _BACK).sum(1), (off < -_BACK).sum(1)
    back: Flags = (np.minimum(up, down) <= 1) & (up + down <= _MOST - 2)
    return back


def _skewness(value: Floats) -> Floats:
    """float64[m], of what is left of some windows without their trend.

    Args:
        value: float64[m, k].
    """
    place = np.arange(value.shape[1]) - (value.shape[1] - 1) / 2
    rest = value - value.mean(1, keepdims=True)
    rest -= np.outer(rest @ place / (place @ place), place)
    return np.asarray((rest**3).mean(1) / np.maximum((rest**2).mean(1) ** 1.5, 1e-300))
