"""Verdict: whether what is unusual in a channel is a fault of its sensor, an event, or not to be told.

Each fault has a test of its own (`gateway.edge.faults`). What they share is kept here: level, spread and steps of each
channel over its last two weeks, its last 64 readings, and what the same quantity does at the gateway's other sensors,
its *neighbours*, as they were when the latest minute began.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gateway.edge.faults import look as known
from gateway.edge.faults.look import LEARNING, OWN, History, Look, Test, Verdict
from gateway.edge.inspect import Reason
from gateway.edge.readings import REPEATED, Bytes, Channels, Flags, Floats, Ints, Readings, Rules


class Judgement(NamedTuple):
    """What a batch gives rise to.

    Attributes:
        verdicts: In the order in which they were known.
        fault: uint8[n], in the order of the readings: the fault that each is part of, else 0.
    """

    verdicts: list[Verdict]
    fault: Bytes


_HOUR = 3_600_000.0
_MINUTE = 60_000
_NEVER = -1e15  # ms; before any reading
_NO_READING = int(Reason.MISSING | Reason.OUT_OF_ORDER | Reason.DUPLICATE_TIME | Reason.FUTURE | Reason.GROSS_RANGE)
_LATEST = 12  # readings over which activity is taken
_MEMORY = 14 * 24 * _HOUR  # ms, and in readings:
_SHORTEST, _LONGEST = 100, 4000
_RARE = 3.0  # decades from which a step is a jump


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
        self._clock = -(2**62)  # the minute as of which neighbours are known
        self._group = np.zeros(0, np.int64)  # the same number for the same quantity of the same kind
        self._groups_known: dict[tuple[str, str], int] = {}

    def judge(self, readings: Readings) -> Judgement:
        """Judges readings that were inspected, and learns from them."""
        fault = np.zeros(len(readings.channel), np.uint8)
        verdicts: list[Verdict] = []
        if len(readings.channel):
            self._make_ready()
            for first, beyond, minute in self._rounds(readings):
                if minute > self._clock:
                    self._clock = minute
                    self._look_around()
                flag, reason = readings.flag[first:beyond], readings.reason[first:beyond]
                value, channel = readings.value[first:beyond], readings.channel[first:beyond]
                good = self._judged[readings.rule[first:beyond]] & (flag != REPEATED) & np.isfinite(value)
                good &= ((reason & _NO_READING) == 0) & (readings.time[first:beyond] > self._state[known.TIME, channel])
                places = np.flatnonzero(good) + first
                if len(places):
                    look = self.look(readings.channel[places], readings.time[places], readings.value[places])
                    fault[places] = look.fault
                    verdicts += look.verdicts
        return Judgement(verdicts, fault)

    def _rounds(self, readings: Readings) -> list[tuple[int, int, int]]:
        """Parts of a batch in which no sensor comes twice and no minute begins: first value, the one beyond, minute."""
        parts = []
        clock, begin = self._clock, 0
        seen: set[int] = set()
        ahead = (readings.reason[readings.starts] & int(Reason.FUTURE)) != 0 if len(readings.starts) else []
        minutes = np.where(ahead, clock, readings.times // _MINUTE).tolist()
        starts = readings.starts.tolist()
        now = clock
        for row, (sensor, minute) in enumerate(zip(readings.sensors, minutes, strict=True)):
            number = sensor.number
            if number in seen or minute > now:
                if starts[row] > begin:
                    parts.append((begin, starts[row], now))
                    begin = starts[row]
                seen.clear()
                now = max(now, minute)
            seen.add(number)
        parts.append((begin, len(readings.channel), now))
        return parts

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

    def look(self, channel: Ints, time: Ints, value: Floats) -> Look:
        """Judges one reading of each of some channels, and learns from it."""
        own = self._state[:, channel]
        moment, value = time.astype(np.float64), np.clip(value, -1e100, 1e100)
        new = own[known.COUNT] == 0
        if new.any():
            own[known.LAST, new] = own[known.MEAN, new] = value[new]
            own[known.TIME, new] = moment[new]
        rules, beside = self._channels.rules, self._beside[:, channel]
        sensor = self._channels.owner[channel]
        look = Look(channel, self._channels.rule[channel], rules, sensor, moment, value, own, beside, self._history)
        own[known.COUNT] += 1
        count = own[known.COUNT].astype(np.int64)
        self._history.add(channel, count, value, look.elapsed, beside[known.COMMON])
        row = OWN
        for test in self._tests:
            test.judge(look, own[row : row + test.rows])
            row += test.rows
        self._learn(look, new)
        self._state[:, channel] = own
        return look

    @staticmethod
    def _learn(look: Look, new: Flags) -> None:
        """Level, spread, steps and activity of each channel, with this reading."""
        own, value, step, size = look.own, look.value, look.step, look.size
        count, elapsed = own[known.COUNT], look.elapsed
        rarity = look.rarity
        usual = own[known.INTERVAL]
        usual[:] = np.where(count == 2, elapsed, usual)  # noqa: PLR2004 - an interval takes two
        usual += 0.05 * (np.minimum(elapsed, 3 * usual) - usual)
        span = np.clip(_MEMORY / np.maximum(usual, 1), _SHORTEST, _LONGEST)
        weight = np.maximum(1 / count, 1 / span)
        old, held = ~look.young, (look.fault > 0) | (count < own[known.HELD])
        weight = np.where(held & old, 0.05 * weight, weight)
        # what is far out teaches little
        cap = np.where(old, 4 * look.spread, np.inf)
        off = np.clip(value - own[known.MEAN], -cap, cap)
        # of the reading before, whose neighbours are known by now
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.clip((own[known.LAST] - own[known.MEAN]) / look.spread, -4, 4)
        own[known.MEAN] += weight * off
        own[known.VARIANCE] += weight * (off * off - own[known.VARIANCE])
        common = look.beside[known.COMMON]
        paired = np.isfinite(common) & np.isfinite(level) & old
        if paired.any():
            own[known.PAIRS] += paired
            with np.errstate(divide="ignore"):
                pair = np.where(paired & ~held, np.maximum(1 / own[known.PAIRS], 1 / span), 0)
            common, level = np.where(paired, np.clip(common, -4, 4), 0), np.where(paired, level, 0)
            apart = np.abs(level - look.slope * common)
            own[known.COMMON_SQUARE] += pair * (common * common - own[known.COMMON_SQUARE])
            own[known.COMMON_PRODUCT] += pair * (common * level - own[known.COMMON_PRODUCT])
            own[known.APART] += pair * (apart - own[known.APART])
        near = ~look.gap & ~new
        weight *= near
        step_cap = np.where(old, 6 * own[known.STEP], np.inf)
        own[known.STEP] += weight * (np.minimum(size, step_cap) - own[known.STEP])
        # the size of one step in a hundred, and the tail beyond it
        quick, excess = own[known.QUICK], own[known.EXCESS]
        first = quick == 0
        beyond = near & (size > quick) & ~held
        more = np.where(beyond, np.minimum(size - quick, np.where(old & (excess > 0), 10 * excess, np.inf)), 0)
        pace = np.maximum(0.05 * quick, excess) * (20 / (count + 100) + 0.02)
        quick += np.where(near & ~held, pace * (beyond - 0.01), 0)
        quick[first] = size[first]
        excess += np.where(beyond, np.where(first, 0.5 * size, 0.05 * (more - excess)), 0)
        # activity, and how often steps turn
        sign = np.sign(step)
        turned = (sign * own[known.SIGN] < 0) & near
        own[known.SIGN] = np.where(sign != 0, sign, own[known.SIGN])
        latest = np.where(near, 2 / (_LATEST + 1), 0)
        own[known.ACTIVITY] += latest * (
            np.minimum(size, np.where(old, 8 * own[known.STEP], np.inf)) - own[known.ACTIVITY]
        )
        own[known.TURNS] += latest * (turned - own[known.TURNS])
        own[known.STEADY] += weight * ((step == 0) - own[known.STEADY])
        own[known.ZEROS] += weight * ((value == 0) - own[known.ZEROS])
        own[known.JUMPED] = np.where(near & old & (rarity > _RARE), look.time, own[known.JUMPED])
        own[known.LAST], own[known.TIME] = value, look.time

    def _look_around(self) -> None:
        """What the same quantity does at the other sensors."""
        count, own = len(self._channels), self._state
        moment = self._clock * _MINUTE
        with np.errstate(invalid="ignore", divide="ignore"):
            level = (own[known.LAST, :count] - own[known.MEAN, :count]) / np.sqrt(own[known.VARIANCE, :count])
            active = own[known.ACTIVITY, :count] / own[known.STEP, :count]
        interval = np.maximum(own[known.INTERVAL, :count], _MINUTE)
        fresh = (moment - own[known.TIME, :count] < 3 * interval) & (own[known.COUNT, :count] >= LEARNING)
        fresh &= np.isfinite(level) & np.isfinite(active) & (own[known.CALLED, :count] == 0)
        jumped = moment - own[known.JUMPED, :count] <= np.maximum(4 * _HOUR, 4 * interval)
        self._beside[:, :count] = np.nan
        places = np.flatnonzero(fresh)
        if not len(places):
            return
        # a channel that is no witness itself still has neighbours
        every = np.flatnonzero(own[known.COUNT, :count] > 0)
        group, of_every = self._groups()[places], self._groups()[every]
        rank = np.where(fresh[every], np.cumsum(fresh)[every] - 1, -1)
        self._beside[known.COMMON, every] = _middle_of_others(group, level[places], of_every, rank)
        self._beside[known.COMMON_ACTIVITY, every] = _middle_of_others(group, active[places], of_every, rank)
        size = int(max(group.max(), of_every.max())) + 1
        many, hits = np.bincount(group, minlength=size), np.bincount(group, jumped[places], size)
        others = many[of_every] - fresh[every]
        with np.errstate(invalid="ignore", divide="ignore"):
            self._beside[known.COMMON_JUMPS, every] = (hits[of_every] - (jumped & fresh)[every]) / others

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


def _middle_of_others(group: Ints, value: Floats, of: Ints, rank: Ints) -> Floats:
    """For each channel asked for, the median of its group, itself left out; NaN where there is nobody else.

    Args:
        group: int64[n], of the witnesses.
        value: float64[n], what they say.
        of: int64[m], group of the channels asked for.
        rank: int64[m], their place among the witnesses, or -1.
    """
    order = np.lexsort((value, group))
    sorted_group, sorted_value = group[order], value[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    head = np.searchsorted(sorted_group, of)
    size = np.searchsorted(sorted_group, of, "right") - head
    own = np.where(rank >= 0, place[rank] - head, len(order))
    others = size - (rank >= 0)
    low, high = (others - 1) // 2, others // 2
    low, high = low + (low >= own), high + (high >= own)
    some = others > 0
    middle = np.full(len(of), np.nan)
    middle[some] = (sorted_value[(head + low)[some]] + sorted_value[(head + high)[some]]) / 2
    return middle
