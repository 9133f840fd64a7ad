"""``citygate decode``: what a payload becomes, step by step.

The steps are those of the edge: the bytes, what the format reads in them, each value in its kind's unit, what would be
answered, and what would be stored. Nothing is sent and nothing is written.
"""

import base64
import io
import json
import math
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic_core import PydanticUndefined
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.config import GatewayConfig, SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from gateway.edge.source import Source
from gateway.edge.units import UnitError, conversion
from sensors import discovery, formats, kinds
from sensors.formats import Declared, Format, FormatError, PayloadError, Sample
from sensors.formats.objects import printable
from sensors.kinds import Kind

_LONGEST = 1024  # signs of a name or a note
_SHOWN = 1024  # bytes of a payload that people are shown
_SCALES = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))  # a time below the bound: parts of a second


class UsageError(Exception):
    """What was asked for does not fit together; the message says what to change."""


class Message(NamedTuple):
    """A message as a broker would deliver it.

    Attributes:
        topic: Its topic; None when any will do.
        payload: Its bytes.
        received: Time of arrival, ms UTC.
    """

    topic: str | None
    payload: bytes
    received: int


class Value(TypedDict):
    """One value of a sample; None as a number is a missing one."""

    quantity: str
    sent: float | None
    unit: str
    stored: float | None
    stored_unit: str
    quality: str
    note: str


class Reading(TypedDict):
    """What one sample says; its time in ISO 8601 with offset, its sensor None where the topic tells."""

    sensor: str | None
    time: str | None
    historical: bool
    gone: bool
    values: list[Value]
    problems: list[str]


