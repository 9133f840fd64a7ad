"""Verdict: whether what is unusual in a channel is a fault of its sensor, an event, or not to be told.

What it goes by:

- *shape*: a channel's own level, spread, usual and fastest step, activity, and longest standstill, all measured over
  its own last weeks. A true change has a rise and a decay; a fault comes, and goes, between two readings.
- *physics*: the fastest change that was ever seen; exemptions of the kind's flat-line test; other units of its unit.
- *neighbours*: the same quantity at the gateway's other sensors, each by its own level and spread, the middle one of
  them; and *company*, the other quantities of the same sensor. What they see too is an event.

Only what is confidently a fault is called one; what has no witness for or against it stays undecided. Neighbours are
seen as they were when the latest minute began, so that the order of arrival within a minute does not matter.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from gateway.edge.inspect import Reason
from gateway.edge.readings import REPEATED, Bytes, Channels, Flags, Floats, Indices, Ints, Readings, Rules


class What(IntEnum):
    """What a verdict says."""

    NOTHING = 0
    STUCK = 1
    SPIKE = 2
    DRIFT = 3
    OFFSET = 4
    NOISE = 5
    DROPOUT = 6
    UNIT = 7
    SKEW = 8
    EVENT = 9
    UNDECIDED = 10


UNCERTAIN = frozenset({What.EVENT, What.UNDECIDED})
"""Verdicts that keep nothing out of the main measurement."""


class Verdict(NamedTuple):
    """What is said of some readings of a channel.

    Attributes:
        channel: Its number.
        since: When it began, ms UTC: of the first reading concerned.
        time: When it was known: of the reading that decided.
        what: A fault, an event, or undecided.
        confidence: 0 to 1.
        reasons: Names of what it rests upon.
    """

    channel: int
    since: int
    time: int
    what: What
    confidence: float
    reasons: tuple[str, ...]


class Judgement(NamedTuple):
    """What a batch gives rise to.

    Attributes:
        verdicts: Faults that began, events, and what remains undecided, in the order in which they were known.
        fault: uint8[n], in the order of the readings: the fault that each is part of, else 0.
    """

    verdicts: list[Verdict]
    fault: Bytes


_Restore = Callable[[], None]

_HOUR = 3_600_000.0
_MINUTE = 60_000
_NEVER = -1e15  # ms; before any reading
_LEARNING = 100
"""Readings of a channel before which nothing is said of it."""

# Rows of the state, a column a channel.
(
    _COUNT, _TIME, _INTERVAL, _LAST, _BEFORE, _BEFORE2, _MEAN, _VAR, _STEP, _FAST,
    _ACT, _ACT_MAX, _TURNS, _SIGN, _LOUD, _STILL, _LONGEST, _STAY, _ZEROS, _JUMPED,
    _AGE, _PRE, _JUMP, _ONSET, _UNIT, _HITS, _RATIO, _CALLED, _OTHER, _FROZEN,
    _IS_STUCK, _IS_NOISE, _BEFORE3, _STEADY, _TIME1, _TIME2,
) = range(36)  # fmt: skip
_ROWS = 36
# Rows of what is known beside the neighbours: their level, activity and share that jumped; and the difference.
_COMMON, _COMMON_ACT, _COMMON_JUMP, _D, _D_BASE, _D_WANDER, _D_COUNT, _SEEN = range(8)
_BESIDE = 8
_SMOOTH = 12  # readings over which activity is taken

# A kind's unit, and what a sensor may send instead: (factor, offset) of sent = factor · true + offset.
_CELSIUS = ((1.8, 32.0), (1.0, 273.15))
_DUST = ((1e-3, 0.0), (1e3, 0.0))
_SHARE = ((0.01, 0.0),)
_OTHER_UNITS = {
    "°C": _CELSIUS,
    "m/s": ((3.6, 0.0), (100.0, 0.0)),
    "km/h": ((1 / 3.6, 0.0),),
    "hPa": ((0.1, 0.0), (100.0, 0.0), (0.75006, 0.0)),
    "µg/m³": _DUST,
    "mg/m³": ((873.0, 0.0), (1000.0, 0.0), (1e-3, 0.0)),
    "mg/L": ((1000.0, 0.0), (1e-3, 0.0), (10.0, 0.0)),
    "µS/cm": ((1e-3, 0.0), (0.1, 0.0), (1e-4, 0.0)),
    "m": ((100.0, 0.0), (1000.0, 0.0), (3.2808, 0.0)),
    "m³/s": ((1000.0, 0.0), (3600.0, 0.0), (35.31, 0.0)),
    "mm": ((0.1, 0.0), (1e-3, 0.0), (1 / 25.4, 0.0)),
    "pH": ((-59.16, 414.12),),
    "%": _SHARE,
    "lx": ((1e-3, 0.0), (1 / 10.764, 0.0)),
    "veh/h": ((1 / 60, 0.0), (1 / 3600, 0.0), (0.25, 0.0)),
}
_UNITS_AT_MOST = 4


_NO_READING = int(Reason.MISSING | Reason.OUT_OF_ORDER | Reason.DUPLICATE_TIME | Reason.FUTURE)
_HELD = 200
"""Readings after which a new level is taken for what it is."""
_TRIGGER_FAST, _TRIGGER_STEP = 0.5, 4.0
_MOST_STEADY = 0.7
_TINY, _HUGE = 0.05, 20.0
"""Factors of units that no change of the quantity looks like."""
_FALLEN = 0.02
_ZEROS_ENOUGH, _HITS_MOST = 2, 6
_SPIKE_FIRM, _SPIKE_SIZE, _SPIKE_STEPS = 1.5, 1.2, 6.0
_OFFSET_LONGEST = 100
"""Readings for which an offset is held to be one; then it may be a change of place."""
_HEARD = 4
_HOME, _GONE, _STEP_BACK = 0.3, 0.4, -0.5
_OFFSET_READINGS, _OFFSET_TIME, _OFFSET_FAST = 12, 5 * _HOUR, 0.8
_STUCK_LEAST, _STUCK_DECADES = 12, 7.0
_NOISE_ACT, _NOISE_MAX, _NOISE_LAST, _NOISE_TURNS = 3.2, 1.25, 7, 0.56
_NOISE_MAX_FREE = 1.6


class _Part:
    """Readings of different channels, and the state of each of these; `own` is written back."""

    young: Flags
    gap: Flags
    big: Flags
    lively: Flags
    fell: Flags
    elapsed: Floats
    step: Floats
    spread: Floats
    usual_step: Floats
    fastest: Floats

    def __init__(  # noqa: PLR0913, PLR0917 - columns
        self, own: Floats, beside: Floats, channel: Ints, rule: Indices, time: Floats, value: Floats
    ) -> None:
        self.own, self.beside = own, beside
        self.channel, self.rule, self.time, self.value = channel, rule, time, value
        self.fault = np.zeros(len(channel), np.uint8)
        self.verdicts: list[Verdict] = []

    def say(self, place: int, since: float, what: What, confidence: float, reasons: tuple[str, ...]) -> None:
        """Adds a verdict on the channel of a reading."""
        channel, time = int(self.channel[place]), int(self.time[place])
        self.verdicts.append(Verdict(channel, int(since), time, what, confidence, reasons))


class Judge:
    """Tells faults from events; keeps some 350 bytes of state for a channel.

    Args:
        channels: The channels and their rules.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._rules: Rules | None = None
        self._state = np.zeros((_ROWS, 0))
        self._beside = np.zeros((_BESIDE, 0))
        self._count = 0
        self._clock = -(2**62)  # the minute as of which neighbours are known
        self._undo: _Restore = lambda: None

    def judge(self, readings: Readings) -> Judgement:
        """Judges readings that were inspected, and learns from them. Nothing is changed when it raises."""
        self._undo = lambda: None
        fault = np.zeros(len(readings.channel), np.uint8)
        if not len(readings.channel):
            return Judgement([], fault)
        self._make_ready()
        channels = np.unique(readings.channel)
        state, beside, clock = self._state[:, channels], self._beside, self._clock

        def restore() -> None:
            self._state[:, channels] = state
            self._beside, self._clock = beside, clock  # no one changes the old array

        verdicts: list[Verdict] = []
        try:
            for first, beyond, minute in self._parts(readings):
                if minute > self._clock:
                    self._clock = minute
                    self._look_around()
                self._judge_part(readings, first, beyond, verdicts, fault)
        except BaseException:
            restore()
            raise
        self._undo = restore
        return Judgement(verdicts, fault)

    def undo(self) -> None:
        """Takes the last batch back, as if it had never been judged."""
        self._undo()
        self._undo = lambda: None

    def _parts(self, readings: Readings) -> list[tuple[int, int, int]]:
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
        rules = self._channels.rules
        if self._rules is not rules:
            self._rules = rules
            many = len(rules.all)
            self._factor, self._offset = np.ones((many, _UNITS_AT_MOST)), np.full((many, _UNITS_AT_MOST), np.inf)
            self._judged = np.zeros(many, bool)
            self._stirs = np.zeros(many, bool)
            self._bounded = np.full((many, 2), (-np.inf, np.inf))
            for place, rule in enumerate(rules.all):
                if (limits := rule.limits) is None:
                    continue
                for number, (factor, offset) in enumerate(_OTHER_UNITS.get(limits.unit, ())):
                    self._factor[place, number], self._offset[place, number] = factor, offset
                self._judged[place] = not limits.direction and limits.healthy is None
                self._stirs[place] = limits.flat is not None
                if limits.fail is not None:
                    self._bounded[place] = limits.fail
        self._count = len(self._channels)
        before = self._state.shape[1]
        if before < self._count:
            width = max(256, self._count, 2 * before)
            state = np.zeros((_ROWS, width))
            state[:, :before] = self._state
            for row in (_TIME, _JUMPED, _FROZEN):
                state[row, before:] = _NEVER
            beside = self._fresh_beside(width)
            beside[:, :before] = self._beside
            self._state, self._beside = state, beside

    @staticmethod
    def _fresh_beside(width: int) -> Floats:
        beside = np.zeros((_BESIDE, width))
        beside[[_COMMON, _COMMON_ACT, _COMMON_JUMP]] = np.nan
        beside[_SEEN] = _NEVER
        return beside

    # -- a part of a batch ---------------------------------------------------------------------------------------------

    def _judge_part(self, readings: Readings, first: int, beyond: int, verdicts: list[Verdict], fault: Bytes) -> None:
        flag, reason = readings.flag[first:beyond], readings.reason[first:beyond]
        value = readings.value[first:beyond]
        good = self._judged[readings.rule[first:beyond]] & (flag != REPEATED) & np.isfinite(value)
        good &= (reason & _NO_READING) == 0
        good &= readings.time[first:beyond] > self._state[_TIME, readings.channel[first:beyond]]
        places = np.flatnonzero(good) + first
        if not len(places):
            return
        channel, rule = readings.channel[places], readings.rule[places]
        part = _Part(
            self._state[:, channel],
            self._beside[:, channel],
            channel,
            rule,
            readings.time[places].astype(np.float64),
            np.clip(readings.value[places], -1e100, 1e100),
        )
        self._learn(part)
        self._judge_spike(part)
        self._follow(part)
        self._judge_stillness(part)
        self._judge_noise(part)
        own = part.own
        own[_BEFORE3], own[_BEFORE2], own[_BEFORE] = own[_BEFORE2].copy(), own[_BEFORE].copy(), own[_LAST].copy()
        own[_TIME2], own[_TIME1] = own[_TIME1].copy(), own[_TIME].copy()
        own[_LAST], own[_TIME] = part.value, part.time
        self._state[:, channel] = own
        fault[places] = part.fault
        verdicts += part.verdicts

    def _learn(self, part: "_Part") -> None:
        """Level, spread, steps and activity of each channel, with this reading."""
        own, x, time = part.own, part.value, part.time
        own[_COUNT] += 1
        count = own[_COUNT]
        part.young = count < _LEARNING
        new = count == 1
        if new.any():
            own[_LAST, new] = own[_BEFORE, new] = own[_BEFORE2, new] = own[_BEFORE3, new] = own[_MEAN, new] = x[new]
            own[_TIME, new] = time[new]
        elapsed = time - own[_TIME]
        usual = own[_INTERVAL]
        usual[:] = np.where(count == 2, elapsed, usual)  # noqa: PLR2004 - an interval takes two
        part.gap = elapsed > 4.5 * usual
        usual += 0.05 * (np.minimum(elapsed, 3 * usual) - usual)
        part.elapsed = elapsed
        step = x - own[_LAST]
        part.step = step
        size = np.abs(step)
        span = np.clip(14 * 24 * _HOUR / np.maximum(usual, 1), 100, 4000)
        weight = np.maximum(1 / count, 1 / span)
        part.spread = np.sqrt(own[_VAR])
        part.usual_step, part.fastest = own[_STEP].copy(), own[_FAST].copy()
        old = ~part.young
        # what is far out teaches little, and what is just looked into teaches nothing
        off = x - own[_MEAN]
        cap = np.where(old, 4 * part.spread, np.inf)
        off = np.clip(off, -cap, cap)
        held = old & ((own[_AGE] > 0) & (own[_AGE] < _HELD) | (own[_IS_NOISE] > 0) | (own[_IS_STUCK] > 0))
        weight = np.where(held, 0.05 * weight, weight)
        own[_MEAN] += weight * off
        own[_VAR] += weight * (off * off - own[_VAR])
        near = ~part.gap & ~new
        step_cap = np.where(old, 6 * own[_STEP], np.inf)
        own[_STEP] += np.where(near, weight, 0) * (np.minimum(size, step_cap) - own[_STEP])
        trigger = np.maximum(_TRIGGER_FAST * own[_FAST], _TRIGGER_STEP * own[_STEP])
        part.lively = old & (own[_STEADY] < _MOST_STEADY)
        tiny = part.lively & near & (x != 0) & (np.abs(x) < _FALLEN * np.abs(own[_LAST])) & (size > 0.5 * part.spread)
        part.fell = tiny
        part.big = part.lively & near & (size > trigger) & (size > 0.3 * part.spread)
        faster = near & ~held & (~part.big | part.young)
        fast = own[_FAST]
        own[_FAST] = np.where(
            faster, np.maximum(fast * (1 - 1 / (4 * span)), np.where(old, np.minimum(size, 1.3 * fast), size)), fast
        )
        # activity, and how often steps turn
        sign = np.sign(step)
        turned = (sign * own[_SIGN] < 0) & near
        own[_SIGN] = np.where(sign != 0, sign, own[_SIGN])
        quick = np.where(part.gap, 0, 2 / (_SMOOTH + 1))
        own[_ACT] += quick * (np.minimum(size, np.where(old, 8 * own[_STEP], np.inf)) - own[_ACT])
        own[_TURNS] += quick * (turned - own[_TURNS])
        own[_STEADY] += weight * ((step == 0) - own[_STEADY])
        own[_ZEROS] += weight * ((x == 0) - own[_ZEROS])
        own[_JUMPED] = np.where(part.big, time, own[_JUMPED])

    def _judge_spike(self, part: "_Part") -> None:
        """Spike: up and down again, each between two readings; a gust wears off."""
        own, x = part.own, part.value
        last = own[_LAST]
        down = np.abs(part.step)
        # the return, which is the first that tells, is rare
        at = np.flatnonzero(
            part.lively & ~part.gap & (down > np.maximum(_SPIKE_SIZE * part.spread, _SPIKE_STEPS * part.usual_step))
        )
        if not len(at):
            return
        its, x = own[:, at], x[at]
        last, spread, fastest, usual = last[at], part.spread[at], part.fastest[at], part.usual_step[at]
        height = x - last
        best, since, pre = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at))
        for many, row in ((1, _BEFORE), (2, _BEFORE2), (3, _BEFORE3)):
            inner = its[_BEFORE if many < 3 else _BEFORE2]  # noqa: PLR2004
            first = (last, its[_BEFORE], its[_BEFORE2])[many - 1]
            rise = first - its[row]
            tall = np.where(rise * height < 0, np.minimum(np.abs(rise), np.abs(height)), 0)
            if many > 1:  # all of them are high
                high = np.sign(rise) * (inner - its[row]) > 0.6 * np.abs(height)
                if many == 3:  # noqa: PLR2004
                    high &= np.sign(rise) * (its[_BEFORE] - its[row]) > 0.6 * np.abs(height)
                tall = np.where(high, tall, 0)
            better = tall > best
            best = np.where(better, tall, best)
            since, pre = np.where(better, many, since), np.where(better, its[row], pre)
        with np.errstate(invalid="ignore", divide="ignore"):
            strength = best / fastest
            uneven = np.abs(x - pre) / best
        firm = (strength > _SPIKE_FIRM) & (uneven < 0.25)  # noqa: PLR2004
        clean = (strength > 1.1) & (uneven < 0.1) & (since < 3)  # noqa: PLR2004
        # one that stands alone: what is unquiet anyway, or at a level of its own, is not told by a single step
        with np.errstate(invalid="ignore", divide="ignore"):
            alone = (its[_ACT] / usual < 3.4) & (np.abs(pre - its[_MEAN]) < 2.6 * spread)  # noqa: PLR2004
        shared = part.beside[_COMMON_JUMP, at]
        alone &= (shared <= 0.34) | (np.isnan(shared) & (strength > 1.8))  # noqa: PLR2004
        call = alone & (firm | clean) & (best > np.maximum(_SPIKE_SIZE * spread, _SPIKE_STEPS * usual))
        for place in np.flatnonzero(call).tolist():
            onset = float(its[(_TIME, _TIME1, _TIME2)[int(since[place]) - 1], place])
            if self._jumped_together(part, int(at[place]), onset):
                continue
            zero = last[place] == 0 and its[_ZEROS, place] < 0.02  # noqa: PLR2004
            what = What.DROPOUT if zero else What.SPIKE
            part.say(
                int(at[place]),
                onset,
                what,
                0.9,
                _reasons(what, strength[place], witnessed=bool(np.isfinite(part.beside[_COMMON, at[place]]))),
            )

    def _jumped_together(self, part: "_Part", place: int, onset: float) -> bool:
        """Whether another quantity of the same sensor jumped when this one did."""
        channel = int(part.channel[place])
        sensor = self._channels.sensors[self._channels.owner[channel]]
        beyond = sensor.base + len(sensor.home.names)
        close = np.abs(self._state[_JUMPED, sensor.base : beyond] - onset) <= 1.2 * part.own[_INTERVAL, place]
        if sensor.base <= channel < beyond:
            close[channel - sensor.base] = False
        return bool(close.any())

    def _follow(self, part: "_Part") -> None:
        """What becomes of a step that was too large: a spike, a dropout, another unit, an offset, or nothing."""
        own, x = part.own, part.value
        # a larger step is looked into instead, unless it leads back
        larger = (np.abs(part.step) > 0.9 * np.abs(own[_JUMP])) & (np.abs(x - own[_PRE]) > 0.5 * np.abs(own[_JUMP]))
        starts = (part.big | part.fell) & ((own[_AGE] == 0) | (larger & (own[_CALLED] == 0) & (own[_UNIT] == 0)))
        at = np.flatnonzero(starts | (own[_AGE] > 0))
        if len(at):
            self._follow_some(part, at, starts[at])

    def _follow_some(self, part: "_Part", at: Ints, starts: Flags) -> None:  # noqa: PLR0915 - one after another
        its = part.own[:, at]
        beside = part.beside[:, at]
        x, time, rule = part.value[at], part.time[at], part.rule[at]
        spread, usual_step, fastest = part.spread[at], part.usual_step[at], part.fastest[at]
        last = its[_LAST].copy()
        if starts.any():
            new = np.flatnonzero(starts)
            its[_PRE, new] = last[new]
            its[_JUMP, new] = x[new] - last[new]
            its[_ONSET, new] = time[new]
            its[_AGE, new] = its[_HITS, new] = its[_RATIO, new] = its[_CALLED, new] = its[_FROZEN, new] = 0
            its[_OTHER, new] = beside[_D_BASE, new]
            zero = (x[new] == 0) & (np.abs(last[new]) >= 0.6 * np.abs(its[_BEFORE, new])) & (its[_ZEROS, new] < 0.02)  # noqa: PLR2004
            back = self._backward(rule[new], x[new])
            slack = 3 * usual_step[new] + 0.25 * np.abs(last[new])
            wrong = np.abs(back - last[new][:, None])
            best = wrong.argmin(1)
            small = self._factor[rule[new], best] < _TINY
            fits = wrong[np.arange(len(new)), best] <= np.where(
                small, slack, np.minimum(slack, 0.3 * np.abs(its[_JUMP, new]))
            )
            its[_UNIT, new] = np.where(zero, -1, np.where(fits & (x[new] != 0), best + 1, 0))
        its[_AGE] += 1
        age, pre, jump = its[_AGE], its[_PRE], its[_JUMP]
        ratio = (x - pre) / jump
        tall, strength = np.abs(jump), np.abs(jump) / np.maximum(fastest, 1e-12)
        shared = np.nan_to_num(beside[_COMMON_JUMP])
        alone = np.isfinite(beside[_COMMON])
        # how much of the step is left: by the neighbours, who have the same day, once they have been heard
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = (beside[_D] - its[_OTHER]) * spread / jump
        left = np.where(alone & (age > _HEARD), moved, ratio)
        its[_RATIO] += (left - its[_RATIO]) / np.minimum(age, 24)
        called = its[_CALLED].copy()
        verdict = np.zeros(len(at), np.uint8)  # what is called now
        ongoing = np.zeros(len(at), np.uint8)
        end = np.zeros(len(at), bool)
        confidence = np.zeros(len(at))
        later = age > 1

        # zeros
        zero = its[_UNIT] == -1
        if zero.any():
            low = zero & (x != 0) & (np.abs(x - pre) > 0.75 * tall)
            its[_UNIT, low & (called == 0)] = 0
            zero &= ~low | (called > 0)
            its[_HITS] += zero & (x == 0)
            call = zero & (its[_HITS] >= _ZEROS_ENOUGH) & (x == 0) & (tall > 3 * usual_step) & (tall > 0.8 * spread)
            # what is unquiet, or low already, may well come down to zero
            call &= (called > 0) | ((its[_ACT] < 4 * usual_step) & (np.abs(pre) > 0.6 * np.abs(its[_MEAN])))
            for place in np.flatnonzero(call & (called == 0)).tolist():
                call[place] = not self._jumped_together(part, int(at[place]), float(its[_ONSET, place]))
            call &= ~((called == 0) & alone & (shared > 0.5))  # noqa: PLR2004
            verdict[call & (called == 0)] = What.DROPOUT
            ongoing[call | ((called == What.DROPOUT) & (x == 0))] = What.DROPOUT

        # another unit
        unit = its[_UNIT] > 0
        if unit.any():
            some = np.flatnonzero(unit)
            which = (its[_UNIT, some] - 1).astype(np.int64)
            back = (x[some] - self._offset[rule[some], which]) / self._factor[rule[some], which]
            was = (last[some] - self._offset[rule[some], which]) / self._factor[rule[some], which]
            was = np.where(starts[some], pre[some], was)
            fits = np.abs(back - was) <= np.maximum(
                np.maximum(0.7 * fastest[some], 4 * usual_step[some]), 0.1 * np.abs(was)
            )
            fits &= (np.abs(back - its[_MEAN, some]) < 5 * spread[some]) & (
                np.abs(back - x[some]) > 2 * usual_step[some]
            )
            factor = self._factor[rule[some], which]
            level = np.maximum(np.abs(pre[some]), np.abs(its[_MEAN, some]))
            fits |= (factor < _TINY) & (x[some] != 0) & (np.abs(x[some]) < 3 * factor * level)
            its[_HITS, some] = np.minimum(np.where(fits, its[_HITS, some] + 1, its[_HITS, some] - 1), _HITS_MOST)
            sure = (tall[some] > 3 * usual_step[some]) & fits
            tiny = (factor < _TINY) & (tall[some] > 0.6 * spread[some])
            huge = (factor > _HUGE) & (tall[some] > 8 * spread[some]) & (strength[some] > 2)  # noqa: PLR2004
            other = (tall[some] > 2.5 * spread[some]) & (strength[some] > 1.8)  # noqa: PLR2004
            sure &= its[_HITS, some] >= np.where(tiny | huge, 3, 5)
            sure &= tiny | huge | (other & (factor >= _TINY) & (factor <= _HUGE))
            verdict[some[sure & (called[some] == 0)]] = What.UNIT
            ongoing[some[sure | ((called[some] == What.UNIT) & fits)]] = What.UNIT

        home = later & (np.abs(left) < _HOME)
        patient = (called == What.DROPOUT) & (time - its[_ONSET] < 12 * its[_INTERVAL])
        end |= home & ~(patient & zero) & ~((called == What.UNIT) & (ongoing > 0))

        # it stays: an offset, if the neighbours stay where they are
        long = np.maximum(_OFFSET_READINGS, np.ceil(_OFFSET_TIME / np.maximum(its[_INTERVAL], 1)))
        ripe = (called == 0) & (verdict == 0) & (age >= long) & (age < long + 36)
        if ripe.any():
            clear = np.abs(beside[_D] - its[_OTHER]) > np.maximum(6 * beside[_D_WANDER], 0.9)
            stays = (its[_RATIO] > 0.6) & (left > 0.45) & (its[_RATIO] < 1.7)  # noqa: PLR2004
            lone = alone & (moved > 0.75) & (moved < 1.3) & clear & (shared <= 0.34)  # noqa: PLR2004
            firm = strength > _OFFSET_FAST
            call = ripe & stays & lone & firm & (its[_ACT] < 2.5 * usual_step)
            call &= tall > np.maximum(spread, 6 * usual_step)
            for place in np.flatnonzero(call).tolist():
                call[place] = not self._jumped_together(part, int(at[place]), float(its[_ONSET, place]))
            verdict[call] = What.OFFSET
            confidence[call] = 0.85
        stays = (called == What.OFFSET) & (left > _GONE) & (age < _OFFSET_LONGEST)
        ongoing[stays] = What.OFFSET
        end |= (age >= long + 36) & (called == 0) & (verdict == 0)
        # what came at a stroke goes at a stroke
        back_again = ((called == What.OFFSET) | (called == What.UNIT)) & ((x - last) / jump < _STEP_BACK)
        ongoing[back_again] = 0
        end |= back_again
        end |= (age > _HELD) | ((called == What.OFFSET) & (left <= _GONE)) | ((called == What.UNIT) & (its[_HITS] < 0))

        now = verdict > 0
        its[_CALLED] = np.where(now, verdict, called)
        ongoing = np.where(now, verdict, ongoing)
        ongoing[now & (verdict != What.OFFSET) & (np.abs(ratio) < 0.35)] = 0  # noqa: PLR2004 - it is over
        part.fault[at] = np.maximum(part.fault[at], ongoing)
        for place in np.flatnonzero(now).tolist():
            part.say(
                int(at[place]),
                its[_ONSET, place],
                What(int(verdict[place])),
                float(confidence[place]) or 0.95,
                _reasons(What(int(verdict[place])), strength[place], witnessed=bool(alone[place])),
            )
        unresolved = end & (its[_CALLED] == 0) & (strength > _SPIKE_FIRM)
        for place in np.flatnonzero(unresolved).tolist():
            seen = shared[place] > 0.34  # noqa: PLR2004
            part.say(
                int(at[place]),
                its[_ONSET, place],
                What.EVENT if seen else What.UNDECIDED,
                0.7 if seen else 0.5,
                ("neighbours",) if seen else ("rate_of_change",),
            )
        grown = end & (its[_CALLED] == 0)
        its[_FAST] = np.where(grown, np.maximum(its[_FAST], np.minimum(tall, 1.5 * its[_FAST])), its[_FAST])
        its[_AGE, end] = 0
        its[_CALLED, end] = 0
        part.own[:, at] = its

    def _backward(self, rule: Indices, x: Floats) -> Floats:
        """float64[n, units]: what the values would be, had they been sent in other units."""
        with np.errstate(invalid="ignore"):
            back: Floats = (x[:, None] - self._offset[rule]) / self._factor[rule]
        return back

    def _judge_stillness(self, part: "_Part") -> None:
        """Stuck: still for longer than ever, while the neighbours move."""
        own, x = part.own, part.value
        same = (part.step == 0) & (own[_COUNT] > 1)
        run = own[_STILL]
        own[_STAY] += np.where(run > 0, 0.01, 0.001) * (same - own[_STAY])
        ended = ~same
        span = 4000.0
        kept = own[_LONGEST] * (1 - 1 / span)
        normal = ended & (own[_IS_STUCK] == 0)
        own[_LONGEST] = np.where(normal, np.maximum(kept, run), kept)
        own[_STILL] = np.where(same, run + 1, 0)
        rules = self._channels.rules
        long = same & (own[_STILL] >= np.maximum(_STUCK_LEAST, 1.5 * own[_LONGEST]))
        long |= same & (own[_IS_STUCK] > 0)
        if long.any():
            at = np.flatnonzero(long)
            rule = part.rule[at]
            its, beside = own[:, at], part.beside[:, at]
            exempt = (x[at] <= rules.exempt_low[rule]) | (x[at] >= rules.exempt_high[rule])
            edge = np.abs(x[at] - its[_MEAN]) > 1.0 * part.spread[at]
            calm = (beside[_COMMON_ACT] < 0.35) | (np.isnan(beside[_COMMON_ACT]) & edge)  # noqa: PLR2004
            rare = -its[_STILL] * np.log10(np.clip(its[_STAY], 1e-3, 1 - 1e-9)) > _STUCK_DECADES
            sure = self._stirs[rule] & ~exempt & ~calm & rare & ~part.young[at] & (part.usual_step[at] > 0)
            sure &= (x[at] != 0) | (its[_ZEROS] < 0.02)  # noqa: PLR2004
            sure |= its[_IS_STUCK] > 0
            for place in np.flatnonzero(sure & (its[_IS_STUCK] == 0)).tolist():
                since = part.time[at[place]] - its[_STILL, place] * its[_INTERVAL, place]
                part.say(int(at[place]), since, What.STUCK, 0.95, ("flat_line", "longest"))
            own[_IS_STUCK, at[sure]] = 1
            part.fault[at[sure]] = What.STUCK
        own[_IS_STUCK] *= same

    def _judge_noise(self, part: "_Part") -> None:
        """Noise: steps are many times as large as usual, to and fro, and nowhere else."""
        own, beside = part.own, part.beside
        with np.errstate(invalid="ignore", divide="ignore"):
            active = np.where(part.usual_step > 0, own[_ACT] / part.usual_step, 0)
        # where no change is too fast, bursts are the quantity's own
        most = np.where(np.isfinite(self._channels.rules.step[part.rule]), _NOISE_MAX, _NOISE_MAX_FREE)
        loud = active > np.maximum(_NOISE_ACT, most * own[_ACT_MAX])
        own[_LOUD] = np.where(loud & (own[_TURNS] > 0.45), own[_LOUD] + 1, np.maximum(own[_LOUD] - 1, 0))  # noqa: PLR2004
        own[_LOUD] = np.minimum(own[_LOUD], 12)
        call = (own[_LOUD] >= _NOISE_LAST) & (own[_TURNS] > _NOISE_TURNS) & ~part.young & loud
        call &= ~(beside[_COMMON_ACT] > 0.35 * active)
        new = call & (own[_IS_NOISE] == 0)
        for place in np.flatnonzero(new).tolist():
            alone = bool(np.isfinite(beside[_COMMON_ACT, place]))
            if self._busy_company(part, place) or not (alone or active[place] > 2 * _NOISE_ACT):
                continue
            own[_IS_NOISE, place] = 1
            since = part.time[place] - 8 * own[_INTERVAL, place]
            part.say(place, since, What.NOISE, 0.9, ("activity", "neighbours") if alone else ("activity",))
        ends = (own[_IS_NOISE] > 0) & (active < 0.6 * np.maximum(_NOISE_ACT, _NOISE_MAX * own[_ACT_MAX]))
        own[_IS_NOISE, ends] = 0
        quiet = (own[_IS_NOISE] == 0) & ~part.young
        kept = own[_ACT_MAX] * (1 - 1 / 4000)
        # learnt slowly, so that a fault that begins is not its own measure
        slow = np.where(active > own[_ACT_MAX], 0.04 * (active - own[_ACT_MAX]), 0)
        own[_ACT_MAX] = np.where(quiet, kept + slow, own[_ACT_MAX])
        noisy = own[_IS_NOISE] > 0
        part.fault[noisy & (part.fault == 0)] = What.NOISE

    def _busy_company(self, part: "_Part", place: int) -> bool:
        """Whether the other quantities of the sensor are unquiet, too."""
        channel = int(part.channel[place])
        sensor = self._channels.sensors[self._channels.owner[channel]]
        others = slice(sensor.base, sensor.base + len(sensor.home.names))
        act, step = self._state[_ACT, others].copy(), self._state[_STEP, others]
        if sensor.base <= channel < others.stop:
            act[channel - sensor.base] = 0
        moving = step > 0
        busy = (act[moving] > 2.2 * step[moving]).sum()
        return bool(busy >= max(1, 0.34 * (moving.sum() - 1)))

    # -- neighbours ----------------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """What the same quantity does at the other sensors, and how far each channel is from that."""
        count, own = self._count, self._state
        beside = self._beside.copy()  # the old one is what undo goes back to
        moment = self._clock * _MINUTE
        with np.errstate(invalid="ignore", divide="ignore"):
            level = (own[_LAST, :count] - own[_MEAN, :count]) / np.sqrt(own[_VAR, :count])
            active = own[_ACT, :count] / own[_STEP, :count]
        interval = np.maximum(own[_INTERVAL, :count], _MINUTE)
        fresh = (moment - own[_TIME, :count] < np.maximum(3 * interval, _MINUTE)) & (own[_COUNT, :count] >= _LEARNING)
        fresh &= np.isfinite(level) & np.isfinite(active)
        jumped = moment - own[_JUMPED, :count] <= np.maximum(4 * _HOUR, 4 * interval)
        places = np.flatnonzero(fresh)
        group = self._channels.rule[places]
        beside[:3, :count] = np.nan
        if len(places):
            beside[_COMMON, places] = _middle_of_others(group, level[places])
            beside[_COMMON_ACT, places] = _middle_of_others(group, active[places])
            many, which = np.bincount(group), jumped[places]
            others = many[group] - 1
            with np.errstate(invalid="ignore", divide="ignore"):
                share = (np.bincount(group, which)[group] - which) / others
            beside[_COMMON_JUMP, places] = share
        new = fresh & (own[_TIME, :count] > beside[_SEEN, :count]) & ~np.isnan(beside[_COMMON, :count])
        places = np.flatnonzero(new)
        if len(places):
            its = beside[:, places]
            apart = level[places] - its[_COMMON]
            its[_D_COUNT] += 1
            weight = np.maximum(1 / its[_D_COUNT], 0.4)
            its[_D] += weight * (apart - its[_D])
            span = np.clip(14 * 24 * _HOUR / interval[places], 100, 4000)
            weight = np.maximum(1 / its[_D_COUNT], 1 / span)
            off = its[_D] - its[_D_BASE]
            cap = np.where(its[_D_COUNT] > _LEARNING, 3 * its[_D_WANDER], np.inf)
            held = own[_AGE, places] > 0
            weight[held & (its[_D_COUNT] > _LEARNING)] *= 0.1
            its[_D_BASE] += weight * np.clip(off, -cap, cap)
            its[_D_WANDER] += weight * (np.minimum(np.abs(off), cap) - its[_D_WANDER])
            its[_SEEN] = own[_TIME, places]
            beside[:, places] = its
        self._beside = beside


def _reasons(what: What, strength: float, *, witnessed: bool) -> tuple[str, ...]:
    shape = {What.SPIKE: "returned", What.DROPOUT: "zero", What.UNIT: "unit"}.get(what, "stays")
    return (shape, *["too_fast"] * bool(strength > 1), *["neighbours"] * bool(witnessed))


def _middle_of_others(group: Indices, value: Floats) -> Floats:
    """For each value, the median of the others of its group; NaN if there are none."""
    order = np.lexsort((value, group))
    sorted_group, sorted_value = group[order], value[order]
    new = np.append(True, sorted_group[1:] != sorted_group[:-1])
    heads = np.flatnonzero(new)
    sizes = np.diff(np.append(heads, len(value)))
    run = np.cumsum(new) - 1
    head, others = heads[run], sizes[run] - 1
    rank = np.arange(len(value)) - head
    result = np.full(len(value), np.nan)
    some = others > 0
    low, high = (others - 1) // 2, others // 2
    low, high = low + (low >= rank), high + (high >= rank)
    middle = (sorted_value[(head + low)[some]] + sorted_value[(head + high)[some]]) / 2
    result[order[some]] = middle
    return result
