"""Bytes that are written as text: hexadecimal and base64."""

import base64
import re
from typing import Literal

from sensors.formats.objects import printable

Encoding = Literal["hex", "base64"]
_FOREIGN = {"hex": re.compile(r"[^0-9A-Fa-f]"), "base64": re.compile(r"[^A-Za-z0-9+/\-_]")}


def decoded(text: str, encoding: Encoding) -> bytes:
    """Bytes of a text; hexadecimal without separators, base64 in the usual or the URL-safe alphabet, padded or not.

    Raises:
        ValueError: If it is no such text; names the character.
    """
    plain = text.strip().rstrip("=") if encoding == "base64" else text.strip()
    if (foreign := _FOREIGN[encoding].search(plain)) is not None:
        place = len(text) - len(text.lstrip()) + foreign.start()
        msg = f"character {place}: expected {encoding}, found {printable(foreign[0])!r}"
        raise ValueError(msg)
    if len(plain) % (2 if encoding == "hex" else 4) == 1:
        msg = f"character {len(plain)}: expected more {encoding}, found the end"
        raise ValueError(msg)
    if encoding == "hex":
        return bytes.fromhex(plain)
    return base64.b64decode(plain + "=" * (-len(plain) % 4), b"-_" if "-" in plain or "_" in plain else None)
