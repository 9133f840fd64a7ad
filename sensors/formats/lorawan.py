"""What the formats of LoRaWAN network servers share: readings of a device's bytes or object, how well it was heard.

The server says which device sent an uplink, with which frame counter, which of its gateways heard it, and what is in
it: an object, where it has a codec for the device, and the device's own bytes. How well it was heard becomes readings
of the sensor, and so does a gap in the frame counter.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import Field

from sensors.formats import Declared, Format, FormatError, Options, PayloadError, Sample, make
from sensors.formats.objects import no_number, number, printable
from sensors.formats.written import decoded

_CAYENNE = {
    "accelerometer": "accelerometer",
    "analogInput": "analog_in",
    "analogOutput": "analog_out",
    "analog_in": "analog_in",
    "analog_out": "analog_out",
    "barometer": "pressure",
    "barometric_pressure": "pressure",
    "digitalInput": "digital_in",
    "digitalOutput": "digital_out",
    "digital_in": "digital_in",
    "digital_out": "digital_out",
    "gps": "gps",
    "gpsLocation": "gps",
    "gyrometer": "gyrometer",
    "humiditySensor": "humidity",
    "illuminanceSensor": "illuminance",
    "luminosity": "illuminance",
    "presence": "presence",
    "presenceSensor": "presence",
    "relative_humidity": "humidity",
    "temperature": "temperature",
    "temperatureSensor": "temperature",
}
"""Types as the Cayenne codecs of ChirpStack and The Things Stack name them → as the format ``cayenne`` does."""
_CHANNEL = re.compile(rf"({'|'.join(_CAYENNE)})[._](\d{{1,3}})(?:\.(\w+))?", re.ASCII)
_QUANTITIES = {
    "barometric_pressure": "pressure",
    "battery_level": "battery",
    "batterylevel": "battery",
    "hum": "humidity",
    "hum_sht": "humidity",
    "illumination": "illuminance",
    "luminosity": "illuminance",
    "pm2_5": "pm25",
    "relative_humidity": "humidity",
    "relativehumidity": "humidity",
    "soil_moisture": "moisture",
    "temp": "temperature",
    "tempc_sht": "temperature",
}
"""Usual names of device codecs, in lower case → quantity."""
_DEEPEST = 8
_MOST_NAMES, _LONGEST = 4096, 200
_HOUR = 3600
_LINK = {"rssi": "dBm", "snr": "dB", "battery": "%", "lost_uplinks": "1"}
_NOTHING: Mapping[str, Any] = MappingProxyType({})

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time as servers write it: RFC 3339, in up to ns."""
Counter = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
"""A frame counter."""
Identity = Annotated[str, msgspec.Meta(max_length=100)]
"""What is remembered of a device or session; none that a server makes is half as long."""


class Heard(msgspec.Struct, gc=False):
    """How well one gateway heard an uplink; a SNR of 0 is left out by the server."""

    rssi: float | None = None
    snr: float | None = None


class Uplink(msgspec.Struct, gc=False):
    """What a network server says of an uplink.

    Attributes:
        device: What is globally unique of the device.
        session: What changes when the device joins again; empty when there is nothing.
        lasting: Whether no later session can be called the same.
        counter: The frame counter.
        time: Seconds since 1970; NaN when not said.
        read: The object that the server's codec made.
        data: The device's bytes, in base64.
        heard: One a gateway.
        battery: What the server knows of the device's battery, %.
    """

    device: str
    session: str
    lasting: bool
    counter: int
    time: float
    read: dict[str, Any] | None
    data: str
    heard: Iterable[Heard]
    battery: float | None = None

    @property
    def key(self) -> str | None:
        """By which it is known again, from whichever gateway and however often it comes.

        A device without join starts its counter anew in the same session, so there its bytes and the hour count, too.
        """
        if self.lasting:
            return f"{self.device} {self.session} {self.counter}"
        if math.isnan(self.time):
            return None
        return f"{self.device} {self.session} {self.counter} {int(self.time // _HOUR)} {self.data}"


class LorawanOptions(Options):
    """Options that the formats of network servers share."""

    codec: str | None = Field(
        None,
        description="format that reads the devices' own bytes, such as `cayenne`; the server's codec counts without it",
    )
    codec_options: Mapping[str, Any] = Field({}, description="options of that format")


