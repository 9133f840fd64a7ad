"""Discover: devices that nobody has declared. What they send is held in a measurement of its own; they are listed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.edge.readings import Readings, Sensor
from gateway.edge.source import Topic
from sensors import discovery
from sensors.formats import Announcement
from sensors.kinds import Kind

_MOST_ANNOUNCED = 4096  # quantities
_SHOWN = 100  # devices


@dataclass(slots=True)
class _Device:
    called: str
    topic: str
    source: str
    devices: str
    messages: int = 0
    last: int = 0  # ms UTC
    values: dict[str, float] = field(default_factory=dict)


class Discoveries:
    """Devices that are heard, or announced, and not declared.

    Args:
        kinds: Kinds by name, of which some may fit.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._devices: dict[Sensor, _Device] = {}
        self._announced: dict[tuple[str, tuple[str, ...]], Announcement] = {}  # by topic and path

    def __len__(self) -> int:
        """Number of devices that are heard."""
        return len(self._devices)

    def appeared(self, sensor: Sensor, topic: Topic, called: str) -> None:
        """Notes a device that is heard for the first time.

        Args:
            sensor: As it is held.
            topic: Where it was heard.
            called: What its payload calls it, else its topic.
        """
        config = topic.source.config
        self._devices.setdefault(sensor, _Device(called, topic.text, config.name, str(config.devices)))

    def heard(self, readings: Readings) -> None:
        """Notes what such devices say."""
        if not self._devices:
            return
        for row, sensor in enumerate(readings.sensors):
            if (device := self._devices.get(sensor)) is not None:
                start = int(readings.starts[row])
                names = readings.layouts[row].names
                device.messages += 1
                device.last = max(device.last, int(readings.times[row]))
                device.values.update(zip(names, readings.value[start : start + len(names)].tolist(), strict=True))

    def announce(self, announced: Iterable[Announcement]) -> None:
        """Notes what devices announce of themselves."""
        for one in announced:
            if len(self._announced) < _MOST_ANNOUNCED or (one.topic, one.path) in self._announced:
                self._announced[one.topic, one.path] = one

    def report(self) -> list[dict[str, object]]:
        """The devices, the latest first, a hundred at most, then what was announced.

        Returns:
            Of each ``device``, ``topic``, ``quantities`` with the last value of each, ``messages`` heard, ``last`` time
            (ms UTC, 0 if it was only announced), ``declare``: a declaration, in TOML, and ``where`` it goes.
        """
        found: list[dict[str, object]] = []
        for sensor, its in sorted(self._devices.items(), key=lambda item: -item[1].last)[:_SHOWN]:
            found.append(
                {
                    "device": its.called,
                    "topic": its.topic,
                    "source": its.source,
                    "quantities": {name: value if math.isfinite(value) else None for name, value in its.values.items()},
                    "messages": its.messages,
                    "last": its.last,
                    "declare": discovery.device(its.called, sensor.name, sensor.site, its.values, self._kinds),
                    "where": its.devices,
                }
            )
        by_topic: dict[str, list[Announcement]] = {}
        for one in self._announced.values():
            by_topic.setdefault(one.topic, []).append(one)
        for topic, announced in [*by_topic.items()][:_SHOWN]:
            name = discovery.cleaned(announced[0].device)
            found.append(
                {
                    "device": announced[0].device,
                    "topic": topic,
                    "source": None,
                    "quantities": dict.fromkeys(one.quantity for one in announced),
                    "messages": 0,
                    "last": 0,
                    "declare": discovery.source(name, announced, self._kinds),
                    "where": "the gateway's configuration",
                }
            )
        return found
