"""Spike: one or a few readings far out, there and back between two readings.

A gust takes readings to wear off, and other quantities or neighbours feel it. What is left are spikes, but not all of
them are faults of the sensor: turbidity, dust and wind have some by themselves. So a spike is judged some readings
later, by the log-odds of what the channel does around it, of what its neighbours and its company let expect and feel,
and of how often the channel had one as large. What is rare for the channel and no sure fault is undecided.
"""

import numpy as np

from gateway.edge.faults.look import (
    COUNT,
    INTERVAL,
    LAST,
    LEARNING,
    MEAN,
    STEP,
    WINDOW,
    ZEROS,
    Look,
    What,
    Window,
)
from gateway.edge.readings import Flags, Floats, Ints

JUMP, AT, DUE, WIDTH, PENDING, DOWN, UP, SIZES_DOWN, SIZES_UP, SCALES, FADED = range(11)
_LARGE = 4.0  # mean steps, from which a step is looked at
_WIDEST = 3  # readings that a spike has at most
_NEIGHBOURS = 12  # that are asked at most
_BACK = 0.8  # of its size, within which the value comes back
_BEFORE, _AFTER = 24, 12  # readings around it
_MEMORY = 60 * 86_400_000.0  # ms in which earlier spikes are forgotten
_HOUR = 3_600_000.0  # ms
_WEEK = 168 * _HOUR
_WORTH = 1.5  # times the unrest around it, from which a spike is weighed at all
_SILENT = 1.5  # times the usual interval, from which a reading is missing
_RIDGE = 8.0  # readings' worth of doubt in what partners let expect
_ODDS = {
    "rate": -0.9,  # of readings that were as far out to its side, a week, logarithm
    "silence": -2.0,  # whether a reading is missing beside it: what a sensor sends before and after may be a check
    "impossible": 4.0,  # whether it is below zero where nothing else is, or a part above its whole
    "level": -0.1,  # spreads beyond the mean to which it leads: a plume, or mud, goes where the channel seldom is
    "small": 3.6,  # spreads that it is out, if less than one, logarithm
    "tail": -1.9,  # the step after it, by its size: a gust has something left to wear off
    "width": 2.0,  # readings: channels have short ones by themselves
    "even": 8.7,  # its least reading by its largest
    "alone": 3.9,  # by how much of its size it is beyond all around it, less what its partners let expect
    "left": -2.3,  # what of it is left after, of the same rest, by its size
    "felt": -3.4,  # the largest move of a neighbour to its side, within a reading, both in spreads, by its size
    "company": -1.2,  # the largest move of another quantity of the sensor, by that one's unrest, logarithm
}
"""What each that is known of a spike adds to the log-odds of a fault. By ridge-regularised logistic regression on
recordings of air (Beijing) and of rivers (Logan), with spikes and look-alike events put in by two injectors."""
_CONSTANT = -14.2
_FELT = 0.4  # of its size, from which a neighbour felt it, too: it is no fault, whatever its shape
_SURE = 0.0  # log-odds from which a spike is called, at one reading an hour,
_OFTEN = 0.2  # and for each e-fold of more readings that much more: they have more chances to look like one
_CLEAR = 6.0  # times the unrest around it, from which a spike is suspect
_FAR = 40.0  # the same times its way back in spreads
_RARE, _WIDE = 5.0, 1.0  # decades and spreads, from which a step is
_PARTS = {"pm25": "pm10", "dew_point": "temperature"}  # quantities, and those that they are never above
_BELOW_ZERO = frozenset({"°C", "dBm", "dB", "dB(A)"})  # units in which zero is nothing special
_MOSTLY = 0.5  # share of zeros from which a channel has nothing but spikes, as rain does, and none is a fault


