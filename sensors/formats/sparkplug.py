"""Sparkplug B 3.0 (Eclipse): edge nodes and their devices, who say at birth what they will send.

A birth names a node's or a device's metrics; data may then hold their aliases only. So the last birth of each is kept.
Data that no birth explains, or a gap in the sequence numbers, lets the node be asked for a new birth. A death is that
of the session that its ``bdSeq`` names, so that the late death of an earlier one ends nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from pydantic import Field

from sensors.durations import Duration
from sensors.formats import Answer, Declared, Decoded, Format, Options, PayloadError, Quality, Sample
from sensors.formats.objects import printable, written

_NAMESPACE = "spBv1.0"
_OF_NODES = {"NBIRTH", "NDATA", "NDEATH", "NCMD"}
_OF_DEVICES = {"DBIRTH", "DDATA", "DDEATH", "DCMD"}
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}  # datatype → bits, of Int8 to Int64
_BOOLEAN = 11
_NUMERIC = range(12)  # Unknown, Int8 to UInt64, Float, Double, Boolean
_NUMBERS = {"int_value", "long_value", "float_value", "double_value", "boolean_value"}
_SESSION = b"bdSeq"
_CONTROLS = ("Node Control/", "Device Control/")
_REBIRTH = b"Node Control/Rebirth"
_COMPRESSED = b"SPBV1.0_COMPRESSED"
_UNNAMED = ": no birth names it"
_SEQUENCE = 256
_LONGEST_UNIT = 40
_MOST_HELD = 65_536  # nodes, devices and metrics
_MOST_TOPICS = 4096
_MOST_ASKED = 1024  # nodes within ``rebirth_every``
_Built = Any
"""A message, or a part of one: their classes are built at run time."""
_PM25 = {"pm2.5": "pm25", "pm2_5": "pm25"}


class SparkplugOptions(Options):
    """Options of ``sparkplug``."""

    rebirth: bool = Field(
        default=True, description="whether a node whose data no birth explains is asked for a new one"
    )
    rebirth_every: Duration = Field(60.0, gt=0, description="a node is asked at most once in this time, such as `30s`")
    eng_unit: bool = Field(default=True, description="whether the property `engUnit` of a metric is its unit")
    qualify: bool = Field(
        default=False, description="whether a device is called `EDGE.DEVICE`, for nodes whose devices share their names"
    )


def _message() -> _Built:
    """The class of payloads, with the fields that are read here; others are passed over."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="citygate_sparkplug.proto", package="citygate", syntax="proto2")

    def add(name: str, *fields: tuple[int, str, Any], repeated: Iterable[str] = ()) -> None:
        message = file.message_type.add(name=name)
        oneof = None
        for number, label, kind in fields:
            entry = message.field.add(name=label, number=number)
            entry.label = kinds.LABEL_REPEATED if label in repeated else kinds.LABEL_OPTIONAL
            if isinstance(kind, str):
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".citygate.{kind}"
            else:
                entry.type = kind
            if label.endswith("_value"):
                oneof = oneof or message.oneof_decl.add(name="value")
                entry.oneof_index = 0

    # text is read as bytes: what is no UTF-8 costs its metric, not the payload
    add(
        "Payload",
        (1, "timestamp", kinds.TYPE_UINT64),
        (2, "metrics", "Metric"),
        (3, "seq", kinds.TYPE_UINT64),
        (4, "uuid", kinds.TYPE_BYTES),
        repeated=["metrics"],
    )
    add(
        "Metric",
        (1, "name", kinds.TYPE_BYTES),
        (2, "alias", kinds.TYPE_UINT64),
        (3, "timestamp", kinds.TYPE_UINT64),
        (4, "datatype", kinds.TYPE_UINT32),
        (5, "is_historical", kinds.TYPE_BOOL),
        (7, "is_null", kinds.TYPE_BOOL),
        (9, "properties", "PropertySet"),
        (10, "int_value", kinds.TYPE_UINT32),
        (11, "long_value", kinds.TYPE_UINT64),
        (12, "float_value", kinds.TYPE_FLOAT),
        (13, "double_value", kinds.TYPE_DOUBLE),
        (14, "boolean_value", kinds.TYPE_BOOL),
        (15, "string_value", kinds.TYPE_BYTES),
    )
    add(
        "PropertySet",
        (1, "keys", kinds.TYPE_BYTES),
        (2, "values", "PropertyValue"),
        repeated=["keys", "values"],
    )
    add(
        "PropertyValue",
        (3, "int_value", kinds.TYPE_UINT32),
        (4, "long_value", kinds.TYPE_UINT64),
        (8, "string_value", kinds.TYPE_BYTES),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("citygate.Payload"))


