"""What Tasmota publishes by itself: readings in ``SENSOR``, its radio in ``STATE``, its last will in ``LWT``.

Readings are grouped by chip, and the first chip that measures a quantity gives it its plain name. Times are local and
say no zone, so they count only where the source declares the offset from UTC; else that of arrival holds.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from pydantic import Field

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.objects import no_number, number, printable, read

_TEMPERATURES = frozenset({"Temperature", "DewPoint", "HeatIndex"})
_QUANTITIES = {
    "Temperature": "temperature",
    "Humidity": "humidity",
    "DewPoint": "dew_point",
    "HeatIndex": "heat_index",
    "Pressure": "pressure",
    "SeaPressure": "sea_pressure",
    "Illuminance": "illuminance",
    "Moisture": "moisture",
    "CarbonDioxide": "co2",
    "eCO2": "eco2",
    "TVOC": "tvoc",
    "PM1": "pm1",
    "PM2.5": "pm25",
    "PM4": "pm4",
    "PM10": "pm10",
    "Distance": "distance",
}
_ENERGY = {
    "Power": "power",
    "ApparentPower": "apparent_power",
    "ReactivePower": "reactive_power",
    "Factor": "power_factor",
    "Voltage": "voltage",
    "Current": "current",
    "Frequency": "frequency",
    "Total": "energy",
    "Today": "energy_today",
    "Yesterday": "energy_yesterday",
}
_UNITS = {"C": "degC", "F": "degF", "hPa": "hPa", "mmHg": "mmHg", "inHg": "inHg"}
_EARLIEST = 2000  # a clock that was never set starts in 1970


class TasmotaOptions(Options):
    """Options of ``tasmota``."""

    prefix: str = Field("tele", min_length=1, description="level that marks telemetry (`Prefix3` of the device)")
    utc_offset: float | None = Field(
        None,
        ge=-12,
        le=14,
        description="hours from UTC to the time that the devices show; without it, the time of arrival holds",
    )
    chip: str | None = Field(
        None, description="chip whose values have the plain names; without it, the first of a message that has one"
    )


class Tasmota(Format):
    """Reads the telemetry of Tasmota devices, whichever level of the topic says ``tele``."""

    names_sensors = True
    options = TasmotaOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = TasmotaOptions.model_validate(declared.options)
        self._prefix, self._chip = options.prefix, options.chip
        self._zone = None if options.utc_offset is None else timezone(timedelta(hours=options.utc_offset))

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it tells its own time
        """Reads one message.

        Raises:
            PayloadError: If the topic names no device, or the payload is not Tasmota's; names the byte or the key.
        """
        *levels, last = topic.split("/")
        if last not in {"SENSOR", "STATE", "LWT"}:
            return Decoded([])
        if self._prefix not in levels or len(levels) == 1:
            msg = f"the topic has no level '{self._prefix}' beside the device: set options.prefix"
            raise PayloadError(msg)
        levels.remove(self._prefix)
        node = "/".join(levels)
        if last == "LWT":
            return _will(node, payload)
        sent = read(payload)
        sample = Sample(self._time(sent.get("Time")), sensor=node)
        if last == "STATE":
            _radio(sample, sent)
        else:
            self._readings(sample, sent)
        return Decoded([sample] if sample.values or sample.problems else [])

    def _readings(self, sample: Sample, sent: dict[str, Any]) -> None:
        found: dict[str, str] = {}
        problems = []
        for chip, key, value in _fields(sent):
            name = f"{chip}.{key}" if chip else key
            table = _ENERGY if chip == "ENERGY" else _QUANTITIES
            renamed = self.rename.get(name) or self.rename.get(key)
            quantity = renamed or table.get(key) or printable(name).lower()
            if not renamed and (quantity in sample.values or (self._chip not in {None, chip} and key in _QUANTITIES)):
                quantity = printable(name).lower()
            try:
                sample.values[quantity] = number(value)
            except ValueError:
                if renamed or key in table:
                    problems.append(no_number(name, value))
                continue  # else the name of a mode, a serial number, a date
            said_by = "TempUnit" if key in _TEMPERATURES else "PressureUnit" if key.endswith("Pressure") else ""
            if (unit := sent.get(said_by)) is not None:
                found[quantity] = _unit(said_by, unit)
        sample.units = found
        sample.problems = tuple(problems)

    def _time(self, sent: object) -> float:
        if sent is None:
            return math.nan
        try:
            moment = datetime.fromisoformat(sent) if isinstance(sent, str) else None
        except ValueError:
            moment = None
        if moment is None:
            msg = f"Time: expected a date and time, not {str(sent)[:40]!r}"
            raise PayloadError(msg)
        if moment.year < _EARLIEST or (moment.tzinfo is None and self._zone is None):
            return math.nan
        return (moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).timestamp()


def _fields(sent: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for chip, group in sent.items():
        if isinstance(group, dict):
            for key, value in group.items():
                if isinstance(value, list):  # a meter of several phases
                    yield from ((chip, f"{key}.{place}", one) for place, one in enumerate(value, 1))
                else:
                    yield chip, key, value
        elif chip not in {"Time", "TempUnit", "PressureUnit", "SpeedUnit"}:
            yield "", chip, group


def _unit(key: str, sent: object) -> str:
    if isinstance(sent, str) and sent in _UNITS:
        return _UNITS[sent]
    msg = f"{key}: expected one of {', '.join(_UNITS)}, not {str(sent)[:20]!r}"
    raise PayloadError(msg)


def _radio(sample: Sample, sent: dict[str, Any]) -> None:
    radio = sent.get("Wifi")
    if not isinstance(radio, dict):
        return
    problems = []
    for key, quantity in (("Signal", "rssi"), ("RSSI", "linkquality")):
        if key in radio:
            try:
                sample.values[quantity] = number(radio[key])
            except ValueError:
                problems.append(no_number(f"Wifi.{key}", radio[key]))
    sample.problems = tuple(problems)


def _will(node: str, payload: bytes) -> Decoded:
    match payload:
        case b"Online":
            return Decoded([])
        case b"Offline":
            return Decoded([Sample(sensor=node, gone=True)])
    msg = f"LWT: expected 'Online' or 'Offline', not {payload[:40].decode('ascii', 'backslashreplace')!r}"
    raise PayloadError(msg)
