"""Sources: which sensors a message is about, by its topic, by what its payload says, and by the file of devices."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gateway.config import DiscoverConfig, Name, SourceConfig
from sensors import formats
from sensors.discovery import HOLDING, cleaned
from sensors.formats.json import Json
from sensors.kinds import Kind

if TYPE_CHECKING:
    from gateway.edge.readings import Sensor

_LEVELS = ("kind", "site", "sensor")


class SourceError(Exception):
    """A source cannot be used as declared; the message names source and key."""


class Device(BaseModel):
    """What a file of devices says of one; what it leaves out is said by the topic, the payload or the source."""

    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")

    kind: Name | None = None
    site: Name | None = None
    sensor: Name | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """What it says."""
        return {key: name for key in _LEVELS if (name := getattr(self, key)) is not None}


_DEVICES = TypeAdapter(dict[str, Device])


class Source:
    """A declared family of topics.

    Args:
        config: As it is declared.
        kinds: Kinds by name.

    Attributes:
        config: As it is declared.
        format: How its payloads are read.
        discovers: Whether devices may appear that are not declared.
        plain: Whether a topic is one sensor and a message is what it measures at one time, in JSON.
        devices: By what their senders call them.
        called: What the payload or the topic calls a sensor, by prefix, where it names it.
        sensors: By prefix.
        filter: The topics, as a broker is asked for them.
        pattern: The topics, with groups *kind*, *site* and *sensor*.

    Raises:
        SourceError: If it names an unknown kind, or its file of devices cannot be used.
    """

    def __init__(self, config: SourceConfig | DiscoverConfig, kinds: Mapping[str, Kind]) -> None:
        self.config = config
        self.discovers = isinstance(config, DiscoverConfig)
        self.format = formats.make(config.format, config.declared)
        self.devices = _devices(config, kinds)
        self.plain = isinstance(self.format, Json) and not self.format.composed and config.devices is None
        self.sensors: dict[str, Sensor] = {}
        self.called: dict[str, str] = {}
        levels = [_level(level) for level in config.topic.split("/")]
        self.filter = "/".join(
            "#" if level == "#" else "+" if level.startswith("{") else level for level in config.topic.split("/")
        )
        self.pattern = re.compile("/".join(levels).replace("/.*", "(?:/.*)?"), re.DOTALL)
        if config.kind is not None and config.kind not in kinds:
            msg = f"source '{config.name}': {unknown_kind(config.kind, tuple(kinds))}"
            raise SourceError(msg)

    def kinds(self, known: Mapping[str, Kind]) -> list[str]:
        """The kinds that its sensors may be of."""
        if "{kind}" in self.config.topic:
            return [*known]
        own = [HOLDING] if self.discovers else [self.config.kind] if self.config.kind is not None else []
        return [*dict.fromkeys([*own, *(device.kind for device in self.devices.values() if device.kind is not None)])]

    def names(self, levels: Mapping[str, str], named: str | None = None) -> Mapping[str, str] | str:
        """Kind, site and sensor of what a message is about.

        Args:
            levels: What the topic says of them.
            named: What the payload calls the sensor, if it names one.

        Returns:
            All three; or why they cannot be told.
        """
        own = {key: name for key in _LEVELS if (name := getattr(self.config, key)) is not None}
        said = {**own, **levels}
        called = said.get("sensor") if named is None else named
        device = self.devices.get(called or "") or self.devices.get(cleaned(called or ""))
        if called is not None and (named is not None or self.discovers):
            said["sensor"] = cleaned(called)
        if device is not None:
            said.update(device.names)
        missing = [key for key in _LEVELS if key not in said]
        if missing and called is None:
            return "neither the topic nor the payload names the sensor"
        if missing and self.discovers:
            return {"site": "unknown", **said, "kind": HOLDING, "sensor": cleaned(str(called))}
        if missing:
            unknown = f"unknown device {str(called)[:80]!r}: nothing says its {missing[0]}"
            return f"{unknown}; declare it in {self.config.devices}"
        return said

    def can_name(self, names: Mapping[str, str]) -> bool:
        """Whether kind, site and sensor may be these."""
        free = {key for key in _LEVELS if f"{{{key}}}" in self.config.topic}
        free |= {"sensor"} if self.format.names_sensors else set()
        if self.discovers and names["kind"] == HOLDING:
            return True
        for device in (*self.devices.values(), Device()):
            said = device.names
            fits = {key: said.get(key, getattr(self.config, key)) for key in _LEVELS}
            if all(fits[key] == name or key in free - {*said} for key, name in names.items()):
                return True
        return False


class Topic:
    """A topic of a source whose payloads say more than what one sensor measures at one time.

    Attributes:
        source: Its source.
        text: The topic.
        levels: What it says of kind, site and sensor; where devices may appear, it is a sensor's name itself.
        sensors: Those that it was heard of, by what the payload calls them.
    """

    __slots__ = ("levels", "sensors", "source", "text")

    def __init__(self, source: Source, text: str, levels: Mapping[str, str]) -> None:
        self.source = source
        self.text = text
        self.levels = {"sensor": text, **levels} if source.discovers else levels
        self.sensors: dict[str | None, Sensor] = {}


def _level(level: str) -> str:
    if match := re.fullmatch(r"\{(site|kind|sensor)\}", level):
        return f"(?P<{match[1]}>[^/]+)"
    return {"+": "[^/]+", "#": ".*"}.get(level, re.escape(level))


@lru_cache(1024)
def unknown_kind(kind: str, kinds: tuple[str, ...]) -> str:
    """Why a kind cannot be used, and which is meant."""
    near = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(kinds))}."
    return f"unknown kind '{kind}'; {hint} A new kind is a file {kind}.toml in gateway.kinds_dir"


def _devices(config: SourceConfig | DiscoverConfig, kinds: Mapping[str, Kind]) -> dict[str, Device]:
    if (path := config.devices) is None or (isinstance(config, DiscoverConfig) and not path.exists()):
        return {}
    where = f"source '{config.name}': devices: {path}"
    try:
        devices = _DEVICES.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        msg = f"{where}: cannot be read: {error.strerror}"
        raise SourceError(msg) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{where}: not valid TOML: {error}"
        raise SourceError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; a device has kind, site and sensor"
        raise SourceError(msg) from error
    taken: dict[tuple[str | None, ...], str] = {}
    for called, device in devices.items():
        if device.kind is not None and device.kind not in kinds:
            msg = f"{where}: {called}: {unknown_kind(device.kind, tuple(kinds))}"
            raise SourceError(msg)
        its = device.kind, device.site, device.sensor
        if device.sensor is not None and (other := taken.setdefault(its, called)) != called:
            msg = f"{where}: {called} and {other} are the same sensor '{device.sensor}'; give each a name of its own"
            raise SourceError(msg)
    return devices


__all__ = ["Device", "Source", "SourceError", "Topic", "unknown_kind"]
