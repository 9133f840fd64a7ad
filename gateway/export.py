"""`citygate recording export`: a recording as CSV, line protocol or Parquet.

As it is, it becomes messages: time of arrival, topic, QoS, retain, properties and payload. With a gateway's sources it
becomes readings: what a gateway would read, before any of it is judged.
"""

import base64
import csv
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from gateway.config import GatewayConfig
from sensors.stream import Message, Reader

Form = Literal["csv", "line", "parquet"]
FORMS: dict[str, Form] = {".csv": "csv", ".lp": "line", ".line": "line", ".parquet": "parquet"}
_AT_ONCE = 4000
_MESSAGES = ("time", "monotonic", "topic", "qos", "retain", "properties", "payload", "encoding")
_READINGS = ("time", "site", "kind", "sensor", "quantity", "value")
Row = tuple[Any, ...]


class ExportError(Exception):
    """It cannot be exported so; the message is for people."""


def form_of(target: Path, asked: str | None) -> Form:
    """The form of an export, by its name if nothing else is asked for.

    Raises:
        ExportError: It cannot be told, or does not go with the target.
    """
    form = next((form for form in FORMS.values() if form == asked), None) or FORMS.get(target.suffix.lower())
    if form is None:
        msg = f"{target}: no telling what it shall be: say --format csv, line or parquet"
        raise ExportError(msg)
    if form == "parquet" and str(target) == "-":
        msg = "Parquet cannot be written to a pipe: name a file"
        raise ExportError(msg)
    return form


