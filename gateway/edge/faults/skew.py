"""Skew: the clock of a sensor is wrong by hours, so that all it sends is of an earlier or a later time.

What it looks like: a holiday, or any days without their usual course. But then no other time fits better. When a clock
is wrong, everything fits that was sent some hours ago, or will be: the sensor's own daily course, and what its
neighbours say, in all its quantities at once and by the same number of hours.
"""

from typing import NamedTuple

import numpy as np

from gateway.edge.faults import look as known
from gateway.edge.faults.look import Look, Singles, What
from gateway.edge.readings import Flags, Floats, Ints

_HOUR = 3_600_000.0  # ms
_DAY = 24  # hours that are looked at
_MOST = 12  # hours that a clock may be wrong: beyond, late and early are the same
_LEAST = 2  # less may be the sensor's place: the weather comes to it earlier or later
_EVERY = 4  # hours between two looks at a sensor
_DAYS = 7  # after which a daily course is known
_COURSE = 0.3  # spreads that a daily course has to have
_TIED = 0.5  # correlation with the neighbours from which they say anything
_PRESENT = 18  # hours of a day that have to be known
_FIRST = (-7, -3, 3, 7)  # hours that are tried first: whatever fits better, one of these does so, too
_DOUBT = 0.3  # natural logarithm of how much better the own course has to fit then, over all quantities,
_BETTER = 3.0  # and of how much better it and the neighbours have to fit at another time
_LATEST = 8  # hours over which it is judged whether a clock is right again
_LONGEST = 5 * 24 * _HOUR

# Its rows: the hour that runs, its readings and the sum of their levels, those with neighbours and the sum of theirs,
# and the hours by which the clock is late.
_RUNNING, _MANY, _OWN, _PAIRED, _COMMON, _LATE = range(6)
# What is kept of a channel: levels of the last day, by the hour of the day; those of its neighbours, of the last day
# and a half; the usual daily course, and of how many days.
_RING = _DAY + _MOST
_USUAL, _OF_DAYS = _DAY + _RING, _DAY + _RING + _DAY
_LATES = np.array([late for late in range(-_MOST, _MOST + 1) if abs(late) >= _LEAST])


