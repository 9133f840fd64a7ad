"""Recorded sensor streams: a CSV file, plain or gzip'd, read as the messages that its sensors once sent.

Wide files have a column a quantity, long files the columns ``quantity`` and ``value``; both may have the columns
``label``, ``lat`` and ``lon``. Numbers are passed on exactly as they stand in the file. A file is read twice: once to
check every cell and to see whether its rows are in the order of time, and once to yield them. A file in order is never
held in memory; one out of order is.
"""

import csv
import difflib
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import IO

from sensors import kinds

_TIME = ("time", "timestamp", "date", "datetime")
_SENSOR = ("sensor", "station", "id", "name")
_LABEL = ("label",)
_LATITUDE, _LONGITUDE = ("lat", "latitude"), ("lon", "lng", "longitude")
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
"""A number as JSON writes it (RFC 8259)."""
_LOOSE_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMPASS = re.compile(r"[NESWnesw]{1,3}|[Cc]alm|[Cc][Vv]?")
_LEVEL = str.maketrans(dict.fromkeys("/+#\0", "_"))
_LOOK = 200
"""Rows in which a column must show a number to count as one of numbers."""
_EPOCH_UNITS = ((1e11, 1e3), (1e14, 1.0), (1e17, 1e-3), (float("inf"), 1e-6))
"""Below which size an epoch time counts s, ms, µs or ns, and ms per unit; good for the years 1973 to 5138."""


class RecordingError(Exception):
    """A recording cannot be read; the message names file, line and column where it can."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How to read a file; what is None is found out from the header.

    Attributes:
        time: Column of the time.
        sensor: Column of the sensor's name; without one, the file's stem is the name of its only sensor.
        site: Site of all rows.
        site_column: Column of the site.
        kind: Kind of all rows; by default the one whose quantities match most columns.
        kind_column: Column of the kind.
        columns: Columns that are quantities under another name: column to quantity.
        ignore: Columns to leave out.
        missing: Texts that mean "no value", beside empty cells, NA, NaN and null.
        zone: Zone of times without offset; without one, such a time is an error.
        skip_bad: Count rows that cannot be read instead of raising.
    """

    time: str | None = None
    sensor: str | None = None
    site: str = "replay"
    site_column: str | None = None
    kind: str | None = None
    kind_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    ignore: Collection[str] = ()
    missing: Collection[str] = ()
    zone: tzinfo | None = None
    skip_bad: bool = False


@dataclass(slots=True)
class Reading:
    """What a sensor sent at one time.

    Attributes:
        time: ms UTC.
        values: Quantity to JSON text, a number or a string.
        labels: Quantity to what the column ``label`` says of its value, where it says something.
    """

    time: int
    site: str
    kind: str
    sensor: str
    values: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)

    def payload(self, time: int) -> bytes:
        """The JSON of a message, with a time in ms as ``ts``."""
        return (
            f'{{"ts":{time},{",".join(f"{json.dumps(name)}:{text}" for name, text in self.values.items())}}}'.encode()
        )


