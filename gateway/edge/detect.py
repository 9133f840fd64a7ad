"""The adaptive detector: how surprising a reading is to its own channel, for what no fixed limit can see.

Thirteen views of a channel (below) are each compared with their own past: beyond an adaptive 99 % quantile a view
counts as *surprise*, in decades, by the exponential tail of what went beyond it before. The length of the vector of
surprises is the *evidence*. An alarm is evidence above one threshold, the same for every channel, that is also more
than the fading memory of the channel's own recent evidence.

It knows nothing but the readings so far: no length, minimum or maximum of a series, no look-ahead, no setting for a
channel. Memory is counted in readings, so that it fits a reading a day and ten a second; the clock tells only the hour
of the day. State is bounded; what loses power loses at most that state, and learns again.
"""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.uint16]

THRESHOLD = 1.84
"""Decades of evidence from which an alarm is raised."""
LEARNING = 150
"""Readings after which a channel may raise one."""

# The views: the level; the spread over 30 and 100 readings; a value beyond the range, and a level of 30 and of 300
# readings above and below its range; the rarity of a value at its hour, now and over 10 readings; the rarity of a value
# together with its change, now, over 10 and over 30 readings.
_VIEWS = 13
_LEVEL, _SPREAD, _RECORD, _RECORDS, _RARITY = 0, slice(1, 3), 3, slice(4, 8), slice(8, 13)

# Rows of the state, a column a channel.
_FAST, _MIDDLE, _LONG, _SLOW, _BEFORE = range(5)  # levels
_LEVELS, _SQUARES, _SMOOTHED = slice(0, 5), slice(5, 9), slice(9, 14)
_NARROW, _WIDE, _VARIANCE, _CHANGE = range(5, 9)  # mean squares
_USUAL, _HOURLY, _PAIRED, _PAIRED_LONG = slice(9, 11), 11, 12, 13
_HIGH, _LOW, _NEXT_HIGH, _NEXT_LOW = slice(14, 17), slice(17, 20), slice(20, 23), slice(23, 26)
_RANGES, _HIGHS = slice(14, 26), range(14, 17)
_QUANTILE, _EXCESS, _BEYOND = slice(26, 39), slice(39, 52), slice(52, 65)
_MEMORY, _COUNT, _ALARMED, _RENEWAL, _TIME, _INTERVAL = range(65, 71)
_ROWS = 71

# Readings that each of them remembers.
_LEVEL_SPANS = (3, 30, 300, 2000, 5)
_SQUARE_SPANS = (30, 100, 2000, 2000)
_SMOOTHED_SPANS = (2000, 2000, 10, 10, 30)  # the usual spread of the two spans, then rarities
_WEIGHTS = [1 / span for span in (*_LEVEL_SPANS, *_SQUARE_SPANS, *_SMOOTHED_SPANS)]
_WEIGHT: Floats = np.array(_WEIGHTS)[:, None]
_OLD = max(_LEVEL_SPANS)  # readings after which weights are as above; before, all readings count the same
_FORGET = (0.0, 3e-4, 0.0)  # share of a range that is forgotten a reading
_FORGETTING: Floats = np.array(_FORGET)[:, None]
_RENEWED = 10_000  # a range is that of the last one or two times as many readings

# Counts of how often a value was in each of 16 bins: at each hour, and with each change. A row has an empty bin at
# either side, so that a bin's neighbours need no test, and its sum after it.
_BINS, _HOURS = 16, 24
_SPAN = 3.0  # the bins reach so many standard deviations to either side
_BINS_A_DEVIATION = _BINS / (2 * _SPAN)
_ROW = _BINS + 3
_CELLS = (_HOURS + _BINS) * _ROW
_FULL = 256  # a row is halved when it holds so many, so that habits may change
_FEW = 5  # a row with fewer says nothing
# The rarity of a bin is a difference of logarithms of whole numbers; half its neighbours' counts are its own.
_LOG_CELL: Floats = np.log10(np.arange(4 * _FULL + 1) + 0.4)
_LOG_ROW: Floats = np.log10(4 * np.arange(_FULL + 1) + 0.4 * _BINS)
_LOG_CELLS, _LOG_ROWS = _LOG_CELL.tolist(), _LOG_ROW.tolist()

