"""Which sensors are in maintenance: those that are worked on for a declared time, and those whose fault has a case.

Meanwhile they raise no alerts. An event of a sensor whose case is open was none: its alert is withdrawn.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
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


class Work:
    """Maintenance of some sensors for a while.

    Args:
        site: Pattern of their site.
        sensor: Pattern of their name.
        kind: Pattern of their kind.
        since: When it begins, ms UTC.
        until: When it ends, ms UTC.
        window: By which a person can end it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a window has
        self, site: str, sensor: str, kind: str, since: float, until: float, window: int | None = None
    ) -> None:
        self.since = since
        self.until = until
        self.window = window
        self.patterns = Patterns(site, sensor, kind)


class Maintenance:
    """Says who is in maintenance.

    Attributes:
        cases: The open case of each faulty sensor, by the sensor's id.
        windows: What people declared.
    """

    def __init__(self) -> None:
        self.cases: Mapping[str, int] = {}
        self.windows: Sequence[Work] = ()
        self._declared: list[Work] = []

    def declare(self, works: Iterable[MaintenanceConfig]) -> None:
        """Takes these in place of what was declared before."""
        self._declared = [
            Work(
                work.site,
                work.sensor,
                work.kind,
                float("-inf") if work.since is None else work.since.timestamp() * 1000,
                work.until.timestamp() * 1000,
            )
            for work in works
        ]

    def of(self, key: SensorKey, now: int) -> MaintenanceOut | None:
        """Why a sensor is in maintenance at a time in ms UTC; None if it is not."""
        works = [
            work
            for work in (*self._declared, *self.windows)
            if work.since <= now < work.until and work.patterns.fit(key)
        ]
        case = self.cases.get(key.id) if self.cases else None
        if case is None and not works:
            return None
        last = max(works, key=lambda work: work.until, default=None)
        return MaintenanceOut(
            case=case,
            until=None if last is None else iso(round(last.until)),
            window=None if last is None else last.window,
        )

    def excused(self, key: SensorKey, now: int) -> bool:
        """Whether a sensor is in maintenance at a time in ms UTC."""
        return self.of(key, now) is not None