class Lorawan(Format):
    """What every network server's format does with an uplink."""

    names_sensors = True
    options: ClassVar[type[LorawanOptions]] = LorawanOptions
    data_key: ClassVar[str]
    """Where the device's bytes are in a payload, for problems."""
    read_key: ClassVar[str]
    """Where the server's object is."""

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = self.options.model_validate(declared.options)
        self._codec: Format | None = None
        if options.codec is not None:
            try:
                self._codec = make(options.codec, Declared(rename=declared.rename, options=options.codec_options))
            except FormatError as error:
                msg = f"codec: {error}"
                raise FormatError(msg) from error
            if isinstance(self._codec, Lorawan):
                msg = f"codec: '{options.codec}' reads what a server sends, not a device's own bytes"
                raise FormatError(msg)
            self.__dict__["units"] = self._codec.units  # of this source alone; a class's own are the same for all
        self._counters = Counters()
        self._names: dict[str, tuple[str, str]] = {}

    def samples(self, topic: str, sensor: str, uplink: Uplink, received: int) -> list[Sample]:
        """Readings of an uplink, those of the link among them.

        Args:
            topic: Topic as it came.
            sensor: What the device is called.
            uplink: What the server says of it.
            received: Time of arrival, ms UTC.
        """
        link = link_quality(uplink.heard)
        lost = self._counters.lost((uplink.device, uplink.session), uplink.counter)
        if lost is not None:
            link["lost_uplinks"] = lost
        if uplink.battery is not None:
            link["battery"] = uplink.battery
        if self._codec is None or not uplink.data:
            values, problems = self._read(uplink)
            values.update(link)
            return [Sample(uplink.time, values, problems, sensor, _NOTHING, _NOTHING)]
        samples = self._decoded(self._codec, topic, uplink, received)
        whole = None
        for sample in samples:
            sample.sensor = sample.sensor or sensor
            if math.isnan(sample.time):
                sample.time = uplink.time
                if whole is None and sample.sensor == sensor:
                    whole = sample
        units = {name: _LINK[name] for name in link}  # whatever the codec's are
        if whole is not None:
            whole.values.update(link)
            whole.units = {**whole.units, **units}
        elif link:
            samples.append(Sample(uplink.time, link, sensor=sensor, units=units))
        return samples

    def _decoded(self, codec: Format, topic: str, uplink: Uplink, received: int) -> list[Sample]:
        """What a declared codec reads in the device's bytes."""
        try:
            data = decoded(uplink.data, "base64")
            sent = received if math.isnan(uplink.time) else round(uplink.time * 1000)
            return codec.decode(topic, data, sent).samples
        except (ValueError, PayloadError) as error:
            return [Sample(problems=(f"{self.data_key}: {error}",))]

    def _read(self, uplink: Uplink) -> tuple[dict[str, float], tuple[str, ...]]:
        """Values and problems of the server's object."""
        values: dict[str, float] = {}
        if uplink.read is not None:
            problems: list[str] = []
            self._flatten(uplink.read, "", values, problems, 0)
            return values, tuple(problems)
        if not uplink.data:
            return values, ()
        problem = "the server has no codec for the device: give it one there, or declare options.codec"
        return values, (f"{self.read_key}: {problem}",)

    def _flatten(
        self, fields: Mapping[str, Any], above: str, values: dict[str, float], problems: list[str], depth: int
    ) -> None:
        names = self._names
        for key, value in fields.items():
            name = above + key if above else key
            kind = type(value)
            if kind is dict or kind is list:
                if depth == _DEEPEST:
                    problems.append(f"{self.read_key}.{printable(name)}: nested more than {_DEEPEST} deep")
                    continue
                below = value if kind is dict else {str(at): one for at, one in enumerate(value, 1)}
                self._flatten(below, f"{name}.", values, problems, depth + 1)
                continue
            quantity, otherwise = names.get(name) or self._name(name)
            if quantity in values:
                quantity = otherwise
            if kind is float:
                values[quantity] = value
                continue
            try:
                values[quantity] = number(value)
            except ValueError:  # the name of a mode, a version; unless the source says that it is a reading
                if name in self.rename:
                    problems.append(no_number(f"{self.read_key}.{name}", value))

    def _name(self, name: str) -> tuple[str, str]:
        """What a name stands for, and what it is called where that has a value already."""
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        plain = printable(name)
        if (renamed := self.rename.get(name)) is not None:
            found = renamed, plain
        elif (channel := _CHANNEL.fullmatch(name)) is not None:
            kind, place, part = channel.groups()
            suffix = f"_{part}" if part else ""
            otherwise = f"{_CAYENNE[kind]}_{place}{suffix}"
            found = self.rename.get(otherwise, _CAYENNE[kind] + suffix), otherwise
        else:
            usual = plain.lower().replace(".", "_")
            found = _QUANTITIES.get(usual, usual), plain
        if len(name) <= _LONGEST:
            self._names[name] = found
        return found


def link_quality(heard: Iterable[Heard]) -> dict[str, float]:
    """``rssi`` and ``snr`` of the gateway that heard best; nothing where none says how well."""
    best: dict[str, float] = {}
    for one in heard:
        rssi, snr = one.rssi, one.snr or 0.0
        if rssi is not None and (not best or (snr, rssi) > (best["snr"], best["rssi"])):
            best = {"rssi": rssi, "snr": snr}
    return best


class Counters:
    """The last frame counters of the devices that were heard last.

    Of each, some are remembered with what they said, since a message may be read again.
    """

    MOST_DEVICES = 10_000
    MOST_COUNTERS = 16

    def __init__(self) -> None:
        self._devices: dict[tuple[str, str], dict[int, int | None]] = {}

    def lost(self, device: tuple[str, str], counter: int) -> int | None:
        """How many uplinks were lost since the one before.

        Args:
            device: Device and session.
            counter: The frame counter.

        Returns:
            None when that is not known: of the first one, or when the counter started anew.
        """
        counters = self._devices.pop(device, None)  # and put back, so that the first is the one heard longest ago
        if counters is None:
            counters = {counter: None}
            if len(self._devices) >= self.MOST_DEVICES:
                del self._devices[next(iter(self._devices))]
        elif counter not in counters:
            last = next(reversed(counters))
            if counter < last:
                counters = {counter: None}
            else:
                counters[counter] = counter - last - 1
                if len(counters) > self.MOST_COUNTERS:
                    del counters[next(iter(counters))]
        self._devices[device] = counters
        return counters[counter]
