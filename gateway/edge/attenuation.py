"""Attenuation: whether the range of a channel's values within a window has become too small.

A window is kept as eight blocks of time and the one that runs, each with its lowest and highest value, so state is
bounded however often a sensor sends. The range is therefore that of the window and up to an eighth more: what is
called attenuated is so over the window itself, and what stays so for an eighth longer is called so without fail.
Blocks are cut by the clock, not by the readings, so the answers do not depend on how readings came in batches.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, isfinite

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Flags, Floats, Indices, Ints, widened
from gateway.edge.runs import Places, Runs, column
from sensors import kinds

_BLOCKS = 8
_SLOTS = _BLOCKS + 1
_FEWEST = _BLOCKS // 2  # blocks with values; of fewer nothing is said
_ALWAYS = 1 << 60  # ms
_FEW = 8  # values, from which on array operations cost less than a loop


_State = tuple[list[float], list[float], int, int]
"""Lowest and highest value of each slot, the last block that has a value, and since when there was no gap."""


class Attenuation:
    """The test and its state; only channels whose rule has it take memory, 170 bytes each.

    Attributes:
        any: Whether a rule has the test.
    """

    def __init__(self) -> None:
        self._places = Places()
        self._low: Floats = np.empty((0, _SLOTS))
        self._high: Floats = np.empty((0, _SLOTS))
        self._block: Ints = np.empty(0, np.int64)  # the last that has a value
        self._since: Ints = np.empty(0, np.int64)  # ms UTC; values came without a gap of a window since then

    def set_rules(self, rules: Sequence[kinds.Attenuated | None]) -> None:
        """Takes the rules as arrays."""
        self.any = any(rules)
        self._has = np.array([rule is not None for rule in rules])
        self._length = np.array(
            [_ALWAYS if rule is None else max(round(rule.window * 1000 / _BLOCKS), 1) for rule in rules]
        )
        self._suspect = np.array([-np.inf if rule is None else rule.suspect for rule in rules])
        self._fail = np.array([-np.inf if rule is None or rule.fail is None else rule.fail for rule in rules])
        self._widest = np.maximum(self._suspect, self._fail)
        self._exempt_low = np.array(
            [-np.inf if rule is None or rule.exempt_below is None else rule.exempt_below for rule in rules]
        )
        self._exempt_high = np.array(
            [np.inf if rule is None or rule.exempt_above is None else rule.exempt_above for rule in rules]
        )
        columns = (self._length, self._suspect, self._fail, self._exempt_low, self._exempt_high)
        self._plain = [*zip(*(column.tolist() for column in columns), strict=True)]

    def judge(
        self, runs: Runs, places: Ints, rule: Ints, time: Ints, value: Floats
    ) -> tuple[Flags, Flags, Callable[[], Callable[[], None]]]:
        """Judges values of channels that have the test.

        Args:
            runs: The runs.
            places: int64[m], of those values, that are sound and newer than the one before.
            rule: int64[n], of all values.
            time: int64[n], ms UTC, rising among those that are judged.
            value: float64[n].

        Returns:
            Which of them are suspect and which fail, bool[m] each, and what commits the new state, which returns what
            takes it back.
        """
        if not len(places):
            return np.empty(0, bool), np.empty(0, bool), _nothing
        rule, time, value, run = rule[places], time[places], value[places], runs.of(places)
        if len(places) <= _FEW:
            return self._judge_few(self._rows_of(runs.channel[run]), rule, time, value)
        length = self._length[rule]
        block = time // length
        rows = self._rows_of(runs.channel[run])
        if runs.alone and (self._block[rows] == block).all():
            return self._judge_within(rows, block % _SLOTS, rule, time, value)

        # values of one channel in one block are a segment
        heads = segment = tails = state_row = np.arange(len(places))
        low, high, touched, turns = value, value, rows, [heads]
        if not runs.alone:
            new = np.empty(len(places), bool)
            new[0] = True
            new[1:] = (rows[1:] != rows[:-1]) | (block[1:] != block[:-1])
            heads = np.flatnonzero(new)
            segment = np.cumsum(new) - 1
            low, high = _running(value, segment, heads)
            tails = np.append(heads[1:], len(places)) - 1
            touched, state_row = np.unique(rows, return_inverse=True)
            turns = _turns(rows[heads])
        state_low, state_high = self._low[touched], self._high[touched]
        state_block, state_since = self._block[touched], self._since[touched]
        low_before, high_before = np.empty(len(heads)), np.empty(len(heads))
        since, filled = np.empty(len(heads), np.int64), np.empty(len(heads), np.int64)
        for turn in turns:
            at, now = state_row[heads[turn]], block[heads[turn]]
            last, lows, highs = state_block[at], state_low[at], state_high[at]
            if len(later := np.flatnonzero(last != now)):
                before = last[later, None]
                gone = before - (before - np.arange(_SLOTS)) % _SLOTS < now[later, None] - _BLOCKS  # slots by blocks
                lows[later] = np.where(gone, np.inf, lows[later])
                highs[later] = np.where(gone, -np.inf, highs[later])
                anew = later[gone.all(1)]
                state_since[at[anew]] = time[heads[turn[anew]]]
            low_before[turn], high_before[turn] = lows.min(1), highs.max(1)
            slot = now % _SLOTS
            each = np.arange(len(at))
            lows[each, slot] = np.minimum(lows[each, slot], low[tails[turn]])
            highs[each, slot] = np.maximum(highs[each, slot], high[tails[turn]])
            state_low[at], state_high[at], state_block[at] = lows, highs, now
            since[turn], filled[turn] = state_since[at], np.isfinite(lows).sum(1)

        spread = np.maximum(high, high_before[segment]) - np.minimum(low, low_before[segment])
        judged = (time - since[segment] >= length * _BLOCKS) & (filled[segment] >= _FEWEST)
        judged &= (value > self._exempt_low[rule]) & (value < self._exempt_high[rule])

        def commit() -> Callable[[], None]:
            before = self._low[touched], self._high[touched], self._block[touched], self._since[touched]
            self._put(touched, state_low, state_high, state_block, state_since)
            return lambda: self._put(touched, *before)

        return judged & (spread < self._suspect[rule]), judged & (spread < self._fail[rule]), commit

    def _judge_within(
        self, rows: Ints, slot: Ints, rule: Ints, time: Ints, value: Floats
    ) -> tuple[Flags, Flags, Callable[[], Callable[[], None]]]:
        """The same for a value of each channel, in the block that ran before: only that one's bounds may change."""
        cell = rows * _SLOTS + slot
        before = self._low.reshape(-1)[cell], self._high.reshape(-1)[cell]
        low, high = np.minimum(before[0], value), np.maximum(before[1], value)
        weak, dead = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        places = (high - low < self._widest[rule]).nonzero()[0]
        places = places[(time - self._since[rows])[places] >= self._length[rule[places]] * _BLOCKS]
        if len(places):
            rule, value, each = rule[places], value[places], np.arange(len(places))
            lows, highs = self._low[rows[places]], self._high[rows[places]]
            lows[each, slot[places]], highs[each, slot[places]] = low[places], high[places]
            spread = highs.max(1) - lows.min(1)
            judged = np.isfinite(lows).sum(1) >= _FEWEST
            judged &= (value > self._exempt_low[rule]) & (value < self._exempt_high[rule])
            weak[places], dead[places] = judged & (spread < self._suspect[rule]), judged & (spread < self._fail[rule])

        def commit() -> Callable[[], None]:
            self._put_cells(cell, low, high)
            return partial(self._put_cells, cell, *before)

        return weak, dead, commit

    def judge_one(
        self, channel: int, rule: int, time: int, value: float
    ) -> tuple[bool, bool, Callable[[], Callable[[], None]]]:
        """The same for one value, of a channel that has the test.

        Returns:
            Whether it is suspect and whether it fails, and what commits the new state.
        """
        row = int(self._rows_of(np.array([channel]))[0])
        weak, dead, state = self._next(self._state(row), rule, time, value)
        return weak, dead, partial(self._commit, {row: state})

    def state(self, channel: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """All that is known of some channels.

        Returns:
            Copies: ``low`` and ``high``, float64[n, 9], ``block`` and ``since``, int64[n].
        """
        low, high = np.full((len(channel), _SLOTS), np.inf), np.full((len(channel), _SLOTS), -np.inf)
        block, since = np.full(len(channel), -_ALWAYS), np.zeros(len(channel), np.int64)
        rows = self._places.known(channel)
        some = rows >= 0
        rows = rows[some]
        low[some], high[some] = self._low[rows], self._high[rows]
        block[some], since[some] = self._block[rows], self._since[rows]
        return {"low": low, "high": high, "block": block, "since": since}

    def restorer(
        self, state: Mapping[str, npt.NDArray[np.generic]], channel: Ints, rule: Indices, last: Floats
    ) -> Callable[[], None]:
        """What takes up where another one left. Where the window is another one now, it begins anew.

        Args:
            state: What that one's ``state`` was.
            channel: int64[n], what the channels are here.
            rule: int32[n], their rules.
            last: float64[n], time of the last value of each, ms UTC.

        Raises:
            ValueError: It is no such state.
        """
        low, high = (
            column(state, "low", np.float64, len(channel), _SLOTS),
            column(state, "high", np.float64, len(channel), _SLOTS),
        )
        block, since = column(state, "block", np.int64, len(channel)), column(state, "since", np.int64, len(channel))
        if (np.isnan(low) | np.isnan(high) | ((low > high) & (np.isfinite(low) | np.isfinite(high)))).any():
            message = "lowest and highest values of windows that cannot be"
            raise ValueError(message)
        fits = (block > -_ALWAYS) & self._has[rule] & (block == last // self._length[rule])

        def restore() -> None:
            if fits.any():
                self._put(self._rows_of(channel[fits]), low[fits], high[fits], block[fits], since[fits])

        return restore

    def _judge_few(
        self, rows: Ints, rule: Ints, time: Ints, value: Floats
    ) -> tuple[Flags, Flags, Callable[[], Callable[[], None]]]:
        """The same, one value after another: for few of them array operations cost more."""
        weak, dead = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        states: dict[int, _State] = {}
        for place, (row, *reading) in enumerate(
            zip(rows.tolist(), rule.tolist(), time.tolist(), value.tolist(), strict=True)
        ):
            state = states.get(row) or self._state(row)
            weak[place], dead[place], states[row] = self._next(state, *reading)
        return weak, dead, partial(self._commit, states)

    def _next(self, state: _State, rule: int, time: int, value: float) -> tuple[bool, bool, _State]:
        """What one value says, and the state after it; changes the lists of the state before."""
        low, high, last, since = state
        length, suspect, fail, exempt_low, exempt_high = self._plain[rule]
        block = time // length
        if block != last:
            gone = [slot for slot in range(_SLOTS) if last - (last - slot) % _SLOTS < block - _BLOCKS]
            for slot in gone:
                low[slot], high[slot] = inf, -inf
            since = time if len(gone) == _SLOTS else since
        slot = block % _SLOTS
        low[slot], high[slot] = min(low[slot], value), max(high[slot], value)
        spread = max(high) - min(low)
        judged = (
            (spread < suspect or spread < fail)
            and time - since >= length * _BLOCKS
            and sum(map(isfinite, low)) >= _FEWEST
            and exempt_low < value < exempt_high
        )
        return judged and spread < suspect, judged and spread < fail, (low, high, block, since)

    def _state(self, row: int) -> _State:
        return self._low[row].tolist(), self._high[row].tolist(), int(self._block[row]), int(self._since[row])

    def _commit(self, states: Mapping[int, _State]) -> Callable[[], None]:
        before = {row: self._state(row) for row in states}
        self._set(states)
        return partial(self._set, before)

    def _set(self, states: Mapping[int, _State]) -> None:
        for row, state in states.items():
            self._low[row], self._high[row], self._block[row], self._since[row] = state

    def _put(self, rows: Ints, low: Floats, high: Floats, block: Ints, since: Ints) -> None:
        self._low[rows], self._high[rows], self._block[rows], self._since[rows] = low, high, block, since

    def _put_cells(self, cell: Ints, low: Floats, high: Floats) -> None:
        self._low.reshape(-1)[cell], self._high.reshape(-1)[cell] = low, high

    def _rows_of(self, channel: Ints) -> Ints:
        """The rows of channels; those that have none get one."""
        known = self._places.count
        rows = self._places.of(channel)
        if (count := self._places.count) > known:
            if count > len(self._block):
                for name in ("_low", "_high", "_block", "_since"):
                    setattr(self, name, widened(getattr(self, name), count))
            self._low[known:count], self._high[known:count] = np.inf, -np.inf
            self._block[known:count], self._since[known:count] = -_ALWAYS, 0
        return rows


def _nothing() -> Callable[[], None]:
    return lambda: None


def _running(value: Floats, segment: Ints, heads: Ints) -> tuple[Floats, Floats]:
    """The lowest and highest value so far within each segment: passes over twice the distance each."""
    low, high = value.copy(), value.copy()
    longest = int(np.diff(heads, append=len(value)).max())
    distance = 1
    while distance < longest:
        within = segment[distance:] == segment[:-distance]
        low[distance:] = np.where(within, np.minimum(low[distance:], low[:-distance]), low[distance:])
        high[distance:] = np.where(within, np.maximum(high[distance:], high[:-distance]), high[distance:])
        distance *= 2
    return low, high


def _turns(rows: Ints) -> list[Ints]:
    """Places of the first segment of each row, then of the second of each that has one, and so on."""
    first = np.empty(len(rows), bool)
    first[0] = True
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    if first.all():
        return [np.arange(len(rows))]
    heads = np.flatnonzero(first)
    nth = np.arange(len(rows)) - heads[np.cumsum(first) - 1]
    order = np.argsort(nth, kind="stable")
    return np.split(order, np.cumsum(np.bincount(nth))[:-1])
