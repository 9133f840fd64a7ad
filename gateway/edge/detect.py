"""The adaptive detector: how surprising a reading is to its own channel, for what no fixed limit can see.

Thirteen views of a channel (below) are each compared with their own past: beyond an adaptive 99 % quantile a view
counts as *surprise*, in decades, by the exponential tail of what went beyond it before. The length of the vector of
surprises is the *evidence*. An alarm is evidence above one threshold, the same for every channel, that is also more
than the fading memory of the channel's own recent evidence.

It knows nothing but the readings so far: no length, minimum or maximum of a series, no look-ahead, no setting for a
channel. Memory is counted in readings, so that it fits a reading a day and ten a second; the clock tells only the hour
of the day. State is bounded; what loses power loses at most that state, and learns again.
"""

# ruff: noqa: PLR1730 - a comparison costs a third of what max() does, and is made for every reading

from collections.abc import Mapping
from itertools import compress
from math import isfinite, sqrt
from operator import gt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Flags, Floats, Ints
from gateway.edge.runs import Places, column

Counts = npt.NDArray[np.uint8]

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
_VARIANCE, _CHANGE = 7, 8  # mean squares
_USUAL, _HOURLY, _PAIRED, _PAIRED_LONG = slice(9, 11), 11, 12, 13
_HIGH, _LOW, _NEXT_HIGH, _NEXT_LOW = slice(14, 17), slice(17, 20), slice(20, 23), slice(23, 26)
_RANGES = slice(14, 26)
_MEMORY, _COUNT, _ALARMED, _RENEWAL, _TIME, _INTERVAL = range(26, 32)
_QUANTILE, _EXCESS, _BEYOND, _TAILS = slice(32, 45), slice(45, 58), slice(58, 71), slice(32, 71)
_ROWS = 71
_NOT_NEGATIVE = [*range(5, 14), _MEMORY, _COUNT, _ALARMED, _RENEWAL, *range(45, 71)]

# Readings that each of them remembers.
_LEVEL_SPANS = (3, 30, 300, 2000, 5)
_SQUARE_SPANS = (30, 100, 2000, 2000)
_SMOOTHED_SPANS = (2000, 2000, 10, 10, 30)  # the usual spread of the two spans, then rarities
_WEIGHT: Floats = np.array([1 / span for span in (*_LEVEL_SPANS, *_SQUARE_SPANS, *_SMOOTHED_SPANS)])[:, None]
_OLD = max(_LEVEL_SPANS)  # readings after which weights are as above; before, all readings count the same
_SPANS = 3, 5, 10, 30, 100, 300, 2000  # all there are
_OLD_WEIGHTS = tuple(1 / span for span in _SPANS)
# the weight of a channel's nth reading by span, while the channel is young
_YOUNG_WEIGHTS = [tuple(max(weight, 1 / max(nth, 1)) for weight in _OLD_WEIGHTS) for nth in range(_OLD + 1)]
_FORGET = 3e-4  # share of the range of the middle level that is forgotten a reading
_FORGETTING: Floats = np.array((0, _FORGET, 0))[:, None]
_RENEWED = 10_000  # a range is that of the last one or two times as many readings

# Counts of how often a value was in each of 16 bins: at each hour, and with each change. A row has an empty bin at
# either side, so that a bin's neighbours need no test, and its sum after it.
_BINS, _HOURS = 16, 24
_SPAN = 3.0  # the bins reach so many standard deviations to either side
_BINS_A_DEVIATION = _BINS / (2 * _SPAN)
_ROW = _BINS + 3
_LAST = _ROW - 1  # of a row, its sum
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
_NEW = np.zeros(_ROWS)
_NEW[_TIME] = _NEVER
_SINGLE = 16  # with fewer readings, one at a time is faster
_DENSE = 1.5  # a range of so many times as many columns as are judged is judged where it is


