"""Durations with a unit, as people write them in configuration: ``"90s"``, ``"3h"``, ``"500ms"``."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")


def seconds(text: object) -> float:
    """Turns ``"90s"`` into 90.0.

    Args:
        text: A number with one of the units ms, s, m (or min), h, d.

    Returns:
        Seconds.

    Raises:
        ValueError: If the text is anything else, a bare number included.
    """
    if isinstance(text, str) and (match := _TEXT.fullmatch(text.strip())):
        return float(match[1]) * _SECONDS[match[2]]
    msg = f"expected a duration with a unit, such as '90s', '15m' or '3h', not {text!r}"
    raise ValueError(msg)


Duration = Annotated[
    float, BeforeValidator(seconds), WithJsonSchema({"type": "string", "examples": ["10m"]}, mode="validation")
]
"""A pydantic field in seconds, written with a unit."""
