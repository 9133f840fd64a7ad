"""Air quality indices: China's AQI, Korea's CAI, the US EPA's AQI. One engine, three tables.

A concentration becomes a sub-index by the linear pieces of its pollutant's table; the index is the highest sub-index.
Arithmetic is exact (fractions), so that a value on a bound has the bound's index and rounding up adds nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from gateway.city.grades.tables import AirLevel, AirScale, Breakpoints, Pollutant

HOURS = 24
_WINDOW = 8
_MOLAR_VOLUME = 24.45
"""Litres of a mole of gas at 25 °C and 1013 hPa, the state that ppm and µg/m³ are converted at."""
_PER_MICROGRAM = {"µg/m³": 1.0, "mg/m³": 1e-3}
_PER_PPB = {"ppb": 1.0, "ppm": 1e-3}
_DIGITS = 9
"""Digits of a concentration that count; what is behind them is the dust of floating point."""


class Hour(NamedTuple):
    """The mean of a pollutant over an hour, and the share of the hour that its readings cover.

    ``mean`` is in µg/m³, or in mg/m³ for carbon monoxide, as ``sensors/kinds/air.toml`` has it.
    """

    mean: float
    coverage: float


@dataclass(frozen=True, slots=True)
class AirIndex:
    """An index, and what it is made of.

    Attributes:
        value: The index; None when the data do not suffice.
        level: The grade of ``value``.
        primary: Pollutants that lead, by sub-index, when the scale names any.
        sub: Sub-index by pollutant, for those whose data suffice.
        missing: Pollutants of the scale without a sub-index.
        provisional: An hour that is used has fewer readings than the scale asks for.
    """

    value: int | None
    level: AirLevel | None
    primary: tuple[str, ...]
    sub: Mapping[str, int]
    missing: tuple[str, ...]
    provisional: bool = False


def now(scale: AirScale, hours: Mapping[str, Hour]) -> AirIndex:
    """The index of one hour.

    Where a scale knows a longer mean alone (particles everywhere, ozone and carbon monoxide of the EPA), its table is
    applied to the hour. An hour with too few readings counts, and makes the index provisional.

    Args:
        scale: The table.
        hours: The hour of each pollutant that is measured.
    """
    sub: dict[str, int] = {}
    for pollutant in scale.pollutants:
        hour = hours.get(pollutant.quantity)
        if hour is not None and pollutant.hour is not None:
            _keep_highest(sub, pollutant.quantity, sub_index(scale, pollutant, pollutant.hour, hour.mean))
    provisional = any(hours[name].coverage < scale.coverage.hour for name in sub)
    return _index(scale, sub, provisional=provisional)


def day(scale: AirScale, hours: Mapping[str, Sequence[Hour | None]]) -> AirIndex:
    """The index of 24 hours.

    An hour with too few readings does not count; a pollutant with too few hours has no sub-index.

    Args:
        scale: The table.
        hours: 24 hours of each pollutant that is measured, oldest first, None where there is none.

    Raises:
        ValueError: If a pollutant has not 24 hours.
    """
    sub: dict[str, int] = {}
    for pollutant in scale.pollutants:
        values = _means(scale, hours.get(pollutant.quantity, [None] * HOURS))
        value = _statistic(scale, pollutant, values)
        if value is not None:
            _keep_highest(sub, pollutant.quantity, sub_index(scale, pollutant, pollutant.day, value))
    return _index(scale, sub)


def valid_hours(scale: AirScale, hours: Mapping[str, Sequence[Hour | None]]) -> int:
    """Of 24 hours, how many count for the pollutant that has the most."""
    counts = [sum(value is not None for value in _means(scale, values)) for values in hours.values()]
    return max(counts, default=0)


def sub_index(scale: AirScale, pollutant: Pollutant, table: Breakpoints, mean: float) -> int | None:
    """The sub-index of a concentration.

    Args:
        scale: Says how to round.
        pollutant: Says the unit and the decimals.
        table: The pollutant's table for this mean.
        mean: In the unit of ``sensors/kinds/air.toml``; below 0, an instrument's noise, it counts as 0.

    Returns:
        The sub-index, at most the table's last; None below a table that does not start at 0.
    """
    step = Fraction(1, 10**pollutant.decimals) if pollutant.decimals is not None else Fraction(0)
    value = _decimals(scale, pollutant, _exact(max(0.0, _converted(pollutant, mean))))
    bounds = _exact_bounds(table.bounds)
    if value >= bounds[-1]:
        return table.index[-1]
    if value <= bounds[0]:
        return table.index[0] if bounds[0] == 0 else None
    segment = next(place for place, bound in enumerate(bounds) if value <= bound)
    low, high = bounds[segment - 1], bounds[segment]
    low_index, high_index = table.index[segment - 1], table.index[segment]
    if scale.stepped and low > 0:
        low, low_index = low + step, low_index + 1
    if low == high:
        return high_index
    exact = low_index + (high_index - low_index) * (value - low) / (high - low)
    return math.ceil(exact) if scale.rounding == "up" else math.floor(exact + Fraction(1, 2))


def _converted(pollutant: Pollutant, mean: float) -> float:
    micrograms = mean * 1000 if pollutant.quantity == "co" else mean
    if pollutant.molar is None:
        return micrograms * _PER_MICROGRAM[pollutant.unit]
    return micrograms * _MOLAR_VOLUME / pollutant.molar * _PER_PPB[pollutant.unit]


def _exact(value: float) -> Fraction:
    return Fraction(f"{value:.{_DIGITS}f}")


@cache
def _exact_bounds(bounds: tuple[float, ...]) -> list[Fraction]:
    return [_exact(bound) for bound in bounds]


def _decimals(scale: AirScale, pollutant: Pollutant, value: Fraction) -> Fraction:
    if pollutant.decimals is None:
        return value
    unit = 10**pollutant.decimals
    half = Fraction(1, 2) if scale.cut == "round" else Fraction(0)
    return Fraction(math.floor(value * unit + half), unit)


def _means(scale: AirScale, hours: Sequence[Hour | None]) -> list[float | None]:
    if len(hours) != HOURS:
        msg = f"an index of 24 hours needs 24 hours, not {len(hours)}"
        raise ValueError(msg)
    return [hour.mean if hour is not None and hour.coverage >= scale.coverage.hour else None for hour in hours]


def _statistic(scale: AirScale, pollutant: Pollutant, values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    if pollutant.statistic == "max8h":
        windows = [
            sum(found) / len(found)
            for start in range(HOURS - _WINDOW + 1)
            if len(found := [v for v in values[start : start + _WINDOW] if v is not None]) >= scale.coverage.of8
        ]
        return max(windows) if len(windows) >= scale.coverage.windows else None
    if len(present) < scale.coverage.of24:
        return None
    return max(present) if pollutant.statistic == "max1h" else sum(present) / len(present)


def _keep_highest(sub: dict[str, int], quantity: str, value: int | None) -> None:
    if value is not None:
        sub[quantity] = max(value, sub.get(quantity, 0))


def _index(scale: AirScale, sub: dict[str, int], *, provisional: bool = False) -> AirIndex:
    quantities = dict.fromkeys(pollutant.quantity for pollutant in scale.pollutants)
    missing = tuple(name for name in quantities if name not in sub)
    if not sub or any(name in missing for name in scale.required):
        return AirIndex(None, None, (), sub, missing, provisional)
    highest = max(sub.values())
    grave = sum(value > scale.bonus_above for value in sub.values())
    value = highest + max((extra for number, extra in scale.bonus.items() if grave >= number), default=0)
    value = min(value, scale.levels[-1].upto)
    level = next(level for level in scale.levels if value <= level.upto)
    primary = tuple(name for name, number in sub.items() if number == highest and highest > scale.primary_above)
    return AirIndex(value, level, primary, sub, missing, provisional)
