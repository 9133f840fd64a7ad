"""Events of ChirpStack 4, as its MQTT integration publishes them in JSON.

Uplinks become readings of the device and of how well it was heard, device states its battery and link margin, and
errors that ChirpStack logs become problems. ChirpStack leaves out whatever is 0, empty or false.
"""

import math
from typing import Any, Literal

import msgspec
from pydantic import Field

from sensors.formats import Declared, Decoded, PayloadError, Sample
from sensors.formats.lorawan import Counter, Heard, Identity, Lorawan, LorawanOptions, Moment, Uplink
from sensors.formats.objects import UNREADABLE, printable, refusal

_EVENTS = frozenset({"up", "status", "join", "ack", "txack", "log", "location", "integration"})


class _Device(msgspec.Struct, rename="camel", gc=False):
    dev_eui: Identity = ""
    device_name: str = ""


class _Event(msgspec.Struct, rename="camel", gc=False):
    device_info: _Device | None = None
    time: Moment | None = None
    deduplication_id: str = ""
    # up
    dev_addr: Identity = ""
    f_cnt: Counter = 0
    data: str = ""
    object: dict[str, Any] | None = None
    rx_info: list[Heard] = []
    # status
    margin: float | None = None
    battery_level: float | None = None
    battery_level_unavailable: bool = False
    external_power_source: bool = False
    # log
    level: str = ""
    code: str = ""
    description: str = ""
    # integration
    integration_name: str = ""


_DECODE = msgspec.json.Decoder(_Event).decode


class ChirpstackOptions(LorawanOptions):
    """Options of ``chirpstack``."""

    sensor: Literal["dev_eui", "device_name"] = Field(
        "dev_eui", description="what names the sensor: `dev_eui` or `device_name`"
    )


class Chirpstack(Lorawan):
    """Reads uplinks and device states of ChirpStack 4."""

    options = ChirpstackOptions
    data_key, read_key = "data", "object"

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        self._named = ChirpstackOptions.model_validate(declared.options).sensor == "device_name"

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:
        """Reads one event.

        Raises:
            PayloadError: If it is none of ChirpStack 4; names the byte or the key.
        """
        try:
            event = _DECODE(payload)
        except UNREADABLE as error:
            msg = refusal("an event of ChirpStack 4", payload, error)
            raise PayloadError(msg) from error
        device = event.device_info
        if device is None or not device.dev_eui:
            msg = "deviceInfo.devEui: there is none, so that it is no event of ChirpStack 4"
            raise PayloadError(msg)
        name = device.device_name if self._named else device.dev_eui
        if not name:
            msg = "deviceInfo.deviceName: there is none, and options.sensor wants it"
            raise PayloadError(msg)
        time = math.nan if event.time is None else event.time.timestamp()
        kind = topic.rpartition("/")[2]
        if kind not in _EVENTS:
            kind = _guessed(event)
        if kind == "up":
            uplink = Uplink(
                device.dev_eui,
                event.dev_addr,
                lasting=False,
                counter=event.f_cnt,
                time=time,
                read=event.object,
                data=event.data,
                heard=event.rx_info,
            )
            return Decoded(self.samples(topic, name, uplink, received), key=uplink.key)
        if kind == "status":
            return Decoded([Sample(time, _state(event), sensor=name)], key=event.deduplication_id or None)
        if kind == "log" and event.level == "ERROR":
            problem = f"{event.code or 'log'}: {event.description}"
            return Decoded([Sample(time, problems=(printable(problem, 240),), sensor=name)])
        return Decoded([])


def _guessed(event: _Event) -> str:
    """The kind of an event whose topic does not end as ChirpStack's own."""
    if event.integration_name:
        return "integration"
    if event.rx_info or event.object is not None or event.data:
        return "up"
    if event.level or event.code or event.description:
        return "log"
    state = event.battery_level is not None or event.battery_level_unavailable or event.external_power_source
    return "status" if state or event.margin is not None else "join"


def _state(event: _Event) -> dict[str, float]:
    values = {"margin": event.margin or 0.0}
    if event.battery_level_unavailable:
        values["battery"] = math.nan
    elif not event.external_power_source:
        values["battery"] = event.battery_level or 0.0
    return values
