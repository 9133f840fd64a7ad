"""What the airrohr firmware of sensor.community sends: a list of values, each with the chip and what it measured.

The values are text. The sensor is the number of the board. There is no time: that of arrival holds.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.objects import UNREADABLE, no_number, number, printable, refusal

_QUANTITIES = {
    "P0": "pm1",
    "P1": "pm10",
    "P2": "pm25",
    "P4": "pm4",
    "temperature": "temperature",
    "humidity": "humidity",
    "pressure": "pressure",
    "noise_LAeq": "laeq",
    "noise_LA_max": "lamax",
    "noise_LA_min": "lamin",
    "signal": "rssi",
}
"""Name without the chip → quantity."""
_HOUSEKEEPING = {"samples", "min_micro", "max_micro", "interval", "GPS_date", "GPS_time", "GPS_timestamp"}
_BOARD_KEYS = ("esp8266id", "chipid", "espid")


class _Value(msgspec.Struct):
    value_type: str
    value: Any = None


class _Payload(msgspec.Struct):
    values: list[_Value] = msgspec.field(name="sensordatavalues")
    esp8266id: str | int | None = None
    chipid: str | int | None = None
    espid: str | int | None = None


_DECODE = msgspec.json.Decoder(_Payload).decode


class AirrohrOptions(Options):
    """Options of ``airrohr``."""

    prefix: str = Field("", description="what is put before the board's number to name the sensor")


class Airrohr(Format):
    """Reads what airrohr sends to a "custom API", passed on to MQTT."""

    names_sensors = True
    options = AirrohrOptions
    units: ClassVar[Mapping[str, str]] = {"pressure": "Pa"}

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        self._prefix = AirrohrOptions.model_validate(declared.options).prefix

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it says all by itself
        """Reads one payload.

        Raises:
            PayloadError: If it is not as airrohr sends it; names the byte or the key.
        """
        try:
            sent = _DECODE(payload)
        except UNREADABLE as error:
            msg = refusal("an object with sensordatavalues", payload, error)
            raise PayloadError(msg) from error
        sample = Sample()
        for key in _BOARD_KEYS:
            if (board := getattr(sent, key)) is not None:
                sample.sensor = f"{self._prefix}{board}"
                break
        problems = []
        for field in sent.values:
            name = field.value_type
            if (quantity := self._quantity(name)) is None:
                continue
            if quantity in sample.values and quantity != self.rename.get(name):
                quantity = name.lower()  # a second chip measures the same: the first one keeps the name
            try:
                sample.values[quantity] = number(field.value)
            except ValueError:
                problems.append(no_number(f"sensordatavalues.{name}", field.value))
        if not sample.values and not problems:
            msg = f"sensordatavalues: no reading among {len(sent.values)} values"
            raise PayloadError(msg)
        sample.problems = tuple(problems)
        return Decoded([sample])

    def _quantity(self, name: str) -> str | None:
        if (renamed := self.rename.get(name)) is not None:
            return renamed
        if name in _HOUSEKEEPING:
            return None
        if (known := _QUANTITIES.get(name)) is not None:
            return known
        return _QUANTITIES.get(name.partition("_")[2]) or printable(name).lower()
