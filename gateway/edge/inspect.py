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

from gateway.edge.attenuation import Attenuation
from gateway.edge.climatology import Climatology
from gateway.edge.detect import Detector
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
from gateway.edge.runs import Chain, Runs
from gateway.edge.together import Diagnostics, contradictions
from sensors.kinds import SEVERITIES

_CALM_READINGS = 3  # readings below an event's limit that end it, so that noise around a limit is one event
_NEVER = np.iinfo(np.int64).min // 2
_STATE = {
    "_last_time": _NEVER,
    "_last_value": np.nan,
    "_value_before": np.nan,
    "_still_since": 0,
    "_still_value": np.nan,
}
"""Columns of the state and what a new channel has; the last three are NaN or of no matter until a value came."""

Commit = Callable[[], Callable[[], None]]
"""Commits a test's new state; returns what takes it back."""


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
    SPIKE = 2048  # far from both values before
    ATTENUATED = 4096  # the range of a window is too small
    CLIMATOLOGY = 8192  # not usual at this month and hour
    GAP = 16384  # the first after a gap: no more than a remark
    CONTRADICTION = 32768  # quantities of the message contradict each other
    DIAGNOSTICS = 65536  # the sensor says that it is not well
    UNUSUAL = 131072  # surprising to the channel itself; see `gateway.edge.detect`


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


class _Course(NamedTuple):
    """How far an event has come."""

    level: int  # 0 none, 1 blue … 4 red
    calm: int  # readings in a row that were below the level
    since: int  # ms UTC


_REMARKS = int(Reason.OUT_OF_ORDER | Reason.GAP)  # say nothing against a value
_UNWELL = int(Reason.DIAGNOSTICS)


