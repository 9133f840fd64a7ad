"""Verdict: whether what is unusual in a channel is a fault of its sensor, an event, or not to be told.

Each fault has a test of its own (`gateway.edge.faults`). What they share is kept here: level, spread and steps of each
channel over its last two weeks, its last 44 readings, and what the same quantity does at the gateway's other sensors,
its *neighbours*, as they were at most five minutes before.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.edge.faults import look as known
from gateway.edge.faults.look import LEARNING, OWN, History, Keeping, Look, Test, Verdict
from gateway.edge.readings import FAIL, REPEATED, Bytes, Channels, Flags, Floats, Indices, Ints, Readings, Rules
from gateway.edge.reasons import Reason

_HOUR = 3_600_000.0
_MINUTE = 60_000
_NEVER = -1e15  # ms; before any reading
_NO_READING = int(
    Reason.MISSING
    | Reason.OUT_OF_ORDER
    | Reason.DUPLICATE_TIME
    | Reason.FUTURE
    | Reason.GROSS_RANGE
    | Reason.SENDER_BAD
)
_LATEST = 12  # readings over which activity is taken
_PACE = 2 / (_LATEST + 1)
_SHARES = slice(
    known.STEP, known.TURNS + 1
)  # rows that are means: three over two weeks, then two of the latest readings
_OF_NEIGHBOURS = slice(known.COMMON_SQUARE, known.APART + 1)
_MEMORY = 14 * 24 * _HOUR  # ms, and in readings:
_SHORTEST, _LONGEST = 100, 4000
_APART = 5  # minutes between two looks at the neighbours
_AT_ONCE = 4096  # values that are judged together at most
_WITNESS = 2  # what a channel that has lately sent, and knows itself, is among its neighbours
_FAR = 64.0  # a level beyond is taken as this
_LARGEST = 1e100  # values beyond are taken as this, so that no square overflows
_RARE = 3.0  # decades from which a step is a jump

# Of readings that wait to be judged: channel, rule, time, value, flag and reason, as they were when they came.
_Columns = tuple[Ints, Indices, Ints, Floats, Bytes, Indices]


class Judge:
    """Tells faults from events.

    Args:
        channels: The channels and their rules.
        tests: One a fault.
    """

    def __init__(self, channels: Channels, tests: Sequence[Test]) -> None:
        self._channels, self._tests = channels, tests
        self._rules: Rules | None = None
        self._rows = OWN + sum(test.rows for test in tests)
        self._state = np.zeros((self._rows, 0))
        self._history = History()
        self._beside = np.zeros((3, 0))
        self._clock = -(2**40)  # the minute as of which neighbours are known
        self._minute = self._clock  # the latest of which readings have come
        self._collected: list[_Columns] = []
        self._collecting = 0
        self._lasting = False  # whether some fault does
        self._group = np.zeros(0, np.int64)  # the same number for the same quantity of the same kind
        self._groups_known: dict[tuple[str, str], int] = {}
        self._around: _Around | None = None

    def judge(self, readings: Readings) -> list[Verdict]:
        """Fails what is part of a fault that lasts, and judges the readings of the minutes before.

        Readings are judged a minute at a time, in the order in which they came, once a reading of a later minute has
        come: so it costs little however few come together, and how they come in batches changes nothing.

        Args:
            readings: Inspected readings; flags and reasons are changed in place.
        """
        count, starts = len(readings.channel), readings.starts
        if not count:
            return []
        self._make_ready()
        columns = readings.channel, readings.rule, readings.time, readings.value, readings.flag, readings.reason
        if len(starts) == 1:
            ahead = int(readings.reason[0]) & int(Reason.FUTURE)
            verdicts = [] if ahead else self._reach(int(readings.times[0]) // _MINUTE)
            return verdicts + self._collect(columns)
        minute = readings.times // _MINUTE
        if int(np.bitwise_or.reduce(readings.reason)) & int(Reason.FUTURE):
            minute[(readings.reason.take(starts) & int(Reason.FUTURE)) != 0] = self._minute
        turns = [0]
        if np.count_nonzero(minute == minute[0]) < len(minute):
            minute = np.maximum.accumulate(minute)
            turns += ((minute[1:] != minute[:-1]).nonzero()[0] + 1).tolist()
        minutes = minute[turns].tolist()
        ends = [*starts[turns[1:]].tolist(), count]
        verdicts, first = [], 0
        for row, now, end in zip(turns, minutes, ends, strict=True):
            verdicts += self._reach(now)
            while first < end:
                # whole messages, until there are enough
                most, until = first + _AT_ONCE - self._collecting, end
                if most <= end:
                    after = row + 1 + int(np.searchsorted(starts[row + 1 :], most))
                    until = int(starts[after]) if after < len(starts) else count
                part = slice(first, until)
                verdicts += self._collect(columns if until - first == count else [its[part] for its in columns])
                first = until
        return verdicts

    def _reach(self, minute: int) -> list[Verdict]:
        """Judges what has been collected, if a minute is later."""
        if minute <= self._minute:
            return []
        verdicts = self.finish()
        self._minute = minute
        return verdicts

    def _collect(self, columns: Sequence[npt.NDArray[Any]]) -> list[Verdict]:
        """Takes readings that are to be judged, judges them if they are enough, fails those of channels with a fault.

        Args:
            columns: As ``_Columns``; flags and reasons are changed in place.
        """
        channel, rule, time, value, flag, reason = columns
        self._collected.append((channel, rule, time, value, flag.copy(), reason.copy()))
        self._collecting += len(channel)
        if self._lasting:
            fault = self._state[known.CALLED][channel]
            failed = (fault > 0) & self._good(rule, flag, reason)
            if np.count_nonzero(failed):
                flag[failed] = FAIL
                reason[failed] |= np.left_shift(int(Reason.STUCK), fault[failed].astype(np.int32) - 1)
        return self.finish() if self._collecting >= _AT_ONCE else []

    def _good(self, rule: Indices, flag: Bytes, reason: Indices) -> Flags:
        """Which values are readings that can be judged."""
        good: Flags = self._judged.take(rule) & (flag != REPEATED)
        if int(np.bitwise_or.reduce(reason)) & _NO_READING:
            good &= (reason & _NO_READING) == 0
        return good

    def finish(self) -> list[Verdict]:
        """Judges what has been collected."""
        collected, self._collected, self._collecting = self._collected, [], 0
        if not collected:
            return []
        if self._minute >= self._clock + _APART:
            self._clock = self._minute
            self._look_around()
        columns = collected[0] if len(collected) == 1 else [*map(np.concatenate, zip(*collected, strict=True))]
        channel, rule, time, value, flag, reason = columns
        good = self._good(rule, flag, reason)
        if np.count_nonzero(good) < len(good):
            channel, time, value = channel[good], time[good], value[good]
        verdicts: list[Verdict] = []
        for places in _rounds(channel):
            its, moment, now = channel[places], time[places].astype(np.float64), value[places]
            newer = moment > self._state[known.TIME].take(its)
            if (many := np.count_nonzero(newer)) == len(its) and many:
                verdicts += self.look(its, moment, now).verdicts
            elif many:
                verdicts += self.look(its[newer], moment[newer], now[newer]).verdicts
        self._lasting = bool(np.count_nonzero(self._state[known.CALLED]))
        return verdicts

    def learning(self) -> int:
        """How many channels have had too few readings for a verdict."""
        return int((self._state[known.COUNT, : len(self._channels)] < LEARNING).sum())

    def state(self, channels: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """What is known of some channels, a row each; what has not been judged yet is not part of it."""
        history = self._history
        kept = {}
        for test in self._tests:
            if isinstance(test, Keeping):
                test.make_room(len(self._channels))
                kept[type(test).__name__.lower()] = test.kept[channels]
        return {
            **kept,
            "state": self._state[:, channels].T.copy(),
            "values": history.values.T[channels],
            "elapsed": history.elapsed.T[channels],
            "commons": history.commons.T[channels],
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channels: Ints) -> None:
        """Takes up where another judge left.

        Args:
            state: What that one's ``state`` was.
            channels: int64[k], the channels that the rows are of now.

        Raises:
            ValueError: It is not a judge's state, or one of another version; nothing is changed.
        """
        self._make_ready()
        now = self.state(channels)
        if {name: (its.shape, its.dtype) for name, its in state.items()} != {
            name: (its.shape, its.dtype) for name, its in now.items()
        }:
            msg = "not the state of this version's judge"
            raise ValueError(msg)
        if not all(np.isfinite(state[name]).all() for name in ("state", "values", "elapsed")):
            msg = "a judge's state with impossible values"
            raise ValueError(msg)
        self._state[:, channels] = state["state"].T
        self._lasting = bool(np.count_nonzero(self._state[known.CALLED]))
        for name in ("values", "elapsed", "commons"):
            getattr(self._history, name)[:, channels] = state[name].T
        for test in self._tests:
            if isinstance(test, Keeping):
                test.kept[channels] = state[type(test).__name__.lower()]

    def _make_ready(self) -> None:
        """Takes new rules, and gives new channels a state."""
        rules = self._channels.rules
        if self._rules is not rules:
            self._rules = rules
            limits = [rule.limits for rule in rules.all]
            self._judged = np.array([its is not None and not its.direction and its.healthy is None for its in limits])
        count, before = len(self._channels), self._state.shape[1]
        if before < count:
            width = max(256, count, 2 * before)
            state, beside = np.zeros((self._rows, width)), np.full((3, width), np.nan)
            state[:, :before], beside[:, :before] = self._state, self._beside
            state[[[known.TIME], [known.JUMPED]], before:] = _NEVER
            self._state, self._beside = state, beside
            self._history.make_room(width)

    def look(self, channel: Ints, moment: Floats, value: Floats) -> Look:
        """Judges one reading of each of some channels, in their order, and learns from it."""
        # all channels of a range: their state is judged where it is, which is far cheaper than to collect it
        first, beyond = int(channel[0]), int(channel[-1]) + 1
        here = len(channel) == beyond - first
        which: slice | Ints = slice(first, beyond) if here else channel
        own = self._state[:, which] if here else self._state.take(channel, 1)
        if np.count_nonzero(np.abs(value) > _LARGEST):
            value = np.minimum(np.maximum(value, -_LARGEST), _LARGEST)
        count = own[known.COUNT]
        new = count == 0
        if any_new := np.count_nonzero(new) > 0:
            own[known.LAST, new] = own[known.MEAN, new] = value[new]
            own[known.TIME, new] = moment[new]
        channels, beside = self._channels, self._beside[:, which]
        rule, sensor = channels.rule[which], channels.owner[which]
        look = Look(channel, rule, channels.rules, sensor, moment, value, own, beside, self._history)
        count += 1
        nth = float(count[0])  # sensors that send together have had as many readings
        age = nth if np.count_nonzero(count == nth) == len(count) else count
        self._history.add(which, age, value, look.elapsed, beside[known.COMMON])
        row = OWN
        for test in self._tests:
            test.judge(look, own[row : row + test.rows])
            row += test.rows
        self._learn(look, age, new if any_new else None)
        if not here:
            self._state[:, channel] = own
        return look

    @staticmethod
    def _learn(look: Look, age: Floats | float, new: Flags | None) -> None:  # noqa: PLR0915 - one statistic after another
        """Level, spread, steps and activity of each channel, with this reading."""
        own, value, step, size = look.own, look.value, look.step, look.size
        count, elapsed, young, spread = own[known.COUNT], look.elapsed, look.young, look.spread
        usual, rarity, some_young = own[known.INTERVAL], look.rarity, look.some_young
        if some_young:
            usual[:] = np.where(count == 2, elapsed, usual)  # noqa: PLR2004 - an interval takes two
        usual += 0.05 * (np.minimum(elapsed, 3 * usual) - usual)
        weight = usual / _MEMORY
        np.minimum(np.maximum(weight, 1 / _LONGEST, out=weight), 1 / _SHORTEST, out=weight)
        held = count < own[known.HELD]
        if look.some_faulty:
            held |= look.fault > 0
        some_held = np.count_nonzero(held) > 0
        learning = np.where(held, 0.05 * weight, weight) if some_held else weight
        # what is far out teaches little
        most, most_step, most_active = 4 * spread, 6 * own[known.STEP], 8 * own[known.STEP]
        if some_young:
            weight = np.where(young, np.maximum(weight, 1 / count), weight)
            learning = np.where(young, weight, learning)
            most[young] = most_step[young] = most_active[young] = np.inf
        off = value - own[known.MEAN]
        np.minimum(np.maximum(off, -most, out=off), most, out=off)
        if look.some_paired:
            _pair(look, weight, held if some_held else None)
        own[known.MEAN] += learning * off
        off *= off
        off -= own[known.VARIANCE]
        off *= learning
        own[known.VARIANCE] += off
        near = look.gap if new is None else look.gap | new
        all_near = not np.count_nonzero(near)
        near = ~near
        if not all_near:
            learning *= near
        sign = np.sign(step)
        turned = sign * own[known.SIGN] < 0
        rows = own[_SHARES]
        more = np.empty_like(rows)
        np.minimum(size, most_step, out=more[0])
        more[1], more[2], more[4] = look.still, value == 0, turned
        np.minimum(size, most_active, out=more[3])
        more -= rows
        more[:3] *= learning
        more[3:] *= _PACE if all_near else _PACE * near
        rows += more
        # the size of one step in a hundred, and the tail beyond it
        quick, excess = own[known.QUICK], own[known.EXCESS]
        pace = np.maximum(0.05 * quick, excess)
        pace *= 20 / (age + 100) + 0.02
        first = quick == 0 if some_young else None
        at = look.quick
        if some_held or not all_near:
            fit = near & ~held
            at = at[fit[at]]
            pace *= fit
        less = pace * -0.01
        less[at] = pace[at] * 0.99
        if len(at):
            more = size[at] - quick[at]
            more = np.where(~young[at] & (excess[at] > 0), np.minimum(more, 10 * excess[at]), more)
            more = 0.05 * (more - excess[at])
            excess[at] += more if first is None else np.where(first[at], 0.5 * size[at], more)
        quick += less
        if first is not None:
            quick[first] = size[first]
        still = look.still.nonzero()[0]
        sign[still] = own[known.SIGN][still]
        own[known.SIGN] = sign
        jumped = look.quick[rarity[look.quick] > _RARE]
        jumped = jumped[near[jumped] & ~young[jumped]]
        own[known.JUMPED, jumped] = look.time[jumped]
        own[known.LAST], own[known.TIME] = value, look.time

    def _look_around(self) -> None:
        """What the same quantity does at the other sensors."""
        count, own, beside = len(self._channels), self._state, self._beside
        moment = self._clock * _MINUTE
        with np.errstate(invalid="ignore", divide="ignore"):
            level = (own[known.LAST, :count] - own[known.MEAN, :count]) / np.sqrt(own[known.VARIANCE, :count])
            active = own[known.ACTIVITY, :count] / own[known.STEP, :count]
        interval = np.maximum(own[known.INTERVAL, :count], _MINUTE)
        fresh = (moment - own[known.TIME, :count] < 3 * interval) & (own[known.COUNT, :count] >= LEARNING)
        fresh &= np.isfinite(level) & np.isfinite(active)
        if self._lasting:
            fresh &= own[known.CALLED, :count] == 0
        jumped = moment - own[known.JUMPED, :count] <= np.maximum(4 * _HOUR, 4 * interval)
        of_each = fresh.astype(np.uint8) + (own[known.COUNT, :count] > 0)
        around = self._around
        if around is None or not np.array_equal(of_each, around.known):
            around = self._around = _Around(self._groups(), of_each)
        which = around.which
        if len(which) < count:
            beside[:, :count] = np.nan
        if not len(which):
            return
        beside[known.COMMON, which] = around.middle_of_others(level)
        beside[known.COMMON_ACTIVITY, which] = around.middle_of_others(active)
        beside[known.COMMON_JUMPS, which] = around.share_of_others(jumped)

    def _groups(self) -> Ints:
        """int64[channels], the same number for the same quantity of the same kind."""
        before, count = len(self._group), len(self._channels)
        if before < count:
            added, numbers = [], self._groups_known
            for channel in range(before, count):
                rule = self._channels.rules.all[self._channels.rule[channel]]
                kind = self._channels.sensors[self._channels.owner[channel]].family.kind
                added.append(numbers.setdefault((kind, rule.quantity), len(numbers)))
            self._group = np.append(self._group, added).astype(np.int64)
        return self._group


def _pair(look: Look, weight: Floats, held: Flags | None) -> None:
    """What the reading before, whose neighbours are known by now, had to do with them."""
    own, slope, spread = look.own, look.slope, look.spread
    all_paired = look.all_paired and not look.some_young and np.count_nonzero(spread) == len(spread)
    if all_paired:
        own[known.PAIRS] += 1
        level = look.level_before
    else:
        paired = look.paired & (spread > 0) & ~look.young
        if not np.count_nonzero(paired):
            return
        own[known.PAIRS] += paired
        level = (own[known.LAST] - own[known.MEAN]) / np.where(paired, spread, np.inf)
    pair = np.maximum(weight, 1 / (own[known.PAIRS] if all_paired else np.maximum(own[known.PAIRS], 1)))
    common = look.common
    if not all_paired:
        pair *= paired if held is None else paired & ~held
        common = np.where(paired, common, 0)
    elif held is not None:
        pair *= ~held
    common, level = np.minimum(np.maximum(common, -4), 4), np.minimum(np.maximum(level, -4), 4)
    rows = own[_OF_NEIGHBOURS]
    more = np.empty_like(rows)
    np.multiply(common, common, out=more[0])
    np.multiply(common, level, out=more[1])
    np.abs(level - slope * common, out=more[2])
    more -= rows
    more *= pair
    rows += more


def _rounds(channel: Ints) -> Iterator[Ints | slice]:
    """Places in which no channel comes twice: the first of each, then the second of each, and so on."""
    if (channel[1:] > channel[:-1]).all():
        yield slice(None)
        return
    order = np.argsort(channel, kind="stable")
    new = np.append(True, np.diff(channel[order]) != 0)
    heads = np.flatnonzero(new)
    number = np.arange(len(order)) - heads[np.cumsum(new) - 1]
    most = int(number.max(initial=0))
    if most == 0:
        yield order
        return
    by_number = np.argsort(number, kind="stable")
    yield from np.split(order[by_number], np.cumsum(np.bincount(number))[:-1])


class _Around:
    """Which channels are witnesses, and so what is to be known of each channel's others; mostly the same for long.

    Args:
        group: int64[channels], the same number for those that are to be compared.
        known: uint8[channels], 0 for a channel without a reading, 2 for a witness.

    Attributes:
        known: That.
        which: int64[m], the channels that have a witness beside themselves.
    """

    def __init__(self, group: Ints, known: Bytes) -> None:
        self.known, fresh = known, known == _WITNESS
        self._places = places = np.flatnonzero(fresh)
        self._group = group[places]
        many = np.bincount(self._group, minlength=int(group.max(initial=0)) + 1)
        others = many[group] - fresh
        # a channel that is no witness itself still has neighbours
        self.which = which = np.flatnonzero((others > 0) & (known > 0))
        self._others, self._of, self._witness = others[which], group[which], fresh[which]
        head = (np.cumsum(many) - many)[self._of]
        self._low, self._high = head + (self._others - 1) // 2, head + self._others // 2
        self._above, self._above_of = self._group * (4 * _FAR), self._of * (4 * _FAR)

    def middle_of_others(self, value: Floats) -> Floats:
        """float64[m], the median of a channel's group, itself left out; of float64[channels]."""
        # sorted as one number each, of group and value, which is far faster than by two keys
        ranked = np.sort(np.minimum(np.maximum(value[self._places], -_FAR), _FAR) + self._above)
        own = np.where(self._witness, value[self.which], np.inf)
        own = np.minimum(np.maximum(own, -_FAR), 2 * _FAR) + self._above_of
        low, high = self._low, self._high
        # those from its own on are one further on
        both = ranked[low + (own <= ranked[low])] + ranked[high + (own <= ranked[high])]
        return np.asarray(both / 2 - self._above_of)

    def share_of_others(self, which: Flags) -> Floats:
        """float64[m], of how many of its others something is true; of bool[channels]."""
        hits = np.bincount(self._group, which[self._places], int(self._of.max()) + 1)
        return np.asarray((hits[self._of] - (which[self.which] & self._witness)) / self._others)
