"""InfluxDB line protocol, read.

A body is read line by line: every good line becomes a point, every other one an error that names its line. One bad line
never costs its neighbours. A string field may hold newlines; a string that never ends costs its own line only.
"""

import math
import re
import time
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

Precision = Literal["ns", "us", "ms", "s"]
PRECISIONS: Final = cast("tuple[Precision, ...]", get_args(Precision))

Field = float | int | bool | str

# Atomic groups: possessive quantifiers match too much before Python 3.11.5, Debian 12's too (python/cpython#106052).
_NAME = r"(?>(?:\\[,= ]|[^,= ])+)"
_HEAD = re.compile(rf"((?>(?:\\[, ]|[^, ])+))((?>(?:,{_NAME}={_NAME})*)) +")
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf'({_NAME})=(?:"((?>(?:[^"\\]|\\.)*))"|([^",\s](?>[^,\s]*)))(,?)', re.DOTALL)
_OPEN_STRING = re.compile(rf'{_NAME}="')
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
_I64 = 2**63
_U64 = 2**64
_TIME_LIMIT_MS = _I64 // 10**6  # InfluxDB keeps nanoseconds in 64 bits


@dataclass(slots=True, frozen=True)
class Point:
    """One line.

    Attributes:
        measurement: Name of the measurement.
        tags: Tag values by key.
        fields: Field values by key, at least one.
        time: Milliseconds, UTC.
        line: Its number in the body, from 1.
    """

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Field]
    time: int
    line: int


@dataclass(slots=True, frozen=True)
class LineError:
    """Why a line was not taken, for the person who wrote it."""

    line: int
    message: str


class _UnterminatedStringError(ValueError):
    pass


def parse(
    body: bytes, precision: Precision | None = "ns", now: int | None = None
) -> tuple[list[Point], list[LineError]]:
    """Reads a body of line protocol.

    Args:
        body: UTF-8 text, one point a line; empty lines and ``#`` comments are skipped.
        precision: Unit of the timestamps, told by their size when None; they are rounded down to milliseconds.
        now: Time of points without a timestamp, in milliseconds; the present by default.

    Returns:
        The good points in order, and an error for each line that is not one.
    """
    default_time = time.time_ns() // 10**6 if now is None else now
    text = body.decode("utf-8", "surrogateescape")
    clean = text.isascii() or body == text.encode("utf-8", "replace")
    lines = text.split("\n")
    points: list[Point] = []
    errors: list[LineError] = []
    heads: dict[str, tuple[str, dict[str, str]]] = {}
    index = 0
    while index < len(lines):
        number = index + 1
        line = lines[index].strip(" \r\t")
        index += 1
        if not line or line.startswith("#"):
            continue
        try:
            if not clean:
                line.encode()  # names what is not UTF-8, which surrogates stand for
            try:
                points.append(_point(line, precision, default_time, number, heads))
            except _UnterminatedStringError:
                line, after = _join(lines, index)
                if not clean:
                    line.encode()
                points.append(_point(line, precision, default_time, number, heads))
                index = after
        except UnicodeEncodeError:
            errors.append(LineError(number, "not valid UTF-8"))
        except ValueError as error:
            errors.append(LineError(number, str(error)))
    return points, errors


def _join(lines: list[str], index: int) -> tuple[str, int]:
    """Appends the lines up to the next quote that ends the open string; returns the line and the next index."""
    line = lines[index - 1]
    for after in range(index, len(lines)):
        line += "\n" + lines[after]
        if re.search(r'(?<!\\)(?:\\\\)*"', lines[after]):
            return line.strip(" \r\t"), after + 1
    msg = "a string field has no closing quote"
    raise ValueError(msg)


