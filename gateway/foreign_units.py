"""Units of a recording that says none: where values cannot be in their kind's unit, the one in which they are usual.

A file of carbon monoxide in µg/m³ has nothing but impossible values where the kind's unit is mg/m³, and what is said of
such a file says nothing of the filter.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice

import numpy as np

from gateway.edge.units import UnitError, conversion
from sensors import kinds
from sensors.recording import Recording

_UNITS = (
    *("µg/m³", "mg/m³", "ng/m³"),
    *("°F", "K"),
    *("Pa", "kPa", "mmHg", "inHg"),
    *("mm", "cm", "ft", "in"),
    *("m/s", "km/h", "kn", "mph", "cm/s"),
    *("mg/L", "µg/L", "g/L"),
    *("mS/cm", "µS/cm", "mS/m"),
    *("L/s", "ft³/s", "m³/h"),
)
"""Units that recordings are in; of several that fit the first is taken."""
_MESSAGES = 5000  # that are looked at
_MOST = 0.9  # share of the values that decides


def found(recording: Recording, families: Mapping[str, kinds.Kind], stated: Collection[str]) -> dict[str, str]:
    """Quantities that are not in their kind's unit, and the unit that fits.

    Args:
        recording: Its first messages are looked at.
        families: Kinds by name.
        stated: Quantities whose unit is known.

    Returns:
        Only quantities of which nearly all values are outside the gross range of their kind, and would be within the
        operator's range in a unit that this knows.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for reading in islice(recording, _MESSAGES):
        for quantity, text in reading.values.items():
            if quantity not in stated and not text.startswith('"'):
                values.setdefault((reading.kind, quantity), []).append(float(text))
    fitting = {}
    for (kind, quantity), numbers in values.items():
        limits = families[kind].quantities.get(quantity) if kind in families else None
        if limits is not None and (unit := _fitting(np.array(numbers), limits)):
            fitting[quantity] = unit
    return fitting


def _fitting(values: np.typing.NDArray[np.float64], limits: kinds.Quantity) -> str | None:
    """The unit in which the values would be usual, if they are impossible in the kind's."""
    if limits.fail is None or limits.suspect is None or _share_within(values, limits.fail) > 1 - _MOST:
        return None
    for unit in _UNITS:
        with suppress(UnitError):
            its = conversion(unit, limits.unit)
            if _share_within((values * its.times + its.plus) / its.over, limits.suspect) > _MOST:
                return unit
    return None


def _share_within(values: np.typing.NDArray[np.float64], limits: tuple[float, float]) -> float:
    return float(((values >= limits[0]) & (values <= limits[1])).mean())
