"""Personal data: which fields of a payload are about a person, by their names, and how they are taken out of it.

A name is the same however it is written: ``licensePlate``, ``license_plate`` and ``vehicle.License-Plate`` are one.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

ALWAYS = frozenset({
    "plate", "plates", "plateno", "platenum", "platenumber", "plateid", "licenseplate", "licenceplate",
    "numberplate", "carplate", "vehicleplate", "mac", "macs", "macaddress", "macaddr", "clientmac", "devicemac",
    "stationmac", "wifimac", "btmac", "blemac", "bluetoothmac", "phone", "phoneno", "phonenumber", "phonenum",
    "telephone", "mobilephone", "cellphone", "msisdn", "imsi", "imei", "iccid", "email", "emailaddress",
    "idcard", "idcardno", "passport", "passportno", "车牌", "车牌号", "车牌号码", "手机号", "手机号码", "电话",
    "电话号码", "身份证", "身份证号", "차량번호", "번호판", "전화번호", "휴대폰번호", "주민등록번호",
})  # fmt: skip
"""Normal names of fields that are personal in every kind of sensor, unless the kind says what else to do with them."""
REMOVED = object()
"""In place of a value that is to be taken out."""
_NAMES, _VALUES = ("n", "name", "key", "field", "value_type"), ("v", "vs", "vd", "vb", "value", "val", "text")
_LOWER = bytes(range(256)).lower()
_LEFT_OUT = b"0123456789 _-+.,:\t\r\n\0"
_MOST_SHAPES, _LONGEST_SHAPE = 65_536, 1024  # bytes
_LOCAL = 0x02  # IEEE 802: the bit of a MAC address's first octet that says "locally administered", as random ones are
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"
)


@lru_cache(4096)
def normal(name: str) -> str:
    """The normal form of a field's name: the last part of its path, without case and separators."""
    last = re.split(r"[./]", name.rstrip("./"))[-1]
    return "".join(sign for sign in last.casefold() if sign.isalnum())


@lru_cache(4096)
def plain_value(value: str) -> str:
    """The same plate, number or address in one way of writing: upper case, letters and digits only."""
    return "".join(sign for sign in value.upper() if sign.isalnum())


def random_mac(name: str, value: str) -> bool:
    """Whether a value is a MAC address that a device made up: it says nothing of who comes again.

    Args:
        name: Of its field. Twelve hexadecimal digits alone are an address only in a field that is called so.
        value: As sent.
    """
    bare = "mac" in name.casefold() and re.fullmatch(r"[0-9A-Fa-f]{12}", value.strip())
    if bare or _MAC.fullmatch(value.strip()):
        return bool(int(plain_value(value)[:2], 16) & _LOCAL)
    return False


class Mentions:
    """Finds the names of personal fields in payloads that are not understood, also in UTF-16.

    Payloads of one sensor are alike but for their figures. So what is searched, and remembered when it mentions
    nothing, is the *shape*: a payload without figures, spaces and the separators within names.

    Args:
        names: As declared, and normal names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        found = {normal(name) for name in names} - {""}
        roots = {name for name in found if not any(other in name for other in found - {name})}
        self._roots = sorted({_shape(name.encode()) for name in roots} - {b""})
        # as senders write what is not ASCII
        self._escaped = sorted(json.dumps(name)[1:-1].encode() for name in roots if not name.isascii())
        self._escaped.append(b"\\u00")  # a letter that needed no escape
        self._harmless: set[bytes] = set()

    def any(self, payloads: Sequence[bytes]) -> bool:
        """Whether one of many payloads mentions one; a fifth of a microsecond each, if of a known shape."""
        return not self._harmless.issuperset(map(_shape, payloads)) and any(map(self.in_, payloads))

    def in_(self, payload: bytes) -> bool:
        """Whether a payload mentions one."""
        if (shape := _shape(payload)) in self._harmless:
            return False
        if any(root in shape for root in self._roots):
            return True
        if b"\\" in shape:  # what is escaped is told apart by its figures
            text = payload.lower()
            return any(name in text for name in self._escaped)
        if len(self._harmless) >= _MOST_SHAPES:
            self._harmless.clear()
        if len(shape) <= _LONGEST_SHAPE:
            self._harmless.add(shape)
        return False


def _shape(payload: bytes) -> bytes:
    return payload.translate(_LOWER, _LEFT_OUT)


def taken_out(document: Any, decide: Callable[[str, Any], Any]) -> Any:  # noqa: ANN401 - a tree of JSON
    """Takes personal fields out of a document.

    Args:
        document: JSON as Python reads it. Also objects that name a field and its value apart are understood, as
            ``{"n": "plate", "vs": "…"}``.
        decide: Is called with each field's name (its path, with dots) and value; gives the value to be kept, which may
            be the same, or :data:`REMOVED`.

    Returns:
        A new document.
    """
    return _without(document, decide, "")


def _without(value: Any, decide: Callable[[str, Any], Any], path: str) -> Any:  # noqa: ANN401 - a tree of JSON
    if isinstance(value, list):
        items = [_without(item, decide, path) for item in value]
        return [item for item in items if item is not REMOVED]
    if not isinstance(value, dict):
        return value
    named = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    kept, bare = {}, False
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        result = decide(inner, item)
        if result is item and named is not None and key in _VALUES:
            result = decide(named, item)
            bare = bare or result is REMOVED
        if result is item:
            result = _without(item, decide, inner)
        if result is not REMOVED:
            kept[key] = result
    if bare and path == "":  # a record of SenML; what begins with b holds for the records after it
        kept = {key: item for key, item in kept.items() if key.startswith("b")}
    return REMOVED if bare and not kept else kept
