"""The rules: the site's file, which people write, and the page's, which this view writes.

A rule of the page stands in for the one of the same name in the site's file, so that the page can change or disable
that one and its comments stay. Both files are read again when they change; a file with a mistake changes nothing until
it is mended. The page's file is replaced as a whole, so that whoever reads it sees the one or the other.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tomli_w

from gateway.city.maintenance import Maintenance, Patterns
from gateway.city.store.base import SensorKey
from gateway.config import CityRuleConfig, ConfigError, RulesFile, load, written

_LOG = logging.getLogger(__name__)
_HEAD = """\
# Rules of the city view's page, which writes this file anew: comments in it are lost.
# A rule here stands in for the one of the same name in the file of alerts.rules.

"""
_Stamp = tuple[int, int, int] | None


class EditError(Exception):
    """A change of the rules that cannot be made.

    Attributes:
        status: As of HTTP: 404 without such a rule, 409 against what is there, 412 after somebody else's change.
    """

    def __init__(self, status: Literal[404, 409, 412], why: str) -> None:
        super().__init__(why)
        self.status = status


class Rule:
    """A rule and the sensors that it is about."""

    def __init__(self, config: CityRuleConfig) -> None:
        self.config = config
        self.patterns = Patterns(config.site, config.sensor, config.kind or "*")


@dataclass(slots=True, frozen=True)
class Listed:
    """A rule as it is listed, in force or not.

    Attributes:
        config: What it says.
        of_page: It is in the page's file.
        in_file: There is one of this name in the site's file.
    """

    config: CityRuleConfig
    of_page: bool
    in_file: bool


class Rules:
    """The rules and the maintenance that are in force.

    Args:
        path: The site's file; none for no rules of it.
        maintenance: Is told what the files declare.
        page: The page's file, which need not be there; none if the page has none.

    Attributes:
        rules: Those in force, by name.
        problem: Why a file is not in force as it is now; empty if both are.

    Raises:
        ConfigError: If a file has a mistake, or the site's is missing, at the start.
    """

    def __init__(self, path: Path | None, maintenance: Maintenance | None = None, page: Path | None = None) -> None:
        self._path, self._page = path, page
        self._maintenance = maintenance or Maintenance()
        self.rules: dict[str, Rule] = {}
        self.problem = ""
        self._file, self._paged = RulesFile(), RulesFile()
        self._stamps = self._now()
        self._read()

    def refresh(self) -> bool:
        """Reads the files if one changed; True when other rules are in force."""
        if (stamps := self._now()) == self._stamps:
            return False
        self._stamps = stamps
        try:
            self._read()
        except ConfigError as error:
            self.problem = str(error)
            _LOG.error("%s. The rules as they were before go on", error)
            return False
        _LOG.info("%d rules are in force", len(self.rules))
        return True

    def excused(self, key: SensorKey, now: int) -> bool:
        """Whether a sensor is in maintenance at a time in ms UTC."""
        return self._maintenance.excused(key, now)

    # what the page shows and changes

    def listed(self) -> list[Listed]:
        """All rules: those of the site's file in its order, then those of the page alone."""
        paged = {rule.name: rule for rule in self._paged.rule}
        in_file = {rule.name for rule in self._file.rule}
        found = [Listed(paged.get(rule.name, rule), rule.name in paged, in_file=True) for rule in self._file.rule]
        return found + [
            Listed(rule, of_page=True, in_file=False) for rule in self._paged.rule if rule.name not in in_file
        ]

    @property
    def tag(self) -> str:
        """Changes with every change of the rules."""
        rules = [[written(rule) for rule in content.rule] for content in (self._file, self._paged)]
        return hashlib.sha256(repr(rules).encode()).hexdigest()[:16]

    def put(self, config: CityRuleConfig, tag: str, *, new: bool) -> CityRuleConfig | None:
        """Writes a rule of the page.

        Args:
            config: The rule.
            tag: Of the rules on which the change is based.
            new: There must be none of this name; else there must be one.

        Returns:
            The rule as it was.

        Raises:
            EditError: If it cannot be done.
            OSError: If the file cannot be written.
        """
        self._unchanged(tag)
        was = next((one.config for one in self.listed() if one.config.name == config.name), None)
        if new and was is not None:
            raise EditError(409, f"name: there is a rule '{config.name}' already.")
        if not new and was is None:
            raise EditError(404, f"There is no rule '{config.name}'; see /api/v1/rules.")
        others = [rule for rule in self._paged.rule if rule.name != config.name]
        self._write([*others, config])
        return was

    def remove(self, name: str, tag: str) -> CityRuleConfig:
        """Takes a rule of the page away; one of the site's file by this name is in force again.

        Raises:
            EditError: If it cannot be done.
            OSError: If the file cannot be written.
        """
        self._unchanged(tag)
        gone = [rule for rule in self._paged.rule if rule.name == name]
        if not gone and any(rule.name == name for rule in self._file.rule):
            raise EditError(409, f"The rule '{name}' is in {self._path}, which only people change; disable it instead.")
        if not gone:
            raise EditError(404, f"There is no rule '{name}'; see /api/v1/rules.")
        self._write([rule for rule in self._paged.rule if rule.name != name])
        return gone[0]

    def _unchanged(self, tag: str) -> None:
        self.refresh()
        if tag != self.tag:
            raise EditError(412, "Somebody else has changed the rules meanwhile; look at them as they are now.")

    def _write(self, rules: list[CityRuleConfig]) -> None:
        if self._page is None or self.problem:
            raise EditError(409, self.problem or "The page has no file of rules.")
        new = self._page.with_name(f"{self._page.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.write(_HEAD + tomli_w.dumps({"rule": [written(rule) for rule in rules]}))
            file.flush()
            os.fsync(file.fileno())
        try:
            load(new, RulesFile, {})
        except ConfigError as error:
            raise EditError(409, f"This would not be read again: {error}") from error
        new.replace(self._page)
        self.refresh()

    def _read(self) -> None:
        file = RulesFile() if self._path is None else load(self._path, RulesFile, {})
        there = self._page is not None and self._page.exists()
        paged = load(self._page, RulesFile, {}) if self._page is not None and there else RulesFile()
        self._file, self._paged = file, paged
        self.rules = {one.config.name: Rule(one.config) for one in self.listed() if one.config.enabled}
        self._maintenance.declare(file.maintenance)
        self.problem = ""

    def _now(self) -> tuple[_Stamp, _Stamp]:
        return _stamp(self._path), _stamp(self._page)


def _stamp(path: Path | None) -> _Stamp:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)
