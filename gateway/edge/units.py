"""Units: the factor and the offset that turn a sent value into the kind's unit, found once, when a source is loaded."""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pint


class UnitError(Exception):
    """A unit is unknown, or measures something else."""


@cache
def _registry() -> "pint.UnitRegistry[float]":
    import pint  # noqa: PLC0415 - 15 MB that only gateways with foreign units need

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


def conversion(sent: str, stored: str) -> tuple[float, float]:
    """Finds how to convert.

    Args:
        sent: Unit in which values arrive, such as ``"mg/m³"`` or ``"degF"``.
        stored: The quantity's unit in its kind.

    Returns:
        Factor and offset: stored value = sent value · factor + offset.

    Raises:
        UnitError: If a unit is unknown or the two measure different things.
    """
    if sent == stored:
        return 1.0, 0.0
    registry = _registry()
    try:
        sent, stored = (re.sub(r"(?<=[a-z])([23])\b", r"**\1", unit) for unit in (sent, stored))  # m3 for m³
        at_zero = registry.Quantity(0.0, sent).to(stored).magnitude
        at_one = registry.Quantity(1.0, sent).to(stored).magnitude
    except Exception as error:
        msg = f"cannot convert '{sent}' to '{stored}': {error}"
        raise UnitError(msg) from error
    return round(at_one - at_zero, 12), round(at_zero, 12)
