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
    ZEROS,
    Look,
    What,
    Window,
)
from gateway.edge.readings import Floats, Ints

JUMP, AT, DUE, WIDTH, PENDING, MANY, SIZES = range(7)
_LARGE = 4.0  # mean steps, from which a step is looked at
_WIDEST = 3  # readings that a spike has at most
_NEIGHBOURS = 12  # that are asked at most
_TOGETHER = 6.0  # squared correlation of steps, times their number, from which two channels move together
_BACK = 0.8  # of its size, within which the value comes back
_BEFORE, _AFTER = 24, 12  # readings around it
_MEMORY = 60 * 86_400_000.0  # ms in which earlier spikes are forgotten
_WEEK = 7 * 86_400_000.0  # ms
_SURE = 1.1  # log-odds from which a spike is called
_WORTH = 1.5  # times the unrest around it, from which a spike is weighed at all
_EVENT = 1.0  # level of the neighbours, in spreads, from which an event goes on, and
_AGAINST_EVENT = 1.5  # what each spread beyond counts against a spike
_PLAIN = 5.6  # e-folds by which a spike is plain, without witnesses and if it comes back
_RETURN = 0.3  # of its size: a gust has more left after a reading
_NOBODY = -1.0  # what stands for the moves of neighbours, and of other quantities, where there are none,
_NEIGHBOUR, _MOVED, _OTHER = 16, 19, 20  # in these columns, and how far a neighbour moved
_FELT, _ALIKE = 1.25, 0.4  # of these, from which a neighbour felt it, too: it is no fault, whatever its shape
_CLEAR = 6.0  # times the unrest around it, from which a spike is suspect
_FAR = 40.0  # the same times its way back in spreads
_RARE, _WIDE = 5.0, 1.0  # decades and spreads, from which a step is
_MOSTLY = 0.5  # share of zeros from which a channel has nothing but spikes, as rain does, and none is a fault
# What is known of a spike, in the order of _evidence: its mean and spread over all that are looked at, and the
# log-odds of a fault: the constant first, then each, and each with each. By ridge-regularised logistic regression on
# recordings of air (Beijing) and of rivers (Logan) with spikes and look-alike events put in by two injectors.
_USUAL = np.fromstring(
    """
    2.54 2.37 0.34 0.19 -1.14 0.59 4.02 0.3 1.51 0.92 0.36 2.08 0.38 0.2 0.77 2.03 1.57 0.32 0.54 0.62 1.18 0.26
    """,
    sep=" ",
)
_SPREAD = np.fromstring(
    """
    3.79 4.32 0.29 0.68 1.05 0.66 9.58 0.31 0.71 0.14 0.37 1.23 0.42 0.65 0.36 0.78 4.15 0.45 0.32 0.61 1.64 0.4
    """,
    sep=" ",
)
_ODDS = np.fromstring(
    """
    -2.07 0.21 0.54 -0.24 -0.01 -0.55 -0.11 0.94 -0.17 0.54 -0.67 -0.45 0.9 -0.53 0.03 0.51 -0.2 0.2 0.05 -0.25
    -0.57 -0.86 -0.57 -0.12 -0.15 0.03 -0.02 0.31 -0.13 -0.26 0.16 -0.09 0.28 0.14 -0.4 0.23 -0.15 -0.36 -0.02 0.04
    0.21 0.21 0.33 -0.16 0.31 -0.43 -0.54 0.44 0.05 -0.06 -0.38 -0.59 0.38 -0.13 0.15 -0.34 -0.31 0.27 0.02 -0.25
    -0.16 -0.03 -0.01 0.02 -0.17 0.11 -0.1 -0.12 -0.05 0.24 0.08 -0.16 0.15 -0.11 0.14 -0.31 0.14 -0.26 -0.23 0.15
    0.33 -0.22 0.16 -0.24 0.02 -0.14 -0.33 0.24 0.07 -0.25 -0.15 0.08 0 -0.2 -0.15 0.13 0.01 -0.45 0.07 0.06 0.06
    -0.08 -0.29 0.08 0.43 -0.48 -0.19 0.64 -0.04 0.12 0 0.27 -0.2 -0.13 -0.08 0.05 0.1 0.06 0.24 -0.24 0.25 0.35
    0.02 -0.09 -0.31 -0.19 -0.17 -0.19 0.1 -0.11 -0.28 0.1 -0.12 0.23 -0.28 0.13 -0.06 0.14 -0.11 -0.13 -0.98 -0.3
    0.2 0.07 0.01 -0.67 -0.06 -0.03 -0.04 -0.16 -0.16 -0.12 0.12 0.13 0.23 0.11 -0.4 -0.17 -0.04 0.04 -0.13 0 -0.03
    -0.07 0 0.17 -0.14 -0.22 -0.05 0 0.32 -0.23 -0.21 -0.36 0.23 -0.38 0.22 0.18 0.08 -0.07 -0.16 0.03 -0.05 -0.01
    -0.14 -0.64 -0.26 0.25 0.06 -0.21 0.12 0.17 0.09 0.07 -0.32 -0.01 -0.03 0.12 0.45 0.26 0.21 0.19 -0.02 0.02 0.33
    0.01 0.15 0.07 0.12 0.25 -0.26 -0.29 0.03 0.09 -0.41 -0.14 -0.08 0.19 0.12 -0.2 0.13 0.26 -0.17 0.29 -0.18 0.35
    0.29 -0.47 0.08 0.25 -0.03 -0.15 -0.05 -0.15 -0.01 -0.07 0 -0.01 -0.1 -0.33 -0.61 -0.08 -0.03 0.03 0.04 -0.21
    0.25 -0.25 0.01 0.17 -0.39 0.3 -0.55 -0.19 -0.36 -0.15 -0.08 0.15 -0.04 0.14 0.14 -0.04 -0.53 -0.23 0.32 0.31
    -0.06 -0.08 0.08 0.2 -0.28 -0.14 0.25 0.48 0.31 -0.16
    """,
    sep=" ",
)
_FIRST, _SECOND = np.triu_indices(len(_USUAL) + 1)


