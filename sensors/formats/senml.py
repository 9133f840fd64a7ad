"""SenML packs (RFC 8428) in JSON and CBOR, resolved as the standard says.

Base fields hold for their record and all that follow: names are joined, times, values and sums added. A time before 2²⁸
is relative to the arrival. The name of a record is of the sensor and of what it measures; where it says only the
sensor, the unit tells. A bad record costs itself only, unless it has a base field that others need.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import cbor2
import msgspec
from pydantic import Field
from xxhash import xxh3_64_hexdigest

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Quality, Sample
from sensors.formats.objects import UNREADABLE, printable, refusal

_UNITS = {
    "Cel": "°C",
    "C": "coulomb",
    "F": "farad",
    "H": "henry",
    "Ohm": "ohm",
    "S": "siemens",
    "T": "tesla",
    "Wb": "weber",
    "l": "L",
    "l/s": "L/s",
    "m2": "m²",
    "m3": "m³",
    "m/s2": "m/s²",
    "m3/s": "m³/s",
    "W/m2": "W/m²",
    "cd/m2": "cd/m²",
    "kg/m3": "kg/m³",
    "ug/m3": "µg/m³",
    "lat": "°",
    "lon": "°",
    "deg": "°",
    "/": "1",
    "%": "1",  # whatever it looks like: RFC 8428, 12.1, note 1
    "/100": "%",
    "/1000": "‰",
    "%RH": "%",
    "%EL": "%",
    "EL": "s",
    "beats": "count",
    "beat/min": "1/min",
    "B": "byte",
    "B/s": "byte/s",
    "MB/s": "megabyte/s",
    "GB": "gigabyte",
    "KiB": "kibibyte",
    "VA": "V*A",
    "kVA": "kV*A",
    "VAs": "V*A*s",
    "kVAh": "kV*A*h",
    "var": "V*A",
    "kvar": "kV*A",
    "vars": "V*A*s",
    "varh": "V*A*h",
    "kvarh": "kV*A*h",
    "Ah": "A*h",
    "Wh": "W*h",
    "kWh": "kW*h",
    "Wh/km": "W*h/km",
}
"""Units of RFC 8428 and RFC 8798 whose names are not those of kinds and of ``pint``."""
_BY_UNIT = {
    "Cel": "temperature",
    "K": "temperature",
    "%RH": "humidity",
    "Pa": "pressure",
    "hPa": "pressure",
    "lx": "illuminance",
    "pH": "ph",
    "lat": "lat",
    "lon": "lon",
    "%EL": "battery",
    "EL": "battery_life",
    "V": "voltage",
    "mV": "voltage",
    "A": "current",
    "mA": "current",
    "W": "power",
    "kW": "power",
    "J": "energy",
    "Wh": "energy",
    "kWh": "energy",
    "S/m": "conductivity",
    "Hz": "frequency",
    "dBm": "rssi",
}
"""Unit → what is measured, where the name of a record is that of the sensor."""
_UNNAMED = "value"
_UNDERSTOOD = {10, 26}  # RFC 8428, and RFC 9100: the same with secondary units
_ABSOLUTE = 2.0**28
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_DEVICE = re.compile(r"urn:dev:[A-Za-z0-9]+:[^:/_]+")  # RFC 9039; what follows '_' is a part of the device
_PLACE = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_MOST_NAMES, _LONGEST = 4096, 200
_GOOD: Mapping[str, Quality] = MappingProxyType({})

_LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
    9: "l",
}
"""Labels of CBOR → those of JSON."""
_ARRAYS = range(0x80, 0xC0)  # and maps: what CBOR begins with, and JSON never
_FRACTION = 4  # the tag of a decimal fraction
_LARGEST = 1000  # of an exponent; no number of 64 bits has one
_DEEPEST = 4  # a pack, its records, and a fraction in one


class _Record(msgspec.Struct, gc=False):
    n: str | None = None
    u: str | None = None
    v: float | None = None
    t: float | None = None
    vs: str | None = None
    vb: bool | None = None
    vd: Any = None
    s: float | None = None
    bn: str | None = None
    bt: float | None = None
    bu: str | None = None
    bv: float | None = None
    bs: float | None = None
    bver: float | None = None


_DECODE = msgspec.json.Decoder(list[_Record]).decode
_DECODE_ANY = msgspec.json.Decoder().decode


class SenmlOptions(Options):
    """Options of ``senml``."""

    separators: str = Field(
        "/:",
        pattern=r"^[-:./_]+$",
        description="characters, the last of which in a name parts the sensor from what it measures",
    )


class _Base:
    """The base fields as of a record."""

    __slots__ = ("name", "plain", "sum", "time", "unit", "value")

    def __init__(self) -> None:
        self.name, self.time, self.unit = "", 0.0, ""
        self.plain = True  # neither value nor sum
        self.value: float | None = None
        self.sum: float | None = None

    def take(self, place: int, record: _Record) -> None:
        """Takes those of a record.

        Raises:
            PayloadError: If it says that it is of a later version.
        """
        if record.bver is not None and record.bver > min(_UNDERSTOOD) and record.bver not in _UNDERSTOOD:
            msg = f"$[{place}].bver: expected version 10 or older, found {record.bver:.10g}"
            raise PayloadError(msg)
        if record.bn is not None:
            self.name = record.bn
        if record.bt is not None:
            self.time = record.bt
        if record.bu is not None:
            self.unit = record.bu
        if record.bv is not None:
            self.value = record.bv
        if record.bs is not None:
            self.sum = record.bs
        self.plain = self.value is None and self.sum is None


class Senml(Format):
    """Reads packs of SenML, in JSON or CBOR."""

    names_sensors = True
    relative_times = True
    options = SenmlOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        self._separators = SenmlOptions.model_validate(declared.options).separators
        self._names: dict[tuple[str, str | None, str], tuple[str | None, str, str]] = {}

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:
        """Reads one pack.

        Raises:
            PayloadError: If it is none, is of a later version, or must be understood and is not; names byte or key.
        """
        problems: list[str] = []
        records: Sequence[_Record | None] | None = None
        if payload.startswith(b"[") and b'_"' not in payload and b"\\u005" not in payload:
            try:  # the usual pack, in one step; any other is looked at closely
                records = _DECODE(payload)
            except UNREADABLE:
                records = None
        if records is None:
            records = _read(payload, problems)
        if not records:
            msg = "$: expected records, found none"
            raise PayloadError(msg)
        samples, relative = self._resolved(records, received, problems)
        if problems and not samples:
            raise PayloadError(problems[0])
        if len(samples) > 1:
            now = received / 1000
            samples.sort(key=lambda sample: now if math.isnan(sample.time) else sample.time)
        if problems:
            samples[0].problems = tuple(problems)
        # "five seconds ago" is something else whenever it is said
        return Decoded(samples, key=f"{topic} {received} {xxh3_64_hexdigest(payload)}" if relative else None)

    def _resolved(  # noqa: C901, PLR0912 - the standard's rules in one loop, and it is hot
        self, records: Sequence[_Record | None], received: int, problems: list[str]
    ) -> tuple[list[Sample], bool]:
        """Samples, and whether the time of one is relative to the arrival."""
        samples: list[Sample] = []
        latest: dict[tuple[str | None, float], tuple[dict[str, float], dict[str, str]]] = {}
        relative = False
        base = _Base()
        names, rename = self._names, self.rename
        known: tuple[dict[str, float], dict[str, str]] | None = None
        last_sensor, last_time = None, math.inf
        for place, record in enumerate(records):
            if record is None:
                continue
            if (
                record.bn is not None
                or record.bt is not None
                or record.bu is not None
                or record.bv is not None
                or record.bs is not None
                or record.bver is not None
            ):
                base.take(place, record)
            try:
                value, total = record.v, record.s
                if not (
                    value is not None
                    and total is None
                    and base.plain
                    and record.vs is None
                    and record.vb is None
                    and record.vd is None
                    and value - value == 0
                ):
                    value, total = _numbers(place, record, base)
                    if value is None and total is None and not rename:
                        continue
                key = base.name, record.n, record.u or base.unit
                sensor, quantity, unit = names.get(key) or self._name(place, *key)
                time = base.time if record.t is None else base.time + record.t
                if not _ABSOLUTE <= time < math.inf:
                    relative |= time != 0
                    time = _relative(place, time, received)
            except PayloadError as error:
                problems.append(str(error))
                continue
            if value is None and total is None:
                if quantity in rename.values():
                    problems.append(f"$[{place}]: expected a number for {printable(quantity)}, found text or data")
                continue
            while True:
                if sensor != last_sensor or time != last_time:
                    last_sensor, last_time = sensor, time
                    known = latest.get((sensor, time))
                if known is None or quantity in known[0]:  # a second value of a quantity is another sample's
                    known = latest[sensor, time] = {}, {}
                    samples.append(Sample(time, known[0], (), sensor, known[1], _GOOD))
                if value is not None:
                    known[0][quantity] = value
                    if unit:
                        known[1][quantity] = unit
                if total is None:
                    break
                value, total, quantity, unit = total, None, f"{quantity}_sum", unit and f"{unit}*s"
        return samples, relative

    def _name(self, place: int, base: str, own: str | None, unit: str) -> tuple[str | None, str, str]:
        """Sensor and quantity that a name stands for, and how its unit is spelled.

        Raises:
            PayloadError: If it is no name.
        """
        name = base + (own or "")
        if not _NAME.fullmatch(name):
            label = "n" if own or not base else "bn"
            msg = f"$[{place}].{label}: expected letters, digits and -:./_ as a name, found {printable(name)!r}"
            raise PayloadError(msg)
        device = _DEVICE.match(name)
        first = device.end() if device else 0
        last = max(name.rfind(separator, first) for separator in self._separators)
        if last < 0 and device and name[first : first + 1] == "_":
            last = first
        sensor: str | None
        if last < 0:
            sensor, quantity = (name, "") if device or not own else (None, name)
        else:
            sensor, quantity = name[:last], name[last + 1 :]
        if quantity:
            quantity = self.rename.get(name) or self.rename.get(quantity) or quantity
        else:
            quantity = _BY_UNIT.get(unit, _UNNAMED)
            quantity = self.rename.get(quantity, quantity)
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        found = sensor, quantity, _UNITS.get(unit) or printable(unit, 40)
        if len(name) + len(unit) <= _LONGEST:
            self._names[base, own, unit] = found
        return found


def _numbers(place: int, record: _Record, base: _Base) -> tuple[float | None, float | None]:
    """Value and sum of a record, resolved; None of what it does not have."""
    value, total = record.v, record.s
    others = (record.vs is not None) + (record.vb is not None) + (record.vd is not None)
    if others + (value is not None) > 1:
        msg = f"$[{place}]: expected one of v, vs, vb and vd, found more"
        raise PayloadError(msg)
    if value is not None:
        if base.value is not None:
            value += base.value
    elif record.vb is not None:
        value = float(record.vb)
    elif not others and total is None:
        if record.n is None and record.u is None and record.t is None:
            return None, None  # base fields for those that follow
        value = base.value
        if value is None and base.sum is None:
            msg = f"$[{place}]: expected one of v, vs, vb, vd and s, found none"
            raise PayloadError(msg)
    if base.sum is not None:
        total = (total or 0.0) + base.sum
    if (value is not None and math.isinf(value)) or (total is not None and math.isinf(total)):
        msg = f"$[{place}]: expected finite numbers, found v {value} and s {total}"
        raise PayloadError(msg)
    return value, total


def _relative(place: int, time: float, received: int) -> float:
    """A time that is relative to the arrival, as one since 1970; NaN for that of the arrival itself."""
    if not -math.inf < time < math.inf:
        msg = f"$[{place}].t: expected a time, found {time}"
        raise PayloadError(msg)
    return received / 1000 + time if time else math.nan


def _read(payload: bytes, problems: list[str]) -> list[_Record | None]:
    """Records one by one; None in place of a bad one, whose problem is added.

    Raises:
        PayloadError: If it is no pack, or a base field is bad, or a field must be understood and is not.
    """
    if payload[:1] and payload[0] in _ARRAYS:
        pack = _cbor(payload)
    else:
        try:
            pack = _DECODE_ANY(payload)
        except UNREADABLE as error:
            msg = refusal("a pack of SenML", payload, error)
            raise PayloadError(msg) from error
    if isinstance(pack, dict):  # a lone record without its array
        pack = [pack]
    if not isinstance(pack, list):
        msg = f"$: expected an array of records, found {type(pack).__name__}"
        raise PayloadError(msg)
    return [_record(place, sent, problems) for place, sent in enumerate(pack)]


def _record(place: int, sent: object, problems: list[str]) -> _Record | None:
    if not isinstance(sent, Mapping):
        problems.append(f"$[{place}]: expected a record, found {type(sent).__name__}")
        return None
    fields = {}
    for key, value in sent.items():
        label = _LABELS.get(key) if isinstance(key, int) and not isinstance(key, bool) else key
        if isinstance(label, str):
            if label.endswith("_"):
                msg = f"$[{place}].{printable(label)}: must be understood, and is not"
                raise PayloadError(msg)
            fields[label] = value
    try:
        return msgspec.convert(fields, _Record)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        what, where = found.groups() if (found := _PLACE.fullmatch(str(error))) else (str(error), "")
        problem = f"$[{place}]{where}: {what}"
        if where.startswith(".b"):  # others need it
            raise PayloadError(problem) from error
        problems.append(problem)
        return None


class _Tags(dict[int, Callable[[object, bool], object]]):
    """What is done with the tags of CBOR: SenML has decimal fractions only."""

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        return _fraction if tag == _FRACTION else partial(_foreign, tag)


def _fraction(parts: object, _immutable: bool) -> float:  # noqa: FBT001 - as cbor2 calls it
    match parts:
        case [int(exponent), int(mantissa)] if abs(exponent) < _LARGEST:
            return float(f"{int(mantissa)}e{int(exponent)}")
    msg = "expected exponent and mantissa of a decimal fraction"
    raise ValueError(msg)


def _foreign(tag: int, _tagged: object, _immutable: bool) -> object:  # noqa: FBT001 - as cbor2 calls it
    msg = f"expected no tag but {_FRACTION}, a decimal fraction, found {tag}"
    raise ValueError(msg)


def _cbor(payload: bytes) -> object:
    """Reads one item and nothing behind it.

    Raises:
        PayloadError: If there is none, or more; names the byte.
    """
    read = io.BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        read,
        semantic_decoders=_Tags(),
        read_size=1,  # no more than is needed, so that the place of a fault is known
        max_depth=_DEEPEST,
        allow_duplicate_keys=False,
    )
    try:
        item: object = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        msg = f"byte {read.tell()}: expected a pack of SenML in CBOR: {error.__cause__ or error}"
        raise PayloadError(msg) from error
    if read.tell() != len(payload):
        msg = f"byte {read.tell()}: expected the end of the pack, found {payload[read.tell()]:#04x}"
        raise PayloadError(msg)
    return item
