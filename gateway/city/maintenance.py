"""Which sensors are in maintenance: those that are worked on for a declared time, and those whose fault has a case.

Meanwhile they raise no alerts. An event of a sensor whose case is open was none: its alert is withdrawn.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate

from gateway.city.models import MaintenanceOut, iso
from gateway.city.store.base import SensorKey
from gateway.config import MaintenanceConfig


class Patterns:
    """Sensors by patterns of their site, sensor and kind."""

    def __init__(self, site: str, sensor: str, kind: str) -> None:
        self._parts = [re.compile(translate(pattern)).match for pattern in (kind, site, sensor)]
        self._known: dict[SensorKey, bool] = {}

    def fit(self, key: SensorKey) -> bool:
        """Whether a sensor is one of them."""
        fits = self._known.get(key)
        if fits is None:
            fits = self._known[key] = all(match(text) for match, text in zip(self._parts, key, strict=True))
        return fits


class _Work:
    """Maintenance of some sensors for a while."""

    def __init__(self, config: MaintenanceConfig) -> None:
        self.since = float("-inf") if config.since is None else config.since.timestamp() * 1000
        self.until = config.until.timestamp() * 1000
        self.patterns = Patterns(config.site, config.sensor, config.kind)


class Maintenance:
    """Says who is in maintenance.

    Attributes:
        cases: The open case of each faulty sensor, by the sensor's id.
    """

    def __init__(self) -> None:
        self.cases: Mapping[str, int] = {}
        self._declared: list[_Work] = []

    def declare(self, works: Iterable[MaintenanceConfig]) -> None:
        """Takes these in place of what was declared before."""
        self._declared = [_Work(work) for work in works]

    def of(self, key: SensorKey, now: int) -> MaintenanceOut | None:
        """Why a sensor is in maintenance at a time in ms UTC; None if it is not."""
        until = [work.until for work in self._declared if work.since <= now < work.until and work.patterns.fit(key)]
        case = self.cases.get(key.id) if self.cases else None
        if case is None and not until:
            return None
        return MaintenanceOut(case=case, until=iso(round(max(until))) if until else None)

    def excused(self, key: SensorKey, now: int) -> bool:
        """Whether a sensor is in maintenance at a time in ms UTC."""
        return self.of(key, now) is not None
