"""Inspect: a QARTOD flag and its reasons for every value, as array operations over a batch.

The tests are those of the QARTOD manuals (gross range, operator range, rate of change, flat line, time). The worst
answer is the flag. An over-limit value with a good flag is an *event*, never a fault.

The values of a batch are put in order of their channels: those of one channel are a *run*, in the order in which they
came. What each value is compared with is then found by running maxima over the runs, without a loop over values.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

import numpy as np

from gateway.edge.readings import (
    FAIL,
    GOOD,
    MISSING,
    REPEATED,
    SUSPECT,
    Bytes,
    Channels,
    Flags,
    Floats,
    Indices,
    Ints,
    Readings,
    Rules,
    widened,
)
from sensors.kinds import SEVERITIES

_CALM_READINGS = 3  # readings below an event's limit that end it, so that noise around a limit is one event
_NEVER = np.iinfo(np.int64).min // 2


class Reason(IntFlag):
    """Why a value is not good; stored as names joined by ``+``."""

    NO_TIME = 1  # the payload had no time: time of arrival
    FUTURE = 2  # further ahead of the gateway's clock than is believed
    MISSING = 4  # the sensor says that it has no value
    GROSS_RANGE = 8  # outside what the sensor can measure
    SUSPECT_RANGE = 16  # outside what is plausible here
    RATE_OF_CHANGE = 32  # faster than the quantity can change
    FLAT_LINE = 64  # has not moved for too long
    OUT_OF_ORDER = 128  # older than the channel's last reading; tests over time are skipped
    DUPLICATE_TIME = 256  # another value for a time that already has one
    CLOCK = 512  # the gateway did not know the time either: its arrival is an estimate
    PAST = 1024  # before the earliest time that is believed


def reason_text(bits: int) -> str:
    """Names of the reasons, such as ``gross_range+flat_line``."""
    return "+".join(reason.name.lower() for reason in Reason if bits & reason and reason.name)


@dataclass(frozen=True, slots=True)
class Event:
    """A good value beyond a limit, or its end.

    Attributes:
        channel: Channel number.
        time: Observed, ms UTC.
        since: When the event began, ms UTC; with the channel, its identity.
        severity: A colour, or ``none`` when the event ends.
        value: In the quantity's unit.
        limit: The limit that was passed; of the mildest severity when the event ends.
    """

    channel: int
    time: int
    since: int
    severity: str
    value: float
    limit: float


class _Runs:
    """The values of a batch in order of their channels: n values in r runs, each of one channel.

    Attributes:
        order: int64[n], where each value is in the batch.
        run: int64[n], the run of each.
        head: int64[n], where its run begins.
        heads, tails: int64[r], where each run begins and ends.
        channel: int64[r].
    """

    def __init__(self, channel: Ints) -> None:
        # a sort of numbers that hold channel and place is twice as fast as a stable sort of channels
        packed = np.sort(channel * len(channel) + np.arange(len(channel)))
        sorted_channel = packed // len(channel)
        self.order: Ints = packed - sorted_channel * len(channel)
        new = np.empty(len(channel), bool)
        new[0] = True
        np.not_equal(sorted_channel[1:], sorted_channel[:-1], out=new[1:])
        self.run: Ints = np.cumsum(new) - 1
        self.heads: Ints = np.flatnonzero(new)
        self.head: Ints = self.heads[self.run]
        self.tails: Ints = np.append(self.heads[1:], len(channel)) - 1
        self.channel: Ints = sorted_channel[self.heads]

    def latest(self, which: Flags) -> Ints:
        """int64[n]: place of the latest of some values, up to and with each; less than ``head`` if there is none."""
        return np.maximum.accumulate(np.where(which, np.arange(len(which)), -1))

    def rising(self, time: Ints) -> bool:
        """Whether the times of every run rise."""
        rises = time[1:] > time[:-1]
        rises[self.heads[1:] - 1] = True
        return bool(rises.all())

    def highest_before(self, time: Ints, which: Flags) -> Flags:
        """bool[n]: whether each time is later than those of some values before it in its run."""
        ranks = np.unique(time, return_inverse=True)[1] + 1
        offset = self.run * (len(time) + 1)  # puts each run above those before it
        highest = np.maximum.accumulate(offset + np.where(which, ranks, 0))
        before = np.append(0, highest[:-1])
        later: Flags = offset + ranks > np.maximum(before, offset)
        return later


class _Course(NamedTuple):
    """How far an event has come."""

    level: int  # 0 none, 1 blue … 4 red
    calm: int  # readings in a row that were below the level
    since: int  # ms UTC


class Inspector:
    """The on-device filter; keeps the state of every channel.

    Args:
        channels: The channels and their rules.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._count = 0  # channels that have a state
        self._last_time: Ints = np.empty(0, np.int64)
        self._last_value: Floats = np.empty(0)
        self._still_since: Ints = np.empty(0, np.int64)
        self._still_value: Floats = np.empty(0)
        self._level: Bytes = np.empty(0, np.uint8)  # of the running event, and how calm it is
        self._calm: Bytes = np.empty(0, np.uint8)
        self._since: dict[int, int] = {}  # when it began
        self._undo: Callable[[], None] = lambda: None

    def inspect(self, readings: Readings) -> list[Event]:  # noqa: PLR0915 - the tests, one after another
        """Flags every value in place. Nothing is changed when it raises.

        Returns:
            Events that began, changed in severity, or ended.
        """
        self._undo = lambda: None
        if not len(readings.channel):
            return []
        self._make_room()
        rules, runs = self._channels.rules, _Runs(readings.channel)
        rule, time = readings.rule[runs.order], readings.time[runs.order]
        value, reason = readings.value[runs.order], readings.reason[runs.order]
        last_time, last_value = self._last_time[runs.channel], self._last_value[runs.channel]
        still_since, still_value = self._still_since[runs.channel], self._still_value[runs.channel]

        missing = np.isnan(value)
        gross = (value < rules.fail_low[rule]) | (value > rules.fail_high[rule])
        unlikely = (value < rules.suspect_low[rule]) | (value > rules.suspect_high[rule])

        # a clock far ahead must not make everything after it look late; a broken value is no reference for the next
        sound = ~(missing | gross | ((reason & Reason.FUTURE.value) != 0))
        newer = time > last_time[runs.run]
        if not runs.rising(time):
            newer &= runs.highest_before(time, sound & newer)
        kept = sound & newer
        latest = runs.latest(kept)
        before = np.append(-1, latest[:-1])
        within = before >= runs.head
        time_before = np.where(within, time[before], last_time[runs.run])
        value_before = np.where(within, value[before], last_value[runs.run])
        newer &= ~missing

        with np.errstate(over="ignore"):
            change = np.abs(value - value_before)
        change = np.where(rules.direction[rule], np.minimum(change, 360 - change), change)
        minutes = np.maximum(time - time_before, 60_000) / 60_000  # a step is allowed once, however soon it comes
        jump = newer & (change > rules.step[rule] * minutes)

        moved = newer & (value != value_before)
        tolerance = rules.tolerance[rule]
        if rules.tolerates:
            self._tolerate(runs, moved, newer & (tolerance > 0), kept, value, tolerance, still_value)
        latest_move = runs.latest(moved & kept)
        since = np.where(latest_move >= runs.head, time[latest_move], still_since[runs.run])
        since = np.where(moved, time, since)
        stirring = (value <= rules.exempt_low[rule]) | (value >= rules.exempt_high[rule])
        still = np.where(newer & ~stirring, time - since, 0)

        same_time = time == time_before
        same_value = value == value_before
        reason |= missing * np.int16(Reason.MISSING.value)
        reason |= gross * np.int16(Reason.GROSS_RANGE.value)
        reason |= unlikely * np.int16(Reason.SUSPECT_RANGE.value)
        reason |= jump * np.int16(Reason.RATE_OF_CHANGE.value)
        reason |= (still >= rules.flat_suspect[rule]) * np.int16(Reason.FLAT_LINE.value)
        reason |= (time < time_before) * np.int16(Reason.OUT_OF_ORDER.value)
        reason |= (same_time & ~same_value) * np.int16(Reason.DUPLICATE_TIME.value)
        flag = rules.unjudged[rule]
        flag[(reason & ~Reason.OUT_OF_ORDER.value) != 0] = SUSPECT
        flag[gross | (still >= rules.flat_fail[rule]) | (same_time & ~same_value)] = FAIL
        flag[missing] = MISSING
        flag[same_time & same_value] = REPEATED
        events, courses = self._watch(runs, rule, time, value, newer & (flag == GOOD))

        readings.flag[runs.order], readings.reason[runs.order] = flag, reason
        self._undo = self._restorer(runs.channel, last_time, last_value, still_since, still_value, courses)
        end = latest[runs.tails]
        ever = end >= runs.heads
        self._last_time[runs.channel] = np.where(ever, time[end], last_time)
        self._last_value[runs.channel] = np.where(ever, value[end], last_value)
        end = latest_move[runs.tails]
        ever = end >= runs.heads
        self._still_since[runs.channel] = np.where(ever, time[end], still_since)
        self._still_value[runs.channel] = np.where(ever, value[end], still_value)
        for channel, course in courses.items():
            self._level[channel], self._calm[channel] = course.level, course.calm
            self._since[channel] = course.since
            if not course.level:
                del self._since[channel]
        return events

    def undo(self) -> None:
        """Takes the last batch back, as if it had never been inspected."""
        self._undo()
        self._undo = lambda: None

    def _restorer(  # noqa: PLR0913, PLR0917 - columns
        self,
        channel: Ints,
        last_time: Ints,
        last_value: Floats,
        still_since: Ints,
        still_value: Floats,
        courses: Iterable[int],
    ) -> Callable[[], None]:
        events = {number: (self._level[number], self._calm[number], self._since.get(number)) for number in courses}

        def restore() -> None:
            self._last_time[channel], self._last_value[channel] = last_time, last_value
            self._still_since[channel], self._still_value[channel] = still_since, still_value
            for number, (level, calm, since) in events.items():
                self._level[number], self._calm[number] = level, calm
                self._since.pop(number, None)
                if since is not None:
                    self._since[number] = since

        return restore

    def _watch(
        self, runs: _Runs, rule: Indices, time: Ints, value: Floats, good: Flags
    ) -> tuple[list[Event], dict[int, _Course]]:
        """Raises, changes and ends events; only good values count."""
        rules = self._channels.rules
        level, calm = self._level[runs.channel], self._calm[runs.channel]
        beyond = (value >= rules.mildest_above[rule]) | (value <= rules.mildest_below[rule])
        places = np.flatnonzero(good & (beyond | (level[runs.run] > 0)))
        run = runs.run[places]
        unsettled = (_levels(rules, rule[places], value[places]) != level[run]) | (calm[run] > 0)
        events: list[Event] = []
        courses: dict[int, _Course] = {}
        if not unsettled.any():
            return events, courses
        places = np.flatnonzero(good & np.isin(runs.run, run[unsettled]))
        levels = _levels(rules, rule[places], value[places])
        for place, now in zip(places.tolist(), levels.tolist(), strict=True):
            number = int(runs.run[place])
            channel, when, sent = int(runs.channel[number]), int(time[place]), float(value[place])
            if (course := courses.get(channel)) is None:
                course = _Course(int(level[number]), int(calm[number]), self._since.get(channel, 0))
            calm_now = course.calm + 1 if now < course.level else 0
            if now <= course.level and calm_now < _CALM_READINGS:
                courses[channel] = course._replace(calm=calm_now)
                continue
            courses[channel] = _Course(now, 0, course.since if course.level else when)
            severity = SEVERITIES[now - 1] if now else "none"
            limit = _limit(rules, int(rule[place]), now, sent)
            events.append(Event(channel, when, courses[channel].since, severity, sent, limit))
        return events, courses

    @staticmethod
    def _tolerate(  # noqa: PLR0913, PLR0917 - columns
        runs: _Runs, moved: Flags, tolerant: Flags, kept: Flags, value: Floats, tolerance: Floats, still_value: Floats
    ) -> None:
        """Takes back moves within a tolerance. Each is measured from the last move, so one after another."""
        anchors: dict[int, float] = {}
        for place in np.flatnonzero(tolerant).tolist():
            run, now = int(runs.run[place]), float(value[place])
            anchor = anchors.get(run, float(still_value[run]))
            moved[place] = not abs(now - anchor) <= tolerance[place]
            if moved[place] and kept[place]:
                anchors[run] = now

    def _make_room(self) -> None:
        before, self._count = self._count, len(self._channels)
        if before == self._count:
            return
        for name, fill in (
            ("_last_time", _NEVER),
            ("_last_value", np.nan),
            ("_still_since", 0),
            ("_still_value", np.nan),
            ("_level", 0),
            ("_calm", 0),
        ):
            state = getattr(self, name)
            if len(state) < self._count:
                state = widened(state, self._count)
                setattr(self, name, state)
            state[before : self._count] = fill


def _levels(rules: Rules, rule: Indices, value: Floats) -> Ints:
    """The gravest severity that each value reaches: 0 none, 1 blue … 4 red."""
    reached = (value[:, None] >= rules.above[rule]) | (value[:, None] <= rules.below[rule])
    return np.where(reached.any(1), len(SEVERITIES) - np.argmax(reached[:, ::-1], 1), 0)


def _limit(rules: Rules, rule: int, level: int, value: float) -> float:
    above, below = rules.above[rule], rules.below[rule]
    if level:
        return float(above[level - 1] if value >= above[level - 1] else below[level - 1])
    declared = [*above[np.isfinite(above)], *below[np.isfinite(below)]]
    return float(declared[0])