class Skew:
    """Calls a sensor whose quantities all fit another time better.

    Attributes:
        kept: float32[channels, 85], what is known of each channel.
    """

    rows = 6

    def __init__(self) -> None:
        self.kept: Singles = np.zeros((0, _OF_DAYS + 1), np.float32)

    def judge(self, look: Look, own: Floats) -> None:
        """Adds the reading before, whose neighbours are known by now, to its hour; looks at sensors now and then."""
        hour = np.floor(look.own[known.TIME] / _HOUR)
        ended = (hour > own[_RUNNING]).nonzero()[0]
        if len(ended) and len(ended := ended[~look.young[ended]]):
            places = ended[own[_MANY, ended] > 0]
            if len(places):
                self.make_room(int(look.channel.max()) + 1)
                self._turn(look, own, places)
                due = places[(own[_RUNNING, places].astype(np.int64) + look.sensor[places]) % _EVERY == 0]
                if len(due):
                    with np.errstate(invalid="ignore", divide="ignore"):
                        self._judge(look, own, due)
            own[_RUNNING, ended] = hour[ended]
            own[_MANY : _COMMON + 1, ended] = 0
        own[_MANY] += 1
        own[_OWN] += look.level_before
        if look.some_paired:
            own[_PAIRED] += 1 if look.all_paired else look.paired
            own[_COMMON] += look.common

    def make_room(self, channels: int) -> None:
        """Makes room for more channels."""
        before = len(self.kept)
        if channels > before:
            kept = np.full((max(channels, 3 * before // 2), _OF_DAYS + 1), np.nan, np.float32)
            kept[:, _USUAL:] = 0
            kept[:before] = self.kept
            self.kept = kept

    def _turn(self, look: Look, own: Floats, places: Ints) -> None:
        """Puts an hour in place of that of yesterday, from which the daily course is learnt."""
        channel, hour = look.channel[places], own[_RUNNING, places].astype(np.int64)
        kept = self.kept
        at = hour % _DAY
        yesterday = kept[channel, at]
        learning = np.isfinite(yesterday) & (look.own[known.CALLED, places] == 0)
        weight = np.where(learning, 1 / np.minimum(kept[channel, _OF_DAYS] + 1, 10), 0)
        kept[channel, _USUAL + at] += weight * (np.where(learning, yesterday, 0) - kept[channel, _USUAL + at])
        kept[channel, _OF_DAYS] += learning * (at == _DAY - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            kept[channel, at] = own[_OWN, places] / own[_MANY, places]
            kept[channel, _DAY + hour % _RING] = own[_COMMON, places] / own[_PAIRED, places]
        # hours without a reading, until the one that begins
        missed = np.floor(look.own[known.TIME, places] / _HOUR).astype(np.int64) - hour - 1
        for ahead in range(1, min(int(missed.max(initial=0)), _RING) + 1):
            its = missed >= ahead
            kept[channel[its], (hour[its] + ahead) % _DAY] = np.nan
            kept[channel[its], _DAY + (hour[its] + ahead) % _RING] = np.nan

    def _judge(self, look: Look, own: Floats, places: Ints) -> None:
        """Looks at the last day of some sensors: first whether their own course fits as it is."""
        kept = self.kept[look.channel[places]]
        level, usual = kept[:, :_DAY], kept[:, _USUAL:_OF_DAYS]
        seen = np.isfinite(level)
        coursed = (seen.sum(1) >= _PRESENT) & (kept[:, _OF_DAYS] >= _DAYS) & (usual.std(1) > _COURSE)
        sensors, group = np.unique(look.sensor[places], return_inverse=True)
        lasting = look.own[known.CALLED, places] == What.SKEW
        better = np.zeros(len(sensors))
        if coursed.any():
            level, usual = np.where(seen, level, usual)[coursed], usual[coursed]
            misfit = _off_course(level - usual)
            twice = np.concatenate((usual, usual), 1)
            for late in _FIRST:
                gain = np.log(misfit / _off_course(level - twice[:, -late % _DAY : -late % _DAY + _DAY]))
                better = np.maximum(better, np.bincount(group[coursed], gain, len(sensors)))
        looked_into = (better > _DOUBT) | (np.bincount(group, lasting, len(sensors)) > 0)
        for number in np.flatnonzero(looked_into):
            its = np.flatnonzero(group == number)
            past = _past(look, places[its], kept[its], own[_RUNNING, places[its]].astype(np.int64), coursed[its])
            if lasting[its].any():
                self._go_on(look, own, places[its], past)
            elif 2 * better[number] + _apart(past) > _BETTER:
                _call(look, own, places[its], past)

    def _go_on(self, look: Look, own: Floats, places: Ints, past: "_Past") -> None:
        """Ends it when the present time fits better again."""
        lasting = look.own[known.CALLED, places] == What.SKEW
        late = int(own[_LATE, places[lasting]][0])
        since = look.own[known.SINCE, places[lasting]].min()
        if _gain(past, late)[-_LATEST:].sum() <= 0 or look.time[places[0]] - since > _LONGEST:
            look.end(places[lasting])
            # nothing that was sent meanwhile is of a time that is known
            self.kept[look.channel[places], :_USUAL] = np.nan


def _call(look: Look, own: Floats, places: Ints, past: "_Past") -> None:
    """Calls a sensor whose last day fits another time better."""
    fits = _fits(past)
    total = np.where(fits[0] > 0, fits.sum(0), 0)
    best = int(total.argmax())
    if total[best] <= _BETTER:
        return
    late = int(_LATES[best])
    # it fits better for some hours, and began before; the later half of them is beyond doubt
    gain = np.cumsum(_gain(past, late)[::-1])
    since = (own[_RUNNING, places[0]] - int(gain.argmax()) // 2) * _HOUR
    reasons = ("course", "neighbours") if fits[1, best] > 0 else ("course",)
    for place in places[look.own[known.CALLED, places] == 0].tolist():
        own[_LATE, place] = late
        look.begin(place, What.SKEW, since, 0.9, reasons)


class _Past(NamedTuple):
    """The last day of some channels, from old to new, in spreads.

    Attributes:
        level: float32[m, 24].
        usual: float32[m, 24], the usual daily course.
        common: float32[m, 36], what the neighbours let expect; of half a day more.
        apart: float64[m], how far from that a channel usually is.
        coursed: bool[m], which have a daily course.
        tied: bool[m], which go with their neighbours.
    """

    level: Singles
    usual: Singles
    common: Singles
    apart: Floats
    coursed: Flags
    tied: Flags


def _past(look: Look, places: Ints, kept: Singles, hour: Ints, coursed: Flags) -> _Past:
    """The last day of the channels of a sensor."""
    day = (hour[:, None] - np.arange(_DAY - 1, -1, -1)) % _DAY
    level, usual = np.take_along_axis(kept, day, 1), np.take_along_axis(kept[:, _USUAL:_OF_DAYS], day, 1)
    common = np.take_along_axis(kept[:, _DAY:_USUAL], (hour[:, None] - np.arange(_RING - 1, -1, -1)) % _RING, 1)
    tied = (np.isfinite(level).sum(1) >= _PRESENT) & (np.isfinite(common).sum(1) >= _PRESENT + _MOST)
    tied &= look.tie[places] > _TIED
    expected = (look.slope[places, None] * common).astype(np.float32)
    return _Past(level, usual, expected, look.own[known.APART, places], coursed, tied)


def _apart(past: _Past) -> float:
    """How much farther than usual the channels are from what the neighbours let expect; log of a ratio."""
    distance = _distance(past.level[past.tied], past.common[past.tied, _MOST:])
    return float(np.log(np.maximum(distance / past.apart[past.tied], 1)).sum())


def _fits(past: _Past) -> Floats:
    """float64[2, lates], how much better the own course, and the neighbours, fit if the clock is late by so many hours.

    It is the logarithm of a ratio of distances, over all channels.
    """
    level, usual = past.level[past.coursed], past.usual[past.coursed]
    off = _off_course(level[:, None] - usual[:, (np.arange(_DAY) - _LATES[:, None]) % _DAY])
    course = np.log(_off_course(level - usual)[:, None] / off).sum(0)
    level, common, apart = past.level[past.tied, None], past.common[past.tied], past.apart[past.tied, None]
    # what the neighbours will say is not known
    common = np.concatenate((common, np.full((len(common), _MOST), np.nan, np.float32)), 1)
    then = common[:, _MOST + np.arange(_DAY) - _LATES[:, None]]
    now = np.where(np.isfinite(then), common[:, None, _MOST : _MOST + _DAY], np.nan)
    nearer = np.maximum(_distance(level, now), apart) / np.maximum(_distance(level, then), apart)
    return np.array((course, np.log(nearer).sum(0)))


def _gain(past: _Past, late: int) -> Floats:
    """float64[24], how much better each hour fits if the clock is late by so many hours, over all channels."""
    rest = past.level - past.usual
    rest -= np.nanmean(rest, 1)[:, None]
    other = past.level - np.roll(past.usual, late, 1)
    other -= np.nanmean(other, 1)[:, None]
    course = np.nan_to_num(np.abs(rest) - np.abs(other))[past.coursed].sum(0)
    there = np.full(past.level.shape, np.nan)
    many = _DAY + min(late, 0)
    there[:, :many] = np.abs(past.level[:, :many] - past.common[:, _MOST - late : _MOST - late + many])
    neighbours = np.nan_to_num(np.abs(past.level - past.common[:, _MOST:]) - there)[past.tied].sum(0)
    gain: Floats = course + neighbours
    return gain


def _off_course(rest: Floats | Singles) -> Floats | Singles:
    """How much a course of a day differs from another, whatever the day's mean; hours may be missing."""
    known_hours = np.isfinite(rest)
    many = np.maximum(known_hours.sum(-1), 1)
    rest = np.where(known_hours, rest, 0)
    mean = rest.sum(-1) / many
    off: Floats | Singles = np.sqrt(np.maximum((rest * rest).sum(-1) / many - mean * mean, 1e-6))
    return off


def _distance(level: Singles, expected: Singles) -> Floats | Singles:
    """Mean distance of what was sent from what was expected; hours may be missing."""
    rest = np.abs(level - expected)
    known_hours = np.isfinite(rest)
    distance: Floats | Singles = np.where(known_hours, rest, 0).sum(-1) / np.maximum(known_hours.sum(-1), 1)
    return distance
