"""Home Assistant discovery: what a device announces of itself. It says where readings will be, and holds none."""

import re

from sensors.formats import Announcement, Decoded, Format, PayloadError
from sensors.formats.objects import read

_TOPIC = re.compile(r"(?:.+/)?sensor/(?:([\w-]+)/)?([\w-]+)/config")
_TEMPLATE = re.compile(r"\{\{-?\s*value_json((?:\.\w+|\['[^']+'\]|\[\"[^\"]+\"\]|\[\d+\])+)\s*(?:\|[^}]*)?-?\}\}")
_STEP = re.compile(r"\.(\w+)|\['([^']+)'\]|\[\"([^\"]+)\"\]|\[(\d+)\]")
_LONGEST = 256  # characters: what is announced is kept until the gateway ends
_SHORT = {
    "stat_t": "state_topic",
    "val_tpl": "value_template",
    "unit_of_meas": "unit_of_measurement",
    "dev_cla": "device_class",
    "dev": "device",
}
_CLASSES = {
    "aqi": "aqi",
    "atmospheric_pressure": "pressure",
    "carbon_dioxide": "co2",
    "carbon_monoxide": "co",
    "moisture": "moisture",
    "nitrogen_dioxide": "no2",
    "nitrogen_monoxide": "no",
    "ozone": "o3",
    "pm1": "pm1",
    "pm10": "pm10",
    "pm25": "pm25",
    "precipitation": "rain",
    "signal_strength": "rssi",
    "sound_pressure": "laeq",
    "sulphur_dioxide": "so2",
    "wind_direction": "wind_direction",
    "wind_speed": "wind_speed",
}
"""Device class → quantity, where a kind here has it under another name; any other class is a quantity as it is."""


class HomeAssistant(Format):
    """Reads announcements of `Home Assistant <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>`_."""

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - it has no time
        """Reads one message of a topic ``…/sensor/[node/]object/config``; an empty one takes an announcement back.

        Raises:
            PayloadError: If it is no JSON object; names the byte.
        """
        match = _TOPIC.fullmatch(topic)
        if match is None or not payload:
            return Decoded([])
        said = {_SHORT.get(key, key): value for key, value in read(payload).items()}
        state, base, template = said.get("state_topic"), said.get("~"), said.get("value_template")
        if not isinstance(state, str):
            msg = "state_topic: expected the topic of the values"
            raise PayloadError(msg)
        if isinstance(base, str):
            state = base + state[1:] if state.startswith("~") else state
            state = state[:-1] + base if state.endswith("~") else state
        found = _TEMPLATE.fullmatch(template.strip()) if isinstance(template, str) else None
        if found is None:  # computed, or a payload that is nothing but a value: no source reads it by a key
            return Decoded([])
        path = tuple(next(filter(None, step)) for step in _STEP.findall(found[1]))
        kind, unit = said.get("device_class"), said.get("unit_of_measurement")
        quantity = _CLASSES.get(kind, kind) if isinstance(kind, str) and kind else path[-1].lower()
        name = (_name(said.get("device")) or match[1] or match[2])[:_LONGEST]
        unit = unit[:_LONGEST] if isinstance(unit, str) else None
        for key, text in (("state_topic", state), ("value_template", ".".join(path)), ("device_class", quantity)):
            if len(text) > _LONGEST:
                msg = f"{key}: expected at most {_LONGEST} characters, found {len(text)}"
                raise PayloadError(msg)
        announced = Announcement(name, state, path, quantity, unit)
        return Decoded([], announced=(announced,))


def _name(device: object) -> str | None:
    """What a device is called, if it says."""
    name = device.get("name") if isinstance(device, dict) else None
    return name if isinstance(name, str) and name else None