# Calibration of a view.
_WARM = 60  # readings before it counts
_TAIL = 0.01  # share of readings beyond the quantile
_RATE, _YOUTH, _YOUNG = 0.02, 20.0, 100.0  # how fast the quantile follows: faster in a channel's youth
_LEAST_EXCESS = 0.05  # of the quantile; by mean excesses it moves
_EXCESS_WEIGHT = 0.03
_OUTLIER = 10  # a single excess teaches at most as much as so many mean ones
_DECADE = 2.302585092994046
_CAP = 3.0  # decades of one view

# The memory of evidence: its half-life is a share of the channel's age, within limits.
_HALF_LIFE, _HALF_LIFE_MIN, _HALF_LIFE_MAX = 0.06, 60.0, 600.0
_HALF = 0.6931471805599453
_AFTER_ALARM = 1.2247448713915890  # what an alarm leaves in memory, so that only clearly more evidence is another
_PAUSE = 20  # readings from an alarm to the next at least
_LARGEST = 1e100  # values beyond are taken as this, so that no square overflows

_HOUR = 3_600_000
_GAP = 20  # times the usual interval: after that, what was a few readings ago says nothing of now
_INTERVAL_WEIGHT = 0.05
_NEVER = -1e15  # ms; before any reading
_SINGLE = 12  # with fewer readings, one at a time is faster


class Judged(NamedTuple):
    """What the detector says of some readings.

    Attributes:
        evidence: float64[n], in decades; 0 for nothing unusual.
        alarm: bool[n], whether that is more than the threshold and than the channel's recent evidence.
    """

    evidence: Floats
    alarm: Bools


class Calibration(NamedTuple):
    """What is known of the tails of some views.

    Attributes:
        quantile: float64[v, n], 99 % of a view's past is below.
        excess: float64[v, n], by how much the rest was beyond it on average.
        beyond: float64[v, n], how often it was.
    """

    quantile: Floats
    excess: Floats
    beyond: Floats


