"""Inspect: a QARTOD flag and its reasons for every value, as array operations over a batch.

The tests are those of the QARTOD manuals (gross range, operator range, rate of change, flat line, time, …), and last of
all the adaptive detector. The worst answer is the flag.

The values of a batch are put in order of their channels: those of one channel are a *run*, in the order in which they
came. What each value is compared with is then found by running maxima over the runs, without a loop over values. Few
values are judged one after another (`gateway.edge.inspect_one`), to the same effect.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from gateway.edge.attenuation import Attenuation
from gateway.edge.climatology import Climatology
from gateway.edge.detect import Detector
from gateway.edge.inspect_one import MINUTE, NEVER, Limits, tested
from gateway.edge.readings import (
    FAIL,
    MISSING,
    REPEATED,
    SUSPECT,
    Channels,
    Flags,
    Floats,
    Indices,
    Ints,
    Readings,
    Rules,
)
from gateway.edge.reasons import Reason
from gateway.edge.runs import Chain, Runs, column
from gateway.edge.together import Diagnostics, contradictions, contradictions_of_few

_FEW = 16  # values, from which on array operations cost less than a loop

# Rows of the state, a column a channel: time and value of the last sound value, the value before it (NaN if there is a
# gap between them), since when and where it has not moved.
_ROWS = 5
_NEW = np.array((NEVER, np.nan, np.nan, 0, np.nan))[:, None]

_LATEST = 2.0**53  # ms UTC; beyond it a float cannot tell times apart

_REMARKS = int(Reason.OUT_OF_ORDER | Reason.GAP)  # say nothing against a value
_UNWELL, _UNUSUAL = int(Reason.DIAGNOSTICS), int(Reason.UNUSUAL)
_ATTENUATED, _CLIMATOLOGY, _CONTRADICTION = int(Reason.ATTENUATED), int(Reason.CLIMATOLOGY), int(Reason.CONTRADICTION)

Commit = Callable[[], Callable[[], None]]
"""Commits a test's new state; returns what takes it back."""