_PAYLOAD = _message()


class _Topic(NamedTuple):
    """What a topic says."""

    what: str
    """``BIRTH``, ``DATA``, ``DEATH``, or nothing for what is of no interest."""
    node: str
    """Topic levels of the edge node, with ``NCMD`` in place of the message type: where it takes commands."""
    device: str
    """Name of the device; empty for the node itself."""
    sensor: str


@dataclass(slots=True)
class _Metric:
    """A metric as its birth describes it.

    Attributes:
        name: Its name.
        quantity: What it is called here; empty when it is no reading.
        datatype: Its type, which data may leave out.
        unit: Its engineering unit; empty when the birth states none.
    """

    name: str
    quantity: str
    datatype: int
    unit: str = ""


@dataclass(slots=True)
class _Family:
    """The metrics of one node or device, as its last birth names them."""

    sensor: str
    alive: bool = False
    aliases: dict[int, _Metric] = field(default_factory=dict)
    names: dict[bytes, _Metric] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """An edge node's session.

    Attributes:
        alive: Between its birth and its death.
        session: ``bdSeq`` of the birth; None when it had none.
        born: Time of the birth, ms; 0 before one is known.
        seq: Sequence number of the last message; None before there is one.
        latest: Time of the last message, ms.
        lacking: Whether a birth is waited for.
        asked: When it was asked for; None when it was not.
        held: How much memory it is counted for.
        families: Metrics of the node itself (under the empty name) and of its devices.
    """

    alive: bool = False
    session: int | None = None
    born: int = 0
    seq: int | None = None
    latest: int = 0
    lacking: bool = False
    asked: int | None = None
    held: int = 0
    families: dict[str, _Family] = field(default_factory=dict)