class Inspector:
    """The on-device filter; keeps the state of every channel.

    Args:
        channels: The channels and their rules.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._rules: Rules | None = None
        self._count = 0  # channels that have a state
        self._last_time: Ints = np.empty(0, np.int64)
        self._last_value: Floats = np.empty(0)
        self._value_before: Floats = np.empty(0)  # the last one; NaN if there is a gap between them
        self._still_since: Ints = np.empty(0, np.int64)
        self._still_value: Floats = np.empty(0)
        self._level: Bytes = np.empty(0, np.uint8)  # of the running event, and how calm it is
        self._calm: Bytes = np.empty(0, np.uint8)
        self._since: dict[int, int] = {}  # when it began
        self._attenuation = Attenuation()
        self._diagnostics = Diagnostics(channels)
        self._detector = Detector()
        self._undo: Callable[[], None] = lambda: None

    def inspect(self, readings: Readings) -> list[Event]:  # noqa: C901, PLR0915 - the tests, one after another
        """Flags every value in place. Nothing is changed when it raises.

        Returns:
            Events that began, changed in severity, or ended.
        """
        self._undo = lambda: None
        if not len(readings.channel):
            return []
        self._make_ready()
        rules, runs = self._channels.rules, Runs(readings.channel, single=len(readings.sensors) == 1)
        rule = readings.rule[runs.order].astype(np.int64)  # by such numbers arrays are indexed without converting them
        time, value = readings.time[runs.order], readings.value[runs.order]
        marks = _Marks(readings.reason[runs.order].copy())
        columns = [getattr(self, name) for name in _STATE]
        last_time, last_value, value_before_last, still_since, still_value = state = [
            column[runs.channel] for column in columns
        ]

        missing = np.isnan(value)
        gross = (value < rules.fail_low[rule]) | (value > rules.fail_high[rule])
        marks.set(missing, Reason.MISSING)
        marks.set(gross, Reason.GROSS_RANGE)
        marks.set((value < rules.suspect_low[rule]) | (value > rules.suspect_high[rule]), Reason.SUSPECT_RANGE)

        # a clock far ahead must not make everything after it look late; a broken value is no reference for the next
        ill = missing | gross
        sound = ~(ill | marks.have(Reason.FUTURE))
        newer = time > runs.spread(last_time)
        if not runs.rising(time):
            newer &= runs.highest_before(time, sound & newer)
        kept = sound & newer
        chain = Chain(runs, kept)
        time_before, value_before = chain.before(time, last_time), chain.before(value, last_value)
        newer &= ~missing

        elapsed = time - time_before
        gap = newer & (elapsed > rules.gap[rule]) & (time_before != _NEVER)
        marks.set(gap, Reason.GAP)
        with np.errstate(over="ignore"):
            change = np.abs(value - value_before)
        if rules.turns:
            change = np.where(rules.direction[rule], np.minimum(change, 360 - change), change)
        minutes = np.maximum(elapsed, 60_000) / 60_000  # a step is allowed once, however soon it comes
        marks.set(newer & (change > rules.step[rule] * minutes), Reason.RATE_OF_CHANGE)
        recent = np.where(gap, np.nan, value_before)
        places = (newer & (change > rules.unspiky[rule])).nonzero()[0]
        if len(places):
            two_before = chain.before(recent, value_before_last)
            marks.add(_spikes(rules, rule, value, recent, two_before, places), Reason.SPIKE)

        moved = newer & (value != value_before)
        if rules.tolerates:
            tolerance = rules.tolerance[rule]
            self._tolerate(runs, moved, newer & (tolerance > 0), kept, value, tolerance, still_value)
        moves = Chain(runs, moved & kept)
        since = np.where(moved, time, moves.up_to(time, still_since))
        unmoved = np.where(newer, time - since, 0)
        stirring = (value <= rules.exempt_low[rule]) | (value >= rules.exempt_high[rule])
        still = np.where(stirring, 0, unmoved)
        marks.set(still >= rules.flat_suspect[rule], Reason.FLAT_LINE)
        failed = gross | (still >= rules.flat_fail[rule])

        commits = []
        if self._attenuation.any:
            places, weak, dead, commit = self._attenuation.judge(runs, rule, time, value, kept)
            marks.add(places[weak | dead], Reason.ATTENUATED)
            failed[places[dead]] = True
            commits.append(commit)
        if self._climatology.any:
            unusual, wrong = self._climatology.judge(rule, time, value)
            marks.set(unusual | wrong, Reason.CLIMATOLOGY)
            failed |= wrong
        if (contradicting := contradictions(readings, runs, ill, unmoved)) is not None:
            marks.set(contradicting, Reason.CONTRADICTION)
        unwell, commit = self._diagnostics.judge(readings)
        if unwell is not None:
            marks.set(unwell[runs.order] & ~missing, Reason.DIAGNOSTICS)
        commits.append(commit)

        same_time = elapsed == 0
        again = same_time & (value == value_before)
        another = same_time & ~again
        marks.set(elapsed < 0, Reason.OUT_OF_ORDER)
        marks.set(another, Reason.DUPLICATE_TIME)
        flag = rules.unjudged[rule]
        against = marks.bits & ~_REMARKS
        flag[against != 0] = SUSPECT
        flag[failed | another] = FAIL
        flag[missing] = MISSING
        flag[again] = REPEATED
        # a flood is one, though the battery that tells of it is low
        good = flag == GOOD if unwell is None else (flag == GOOD) | ((flag == SUSPECT) & (against == _UNWELL))
        events, courses = self._watch(runs, rule, time, value, newer & good)

        # the last step that can fail, for it learns at once; what is unusual may well be an event
        places = self._unusual(runs, rule, time, value, kept & (flag != FAIL))
        marks.add(places, Reason.UNUSUAL)
        flag[places] = SUSPECT
        readings.flag[runs.order], readings.reason[runs.order] = flag, marks.bits
        self._undo = self._restorer(runs.channel, state, courses, commits)
        for column, ends in zip(
            columns,
            (
                chain.last(time, last_time),
                chain.last(value, last_value),
                chain.last(recent, value_before_last),
                moves.last(time, still_since),
                moves.last(value, still_value),
            ),
            strict=True,
        ):
            column[runs.channel] = ends
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

    def _restorer(
        self, channel: Ints, state: Iterable[Ints | Floats], courses: Iterable[int], commits: Iterable[Commit]
    ) -> Callable[[], None]:
        """Commits the state of the tests that keep their own, and says how to restore all that a batch changes."""
        events = {number: (self._level[number], self._calm[number], self._since.get(number)) for number in courses}
        others = [commit() for commit in commits] + [self._detector.undo]

        def restore() -> None:
            for name, values in zip(_STATE, state, strict=True):
                getattr(self, name)[channel] = values
            for number, (level, calm, since) in events.items():
                self._level[number], self._calm[number] = level, calm
                self._since.pop(number, None)
                if since is not None:
                    self._since[number] = since
            for other in others:
                other()

        return restore

    def _unusual(self, runs: Runs, rule: Ints, time: Ints, value: Floats, judged: Flags) -> Ints:
        """Places of the values at which the adaptive detector raises an alarm; it learns from all that are judged."""
        sensitivity = self._channels.rules.sensitivity[rule]
        places = (judged & (sensitivity > 0)).nonzero()[0]
        self._detector.begin()
        alarms = []
        try:
            for some in runs.rounds(places):
                found = self._detector.score(
                    runs.channel[runs.of(some)], time[some], value[some], sensitivity[some]
                ).alarm
                if found.any():
                    alarms.append(some[found])
        except Exception:
            self._detector.undo()
            raise
        return np.concatenate(alarms) if alarms else places[:0]

    def _watch(
        self, runs: Runs, rule: Ints, time: Ints, value: Floats, good: Flags
    ) -> tuple[list[Event], dict[int, _Course]]:
        """Raises, changes and ends events; only good values count."""
        rules = self._channels.rules
        level, calm = self._level[runs.channel], self._calm[runs.channel]
        beyond = (value >= rules.mildest_above[rule]) | (value <= rules.mildest_below[rule])
        places = np.flatnonzero(good & (beyond | (runs.spread(level) > 0)))
        events: list[Event] = []
        courses: dict[int, _Course] = {}
        if not len(places):
            return events, courses
        run = runs.of(places)
        unsettled = (_levels(rules, rule[places], value[places]) != level[run]) | (calm[run] > 0)
        if not unsettled.any():
            return events, courses
        places = places[unsettled] if runs.alone else np.flatnonzero(good & np.isin(runs.run, run[unsettled]))
        levels = _levels(rules, rule[places], value[places])
        for place, now in zip(places.tolist(), levels.tolist(), strict=True):
            number = place if runs.alone else int(runs.run[place])
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
        runs: Runs, moved: Flags, tolerant: Flags, kept: Flags, value: Floats, tolerance: Floats, still_value: Floats
    ) -> None:
        """Takes back moves within a tolerance. Each is measured from the last move, so one after another."""
        anchors: dict[int, float] = {}
        for place in np.flatnonzero(tolerant).tolist():
            run, now = place if runs.alone else int(runs.run[place]), float(value[place])
            anchor = anchors.get(run, float(still_value[run]))
            moved[place] = not abs(now - anchor) <= tolerance[place]
            if moved[place] and kept[place]:
                anchors[run] = now

    def _make_ready(self) -> None:
        """Takes new rules, and gives new channels a state."""
        if self._rules is not self._channels.rules:
            self._rules = self._channels.rules
            self._attenuation.set_rules(self._rules.attenuation)
            self._climatology = Climatology(self._rules.climatology)
        before, self._count = self._count, len(self._channels)
        if before == self._count:
            return
        for name, fill in {**_STATE, "_level": 0, "_calm": 0}.items():
            state = getattr(self, name)
            if len(state) < self._count:
                state = widened(state, self._count)
                setattr(self, name, state)
            state[before : self._count] = fill


class _Marks:
    """Reasons of the values, as they are found."""

    def __init__(self, bits: Indices) -> None:
        self.bits = bits

    def set(self, which: Flags, reason: Reason) -> None:
        """Adds a reason to some values."""
        if np.count_nonzero(which):  # several times faster than any() where there are few values
            self.bits |= which * np.int32(reason)

    def add(self, places: Ints, reason: Reason) -> None:
        """Adds a reason to the values at some places."""
        self.bits[places] |= int(reason)

    def have(self, reason: Reason) -> Flags:
        """Which values have a reason."""
        having: Flags = (self.bits & int(reason)) != 0
        return having


def _spikes(  # noqa: PLR0913, PLR0917 - columns
    rules: Rules, rule: Ints, value: Floats, before: Floats, two_before: Floats, places: Ints
) -> Ints:
    """Those places whose values are far from the two before them."""
    rule, value, before, two_before = rule[places], value[places], before[places], two_before[places]
    with np.errstate(over="ignore", invalid="ignore"):
        near, far = value - before, value - two_before
        beyond = np.where(near * far > 0, np.minimum(np.abs(near), np.abs(far)), 0)
        beyond = np.where(rules.averages[rule], np.abs(value - (before + two_before) / 2), beyond)
        return places[beyond > rules.spike[rule]]


def _levels(rules: Rules, rule: Ints, value: Floats) -> Ints:
    """The gravest severity that each value reaches: 0 none, 1 blue … 4 red."""
    reached = (value[:, None] >= rules.above[rule]) | (value[:, None] <= rules.below[rule])
    return np.where(reached.any(1), len(SEVERITIES) - np.argmax(reached[:, ::-1], 1), 0)


def _limit(rules: Rules, rule: int, level: int, value: float) -> float:
    above, below = rules.above[rule], rules.below[rule]
    if level:
        return float(above[level - 1] if value >= above[level - 1] else below[level - 1])
    declared = [*above[np.isfinite(above)], *below[np.isfinite(below)]]
    return float(declared[0])