class Spike:
    """Calls readings that are far out between others that are not.

    Its rows are the last large step and its count, the count at which a spike is judged, its width and its
    size; of readings far out to each side of those before and after them the number, and the sum of the logarithms
    of how far they were, by what was far then; the sum of the logarithms of that; and the count at which these five
    last faded.
    """

    rows = 11

    def judge(self, look: Look, own: Floats) -> None:
        """Finds large steps, steps back, and judges the spikes that are due."""
        waiting = own[DUE].nonzero()[0]
        if len(waiting):
            due = waiting[own[DUE][waiting] <= look.own[COUNT][waiting]]
            if len(due):
                for width in np.unique(own[WIDTH, due]).astype(int).tolist():
                    self._decide(look, own, due[own[WIDTH, due] == width], width)
                own[DUE, due] = 0
        places = (look.size > _LARGE * look.own[STEP]).nonzero()[0]
        if len(places):
            places = places[~(look.young[places] | look.gap[places]) & (look.own[ZEROS][places] < _MOSTLY)]
            if len(places):
                self._step(look, own, places)

    @staticmethod
    def _step(look: Look, own: Floats, places: Ints) -> None:
        """A large step is the way back from the last one, or a new one."""
        count, step = look.own[COUNT][places], look.step[places]
        # how far the reading before was from the middle of this one and the one before it
        out = (look.own[LAST][places] - look.back(2, places) - step) / 2
        large = _LARGE * np.maximum(look.own[STEP][places], 1e-12)
        far = np.abs(out) > large
        if np.count_nonzero(far):
            _fade(look, own, places[far])
            _count(own, places[far], out[far], large[far])
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
        for place in places[rare].tolist():
            look.say(place, look.time[place], look.time[place], What.UNDECIDED, 0.5, ["rare step"])

    def _decide(self, look: Look, own: Floats, places: Ints, width: int) -> None:
        """Judges spikes of one width that ended some readings ago."""
        _fade(look, own, places)
        window = look.window(places, _BEFORE + width + _AFTER + 1)
        size, out = _sizes(window.value, width)
        step = np.maximum(look.own[STEP, places], 1e-12)
        unrest = np.maximum(_moves(window.value, width).mean(1), 0.1 * step)
        # how often the channel's readings were as far out: how far falls off by a power
        scale = (own[SCALES, places] + np.log(_LARGE * step)) / (own[DOWN, places] + own[UP, places] + 1)
        logarithm = np.maximum(np.log(np.maximum(size, 1e-12)) - scale, 0)
        up = out.sum(1) > 0
        many = np.where(up, own[UP, places], own[DOWN, places])
        sizes = np.where(up, own[SIZES_UP, places], own[SIZES_DOWN, places])
        as_large = many * np.exp(-logarithm * (many + 1) / (sizes + 0.5))
        weeks = np.minimum(look.own[COUNT, places] * look.own[INTERVAL, places], _MEMORY) / _WEEK
        rate = np.log((as_large + 0.3) / (weeks + 2))
        worth = (size > _WORTH * unrest) & (look.own[COUNT, places] > LEARNING + window.value.shape[1])
        at = np.flatnonzero(worth)
        if not len(at):
            return
        places, size, out, clear = places[at], size[at], out[at], size[at] / unrest[at]
        window = window.some(at)
        left = np.abs(window.value[:, _BEFORE + width] - window.value[:, _BEFORE - 1])
        far = (size - left) / np.maximum(look.spread[places], 1e-12)
        said = _evidence(look, places, window, out, rate[at])
        odds = said @ np.array([*_ODDS.values()]) + _CONSTANT
        odds -= _OFTEN * np.log(_HOUR / np.maximum(look.own[INTERVAL, places], 1.0))
        sure = (odds > _SURE) & (said[:, [*_ODDS].index("felt")] < _FELT) & ~_rounded(window.value, out)
        suspect = (clear > _CLEAR) & (clear * far > _FAR)
        for number in np.flatnonzero(sure | suspect).tolist():
            place, its = int(places[number]), window.time[number]
            since, until = its[_BEFORE], its[_BEFORE + width - 1]
            if sure[number]:
                look.say(place, since, until, What.SPIKE, 0.9, ["there and back", "alone"])
            else:
                look.say(place, since, until, What.UNDECIDED, 0.5, ["there and back"])


