"""Drift: a sensor goes away from its neighbours, evenly and for days.

What it looks like: warmer days, falling water, and whatever else comes slowly, and comes everywhere. A drift does not
follow what its neighbours do, none of them goes the same way, nor is it seen in the sensor's other quantities; and it
grows evenly, as no weather does. Without some neighbours it cannot be told from a true change, and is not called.
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

# Its rows: the block that runs, its readings and the sum of their levels, those with neighbours and the sum of theirs.
_RUNNING, _READINGS, _OWN, _PAIRED, _COMMON = range(5)
# What is kept of blocks: a ring of own levels and one of the neighbours', the daily course of what is between them,
# from where they went away; how far it usually is; blocks; how far it was when a drift was called.
_COURSE = 2 * _BLOCKS
_FROM_OWN, _FROM_COMMON, _WANDER, _COUNT, _CALLED = range(_COURSE + _DAY, _COURSE + _DAY + 5)
_PLACE = np.arange(_BLOCKS) - (_BLOCKS - 1) / 2  # of each block, from the middle


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
    """Calls a channel that goes evenly away from its neighbours for two days.

    Attributes:
        kept: float32[channels, 35], what is known of each channel.
    """

    rows = 5

    def __init__(self) -> None:
        self.kept: Singles = np.zeros((0, _CALLED + 1), np.float32)
        # of each channel: its rule, the last block, and how far it was away
        self._latest: Floats = np.zeros((0, 3))

    def judge(self, look: Look, own: Floats) -> None:
        """Adds the reading before, whose neighbours are known by now, to its block; judges the blocks that ended."""
        block = np.floor(look.own[known.TIME] / _BLOCK)
        ended = (block > own[_RUNNING]).nonzero()[0]
        if len(ended) and len(ended := ended[~look.young[ended]]):
            places = ended[own[_READINGS, ended] > 0]
            if len(places):
                self.make_room(int(look.channel.max()) + 1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    self._judge(look, own, places)
            own[_RUNNING, ended] = block[ended]
            own[_READINGS:, ended] = 0
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

    def _peers(self, look: Look, place: int) -> Floats:
        """How far each of the other sensors is away, to the same side."""
        rule, block, away = self._latest[look.channel[place]]
        now = (self._latest[:, 0] == rule) & (np.abs(self._latest[:, 1] - block) <= 1)
        now[look.channel[place]] = False
        peers: Floats = np.nan_to_num(self._latest[now, 2]) * np.sign(away)
        return peers


def _turn(kept: Singles, block: Ints, own: Floats, common: Floats, lasting: Flags) -> None:
    """Puts a block in place of the oldest, which is from where a drift may begin."""
    every, at = np.arange(len(kept)), block % _BLOCKS
    for row, ring in ((_FROM_OWN, at), (_FROM_COMMON, at + _BLOCKS)):
        oldest = kept[every, ring]
        weight = np.maximum(1 / _BASE, 1 / (1 + kept[:, _COUNT]))
        kept[:, row] += np.where(np.isfinite(oldest) & ~lasting, weight * (oldest - kept[:, row]), 0)
    kept[:, _COUNT] += np.isfinite(kept[every, at])
    kept[every, at], kept[every, at + _BLOCKS] = own, common


def _course(kept: Singles, block: Ints, slope: Floats) -> _Course:
    """What the channels did; learns their daily course, and how far they usually are away."""
    every = np.arange(len(kept))
    back = block[:, None] - np.arange(_BLOCKS - 1, -1, -1)
    own = np.take_along_axis(kept, back % _BLOCKS, 1).astype(np.float64)
    common = np.take_along_axis(kept, back % _BLOCKS + _BLOCKS, 1).astype(np.float64)
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
