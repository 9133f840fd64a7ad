"""The default format: one JSON object a message, ``{"ts": 1700000000000, "pm25": 12.3, …}``.

The time is a number in s, ms, µs or ns, or RFC 3339 text with an offset. Numbers may be written as text; ``null`` is a
missing value; a direction may be a point of the compass.

Where a source asks for it, what lies deeper is read, named by its path: ``env.pm25``, ``probes.0.temperature``. A list
of objects can be a sample each.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.objects import printable, written

COMPASS = {
    point: index * 22.5
    for index, point in enumerate(
        ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
    )
}
"""Degrees of the sixteen points of the compass, clockwise from north."""
_BEARING = re.compile("dir|heading|bearing", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_SECONDS = 1e11  # as a time, a number from here on is one of milliseconds
_PLAIN = msgspec.json.Decoder(dict[str, float])
_ANY = msgspec.json.Decoder()
_NESTED = frozenset((dict, list))


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


class JsonOptions(Options):
    """Options of ``json``."""

    each: str | None = Field(
        None,
        description="path of a list of objects that are a sample each; `.` if the payload is the list. What stands "
        "beside the list holds for each of them, unless it says otherwise",
    )
    sensor: str | None = Field(None, description="path of the sensor's name; without it, the topic names the sensor")
    nested: bool = Field(
        default=False,
        description="whether all numbers that lie deeper are quantities, called by their paths; they are, too, as soon "
        "as the source names one path",
    )


class Json(Format):
    """Reads JSON payloads, whatever they hold.

    Attributes:
        composed: Whether a payload may say more than what one sensor measures at one time.
    """

    takes_time = True
    options: ClassVar[type[Options]] = JsonOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = JsonOptions.model_validate(declared.options)
        self._each, self._sensor = options.each, options.sensor
        self.names_sensors = options.sensor is not None
        self.composed = options.each is not None or options.sensor is not None
        paths = chain([self.time or "", options.sensor or ""], self.rename)
        self._deep = options.nested or options.each is not None or any("." in path for path in paths)

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it says all by itself
        """Reads one payload.

        Raises:
            PayloadError: If it is no JSON object, or its time cannot be read.
        """
        data = _loaded(payload)
        if self._each is None:
            return Decoded([self._sample(_object(data), "")])
        return Decoded([*self._samples(data, self._each)])

    def _samples(self, data: object, path: str) -> Iterator[Sample]:
        beside: dict[str, object] = {}
        if path == ".":
            many = data
        else:
            beside = dict(_flat(_object(data), leave=path))
            many = beside.pop(path, None)
        if not isinstance(many, list):
            msg = f"{path}: expected a list of objects, not {_shown(many)}"
            raise PayloadError(msg)
        start = "" if path == "." else f"{path}."
        for number, one in enumerate(many):
            its = _object(one, f"{start}{number}: ")
            yield self._sample({**beside, **its}, f"{start}{number}.")

    def _sample(self, data: Mapping[str, object], where: str) -> Sample:
        """What an object says; *where* is its path."""
        flat = not self._deep or _NESTED.isdisjoint(map(type, data.values()))
        fields = dict(data if flat else _flat(data))
        sample = Sample()
        if self.time is not None and (sent := fields.pop(self.time, None)) is not None:
            sample.time = _time(f"{where}{self.time}", sent)
        if self._sensor is not None:
            named = fields.pop(self._sensor, None)
            if isinstance(named, bool) or not isinstance(named, int | str) or named == "":
                msg = f"{where}{self._sensor}: expected the name of a sensor, not {_shown(named)}"
                raise PayloadError(msg)
            sample.sensor = str(named)
        problems = []
        values, rename = sample.values, self.rename
        for key, value in fields.items():
            try:
                name = rename.get(key, key)
                values[name] = _number(name, value)
            except (TypeError, ValueError, OverflowError):
                problems.append(f"{printable(f'{where}{key}')}: expected a number, not {_shown(value)}")
        sample.problems = tuple(problems)
        return sample


def _loaded(payload: bytes) -> object:
    try:
        return _ANY.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(payload)  # unlike msgspec, it reads past one number that is out of range
    except (ValueError, RecursionError) as error:
        msg = f"not valid JSON: {error}"
        raise PayloadError(msg) from error


def _object(data: object, where: str = "") -> dict[str, object]:
    if not isinstance(data, dict):
        msg = f"{where}expected a JSON object, not {type(data).__name__}"
        raise PayloadError(msg)
    return data


def _flat(data: Mapping[str, object], leave: str | None = None) -> Iterator[tuple[str, object]]:
    """What is no object and no list, by its path; and what is at *leave*, as it is."""
    below: list[tuple[str, Any]] = [*data.items()][::-1]
    while below:
        path, value = below.pop()
        inside = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
        if path == leave or not inside:
            yield path, value
        else:
            below += [(f"{path}.{key}", item) for key, item in reversed(inside)]


def _number(name: str, value: object) -> float:
    if type(value) is float and value - value == 0:
        return value
    if value is None:
        return math.nan
    if isinstance(value, str):
        angle = COMPASS.get(value.strip().upper())
        if angle is not None and _BEARING.search(name):  # else "E" is rather an error than the east
            return angle
        number = written(value)
    elif isinstance(value, (int, float)):
        number = float(value)
    else:
        raise TypeError
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
        return written(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = f"{key}: the time {text[:40]!r} has no offset from UTC"
        raise PayloadError(msg)
    seconds = (moment - _EPOCH).total_seconds()
    return seconds if seconds < _END_OF_SECONDS else math.inf


def _shown(value: object) -> str:
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(str(value)[:60])
