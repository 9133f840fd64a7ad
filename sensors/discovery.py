"""Declarations proposed for devices that nobody has declared yet, in TOML, ready to be pasted."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import tomli_w
from xxhash import xxh3_64_hexdigest

from sensors.formats import Announcement
from sensors.kinds import DIAGNOSTICS, Kind, Title

HOLDING = "holding"
"""Kind of a device that is not declared: what it sends is stored in the measurement of this name."""
_TITLE = Title(zh="待登记设备", en="Undeclared devices", ko="미등록 기기")
UNDECLARED = Kind.model_validate({"name": HOLDING, "title": _TITLE, "interval": "1h", "quantities": {}})
"""What is known of such devices: nothing that they say is judged."""
_LONGEST = 64
_NO_NAME = re.compile(r"[^\w.-]+")


def cleaned(called: str) -> str:
    """What something may be called here: letters, digits, ``.``, ``-`` and ``_``; the rest becomes ``_``.

    A name that is too long keeps its beginning, and ends in a number that is made of the whole.
    """
    plain = _NO_NAME.sub("_", called)
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 9]}_{xxh3_64_hexdigest(called.encode('utf-8', 'backslashreplace'))[:8]}"


def best_fit(quantities: Collection[str], kinds: Mapping[str, Kind]) -> str | None:
    """The kind that has most of some quantities, and the fewest others; None if no kind has any of them.

    What every sensor can say of itself (battery, link) tells nothing.
    """
    wanted = {*quantities} - DIAGNOSTICS.keys()

    def fit(name: str) -> tuple[int, int]:
        own = kinds[name].quantities.keys() - DIAGNOSTICS.keys()
        return len(wanted & own), -len(own)

    best = max(kinds, key=fit, default=None)
    return best if best is not None and fit(best)[0] else None


def device(called: str, sensor: str, site: str, quantities: Collection[str], kinds: Mapping[str, Kind]) -> str:
    """An entry for a file of devices.

    Args:
        called: What its sender calls the device.
        sensor: What it may be called here.
        site: Where it may be.
        quantities: What it measures.
        kinds: Kinds by name.
    """
    kind = best_fit(quantities, kinds) or "?"
    return tomli_w.dumps({called: {"kind": kind, "site": site, "sensor": sensor}}).strip()


def source(name: str, announced: Iterable[Announcement], kinds: Mapping[str, Kind]) -> str:
    """A source for what a device has announced of itself, all on one topic.

    Args:
        name: What the source may be called; also the sensor's name.
        announced: What was announced.
        kinds: Kinds by name.
    """
    said = [*announced]
    rename = {".".join(one.path): one.quantity for one in said if ".".join(one.path) != one.quantity}
    units = {one.quantity: one.unit for one in said if one.unit}
    declared: dict[str, Any] = {
        "name": name,
        "topic": said[0].topic,
        "format": "json",
        "kind": best_fit([one.quantity for one in said], kinds) or "?",
        "site": "unknown",
        "sensor": name,
    }
    known = kinds[declared["kind"]].quantities if declared["kind"] in kinds else {}
    other = {name: unit for name, unit in units.items() if name in known and known[name].unit != unit}
    declared |= {"rename": rename} if rename else {}
    declared |= {"units": other} if other else {}
    return tomli_w.dumps({"source": [declared]}).strip()