class Spike:
    """Calls readings that are far out between others that are not.

    Its rows are the last large step and its count, the count at which a spike is judged, its width and its
    size, the number of earlier spikes and the sum of the logarithms of their sizes.
    """

    rows = 7

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
            places = places[~(look.young[places] | look.gap[places]) & (look.own[ZEROS][places] < _MOSTLY)]
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
        for place in places[rare].tolist():
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
        window = window.some(at)
        left = np.abs(window.value[:, _BEFORE + width] - window.value[:, _BEFORE - 1])
        far = (size - left) / np.maximum(look.spread[places], 1e-12)
        common = window.common[:, _BEFORE : _BEFORE + width].astype(np.float64)
        odds = _odds(_evidence(look, places, window, size, out[at], clear, rate[at]))
        odds -= _AGAINST_EVENT * np.maximum(np.abs(np.nan_to_num(common)).max(1) - _EVENT, 0)
        suspect = (clear > _CLEAR) & (clear * far > _FAR)
        for number in np.flatnonzero((odds > _SURE) | suspect).tolist():
            place, its = int(places[number]), window.time[number]
            since, until = its[_BEFORE], its[_BEFORE + width - 1]
            if odds[number] > _SURE:
                look.say(place, since, until, What.SPIKE, 0.9, ["there and back", "alone"])
            else:
                look.say(place, since, until, What.UNDECIDED, 0.5, ["there and back"])


def _evidence(  # noqa: PLR0913, PLR0917 - columns
    look: Look, places: Ints, window: Window, size: Floats, out: Floats, clear: Floats, rate: Floats
) -> Floats:
    """float64[m, 22], what is known of spikes."""
    width, value, spread = out.shape[1], window.value, look.spread[places]
    own = look.own[:, places]
    sign = np.sign(out.sum(1))
    # the moves just before and after it
    near = _moves(value, width)[:, _BEFORE - 4 : _BEFORE + 2].mean(1) + 0.1 * own[STEP]
    rest = np.abs(value[:, _BEFORE + width] - value[:, _BEFORE - 1]) / size
    tail = np.abs(value[:, _BEFORE + width + 1] - value[:, _BEFORE + width]) / size
    # how far it is beyond all that was around it
    around = np.concatenate((value[:, :_BEFORE], value[:, _BEFORE + width :]), 1)
    edge = sign * value[:, _BEFORE : _BEFORE + width].mean(1) - (sign[:, None] * around).max(1)
    more = (size - own[QUICK]) / (2.302585 * np.maximum(own[EXCESS], 1e-12))
    rarity = np.where((more > 0) & (own[EXCESS] > 0), np.log(3 + np.maximum(more, 0)), 0)
    said = np.stack(
        (
            np.log(clear),
            np.log(size / np.maximum(near, 1e-12)),
            np.minimum(rest, 1),
            np.clip(edge / size, -1, 1),
            rate,
            rarity,
            np.log(size / np.maximum(spread, 1e-12)),
            own[STEADY],
            np.full(len(places), width),
            np.abs(out).min(1) / np.abs(out).max(1),
            np.minimum(tail, 2),
        ),
        1,
    )
    witnesses = [
        _witnesses(look, int(place), width, float(towards * its))
        for place, towards, its in zip(places, sign, size, strict=True)
    ]
    return np.concatenate((said, witnesses), 1)