def _fade(look: Look, own: Floats, places: Ints) -> None:
    """Forgets some of the earlier readings far out, before they are asked for."""
    count, interval = look.own[COUNT, places], look.own[INTERVAL, places]
    own[DOWN:FADED, places] *= np.exp((own[FADED, places] - count) * interval / _MEMORY)
    own[FADED, places] = count


def _count(own: Floats, places: Ints, out: Floats, large: Floats) -> None:
    """Counts readings far out, each to its side.

    Args:
        own: Rows.
        places: int64[m].
        out: float64[m], how far.
        large: float64[m], what is far.
    """
    size, up = np.log(np.abs(out) / large), out > 0
    own[DOWN, places] += ~up
    own[UP, places] += up
    own[SIZES_DOWN, places] += np.where(up, 0, size)
    own[SIZES_UP, places] += np.where(up, size, 0)
    own[SCALES, places] += np.log(large)


def _evidence(look: Look, places: Ints, window: Window, out: Floats, rate: Floats) -> Floats:
    """float64[m, 12], what is known of spikes, as ``_ODDS`` names it."""
    width, value, own = out.shape[1], window.value, look.own[:, places]
    spread = np.maximum(look.spread[places], 1e-12)
    sign, each = np.sign(out.sum(1)), np.abs(out)
    size = each.min(1)
    near = range(_AFTER - 1, _AFTER + width + 2)
    silent = np.max([window.elapsed(back) for back in near], 0) > _SILENT * own[INTERVAL]
    level = sign * (value[:, _BEFORE : _BEFORE + width].mean(1) - own[MEAN]) / spread
    tail = np.abs(value[:, _BEFORE + width + 1] - value[:, _BEFORE + width]) / size
    time = window.time
    said = (
        rate,
        silent,
        [_impossible(look, *its, width) for its in zip(places.tolist(), time, value, size.tolist(), strict=True)],
        np.clip(level, -5, 20),
        np.minimum(np.log(size / spread), 0),
        np.minimum(tail, 2),
        np.full(len(places), width),
        size / each.max(1),
    )
    witnesses = [
        _witnesses(look, *its, width) for its in zip(places.tolist(), time, value, (sign * size).tolist(), strict=True)
    ]
    return np.concatenate((np.stack(said, 1), witnesses), 1)


def _impossible(look: Look, place: int, time: Floats, value: Floats, size: float, width: int) -> float:  # noqa: PLR0913, PLR0917
    """Whether a spike is below zero where no other reading is; or by how much of its size a part passes its whole.

    Args:
        look: The reading by which it is judged.
        place: Of its channel.
        time: float64[k], of its readings, ms UTC.
        value: float64[k], they.
        size: How far out it is.
        width: Its readings.
    """
    spike, rule = slice(_BEFORE, _BEFORE + width), look.rules.all[look.rule[place]]
    around = np.delete(value, spike)
    if value[spike].max() < 0 <= around.min() and rule.limits is not None and rule.limits.unit not in _BELOW_ZERO:
        return 1.0
    for other in (~look.young & (look.sensor == look.sensor[place])).nonzero()[0].tolist():
        name = look.rules.all[look.rule[other]].quantity
        sign = (_PARTS.get(rule.quantity) == name) - float(_PARTS.get(name) == rule.quantity)
        if sign:
            beyond = sign * (value - _then(look, np.array([other]), time)[0])
            more = beyond[spike].max() - max(np.delete(beyond, spike).max(), 0)
            return float(np.clip(more / size, 0, 1))
    return 0.0


def _then(look: Look, places: Ints, time: Floats) -> Floats:
    """float64[m, k], what channels were at some times: between two readings in between, for some may be missing.

    Args:
        look: The latest readings.
        places: int64[m], of the channels.
        time: float64[k], ms UTC.
    """
    window = look.window(places, WINDOW)
    values = [np.interp(time, its, value) for its, value in zip(window.time, window.value, strict=True)]
    return np.array(values).reshape(len(places), len(time))