def export(  # noqa: PLR0913 - what can be asked for
    reader: Reader,
    target: Path,
    form: Form,
    *,
    config: GatewayConfig | None = None,
    start: int | None = None,
    end: int | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> tuple[int, int]:
    """Writes a recording in another form.

    Args:
        reader: The recording.
        target: The file, which must not exist, or ``-`` for stdout.
        form: Its form.
        config: A gateway whose sources say what the payloads mean; without one, messages are written.
        start: Earliest arrival, ns since 1970.
        end: Latest arrival.
        wanted: Says of a topic whether its messages are wanted.

    Returns:
        Rows that were written, and messages that could not be read.

    Raises:
        ExportError: The target exists, or cannot be written.
        ModuleNotFoundError: It is to be Parquet, and the package for it is not there.
        SourceError: A source cannot be used as declared.
        StreamError: The recording cannot be read.
    """
    messages = reader.messages(start, end, wanted)
    rows = _Readings(config) if config is not None else None
    written = 0
    try:
        with ExitStack() as stack:
            write = stack.enter_context(_OPEN[form](target, rows is not None))
            while some := list(islice(messages, _AT_ONCE)):
                made = [*map(_row, some)] if rows is None else [*rows.of(some)]
                write(made)
                written += len(made)
    except FileExistsError as error:
        msg = f"{target}: exists; choose another name"
        raise ExportError(msg) from error
    except OSError as error:
        msg = f"{target}: {error.strerror}"
        raise ExportError(msg) from error
    return written, 0 if rows is None else rows.unread


def _row(message: Message) -> Row:
    """A message: its payload as text, if it is text, else as base64."""
    try:
        payload, encoding = message.payload.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(message.payload).decode(), "base64"
    topic = message.topic.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    properties = base64.b64encode(message.properties).decode()
    return (message.wall, message.monotonic, topic, message.qos, message.retain, properties, payload, encoding)


class _Readings:
    """What a gateway reads of messages.

    Attributes:
        unread: Messages, or parts of them, that could not be read.
    """

    def __init__(self, config: GatewayConfig) -> None:
        from gateway.edge.decode import Decoder  # noqa: PLC0415 - numpy, only where there are sources
        from gateway.edge.readings import Channels  # noqa: PLC0415
        from gateway.edge.redact import Redactor  # noqa: PLC0415

        self.unread = 0
        self._decoder = Decoder.of(config, Channels())
        self._redactor = Redactor(self._decoder.sources, self._decoder.kinds)

    def of(self, messages: list[Message]) -> Iterator[Row]:
        from gateway.edge.batch import RawBatch  # noqa: PLC0415

        batch = RawBatch(
            [message.topic for message in messages],
            [message.payload for message in messages],
            [message.wall // 1_000_000 for message in messages],
        )
        self._redactor.redact(batch)
        readings = self._decoder.decode(batch)
        self.unread += len(readings.dead)
        self._decoder.remember(readings.keys)
        values, starts = readings.value.tolist(), readings.starts.tolist()
        for sensor, layout, moment, first in zip(
            readings.sensors, readings.layouts, readings.times.tolist(), starts, strict=True
        ):
            for place, quantity in enumerate(layout.names, first):
                if not math.isnan(values[place]):
                    yield moment * 1_000_000, sensor.site, sensor.family.kind, sensor.name, quantity, values[place]


def _csv(target: Path, readings: bool) -> AbstractContextManager[Callable[[list[Row]], None]]:  # noqa: FBT001
    return _Text(target, _READINGS if readings else _MESSAGES, None)


def _line(target: Path, readings: bool) -> AbstractContextManager[Callable[[list[Row]], None]]:  # noqa: FBT001
    return _Text(target, (), _reading_line if readings else _message_line)


class _Text:
    """A text file, or stdout."""

    def __init__(self, target: Path, header: tuple[str, ...], line: Callable[[Row], str] | None) -> None:
        self._target, self._header, self._line = target, header, line
        self._stack = ExitStack()

    def __enter__(self) -> Callable[[list[Row]], None]:
        path = self._target
        file: IO[str] = self._stack.enter_context(
            nullcontext(sys.stdout) if str(path) == "-" else path.open("x", encoding="utf-8", newline="")
        )
        if (line := self._line) is not None:
            return lambda rows: file.writelines(f"{line(row)}\n" for row in rows)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self._header)
        return lambda rows: writer.writerows((_iso(row[0]), *row[1:]) for row in rows)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Parquet:
    """A Parquet file, a row group a block."""

    def __init__(self, target: Path, readings: bool) -> None:  # noqa: FBT001
        import pyarrow as pa  # noqa: PLC0415 - the extra `parquet`
        import pyarrow.parquet as pq  # noqa: PLC0415

        time, text = pa.timestamp("ns", "UTC"), pa.string()
        types = (
            dict(zip(_READINGS, (time, text, text, text, text, pa.float64()), strict=True))
            if readings
            else dict(zip(_MESSAGES, (time, pa.int64(), text, pa.int8(), pa.bool_(), text, text, text), strict=True))
        )
        self._target, self._schema, self._arrow, self._parquet = target, pa.schema(list(types.items())), pa, pq

    def __enter__(self) -> Callable[[list[Row]], None]:
        self._file = self._target.open("xb")
        self._writer = self._parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        return self._write

    def _write(self, rows: list[Row]) -> None:
        columns = zip(*rows, strict=True) if rows else [()] * len(self._schema)
        arrays = [
            self._arrow.array(list(column), field.type) for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._file.close()


_OPEN: dict[Form, Callable[[Path, bool], AbstractContextManager[Callable[[list[Row]], None]]]] = {
    "csv": _csv,
    "line": _line,
    "parquet": _Parquet,
}


def _message_line(row: Row) -> str:
    wall, _, topic, qos, retain, properties, payload, encoding = row
    fields = f"payload={_quoted(payload)},encoding={_quoted(encoding)},qos={qos}i,retain={str(retain).lower()}"
    if properties:
        fields += f",properties={_quoted(properties)}"
    return f"message,topic={_escaped(topic)} {fields} {wall}"


def _reading_line(row: Row) -> str:
    wall, site, kind, sensor, quantity, value = row
    return f"{_escaped(kind)},sensor={_escaped(sensor)},site={_escaped(site)} {_escaped(quantity)}={value!r} {wall}"


def _escaped(text: str) -> str:
    """As line protocol writes a name or a tag; it has no way to write a newline, or a backslash at the end."""
    text = text.replace("\n", "\\n").replace("\r", "\\r").rstrip("\\") or "_"
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _iso(moment: int) -> str:
    """Of ns since 1970, to the ns."""
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment // 10**9)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{moment % 10**9:09d}Z"