def _odds(said: Floats) -> Floats:
    """float64[m], log-odds that spikes are faults."""
    clear, far, rest, rate = np.exp(said[:, 0]), np.exp(said[:, 6]), said[:, 2], said[:, 4]
    alone = (said[:, _NEIGHBOUR] == _NOBODY) & (said[:, _OTHER] == _NOBODY)
    by_usual = np.clip((said - _USUAL) / _SPREAD, -3, 3)
    by_usual = np.concatenate((np.ones((len(said), 1)), by_usual), 1)
    odds = (by_usual[:, _FIRST] * by_usual[:, _SECOND]) @ _ODDS
    felt = (said[:, _NEIGHBOUR] > _FELT) & (said[:, _MOVED] > _ALIKE)
    odds = np.where(felt, np.minimum(odds, _SURE), odds)
    # a channel without any witness is unlike those that the odds are from
    plain = -np.log(1 / clear + rest + 0.02 / far) - rate + 0.5 * np.minimum(np.log(far), 1)
    return np.where(alone & (plain > _PLAIN) & (rest < _RETURN), np.maximum(odds, 2 * _SURE), odds)


def _witnesses(look: Look, place: int, width: int, size: float) -> tuple[float, ...]:
    """What neighbours and other quantities of the sensor show of a spike.

    Args:
        look: The reading by which it is judged.
        place: Of its channel.
        width: Its readings.
        size: How far out it is, negative if it is below.

    Returns:
        First of what is left when what its partners let expect is taken away: its size by its own unrest, as a
        logarithm, what of it is left after, how far it is beyond all around it, and its share of the spike. Then how
        many neighbours there are, as a logarithm; the largest move of one to the same side, logarithm of times its own
        unrest; how much of the spike the most telling one lets expect; the correlation of the one that has most to do
        with this channel; and the largest move, by the spike's size. Of the other quantities, the largest move to
        either side, and how much one lets expect.
    """
    readings = _BEFORE + width + _AFTER + 1
    there = (look.rule == look.rule[place]) & ~look.young
    there[place] = False
    neighbours, company = there.nonzero()[0], (look.sensor == look.sensor[place]) & ~look.young
    company[place] = False
    if len(neighbours) > _NEIGHBOURS:
        neighbours = neighbours[np.linspace(0, len(neighbours) - 1, _NEIGHBOURS).astype(int)]
    others = np.concatenate((neighbours, company.nonzero()[0]))
    channels = np.append(others, place)
    value, usual = look.window(channels, readings).value, look.own[STEP, channels]
    many, usual_own = len(neighbours), float(usual[-1])
    if not many and look.paired[place]:
        # those that send at other times
        common = look.window(np.array([place]), readings).common.astype(np.float64)
        value = np.concatenate((np.nan_to_num(common) * look.spread[place], value))
        usual, many = np.append(0.0, usual), 1
    out = _sizes(value, width)[1].mean(1)[:-1] * np.sign(size)
    step = np.diff(value)
    step = np.concatenate((step[:, : _BEFORE - 1], step[:, _BEFORE + width :]), 1)
    moved = out / np.maximum(np.maximum(np.abs(step).mean(1), usual)[:-1], 1e-12)
    square, product = np.square(step).sum(1), step[:-1] @ step[-1]
    tie = product / np.sqrt(np.maximum(square[:-1] * square[-1], 1e-300))
    expected = product / np.maximum(square[:-1], 1e-300) * out / abs(size)
    expected[np.abs(tie) < np.sqrt(_TOGETHER / step.shape[1])] = 0
    near, own = slice(many), slice(many, None)
    # what is left when what its partners let expect is taken away
    share = np.where(expected != 0, np.square(tie), 0)
    share /= max(share.sum(), 1e-300)
    left = value[-1] - (share * product / np.maximum(square[:-1], 1e-300)) @ value[:-1]
    its = abs(float(_sizes(left[None], width)[1].mean()))
    moves = np.abs(np.diff(left))
    moves = np.concatenate((moves[: _BEFORE - 1], moves[_BEFORE + width :]))
    around = np.concatenate((left[:_BEFORE], left[_BEFORE + width :]))
    towards = np.sign(size)
    its = max(its, 1e-12)
    return (
        float(np.clip(np.log(its / max(moves.mean(), 0.1 * usual_own, 1e-12)), -3, 5)),
        min(abs(left[_BEFORE + width] - left[_BEFORE - 1]) / its, 2.0),
        float(np.clip((towards * left[_BEFORE : _BEFORE + width].mean() - (towards * around).max()) / its, -1, 1)),
        min(its / abs(size), 2.0),
        np.log(1 + many),
        np.log(np.max(moved[near], initial=0) + 0.5) if many else _NOBODY,
        float(np.clip(np.max(expected[near], initial=0), 0, 2)),
        np.max(np.abs(tie[near]), initial=0),
        float(np.clip(np.max(out[near], initial=-np.inf) / abs(size), -1, 2)) if many else 0.0,
        np.log(np.abs(moved[own]).max() + 0.5) if len(others) > len(neighbours) else _NOBODY,
        float(np.clip(np.max(expected[own], initial=0), 0, 2)),
    )


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
