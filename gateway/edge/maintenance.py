"""Maintenance: sensors that are worked on, as an operator says in advance, meanwhile or afterwards.

What a sensor says while somebody cleans, calibrates or moves it is stored, and nobody judges it or learns from it. The
time of observation counts, so a reading that comes late is treated as one that came in time.

It is declared in the configuration, and in a file beside it that is read again whenever it changes. A file with a
mistake changes nothing until it is mended.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import translate
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import Self

import numpy as np

from gateway.config import ConfigError, GatewayConfig, MaintenanceConfig, MaintenanceFile, load
from gateway.edge.readings import MISSING, UNKNOWN, Channels, Flags, Readings, Sensor
from gateway.edge.reasons import Reason

_log = logging.getLogger("citygate.maintenance")


class _Work:
    """One declaration."""

    def __init__(self, config: MaintenanceConfig) -> None:
        self.since = -inf if config.since is None else config.since.timestamp() * 1000
        self.until = config.until.timestamp() * 1000
        self._site, self._sensor, self._kind = (
            re.compile(translate(pattern)).match for pattern in (config.site, config.sensor, config.kind)
        )
        self._fits: Flags = np.empty(0, bool)

    def fitting(self, sensors: Sequence[Sensor]) -> Flags:
        """Which sensors are those that it names, bool[sensors]."""
        if new := sensors[len(self._fits) :]:
            self._fits = np.append(self._fits, [self._names(sensor) for sensor in new])
        return self._fits

    def _names(self, sensor: Sensor) -> bool:
        return bool(self._site(sensor.site) and self._sensor(sensor.name) and self._kind(sensor.family.kind))


class Maintenance:
    """Who is worked on, and when.

    Args:
        channels: All sensors and channels.
        declared: In the configuration.
        path: The file of further ones; there need not be one.

    Attributes:
        problem: Why the file is not in effect as it is now; empty if it is.
    """

    def __init__(self, channels: Channels, declared: Sequence[MaintenanceConfig], path: Path) -> None:
        self._channels = channels
        self._path = path
        self._declared = [_Work(config) for config in declared]
        self._all = self._declared
        self._file: tuple[int, ...] = ()  # what tells its versions apart
        self.problem = ""
        self.check()

    @classmethod
    def of(cls, config: GatewayConfig, channels: Channels) -> Self:
        """The maintenance of a gateway."""
        return cls(channels, config.maintenance, config.gateway.maintenance)

    def check(self) -> None:
        """Reads the file if it has changed; to be called every second or so."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size) if S_ISREG(status.st_mode) else ()
        except FileNotFoundError:
            version = ()
        except OSError:  # nobody knows
            return
        if version == self._file:
            return
        self._file, self.problem = version, ""
        try:
            further = load(self._path, MaintenanceFile, {}).maintenance if version else ()
        except ConfigError as error:
            self.problem = f"{error}. What it said before goes on"
            _log.error("%s", self.problem)
            return
        self._all = [*self._declared, *map(_Work, further)]
        _log.info(
            "maintenance: %d declarations in %s, %d in the configuration", len(further), self._path, len(self._declared)
        )

    def mask(self, readings: Readings) -> Flags | None:
        """Readings of sensors that were worked on.

        Returns:
            bool[n], or None if there are none.
        """
        if not (self._all and len(readings.times)):
            return None
        first, last = int(readings.times.min()), int(readings.times.max())
        found: Flags | None = None
        for work in self._all:
            if work.since <= last and first < work.until:
                owner = self._channels.owner[readings.channel]
                own = work.fitting(self._channels.sensors)[owner]
                own &= (readings.time >= work.since) & (readings.time < work.until)
                found = own if found is None else found | own
        return found if found is not None and found.any() else None

    @contextmanager
    def unjudged(self, readings: Readings) -> Iterator[None]:
        """Hides values of sensors that were worked on from whoever judges: to them they are missing.

        Afterwards they are there again, not evaluated, with this reason beside those that they had before.
        """
        if (hidden := self.mask(readings)) is None:
            yield
            return
        value, reason = readings.value, readings.reason[hidden]
        readings.value = np.where(hidden, np.nan, value)
        try:
            yield
        finally:
            readings.value = value
        readings.flag[hidden] = np.where(np.isnan(value[hidden]), MISSING, UNKNOWN)
        readings.reason[hidden] = reason | int(Reason.MAINTENANCE)

    def sensors(self, time: int) -> Flags | None:
        """The sensors that are worked on at a time, ms UTC.

        Returns:
            bool[sensors], or None if there are none.
        """
        now = [work.fitting(self._channels.sensors) for work in self._all if work.since <= time < work.until]
        return np.logical_or.reduce(now) if now else None


__all__ = ["Maintenance"]
