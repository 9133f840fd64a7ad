"""The file of rules: read again when it changes; a file with a mistake changes nothing until it is mended."""

import logging
from pathlib import Path

from gateway.city.maintenance import Maintenance, Patterns
from gateway.city.store.base import SensorKey
from gateway.config import ConfigError, RuleConfig, RulesFile, load

_LOG = logging.getLogger(__name__)


class Rule:
    """A rule and the sensors that it is about."""

    def __init__(self, config: RuleConfig) -> None:
        self.config = config
        self.patterns = Patterns(config.site, config.sensor, config.kind or "*")


class Rules:
    """The rules and the maintenance that are in force.

    Args:
        path: The file; none for no rules.
        maintenance: Is told what the file declares.

    Attributes:
        rules: By name.
        problem: Why the file is not in force as it is now; empty if it is.

    Raises:
        ConfigError: If the file has a mistake, or is missing, at the start.
    """

    def __init__(self, path: Path | None, maintenance: Maintenance | None = None) -> None:
        self._path = path
        self._maintenance = maintenance or Maintenance()
        self._stamp: tuple[int, int, int] | None = None
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
        return self._maintenance.excused(key, now)

    def _take(self, content: RulesFile) -> None:
        self.rules = {rule.name: Rule(rule) for rule in content.rule}
        self._maintenance.declare(content.maintenance)
        self.problem = ""

    @staticmethod
    def _now(path: Path) -> tuple[int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
