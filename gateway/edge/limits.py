"""Limits: a sensor that floods does not drown the others.

A sensor is *flooding* when in a window of time it sends more than the set rate, and more than a hundred times as much
as the other sensors do on average, and its messages lie as close in its own time: a sensor that sends what it kept for
later sends many messages too, but they are of a long time. Of a flood, the next window lets the set rate through.
"""

from collections.abc import Sequence

import numpy as np

from gateway.edge.readings import Ints

_WINDOW = 5.0  # seconds
_TIMES_THE_OTHERS = 100
_FEW = 10  # sensors; among fewer there is no telling what is usual


class Flood:
    """Counts messages by sensor, and says which are too many.

    Args:
        rate: Messages a second that any sensor may send.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = int(rate * _WINDOW)
        self._began: int | None = None  # ms UTC, of the window
        self._counts: Ints = np.zeros(0, np.int64)
        self._spans: dict[int, tuple[float, float, int]] = {}  # busy sensor → earliest and latest time, and messages
        self._left: dict[int, int] = {}  # flooding sensor → messages that may still pass in this window

    def excess(self, sensors: Sequence[int], known: int, now: int) -> list[int]:
        """Counts a batch.

        Args:
            sensors: Number of the sensor of each message.
            known: How many sensors there are.
            now: Time of arrival, ms UTC.

        Returns:
            Places of the messages that are too many.
        """
        if self._began is None or now < self._began:  # the clock was set back
            self._restart(now, known)
        elif now - self._began >= _WINDOW * 1000:
            left = dict.fromkeys(self._flooding((now - self._began) / 1000), self._most)
            self._restart(now, known)
            self._left = left
        numbers = np.array(sensors, np.int64)
        if len(self._counts) < known:
            self._counts = np.concatenate([self._counts, np.zeros(known - len(self._counts), np.int64)])
        self._counts += np.bincount(numbers, minlength=known)
        if known > _FEW:
            for number in np.flatnonzero(self._counts > self._most).tolist():
                self._spans.setdefault(number, (np.inf, -np.inf, 0))
        if not self._left:
            return []
        places = []
        for place in np.flatnonzero(np.isin(numbers, list(self._left))).tolist():
            number = sensors[place]
            if self._left[number]:
                self._left[number] -= 1
            else:
                places.append(place)
        return places

    def note(self, sensors: Sequence[int], times: Ints) -> None:
        """Notes the times of observation of busy sensors.

        Args:
            sensors: Number of the sensor of each message read.
            times: Its time, ms UTC.
        """
        if not self._spans:
            return
        numbers = np.array(sensors, np.int64)
        for number in self._spans.keys() & set(sensors):
            of_sensor = times[numbers == number]
            earliest, latest, messages = self._spans[number]
            self._spans[number] = (
                min(earliest, float(of_sensor.min())),
                max(latest, float(of_sensor.max())),
                messages + len(of_sensor),
            )

    def _flooding(self, seconds: float) -> list[int]:
        total, known = int(self._counts.sum()), len(self._counts)
        flooding = []
        for number, (earliest, latest, messages) in self._spans.items():
            count = int(self._counts[number])
            others = (total - count) / (known - 1)
            replayed = messages > 0 and messages - 1 <= self._rate * (latest - earliest) / 1000
            if count > self._rate * seconds and count > _TIMES_THE_OTHERS * others and not replayed:
                flooding.append(number)
        return flooding

    def _restart(self, now: int, known: int) -> None:
        self._began = now
        self._counts = np.zeros(known, np.int64)
        self._spans = {}
        self._left = {}
