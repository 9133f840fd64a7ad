"""Limits: a sensor that floods does not drown the others.

In a window of time any sensor may send as many messages as the set rate allows, and a hundred times as many as the
others do on average. What is beyond is a flood if it is one in the sensor's own time, too: a sensor that sends what it
kept for later sends many messages at once, but they are of a long time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.edge.readings import Ints

_WINDOW = 5.0  # seconds
_TIMES_THE_OTHERS = 100
_FEW = 10  # sensors; among fewer there is no telling what is usual


@dataclass(slots=True)
class _Span:
    """What a busy sensor's messages say of their time.

    Attributes:
        rate_before: In the window before; infinite until one was read, for what cannot be read is not of a long time.
    """

    rate_before: float = np.inf
    messages: int = 0
    earliest: int = 0
    latest: int = 0

    def note(self, times: Ints) -> None:
        low, high = int(times.min()), int(times.max())
        self.earliest = min(low, self.earliest) if self.messages else low
        self.latest = max(high, self.latest) if self.messages else high
        self.messages += len(times)

    def rate(self) -> float:
        """Messages a second of the sensor's own time."""
        if self.messages < 2:  # noqa: PLR2004 - one moment is no span
            return 0.0 if self.messages else self.rate_before
        return self.messages / max(self.latest - self.earliest, 1) * 1000


class Flood:
    """Counts messages by sensor, and says which are too many.

    Args:
        rate: Messages a second that any sensor may send.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = int(rate * _WINDOW)
        self._began = 0  # ms UTC, of the window
        self._counts: Ints = np.zeros(0, np.int64)
        self._counts_before: Ints = self._counts  # of the window before
        self._busy: dict[int, _Span] = {}  # suspects of this window or the one before

    def excess(self, sensors: Sequence[int], known: int, now: int) -> list[int]:
        """Counts a batch.

        Args:
            sensors: Number of the sensor of each message.
            known: How many sensors there are.
            now: Time of arrival, ms UTC.

        Returns:
            Places of the messages that are too many.
        """
        if not 0 <= now - self._began < _WINDOW * 1000:  # less than 0 when the clock was set back
            self._turn(now)
        if more := known - len(self._counts):
            self._counts = np.append(self._counts, np.zeros(more, np.int64))
            self._counts_before = np.append(self._counts_before, np.zeros(more, np.int64))
        numbers = np.array(sensors, np.int64)
        before, self._counts = self._counts, self._counts + np.bincount(numbers, minlength=known)
        places: list[int] = []
        if known <= _FEW:
            return places
        for number in self._suspects():
            if (span := self._busy.get(number)) is None:
                self._busy[number] = _Span()  # lets this batch through, to see of what time it is
            elif span.rate() > self._rate:
                left = max(self._most - int(before[number]), 0)
                places += np.flatnonzero(numbers == number)[left:].tolist()
        return places

    def note(self, sensors: Sequence[int], times: Ints) -> None:
        """Notes the times of observation of what was let through and could be read.

        Args:
            sensors: Number of the sensor of each message.
            times: Its time, ms UTC.
        """
        if self._busy:
            numbers = np.array(sensors, np.int64)
            for number in self._busy.keys() & set(sensors):
                self._busy[number].note(times[numbers == number])

    def _suspects(self) -> list[int]:
        """Sensors that sent more than their rate, and far more than the others, in this window and the one before."""
        numbers = np.flatnonzero(self._counts > self._most)
        for counts in (self._counts, self._counts_before):
            others = (counts.sum() - counts[numbers]) / (len(counts) - 1)
            numbers = numbers[self._counts[numbers] > _TIMES_THE_OTHERS * others]
        suspects: list[int] = numbers.tolist()
        return suspects

    def _turn(self, now: int) -> None:
        self._busy = {
            number: _Span(span.rate()) for number, span in self._busy.items() if self._counts[number] > self._most
        }
        self._began, self._counts_before = now, self._counts
        self._counts = np.zeros(len(self._counts), np.int64)