class Detector:
    """Judges readings of any number of channels; keeps some 2 KB of state for each.

    Args:
        capacity: Channels to make room for; more room is made when it is needed.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._hold(np.zeros((_ROWS, 0)), np.zeros((0, _CELLS), np.uint16))
        self._make_room(capacity)

    @property
    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """All that the detector knows, as plain arrays: float64[71, channels] and uint16[channels, 760]; no copies."""
        return {"state": self._state, "counts": self._counts}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes up where another detector left.

        Args:
            state: What that one's ``state`` was.

        Raises:
            ValueError: It is not a detector's state, or one of another version.
        """
        values, counts = state.get("state"), state.get("counts")
        if values is None or counts is None or (values.dtype.str, counts.dtype.str) != ("<f8", "<u2"):
            message = "not a detector's state"
            raise ValueError(message)
        if (values.shape, counts.shape) != ((_ROWS, len(counts)), (len(counts), _CELLS)):
            message = "not the state of this version's detector"
            raise ValueError(message)
        known, counted = values.astype(np.float64), counts.astype(np.uint16)
        if not np.isfinite(known).all() or (counted >= _FULL).any():
            message = "a detector's state with impossible values"
            raise ValueError(message)
        self._hold(known, counted)

    def learning(self, channel: Ints) -> Bools:
        """Whether channels have not yet had enough readings for an alarm, bool[n]."""
        known = channel < self._state.shape[1]
        young: Bools = ~known
        young |= self._state[_COUNT, np.where(known, channel, 0)] < LEARNING
        return young

    def score(self, channel: Ints, time: Ints, value: Floats) -> Judged:
        """Judges readings and learns from them.

        A reading without a finite value, or not newer than its channel's last, has no evidence and teaches nothing.

        Args:
            channel: int64[n], no channel twice.
            time: int64[n], observed, ms UTC.
            value: float64[n].
        """
        if len(channel) and (most := int(channel.max())) >= self._state.shape[1]:
            self._make_room(most + 1)
        if len(channel) < _SINGLE:
            pairs = [
                self._single(*reading) for reading in zip(channel.tolist(), time.tolist(), value.tolist(), strict=True)
            ]
            return Judged(np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs], bool))
        good = np.isfinite(value) & (time > self._state[_TIME, channel])
        if good.all():
            return self._together(channel, time, value)
        evidence, alarm = np.zeros(len(channel)), np.zeros(len(channel), bool)
        if good.any():
            evidence[good], alarm[good] = self._together(channel[good], time[good], value[good])
        return Judged(evidence, alarm)

    def score_one(self, channel: int, time: int, value: float) -> tuple[float, bool]:
        """Evidence and alarm of one reading; the same as ``score`` gives."""
        if channel >= self._state.shape[1]:
            self._make_room(channel + 1)
        return self._single(channel, time, value)

    def _make_room(self, channels: int) -> None:
        before = self._state.shape[1]
        after = max(channels, 2 * before, 1)
        state, counts = np.zeros((_ROWS, after)), np.zeros((after, _CELLS), np.uint16)
        state[:, :before], counts[:before] = self._state, self._counts
        state[_TIME, before:] = _NEVER
        self._hold(state, counts)

    def _hold(self, state: Floats, counts: Counts) -> None:
        self._state, self._counts = state, counts
        self._cells = memoryview(counts.reshape(-1).data)

    def _together(self, channel: Ints, time: Ints, value: Floats) -> Judged:
        first, last = int(channel.min()), int(channel.max())
        if last - first + 1 != len(channel):
            own = self._state.take(channel, axis=1)
            judged = self._judge(own, channel, time, value)
            self._state[:, channel] = own
            return judged
        # all channels of a range: their state is judged where it is, which is far cheaper than to collect it
        place = channel - first
        ordered_time, ordered_value = np.empty_like(time), np.empty_like(value)
        ordered_time[place], ordered_value[place] = time, value
        ordered = np.arange(first, last + 1)
        evidence, alarm = self._judge(self._state[:, first : last + 1], ordered, ordered_time, ordered_value)
        return Judged(evidence[place], alarm[place])

    def _judge(self, own: Floats, channel: Ints, time: Ints, value: Floats) -> Judged:
        """Many channels at once; what `_single` does for one, in the same order of operations."""
        value = np.clip(value, -_LARGEST, _LARGEST)
        count = own[_COUNT]
        count += 1
        young = int(count.min()) <= _OLD
        step, usual = time - own[_TIME], own[_INTERVAL]
        if young:
            new = count == 1
            own[_LEVELS, new] = value[new]
            own[_RANGES, new] = value[new]
            own[_RENEWAL, new] = _RENEWED
            usual[:] = np.where(count == 2, step, usual)  # noqa: PLR2004 - an interval takes two
            step[new] = 0
        longest = _GAP * usual
        gap = step > longest
        if gap.any():
            for row in (_FAST, _MIDDLE, _BEFORE):
                own[row, gap] = value[gap]
        usual += _INTERVAL_WEIGHT * (np.minimum(step, longest) - usual)

        weight = np.maximum(_WEIGHT, 1 / count) if young else _WEIGHT
        levels, squares, smoothed = own[_LEVELS], own[_SQUARES], own[_SMOOTHED]
        views = np.empty((_VIEWS, len(channel)))
        slow, change = own[_SLOW].copy(), value - own[_BEFORE]
        off = value - own[_MIDDLE]
        levels += weight[_LEVELS] * (value - levels)
        centred = value - own[_SLOW]
        target = np.empty((5, len(channel)))
        target[0] = target[1] = off * off
        np.multiply(value - slow, centred, out=target[2])
        np.multiply(change, change, out=target[3])
        squares += weight[_SQUARES] * (target[:4] - squares)
        np.abs(own[_FAST] - slow, out=views[_LEVEL])
        np.sqrt(squares[:2], out=target[:2])
        np.abs(target[:2] - own[_USUAL], out=views[_SPREAD])
        _records(own, value, views)
        target[2:4] = self._rarity(channel, time, own, centred, change)
        target[4] = target[3]
        smoothed += weight[_SMOOTHED] * (target - smoothed)
        views[8], views[9], views[10], views[11:] = target[2], own[_HOURLY], target[3], own[_PAIRED : _PAIRED_LONG + 1]

        _, place, surprise = calibrate(Calibration(own[_QUANTILE], own[_EXCESS], own[_BEYOND]), count, views)
        evidence = np.sqrt(np.bincount(place, surprise * surprise, len(channel)))
        memory = own[_MEMORY]
        alarm = (evidence > THRESHOLD) & (evidence > memory) & (count > LEARNING) & (count - own[_ALARMED] > _PAUSE)
        memory *= 1 - _HALF / np.minimum(np.maximum(_HALF_LIFE * count, _HALF_LIFE_MIN), _HALF_LIFE_MAX)
        np.maximum(memory, evidence, out=memory)
        memory[alarm] = _AFTER_ALARM * evidence[alarm]
        own[_ALARMED, alarm] = count[alarm]
        own[_TIME] = time
        return Judged(evidence, alarm)

    def _rarity(self, channel: Ints, time: Ints, own: Floats, centred: Floats, change: Floats) -> Floats:
        """Decades by which a value's bin is rare at its hour, and with its change; float64[2, n]."""
        root = np.sqrt(own[_VARIANCE : _CHANGE + 1])
        varies = root[0] > 0
        root[root == 0] = 1
        bins = (np.stack((centred, change)) / root + _SPAN) * _BINS_A_DEVIATION
        cell, row = np.minimum(np.maximum(bins, 0), _BINS - 1).astype(np.int64)
        start = np.stack((time // _HOUR % _HOURS, row + _HOURS)) * _ROW + channel * _CELLS  # of the rows of counts
        cell += 1
        place, last = start + cell, start + (_ROW - 1)
        counts = self._counts.reshape(-1)
        total, middle = counts.take(last), counts.take(place)
        near = 2 * middle + counts.take(place - 1) + counts.take(place + 1)
        rarity: Floats = np.maximum(_LOG_ROW.take(total) - _LOG_CELL.take(near), 0)
        rarity[(total <= _FEW) | ~varies] = 0
        total += varies
        middle += varies
        counts[place], counts[last] = middle, total
        full = total >= _FULL
        if full.any():
            self._halve(start[full])
        return rarity

    def _halve(self, start: Ints) -> None:
        cells = start[:, None] + np.arange(_ROW)
        counts = self._counts.reshape(-1)
        halved = counts[cells] >> 1
        halved[:, -1] = halved[:, :-1].sum(1)
        counts[cells] = halved

    def _single(self, channel: int, time: int, value: float) -> tuple[float, bool]:  # noqa: C901, PLR0912, PLR0915
        """One reading in plain numbers, many times as fast as arrays of one."""
        column = self._state[:, channel]
        own: list[float] = column.tolist()
        if not isfinite(value) or time <= own[_TIME]:
            return 0.0, False
        value = min(max(value, -_LARGEST), _LARGEST)
        own[_COUNT] = count = own[_COUNT] + 1
        step = time - own[_TIME]
        if count == 1:
            own[_LEVELS] = [value] * 5
            own[_RANGES] = [value] * 12
            own[_RENEWAL] = _RENEWED
            step = 0.0
        elif count == 2:  # noqa: PLR2004 - an interval takes two
            own[_INTERVAL] = step
        longest = _GAP * own[_INTERVAL]
        if step > longest:
            own[_FAST] = own[_MIDDLE] = own[_BEFORE] = value
            step = longest
        own[_INTERVAL] += _INTERVAL_WEIGHT * (step - own[_INTERVAL])

        share = 1 / count
        weights = _WEIGHTS if count > _OLD else [max(share, weight) for weight in _WEIGHTS]
        fast, middle, long, slow, before = own[_LEVELS]
        change, off = value - before, value - middle
        own[_FAST] = fast = fast + weights[0] * (value - fast)
        own[_MIDDLE] = middle = middle + weights[1] * off
        own[_LONG] = long = long + weights[2] * (value - long)
        own[_SLOW] = new_slow = slow + weights[3] * (value - slow)
        own[_BEFORE] = before + weights[4] * change
        centred, off = value - new_slow, off * off
        own[_NARROW] += weights[5] * (off - own[_NARROW])
        own[_WIDE] += weights[6] * (off - own[_WIDE])
        own[_VARIANCE] += weights[7] * ((value - slow) * centred - own[_VARIANCE])
        own[_CHANGE] += weights[8] * (change * change - own[_CHANGE])
        spread, wide = sqrt(own[_NARROW]), sqrt(own[_WIDE])
        usual, usual_wide = own[_USUAL]
        views = [abs(fast - slow), abs(spread - usual), abs(wide - usual_wide)]
        for row, now, forget in zip(_HIGHS, (value, middle, long), _FORGET, strict=True):
            high, low, next_high, next_low = own[row : _RANGES.stop : len(_HIGHS)]
            above = now - high if now > high else 0.0
            below = low - now if now < low else 0.0
            views += (above, below) if row > _HIGH.start else (above + below,)
            if above or below or forget:
                forgotten = (high - low) * forget
                high, low = high - forgotten, low + forgotten
                own[row] = max(high, now)
                own[row + 3] = min(low, now)
            if now > next_high:
                own[row + 6] = now
            if now < next_low:
                own[row + 9] = now
        if count >= own[_RENEWAL]:
            own[_HIGH], own[_LOW] = own[_NEXT_HIGH], own[_NEXT_LOW]
            own[_NEXT_HIGH] = own[_NEXT_LOW] = [value, middle, long]
            own[_RENEWAL] += _RENEWED
        deviation = sqrt(own[_VARIANCE])
        hourly = paired = 0.0
        if deviation > 0:
            cell = _bin(centred / deviation) + 1
            start = channel * _CELLS
            hourly = self._rare(start + time // _HOUR % _HOURS * _ROW, cell)
            paired = self._rare(start + (_HOURS + _bin(change / (sqrt(own[_CHANGE]) or 1.0))) * _ROW, cell)
        own[_USUAL] = usual + weights[9] * (spread - usual), usual_wide + weights[10] * (wide - usual_wide)
        own[_HOURLY] += weights[11] * (hourly - own[_HOURLY])
        own[_PAIRED] += weights[12] * (paired - own[_PAIRED])
        own[_PAIRED_LONG] += weights[13] * (paired - own[_PAIRED_LONG])
        views += (hourly, own[_HOURLY], paired, own[_PAIRED], own[_PAIRED_LONG])

        rate, length = _YOUTH / (count + _YOUNG) + _RATE, 0.0
        quantiles, excesses, counts = own[_QUANTILE], own[_EXCESS], own[_BEYOND]
        for number, (view, quantile, excess) in enumerate(zip(views, quantiles, excesses, strict=True)):
            more = view - quantile
            if more > 0:
                if excess > 0 and count > _WARM:
                    surprise = min(more / excess / _DECADE, _CAP)
                    length += surprise * surprise
                if quantile > 0:
                    least = _LEAST_EXCESS * quantile
                    step = rate * max(least, excess)
                    quantiles[number] = quantile - step * _TAIL + step
                    counts[number] += 1
                    weight = max(_EXCESS_WEIGHT, 1 / (counts[number] + 1))
                    excesses[number] = excess + weight * (min(more, _OUTLIER * excess) - excess)
                    continue
            if quantile <= 0:
                quantiles[number], excesses[number] = view, 0.5 * view
            least = _LEAST_EXCESS * quantiles[number]
            quantiles[number] -= rate * max(least, excesses[number]) * _TAIL
        own[_QUANTILE], own[_EXCESS], own[_BEYOND] = quantiles, excesses, counts

        evidence, memory = sqrt(length), own[_MEMORY]
        alarm = evidence > THRESHOLD and evidence > memory and count > LEARNING and count - own[_ALARMED] > _PAUSE
        memory *= 1 - _HALF / min(max(_HALF_LIFE * count, _HALF_LIFE_MIN), _HALF_LIFE_MAX)
        own[_MEMORY] = max(memory, evidence)
        if alarm:
            own[_MEMORY], own[_ALARMED] = _AFTER_ALARM * evidence, count
        own[_TIME] = time
        column[:] = own
        return evidence, alarm

    def _rare(self, start: int, cell: int) -> float:
        """Decades by which one bin of one row of counts is rare; counts it."""
        cells, place, last = self._cells, start + cell, start + _ROW - 1
        total, middle = cells[last], cells[place]
        near = 2 * middle + cells[place - 1] + cells[place + 1]
        cells[place] = middle + 1
        cells[last] = total + 1
        if total + 1 >= _FULL:
            self._halve(np.array([start]))
        return max(_LOG_ROWS[total] - _LOG_CELLS[near], 0.0) if total > _FEW else 0.0


def _records(own: Floats, value: Floats, views: Floats) -> None:
    """How far the value and two levels are beyond their ranges; widens these."""
    now = np.stack((value, own[_MIDDLE], own[_LONG]))
    high, low, next_high, next_low = own[_HIGH], own[_LOW], own[_NEXT_HIGH], own[_NEXT_LOW]
    above, below = np.maximum(now - high, 0), np.maximum(low - now, 0)
    np.add(above[0], below[0], out=views[_RECORD])
    views[4], views[5], views[6], views[7] = above[1], below[1], above[2], below[2]
    forgotten = (high - low) * _FORGETTING
    np.maximum(now, high - forgotten, out=high)
    np.minimum(now, low + forgotten, out=low)
    np.maximum(now, next_high, out=next_high)
    np.minimum(now, next_low, out=next_low)
    renewed = own[_COUNT] >= own[_RENEWAL]
    if renewed.any():
        high[:, renewed], low[:, renewed] = next_high[:, renewed], next_low[:, renewed]
        next_high[:, renewed], next_low[:, renewed] = now[:, renewed], now[:, renewed]
        own[_RENEWAL, renewed] += _RENEWED


def calibrate(own: Calibration, count: Floats, views: Floats) -> tuple[Ints, Ints, Floats]:
    """Compares views with their past, and learns from them.

    Args:
        own: The past; changed in place.
        count: float64[n], readings so far, this one included.
        views: float64[v, n], not negative.

    Returns:
        View, place among n, and surprise in decades, of all that is beyond its quantile.
    """
    quantile, excess, beyond = own
    view, place = np.divmod(np.flatnonzero(views > quantile), len(count))
    more, mean = views[view, place] - quantile[view, place], excess[view, place]
    counts = (mean > 0) & (count[place] > _WARM)
    surprise = np.minimum(more / np.where(counts, mean, np.inf) / _DECADE, _CAP)
    said = view, place, surprise
    fresh = quantile <= 0
    if fresh.any():
        quantile[fresh] = views[fresh]
        excess[fresh] = 0.5 * views[fresh]
        kept = ~fresh[view, place]
        view, place, more, mean = view[kept], place[kept], more[kept], mean[kept]
    step = _LEAST_EXCESS * quantile
    np.maximum(step, excess, out=step)
    step *= _YOUTH / (count + _YOUNG) + _RATE
    raised = step[view, place]
    step *= _TAIL
    quantile -= step
    quantile[view, place] += raised
    beyond[view, place] += 1
    weight = np.maximum(_EXCESS_WEIGHT, 1 / (beyond[view, place] + 1))
    excess[view, place] += weight * (np.minimum(more, _OUTLIER * mean) - mean)
    return said


def _bin(z: float) -> int:
    return int(min(max((z + _SPAN) * _BINS_A_DEVIATION, 0), _BINS - 1))
