"""Drift: a sensor goes away from its neighbours, evenly and for days.

What it looks like: warmer days, falling water, and whatever else comes slowly, and comes everywhere. A drift does not
follow what its neighbours do, none of them goes the same way, nor is it seen in the sensor's other quantities; and it
grows evenly, as no weather does. Without some neighbours it cannot be told from a true change, until the sensor is
cleaned or put right: then one step leads back from an even rise to where it was before.
"""

from typing import NamedTuple

import numpy as np

from gateway.edge.faults import look as known
from gateway.edge.faults.look import Look, Singles, What
from gateway.edge.readings import Flags, Floats, Ints

_DAY = 6  # blocks
_BLOCK = 24 * 3_600_000 / _DAY  # ms; what a channel said is taken together over so long
_BLOCKS = 2 * _DAY  # in which a drift is looked for
_KNOWN = 10 * _DAY  # blocks after which it is known how far a channel wanders by itself
_MEMORY = 30 * _DAY  # blocks over which that is learnt,
_BASE = 3 * _DAY  # and over which is taken from where it went away
_TIED = 0.3  # correlation with the neighbours from which they say anything
_MUCH = 0.25  # spreads that it has to be away at least
_MANY = 3  # neighbours at the least: of two sensors that part, either may be the one that drifts
# What is for a drift, and against it: log-odds, by ridge-regularised logistic regression on the Beijing recordings with
# drifts and seasons put in by two injectors.
_AGAINST = 9.2
_FOR_EVEN = 2.66  # logarithm of how much the rise is above the scatter about it
_FOR_TIED = 4.4  # correlation with the neighbours
_AGAINST_COMMON = 0.85  # how far these went, by how far it is away: what they see, it may see more or less of
_COMMON_AT_MOST = 4.0
_COMPANY = 0.6  # of how far it is away, in times as usual, what the other quantities may be,
_PEERS = 0.5  # and what another sensor may be, to the same side
_LOOKED_INTO = 3.0, 2.0  # evenness, and times that it usually is away, from which hardly anything is learnt
_RETURNED = 0.5  # of how far it was, at which a drift is over
_LONGEST = 5 * _DAY  # blocks after which it is the channel's new level
_LEAST = 1e-3  # spreads; less scatter is none
# Of a step that leads back:
_STEPS, _SPREADS = 8.0, 0.5  # mean steps and spreads that it has at least
_BEFORE, _AFTER = 12, 4  # readings around it,
_ALONE = 0.35  # of its size, that steps among these have at most
_SHORTEST, _FARTHEST = 5, 16  # blocks that the drift took
_DAYS = 3 * _DAY  # blocks before it that tell from where it went away
_OFF, _OFF_AFTER = 0.2, 0.3  # of its size: scatter about an even rise, and how far from there it leads
_CONFIDENCE = 0.9

# Its rows: the block that runs, its readings and the sum of their levels, those with neighbours and the sum of theirs;
# a large step, and the count at which it is judged.
_RUNNING, _READINGS, _OWN, _PAIRED, _COMMON, _STEP, _DUE = range(7)
# What is kept of blocks: a ring of own levels and one of the neighbours', the daily course of what is between them,
# from where they went away; how far it usually is; blocks; how far it was when a drift was called.
_OWNS = _FARTHEST + _DAYS + 2  # blocks; with those that run while a step is judged
_COURSE = _OWNS + _BLOCKS
_FROM_OWN, _FROM_COMMON, _WANDER, _COUNT, _CALLED = range(_COURSE + _DAY, _COURSE + _DAY + 5)
_PLACE = np.arange(_BLOCKS) - (_BLOCKS - 1) / 2  # of each block, from the middle
_BACK = np.arange(_FARTHEST + _DAYS, 0, -1)  # blocks before a step
_RISES, _EACH = np.arange(_SHORTEST, _FARTHEST + 1), np.arange(_FARTHEST)
_STARTS = len(_BACK) - _RISES[:, None]
_IN_RISE = np.minimum(_STARTS + _EACH, len(_BACK) - 1)  # for each time, the places of its blocks,
_SAME_HOUR = (_STARTS - _DAYS + _EACH % _DAY)[..., None] + np.arange(0, _DAYS, _DAY)  # and of those before it


