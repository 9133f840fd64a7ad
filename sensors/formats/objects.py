"""JSON objects as devices of one maker send them: what is a number in them, and what is not."""

import math
from typing import Any

import msgspec

from sensors.formats import PayloadError

_SWITCHES = {"ON": 1.0, "OFF": 0.0, "TRUE": 1.0, "FALSE": 0.0}
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode


def read(payload: bytes) -> dict[str, Any]:
    """Reads a payload that is one JSON object.

    Raises:
        PayloadError: If it is none; names the byte.
    """
    try:
        return _DECODE(payload)
    except UNREADABLE as error:
        msg = refusal("a JSON object", payload, error)
        raise PayloadError(msg) from error


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoders of ``msgspec`` raise."""


def refusal(expected: str, payload: bytes, error: Exception) -> str:
    """Why a payload cannot be read, with the byte or the path where it is not as expected."""
    where = f" at byte {len(payload)}" if str(error) == "Input data was truncated" else ""
    return f"expected {expected}: {error}{where}"


def number(value: object) -> float:
    """A number, a number written as text, a truth value or a switch; NaN for ``null``.

    Raises:
        ValueError: If it is none of them, or not finite.
    """
    match value:
        case None:
            return math.nan
        case bool() | int() | float():
            found = float(value) if not isinstance(value, int) or abs(value) < 2**1023 else math.inf
        case str():
            switch = _SWITCHES.get(value.strip().upper())
            found = written(value) if switch is None else switch
        case _:
            raise ValueError
    if not math.isfinite(found):
        raise ValueError
    return found


def written(text: str) -> float:
    """A number that is written as text; Python's own ``1_000``, and digits of other scripts, are none.

    Raises:
        ValueError: If it is none.
    """
    if "_" in text or not text.isascii():
        raise ValueError
    return float(text)


def no_number(key: str, value: object) -> str:
    """The problem of a field that should be a number and is none."""
    shown = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(str(value)[:60])
    return f"{printable(key)}: expected a number, not {shown}"


def printable(text: str, length: int = 80) -> str:
    """The start of a foreign text, as every log and terminal can show it."""
    start = text[:length]
    if start.isprintable():
        return start
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in start)