class Recording:
    """A CSV file of readings, in the order of time when iterated. Checks the whole file when made.

    Args:
        path: The file; gzip is recognised by its content.
        layout: How to read it.

    Attributes:
        rows: Data rows.
        empty: Rows without a value.
        bad: Rows that could not be read (with ``skip_bad``).
        messages: Readings that iterating yields.
        first: Time of the first reading in ms, None without readings.
        last: Time of the last reading.
        places: Latitude and longitude of each sensor, by site, kind and name, where the file has columns of them.

    Raises:
        RecordingError: If the file or one of its cells cannot be read.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self._missing = _MISSING | {text.strip().lower() for text in layout.missing}
        self._time = lru_cache(4096)(self._parse_time)
        with self._open() as file:
            self._header = self._read_header(csv.reader(file))
            self._resolve(self._sample(csv.reader(file)))
        self.rows = self.empty = self.bad = self.messages = 0
        self.first: int | None = None
        self.last: int | None = None
        self.places: dict[tuple[str, str, str], tuple[float, float]] = {}
        ordered = True
        for reading in self._readings(count=True):
            self.messages += 1
            ordered = ordered and (self.last is None or reading.time >= self.last)
            self.first = reading.time if self.first is None else min(self.first, reading.time)
            self.last = reading.time if self.last is None else max(self.last, reading.time)
        self._sorted = None if ordered else sorted(self._readings(), key=lambda reading: reading.time)

    def __iter__(self) -> Iterator[Reading]:
        return self._readings() if self._sorted is None else iter(self._sorted)

    # -- header ------------------------------------------------------------------------------------------------------

    def _open(self) -> IO[str]:
        try:
            with self._path.open("rb") as raw:
                packed = raw.read(2) == b"\x1f\x8b"
            if packed:
                return gzip.open(self._path, "rt", encoding="utf-8-sig", newline="")
            return self._path.open(encoding="utf-8-sig", newline="")
        except OSError as error:
            msg = f"{self._path}: {error.strerror or error}"
            raise RecordingError(msg) from error

    def _read_header(self, rows: Iterator[list[str]]) -> list[str]:
        try:
            header = [name.strip() for name in next(rows, [])]
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise self._broken(1, error) from error
        if not any(header):
            msg = f"{self._path}: no header, the file is empty"
            raise RecordingError(msg)
        if twice := [name for name in header if name and header.count(name) > 1]:
            msg = f"{self._path}: line 1: column {twice[0]!r} comes twice"
            raise RecordingError(msg)
        return header

    def _sample(self, rows: Iterator[list[str]]) -> set[str]:
        """The columns that hold a number within the first rows."""
        numeric: set[str] = set()
        try:
            for _, row in zip(range(_LOOK), rows, strict=False):
                numeric.update(
                    name for name, cell in zip(self._header, row, strict=False) if _LOOSE_NUMBER.fullmatch(cell.strip())
                )
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error):
            pass  # the first full reading says where
        return numeric

    def _index(self, what: str, asked: str | None, usual: Collection[str]) -> int | None:
        if asked is not None:
            if asked not in self._header:
                near = _nearest(asked, self._header)
                msg = f"{self._path}: no column {asked!r} for the {what}{near}; it has {', '.join(self._header)}"
                raise RecordingError(msg)
            return self._header.index(asked)
        lower = [name.lower() for name in self._header]
        return next((lower.index(name) for name in usual if name in lower), None)

    def _resolve(self, numeric: set[str]) -> None:
        """Finds out which column is what."""
        layout, known = self._layout, kinds.builtin()
        time = self._index("time", layout.time, _TIME)
        if time is None:
            msg = f"{self._path}: no column of the time (one of {', '.join(_TIME)}): name it with --time-column"
            raise RecordingError(msg)
        self._time_at = time
        self._sensor_at = self._index("sensor", layout.sensor, _SENSOR)
        self._site_at = self._index("site", layout.site_column, () if layout.site != "replay" else ("site",))
        self._kind_at = self._index("kind", layout.kind_column, () if layout.kind is not None else ("kind",))
        self._long = self._long_columns()
        beside = [self._index("", None, usual) for usual in (_LABEL, _LATITUDE, _LONGITUDE)]
        self._label_at, *self._place_at = (
            None if at is not None and self._header[at] in layout.ignore else at for at in beside
        )
        taken = {self._time_at, self._sensor_at, self._site_at, self._kind_at, *(self._long or ())}
        taken |= {self._label_at, *self._place_at}
        for column in (*layout.columns, *layout.ignore):
            self._index("--column or --ignore", column, ())
        free = {
            at: layout.columns.get(name, name)
            for at, name in enumerate(self._header)
            if at not in taken and name not in layout.ignore
        }
        if layout.kind is not None and layout.kind not in known:
            msg = f"no kind {layout.kind!r}{_nearest(layout.kind, known)}; there are {', '.join(known)}"
            raise RecordingError(msg)
        self._kind = layout.kind
        names = set(free.values())
        if self._kind is None and self._kind_at is None and self._long is None:
            self._kind = max(known, key=lambda kind: len(names & set(known[kind].quantities)))
        accepted = (
            set(known[self._kind].quantities) if self._kind else {q for kind in known.values() for q in kind.quantities}
        )
        of = f"the kind {self._kind}" if self._kind else "any kind"
        self._cells: list[tuple[int, str]] = []
        for at, name in free.items():
            column = self._header[at]
            if name in accepted:
                self._cells.append((at, name))
            elif column in layout.columns:
                msg = f"{self._path}: --column {column}={name}: no quantity of {of}{_nearest(name, accepted)}"
                raise RecordingError(msg)
            elif self._long is None and column in numeric:
                msg = (
                    f"{self._path}: column {column!r} is no quantity of {of}{_nearest(name, accepted)}; "
                    f"say --column {column}=QUANTITY, --ignore {column}, or another --kind"
                )
                raise RecordingError(msg)
        if not self._cells and self._long is None:
            msg = f"{self._path}: no column is a quantity of any kind: name them with --column NAME=QUANTITY"
            raise RecordingError(msg)

    def _long_columns(self) -> tuple[int, int] | None:
        lower = [name.lower() for name in self._header]
        if "quantity" not in lower or "value" not in lower:
            return None
        if self._kind_at is None and self._layout.kind is None:
            msg = f"{self._path}: a file with a column 'quantity' needs a column 'kind', or --kind"
            raise RecordingError(msg)
        return lower.index("quantity"), lower.index("value")

    # -- rows --------------------------------------------------------------------------------------------------------

    def _broken(self, line: int, error: Exception) -> RecordingError:
        return RecordingError(f"{self._path}: line {line}: {error}")

    def _readings(self, *, count: bool = False) -> Iterator[Reading]:
        """Rows as readings; rows of one sensor and time that follow each other in a long file are one reading."""
        if self._long is None:
            yield from self._parsed(count=count)
            return
        held: Reading | None = None
        for reading in self._parsed(count=count):
            if held is not None and _joins(held, reading):
                held.values.update(reading.values)
                held.labels.update(reading.labels)
                continue
            if held is not None:
                yield held
            held = reading
        if held is not None:
            yield held

    def _parsed(self, *, count: bool) -> Iterator[Reading]:
        """Every row that has a value."""
        line = 1
        with self._open() as file:
            rows = csv.reader(file)
            try:
                next(rows)
                for row in filter(None, rows):
                    line = rows.line_num
                    self.rows += count
                    try:
                        reading = self._reading(row)
                    except ValueError as error:
                        if not self._layout.skip_bad:
                            raise self._broken(line, error) from error
                        self.bad += count
                        continue
                    if count:
                        self._note_place(row, reading)
                    if reading.values:
                        yield reading
                    else:
                        self.empty += count
            except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
                raise self._broken(line + 1, error) from error

    def _reading(self, row: list[str]) -> Reading:
        if len(row) != len(self._header):
            msg = f"{len(row)} cells, but the header has {len(self._header)} columns"
            raise ValueError(msg)
        try:
            time = self._time(row[self._time_at].strip())
        except (ValueError, OverflowError) as error:
            msg = f"column {self._header[self._time_at]!r}: {error}"
            raise ValueError(msg) from error
        kind = self._kind or row[self._kind_at or 0].strip()
        values: dict[str, str] = {}
        if self._long is None:
            for at, quantity in self._cells:
                if (text := row[at].strip()).lower() not in self._missing:
                    values[quantity] = self._value(kind, quantity, text, self._header[at])
        else:
            quantity, text = row[self._long[0]].strip(), row[self._long[1]].strip()
            if text.lower() not in self._missing:
                quantity = self._layout.columns.get(quantity, quantity)
                values[quantity] = self._value(kind, quantity, text, self._header[self._long[1]])
        label = "" if self._label_at is None else row[self._label_at].strip()
        return Reading(
            time,
            self._name(row, self._site_at) if self._site_at is not None else self._layout.site,
            kind,
            self._name(row, self._sensor_at) if self._sensor_at is not None else self._path.name.split(".")[0],
            values,
            dict.fromkeys(values, label) if label else {},
        )

    def _note_place(self, row: list[str], reading: Reading) -> None:
        latitude, longitude = ("" if at is None else row[at].strip() for at in self._place_at)
        sensor = (reading.site, reading.kind, reading.sensor)
        if _LOOSE_NUMBER.fullmatch(latitude) and _LOOSE_NUMBER.fullmatch(longitude):
            self.places.setdefault(sensor, (float(latitude), float(longitude)))

    def _name(self, row: list[str], at: int) -> str:
        if not (name := row[at].strip().translate(_LEVEL)):
            msg = f"column {self._header[at]!r} is empty"
            raise ValueError(msg)
        return name

    def _value(self, kind: str, quantity: str, text: str, column: str) -> str:
        """A cell as JSON; numbers stay as written wherever JSON can write them so."""
        known = kinds.builtin()
        if kind not in known:
            msg = f"no kind {kind!r}{_nearest(kind, known)}"
            raise ValueError(msg)
        if (described := known[kind].quantities.get(quantity)) is None:
            msg = f"column {column!r}: {kind} has no quantity {quantity!r}{_nearest(quantity, known[kind].quantities)}"
            raise ValueError(msg)
        if _NUMBER.fullmatch(text):
            return text
        if _LOOSE_NUMBER.fullmatch(text):
            return repr(float(text))
        if described.direction and _COMPASS.fullmatch(text):
            return json.dumps(text)
        msg = f"column {column!r}: {text!r} is not a number; --missing {text} if it stands for no value"
        raise ValueError(msg)

    def _parse_time(self, text: str) -> int:
        if _LOOSE_NUMBER.fullmatch(text) and len(text) > len("20150101"):
            number = float(text)
            return round(number * next(unit for below, unit in _EPOCH_UNITS if abs(number) < below))
        try:
            moment = datetime.fromisoformat(text.replace("/", "-"))
        except ValueError:
            msg = f"{text!r} is not a time (ISO 8601, or a count of s, ms, µs or ns since 1970)"
            raise ValueError(msg) from None
        if moment.tzinfo is None:
            if self._layout.zone is None:
                msg = f"{text!r} has no offset; say --timezone, such as Asia/Shanghai or UTC"
                raise ValueError(msg)
            moment = moment.replace(tzinfo=self._layout.zone)
        return round(moment.astimezone(UTC).timestamp() * 1000)


def _joins(held: Reading, reading: Reading) -> bool:
    same = (held.time, held.site, held.kind, held.sensor) == (reading.time, reading.site, reading.kind, reading.sensor)
    return same and held.values.keys().isdisjoint(reading.values)


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name.lower().replace(".", ""), names, 1, 0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