class Inspector:
    """The on-device filter; keeps the state of every channel.

    Args:
        channels: The channels and their rules.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._rules: Rules | None = None
        self._limits: dict[int, Limits] = {}
        self._latest: _Limits | None = None
        self._count = 0  # channels that have a state
        self._state = np.empty((_ROWS, 0))
        self._attenuation = Attenuation()
        self._diagnostics = Diagnostics(channels)
        self._detector = Detector()
        self._undo: Callable[[], None] = _nothing

    def inspect(self, readings: Readings) -> None:
        """Flags every value in place. When it raises, nothing is changed but what the detector has learnt."""
        self._undo = _nothing
        if not len(readings.channel):
            return
        self._make_ready()
        if len(readings.channel) <= _FEW and len(few := readings.channel.tolist()) == len(set(few)):
            self._inspect_few(readings, few)
        else:
            self._inspect_many(readings)

    def undo(self) -> None:
        """Takes the last batch back, but for what the detector has learnt: that is learnt once.

        Of a reading that it knows already, the detector says nothing.
        """
        self._undo()
        self._undo = _nothing

    def learning(self, channel: Ints) -> int:
        """How many of some channels the adaptive detector does not know well enough yet to raise an alarm."""
        rules = self._channels.rules
        judged = channel[rules.sensitivity[self._channels.rule[channel]] > 0]
        return int(np.count_nonzero(self._detector.learning(judged)))

    def state(self, channels: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """All that the inspector knows of some channels.

        Returns:
            Copies; the first axis of each is that of the channels.
        """
        self._make_ready()
        return {
            "tests": self._state.T[channels],
            "unwell": self._diagnostics.state(channels),
            **self._attenuation.state(channels),
            **self._detector.state(channels),
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channels: Ints) -> None:
        """Takes up where another inspector left.

        Args:
            state: What that one's ``state`` was.
            channels: int64[k], what the channels are here; each is known, none comes twice.

        Raises:
            ValueError: It is no such state, or has values that cannot be; nothing is changed.
        """
        self._make_ready()
        tests = column(state, "tests", np.float64, len(channels), _ROWS)
        unwell = column(state, "unwell", np.bool_, len(channels))
        if not _possible(tests):
            message = "a saved state with impossible values"
            raise ValueError(message)
        restore_windows = self._attenuation.restorer(state, channels, self._channels.rule[channels], tests[:, 0])
        self._detector.restore(state, channels)
        restore_windows()
        self._state[:, channels] = tests.T
        self._diagnostics.restore(unwell, channels)
        self._undo = _nothing

    def _inspect_many(  # noqa: C901, PLR0912, PLR0915 - the tests, one after another
        self, readings: Readings
    ) -> None:
        # a test first asks whether any value may fail it, for mostly none does, and then it is done
        runs = Runs(readings.channel, single=len(readings.sensors) == 1)
        limits = self._limits_of(readings.rule[runs.order])
        time, value = readings.time[runs.order], readings.value[runs.order]
        moment = time.astype(np.float64)  # as the state has it: to mix whole numbers and others takes twice as long
        marks = _Marks(readings.reason[runs.order].copy())
        state = self._state[:, runs.where].copy() if isinstance(runs.where, slice) else self._state.take(runs.where, 1)
        last_time, last_value, value_before_last, still_since, still_value = state

        missing = gross = wrong = ill = gap = none = np.zeros(len(value), bool)
        if np.count_nonzero(~((value >= limits.lowest) & (value <= limits.highest))):
            missing, gross = np.isnan(value), (value < limits.fail_low) | (value > limits.fail_high)
            marks.set(missing, Reason.MISSING)
            marks.set(gross, Reason.GROSS_RANGE)
            marks.set((value < limits.suspect_low) | (value > limits.suspect_high), Reason.SUSPECT_RANGE)

        # a clock far ahead must not make everything after it look late; a broken value is no reference for the next
        newer, sound = moment > runs.spread(last_time), ~none
        if marks.any():
            wrong = gross | marks.have(Reason.SENDER_BAD)
            ill = missing | wrong
            sound = ~(ill | marks.have(Reason.FUTURE))
            newer &= ~marks.have(Reason.OUT_OF_ORDER)
        if not runs.rising(time):
            newer &= runs.highest_before(time, sound & newer)
        kept = sound & newer
        chain = Chain(runs, kept)
        time_before, value_before = chain.before(moment, last_time), chain.before(value, last_value)
        newer &= ~missing

        elapsed = moment - time_before
        if np.count_nonzero(far := elapsed > limits.gap):
            gap = newer & far & (time_before != NEVER)
            marks.set(gap, Reason.GAP)
        with np.errstate(over="ignore"):
            change = np.abs(value - value_before)
        if limits.turns:
            change = np.where(limits.direction, np.minimum(change, 360 - change), change)
        if len(places := (newer & (change > limits.step)).nonzero()[0]):
            minutes = np.maximum(elapsed[places], MINUTE) / MINUTE
            marks.add(places[change[places] > limits.step[places] * minutes], Reason.RATE_OF_CHANGE)
        recent = value_before if gap is none else np.where(gap, np.nan, value_before)
        if len(places := (newer & (change > limits.unspiky)).nonzero()[0]):
            two_before = chain.before(recent, value_before_last)
            marks.add(_spikes(limits, value, recent, two_before, places), Reason.SPIKE)

        moved = newer & (value != value_before)
        if limits.tolerates:
            tolerant = newer & (limits.tolerance > 0)
            self._tolerate(runs, moved, tolerant, kept, value, limits.tolerance, still_value)
        moves = Chain(runs, moved & kept)
        unmoved, failed = np.zeros(len(value)), wrong.copy()
        if len(places := (newer & ~moved).nonzero()[0]):
            still = unmoved[places] = (moment - moves.up_to(moment, still_since))[places]
            now = value[places]
            still[(now <= limits.exempt_low[places]) | (now >= limits.exempt_high[places])] = 0
            marks.add(places[still >= limits.flat_suspect[places]], Reason.FLAT_LINE)
            failed[places[still >= limits.flat_fail[places]]] = True

        commits = []
        if self._attenuation.any:
            places = limits.attenuated[kept[limits.attenuated]]
            weak, dead, commit = self._attenuation.judge(runs, places, limits.rule, time, value)
            marks.add(places[weak | dead], Reason.ATTENUATED)
            failed[places[dead]] = True
            commits.append(commit)
        if self._climatology.any:
            unusual, too_much = self._climatology.judge(limits.rule, time, value)
            marks.set(unusual | too_much, Reason.CLIMATOLOGY)
            failed |= too_much
        if (contradicting := contradictions(readings, runs, ill, unmoved)) is not None:
            marks.set(contradicting, Reason.CONTRADICTION)
        unwell, commit = self._diagnostics.judge(readings)
        if unwell is not None:
            marks.set(unwell[runs.order] & ~missing, Reason.DIAGNOSTICS)
        commits.append(commit)

        again = none
        if np.count_nonzero(late := elapsed <= 0):
            same_time = elapsed == 0
            again = same_time & (value == value_before)
            another = same_time & ~again
            marks.set(late & ~same_time, Reason.OUT_OF_ORDER)
            marks.set(another, Reason.DUPLICATE_TIME)
            failed |= another
        flag = limits.unjudged.copy()
        if marks.any():
            flag[(marks.bits & ~_REMARKS) != 0] = SUSPECT
        if np.count_nonzero(failed):
            flag[failed] = FAIL
        if missing is not none:
            flag[missing] = MISSING
        if again is not none:
            flag[again] = REPEATED
        # the last step that can fail, for it learns at once, and for good
        places = self._unusual(runs, limits, time, value, kept & (flag != FAIL))
        marks.add(places, Reason.UNUSUAL)
        flag[places] = SUSPECT
        readings.flag[runs.order], readings.reason[runs.order] = flag, marks.bits
        self._undo = partial(self._take_back, runs.where, state.T, [commit() for commit in commits])
        new = self._state
        new[0, runs.where], new[1, runs.where] = chain.last(moment, last_time), chain.last(value, last_value)
        new[2, runs.where] = chain.last(recent, value_before_last)
        new[3, runs.where], new[4, runs.where] = moves.last(moment, still_since), moves.last(value, still_value)

    def _limits_of(self, rule: Indices) -> "_Limits":
        """The limits of some values; often those of the batch before, for the same sensors send in the same order."""
        if self._latest is None or not np.array_equal(self._latest.rule, rule):
            self._latest = _Limits(self._channels.rules, rule)
        return self._latest

    def _inspect_few(  # noqa: C901 - as above
        self, readings: Readings, channels: list[int]
    ) -> None:
        values, times, rules = readings.value.tolist(), readings.time.tolist(), readings.rule.tolist()
        bits = readings.reason.tolist()
        answers, limits, states, failed = [], [], [], []
        commits: list[Commit] = []
        diagnostic = self._diagnostics.any
        for place, (channel, rule) in enumerate(zip(channels, rules, strict=True)):
            its = self._limits.get(rule) or self._read_limits(rule)
            state = self._state[:, channel].tolist()
            answer = tested(its, state, times[place], values[place], bits[place])
            reason, fails, diagnostic = answer.reason, answer.failed, diagnostic or its.diagnostic
            if its.attenuated and answer.kept:
                weak, dead, commit = self._attenuation.judge_one(channel, rule, times[place], values[place])
                reason |= _ATTENUATED * (weak or dead)
                fails = fails or dead
                commits.append(commit)
            if its.climatology:
                unusual, wrong = self._climatology.judge_one(rule, times[place], values[place])
                reason |= _CLIMATOLOGY * (unusual or wrong)
                fails = fails or wrong
            bits[place] = reason
            answers.append(answer)
            limits.append(its)
            states.append(state)
            failed.append(fails)
        for place in contradictions_of_few(readings, answers):
            bits[place] |= _CONTRADICTION
        if diagnostic:
            unwell, commit = self._diagnostics.judge(readings)
            commits.append(commit)
            for place in () if unwell is None else unwell.nonzero()[0].tolist():
                bits[place] |= _UNWELL * (values[place] == values[place])

        flags, after = [], []
        for place, (channel, its, answer) in enumerate(zip(channels, limits, answers, strict=True)):
            time, value = times[place], values[place]
            against = bits[place] & ~_REMARKS
            flag = SUSPECT if against else its.unjudged
            if answer.again:
                flag = REPEATED
            elif value != value:  # noqa: PLR0124 - NaN
                flag = MISSING
            elif failed[place] or answer.another:
                flag = FAIL
            if (
                answer.kept
                and flag != FAIL
                and its.sensitivity
                and self._detector.score_one(channel, time, value, its.sensitivity)[1]
            ):
                bits[place] |= _UNUSUAL
                flag = SUSPECT
            flags.append(flag)
            after.append(answer.past)

        readings.flag[:], readings.reason[:] = flags, bits
        self._undo = partial(self._take_back, channels, states, [commit() for commit in commits])
        for channel, state in zip(channels, after, strict=True):
            self._state[:, channel] = state

    def _read_limits(self, rule: int) -> Limits:
        limits = self._limits[rule] = Limits.of(self._channels.rules, rule)
        return limits

    def _take_back(
        self,
        channel: Ints | slice | list[int],
        before: Floats | list[list[float]],
        others: Sequence[Callable[[], None]],
    ) -> None:
        self._state[:, channel] = np.transpose(before)
        for other in others:
            other()

    def _unusual(self, runs: Runs, limits: "_Limits", time: Ints, value: Floats, judged: Flags) -> Ints:
        """Places of the values at which the adaptive detector raises an alarm; it learns from all that are judged."""
        value = np.where(judged, value, np.nan)
        alarms = []
        for some in runs.rounds(limits.adaptive):
            channel = runs.channel[runs.of(some)]
            _, alarm = self._detector.score(channel, time[some], value[some], limits.sensitivity[some])
            if np.count_nonzero(alarm):
                alarms.append(some[alarm])
        return np.concatenate(alarms) if alarms else limits.adaptive[:0]

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
            self._limits, self._latest = {}, None
            self._attenuation.set_rules(self._rules.attenuation)
            self._climatology = Climatology(self._rules.climatology)
        if (before := self._count) < (count := len(self._channels)):
            if count > self._state.shape[1]:
                state = np.empty((_ROWS, max(256, count + count // 2)))
                state[:, :before] = self._state[:, :before]
                self._state = state
            self._state[:, before:count] = _NEW
            self._count = count


class _Limits:
    """The limits of n values, a column each; see `Rules`.

    Args:
        rules: All rules.
        rule: int32[n], that of each value.

    Attributes:
        lowest, highest: float64[n], what is within fails no test of a range.
        turns, tolerates: Whether one of the values is an angle, or moves only beyond a tolerance.
        adaptive: Places of the values that the adaptive detector judges.
        attenuated: Places of the values whose range within a window is judged.
    """

    def __init__(self, rules: Rules, rule: Indices) -> None:
        self.rule = rule = rule.astype(np.int64)  # by such numbers arrays are indexed without converting them
        self.fail_low, self.fail_high = rules.fail_low[rule], rules.fail_high[rule]
        self.suspect_low, self.suspect_high = rules.suspect_low[rule], rules.suspect_high[rule]
        self.lowest = np.maximum(self.fail_low, self.suspect_low)
        self.highest = np.minimum(self.fail_high, self.suspect_high)
        self.gap, self.step = rules.gap[rule], rules.step[rule]
        self.direction = rules.direction[rule]
        self.turns = bool(self.direction.any())
        self.spike, self.averages, self.unspiky = rules.spike[rule], rules.averages[rule], rules.unspiky[rule]
        self.tolerance = rules.tolerance[rule]
        self.tolerates = bool(self.tolerance.any())
        self.exempt_low, self.exempt_high = rules.exempt_low[rule], rules.exempt_high[rule]
        self.flat_suspect, self.flat_fail = rules.flat_suspect[rule], rules.flat_fail[rule]
        self.unjudged, self.sensitivity = rules.unjudged[rule], rules.sensitivity[rule]
        self.adaptive = (self.sensitivity > 0).nonzero()[0]
        self.attenuated = np.array([its is not None for its in rules.attenuation])[rule].nonzero()[0]


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

    def any(self) -> bool:
        """Whether there are any."""
        return bool(np.count_nonzero(self.bits))

    def have(self, reason: Reason) -> Flags:
        """Which values have a reason."""
        having: Flags = (self.bits & int(reason)) != 0
        return having


def _spikes(limits: _Limits, value: Floats, before: Floats, two_before: Floats, places: Ints) -> Ints:
    """Those places whose values are far from the two before them."""
    value, before, two_before = value[places], before[places], two_before[places]
    with np.errstate(over="ignore", invalid="ignore"):
        near, far = value - before, value - two_before
        beyond = np.where(near * far > 0, np.minimum(np.abs(near), np.abs(far)), 0)
        beyond = np.where(limits.averages[places], np.abs(value - (before + two_before) / 2), beyond)
        return places[beyond > limits.spike[places]]


def _possible(tests: Floats) -> bool:
    """Whether saved rows of the state, float64[k, 5], can have come about."""
    new = tests[:, 0] == NEVER
    known = tests[~new]
    time, value, _, still_since, still_value = known.T
    whole = known[:, [0, 3]]
    possible = ((whole >= 0) & (whole <= _LATEST) & (whole == np.floor(whole))).all(1)
    possible &= ~np.isnan(value) & ~np.isnan(still_value) & (still_since <= time)
    return bool(possible.all()) and np.array_equal(tests[new], np.repeat(_NEW.T, new.sum(), 0), equal_nan=True)


def _nothing() -> None:
    pass