class Judged(NamedTuple):
    """What the detector says of some readings.

    Attributes:
        evidence: float64[n], in decades; 0 for nothing unusual.
        alarm: bool[n], whether that is more than the threshold and than the channel's recent evidence.
    """

    evidence: Floats
    alarm: Flags


class Detector:
    """Judges readings of any number of channels; keeps some 2 KB of state for each that it has judged.

    Args:
        capacity: Channels to make room for; more room is made when it is needed.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._places = Places()
        self._hold(np.zeros((_ROWS, 0)), np.zeros((0, _CELLS), np.uint8))
        self._make_room(capacity)

    def state(self, channel: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """All that the detector knows of some channels.

        Returns:
            Copies, float64[n, 71] and uint8[n, 760].
        """
        place = self._places.known(channel)
        values, counts = self._state.T[place], self._counts[place]
        values[place < 0], counts[place < 0] = _NEW, 0
        return {"values": values, "counts": counts}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channel: Ints) -> None:
        """Takes up where another detector left.

        Args:
            state: What that one's ``state`` was.
            channel: int64[n], what the channels are here.

        Raises:
            ValueError: It is not a detector's state, or one of another version; nothing is changed.
        """
        known = column(state, "values", np.float64, len(channel), _ROWS)
        counted = column(state, "counts", np.uint8, len(channel), _CELLS)
        rows = counted.reshape(-1, _ROW)
        possible = (np.abs(known) <= _LARGEST**2 * 4).all()
        if not possible or (known[:, _NOT_NEGATIVE] < 0).any() or (rows[:, :-1].sum(1) != rows[:, -1]).any():
            message = "a detector's state with impossible values"
            raise ValueError(message)
        learnt = known[:, _COUNT] > 0  # the others need no place
        if learnt.any():
            place = self._place(channel[learnt])
            self._state[:, place] = known[learnt].T
            self._counts[place] = counted[learnt]

    def learning(self, channel: Ints) -> Flags:
        """Whether channels have not yet had enough readings for an alarm, bool[n]."""
        place = self._places.known(channel)
        young: Flags = (place < 0) | (self._state[_COUNT, place] < LEARNING)
        return young

    def score(self, channel: Ints, time: Ints, value: Floats, sensitivity: Floats | float = 1.0) -> Judged:
        """Judges readings and learns from them.

        A reading without a finite value, or not newer than its channel's last, has no evidence and teaches nothing.

        Args:
            channel: int64[n], no channel twice.
            time: int64[n], observed, ms UTC.
            value: float64[n].
            sensitivity: Of each or of all; an alarm takes evidence · sensitivity above the threshold.
        """
        if len(channel) < _SINGLE:
            factors = np.broadcast_to(sensitivity, len(channel)).tolist()
            readings = zip(channel.tolist(), time.tolist(), value.tolist(), factors, strict=True)
            pairs = [self.score_one(*reading) for reading in readings]
            return Judged(np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs], bool))
        place = self._place(channel)
        first, beyond = int(place[0]), int(place[-1]) + 1
        if beyond - first == len(place) and (place[1:] > place[:-1]).all():
            return self._side_by_side(first, time, value, sensitivity)
        first, beyond = int(place.min()), int(place.max()) + 1
        if beyond - first > _DENSE * len(place):
            return self._scattered(place, time, value, sensitivity)
        place = place - first
        times, values, factors = np.zeros(beyond - first, np.int64), *np.full((2, beyond - first), np.nan)
        times[place], values[place], factors[place] = time, value, sensitivity
        evidence, alarm = self._side_by_side(first, times, values, factors)
        return Judged(evidence[place], alarm[place])

    def score_one(self, channel: int, time: int, value: float, sensitivity: float = 1.0) -> tuple[float, bool]:
        """Evidence and alarm of one reading; the same as ``score`` gives."""
        place = self._places.one(channel)
        if place >= self._state.shape[1]:
            self._make_room(place + 1)
        return self._single(place, time, value, sensitivity)

    def _place(self, channel: Ints) -> Ints:
        place = self._places.of(channel)
        if self._places.count > self._state.shape[1]:
            self._make_room(self._places.count)
        return place

    def _make_room(self, channels: int) -> None:
        before = self._state.shape[1]
        after = max(channels, before + before // 2)
        state, counts = np.zeros((_ROWS, after)), np.zeros((after, _CELLS), np.uint8)
        state[:, :before], counts[:before] = self._state, self._counts
        state[_TIME, before:] = _NEVER
        self._hold(state, counts)

    def _hold(self, state: Floats, counts: Counts) -> None:
        self._state, self._counts = state, counts
        self._cells = memoryview(counts.reshape(-1).data)

    def _scattered(self, place: Ints, time: Ints, value: Floats, sensitivity: Floats | float) -> Judged:
        """Channels at any places, no two at the same."""
        evidence, alarm = np.zeros(len(place)), np.zeros(len(place), bool)
        good = np.flatnonzero(np.isfinite(value) & (time > self._state[_TIME, place]))
        if len(good):
            some = place[good]
            own = self._state.take(some, 1)
            factors = sensitivity[good] if isinstance(sensitivity, np.ndarray) else sensitivity
            moment = time[good].astype(np.float64)
            evidence[good], alarm[good] = self._judge((own, 0), some, None, moment, value[good], factors)
            self._state[:, some] = own
        return Judged(evidence, alarm)

    def _side_by_side(self, first: int, time: Ints, value: Floats, sensitivity: Floats | float) -> Judged:
        """Channels at places from the first on: their state is judged where it is, which is far cheaper."""
        some = slice(first, first + len(time))
        own = self._state[:, some]
        place = np.arange(some.start, some.stop)
        moment = time.astype(np.float64)
        others = ~(np.isfinite(value) & (moment > own[_TIME]))
        if not np.count_nonzero(others):
            return self._judge((self._state, first), place, None, moment, value, sensitivity)
        between = others.nonzero()[0]  # they are judged, too, and then put back
        before = own[:, between]
        moment, value = np.where(others, own[_TIME] + 1, moment), np.where(others, own[_BEFORE], value)
        evidence, alarm = self._judge((self._state, first), place, others, moment, value, sensitivity)
        own[:, between] = before
        evidence[between], alarm[between] = 0, False
        return Judged(evidence, alarm)

    def _judge(  # noqa: PLR0913, PLR0915, PLR0917 - columns, and one view after another
        self,
        where: tuple[Floats, int],
        place: Ints,
        others: Flags | None,
        time: Floats,
        value: Floats,
        sensitivity: Floats | float,
    ) -> Judged:
        """Many channels at once; what `_single` does for one, in the same order of operations.

        Args:
            where: float64[71, channels], a state that is changed in place, and its column of the first; others follow.
            place: int64[n], where they are in the state.
            others: bool[n], those that are not to be counted.
            time: Of each, and so:
            value: The values.
            sensitivity: Of each or of all.
        """
        if np.count_nonzero(np.abs(value) > _LARGEST):
            value = np.minimum(np.maximum(value, -_LARGEST), _LARGEST)
        state, first = where
        own = state[:, first : first + len(place)]
        count = own[_COUNT]
        count += 1
        youngest, oldest = float(np.minimum.reduce(count)), float(np.maximum.reduce(count))
        age = youngest if youngest == oldest else count  # what is computed of one number is cheaper
        step, usual = time - own[_TIME], own[_INTERVAL]
        if youngest <= 2:  # noqa: PLR2004 - an interval takes two
            new = count == 1
            own[_LEVELS, new] = value[new]
            own[_RANGES, new] = value[new]
            own[_RENEWAL, new] = _RENEWED
            usual[:] = np.where(count == 2, step, usual)  # noqa: PLR2004
            step[new] = 0
        longest = _GAP * usual
        gap = step > longest
        if np.count_nonzero(gap):
            for row in (_FAST, _MIDDLE, _BEFORE):
                own[row, gap] = value[gap]
        usual += _INTERVAL_WEIGHT * (np.minimum(step, longest) - usual)

        weight = np.maximum(_WEIGHT, 1 / age) if youngest <= _OLD else _WEIGHT
        levels, squares, smoothed = own[_LEVELS], own[_SQUARES], own[_SMOOTHED]
        views = np.empty((_VIEWS, len(place)))
        slow, change = own[_SLOW].copy(), value - own[_BEFORE]
        off = value - own[_MIDDLE]
        levels += weight[_LEVELS] * (value - levels)
        centred = value - own[_SLOW]
        target = np.empty((5, len(place)))
        target[0] = target[1] = off * off
        np.multiply(value - slow, centred, out=target[2])
        np.multiply(change, change, out=target[3])
        squares += weight[_SQUARES] * (target[:4] - squares)
        np.abs(own[_FAST] - slow, out=views[_LEVEL])
        np.sqrt(squares[:2], out=target[:2])
        np.abs(target[:2] - own[_USUAL], out=views[_SPREAD])
        _records(own, value, views)
        target[2:4] = self._rarity(place, others, time, own, centred, change)
        target[4] = target[3]
        smoothed += weight[_SMOOTHED] * (target - smoothed)
        views[8], views[9], views[10], views[11:] = target[2], own[_HOURLY], target[3], own[_PAIRED : _PAIRED_LONG + 1]

        _, which, surprise = calibrate(state[_TAILS], first, age, views)
        evidence = np.sqrt(np.bincount(which, surprise * surprise, len(place)))
        memory = own[_MEMORY]
        alarm = evidence * sensitivity > THRESHOLD
        if np.count_nonzero(alarm):
            alarm &= (evidence > memory) & (count > LEARNING) & (count - own[_ALARMED] > _PAUSE)
        half_life = _HALF_LIFE * age
        if isinstance(half_life, float):
            half_life = min(max(half_life, _HALF_LIFE_MIN), _HALF_LIFE_MAX)
        else:
            half_life = np.minimum(np.maximum(half_life, _HALF_LIFE_MIN), _HALF_LIFE_MAX)
        memory *= 1 - _HALF / half_life
        np.maximum(memory, evidence, out=memory)
        if np.count_nonzero(alarm):
            memory[alarm] = _AFTER_ALARM * evidence[alarm]
            own[_ALARMED, alarm] = count[alarm]
        own[_TIME] = time
        return Judged(evidence, alarm)

    def _rarity(  # noqa: PLR0913, PLR0917 - columns
        self, place: Ints, others: Flags | None, time: Floats, own: Floats, centred: Floats, change: Floats
    ) -> Floats:
        """Decades by which a value's bin is rare at its hour, and with its change; float64[2, n]."""
        root = np.sqrt(own[_VARIANCE : _CHANGE + 1])
        varies = root[0] > 0
        if others is not None:
            varies &= ~others
        if np.count_nonzero(root) < root.size:
            root[root == 0] = 1
        bins = np.empty((2, len(place)))
        np.divide(centred, root[0], out=bins[0])
        np.divide(change, root[1], out=bins[1])
        bins += _SPAN
        bins *= _BINS_A_DEVIATION
        cell, row = np.minimum(np.maximum(bins, 0, out=bins), _BINS - 1, out=bins).astype(np.int64)
        hour, last_hour = int(np.minimum.reduce(time)) // _HOUR, int(np.maximum.reduce(time)) // _HOUR
        start = np.empty((2, len(place)), np.int64)  # of the rows of counts
        start[0] = hour % _HOURS if hour == last_hour else time.astype(np.int64) // _HOUR % _HOURS
        np.add(row, _HOURS, out=start[1])
        start *= _ROW
        start += place * _CELLS
        before_cell = start + cell
        counts = self._counts.reshape(-1)
        middle_counts, last_counts = counts[1:], counts[_LAST:]  # what is one place on, and at the end of the row
        total, middle = last_counts.take(start), middle_counts.take(before_cell)
        near = np.multiply(middle, 2, dtype=np.int64)
        near += counts.take(before_cell)
        near += counts[2:].take(before_cell)
        rarity: Floats = _LOG_ROW.take(total)
        rarity -= _LOG_CELL.take(near)
        np.maximum(rarity, 0, out=rarity)
        rarity *= (total > _FEW) & varies
        full = total == _FULL - 1
        more = varies & ~full
        middle_counts[before_cell], last_counts[start] = middle + more, total + more
        if np.count_nonzero(full := full & varies):
            self._halve(start[full], before_cell[full] + 1)
        return rarity

    def _halve(self, start: Ints, counted: Ints) -> None:
        """Counts one more in a cell of each of some rows that are full with it, and halves them."""
        cells = start[:, None] + np.arange(_ROW)
        counts = self._counts.reshape(-1)
        before = counts[cells]
        halved = before.astype(np.uint16)
        halved[np.arange(len(start)), counted - start] += 1
        halved >>= 1
        halved[:, -1] = halved[:, :-1].sum(1)
        counts[cells] = halved

    def _single(  # noqa: C901, PLR0912, PLR0915 - what `_judge` does, without a loop
        self, place: int, time: int, value: float, sensitivity: float
    ) -> tuple[float, bool]:
        """One reading in plain numbers, many times as fast as arrays of one."""
        its = self._state[:, place]
        own: list[float] = its.tolist()
        memory, count, alarmed, renewal, last, interval = own[_MEMORY : _INTERVAL + 1]
        if not isfinite(value) or time <= last:
            return 0.0, False
        if not -_LARGEST <= value <= _LARGEST:
            value = _LARGEST if value > 0 else -_LARGEST
        count += 1
        step = time - last
        if count == 1:
            own[_LEVELS], own[_RANGES] = [value] * 5, [value] * 12
            renewal, step = _RENEWED, 0.0
        elif count == 2:  # noqa: PLR2004 - an interval takes two
            interval = step
        fast, middle, long, slow, before, narrow, wide, variance, changes = own[:9]
        usual, usual_wide, hours, pairs, pairs_long, high, high_middle, high_long, low, low_middle, low_long = own[9:20]
        next_high, next_high_middle, next_high_long, next_low, next_low_middle, next_low_long = own[20:26]
        if step > (longest := _GAP * interval):
            fast = middle = before = value
            step = longest
        interval += _INTERVAL_WEIGHT * (step - interval)

        of_3, of_5, of_10, of_30, of_100, of_300, of_2000 = (
            _YOUNG_WEIGHTS[int(count)] if count <= _OLD else _OLD_WEIGHTS
        )
        change, off, far = value - before, value - middle, value - slow
        fast += of_3 * (value - fast)
        middle += of_30 * off
        long += of_300 * (value - long)
        new_slow = slow + of_2000 * far
        before += of_5 * change
        centred, off = value - new_slow, off * off
        narrow += of_30 * (off - narrow)
        wide += of_100 * (off - wide)
        variance += of_2000 * (far * centred - variance)
        changes += of_2000 * (change * change - changes)
        spread, spread_wide = sqrt(narrow), sqrt(wide)

        beyond = above = below = above_long = below_long = 0.0
        if value > high:
            beyond, high = value - high, value
        elif value < low:
            beyond, low = low - value, value
        if middle > high_middle:
            above = middle - high_middle
        elif middle < low_middle:
            below = low_middle - middle
        forgotten = (high_middle - low_middle) * _FORGET
        high_middle, low_middle = high_middle - forgotten, low_middle + forgotten
        if middle > high_middle:
            high_middle = middle
        if middle < low_middle:
            low_middle = middle
        if long > high_long:
            above_long, high_long = long - high_long, long
        elif long < low_long:
            below_long, low_long = low_long - long, long
        if value > next_high:
            next_high = value
        if value < next_low:
            next_low = value
        if middle > next_high_middle:
            next_high_middle = middle
        if middle < next_low_middle:
            next_low_middle = middle
        if long > next_high_long:
            next_high_long = long
        if long < next_low_long:
            next_low_long = long
        if count >= renewal:
            high, high_middle, high_long = next_high, next_high_middle, next_high_long
            low, low_middle, low_long = next_low, next_low_middle, next_low_long
            next_high, next_high_middle, next_high_long = next_low, next_low_middle, next_low_long = value, middle, long
            renewal += _RENEWED

        hourly = paired = 0.0
        if (deviation := sqrt(variance)) > 0:
            start, cell = place * _CELLS, _bin(centred / deviation) + 1
            row = start + (_HOURS + _bin(change / (sqrt(changes) or 1.0))) * _ROW
            hourly, paired = self._rare(start + time // _HOUR % _HOURS * _ROW, row, cell)
        hours += of_10 * (hourly - hours)
        pairs += of_10 * (paired - pairs)
        pairs_long += of_30 * (paired - pairs_long)
        views = (
            abs(fast - slow), abs(spread - usual), abs(spread_wide - usual_wide), beyond, above, below,
            above_long, below_long, hourly, hours, paired, pairs, pairs_long,
        )  # fmt: skip
        usual += of_2000 * (spread - usual)
        usual_wide += of_2000 * (spread_wide - usual_wide)

        rate, quantiles, length = (_YOUTH / (count + _YOUNG) + _RATE) * _TAIL, own[_QUANTILE], 0.0
        lowered = [
            quantile - rate * (excess if (least := _LEAST_EXCESS * quantile) < excess else least)
            for quantile, excess in zip(quantiles, own[_EXCESS], strict=True)
        ]
        for number in compress(range(_VIEWS), map(gt, views, quantiles)):
            view, quantile, excess = views[number], quantiles[number], own[_EXCESS.start + number]
            more = view - quantile
            if excess > 0 and count > _WARM:
                surprise = min(more / excess / _DECADE, _CAP)
                length += surprise * surprise
            if quantile > 0:
                step = rate * max(_LEAST_EXCESS * quantile, excess)
                lowered[number] = quantile - step + step / _TAIL
                its[_BEYOND.start + number] = often = own[_BEYOND.start + number] + 1
                excess += max(_EXCESS_WEIGHT, 1 / (often + 1)) * (min(more, _OUTLIER * excess) - excess)
            else:
                excess = 0.5 * view
                lowered[number] = view - rate * max(_LEAST_EXCESS * view, excess)
            its[_EXCESS.start + number] = excess
        evidence = sqrt(length)
        alarm = evidence * sensitivity > THRESHOLD and evidence > memory
        alarm = alarm and count > LEARNING and count - alarmed > _PAUSE
        half_life = _HALF_LIFE * count
        if half_life > _HALF_LIFE_MAX:
            half_life = _HALF_LIFE_MAX
        elif half_life < _HALF_LIFE_MIN:
            half_life = _HALF_LIFE_MIN
        memory *= 1 - _HALF / half_life
        if evidence > memory:
            memory = evidence
        if alarm:
            memory, alarmed = _AFTER_ALARM * evidence, count
        its[: _QUANTILE.stop] = [
            fast, middle, long, new_slow, before, narrow, wide, variance, changes,
            usual, usual_wide, hours, pairs, pairs_long,
            high, high_middle, high_long, low, low_middle, low_long,
            next_high, next_high_middle, next_high_long, next_low, next_low_middle, next_low_long,
            memory, count, alarmed, renewal, time, interval, *lowered,
        ]  # fmt: skip
        return evidence, alarm

    def _rare(self, hour: int, change: int, cell: int) -> tuple[float, float]:
        """Decades by which one bin is rare in the rows of counts of an hour and of a change; counts it in both."""
        cells, place, last, its_place, its_last = self._cells, hour + cell, hour + _LAST, change + cell, change + _LAST
        total, middle, its_total, its_middle = cells[last], cells[place], cells[its_last], cells[its_place]
        near = 2 * middle + cells[place - 1] + cells[place + 1]
        its_near = 2 * its_middle + cells[its_place - 1] + cells[its_place + 1]
        if total < _FULL - 1:
            cells[place], cells[last] = middle + 1, total + 1
        else:
            self._halve(np.array([hour]), np.array([place]))
        if its_total < _FULL - 1:
            cells[its_place], cells[its_last] = its_middle + 1, its_total + 1
        else:
            self._halve(np.array([change]), np.array([its_place]))
        hourly = _LOG_ROWS[total] - _LOG_CELLS[near] if total > _FEW else 0.0
        paired = _LOG_ROWS[its_total] - _LOG_CELLS[its_near] if its_total > _FEW else 0.0
        return hourly if hourly > 0 else 0.0, paired if paired > 0 else 0.0


def _records(own: Floats, value: Floats, views: Floats) -> None:
    """How far the value and two levels are beyond their ranges; widens these."""
    now = np.empty((3, len(value)))
    now[0], now[1:] = value, own[_MIDDLE : _LONG + 1]
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
    if np.count_nonzero(renewed):
        high[:, renewed], low[:, renewed] = next_high[:, renewed], next_low[:, renewed]
        next_high[:, renewed], next_low[:, renewed] = now[:, renewed], now[:, renewed]
        own[_RENEWAL, renewed] += _RENEWED


def calibrate(tails: Floats, first: int, count: Floats | float, views: Floats) -> tuple[Ints, Ints, Floats]:
    """Compares views with their past, and learns from them.

    Args:
        tails: float64[3v, channels], contiguous, changed in place: of each view the quantile below which 99 % of its
            past is, then of each by how much the rest was beyond it on average, then how often it was.
        first: The channel of the first of the n readings; the others follow.
        count: float64[n], or the same of all, readings so far, this one included.
        views: float64[v, n], contiguous, not negative.

    Returns:
        View, place among n, and surprise in decades, of all that is beyond its quantile.
    """
    many, n = views.shape
    quantile, excess = tails[:many, first : first + n], tails[many : 2 * many, first : first + n]
    flat, row = tails.reshape(-1), tails.shape[1]  # by one number, an element is found several times faster
    beyond = (views > quantile).reshape(-1).nonzero()[0]
    view, place = np.divmod(beyond, n)
    at = view * row
    at += place
    at += first
    before, mean, now = flat[at], flat[at + many * row], views.reshape(-1)[beyond]
    more = now - before
    counts = mean > 0
    if not isinstance(count, float):
        counts &= count[place] > _WARM
    elif count <= _WARM:
        counts[:] = False
    surprise = np.minimum(more / np.where(counts, mean, np.inf) / _DECADE, _CAP)
    said = view, place, surprise
    fresh = before <= 0
    if np.count_nonzero(fresh):
        new, now = at[fresh], now[fresh]
        flat[new], flat[new + many * row] = now, 0.5 * now
        old = ~fresh
        at, more, mean, beyond = at[old], more[old], mean[old], beyond[old]
    step = _LEAST_EXCESS * quantile
    np.maximum(step, excess, out=step)
    step *= (_YOUTH / (count + _YOUNG) + _RATE) * _TAIL
    quantile -= step
    flat[at] += step.reshape(-1)[beyond] / _TAIL
    at += many * row
    often = flat[at + many * row] + 1
    flat[at + many * row] = often
    mean += np.maximum(_EXCESS_WEIGHT, 1 / (often + 1)) * (np.minimum(more, _OUTLIER * mean) - mean)
    flat[at] = mean
    return said


def _bin(z: float) -> int:
    place = (z + _SPAN) * _BINS_A_DEVIATION
    return 0 if place < 0 else int(place) if place < _BINS else _BINS - 1
