"""Inspect: a QARTOD flag and its reasons for every value, as array operations over a batch.

The tests are those of the QARTOD manuals (gross range, operator range, rate of change, flat line, time). The worst
answer is the flag. An over-limit value with a good flag is an *event*, never a fault.
"""

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from gateway.edge.readings import FAIL, GOOD, MISSING, SUSPECT, UNKNOWN, Bytes, Channels, Floats, Ints, Readings
from sensors.kinds import SEVERITIES

_CALM_READINGS = 3  # readings below an event's limit that end it, so that noise around a limit is one event


class Reason(IntFlag):
    """Why a value is not good; stored as names joined by ``+``."""

    NO_TIME = 1  # the payload had no time: time of arrival
    FUTURE = 2  # more than a day ahead of the gateway's clock
    MISSING = 4  # the sensor says that it has no value
    GROSS_RANGE = 8  # outside what the sensor can measure
    SUSPECT_RANGE = 16  # outside what is plausible here
    RATE_OF_CHANGE = 32  # faster than the quantity can change
    FLAT_LINE = 64  # has not moved for too long
    OUT_OF_ORDER = 128  # older than the channel's last reading; tests over time are skipped
    DUPLICATE_TIME = 256  # another value for a time that already has one


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


class Inspector:
    """The on-device filter; keeps the state of every channel.

    Args:
        channels: The channels and their limits.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._last_time: Ints = np.empty(0, np.int64)
        self._last_value: Floats = np.empty(0)
        self._flat_value: Floats = np.empty(0)
        self._flat_since: Ints = np.empty(0, np.int64)
        self._level: Ints = np.empty(0, np.int64)  # of the running event: 0 none, 1 blue … 4 red
        self._since: Ints = np.empty(0, np.int64)
        self._calm: Ints = np.empty(0, np.int64)

    def inspect(self, readings: Readings) -> list[Event]:
        """Flags every value in place.

        Returns:
            Events that began, changed in severity, or ended.
        """
        self._make_room()
        events: list[Event] = []
        for turn in _turns(readings.channel):
            self._judge(readings, turn, events)
        return events

    def _judge(self, readings: Readings, turn: Ints | slice, events: list[Event]) -> None:
        """Judges values of which no two are of the same channel."""
        limits = self._channels
        channel, time, value = readings.channel[turn], readings.time[turn], readings.value[turn]
        reason = readings.reason[turn]
        last_time, last_value = self._last_time[channel], self._last_value[channel]
        missing = np.isnan(value)
        gross = (value < limits.fail_low[channel]) | (value > limits.fail_high[channel])
        unlikely = (value < limits.suspect_low[channel]) | (value > limits.suspect_high[channel])

        newer = (time > last_time) & ~missing
        with np.errstate(over="ignore"):
            change = np.abs(value - last_value)
        change = np.where(limits.direction[channel], np.minimum(change, 360 - change), change)
        minutes = np.maximum(time - last_time, 60_000) / 60_000  # a step is allowed once, however soon it comes
        jump = newer & (change > limits.step[channel] * minutes)

        with np.errstate(over="ignore"):
            moved = newer & ~(np.abs(value - self._flat_value[channel]) <= limits.flat_tolerance[channel])
        since = np.where(moved, time, self._flat_since[channel])
        still = np.where(
            newer & (value > limits.exempt_low[channel]) & (value < limits.exempt_high[channel]), time - since, 0
        )
        flat = still >= limits.flat_suspect[channel]

        stale = time < last_time
        twice = (time == last_time) & (value != last_value) & ~missing
        future = (reason & Reason.FUTURE) != 0
        reason = (
            reason
            | missing * Reason.MISSING.value
            | gross * Reason.GROSS_RANGE.value
            | unlikely * Reason.SUSPECT_RANGE.value
            | jump * Reason.RATE_OF_CHANGE.value
            | flat * Reason.FLAT_LINE.value
            | stale * Reason.OUT_OF_ORDER.value
            | twice * Reason.DUPLICATE_TIME.value
        )
        flag = np.where(limits.evaluated[channel], GOOD, UNKNOWN)
        flag = np.where((reason & ~Reason.OUT_OF_ORDER.value) != 0, SUSPECT, flag)
        flag = np.where(gross | (still >= limits.flat_fail[channel]), FAIL, flag)
        flag = np.where(missing, MISSING, flag)
        readings.flag[turn], readings.reason[turn] = flag, reason

        # a clock far ahead must not make everything after it look late; a broken value is no reference for the next
        keep = newer & ~future & ~gross
        kept = channel[keep]
        self._last_time[kept], self._last_value[kept] = time[keep], value[keep]
        moved &= keep
        moving = channel[moved]
        self._flat_value[moving], self._flat_since[moving] = value[moved], time[moved]
        self._watch(channel, time, value, (flag == GOOD) & newer, events)

    def _watch(self, channel: Ints, time: Ints, value: Floats, good: Bytes, events: list[Event]) -> None:
        """Raises, changes and ends events; only good values count."""
        limits = self._channels
        beyond = (value[:, None] >= limits.above[channel]) | (value[:, None] <= limits.below[channel])
        level = np.where(beyond.any(1), len(SEVERITIES) - np.argmax(beyond[:, ::-1], 1), 0)
        running = self._level[channel]
        calm = np.where(level < running, self._calm[channel] + 1, 0)
        self._calm[channel[good]] = calm[good]
        for i in np.flatnonzero(good & ((level > running) | (calm >= _CALM_READINGS))).tolist():
            number, now, before = int(channel[i]), int(level[i]), int(running[i])
            if not before:
                self._since[number] = time[i]
            self._level[number], self._calm[number] = now, 0
            severity = SEVERITIES[now - 1] if now else "none"
            limit = self._limit(number, now, float(value[i]))
            events.append(Event(number, int(time[i]), int(self._since[number]), severity, float(value[i]), limit))

    def _limit(self, number: int, level: int, value: float) -> float:
        above, below = self._channels.above[number], self._channels.below[number]
        if level:
            return float(above[level - 1] if value >= above[level - 1] else below[level - 1])
        declared = [*above[np.isfinite(above)], *below[np.isfinite(below)]]
        return float(declared[0])

    def _make_room(self) -> None:
        size = len(self._channels.factor)
        if (more := size - len(self._last_time)) <= 0:
            return
        for name, fill in (
            ("_last_time", np.iinfo(np.int64).min // 2),
            ("_last_value", np.nan),
            ("_flat_value", np.nan),
            ("_flat_since", 0),
            ("_level", 0),
            ("_since", 0),
            ("_calm", 0),
        ):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full(more, fill, old.dtype)]))


def _turns(channel: Ints) -> list[Ints] | list[slice]:
    """Splits a batch so that no turn holds a channel twice, and each channel's values stay in order."""
    if not len(channel):
        return []
    order = np.argsort(channel, kind="stable")
    ordered = channel[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if first.all():
        return [slice(None)]
    places = np.arange(len(channel))
    rank = places - np.maximum.accumulate(np.where(first, places, 0))
    by_rank = np.argsort(rank, kind="stable")
    return np.split(order[by_rank], np.cumsum(np.bincount(rank))[:-1])
