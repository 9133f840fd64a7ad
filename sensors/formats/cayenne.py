"""Cayenne Low Power Payload: ``[channel][type][value]``, big-endian, as many as fit into a radio's frame.

The types are those of myDevices' Cayenne LPP and the IPSO types that the CayenneLPP library of Electronic Cats adds.
What follows an unknown type has no known length, so nothing behind it is read, and a problem names its byte.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.written import Encoding, decoded


class _Field(NamedTuple):
    """One number of a type: bytes, sign, parts of a unit, unit, and what is added to the type's name."""

    size: int
    signed: bool
    divisor: float
    unit: str
    suffix: str


def _whole(size: int, divisor: float = 1, unit: str = "", suffix: str = "") -> _Field:
    return _Field(size, signed=False, divisor=divisor, unit=unit, suffix=suffix)


def _signed(size: int, divisor: float = 1, unit: str = "", suffix: str = "") -> _Field:
    return _Field(size, signed=True, divisor=divisor, unit=unit, suffix=suffix)


def _axes(divisor: float, unit: str) -> tuple[_Field, ...]:
    return tuple(_signed(2, divisor, unit, f"_{axis}") for axis in "xyz")


_TIME = 133
_TYPES: dict[int, tuple[str, tuple[_Field, ...]]] = {
    0: ("digital_in", (_whole(1),)),
    1: ("digital_out", (_whole(1),)),
    2: ("analog_in", (_signed(2, 100),)),
    3: ("analog_out", (_signed(2, 100),)),
    100: ("generic", (_whole(4),)),
    101: ("illuminance", (_whole(2, 1, "lx"),)),
    102: ("presence", (_whole(1),)),
    103: ("temperature", (_signed(2, 10, "°C"),)),
    104: ("humidity", (_whole(1, 2, "%"),)),
    113: ("accelerometer", _axes(1000, "standard_gravity")),
    115: ("pressure", (_whole(2, 10, "hPa"),)),
    116: ("voltage", (_whole(2, 100, "V"),)),
    117: ("current", (_whole(2, 1000, "A"),)),
    118: ("frequency", (_whole(4, 1, "Hz"),)),
    120: ("percentage", (_whole(1, 1, "%"),)),
    121: ("altitude", (_signed(2, 1, "m"),)),
    125: ("concentration", (_whole(2, 1, "ppm"),)),
    128: ("power", (_whole(2, 1, "W"),)),
    130: ("distance", (_whole(4, 1000, "m"),)),
    131: ("energy", (_whole(4, 1000, "kWh"),)),
    132: ("direction", (_whole(2, 1, "°"),)),
    _TIME: ("time", (_whole(4, 1, "s"),)),
    134: ("gyrometer", _axes(100, "°/s")),
    135: ("colour", tuple(_whole(1, 1, "", f"_{part}") for part in ("red", "green", "blue"))),
    136: (
        "gps",
        (
            _signed(3, 10_000, "°", "_latitude"),
            _signed(3, 10_000, "°", "_longitude"),
            _signed(3, 100, "m", "_altitude"),
        ),
    ),
    142: ("switch", (_whole(1),)),
}
"""Number of a type → its name and its numbers."""
_EARLIEST = 946_684_800  # the year 2000: a clock that was never set starts in 1970


class _Role(NamedTuple):
    """What a number of one type on one channel stands for: its quantity, or another where that one has a value."""

    quantity: str
    otherwise: str
    field: _Field


class CayenneOptions(Options):
    """Options of ``cayenne``."""

    encoding: Literal["binary", "hex", "base64"] = Field(
        "binary", description="how the bytes are written: `binary`, `hex` or `base64`"
    )
    channels: Mapping[Annotated[int, Field(ge=0, le=255)], str] = Field(
        {}, description="channel → quantity that it measures; the name of the type without it"
    )


class Cayenne(Format):
    """Reads Cayenne LPP, by itself or as the codec of a LoRaWAN format."""

    options = CayenneOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = CayenneOptions.model_validate(declared.options)
        self._encoding, self._channels = options.encoding, options.channels
        self._roles: dict[bytes, tuple[int, list[_Role]]] = {}  # by type and channel, so there are not many

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it tells all by itself
        """Reads one payload.

        Raises:
            PayloadError: If nothing of it can be read; names the byte.
        """
        data = payload if self._encoding == "binary" else _bytes(payload, self._encoding)
        sample = Sample()
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        problems: list[str] = []
        at, end = 0, len(data)
        while at < end:
            try:
                size, roles = self._roles.get(data[at : at + 2]) or self._enter(data, at)
            except PayloadError as error:
                problems.append(str(error))
                break
            after = at + 2 + size
            if after > end:
                problems.append(f"byte {end}: expected {after - end} more bytes of {roles[0].otherwise}, found the end")
                break
            first = at
            at += 2
            for quantity, otherwise, field in roles:
                value = int.from_bytes(data[at : at + field.size], "big", signed=field.signed) / field.divisor
                at += field.size
                if not quantity:
                    sample.time = value if value >= _EARLIEST else math.nan
                    continue
                name = otherwise if quantity in values else quantity
                if name in values:
                    problems.append(f"byte {first}: {name} has a value already")
                    continue
                values[name] = value
                if field.unit:
                    units[name] = field.unit
        if not values:
            raise PayloadError(problems[0] if problems else f"byte {end}: expected a value, found the end")
        sample.values, sample.units, sample.problems = values, units, tuple(problems)
        return Decoded([sample])

    def _enter(self, data: bytes, at: int) -> tuple[int, list[_Role]]:
        """What a channel and type stand for, when they are met for the first time."""
        if at + 1 == len(data):
            msg = f"byte {at + 1}: expected the type of channel {data[at]}, found the end"
            raise PayloadError(msg)
        channel, kind = data[at], data[at + 1]
        if kind not in _TYPES:
            msg = f"byte {at + 1}: expected a type of Cayenne LPP, found {kind}; what follows has no known length"
            raise PayloadError(msg)
        name, fields = _TYPES[kind]
        roles = []
        for field in fields:
            otherwise = f"{name}_{channel}{field.suffix}"
            quantity = self.rename.get(otherwise)
            if quantity is None and kind != _TIME:
                quantity = self._channels.get(channel, name) + field.suffix
            roles.append(_Role(quantity or "", otherwise, field))
        entered = sum(field.size for field in fields), roles
        self._roles[data[at : at + 2]] = entered
        return entered


def _bytes(payload: bytes, encoding: Encoding) -> bytes:
    try:
        return decoded(payload.decode("latin-1"), encoding)
    except ValueError as error:
        raise PayloadError(str(error)) from error