def _point(
    line: str, precision: Precision | None, default_time: int, number: int, heads: dict[str, tuple[str, dict[str, str]]]
) -> Point:
    if "\\" not in line and '"' not in line:  # nothing is escaped: splitting is enough, and several times as fast
        head, _, rest = line.partition(" ")
        fields_text, _, stamp = rest.lstrip(" ").partition(" ")
        known = heads.get(head)
        if known is None:
            known = heads[head] = _head(head + " ")[:2]
        fields = dict(map(_field, fields_text.split(","))) if fields_text else {}
    else:
        measurement, tags, position = _head(line)
        known = measurement, tags
        fields, position = _fields(line, position)
        stamp = line[position:]
    if not fields:
        msg = "no field after the measurement and its tags; expected 'measurement,tag=value field=1.0 timestamp'"
        raise ValueError(msg)
    stamp = stamp.strip(" ")
    return Point(known[0], known[1], fields, _time(stamp, precision) if stamp else default_time, number)


def _head(line: str) -> tuple[str, dict[str, str], int]:
    match = _HEAD.match(line)
    if match is None:
        msg = (
            "the measurement is missing"
            if line.startswith((",", " "))
            else "cannot read the tags; each is key=value, and a comma, space or '=' in one is escaped with a backslash"
            if "," in line
            else "no field after the measurement; expected 'measurement,tag=value field=1.0 timestamp'"
        )
        raise ValueError(msg)
    tags: dict[str, str] = {}
    for key, value in _TAG.findall(match[2]):
        plain = _unescape(key)
        if plain in tags:
            msg = f"the tag '{plain}' is given twice"
            raise ValueError(msg)
        tags[plain] = _unescape(value)
    return re.sub(r"\\([, ])", r"\1", match[1]), tags, match.end()


def _unescape(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text) if "\\" in text else text


def _field(text: str) -> tuple[str, Field]:
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        msg = f"cannot read the field '{text}'; expected key=value"
        raise ValueError(msg)
    return key, _value(key, value)


def _fields(line: str, position: int) -> tuple[dict[str, Field], int]:
    fields: dict[str, Field] = {}
    more = True
    while more:
        match = _FIELD.match(line, position)
        if match is None:
            if _OPEN_STRING.match(line, position):
                msg = "a string field has no closing quote"
                raise _UnterminatedStringError(msg)
            msg = f"cannot read the field at '{line[position : position + 40]}'; expected key=value"
            raise ValueError(msg)
        key = _unescape(match[1])
        fields[key] = re.sub(r'\\(["\\])', r"\1", match[2]) if match[2] is not None else _value(key, match[3])
        position = match.end()
        more = match[4] == ","
    if position < len(line) and line[position] != " ":
        msg = f"cannot read '{line[position : position + 40]}' after a field; expected a comma or a space"
        raise ValueError(msg)
    return fields, position


def _value(key: str, text: str) -> Field:
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
    elif text[-1] in "iu" and _INTEGER.fullmatch(text[:-1]):
        integer = int(text[:-1]) if len(text) < 30 else _U64  # noqa: PLR2004 - longer than any 64-bit integer
        if (-_I64 <= integer < _I64) if text[-1] == "i" else (0 <= integer < _U64):
            return integer
    elif text in _BOOLEANS:
        return _BOOLEANS[text]
    msg = (
        f"the field '{key}' is '{text[:40]}': not a number in range, an integer (1i, 1u), a boolean or a quoted string"
    )
    raise ValueError(msg)


def _time(text: str, precision: Precision | None) -> int:
    if _INTEGER.fullmatch(text) and len(text) < 30:  # noqa: PLR2004 - longer than any 64-bit integer
        stamp = int(text)
        match precision or _by_size(stamp):
            case "ns":
                stamp //= 10**6
            case "us":
                stamp //= 10**3
            case "s":
                stamp *= 10**3
            case "ms":
                pass
        if -_TIME_LIMIT_MS < stamp < _TIME_LIMIT_MS:
            return stamp
    msg = f"the timestamp '{text[:40]}' is not an integer of 64 bits in {precision or 's, ms, us or ns'}"
    raise ValueError(msg)


def _by_size(stamp: int) -> Precision:
    bounds: tuple[tuple[int, Precision], ...] = ((10**11, "s"), (10**14, "ms"), (10**17, "us"))
    return next((unit for bound, unit in bounds if abs(stamp) < bound), "ns")