def _witnesses(  # noqa: PLR0913, PLR0917 - what is known of a spike
    look: Look, place: int, time: Floats, value: Floats, size: float, width: int
) -> tuple[float, float, float, float]:
    """What neighbours and other quantities of the sensor show of a spike: the last four of ``_ODDS``.

    Args:
        look: The reading by which it is judged.
        place: Of its channel.
        time: float64[k], of its readings, ms UTC.
        value: float64[k], they.
        size: How far out it is, negative if it is below.
        width: Its readings.
    """
    known = ~look.young
    known[place] = False
    neighbours = (known & (look.rule == look.rule[place])).nonzero()[0]
    company = (known & (look.sensor == look.sensor[place])).nonzero()[0]
    if len(neighbours) > _NEIGHBOURS:
        neighbours = neighbours[np.linspace(0, len(neighbours) - 1, _NEIGHBOURS).astype(int)]
    near, spread = _then(look, neighbours, time), look.spread[neighbours]
    if not len(neighbours) and look.paired[place]:
        # those that send at other times
        common = look.window(np.array([place]), len(time)).common.astype(np.float64)
        near, spread = np.nan_to_num(common), np.ones(1)
    others = _then(look, company, time)
    towards, felt, moved = np.sign(size), 0.0, 0.0
    if len(near):
        moves = [_sizes(np.roll(near, shift, 1), width)[1].mean(1) * towards for shift in (-1, 0, 1)]
        felt = float((np.max(moves, 0) / np.maximum(spread, 1e-12)).max()) * look.spread[place] / abs(size)
    if len(others):
        unrest = np.maximum(np.abs(np.diff(others)).mean(1), look.own[STEP, company])
        out = np.abs(_sizes(others, width)[1].mean(1))
        moved = float(np.log((out / np.maximum(unrest, 1e-12)).max() + 0.5))
    left = _unexpected(value, np.concatenate((near, others)), width)
    left *= towards
    spike = slice(_BEFORE, _BEFORE + width)
    alone = (left[spike].mean() - np.delete(left, spike).max()) / abs(size)
    after = min(abs(left[_BEFORE + width] - left[_BEFORE - 1]) / abs(size), 2.0)
    return float(np.clip(alone, -1, 1)), after, float(np.clip(felt, -1, 2)), moved


def _unexpected(value: Floats, partners: Floats, width: int) -> Floats:
    """float64[k], what is left of a channel when what its partners let expect is taken away.

    By ridge regression on the readings around a spike, so that however many partners there are, and however alike,
    little is expected that is not seen again and again.

    Args:
        value: float64[k].
        partners: float64[p, k], neighbours and other quantities of the sensor.
        width: Readings of the spike.
    """
    around = np.delete(np.arange(len(value)), slice(_BEFORE, _BEFORE + width))
    own = value - value[around].mean()
    spread = partners[:, around].std(1)
    partners, spread = partners[spread > 0], spread[spread > 0]
    level = (partners - partners[:, around].mean(1, keepdims=True)) / spread[:, None]
    known = level[:, around]
    share = np.linalg.solve(known @ known.T + _RIDGE * np.eye(len(known)), known @ own[around])
    return np.asarray(own - share @ np.clip(level, -4, 4))


def _rounded(value: Floats, out: Floats) -> Flags:
    """bool[m], which spikes are no more than a rounding: fewer digits than the readings around have.

    Args:
        value: float64[m, k], readings.
        out: float64[m, width], how far those of the spike are out.
    """
    width = out.shape[1]
    digit = 10 ** np.ceil(np.log10(np.abs(out).min(1, keepdims=True)) - 1e-9)
    whole = np.abs(value / digit - np.rint(value / digit)) < 1e-6  # noqa: PLR2004 - as good as none
    spike = slice(_BEFORE, _BEFORE + width)
    return np.asarray(whole[:, spike].all(1) & (np.delete(whole, spike, 1).mean(1) < 0.5))  # noqa: PLR2004 - most


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
