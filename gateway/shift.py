"""Shift: the times within recorded payloads, moved by as much as the times of arrival.

That needs to know where a payload has its time. It is known of JSON whose source declares a time key; whatever else a
payload is, it stays as it was recorded, and is counted. Nothing but the time changes: not a byte of the rest.
"""

import contextlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gateway.config import GatewayConfig
from gateway.edge.decode import Decoder
from gateway.edge.readings import Channels
from sensors.stream import Message

_UNITS = ((1e11, 1e9), (1e14, 1e6), (1e17, 1e3), (math.inf, 1.0))
"""Below which size a time counts s, ms, µs or ns, and ns per unit; as `gateway.edge.decode` tells them apart."""
_MOST_TOPICS = 65_536


class Shift:
    """Moves the times of payloads, by the sources of a gateway.

    Args:
        config: The gateway's.

    Attributes:
        moved: Payloads whose time was moved.
        kept: Payloads that are as they were recorded.

    Raises:
        SourceError, KindError: If its sources or kinds cannot be used.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.moved = self.kept = 0
        self._sources = Decoder.of(config, Channels()).sources
        self._topics: dict[str, re.Pattern[bytes] | None] = {}

    def __call__(self, message: Message, shift: int) -> bytes:
        """A payload with its time moved.

        Args:
            message: As it was recorded.
            shift: ns.
        """
        if message.topic not in self._topics:
            if len(self._topics) >= _MOST_TOPICS:
                self._topics.clear()
            self._topics[message.topic] = self._pattern(message.topic)
        pattern = self._topics[message.topic]
        places = [*pattern.finditer(message.payload)] if pattern is not None else []
        if len(places) == 1 and (text := _later(places[0][1], shift)) is not None:
            self.moved += 1
            start, end = places[0].span(1)
            return message.payload[:start] + text + message.payload[end:]
        self.kept += 1
        return message.payload

    def _pattern(self, topic: str) -> re.Pattern[bytes] | None:
        """Where payloads of a topic have their time; None if it is not known."""
        for source in self._sources:
            if source.pattern.fullmatch(topic):
                config = source.config
                return _key(config.time) if config.format == "json" and config.time is not None else None
        return None


@lru_cache(256)
def _key(name: str) -> re.Pattern[bytes]:
    return re.compile(re.escape(json.dumps(name).encode()) + rb'\s*:\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|"[^"\\]*")')


def _later(text: bytes, shift: int) -> bytes | None:
    """A time as JSON, moved by ns, written as it was; None if it is no time."""
    inner = text.strip(b'"').decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        number = _number(inner, shift)
        return b'"%b"' % number if text.startswith(b'"') else number
    try:
        moment = datetime.fromisoformat(inner)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    try:
        later = (moment + timedelta(microseconds=round(shift / 1000))).isoformat(timespec="milliseconds")
    except OverflowError:
        return None
    return f'"{later.removesuffix("+00:00")}Z"'.encode() if moment.tzinfo == UTC else f'"{later}"'.encode()


def _number(text: str, shift: int) -> bytes:
    """A number of s, ms, µs or ns, moved.

    Raises:
        ValueError: It is none.
    """
    number = float(text)
    if not math.isfinite(number):
        msg = f"no time: {text!r}"
        raise ValueError(msg)
    unit = next(unit for below, unit in _UNITS if abs(number) < below)
    if re.fullmatch(r"-?\d+", text):
        return b"%d" % (int(text) + round(shift / unit))
    decimals = len(text.partition(".")[2]) if "." in text and "e" not in text.lower() else 3
    return f"{number + shift / unit:.{decimals}f}".encode()
