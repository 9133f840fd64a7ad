"""The columns that a batch is judged in, and the channels that they refer to.

A *channel* is one quantity of one sensor. Its number is its place in every array of limits and state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.edge.batch import DeadLetter
from sensors.kinds import SEVERITIES, Quantity

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

GOOD, UNKNOWN, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
"""QARTOD flags: good, not evaluated, suspect, fail, missing."""


class Channel:
    """One quantity of one sensor, as declared."""

    __slots__ = ("factor", "index", "kind", "offset", "quantity", "rules", "sensor", "site")

    def __init__(self, index: int, sensor: "Sensor", quantity: str, rules: Quantity | None) -> None:
        self.index = index
        self.kind, self.site, self.sensor = sensor.kind, sensor.site, sensor.name
        self.quantity = quantity
        self.rules = rules
        self.factor, self.offset = sensor.conversions.get(quantity, (1.0, 0.0))


class Shape:
    """The quantities of one sensor's message, in the message's order."""

    __slots__ = ("channels", "good", "names")

    def __init__(self, names: tuple[str, ...], channels: list[int], good: str) -> None:
        self.names = names
        self.channels = channels
        self.good = good  # line protocol of an all-good message, as a %-template of its values and its time


class Sensor:
    """One sensor as its topic names it."""

    __slots__ = ("conversions", "kind", "name", "prefix", "shapes", "site", "source")

    def __init__(  # noqa: PLR0913, PLR0917 - a plain record
        self, source: str, kind: str, site: str, name: str, prefix: str, conversions: Mapping[str, tuple[float, float]]
    ) -> None:
        self.source, self.kind, self.site, self.name = source, kind, site, name
        self.prefix = prefix  # measurement and tags in line protocol
        self.conversions = conversions
        self.shapes: dict[tuple[str, ...], Shape] = {}


@dataclass(slots=True)
class Readings:
    """A batch after decoding: m messages with n values in all.

    Attributes:
        sensors: Sensor of each message, [m].
        shapes: Quantities of each message, [m].
        times: int64[m], observed, ms UTC.
        starts: int64[m], where the values of each message start.
        channel: int64[n].
        time: int64[n], observed, ms UTC.
        value: float64[n], in the kind's unit; NaN where missing.
        flag: uint8[n], QARTOD, 0 before *inspect*.
        reason: int64[n], bit set of ``inspect.Reason``.
        duplicates: Source → values of messages that had been seen already.
        dead: What could not be read.
    """

    sensors: list[Sensor]
    shapes: list[Shape]
    times: Ints
    starts: Ints
    channel: Ints
    time: Ints
    value: Floats
    flag: Bytes
    reason: Ints
    duplicates: dict[str, int] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)


class Channels:
    """All channels and their limits, as arrays that grow by doubling.

    A limit that a channel does not have is infinite, so that no test needs to ask whether there is one.
    """

    def __init__(self) -> None:
        self.all: list[Channel] = []
        self._by_name: dict[tuple[str, ...], Channel] = {}
        self._capacity = 0
        self.factor = self.offset = np.empty(0)
        self.fail_low = self.fail_high = self.suspect_low = self.suspect_high = np.empty(0)
        self.step = self.flat_suspect = self.flat_fail = self.flat_tolerance = np.empty(0)
        self.exempt_low = self.exempt_high = np.empty(0)
        self.direction = self.evaluated = np.empty(0, bool)
        self.above = self.below = np.empty((0, len(SEVERITIES)))
        self.converts = False

    def __len__(self) -> int:
        """Number of channels."""
        return len(self.all)

    def get(self, sensor: Sensor, quantity: str, rules: Quantity | None) -> Channel:
        """The channel of a sensor's quantity, made when it is new."""
        name = (sensor.source, sensor.kind, sensor.site, sensor.name, quantity)
        if (channel := self._by_name.get(name)) is None:
            channel = Channel(len(self.all), sensor, quantity, rules)
            self._by_name[name] = channel
            self.all.append(channel)
            self._fill(channel)
        return channel

    def _fill(self, channel: Channel) -> None:
        index, rules = channel.index, channel.rules
        if index >= self._capacity:
            self._grow()
        self.factor[index], self.offset[index] = channel.factor, channel.offset
        self.converts = self.converts or (channel.factor, channel.offset) != (1.0, 0.0)
        if rules is None:
            return
        self.evaluated[index] = True
        self.direction[index] = rules.direction
        if rules.fail:
            self.fail_low[index], self.fail_high[index] = rules.fail
        if rules.suspect:
            self.suspect_low[index], self.suspect_high[index] = rules.suspect
        if rules.step is not None:
            self.step[index] = rules.step
        if rules.flat is not None:
            flat = rules.flat
            self.flat_suspect[index] = flat.suspect * 1000
            self.flat_fail[index] = np.inf if flat.fail is None else flat.fail * 1000
            self.flat_tolerance[index] = flat.tolerance
            self.exempt_low[index] = -np.inf if flat.exempt_below is None else flat.exempt_below
            self.exempt_high[index] = np.inf if flat.exempt_above is None else flat.exempt_above
        for limit in rules.events:
            level = SEVERITIES.index(limit.severity)
            if limit.above is not None:
                self.above[index, level] = limit.above
            if limit.below is not None:
                self.below[index, level] = limit.below

    def _grow(self) -> None:
        self._capacity = max(256, 2 * self._capacity)

        def wider(old: npt.NDArray[np.generic], fill: float) -> npt.NDArray[np.generic]:
            new = np.full((self._capacity, *old.shape[1:]), fill, old.dtype)
            new[: len(old)] = old
            return new

        for names, fill in (
            (("factor",), 1.0),
            (("offset", "flat_tolerance", "direction", "evaluated"), 0.0),
            (("fail_low", "suspect_low", "exempt_low", "below"), -np.inf),
            (("fail_high", "suspect_high", "step", "flat_suspect", "flat_fail", "exempt_high", "above"), np.inf),
        ):
            for name in names:
                setattr(self, name, wider(getattr(self, name), fill))
