"""The file of rules: read again when it changes; a file with a mistake changes nothing until it is mended."""

import logging
import re
from fnmatch import translate
from pathlib import Path

from gateway.city.store.base import SensorKey
from gateway.config import ConfigError, MaintenanceConfig, RuleConfig, RulesFile, load

_LOG = logging.getLogger(__name__)


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


class Rule:
    """A rule and the sensors that it is about."""

    def __init__(self, config: RuleConfig) -> None:
        self.config = config
        self.patterns = Patterns(config.site, config.sensor, config.kind or "*")


class _Work:
    """Maintenance of some sensors for a while."""

    def __init__(self, config: MaintenanceConfig) -> None:
        self.since = float("-inf") if config.since is None else config.since.timestamp() * 1000
        self.until = config.until.timestamp() * 1000
        self.patterns = Patterns(config.site, config.sensor, config.kind)


class Rules:
    """The rules and the maintenance that are in force.

    Args:
        path: The file; none for no rules.

    Attributes:
        rules: By name.
        problem: Why the file is not in force as it is now; empty if it is.

    Raises:
        ConfigError: If the file has a mistake, or is missing, at the start.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._works: list[_Work] = []
        self.rules: dict[str, Rule] = {}
        self.problem = ""
        if path is not None:
            self._stamp = self._now(path)
            self._take(load(path, RulesFile, {}))

    def refresh(self) -> bool:
        """Reads the file if it changed; True when other rules are in force."""
        if self._path is None or (stamp := self._now(self._path)) == self._stamp:
            return False
        self._stamp = stamp
        try:
            content = load(self._path, RulesFile, {})
        except ConfigError as error:
            self.problem = str(error)
            _LOG.error("%s. The rules as they were before go on", error)
            return False
        self._take(content)
        _LOG.info("%d rules are in force, of %s", len(self.rules), self._path)
        return True

    def excused(self, key: SensorKey, now: int) -> bool:
        """Whether a sensor is in maintenance at a time in ms UTC."""
        return any(work.since <= now < work.until and work.patterns.fit(key) for work in self._works)

    def _take(self, content: RulesFile) -> None:
        self.rules = {rule.name: Rule(rule) for rule in content.rule}
        self._works = [_Work(work) for work in content.maintenance]
        self.problem = ""

    @staticmethod
    def _now(path: Path) -> tuple[int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
