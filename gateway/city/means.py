"""Means over the last hours, kept so that the store is asked for each of them once.

The last hour is kept in steps of five minutes, of which a look asks for the last two; the 24 full hours before are
kept by the hour. When a step or an hour has passed, all are asked for again: what a gateway held back comes late.
"""

import time
from collections.abc import Iterable, Sequence

from gateway.city.grades.air import HOURS, Hour
from gateway.city.grades.noise import equivalent
from gateway.city.store.base import Means, SensorKey, StepMean, Store

STEP_MS, HOUR_MS = 300_000, 3_600_000
_AGE_S = 30.0


class RunningMeans:
    """Means of some quantities of a kind.

    Args:
        store: Where readings are.
        kind: The kind.
        quantities: Which of its quantities.
        energy: Their values are levels in dB.
        hours: Whether the 24 full hours are kept too.
    """

    def __init__(
        self, store: Store, kind: str, quantities: Sequence[str], *, energy: bool = False, hours: bool = True
    ) -> None:
        self._store = store
        self._kind = kind
        self._quantities = quantities
        self._energy = energy
        self._with_hours = hours
        self._steps: dict[tuple[SensorKey, str], dict[int, StepMean]] = {}
        self._hours: Means = {}
        self._full: dict[tuple[SensorKey, str, float], list[Hour | None]] = {}
        self._hour = -1
        self._step = -1
        self._looked = float("-inf")
        self.age_s = _AGE_S
        """Seconds for which a look is good enough."""

    @property
    def due(self) -> bool:
        """Whether the last look is older than ``age_s``."""
        return time.monotonic() - self._looked >= self.age_s

    async def look(self, now: int) -> None:
        """Brings the means up to ``now``, in milliseconds.

        Raises:
            StoreError: If the store does not answer; then nothing has changed.
        """
        end, hour = now + 1, now // HOUR_MS
        oldest = (end - HOUR_MS) // STEP_MS * STEP_MS
        start = now // STEP_MS * STEP_MS - STEP_MS if now // STEP_MS == self._step else oldest
        found = await self._ask(start, end, STEP_MS)
        if self._with_hours and hour != self._hour:
            self._hours = await self._ask((hour - HOURS) * HOUR_MS, hour * HOUR_MS, HOUR_MS)
            self._hour, self._full = hour, {}
        for steps in self._steps.values():
            for at in [at for at in steps if at < oldest or at >= start]:
                del steps[at]
        for channel, means in found.items():
            self._steps.setdefault(channel, {}).update({mean.time: mean for mean in means})
        self._steps = {channel: steps for channel, steps in self._steps.items() if steps}
        self._step, self._looked = now // STEP_MS, time.monotonic()

    def last_hour(self, key: SensorKey, quantity: str, interval: float) -> Hour | None:
        """The mean of the last hour.

        Args:
            key: The sensor.
            quantity: The quantity.
            interval: Seconds between its readings, for how much of the hour they cover.
        """
        steps = self._steps.get((key, quantity), {}).values()
        return self._joined(steps, interval)

    def full_hours(self, key: SensorKey, quantity: str, interval: float) -> list[Hour | None]:
        """The 24 full hours before this one, oldest first."""
        known = self._full.get((key, quantity, interval))
        if known is None:
            known = [None] * HOURS
            for mean in self._hours.get((key, quantity), []):
                known[mean.time // HOUR_MS - (self._hour - HOURS)] = self._joined([mean], interval)
            self._full[key, quantity, interval] = known
        return known

    def between(self, key: SensorKey, quantity: str, start: int, end: int) -> float | None:
        """The mean of what is kept with start <= time < end, full hours and the running one; None without any."""
        running = self._hour * HOUR_MS
        kept = [mean for mean in self._hours.get((key, quantity), []) if start <= mean.time < end]
        steps = self._steps.get((key, quantity), {}).values()
        kept += [mean for mean in steps if max(start, running) <= mean.time < end]
        return self._mean(kept)

    async def _ask(self, start: int, end: int, step: int) -> Means:
        return await self._store.means(self._kind, self._quantities, start, end, step, energy=self._energy)

    def _joined(self, means: Iterable[StepMean], interval: float) -> Hour | None:
        known = list(means)
        mean = self._mean(known)
        if mean is None:
            return None
        return Hour(mean, min(1.0, sum(step.number for step in known) * interval * 1000 / HOUR_MS))

    def _mean(self, means: Iterable[StepMean]) -> float | None:
        known = list(means)
        if self._energy:
            return equivalent((step.mean, step.number) for step in known)
        number = sum(step.number for step in known)
        return sum(step.mean * step.number for step in known) / number if number else None