class _Course(NamedTuple):
    """What some channels did in the last two days, by blocks; of each channel, without its daily course.

    Attributes:
        apart: float64[m, _BLOCKS], distance from what the neighbours let expect, in spreads, from old to new.
        rise: float64[m], by how much it grew, by the line through it.
        even: float64[m], how much that is above the scatter about the line.
        common: float64[m], how far the neighbours' last day is from before; 0 without any.
        away: float64[m], how far it is that the neighbours do not explain.
        far: float64[m], how many times as far as usual.
    """

    apart: Floats
    rise: Floats
    even: Floats
    common: Floats
    away: Floats
    far: Floats


class Drift:
    """Calls a channel that goes evenly away from its neighbours for two days, or that did so and was put right.

    Attributes:
        kept: float32[channels, 59], what is known of each channel.
    """

    rows = 7

    def __init__(self) -> None:
        self.kept: Singles = np.zeros((0, _CALLED + 1), np.float32)
        # of each channel: its rule, the last block, and how far it was away
        self._latest: Floats = np.zeros((0, 3))

    def judge(self, look: Look, own: Floats) -> None:
        """Adds the reading before, whose neighbours are known by now, to its block; judges the blocks that ended."""
        waiting = own[_DUE].nonzero()[0]
        if len(waiting):
            due = waiting[own[_DUE, waiting] <= look.own[known.COUNT, waiting]]
            for place in due.tolist():
                self._look_back(look, own, place)
            own[_DUE, due] = 0
        places = (look.size > _STEPS * look.own[known.STEP]).nonzero()[0]
        if len(places):
            places = places[~(look.young | look.gap)[places] & (look.size > _SPREADS * look.spread)[places]]
            own[_STEP, places], own[_DUE, places] = look.step[places], look.own[known.COUNT, places] + _AFTER
        block = np.floor(look.own[known.TIME] / _BLOCK)
        ended = (block > own[_RUNNING]).nonzero()[0]
        if len(ended) and len(ended := ended[~look.young[ended]]):
            places = ended[own[_READINGS, ended] > 0]
            if len(places):
                self.make_room(int(look.channel.max()) + 1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    self._judge(look, own, places)
                silent = places[block[places] > own[_RUNNING, places] + 1]
                if len(silent):
                    kept = self.kept[look.channel[silent]]
                    _forget(kept, own[_RUNNING, silent], block[silent])
                    self.kept[look.channel[silent]] = kept
            own[_RUNNING, ended] = block[ended]
            own[_READINGS:_STEP, ended] = 0
        own[_READINGS] += 1
        own[_OWN] += look.level_before
        if look.some_paired:
            own[_PAIRED] += 1 if look.all_paired else look.paired
            own[_COMMON] += look.common

    def make_room(self, channels: int) -> None:
        """Makes room for more channels."""
        before = len(self.kept)
        if channels > before:
            many = max(channels, 3 * before // 2)
            kept, latest = np.zeros((many, _CALLED + 1), np.float32), np.zeros((many, 3))
            kept[:, :_COURSE] = np.nan
            kept[:before], latest[:before] = self.kept, self._latest
            self.kept, self._latest = kept, latest

    def _judge(self, look: Look, own: Floats, places: Ints) -> None:
        channel = look.channel[places]
        block = own[_RUNNING, places].astype(np.int64)
        lasting = look.own[known.CALLED, places] == What.DRIFT
        kept = self.kept[channel]
        many = own[_READINGS, places]
        _turn(kept, block, own[_OWN, places] / many, own[_COMMON, places] / own[_PAIRED, places], lasting)
        slope = look.slope[places]
        course = _course(kept, block, slope)
        self._latest[channel] = np.stack((look.rule[places], block, course.away), 1)
        looked_into = (course.even > _LOOKED_INTO[0]) & (course.far > _LOOKED_INTO[1])
        look.own[known.HELD, places[looked_into]] = look.own[known.COUNT, places[looked_into]] + many[looked_into]
        away, tie = np.abs(course.away), look.tie[places]
        moved = slope * np.abs(course.common) / away
        odds = _FOR_EVEN * np.log(np.maximum(course.even, _LEAST)) + _FOR_TIED * tie
        odds -= _AGAINST + _AGAINST_COMMON * np.minimum(moved, _COMMON_AT_MOST)
        call = (odds > 0) & (away > _MUCH) & (kept[:, _COUNT] > _KNOWN)
        call &= (tie > _TIED) & (look.own[known.CALLED, places] == 0)
        for number in np.flatnonzero(call).tolist():
            place = int(places[number])
            company = course.far[(look.sensor[places] == look.sensor[place]) & (places != place)]
            company = np.nanmax(company, initial=0)
            peers = self._peers(look, place)
            alone = company < _COMPANY * course.far[number] and peers.max(initial=0) < _PEERS * away[number]
            if alone and len(peers) >= _MANY:
                since = (block[number] + 1 - _DAY // 2) * _BLOCK  # it had begun by then
                look.begin(place, What.DRIFT, since, known.confidence(odds[number]), ("neighbours", "even"))
                kept[number, _CALLED] = course.away[number]
        if lasting.any():
            over = lasting & _over(kept, course, slope)
            over |= lasting & (look.time[places] - look.own[known.SINCE, places] > _LONGEST * _BLOCK)
            look.end(places[over])
            # nothing is known of a channel that was mended
            kept[over, :_COURSE], kept[over, _COUNT] = np.nan, 0
        self.kept[channel] = kept

    def _look_back(self, look: Look, own: Floats, place: int) -> None:
        """Calls the drift that a step some readings ago put an end to."""
        step, one = own[_STEP, place], np.array([place])
        window = look.window(one, _BEFORE + _AFTER + 2)
        around = np.delete(np.abs(np.diff(window.value[0])), _BEFORE)
        stuck = not around[:_BEFORE].any()
        if look.own[known.CALLED, place] or around.max() > _ALONE * abs(step) or stuck:
            return
        self.make_room(int(look.channel[place]) + 1)
        time = window.time[0]
        at = time[_BEFORE + 1] / _BLOCK
        size = -step / look.spread[place]
        after = look.level(one, window.value[:, _BEFORE + 1 :])[0] / size
        level = self.kept[look.channel[place]][(int(at) - _BACK) % _OWNS] / size
        scatter = _scatter(level, at % 1)
        if not (scatter < _OFF).any():
            return
        many = _RISES[np.nanargmin(scatter)]
        began = int(at) - many
        course = level[-many - _DAYS : -many].reshape(-1, _DAY).mean(0)
        then = time[_BEFORE + 1 :] / _BLOCK - began - 0.5
        off = after.mean() - np.interp(then, np.arange(_DAY), course, period=_DAY).mean()
        if abs(off) < _OFF_AFTER and len(self._peers(look, place)) < _MANY:
            since = (began + many / 3) * _BLOCK  # by then it was off by some of it
            look.say(place, since, time[_BEFORE], What.DRIFT, _CONFIDENCE, ("even", "return"))

    def _peers(self, look: Look, place: int) -> Floats:
        """How far each of the other sensors is away, to the same side."""
        rule, block, away = self._latest[look.channel[place]]
        now = (self._latest[:, 0] == rule) & (np.abs(self._latest[:, 1] - block) <= 1)
        now[look.channel[place]] = False
        peers: Floats = np.nan_to_num(self._latest[now, 2]) * np.sign(away)
        return peers


def _turn(kept: Singles, block: Ints, own: Floats, common: Floats, lasting: Flags) -> None:
    """Puts a block in place of the oldest, which is from where a drift may begin."""
    every = np.arange(len(kept))
    ring, beside = block % _OWNS, block % _BLOCKS + _OWNS
    before = kept[every, (block - _BLOCKS) % _OWNS]
    for row, oldest in ((_FROM_OWN, before), (_FROM_COMMON, kept[every, beside])):
        weight = np.maximum(1 / _BASE, 1 / (1 + kept[:, _COUNT]))
        kept[:, row] += np.where(np.isfinite(oldest) & ~lasting, weight * (oldest - kept[:, row]), 0)
    kept[:, _COUNT] += np.isfinite(before)
    kept[every, ring], kept[every, beside] = own, common


def _forget(kept: Singles, last: Floats, block: Floats) -> None:
    """Of blocks in which a channel said nothing, between the last and the one that begins, nothing is known."""
    before = block[:, None].astype(np.int64) - 1
    for first, many in ((0, _OWNS), (_OWNS, _BLOCKS)):
        of_place = before - (before - np.arange(many)) % many  # the latest block that would be there
        kept[:, first : first + many][of_place > last[:, None]] = np.nan


def _scatter(level: Singles, part: float) -> Floats:
    """float64[12], how far blocks are from an even rise to 1, root mean square, for each time that it may have taken.

    Args:
        level: float32[34], of the blocks before a step that leads back, by its size.
        part: Of a block, that had passed by then.
    """
    rise = (_EACH + 0.5) / (_RISES[:, None] + part)
    off = level[_IN_RISE] - level[_SAME_HOUR].mean(2) - rise
    within = _RISES[:, None] > _EACH
    return np.asarray(np.sqrt((np.where(within, off, 0) ** 2).sum(1) / _RISES), np.float64)


def _course(kept: Singles, block: Ints, slope: Floats) -> _Course:
    """What the channels did; learns their daily course, and how far they usually are away."""
    every = np.arange(len(kept))
    back = block[:, None] - np.arange(_BLOCKS - 1, -1, -1)
    own = np.take_along_axis(kept, back % _OWNS, 1).astype(np.float64)
    common = np.take_along_axis(kept, back % _BLOCKS + _OWNS, 1).astype(np.float64)
    common[slope == 0] = 0
    apart = own - slope[:, None] * common
    daily = kept[:, _COURSE:_FROM_OWN]
    off = apart[:, -1] - apart[:, -_DAY:].mean(1)
    apart -= np.take_along_axis(daily - daily.mean(1)[:, None], back % _DAY, 1)
    now = block % _DAY
    daily[every, now] += np.where(np.isfinite(off), 0.1 * (off - daily[every, now]), 0)
    went_own = own[:, -_DAY:].mean(1) - kept[:, _FROM_OWN]
    went_common = np.where(slope == 0, 0, common[:, -_DAY:].mean(1) - kept[:, _FROM_COMMON])
    away = went_own - slope * went_common
    size, usual, count = np.abs(away), kept[:, _WANDER].astype(np.float64), kept[:, _COUNT] - _BLOCKS
    far = size / usual
    weight = np.maximum(1 / _MEMORY, 1 / np.maximum(count, 1))
    capped = np.where(kept[:, _COUNT] > _KNOWN, np.minimum(size, 3 * usual), size)
    kept[:, _WANDER] += np.where((count > 0) & np.isfinite(size), weight * (capped - usual), 0)
    rise = apart @ _PLACE / (_PLACE @ _PLACE)
    rest = apart - apart.mean(1)[:, None] - rise[:, None] * _PLACE
    scatter = np.maximum(np.sqrt(np.square(rest).sum(1) / (_BLOCKS - 2)), _LEAST)
    rise *= _BLOCKS - 1
    return _Course(apart, rise, rise * np.sign(away) / scatter, went_common, away, far)


def _over(kept: Singles, course: _Course, slope: Floats) -> Flags:
    """Whether the last block is back from where it was when a drift was called."""
    away = course.apart[:, -1] - kept[:, _FROM_OWN] + slope * kept[:, _FROM_COMMON]
    called = kept[:, _CALLED]
    over: Flags = ~(away * np.sign(called) >= _RETURNED * np.abs(called))
    return over
