"""Watch: the events that good values raise, change and end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import GOOD, SUSPECT, Bytes, Channels, Flags, Floats, Indices, Ints, Readings, Rules, widened
from gateway.edge.reasons import Reason
from sensors.kinds import SEVERITIES

_CALM_READINGS = 3  # readings below an event's limit that end it, so that noise around a limit is one event
_FEW = 16  # values, from which on array operations cost less than a loop
_DOUBTED = 3  # good values beyond after a spike, with the last of which an event begins: it might have been two spikes
# a flood is one, though the battery is low, or the instrument at its end
_SPEAKS_NOT_AGAINST = int(Reason.DIAGNOSTICS | Reason.UNUSUAL | Reason.OVER_RANGE)


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
    doubt: int  # good values to come with the last of which an event begins or becomes graver; 0 for at once


class Watch:
    """Keeps the running event of every channel.

    Args:
        channels: The channels and their rules.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._level: Bytes = np.empty(0, np.uint8)  # of the running event
        self._calm: Bytes = np.empty(0, np.uint8)
        self._doubt: Bytes = np.empty(0, np.uint8)
        self._since: dict[int, int] = {}
        self._before: dict[int, _Course] = {}  # what the last batch changed

    def watch(self, readings: Readings) -> list[Event]:
        """The events that began, changed in severity, or ended; only good values that are not late count."""
        self._before = {}
        if len(readings.channel) <= _FEW and self._calm_all(readings):
            return []
        rules, rule, value = self._channels.rules, readings.rule, readings.value
        self._make_room()
        beyond = (value >= rules.mildest_above.take(rule)) | (value <= rules.mildest_below.take(rule))
        if self._since:
            beyond |= self._level[readings.channel] > 0
        events: list[Event] = []
        if not np.count_nonzero(beyond):
            return events
        # all values of a channel that has one beyond, for those after it may end the event
        its = np.isin(readings.channel, readings.channel[beyond])
        spike = beyond & ((readings.reason & int(Reason.SPIKE)) != 0)
        places = np.flatnonzero(its & (spike | counts(readings.flag, readings.reason)))
        if not len(places):
            return events
        levels = _levels(rules, rule[places], value[places])
        columns = (places, readings.channel[places], readings.time[places], value[places], levels, spike[places])
        for place, channel, when, sent, reached, doubted in zip(*(column.tolist() for column in columns), strict=True):
            course, now = self._course(channel), reached
            if doubted:
                self._before.setdefault(channel, course)
                self._set(channel, course._replace(doubt=_DOUBTED))
                continue
            if course.doubt and now > course.level:
                self._before.setdefault(channel, course)
                course = course._replace(doubt=course.doubt - 1)
                self._set(channel, course)
                now = course.level if course.doubt else now
            if now == course.level and not course.calm:
                continue
            self._before.setdefault(channel, course)
            calm = course.calm + 1 if now < course.level else 0
            if now <= course.level and calm < _CALM_READINGS:
                self._set(channel, course._replace(calm=calm))
                continue
            since = course.since if course.level else when
            self._set(channel, _Course(now, 0, since, course.doubt))
            severity = SEVERITIES[now - 1] if now else "none"
            events.append(Event(channel, when, since, severity, sent, _limit(rules, int(rule[place]), now, sent)))
        return events

    def undo(self) -> None:
        """Takes the last batch back."""
        for channel, course in self._before.items():
            self._set(channel, course)
        self._before = {}

    def state(self, channels: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """The running events of some channels, a row each."""
        self._make_room()
        since = [self._since.get(channel, 0) for channel in channels.tolist()]
        return {
            "level": self._level[channels],
            "calm": self._calm[channels],
            "since": np.array(since, np.int64),
            "doubt": self._doubt[channels],
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channels: Ints) -> None:
        """Takes up where another one left.

        Args:
            state: What that one's ``state`` was.
            channels: int64[k], the channels that the rows are of now.

        Raises:
            ValueError: It is no such state; nothing is changed.
        """
        expected = {name: (its.shape, its.dtype) for name, its in self.state(channels).items()}
        if {name: (its.shape, its.dtype) for name, its in state.items()} != expected:
            msg = "not a state of running events"
            raise ValueError(msg)
        most = {"level": len(SEVERITIES), "calm": _CALM_READINGS - 1, "doubt": _DOUBTED}
        if len(channels) and any(state[name].max() > limit for name, limit in most.items()):
            msg = "running events that cannot be"
            raise ValueError(msg)
        for channel, *course in zip(
            channels.tolist(), *(state[name].tolist() for name in ("level", "calm", "since", "doubt")), strict=True
        ):
            self._set(channel, _Course(*course))

    def _calm_all(self, readings: Readings) -> bool:
        """Whether no value is beyond a limit, and no event runs; asked of one after another, for they are few."""
        mildest = self._channels.rules.mildest
        for channel, rule, value in zip(
            readings.channel.tolist(), readings.rule.tolist(), readings.value.tolist(), strict=True
        ):
            above, below = mildest[rule]
            if value >= above or value <= below or channel in self._since:
                return False
        return True

    def _course(self, channel: int) -> _Course:
        return _Course(
            int(self._level[channel]),
            int(self._calm[channel]),
            self._since.get(channel, 0),
            int(self._doubt[channel]),
        )

    def _set(self, channel: int, course: _Course) -> None:
        self._level[channel], self._calm[channel], self._doubt[channel] = course.level, course.calm, course.doubt
        if course.level:
            self._since[channel] = course.since
        else:
            self._since.pop(channel, None)

    def _make_room(self) -> None:
        before, count = len(self._level), len(self._channels)
        if before < count:
            self._level, self._calm = widened(self._level, count), widened(self._calm, count)
            self._doubt = widened(self._doubt, count)
            self._level[before:] = self._calm[before:] = self._doubt[before:] = 0


def counts(flag: Bytes, reason: Indices) -> Flags:
    """Which values may raise an event, or end one, bool[n]; those that are late do not."""
    against = reason & ~int(Reason.GAP)
    return np.asarray((flag == GOOD) & (against == 0) | (flag == SUSPECT) & ((against & ~_SPEAKS_NOT_AGAINST) == 0))


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
