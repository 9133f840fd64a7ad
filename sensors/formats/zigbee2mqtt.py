"""What Zigbee2MQTT publishes: the state of each device as one JSON object under its friendly name.

A friendly name may hold ``/``: it is all that stands between the base topic and the end. What a device is asked or told
(``/get``, ``/set``) and what the bridge says of itself hold no readings. A device that is reported ``offline`` is gone.
"""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import Field

from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.objects import no_number, number, read

_QUANTITIES = {"illuminance_lux": "illuminance", "soil_moisture": "moisture"}
"""Names of Zigbee2MQTT that differ from those of the kinds."""
_NUMERIC = frozenset(
    {
        "battery",
        "co2",
        "humidity",
        "illuminance",
        "illuminance_lux",
        "linkquality",
        "occupancy",
        "pm10",
        "pm25",
        "pressure",
        "soil_moisture",
        "temperature",
        "voltage",
    }
)
"""Never text: anything but a number in them is a problem, elsewhere it is the name of a mode or an action."""
_ABOUT = frozenset({"last_seen", "elapsed", "update", "update_available", "device"})
_MILLIVOLTS = 1000.0


class Zigbee2MqttOptions(Options):
    """Options of ``zigbee2mqtt``."""

    base: str = Field("zigbee2mqtt", min_length=1, description="base topic of the bridge (`mqtt.base_topic` there)")


class Zigbee2Mqtt(Format):
    """Reads the topics below one bridge's base topic."""

    names_sensors = True
    options = Zigbee2MqttOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        self._base = Zigbee2MqttOptions.model_validate(declared.options).base.strip("/") + "/"

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it tells its own time
        """Reads one message.

        Raises:
            PayloadError: If the topic is not below the base, or the payload is no state; names the byte or the key.
        """
        base = self._base
        if not topic.startswith(base) or len(topic) == len(base):
            msg = f"the topic is not below '{base}': set options.base to the bridge's base topic"
            raise PayloadError(msg)
        name = topic[len(base) :]
        if name.startswith("bridge/"):
            return Decoded([])
        head, _, last = name.rpartition("/")
        if head and last == "availability":
            return _availability(head, payload)
        if head and (last in {"get", "set"} or head.endswith(("/get", "/set"))):
            return Decoded([])
        return Decoded([self._state(name, read(payload))])

    def _state(self, name: str, state: dict[str, Any]) -> Sample:
        values: dict[str, float] = {}
        problems = []
        rename = self.rename
        for key, value in _flat(state):
            if (quantity := rename.get(key)) is None:
                if key in _ABOUT:
                    continue
                quantity = _QUANTITIES.get(key, key)
                if key == "illuminance" and "illuminance_lux" in state:
                    quantity = "illuminance_raw"  # old releases: what the chip counts, beside the lux
            try:
                values[quantity] = number(value)
            except ValueError:
                if key in _NUMERIC or key in rename:
                    problems.append(no_number(key, value))
        sample = Sample(_last_seen(state.get("last_seen")), values, tuple(problems), name)
        # Zigbee2MQTT gives the voltage of a battery in mV, that of the mains in V
        if "voltage" in values and ("battery" in values or values["voltage"] >= _MILLIVOLTS):
            sample.units = {"voltage": "mV"}
        return sample


def _flat(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if isinstance(value, dict) and key not in _NUMERIC and key not in _ABOUT:
            for below, inner in value.items():
                yield f"{key}.{below}", inner
        else:
            yield key, value


def _last_seen(sent: object) -> float:
    match sent:
        case None:
            return math.nan
        case int() | float() if not isinstance(sent, bool) and abs(sent) < 2**63:
            return float(sent)
        case str():
            try:
                moment = datetime.fromisoformat(sent)
            except ValueError:
                pass
            else:
                if moment.tzinfo is not None:
                    return moment.timestamp()
    msg = f"last_seen: expected a time with an offset or ms since 1970, not {str(sent)[:40]!r}"
    raise PayloadError(msg)


def _availability(name: str, payload: bytes) -> Decoded:
    state = read(payload).get("state") if payload.lstrip().startswith(b"{") else payload.decode("ascii", "replace")
    match state:
        case "online":
            return Decoded([])
        case "offline":
            return Decoded([Sample(sensor=name, gone=True)])
    msg = f"state: expected 'online' or 'offline', not {str(state)[:40]!r}"
    raise PayloadError(msg)