class Sparkplug(Format):
    """Reads Sparkplug B: the births, data and deaths of edge nodes and their devices."""

    names_sensors = True
    options = SparkplugOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = SparkplugOptions.model_validate(declared.options)
        self._asks, self._every = options.rebirth, int(options.rebirth_every * 1000)
        self._believes_units, self._qualifies = options.eng_unit, options.qualify
        self._topics: dict[str, _Topic] = {}
        self._nodes: dict[str, _Node] = {}  # by where they take commands, the longest known birth first
        self._held = 0
        self._asked: tuple[int, int] = (0, 0)  # since when, ms, and how many

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:
        """Reads one message.

        Raises:
            PayloadError: If the topic is not Sparkplug's, or the payload is none of it; names the byte or the key.
        """
        place = self._topics.get(topic) or self._place(topic)
        if not place.what:
            return Decoded([])
        message = _read(payload)
        if (node := self._nodes.get(place.node)) is None:
            node = _Node()
            self._keep(place.node, node)
        if place.what == "DATA":
            samples = self._data(node, place, message)
        elif place.what == "BIRTH":
            samples = self._birth(node, place, message)
        elif place.device:
            samples = self._device_death(node, place, message)
        else:
            return Decoded(_node_death(node, place, message))
        return Decoded(samples, self._ask(node, place, received) if node.lacking and self._asks else ())

    def _place(self, topic: str) -> _Topic:
        """What a topic says; found once for each."""
        levels = topic.split("/")
        start = levels.index(_NAMESPACE) if _NAMESPACE in levels else len(levels)
        match levels[start + 1 :]:
            case ["STATE", *_]:
                place = _Topic("", "", "", "")
            case [group, what, edge] if what in _OF_NODES and group and edge:
                place = _Topic(what[1:], "/".join([*levels[: start + 2], "NCMD", edge]), "", edge)
            case [group, what, edge, device] if what in _OF_DEVICES and group and edge and device:
                sensor = f"{edge}.{device}" if self._qualifies else device
                place = _Topic(what[1:], "/".join([*levels[: start + 2], "NCMD", edge]), device, sensor)
            case _:
                msg = f"topic: expected {_NAMESPACE}/GROUP/TYPE/EDGE[/DEVICE], not {printable(topic)!r}"
                raise PayloadError(msg)
        if place.what == "CMD":
            place = _Topic("", "", "", "")
        if len(self._topics) >= _MOST_TOPICS:
            self._topics.clear()
        self._topics[topic] = place
        return place

    def _keep(self, name: str, node: _Node) -> None:
        """Keeps the memory bounded: the nodes whose birth is longest ago are forgotten, and asked for it again."""
        held = 1 + sum(1 + len(family.names) for family in node.families.values())
        self._held += held - node.held
        node.held = held
        self._nodes.pop(name, None)
        self._nodes[name] = node
        while self._held > _MOST_HELD:
            self._held -= self._nodes.pop(next(iter(self._nodes))).held

    def _birth(self, node: _Node, place: _Topic, message: _Built) -> list[Sample]:
        if place.device:
            _follow(node, message)
            node.lacking |= not node.alive
        elif not (node.alive and node.born and node.born == message.timestamp):
            for old in node.families.values():
                old.aliases, old.names = {}, {}  # devices are born again, after their node
            node.alive, node.lacking, node.session = True, False, _session(message)
            node.born = node.latest = message.timestamp
            node.seq = message.seq if message.HasField("seq") else None
        family = node.families.get(place.device)
        if family is None:
            family = node.families[place.device] = _Family(place.sensor)
        problems: list[str] = []
        self._describe(family, message, problems)
        family.alive = True
        self._keep(place.node, node)
        return self._samples(family, message, problems, birth=True)

    def _describe(self, family: _Family, message: _Built, problems: list[str]) -> None:
        """Takes the names, aliases, types and units from a birth."""
        names: dict[bytes, _Metric] = {}
        aliases: dict[int, _Metric] = {}
        shared: set[int] = set()
        for place, metric in enumerate(message.metrics):
            try:
                name = metric.name.decode()
            except UnicodeDecodeError as error:
                problems.append(f"metrics[{place}].name: byte {error.start} is not UTF-8")
                continue
            if not name:
                problems.append(f"metrics[{place}].name: a birth names its metrics, and this one has none")
                continue
            known = _Metric(name, self._named(name, metric.datatype), metric.datatype)
            names[metric.name] = known
            if metric.HasField("alias") and (other := aliases.setdefault(metric.alias, known)) is not known:
                shared.add(metric.alias)
                problems.append(f"metrics[{place}].alias: {metric.alias} is that of {printable(other.name)!r}, too")
        for alias in shared:
            del aliases[alias]
        self._tell_apart(names.values(), problems)
        family.names, family.aliases = names, aliases

    def _tell_apart(self, metrics: Iterable[_Metric], problems: list[str]) -> None:
        """Metrics whose last level is the same are called by all their levels, each of them."""
        counts = Counter(known.quantity for known in metrics)
        taken: set[str] = set()
        for known in sorted(metrics, key=lambda known: known.name not in self.rename):
            if counts[known.quantity] > 1 and known.quantity and known.name not in self.rename:
                known.quantity = _cleaned(known.name.replace("/", "_"))
            if known.quantity in taken:
                problems.append(f"{printable(known.name)}: another metric is called {known.quantity!r}, too: rename it")
                known.quantity = ""
            elif known.quantity:
                taken.add(known.quantity)

    def _renamed(self, name: str) -> str | None:
        return self.rename.get(name) or self.rename.get(name.rpartition("/")[2])

    def _named(self, name: str, datatype: int) -> str:
        """The quantity of a metric; empty when it is no reading."""
        if (renamed := self._renamed(name)) is not None:
            return renamed
        if datatype not in _NUMERIC or name == "bdSeq" or name.startswith(_CONTROLS):
            return ""
        return _cleaned(name.rpartition("/")[2])

    def _data(self, node: _Node, place: _Topic, message: _Built) -> list[Sample]:
        repeated = _follow(node, message)
        family = node.families.get(place.device)
        usable = family is not None and (family.alive or node.alive or repeated)
        if family is None or not usable or (repeated and message.timestamp < node.born):
            family = _Family(place.sensor)  # knows nothing
        if not repeated:
            node.lacking |= not (node.alive and family.alive)
        problems: list[str] = []
        samples = self._samples(family, message, problems)
        if problems and not repeated:
            node.lacking |= any(problem.endswith(_UNNAMED) for problem in problems)
        return samples

    def _samples(self, family: _Family, message: _Built, problems: list[str], *, birth: bool = False) -> list[Sample]:
        """The values of a message, one sample a time; what cannot be read is added to the problems."""
        names, aliases, sensor = family.names, family.aliases, family.sensor
        samples: dict[tuple[int, bool], Sample] = {}
        default = message.timestamp
        for metric in message.metrics:
            raw = metric.name
            known = names.get(raw) if raw else aliases.get(metric.alias)
            if known is None and not birth:
                called = printable(raw.decode(errors="replace")) if raw else f"alias {metric.alias}"
                problems.append(f"{called}{_UNNAMED}")
            if known is None or not (quantity := known.quantity):
                continue
            try:
                value = _number(metric, known.datatype)
            except ValueError as error:
                problems.append(f"{printable(known.name)}: {error}")
                continue
            moment = (metric.timestamp or default, metric.is_historical)
            if (sample := samples.get(moment)) is None:
                sample = Sample(_time(moment[0]), sensor=sensor, historical=moment[1], units={}, quality={})
                samples[moment] = sample
            sample.values[quantity] = value
            if metric.HasField("properties"):
                self._properties(metric.properties, known, sample.quality)  # type: ignore[arg-type]
            if known.unit:
                sample.units[quantity] = known.unit  # type: ignore[index]
        found = list(samples.values())
        if problems:
            found = found or [Sample(_time(default), sensor=sensor)]
            found[0].problems = tuple(problems)
        return found

    def _properties(self, sent: _Built, known: _Metric, quality: dict[str, Quality]) -> None:
        """Reads what a metric says of itself: its quality, and its unit, which holds until another one is told."""
        for key, value in zip(sent.keys, sent.values, strict=False):
            match key.lower():
                case b"quality" if (code := value.WhichOneof("value")) in _NUMBERS:
                    if (said := _quality(getattr(value, code))) is not None:
                        quality[known.quantity] = said
                case b"engunit" if self._believes_units:
                    unit = value.string_value.decode(errors="replace").strip()
                    known.unit = unit if len(unit) <= _LONGEST_UNIT else ""

    def _device_death(self, node: _Node, place: _Topic, message: _Built) -> list[Sample]:
        _follow(node, message)
        if (family := node.families.get(place.device)) is not None:
            family.alive = False
        return [Sample(_time(message.timestamp), sensor=place.sensor, gone=True)]

    def _ask(self, node: _Node, place: _Topic, received: int) -> tuple[Answer, ...]:
        """Asks a node for its birth, unless it, or too many others, were asked a short time ago."""
        if node.asked is not None and abs(received - node.asked) < self._every:
            return ()
        since, count = self._asked
        if abs(received - since) >= self._every:
            since, count = received, 0
        if count >= _MOST_ASKED:
            return ()
        self._asked, node.asked = (since, count + 1), received
        message = _PAYLOAD(timestamp=max(received, 0))
        message.metrics.add(name=_REBIRTH, timestamp=message.timestamp, datatype=_BOOLEAN, boolean_value=True)
        return (Answer(place.node, message.SerializeToString()),)