@dataclass(slots=True)
class Becomes:
    """What a message becomes.

    Attributes:
        topic: Its topic.
        kind: The kind of its sensor.
        bytes: Its size.
        text: The payload, where it is text; else None.
        hex: The payload, where it is none; else None.
        error: Why nothing of it could be read; None when something could.
        loose: In what it is not as its standard says, though it was read.
        readings: What was read.
        answers: What would be published: ``topic`` and ``text`` or ``hex``.
        stored: Line protocol, times in ms, by class: raw, quarantine, event.
        dead_letters: Reasons for which it, or a part of it, would be a dead letter.
    """

    topic: str
    kind: str | None
    bytes: int
    text: str | None
    hex: str | None
    error: str | None = None
    loose: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    answers: list[dict[str, str | None]] = field(default_factory=list)
    stored: dict[str, list[str]] = field(default_factory=dict)
    dead_letters: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all of it could be read."""
        return not (self.error or self.dead_letters or any(reading["problems"] for reading in self.readings))


def messages(
    files: Sequence[Path], topics: Sequence[str], received: str | None, *, encoding: Literal["hex", "base64"] | None
) -> list[Message]:
    """Reads payloads.

    Args:
        files: One payload each; ``-`` is stdin.
        topics: None, one for all payloads, or one for each.
        received: Time of arrival, RFC 3339 with offset or ms since 1970; now by default.
        encoding: How the bytes are written; as they are by default.

    Raises:
        UsageError: If a file cannot be read, or does not hold what it should, or the topics are too few or too many.
    """
    if not files:
        msg = "name a file with the payload, or - for stdin"
        raise UsageError(msg)
    if len(topics) not in {0, 1, len(files)}:
        msg = f"--topic: {len(topics)} topics for {len(files)} payloads; give one, or one for each"
        raise UsageError(msg)
    moment = _arrival(received)
    of_each: Sequence[str | None] = [*topics] * len(files) if len(topics) == 1 else topics or [None] * len(files)
    return [Message(topic, _bytes(file, encoding), moment) for file, topic in zip(files, of_each, strict=True)]


def _bytes(file: Path, encoding: Literal["hex", "base64"] | None) -> bytes:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        msg = f"cannot read {file}: {error.strerror}"
        raise UsageError(msg) from error
    try:
        match encoding:
            case "hex":
                return bytes.fromhex(data.decode("ascii"))
            case "base64":
                return base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError as error:
        msg = f"{file}: this is no {encoding}: {error}"
        raise UsageError(msg) from error
    return data


def _arrival(text: str | None) -> int:
    if text is None:
        return int(datetime.now(UTC).timestamp() * 1000)
    if text.isascii() and text.isdigit():
        return int(text)
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.timestamp() * 1000)
    msg = f"--received: expected a time with its offset from UTC, or ms since 1970, not {text!r}"
    raise UsageError(msg)


class Way:
    """The way of the messages of one source; what it remembers of one holds for the next.

    Args:
        source: The source.
        known: Kinds by name.
        gateway: The gateway's name, for the tags.

    Raises:
        SourceError: If the source cannot be used as declared.
    """

    def __init__(self, source: SourceConfig, known: Mapping[str, Kind], gateway: str) -> None:
        its = Source(source, known)
        self._source, self._form, self._pattern = source, its.format, its.pattern
        self._kinds, self._gateway = known, gateway
        self._channels = Channels()
        self._decoder = Decoder([source], known, gateway, self._channels)
        self._filter = Filter(self._channels)

    def go(self, message: Message) -> Becomes:
        """Shows what a message becomes.

        Raises:
            UsageError: If the source needs a topic and has none like this one.
        """
        topic = self._topic(message.topic)
        kind = self._kind(topic)
        payload = text_or_hex(message.payload)
        shown = Becomes(topic, kind.name if kind else None, len(message.payload), payload["text"], payload["hex"])
        try:
            decoded = self._form.decode(topic, message.payload, message.received)
        except PayloadError as error:
            shown.error = str(error)
        else:
            shown.loose = list(decoded.loose)
            shown.readings = [self._reading(sample, kind) for sample in decoded.samples]
            shown.answers = [{"topic": answer.topic, **text_or_hex(answer.payload)} for answer in decoded.answers]
        readings = self._decoder.decode(RawBatch([topic], [message.payload], [message.received]))
        entry = encode(readings, self._filter.judge(readings), self._channels, self._gateway)
        classes = {"raw": entry.lines, "quarantine": entry.quarantine, "event": entry.events}
        shown.stored = {name: lines.decode().split("\n") for name, lines in classes.items() if lines}
        shown.dead_letters = [letter.reason for letter in entry.dead]
        return shown

    def _topic(self, topic: str | None) -> str:
        template = self._source.topic
        if topic is None:
            if template == "#":
                return "unknown"
            if any(mark in template for mark in "{+#"):
                msg = f"add --topic: the source '{self._source.name}' reads topics like {template}"
                raise UsageError(msg)
            return template
        if self._pattern.fullmatch(topic) is None:
            msg = f"--topic {topic}: the source '{self._source.name}' reads topics like {template}"
            raise UsageError(msg)
        return topic

    def _kind(self, topic: str) -> Kind | None:
        match = self._pattern.fullmatch(topic)
        name = (match.groupdict().get("kind") if match else None) or self._source.kind
        return self._kinds.get(name or "")

    def _reading(self, sample: Sample, kind: Kind | None) -> Reading:
        return {
            "sensor": sample.sensor,
            "time": _moment(sample.time),
            "historical": sample.historical,
            "gone": sample.gone,
            "values": [self._value(sample, name, value, kind) for name, value in sample.values.items()],
            "problems": list(sample.problems),
        }

    def _value(self, sample: Sample, name: str, value: float, kind: Kind | None) -> Value:
        sent = None if math.isnan(value) else value
        quality = sample.quality.get(name)
        unit = sample.units.get(name) or self._source.units.get(name) or self._form.units.get(name, "")
        shown: Value = {
            "quantity": name,
            "sent": sent,
            "unit": unit,
            "stored": sent,
            "stored_unit": unit,
            "quality": "missing" if sent is None else "good" if quality is None else quality.value,
            "note": "",
        }
        if kind is None:
            return shown
        if (quantity := kind.quantities.get(name)) is None:
            near = kinds.unknown_quantity(name, kind.quantities).partition("; ")[2]
            shown["note"] = f"the kind '{kind.name}' has no such quantity, so nothing judges it; {near}"
            return shown
        shown["unit"] = unit or quantity.unit
        shown["stored_unit"] = quantity.unit
        try:
            how = conversion(shown["unit"], quantity.unit, quantity.molar_mass, self._source.gas_at)
        except UnitError as error:
            shown["stored"], shown["note"] = None, str(error)
        else:
            shown["stored"] = None if sent is None else how.of(sent)
        return shown


def declared(  # noqa: PLR0913 - the options of the command line
    format_name: str,
    first: Message,
    *,
    kind: str | None = None,
    options: Iterable[str] = (),
    renames: Iterable[str] = (),
    units: Iterable[str] = (),
    gas_at: str | None = None,
) -> Way:
    """The way of messages whose source is declared on the command line.

    Args:
        format_name: Name of the format.
        first: The first message. Its topic, if it is of the default form, tells kind, site and sensor.
        kind: Kind of the sensors; by default the one that has most of the first message's quantities.
        options: ``KEY=VALUE`` of the format, the value as in TOML or as bare text.
        renames: ``NAME=QUANTITY``.
        units: ``QUANTITY=UNIT``.
        gas_at: Temperature and pressure at which a volume of gas has its mass.

    Raises:
        UsageError: If an option cannot be understood.
        FormatError: If there is no such format, or its options contradict each other.
        SourceError: If there is no such kind or unit.
    """
    known = kinds.builtin()
    rename, wanted = _pairs("--rename", renames), _options(options)
    usual = SourceConfig()
    form = formats.make(format_name, Declared(usual.time, rename, wanted))
    if kind is None and first.topic and Source(usual, known).pattern.fullmatch(first.topic):
        named: dict[str, Any] = {"topic": usual.topic}
    else:
        named = {"topic": "#", "site": "site", "sensor": "sensor", "kind": kind or _best_fit(form, first, known)}
    source = SourceConfig(
        name="decode",
        format=format_name,
        options=wanted,
        rename=rename,
        units=_pairs("--unit", units),
        gas_at=gas_at,
        **named,
    )
    return Way(source, known, "gateway")


def of_gateway(config: GatewayConfig, name: str | None, first: Message) -> Way:
    """The way of messages of one source of a gateway.

    Args:
        config: The gateway's configuration.
        name: The source; by default the first that reads the message's topic.
        first: The first message.

    Raises:
        UsageError: If there is no such source.
        FormatError: If the source's format cannot be used as declared.
        SourceError: If the source cannot be used as declared.
        KindError: If a file of kinds cannot be used.
    """
    known = kinds.known(config.gateway.kinds_dir)
    names = ", ".join(source.name for source in config.source)
    for source in config.source:
        if source.name == name or (name is None and _reads(source, known, first.topic, len(config.source))):
            return Way(source, known, config.gateway.id)
    msg = (
        f"--source {name}: there is none; the configuration has {names}"
        if name
        else f"add --source or --topic to tell which of the sources {names} is meant"
    )
    raise UsageError(msg)


def _reads(source: SourceConfig, known: Mapping[str, Kind], topic: str | None, sources: int) -> bool:
    return sources == 1 if topic is None else Source(source, known).pattern.fullmatch(topic) is not None


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.rpartition("=")
        if not (key and equals and value):
            msg = f"{option}: expected NAME=NAME, not {text!r}"
            raise UsageError(msg)
        pairs[key] = value
    return pairs


def _options(texts: Iterable[str]) -> dict[str, Any]:
    lines = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (re.fullmatch(r"[\w.-]+", key) and equals):
            msg = f"--option: expected KEY=VALUE, not {text!r}"
            raise UsageError(msg)
        line = f"{key} = {value}"
        try:
            tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            line = f"{key} = {json.dumps(value)}"
        lines.append(line)
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        msg = f"--option: {error}"
        raise UsageError(msg) from error


def _best_fit(form: Format, first: Message, known: Mapping[str, Kind]) -> str:
    try:
        samples = form.decode(first.topic or "unknown", first.payload, first.received).samples
    except PayloadError:
        samples = []
    read = {name for sample in samples for name in sample.values}
    return discovery.best_fit(read, known) or next(iter(known))


def text_or_hex(payload: bytes) -> dict[str, str | None]:
    """A payload as ``text`` where it is text, else as ``hex``; the other is None."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"text": None, "hex": payload.hex()}
    if all(char.isprintable() or char in "\r\n\t" for char in text):
        return {"text": text, "hex": None}
    return {"text": None, "hex": payload.hex()}


