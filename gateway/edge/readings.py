"""The columns that a batch is judged in, and the channels that they refer to.

A *channel* is one quantity of one sensor. Its number is its place in every array of state. What all sensors of a kind
have in common is kept once: the *rule* of a quantity, and the *layout* of a message.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gateway.config import DiscoverConfig, SourceConfig
from gateway.edge.batch import DeadLetter, Held, Taken
from gateway.edge.units import AS_SENT, Conversion
from sensors.formats import Answer, Format
from sensors.kinds import SEVERITIES, Check, Flat, Kind, Quantity, Title
from sensors.kinds.expressions import read

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)

REPEATED, GOOD, UNKNOWN, SUSPECT, FAIL, MISSING = 0, 1, 2, 3, 4, 9
"""QARTOD flags: good, not evaluated, suspect, fail, missing; and 0 for what is no reading of its own."""


class Rule(NamedTuple):
    """How one quantity of one kind is converted and judged.

    Attributes:
        quantity: Its name.
        limits: As the kind declares it; None for a quantity that the kind does not know.
        conversion: From the unit in which values are sent.
        gap: Seconds without a value after which the next one is the first after a gap.
    """

    quantity: str
    limits: Quantity | None = None
    conversion: Conversion = AS_SENT
    gap: float = math.inf


NO_RULE = Rule("")
_ANY = (-math.inf, math.inf)
_UNLIMITED = Quantity(title=Title(zh="", en="", ko=""), unit="")
_NEVER_FLAT = Flat.model_construct(suspect=math.inf)


class Rules:
    """All rules as arrays, one element a rule. A limit that a rule does not have is infinite, so no test has to ask.

    Args:
        rules: The first is the one of quantities that no kind knows.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        known = [rule.limits or _UNLIMITED for rule in rules]
        flats = [quantity.flat or _NEVER_FLAT for quantity in known]
        self.all = rules
        self.times, self.plus, self.over = np.array([rule.conversion for rule in rules]).T
        self.converts = any(rule.conversion != AS_SENT for rule in rules)
        self.unjudged = np.array([GOOD if rule.limits else UNKNOWN for rule in rules], np.uint8)
        self.direction = np.array([quantity.direction for quantity in known])
        self.fail_low, self.fail_high = np.array([quantity.fail or _ANY for quantity in known]).T
        self.suspect_low, self.suspect_high = np.array([quantity.suspect or _ANY for quantity in known]).T
        self.healthy_low, self.healthy_high = np.array([quantity.healthy or _ANY for quantity in known]).T
        self.diagnostic = np.array([quantity.healthy is not None for quantity in known])
        self.gap = np.array([rule.gap * 1000 for rule in rules])
        self.step = _or_infinite(quantity.step for quantity in known)
        spikes = [quantity.spike for quantity in known]
        self.spike = _or_infinite(spike.suspect if spike else None for spike in spikes)
        self.averages = np.array([spike is not None and spike.method == "average" for spike in spikes])
        # a change from the value before below which there is no spike
        self.unspiky = np.where(self.averages, -1, self.spike)
        self.flat_suspect = np.array([flat.suspect * 1000 for flat in flats])
        self.flat_fail = _or_infinite(flat.fail for flat in flats) * 1000
        self.tolerance = np.array([flat.tolerance for flat in flats])
        self.exempt_low = -_or_infinite(None if flat.exempt_below is None else -flat.exempt_below for flat in flats)
        self.exempt_high = _or_infinite(flat.exempt_above for flat in flats)
        # of the adaptive detector: 0 for an angle, a diagnosis, and what no kind knows
        judged = [rule.limits is not None and not (rule.limits.direction or rule.limits.healthy) for rule in rules]
        self.sensitivity = np.array([quantity.sensitivity for quantity in known]) * judged
        self.attenuation = [quantity.attenuated for quantity in known]
        self.climatology = [quantity.climatology for quantity in known]
        self.above = np.full((len(rules), len(SEVERITIES)), np.inf)
        self.below = np.full((len(rules), len(SEVERITIES)), -np.inf)
        for index, quantity in enumerate(known):
            for limit in quantity.events:
                level = SEVERITIES.index(limit.severity)
                if limit.above is not None:
                    self.above[index, level] = limit.above
                if limit.below is not None:
                    self.below[index, level] = limit.below
        self.mildest_above = self.above.min(1)
        self.mildest_below = self.below.max(1)
        self.mildest = [*zip(self.mildest_above.tolist(), self.mildest_below.tolist(), strict=True)]


