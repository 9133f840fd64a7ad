"""Home Assistant discovery: what a device announces of itself, as a source that could be declared for it."""

import json
import re
from typing import NamedTuple

_TOPIC = re.compile(r"[^/]+/sensor/(?:([\w-]+)/)?([\w-]+)/config")
_TEMPLATE = re.compile(r"\{\{\s*value_json((?:\.\w+|\['[^']+'\])+)\s*(?:\|[^}]*)?\}\}")
_STEP = re.compile(r"\.(\w+)|\['([^']+)'\]")
_SHORT = {
    "stat_t": "state_topic",
    "val_tpl": "value_template",
    "unit_of_meas": "unit_of_measurement",
    "dev_cla": "device_class",
}


class Proposal(NamedTuple):
    """One quantity of one sensor, as announced.

    Attributes:
        sensor: The node of the discovery topic, or its object where it has no node.
        topic: Where the values are published.
        path: Keys in the payload that lead to the value.
        quantity: The device class, or the last key.
        unit: Unit in which the value is sent; None when it is not said.
    """

    sensor: str
    topic: str
    path: tuple[str, ...]
    quantity: str
    unit: str | None


def proposal(topic: str, payload: bytes) -> Proposal | None:
    """Reads a message of the topic ``homeassistant/sensor/[node/]object/config``.

    Returns:
        What it announces; None if it is no such message, or its value is no key of a JSON payload.
    """
    if (match := _TOPIC.fullmatch(topic)) is None:
        return None
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    said = {_SHORT.get(key, key): value for key, value in data.items() if isinstance(value, str)}
    state, base = said.get("state_topic", ""), said.get("~", "")
    state = base + state[1:] if state.startswith("~") else state
    template = _TEMPLATE.fullmatch(said.get("value_template", "").strip())
    if not state or template is None:
        return None
    path = tuple(dotted or quoted for dotted, quoted in _STEP.findall(template[1]))
    quantity = said.get("device_class") or path[-1]
    return Proposal(match[1] or match[2], state, path, quantity, said.get("unit_of_measurement"))