def _follow(node: _Node, message: _Built) -> bool:
    """Takes a message's number and time; a gap before it means that a birth may be lacking.

    Returns:
        Whether the message was read before: then nothing is taken from it.
    """
    if message.HasField("seq"):
        if node.seq is not None and message.seq != (node.seq + 1) % _SEQUENCE:
            if message.timestamp and message.timestamp <= node.latest:
                return True
            node.lacking = True
        node.seq = message.seq
    node.latest = message.timestamp
    return False


def _session(message: _Built) -> int | None:
    """The number of a session, by which a death is known to be that of a birth."""
    for metric in message.metrics:
        if metric.name == _SESSION and (kind := metric.WhichOneof("value")) in {"int_value", "long_value"}:
            return int(getattr(metric, kind))
    return None


def _node_death(node: _Node, place: _Topic, message: _Built) -> list[Sample]:
    """The node and its devices have left, unless the death is that of an earlier session.

    It was written when the session began, so that its time says nothing.
    """
    session = _session(message)
    if session is not None and node.session is not None and session != node.session:
        return []
    gone = [place.sensor]
    node.alive = False
    for device, family in node.families.items():
        if device and family.alive:
            gone.append(family.sensor)
        family.alive = False
    return [Sample(sensor=sensor, gone=True) for sensor in gone]