def _or_infinite(values: Iterable[float | None]) -> Floats:
    return np.array([math.inf if value is None else value for value in values])


class Layout:
    """The quantities of a message in their order, shared by all sensors of a family.

    Attributes:
        names: Names of the quantities.
        rules: int32, the rule of each.
        checks: What they must not say together.
        good: What *template* is asked for when all is well: a flag a quantity.
    """

    __slots__ = ("_templates", "checks", "good", "names", "rules")

    def __init__(self, names: tuple[str, ...], rules: Sequence[int], checks: Sequence[Check] = ()) -> None:
        self.names = names
        self.checks = [Together(check, names) for check in checks if check.names <= {*names}]
        self.rules = np.array(rules, np.int32)
        self.good = bytes([GOOD]) * len(names)
        self._templates: dict[bytes, tuple[str, list[int], list[int]]] = {}

    def template(self, flags: bytes) -> tuple[str, list[int], list[int]]:
        """Line protocol of messages with these flags.

        Args:
            flags: A flag a quantity; 0 where nothing of it is written.

        Returns:
            A %-template of prefix, values, reasons and time, and the places of the values and of the reasons that it
            takes; empty when the flags leave nothing to write.
        """
        if (found := self._templates.get(flags)) is None:
            fields, places, doubtful = [], [], []
            for place, (name, flag) in enumerate(zip(self.names, flags, strict=True)):
                if flag in {GOOD, UNKNOWN, SUSPECT}:
                    fields.append(f"{name}=%s")
                    places.append(place)
                if flag != REPEATED:
                    fields.append(f"{name}_qc={flag}i")
                if flag == SUSPECT:
                    doubtful.append(place)
            fields += [f"{self.names[place]}_reason=%di" for place in doubtful]
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            found = self._templates[flags] = (f"%s {','.join(fields)} %d" if fields else "", places, doubtful)
        return found


class Together:
    """A rule on the quantities of a message, at their places in a layout.

    Attributes:
        places: Quantity → place in the message, of those that the rule names.
        expect, when: Conditions on columns by quantity, if any.
        same: Places of the quantities that must not all stay as they are for too long.
        longest: How long they may, ms; None if *expect* is the rule.
        blamed: Places of the quantities that are suspect when the rule is broken.
    """

    def __init__(self, check: Check, names: Sequence[str]) -> None:
        self.places = {name: names.index(name) for name in sorted(check.names)}
        self.expect = read(check.expect).holds if check.expect else None
        self.when = read(check.when).holds if check.when else None
        self.longest = None if check.longest is None else check.longest * 1000
        self.same = [names.index(name) for name in check.same or ()]
        self.blamed = [names.index(name) for name in check.blamed if name in names]


NO_LAYOUT = Layout((), ())
_MOST_TEMPLATES = 64  # of one layout, so that noise cannot fill the memory


class Family:
    """The sensors of one kind in one source: they have payload format, rules and layouts in common.

    Attributes:
        source: The source's name on the ledger.
        kind: The kind's name.
        rules: Quantity → place in ``Channels.rules``.
        checks: What quantities of one message must not say together.
        format: Reads the payloads.
        bound: Whether the broker has to name the sensor as the sender.
        gas_at: Temperature and pressure at which a volume of gas has its mass, if the source says.
        layouts: By the names of the quantities.
    """

    __slots__ = ("bound", "checks", "format", "gas_at", "kind", "layouts", "rules", "source")

    def __init__(
        self, source: SourceConfig | DiscoverConfig, kind: Kind, rules: Mapping[str, int], payloads: Format
    ) -> None:
        self.source = source.name
        self.kind = kind.name
        self.rules = rules
        self.checks = kind.rules
        self.format = payloads
        self.bound = source.sender is not None
        self.gas_at = source.gas_at
        self.layouts: dict[tuple[str, ...], Layout] = {}

    def with_rules(self, rules: Mapping[str, int]) -> "Family":
        """The same family with other limits."""
        other = copy.copy(self)
        other.rules, other.layouts = rules, {}
        return other

    def layout(self, names: tuple[str, ...]) -> Layout:
        """The layout of these quantities; most messages have one that is known."""
        if (layout := self.layouts.get(names)) is None:
            if len(self.layouts) >= _MOST_LAYOUTS:
                self.layouts.clear()
            layout = self.layouts[names] = Layout(names, [self.rules.get(name, 0) for name in names], self.checks)
        return layout


