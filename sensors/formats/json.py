"""The default format: one JSON object a message, ``{"ts": 1700000000000, "pm25": 12.3, …}``.

The time is a number in s, ms, µs or ns, or RFC 3339 text with an offset. Numbers may be written as text; ``null`` is a
missing value; a wind direction may be a point of the compass.
"""

import json
import math
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from sensors.formats import Decoded, Format, PayloadError, Sample

COMPASS = {
    point: index * 22.5
    for index, point in enumerate(
        ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
    )
}
"""Degrees of the sixteen points of the compass, clockwise from north."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_SECONDS = 1e11  # as a time, a number from here on is one of milliseconds
_PLAIN = msgspec.json.Decoder(dict[str, float])


def plain(payloads: Iterable[bytes]) -> list[dict[str, float] | None]:
    """Reads many payloads of nothing but numbers, which most are, as fast as they can be read.

    Returns:
        The fields of each, time included, under the keys as sent; None where :meth:`Json.decode` has to look.
    """
    decode = _PLAIN.decode
    read: list[dict[str, float] | None] = []
    for payload in payloads:
        try:
            read.append(decode(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            read.append(None)
    return read


class Json(Format):
    """Reads JSON payloads, whatever they hold."""

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it says all by itself
        """Reads one payload.

        Raises:
            PayloadError: If it is no JSON object, or its time cannot be read.
        """
        try:
            data = json.loads(payload)  # unlike msgspec, it reads past one number that is out of range
        except (ValueError, RecursionError) as error:
            msg = f"not valid JSON: {error}"
            raise PayloadError(msg) from error
        if not isinstance(data, dict):
            msg = f"expected a JSON object, not {type(data).__name__}"
            raise PayloadError(msg)
        fields: dict[str, object] = data
        time = math.nan
        if self.time is not None and (sent := fields.pop(self.time, None)) is not None:
            time = _time(self.time, sent)
        values: dict[str, float] = {}
        problems: list[str] = []
        for key, value in fields.items():
            try:
                values[self.rename.get(key, key)] = _number(value)
            except (TypeError, ValueError, OverflowError):
                printable = key[:80].encode("utf-8", "backslashreplace").decode()
                problems.append(f"{printable}: expected a number, not {_shown(value)}")
        return Decoded([Sample(time, values, tuple(problems))])


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        if (angle := COMPASS.get(value.strip().upper())) is not None:
            return angle
    elif not isinstance(value, (int, float)):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _time(key: str, value: object) -> float:
    try:
        match value:
            case bool():
                pass
            case int():
                return float(min(value, int(sys.float_info.max)))
            case float() if not math.isnan(value):
                return value
            case str() if not math.isnan(number := _number_or_moment(key, value)):
                return number
    except ValueError:
        pass
    msg = f"{key}: expected a time in s, ms, µs or ns or as RFC 3339, not {_shown(value)}"
    raise PayloadError(msg)


def _number_or_moment(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = f"{key}: the time {text[:40]!r} has no offset from UTC"
        raise PayloadError(msg)
    seconds = (moment - _EPOCH).total_seconds()
    return seconds if seconds < _END_OF_SECONDS else math.inf


def _shown(value: object) -> str:
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(str(value)[:60])
