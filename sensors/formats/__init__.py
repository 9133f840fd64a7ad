"""Payload formats: one module each, turning bytes into readings.

A format is found by the name that a source gives it. Those of this package are listed in :data:`BUILTIN`; others come
from installed packages, as entry points of the group ``citygate.formats``, each naming a subclass of :class:`Format`.
"""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

BUILTIN = {
    "airrohr": "sensors.formats.airrohr:Airrohr",
    "cayenne": "sensors.formats.cayenne:Cayenne",
    "chirpstack": "sensors.formats.chirpstack:Chirpstack",
    "hj212": "sensors.formats.hj212:Hj212",
    "homeassistant": "sensors.formats.homeassistant:HomeAssistant",
    "influx": "sensors.formats.influx:Influx",
    "json": "sensors.formats.json:Json",
    "senml": "sensors.formats.senml:Senml",
    "sparkplug": "sensors.formats.sparkplug:Sparkplug",
    "tasmota": "sensors.formats.tasmota:Tasmota",
    "ttn": "sensors.formats.ttn:Ttn",
    "zigbee2mqtt": "sensors.formats.zigbee2mqtt:Zigbee2Mqtt",
}
"""Name of a format → module and class. A module is imported when a source first names its format."""
_INSTALLED = "sensors.formats.installed"  # imported when it is needed, since it needs what is here


class FormatError(Exception):
    """A format does not exist or cannot be used as declared; the message says what to change."""


class PayloadError(Exception):
    """A payload that cannot be read; the message says where (byte or key) and why."""


class Quality(Enum):
    """What the sender itself says of a value, beside "good"."""

    SUSPECT = "suspect"
    """Measured while something was amiss: maintenance, calibration, typed in by hand, stale."""
    OVER_RANGE = "over_range"
    """Beyond what the instrument can measure: suspect."""
    BAD = "bad"
    """The sender knows the value to be wrong: it fails."""


@dataclass(slots=True)
class Sample:
    """What one sensor says at one time; a payload holds one or more.

    Attributes:
        time: Observation time as sent, in s, ms, µs or ns since 1970 (told apart by size); NaN when there is none.
        values: Quantity → value as sent; NaN where the sensor says that the value is missing.
        problems: A reason for each field that could not be read.
        sensor: The sensor as the payload names it; None when the topic tells.
        units: Quantity → unit in which the payload says that the value is, as ``pint`` reads it. Where it says
            nothing, the source's ``units`` hold, then the format's :attr:`Format.units`, then the kind's own unit.
        quality: Quantity → what the sender says of its value, where that is not "good".
        historical: Whether the sender marks the sample as stored earlier: it must not become a live value.
        gone: Whether the sender is reported to have left; then there are no values.
    """

    time: float = math.nan
    values: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    sensor: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Quality] = field(default_factory=dict)
    historical: bool = False
    gone: bool = False


class Answer(NamedTuple):
    """A message to be published in answer, once what was asked for is on disk."""

    topic: str
    payload: bytes


class Announcement(NamedTuple):
    """A quantity that a device says it will send.

    Attributes:
        device: What the device is called.
        topic: Where the values will be.
        path: Keys in a JSON payload that lead to the value.
        quantity: What is measured.
        unit: In which it is sent; None when that is not said.
    """

    device: str
    topic: str
    path: tuple[str, ...]
    quantity: str
    unit: str | None


class Decoded(NamedTuple):
    """What one message says.

    Attributes:
        samples: In the order of the payload; none for a message that is of no interest, such as an acknowledgement.
        answers: What the sender waits for.
        key: By which the same message is known again though its bytes differ; None when its bytes tell.
        announced: What the sender says that it will send.
        loose: In what the message is not as its standard says, though it was read.
    """

    samples: list[Sample]
    answers: tuple[Answer, ...] = ()
    key: str | None = None
    announced: tuple[Announcement, ...] = ()
    loose: tuple[str, ...] = ()


class Options(BaseModel):
    """Options of a format; a format that has some declares a subclass, and each of them has a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Declared(NamedTuple):
    """What a source declares of its payloads.

    Attributes:
        time: Key of the observation time, for formats that take one; None when payloads have none.
        rename: Name in the payload → quantity. It goes before the format's own names.
        options: The table ``[source.options]``.
    """

    time: str | None = None
    rename: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}


class Format(abc.ABC):
    """One payload format, as one source declares it.

    One instance reads all messages of a source in the order of their arrival. What it remembers between messages is
    bounded, and reading a message twice does no harm.

    Args:
        declared: What the source says.

    Raises:
        pydantic.ValidationError: If the options are not those of :attr:`options`.
        FormatError: If they cannot be used together.
    """

    names_sensors: bool = False
    """Whether payloads name their sensors, so that the topic need not."""
    takes_time: ClassVar[bool] = False
    """Whether the source says which key is the time; else payloads have a time of their own, or none."""
    relative_times: ClassVar[bool] = False
    """Whether payloads may say their time by that of their arrival: they are not read before the clock is known."""
    options: ClassVar[type[Options]] = Options
    units: ClassVar[Mapping[str, str]] = {}
    """Quantity → the unit in which this format sends it, where that is not the kind's and payloads do not say."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.time = declared.time
        self.rename = dict(declared.rename)

    @abc.abstractmethod
    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:
        """Reads one message.

        Args:
            topic: Topic as it came.
            payload: Payload as it came.
            received: Time of arrival, ms UTC: what relative times refer to.

        Raises:
            PayloadError: If nothing of the payload can be read.
        """


def names() -> list[str]:
    """Names of all formats that are installed."""
    return sorted({*BUILTIN, *import_module(_INSTALLED).names()})


def find(name: str) -> type[Format]:
    """Finds a format by its name.

    Raises:
        FormatError: If there is none, or it cannot be imported.
    """
    if (place := BUILTIN.get(name)) is not None:
        module, _, attribute = place.partition(":")
        found: type[Format] = getattr(import_module(module), attribute)
        return found
    installed: type[Format] | None = import_module(_INSTALLED).load(name)
    if installed is None:
        msg = f"unknown format '{name}'; there are {', '.join(names())}"
        raise FormatError(msg)
    return installed


def make(name: str, declared: Declared) -> Format:
    """A format, as a source declares it.

    Raises:
        FormatError: If there is none of that name, or it cannot be used so; names the option.
    """
    kind = find(name)
    try:
        kind.options.model_validate(declared.options)
        return kind(declared)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        has = ", ".join(kind.options.model_fields) or "none"
        why = "there is none of that name" if first["type"] == "extra_forbidden" else first["msg"]
        msg = f"format '{name}': option {key}: {why}; its options: {has}"
        raise FormatError(msg) from error
