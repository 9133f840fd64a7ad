"""Recordings to report on."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from gateway.config import GatewayConfig
from sensors.stream import Writer

START = 1_790_000_000
"""Seconds since 1970."""
HOSTILE = "</td><script>alert(1)</script>"
CONFIG = GatewayConfig.model_validate({"gateway": {"id": "gw"}, "output": [{"url": "http://127.0.0.1"}]})

Message = tuple[int, str, bytes]
"""Seconds from the start, topic, payload."""


def write(path: Path, messages: Iterable[Message]) -> Path:
    """Writes messages as a broker would have delivered them, half a second after they were made."""
    with Writer(path) as writer:
        for number, (second, topic, payload) in enumerate(messages):
            moment = (START + second) * 10**9 + 5 * 10**8
            writer.add(topic, payload, qos=1, monotonic=number, wall=moment)
    return path


def reading(second: int, sensor: str = "a1", **values: float) -> Message:
    """A reading in citygate's own JSON."""
    return second, f"city/east/air/{sensor}", json.dumps({"ts": START + second, **values}).encode()


def day() -> list[Message]:
    """A day of two sensors, one reading a minute: a gap, failed values, and two dead letters."""
    messages = []
    for minute in range(1440):
        for sensor in ("a1", "a2"):
            if sensor == "a2" and 600 <= minute < 720:
                continue
            value = round(20 + 10 * math.sin(minute / 100) + (minute * 7919 % 13) / 10, 1)
            if sensor == "a1" and 300 <= minute < 310:
                value = 5000.0
            messages.append(reading(60 * minute, sensor, pm25=value))
    messages.append((86_400, f"town/{HOSTILE}/\u202e\udcff", b"<img src=x onerror=alert(1)>\xff\0"))
    messages.append((86_400, "city/east/air/a1", json.dumps({"ts": HOSTILE, "pm25": 1}).encode()))
    return messages