def _number(metric: _Built, datatype: int) -> float:
    """A metric's value; NaN when it is null.

    Raises:
        ValueError: If it is no number; says what it is.
    """
    if metric.is_null:
        return math.nan
    kind = metric.WhichOneof("value")
    if kind == "double_value":
        value = metric.double_value
    elif kind == "float_value":
        value = float(f"{metric.float_value:.7g}")  # the digits that 32 bits have
    elif kind in {"int_value", "long_value"}:
        value = getattr(metric, kind)
        if (bits := _SIGNED.get(metric.datatype or datatype)) is not None:  # in two's complement, of any width
            value &= (1 << bits) - 1
            value -= (value >> (bits - 1)) << bits
        return float(value)
    elif kind == "boolean_value":
        return float(metric.boolean_value)
    elif kind == "string_value":
        text = metric.string_value.decode(errors="replace")
        try:
            value = written(text)
        except ValueError:
            msg = f"expected a number, not {text[:60]!r}"
            raise ValueError(msg) from None
    else:
        msg = "expected a number, found no value"
        raise ValueError(msg)
    if math.isinf(value):
        msg = f"expected a number, not {value}"
        raise ValueError(msg)
    return float(value)


def _time(sent: int) -> float:
    return float(sent) if sent else math.nan


def _quality(code: int) -> Quality | None:
    """What a code of quality says; None is good.

    Sparkplug has 0, 192 and 500. Beside them, those of OPC, whose upper two of eight bits tell, and those of 32 bits,
    whose upper two do.
    """
    if code >> 30 & 3:
        return Quality.BAD if code >> 31 & 1 else Quality.SUSPECT
    if code > 0xFF:  # noqa: PLR2004 - 500: stale
        return Quality.SUSPECT
    return (Quality.BAD, Quality.SUSPECT, Quality.SUSPECT, None)[code >> 6]


def _cleaned(name: str) -> str:
    """A metric's name as that of a quantity."""
    text = re.sub(r"[^\w.-]+", "_", name.strip().lower()).strip("_.-")[:60]
    text = _PM25.get(text, text)
    return text if text[:1].isalpha() else f"metric_{text}"


def _read(payload: bytes) -> _Built:
    try:
        message = _PAYLOAD.FromString(payload)
    except DecodeError as error:
        place = _fault(payload, 0, len(payload), {2: {9: {2: {}}}})
        found = repr(payload[place : place + 12]).removeprefix("b") if place < len(payload) else "the end"
        msg = f"byte {place}: expected a Sparkplug payload (protobuf), found {found}"
        raise PayloadError(msg) from error
    if message.uuid == _COMPRESSED:
        msg = "uuid: compressed payloads are not read"
        raise PayloadError(msg)
    return message


_Shape = dict[int, "_Shape"]


def _fault(data: bytes, position: int, end: int, below: _Shape) -> int:
    """The first byte of a message of protobuf that cannot be one; its end when all can.

    Args:
        data: The payload.
        position: Where the message starts.
        end: Where it ends.
        below: Numbers of the fields that are messages, and what is below them.
    """
    while position < end:
        start = position
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        if position > end or not 0 < number < 1 << 29:
            return start
        if wire == 0:
            _, position = _varint(data, position, end)
        elif wire in {1, 5}:
            position += 8 if wire == 1 else 4
        elif wire == 2:  # noqa: PLR2004 - length and bytes
            length, position = _varint(data, position, end)
            if number in below and position + length <= end:
                place = _fault(data, position, position + length, below[number])
                if place < position + length:
                    return place
            position += length
        else:
            return start
        if position > end:
            return start
    return end


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number and where it ends, which is beyond the end when it does not."""
    value = 0
    for place in range(10):
        if position + place >= end:
            break
        byte = data[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, position + place + 1
    return 0, end + 1