_MOST_LAYOUTS = 1024  # of one family
_LONGEST_BURST = 60_000  # ms


class Sensor:
    """One sensor as its topic names it, and how its last message was laid out.

    Attributes:
        family: Its source and kind.
        site: Where it is.
        name: Its name.
        prefix: Measurement and tags in line protocol.
        number: Its place in ``Channels.sensors``.
        home: Layout of its first message.
        base: Channel of the first quantity of *home*; the others follow.
        channels: Quantity → channel, of those that came later.
        layout: Layout of its last message.
        names: The same as ``layout.names``; None before the first message.
        first: Channel of the first quantity of *layout*, the others follow; or, if negative, where to find them all.
    """

    __slots__ = (
        "_arrived",
        "base",
        "channels",
        "family",
        "first",
        "home",
        "layout",
        "name",
        "names",
        "number",
        "prefix",
        "site",
    )

    def __init__(self, family: Family, site: str, name: str, prefix: str, number: int) -> None:
        self.family = family
        self.site, self.name = site, name
        self.prefix = prefix
        self.number = number
        self.home = self.layout = NO_LAYOUT
        self.names: tuple[str, ...] | None = None
        self.base = self.first = 0
        self.channels: dict[str, int] | None = None
        self._arrived = 0

    def channel(self, name: str) -> int:
        """The channel of a quantity that was entered."""
        if name in self.home.names:
            return self.base + self.home.names.index(name)
        return (self.channels or {})[name]

    def arrive(self, time: int) -> int:
        """The time of a message that has none of its own: of its arrival, but no two of a sensor have the same.

        Args:
            time: Of arrival, ms UTC.
        """
        burst = self._arrived - _LONGEST_BURST < time <= self._arrived  # else the clock was set back
        self._arrived = self._arrived + 1 if burst else time
        return self._arrived


@dataclass(slots=True)
class Readings:
    """A batch after decoding: m messages with n values in all.

    Attributes:
        sensors: Sensor of each message, [m].
        layouts: Quantities of each message, [m].
        times: int64[m], observed, ms UTC.
        starts: int64[m], where the values of each message start.
        channel: int64[n].
        rule: int32[n], place in ``Channels.rules``.
        time: int64[n], observed, ms UTC.
        value: float64[n], in the kind's unit; NaN where missing.
        flag: uint8[n], QARTOD, 0 before *inspect*.
        reason: int32[n], bit set of ``inspect.Reason``.
        keys: Of the messages read, by which a redelivery is known.
        held: Messages that wait for the clock.
        duplicates: Source → values of messages that had been seen already.
        dead: What could not be read.
        sightings: Sensor, observation time (ms UTC) and what was personal in a message.
        answers: What senders wait for, once their messages are on disk.
        gone: Sensors that are reported to have left.
    """

    sensors: list[Sensor]
    layouts: list[Layout]
    times: Ints
    starts: Ints
    channel: Ints
    rule: Indices
    time: Ints
    value: Floats
    flag: Bytes
    reason: Indices
    keys: list[int] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)
    sightings: list[tuple[Sensor, int, Taken]] = field(default_factory=list, repr=False)
    answers: list[Answer] = field(default_factory=list)
    gone: list[Sensor] = field(default_factory=list)


class Channels:
    """All sensors and channels: whose each channel is, and by which rule it is judged."""

    def __init__(self) -> None:
        self.sensors: list[Sensor] = []
        self.rules = Rules([NO_RULE])
        self.rule = np.empty(0, np.int32)
        self.owner = np.empty(0, np.int32)  # place in `sensors`
        self._count = 0

    def __len__(self) -> int:
        """Number of channels."""
        return self._count

    def add(self, sensor: Sensor, rules: Sequence[int] | Indices) -> int:
        """Enters channels of a sensor, one a rule.

        Returns:
            The first one's number; the others follow.
        """
        first, self._count = self._count, self._count + len(rules)
        if self._count > len(self.rule):
            self.rule = widened(self.rule, self._count)
            self.owner = widened(self.owner, self._count)
        self.rule[first : self._count] = rules
        self.owner[first : self._count] = sensor.number
        return first


def widened(array: npt.NDArray[_Scalar], count: int) -> npt.NDArray[_Scalar]:
    """A longer copy, with room for half as many again; what is beyond the old elements is undefined."""
    wider = np.empty((max(256, count + count // 2), *array.shape[1:]), array.dtype)
    wider[: len(array)] = array
    return wider
