"""Silence: sensors that have not sent for longer than they use to.

A value can be marked, an absent one cannot. So once a minute it is looked who has been silent for longer than the
kind's gap and than five of the sensor's own usual intervals. Time is counted by a clock that nobody sets, and only
while the gateway is connected to the broker: when that is lost, nobody is silent.

The usual interval is the mean over time, not over messages, so that a sensor that sends ten messages at a time every
hour has one of an hour. It is known once a sensor was heard of for as long as the kind's gap; before, nothing is said.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Channels, Flags, Floats, Ints, Readings, Sensor, widened

SEVERITY = "blue"
"""Of a silence, the mildest there is."""

_INTERVALS = 5  # of its own that a sensor may be silent: three lost messages of ten are no silence
_MEMORY = 7 * 86_400_000  # ms, over which the usual interval is taken
_LONGEST = 12 * 3_600_000  # ms; a longer interval counts as this one, so that an outage teaches little
_FORGOTTEN = 30 * 86_400_000  # ms of listening without a message, after which a channel is given up
_AT_ONCE = 500  # silences told; when whatever is behind the broker fails, the others' turn is a minute later
_NEVER = np.iinfo(np.int64).min // 2
_SENSORS = {"_heard": _NEVER, "_usual": 0, "_seen": 0, "_since": 0, "_noted": 0, "_gone": 0}
"""Columns of the state and what a new sensor has."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A sensor fell silent, or is so no longer.

    Attributes:
        sensor: The sensor.
        time: When it was noticed, ms UTC.
        since: When it was last heard before the silence, ms UTC; with the sensor, the silence's identity.
        length: How long the silence is, or was, ms.
        limit: How long is usual at most, ms.
        over: Why it is over; empty while it lasts.
        reported: Whether it began because the sensor was reported to have left.
    """

    sensor: Sensor
    time: int
    since: int
    length: int
    limit: int
    over: str
    reported: bool = False

    def line(self, gateway: str) -> str:
        """The point of the measurement ``event``, in line protocol.

        Args:
            gateway: The gateway's name.
        """
        its, moment = self.sensor, datetime.fromtimestamp(self.since / 1000, UTC).isoformat(timespec="seconds")
        length, limit = (timedelta(seconds=span // 1000) for span in (self.length, self.limit))
        begun = f"reported gone, silent since {moment}" if self.reported else f"silent since {moment}"
        message = f"{self.over}, silent since {moment} for {length}" if self.over else begun
        return (
            f"event,gateway={gateway},kind={its.family.kind},sensor={its.name},"
            f"severity={'none' if self.over else SEVERITY},site={its.site} "
            f'id="{its.family.kind}.{its.site}.{its.name}.silence.{self.since}",quantity="silence",'
            f"value={self.length / 1000!r},limit={self.limit / 1000!r},"
            f'message="{message}; up to {limit} is usual" {self.time}'
        )


def _monotonic() -> int:
    return time.monotonic_ns() // 1_000_000


class Silences:
    """Hears every sensor, and says who is silent.

    Args:
        channels: All sensors and channels.
        clock: Time that nobody sets, ms.

    Attributes:
        clock: That clock.
    """

    def __init__(self, channels: Channels, clock: Callable[[], int] = _monotonic) -> None:
        self._channels = channels
        self.clock = clock
        self._count = self._sensors = 0  # channels and sensors that have a state
        self._last: Ints = np.empty(0, np.int64)  # of each channel: when it was heard; all others of each sensor
        self._gap: Floats = np.empty(0)  # ms, of the quantity that has the shortest
        self._heard: Ints = np.empty(0, np.int64)
        self._usual: Floats = np.empty(0)  # interval, ms
        self._seen: Floats = np.empty(0)  # ms, for how long, or the memory's length
        self._since: Ints = np.empty(0, np.int64)  # ms UTC, of the silence that lasts; or 0
        self._noted: Ints = np.empty(0, np.int64)  # when that was noticed
        self._gone: Ints = np.empty(0, np.int64)  # 1 if it is reported to have left, and not heard since

    def hear(self, readings: Readings) -> None:
        """Notes whose messages have just come, of when they tell does not matter; and who is reported to have left."""
        if len(readings.channel):
            self._hear(readings)
        for sensor in readings.gone:
            if sensor.number < self._sensors:  # else it has not said anything yet
                self._gone[sensor.number] = 1

    def _hear(self, readings: Readings) -> None:
        self._make_room()
        now = self.clock()
        self._last[readings.channel] = now
        if len(readings.sensors) == 1:
            self._hear_one(readings.sensors[0].number, now)
            return
        sensor = self._channels.owner[readings.channel[readings.starts]]  # one that comes twice gets the same twice
        heard = self._heard[sensor]
        self._heard[sensor] = now
        self._gone[sensor] = 0
        again = (heard != _NEVER) & (heard < now)
        if np.count_nonzero(again) < len(again):
            sensor, heard = sensor[again], heard[again]
        interval = np.minimum(now - heard, _LONGEST).astype(np.float64)
        self._seen[sensor] = seen = np.minimum(self._seen[sensor] + interval, _MEMORY)
        self._usual[sensor] += interval / seen * (interval - self._usual[sensor])

    def _hear_one(self, sensor: int, now: int) -> None:
        """The same for one sensor, for which array operations would cost more."""
        heard = int(self._heard[sensor])
        self._heard[sensor], self._gone[sensor] = now, 0
        if heard != _NEVER and heard < now:
            interval, usual = float(min(now - heard, _LONGEST)), float(self._usual[sensor])
            self._seen[sensor] = seen = min(float(self._seen[sensor]) + interval, _MEMORY)
            self._usual[sensor] = usual + interval / seen * (interval - usual)

    def noticed(self, now: int, connected_since: int | None, excused: Flags | None = None) -> list[Silence]:
        """The silences that began or ended since it was last asked, 500 at most.

        Args:
            now: Present time, ms UTC.
            connected_since: Since when the gateway is connected to the broker, by its *clock*; None if it is not.
            excused: bool[sensors], of which no message is expected; of those beyond its end there is.
        """
        if connected_since is None:
            return []
        self._make_room()
        moment, count = self.clock(), self._sensors
        heard, since = self._heard[:count], self._since[:count]
        waived = np.zeros(count, bool)
        if excused is not None:
            waived[: len(excused)] = excused[:count]
            heard[waived & (since == 0) & (heard != _NEVER)] = moment
        limit = np.maximum(self._gap[:count], _INTERVALS * self._usual[:count])
        quiet = moment - np.maximum(heard, connected_since)
        gone = (self._gone[:count] != 0) & ~waived
        begins = (since == 0) & (gone | (quiet > limit) & (self._seen[:count] >= self._gap[:count]))
        back = heard > self._noted[:count]
        ends = (since != 0) & (back | waived)
        found = []
        for number in np.flatnonzero(begins | ends)[:_AT_ONCE].tolist():
            last = now - moment + int(heard[number])  # ms UTC
            if begins[number]:
                over, began, until = "", max(last, 1), now
            elif back[number]:
                over, began, until = "sends again", int(since[number]), last
            else:
                over, began, until = "in maintenance", int(since[number]), now
            since[number], self._noted[number] = 0 if over else began, moment
            sensor, length = self._channels.sensors[number], max(until - began, 0)
            usual = int(min(limit[number], _LONGEST))  # without end for a sensor of quantities that no kind knows
            found.append(Silence(sensor, now, began, length, usual, over, bool(gone[number]) and not over))
        return found

    @property
    def silent(self) -> int:
        """How many sensors are silent."""
        return int(np.count_nonzero(self._since[: self._sensors]))

    def stale(self) -> Flags:
        """bool[channels], of which nothing came for thirty days."""
        self._make_room()
        return self.clock() - self._last[: self._count] > _FORGOTTEN

    def state(self, channels: Ints) -> dict[str, npt.NDArray[np.generic]]:
        """What is known of some channels and of their sensors, as copies, a row a channel."""
        self._make_room()
        now, sensor = self.clock(), self._channels.owner[channels]
        heard = self._heard[sensor]
        return {
            "age": now - self._last[channels],
            "quiet": np.where(heard == _NEVER, -1, now - heard),
            "usual": self._usual[sensor],
            "seen": self._seen[sensor],
            "since": self._since[sensor],
        }

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channels: Ints) -> None:
        """Takes up what another one's `state` said of the channels; the time since then is not counted.

        Raises:
            ValueError: It is no such state; nothing is changed.
        """
        self._make_room()
        expected = {name: (its.shape, its.dtype) for name, its in self.state(channels).items()}
        if {name: (its.shape, its.dtype) for name, its in state.items()} != expected:
            msg = "not a state of silences"
            raise ValueError(msg)
        age, quiet, usual, seen, since = (np.asarray(state[name], expected[name][1]) for name in expected)
        spans = np.isfinite(usual) & (usual >= 0) & (usual <= _LONGEST) & (seen >= 0) & (seen <= _MEMORY)
        if not (spans & (age >= 0) & (quiet >= -1) & (since >= 0)).all():
            msg = "silences that cannot be"
            raise ValueError(msg)
        now, sensor = self.clock(), self._channels.owner[channels]
        self._last[channels] = now - age
        self._heard[sensor] = np.where(quiet < 0, _NEVER, now - quiet)
        self._usual[sensor], self._seen[sensor], self._since[sensor] = usual, seen, since
        self._noted[sensor] = now

    def _make_room(self) -> None:
        """Gives new channels and sensors a state."""
        before, count = self._count, len(self._channels)
        if before == count:
            return
        first, sensors = self._sensors, len(self._channels.sensors)
        if count > len(self._last):
            self._last = widened(self._last, count)
        self._last[before:count] = self.clock()
        for name, fill in {**_SENSORS, "_gap": np.inf}.items():
            column = getattr(self, name)
            if sensors > len(column):
                column = widened(column, sensors)
                setattr(self, name, column)
            column[first:sensors] = fill
        gaps = self._channels.rules.gap[self._channels.rule[before:count]]
        np.minimum.at(self._gap, self._channels.owner[before:count], gaps)
        self._count, self._sensors = count, sensors


__all__ = ["SEVERITY", "Silence", "Silences"]
