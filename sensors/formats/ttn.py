"""Messages of The Things Stack 3, the server of The Things Network, as its MQTT server publishes them in JSON.

Uplinks become readings of the device and of how well it was heard, and a downlink that failed becomes a problem. The
server leaves out whatever is 0, empty or false. Simulated uplinks are no readings.
"""

import math
from typing import Any, Literal

import msgspec
from pydantic import Field

from sensors.formats import Declared, Decoded, PayloadError, Sample
from sensors.formats.lorawan import Counter, Heard, Identity, Lorawan, LorawanOptions, Moment, Uplink
from sensors.formats.objects import UNREADABLE, printable, refusal


class _Ids(msgspec.Struct, gc=False):
    device_id: Identity = ""
    dev_eui: Identity = ""
    dev_addr: Identity = ""


class _Settings(msgspec.Struct, gc=False):
    time: Moment | None = None


class _Battery(msgspec.Struct, gc=False):
    value: float = 0.0


class _Uplink(msgspec.Struct, gc=False):
    session_key_id: Identity = ""
    f_cnt: Counter = 0
    frm_payload: str = ""
    decoded_payload: dict[str, Any] | None = None
    rx_metadata: list[Heard] = []
    settings: _Settings | None = None
    received_at: Moment | None = None
    last_battery_percentage: _Battery | float | None = None


class _Error(msgspec.Struct, gc=False):
    name: str = ""
    message_format: str = ""


class _Failed(msgspec.Struct, gc=False):
    error: _Error | None = None


class _Message(msgspec.Struct, gc=False):
    end_device_ids: _Ids | None = None
    received_at: Moment | None = None
    uplink_message: _Uplink | None = None
    downlink_failed: _Failed | None = None
    simulated: bool = False


_DECODE = msgspec.json.Decoder(_Message).decode


class TtnOptions(LorawanOptions):
    """Options of ``ttn``."""

    sensor: Literal["device_id", "dev_eui"] = Field(
        "device_id", description="what names the sensor: `device_id` or `dev_eui`"
    )
    time: Literal["server", "gateway"] = Field(
        "server",
        description="whose clock tells an uplink's time: that of the `server`, or of the `gateway` where it tells one",
    )


class Ttn(Lorawan):
    """Reads uplinks of The Things Stack 3."""

    options = TtnOptions
    data_key, read_key = "uplink_message.frm_payload", "uplink_message.decoded_payload"

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = TtnOptions.model_validate(declared.options)
        self._named, self._by_gateway = options.sensor == "dev_eui", options.time == "gateway"

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:
        """Reads one message.

        Raises:
            PayloadError: If it is none of The Things Stack 3; names the byte or the key.
        """
        try:
            message = _DECODE(payload)
        except UNREADABLE as error:
            msg = refusal("a message of The Things Stack 3", payload, error)
            raise PayloadError(msg) from error
        device, sent = message.end_device_ids, message.uplink_message
        if device is None or not device.device_id:
            msg = "end_device_ids.device_id: there is none, so that it is no message of The Things Stack 3"
            raise PayloadError(msg)
        name = device.dev_eui if self._named else device.device_id
        if not name:
            msg = "end_device_ids.dev_eui: there is none, and options.sensor wants it"
            raise PayloadError(msg)
        if sent is None:
            return Decoded([_failure(name, message)] if message.downlink_failed else [])
        if message.simulated:
            return Decoded([])
        battery = sent.last_battery_percentage
        uplink = Uplink(
            device.dev_eui or device.device_id,
            sent.session_key_id or device.dev_addr,
            lasting=bool(sent.session_key_id),
            counter=sent.f_cnt,
            time=self._time(message, sent),
            read=sent.decoded_payload,
            data=sent.frm_payload,
            heard=sent.rx_metadata,
            battery=battery.value if isinstance(battery, _Battery) else battery,
        )
        return Decoded(self.samples(topic, name, uplink, received), key=uplink.key)

    def _time(self, message: _Message, sent: _Uplink) -> float:
        moment = sent.settings.time if self._by_gateway and sent.settings else None
        moment = moment or sent.received_at or message.received_at
        return math.nan if moment is None else moment.timestamp()


def _failure(name: str, message: _Message) -> Sample:
    error = message.downlink_failed.error if message.downlink_failed else None
    said = ": ".join(filter(None, (error.name, error.message_format))) if error else "no reason given"
    time = math.nan if message.received_at is None else message.received_at.timestamp()
    return Sample(time, problems=(f"downlink_failed: {printable(said, 240)}",), sensor=name)