def _moment(sent: float) -> str | None:
    """A time in s, ms, µs or ns, told apart by size, in ISO 8601."""
    if math.isnan(sent):
        return None
    scale = next(scale for bound, scale in _SCALES if sent <= bound)
    try:
        return datetime.fromtimestamp(round(sent / scale, 3), UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{sent!r}, which is no time"


def catalogue() -> list[dict[str, Any]]:
    """All formats that are installed: ``name``, ``what`` it reads, ``names_sensors``, its ``options``, an ``error``.

    The error says why a format cannot be used; else it is None.
    """
    listed = []
    for name in formats.names():
        try:
            kind = formats.find(name)
        except FormatError as error:
            listed.append({"name": name, "what": "", "names_sensors": False, "options": [], "error": str(error)})
            continue
        options = [
            {
                "name": key,
                "type": str(getattr(option.annotation, "__name__", option.annotation)).replace("typing.", ""),
                "default": None
                if option.default is PydanticUndefined
                else option.get_default(call_default_factory=True),
                "required": option.is_required(),
                "description": option.description or "",
            }
            for key, option in kind.options.model_fields.items()
        ]
        what = (kind.__doc__ or "").strip().partition("\n")[0]
        listed.append(
            {"name": name, "what": what, "names_sensors": kind.names_sensors, "options": options, "error": None}
        )
    return listed


def show_catalogue(listed: Sequence[dict[str, Any]]) -> None:
    """Prints the installed formats and their options for people."""
    with _console() as console:
        for form in listed:
            console.print(Text.assemble((form["name"], "bold"), "  ", form["what"], (form["error"] or "", "red")))
            if form["options"]:
                table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
                table.add_column(no_wrap=True, style="cyan")
                table.add_column(overflow="fold")
                for option in form["options"]:
                    default = (
                        "required" if option["required"] else f"default: {json.dumps(option['default'], default=str)}"
                    )
                    table.add_row(option["name"], f"{option['description']} ({default})")
                console.print(Padding(table, (0, 0, 0, 4)))


def as_json(shown: Becomes) -> str:
    """What a message becomes, as one line of JSON."""
    return json.dumps(asdict(shown), ensure_ascii=False)


def show(shown: Becomes) -> None:
    """Prints what a message becomes for people: tables on a terminal, plain lines elsewhere."""
    with _console() as console:
        _show(console, shown)


def _show(console: Console, shown: Becomes) -> None:
    _step(console, "bytes", f"{shown.bytes}, {'text' if shown.hex is None else 'binary'}, topic {shown.topic}")
    for line in _dump(shown):
        _indented(console, Text(line, "dim"))
    _show_read(console, shown)
    for answer in shown.answers:
        _step(console, "answer", f"to {answer['topic']}")
        _indented(console, Text(answer["text"] or answer["hex"] or "empty", "dim"))
    for name, lines in shown.stored.items():
        _step(console, "stored", f"as {name}, kind {shown.kind}")
        for line in lines:
            _indented(console, Text(line, "green"))
    if shown.dead_letters:
        _step(console, "dead", "kept among the dead letters, because")
        for reason in shown.dead_letters:
            _indented(console, Text(reason, "red"))


def _show_read(console: Console, shown: Becomes) -> None:
    if shown.error:
        _step(console, "reading", "cannot be read")
        _indented(console, Text(shown.error, "red"))
    elif not shown.readings:
        _step(console, "reading", "nothing that concerns a sensor")
    for remark in shown.loose:
        _step(console, "loose", f"read, though not as the standard says: {remark}")
    for reading in shown.readings:
        _show_reading(console, reading)


def _show_reading(console: Console, reading: Reading) -> None:
    parts = [reading["sensor"] or "the topic's sensor", reading["time"] or "no time of its own"]
    parts += ["stored earlier by the sender"] * reading["historical"] + ["the sender has left"] * reading["gone"]
    _step(console, "reading", " · ".join(parts))
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    table.add_column("quantity", no_wrap=True)
    table.add_column("as sent", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("converted", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("the sender says", no_wrap=True)
    for value in reading["values"]:
        colour = {"good": "", "missing": "dim", "bad": "red"}.get(value["quality"], "yellow")
        quality = Text(value["quality"].replace("_", " "), colour)
        cells = [value["quantity"], _number(value["sent"]), value["unit"], _number(value["stored"])]
        cells += [value["stored_unit"]]
        table.add_row(*(Text(printable(cell, _LONGEST)) for cell in cells), quality)
    if reading["values"]:
        console.print(Padding(table, (0, 0, 0, 9)))
    for value in reading["values"]:
        if value["note"]:
            _indented(console, Text(printable(f"{value['quantity']}: {value['note']}", _LONGEST), "yellow"))
    for problem in reading["problems"]:
        _indented(console, Text(f"cannot be read: {problem}", "red"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _dump(shown: Becomes) -> list[str]:
    if shown.text is not None:
        lines = shown.text[:_SHOWN].splitlines()
    else:
        data = bytes.fromhex(shown.hex or "")[:_SHOWN]
        lines = [
            f"{start:04x}  {data[start : start + 16].hex(' '):47}  "
            + "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data[start : start + 16])  # noqa: PLR2004 - ASCII
            for start in range(0, len(data), 16)
        ]
    return [*lines, f"… {shown.bytes - _SHOWN} bytes more"] if shown.bytes > _SHOWN else lines


@contextmanager
def _console() -> Iterator[Console]:
    """A terminal as it is; elsewhere a line stays a line, however long, for whatever reads it."""
    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        yield console
        return
    written = io.StringIO()
    yield Console(file=written, width=10_000, highlight=False, emoji=False)
    for line in written.getvalue().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")


def _step(console: Console, name: str, text: str) -> None:
    console.print(Text.assemble((f"{name:<9}", "bold"), printable(text, len(text))), soft_wrap=not console.is_terminal)


def _indented(console: Console, text: Text) -> None:
    text.overflow = "fold"
    console.print(Padding(text, (0, 0, 0, 9), expand=False))
