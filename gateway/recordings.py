"""`citygate recording info` and `import`: what a recording holds, and recordings from CSV and line protocol.

Imported rows and lines become messages as a sensor would have sent them, of QoS 1; the time of each is its time of
arrival. They are in the order of time: a file that is not is held in memory.
"""

import json
import string
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import __version__
from gateway.layouts import layout_of
from gateway.streams import TOPIC
from sensors.lineprotocol import Precision, parse
from sensors.recording import Recording
from sensors.stream import Reader, Writer

LINE_TOPIC = "influx/{measurement}"
"""Where imported lines are published; the format ``influx`` reads them."""
_MOST_TOPICS = 65_536
_SHOWN = 20
_LEVEL = str.maketrans(dict.fromkeys("/+#\0", "_"))
_NANO = 10**9
_UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": _NANO}


class ImportFileError(Exception):
    """A file cannot be imported; the message names file and line."""


class Heard(NamedTuple):
    """A message to be written; its time is in ns since 1970."""

    topic: str
    payload: bytes
    time: int


class Imported(NamedTuple):
    """What came of an import.

    Attributes:
        messages: How many were written.
        bad: Rows or lines that could not be read.
    """

    messages: int
    bad: int


def info(path: Path) -> dict[str, Any]:
    """All that can be said of a recording; every block is read.

    Raises:
        StreamError: It is no recording.
    """
    messages: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    levels: Counter[int] = Counter()
    total = raw = retained = duplicates = properties = 0
    with Reader(path) as reader:
        summary = reader.summary()
        for message in reader:
            topic = message.topic if message.topic in messages or len(messages) < _MOST_TOPICS else "(others)"
            size = len(message.payload) + len(message.topic.encode("utf-8", "surrogateescape"))
            messages[topic] += 1
            sizes[topic] += size
            levels[message.qos] += 1
            total, raw = total + 1, raw + size
            retained += message.retain
            duplicates += message.duplicate
            properties += bool(message.properties)
        size = path.stat().st_size
        return {
            "file": str(path),
            "version": reader.version,
            "made": reader.meta,
            "messages": total,
            "blocks": summary.blocks,
            "runs": summary.runs,
            "first": _iso(summary.first),
            "last": _iso(summary.last),
            "seconds": ((summary.last or 0) - (summary.first or 0)) / _NANO,
            "file_bytes": size,
            "raw_bytes": raw,
            "qos": {str(level): levels[level] for level in range(3)},
            "retained": retained,
            "duplicates": duplicates,
            "with_properties": properties,
            "ended_in_order": reader.indexed,
            "topics": {
                topic: {"messages": number, "raw_bytes": sizes[topic]} for topic, number in messages.most_common()
            },
            "damage": [
                {"byte": one.offset, "bytes": one.length, "reason": one.reason, "at_end": one.at_end}
                for one in reader.damage
            ],
        }


