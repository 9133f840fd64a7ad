"""Verdict: whether what is unusual in a channel is a fault of its sensor, an event, or not to be told.

Each fault has a test of its own (`gateway.edge.faults`). What they share is kept here: level, spread and steps of each
channel over its last two weeks, its last 64 readings, and what the same quantity does at the gateway's other sensors,
its *neighbours*, as they were at most five minutes before.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gateway.edge.faults import look as known
from gateway.edge.faults.look import LEARNING, OWN, History, Keeping, Look, Test, Verdict
from gateway.edge.readings import FAIL, REPEATED, Channels, Flags, Floats, Ints, Readings, Rules
from gateway.edge.reasons import Reason

_HOUR = 3_600_000.0
_MINUTE = 60_000
_NEVER = -1e15  # ms; before any reading
_NO_READING = int(Reason.MISSING | Reason.OUT_OF_ORDER | Reason.DUPLICATE_TIME | Reason.FUTURE | Reason.GROSS_RANGE)
_LATEST = 12  # readings over which activity is taken
_MEMORY = 14 * 24 * _HOUR  # ms, and in readings:
_SHORTEST, _LONGEST = 100, 4000
_APART = 5  # minutes between two looks at the neighbours
_AT_ONCE = 4096  # values that are judged together at most
_FAR = 64.0  # a level beyond is taken as this
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
        self._clock = -(2**40)  # the minute as of which neighbours are known
        self._minute = self._clock  # the latest of which readings have come
        self._collected: list[tuple[Ints, Ints, Floats]] = []  # channel, time, value
        self._collecting = 0
        self._group = np.zeros(0, np.int64)  # the same number for the same quantity of the same kind
        self._groups_known: dict[tuple[str, str], int] = {}

    def judge(self, readings: Readings) -> list[Verdict]:
        """Fails what is part of a fault that lasts, and judges the readings of the minutes before.

        Readings are judged a minute at a time, in the order in which they came, once a reading of a later minute has
        come: so it costs little however few come together, and how they come in batches changes nothing.

        Args:
            readings: Inspected readings; flags and reasons are changed in place.
        """
        verdicts: list[Verdict] = []
        if not len(readings.channel):
            return verdicts
        self._make_ready()
        ahead = (readings.reason[readings.starts] & int(Reason.FUTURE)) != 0
        minutes = np.maximum.accumulate(np.where(ahead, self._minute, readings.times // _MINUTE)).tolist()
        ends = [*readings.starts[1:].tolist(), len(readings.channel)]
        first, last = 0, len(minutes) - 1
        for row, (minute, end) in enumerate(zip(minutes, ends, strict=True)):
            if minute > self._minute:
                verdicts += self.finish()
                self._minute = minute
            full = self._collecting + end - first >= _AT_ONCE
            if full or row == last or minutes[row + 1] > minute:
                self._collect(readings, slice(first, end))
                first = end
            if full:
                verdicts += self.finish()
        return verdicts

    def _collect(self, readings: Readings, part: slice) -> None:
        """Takes readings that are to be judged, and fails those of channels with a fault."""
        channel, rule = readings.channel[part], readings.rule[part]
        flag, reason = readings.flag[part], readings.reason[part]
        good = self._judged[rule] & (flag != REPEATED) & ((reason & _NO_READING) == 0)
        self._collected.append((channel[good], readings.time[part][good], readings.value[part][good]))
        self._collecting += len(channel)
        fault = self._state[known.CALLED, channel]
        failed = (fault > 0) & good
        if failed.any():
            flag[failed] = FAIL
            reason[failed] |= np.left_shift(int(Reason.STUCK), fault[failed].astype(np.int32) - 1)

    def finish(self) -> list[Verdict]:
        """Judges what has been collected."""
        collected, self._collected, self._collecting = self._collected, [], 0
        if not collected:
            return []
        if self._minute >= self._clock + _APART:
            self._clock = self._minute
            self._look_around()
        channel, time, value = (np.concatenate(parts) for parts in zip(*collected, strict=True))
        verdicts: list[Verdict] = []
        for places in _rounds(channel):
            its = channel[places]
            newer = time[places] > self._state[known.TIME, its]
            if newer.any():
                verdicts += self.look(its[newer], time[places][newer], value[places][newer]).verdicts
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
            "values": history.values[channels],
            "elapsed": history.elapsed[channels],
            "commons": history.commons[channels],
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
        for name in ("values", "elapsed", "commons"):
            getattr(self._history, name)[channels] = state[name]
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

    def look(self, channel: Ints, time: Ints, value: Floats) -> Look:
        """Judges one reading of each of some channels, in their order, and learns from it."""
        # all channels of a range: their state is judged where it is, which is far cheaper than to collect it
        here = len(channel) == int(channel[-1]) - int(channel[0]) + 1
        own = self._state[:, channel[0] : channel[-1] + 1] if here else self._state.take(channel, 1)
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
        if not here:
            self._state[:, channel] = own
        return look

    @staticmethod
    def _learn(look: Look, new: Flags) -> None:  # noqa: PLR0915 - one statistic after another
        """Level, spread, steps and activity of each channel, with this reading."""
        own, value, step, size = look.own, look.value, look.step, look.size
        count, elapsed, young, spread = own[known.COUNT], look.elapsed, look.young, look.spread
        usual, rarity = own[known.INTERVAL], look.rarity
        some_young = bool(young.any())
        if some_young:
            usual[:] = np.where(count == 2, elapsed, usual)  # noqa: PLR2004 - an interval takes two
        usual += 0.05 * (np.minimum(elapsed, 3 * usual) - usual)
        weight = np.minimum(np.maximum(usual / _MEMORY, 1 / _LONGEST), 1 / _SHORTEST)
        held = (look.fault > 0) | (count < own[known.HELD])
        learning = np.where(held, 0.05 * weight, weight)
        # what is far out teaches little
        most = np.array((4 * spread, 6 * own[known.STEP], 8 * own[known.STEP]))  # of level, step, activity
        if some_young:
            weight = np.where(young, np.maximum(weight, 1 / count), weight)
            learning = np.where(young, weight, learning)
            most[:, young] = np.inf
        off = np.minimum(np.maximum(value - own[known.MEAN], -most[0]), most[0])
        common = look.beside[known.COMMON]
        paired = np.isfinite(common) & (spread > 0) & ~young
        if paired.any():
            # of the reading before, whose neighbours are known by now
            own[known.PAIRS] += paired
            pair = np.maximum(weight, 1 / np.maximum(own[known.PAIRS], 1)) * (paired & ~held)
            common = np.where(paired, common, 0)
            level = (own[known.LAST] - own[known.MEAN]) / np.where(paired, spread, np.inf)
            common, level = np.minimum(np.maximum((common, level), -4), 4)
            apart = np.abs(level - look.slope * common)
            both = own[known.COMMON_SQUARE : known.APART + 1]
            both += pair * (np.array((common * common, common * level, apart)) - both)
        spreads = own[known.MEAN : known.VARIANCE + 1]
        spreads += learning * np.array((off, off * off - spreads[1]))
        near = ~(look.gap | new)
        learning *= near
        steps = own[known.STEP : known.ZEROS + 1]
        steps += learning * (np.array((np.minimum(size, most[1]), step == 0, value == 0)) - steps)
        # the size of one step in a hundred, and the tail beyond it
        quick, excess = own[known.QUICK], own[known.EXCESS]
        fit = near & ~held
        beyond = fit & (size > quick)
        first = quick == 0 if some_young else np.zeros_like(new)
        pace = np.maximum(0.05 * quick, excess) * (20 / (count + 100) + 0.02)
        at = np.flatnonzero(beyond)
        if len(at):
            more = size[at] - quick[at]
            more = np.where(~young[at] & (excess[at] > 0), np.minimum(more, 10 * excess[at]), more)
            excess[at] += np.where(first[at], 0.5 * size[at], 0.05 * (more - excess[at]))
        quick += pace * (beyond - 0.01 * fit)
        if some_young:
            quick[first] = size[first]
        # activity, and how often steps turn
        sign = np.sign(step)
        turned = sign * own[known.SIGN] < 0
        own[known.SIGN] = np.where(step != 0, sign, own[known.SIGN])
        latest = own[known.ACTIVITY : known.TURNS + 1]
        latest += (2 / (_LATEST + 1)) * near * (np.array((np.minimum(size, most[2]), turned)) - latest)
        jumped = np.flatnonzero((rarity > _RARE) & near & ~young)
        own[known.JUMPED, jumped] = look.time[jumped]
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
        group, of_every, witness = self._groups()[places], self._groups()[every], fresh[every]
        many = np.bincount(group, minlength=int(of_every.max()) + 1)
        others = many[of_every] - witness
        heard = others > 0
        every, of_every, witness, others = every[heard], of_every[heard], witness[heard], others[heard]
        head = (np.cumsum(many) - many)[of_every]
        for row, what in ((known.COMMON, level), (known.COMMON_ACTIVITY, active)):
            own_value = np.where(witness, what[every], np.inf)
            self._beside[row, every] = _middle_of_others(group, what[places], of_every, head, others, own_value)
        hits = np.bincount(group, jumped[places], len(many))
        self._beside[known.COMMON_JUMPS, every] = (hits[of_every] - (jumped[every] & witness)) / others

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


def _rounds(channel: Ints) -> Iterator[Ints]:
    """Places in which no channel comes twice: the first of each, then the second of each, and so on."""
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


def _middle_of_others(  # noqa: PLR0913, PLR0917 - columns
    group: Ints, value: Floats, of: Ints, head: Ints, others: Ints, own: Floats
) -> Floats:
    """For each channel asked for, the median of its group, itself left out.

    Args:
        group: int64[n], of the witnesses.
        value: float64[n], what they say.
        of: int64[m], group of the channels asked for.
        head: int64[m], how many witnesses are of groups before.
        others: int64[m], how many witnesses its group has beside itself; more than 0.
        own: float64[m], what a channel asked for says itself, infinite if it is no witness.
    """
    # sorted as one number each, of group and value, which is far faster than by two keys
    value = np.sort(np.clip(value, -_FAR, _FAR) + group * (4 * _FAR))
    own = np.clip(own, -_FAR, 2 * _FAR) + of * (4 * _FAR)
    low, high = head + (others - 1) // 2, head + others // 2
    # those from its own on are one further on
    sum_of_both = value[low + (own <= value[low])] + value[high + (own <= value[high])]
    return np.asarray(sum_of_both / 2 - of * (4 * _FAR))