def show(found: Mapping[str, Any]) -> None:
    """Prints what `info` found, for people."""
    console = Console()
    raw, size = found["raw_bytes"], found["file_bytes"]
    share = f", {size / raw:.1%} of {raw:,} bytes of topics and payloads" if raw else ""
    console.print(
        f"{found['file']}: {found['messages']:,} messages in {size:,} bytes{share}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    made = ", ".join(f"{key} {_text(value)}" for key, value in found["made"].items() if key != "created")
    table = Table(show_header=False, box=None, pad_edge=False)
    created = found["made"].get("created")
    table.add_row("made", f"{_iso(created * 10**6) if isinstance(created, int) else ''} {escape(made)}")
    if found["messages"]:
        table.add_row("from", found["first"])
        table.add_row("to", f"{found['last']}, {timedelta(seconds=round(found['seconds']))} later")
    ended = "ended in order" if found["ended_in_order"] else "not ended in order: still being written, or cut off"
    table.add_row("blocks", f"{found['blocks']:,} of {found['runs']:,} sessions; {ended}")
    levels = ", ".join(f"{number:,} of QoS {level}" for level, number in found["qos"].items() if number)
    table.add_row("messages", f"{levels or 'none'}; {found['retained']:,} retained")
    table.add_row("", f"{found['with_properties']:,} with properties, {found['duplicates']:,} marked as duplicates")
    console.print(table, highlight=False)
    topics = Table("topic", "messages", "bytes", box=None, pad_edge=False)
    for topic, its in [*found["topics"].items()][:_SHOWN]:
        topics.add_row(escape(_printable(topic)), f"{its['messages']:,}", f"{its['raw_bytes']:,}")
    console.print(topics, highlight=False)
    if (more := len(found["topics"]) - _SHOWN) > 0:
        console.print(f"and {more:,} topics more (--json has them all)", highlight=False)
    for one in found["damage"]:
        console.print(
            f"damaged: byte {one['byte']:,}: {one['reason']}; {one['bytes']:,} bytes passed over",
            soft_wrap=True,
            highlight=False,
        )


def import_csv(source: Path, target: Path, topic: str | None, layout: Mapping[str, Any]) -> Imported:
    """Writes the readings of a CSV into a recording.

    Args:
        source: CSV, plain or gzip'd.
        target: The recording; it must not exist.
        topic: Template with ``{site}``, ``{kind}`` and ``{sensor}``.
        layout: How to read it: the keywords of :func:`gateway.layouts.layout_of`.

    Raises:
        RecordingError: It cannot be read so.
        ValueError: An option is wrong.
        StreamError: The recording cannot be written.
    """
    template = topic or TOPIC
    check_topic(template, {"site", "kind", "sensor"})
    recording = Recording(source, layout_of(**layout))
    messages = (
        Heard(template.format(site=one.site, kind=one.kind, sensor=one.sensor), one.payload(one.time), one.time * 10**6)
        for one in recording
    )
    return Imported(_write(messages, target, source), recording.bad)


def import_lines(source: Path, target: Path, topic: str | None, precision: Precision, *, skip_bad: bool) -> Imported:
    """Writes the points of line protocol into a recording, a message each, the line as it is.

    Args:
        source: Line protocol, a point a line.
        target: The recording; it must not exist.
        topic: Template with ``{measurement}`` and names of tags.
        precision: Unit of the times.
        skip_bad: Count lines that cannot be read instead of stopping.

    Raises:
        ImportFileError: A line cannot be read, or the file.
        StreamError: The recording cannot be written.
    """
    bad = 0
    try:
        ordered, latest = True, -(2**63)
        for heard in _lines(source, topic or LINE_TOPIC, precision):
            if isinstance(heard, str):
                if not skip_bad:
                    raise ImportFileError(heard)
                bad += 1
            else:
                ordered, latest = ordered and heard.time >= latest, max(latest, heard.time)
        good = (one for one in _lines(source, topic or LINE_TOPIC, precision) if not isinstance(one, str))
        return Imported(_write(good if ordered else sorted(good, key=lambda one: one.time), target, source), bad)
    except OSError as error:
        msg = f"{source}: {error.strerror}"
        raise ImportFileError(msg) from error


def _lines(source: Path, topic: str, precision: Precision) -> Iterator[Heard | str]:
    """Messages with times in ns, and what is wrong with the lines that are none."""
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            points, errors = parse(text, precision, -1)
            if errors or points[0].time < 0:
                why = errors[0].message if errors else "it has no time"
                yield f"{source}: line {number}: {why}"
                continue
            moment = int(text.rpartition(b" ")[2]) * _UNITS[precision]
            names = {"measurement": points[0].measurement, **points[0].tags}
            try:
                place = topic.format_map({key: name.translate(_LEVEL) for key, name in names.items()})
            except KeyError as error:
                yield f"{source}: line {number}: it has no tag {error} for the topic {topic!r}"
                continue
            yield Heard(place, text, moment)


def check_topic(topic: str, known: Collection[str] | None = None) -> None:
    """Whether topics can be made of a template.

    Args:
        topic: The template.
        known: What may stand in its braces; anything when None.

    Raises:
        ValueError: They cannot.
    """
    try:
        parts = [*string.Formatter().parse(topic)]
    except ValueError as error:
        msg = f"topic: {error}"
        raise ValueError(msg) from error
    names = {name for _, name, _, _ in parts if name is not None}
    if known is not None and (unknown := names - {*known}):
        msg = f"topic: unknown {{{min(unknown)}}}; there are {', '.join(f'{{{name}}}' for name in known)}"
        raise ValueError(msg)
    if not topic or any(sign in text for text, *_ in parts for sign in "+#\0"):
        msg = f"topic: {topic!r} cannot be published to"
        raise ValueError(msg)


def _write(messages: Iterable[Heard], target: Path, source: Path) -> int:
    """Writes messages whose times are in ns."""
    with Writer(target, meta={"by": f"citygate {__version__}", "imported": source.name}, sync=False) as writer:
        first: int | None = None
        for topic, payload, moment in messages:
            first = moment if first is None else first
            writer.add(topic, payload, qos=1, monotonic=moment - first, wall=moment)
        writer.flush()
        return writer.messages


def _iso(moment: int | None) -> str | None:
    """Of ns since 1970."""
    if moment is None:
        return None
    try:
        whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment // 1000)
    except OverflowError:
        return f"{moment} ns"
    return whole.isoformat(timespec="milliseconds")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _printable(topic: str) -> str:
    return json.dumps(topic, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace").decode()
