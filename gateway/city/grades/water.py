"""Classes of surface water: each factor has a class, the worst of them is the water's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.city.grades.tables import Factor, Level, WaterTable

Body = Literal["river", "lake"]
_REFERENCE = 2
"""Place of class III among the classes, the bound that factors of one class are compared by."""


@dataclass(frozen=True, slots=True)
class WaterClass:
    """The class of a water.

    Attributes:
        level: The class; None when no factor is measured.
        worst: The factors that decide it, the one furthest beyond class III first; none in class I, where all are at
            their best.
        factors: The class of each measured factor.
        missing: Factors of the table that are not measured.
    """

    level: Level | None
    worst: tuple[str, ...]
    factors: Mapping[str, Level]
    missing: tuple[str, ...]


def classify(table: WaterTable, values: Mapping[str, float], body: Body = "river") -> WaterClass:
    """The class of a water.

    Args:
        table: The bounds.
        values: Means of the factors, in the units of ``sensors/kinds/water.toml``; other quantities are passed over.
        body: Lakes and reservoirs have bounds of their own.
    """
    measured = [factor for factor in table.factors if factor.quantity in values]
    missing = tuple(factor.quantity for factor in table.factors if factor.quantity not in values)
    ranks = {f.quantity: _rank(table, f, values[f.quantity], body) for f in measured}
    factors = {name: table.levels[rank] for name, rank in ranks.items()}
    if not ranks:
        return WaterClass(None, (), {}, missing)
    worst = max(ranks.values())
    leading = [f for f in measured if worst > 0 and ranks[f.quantity] == worst]
    leading.sort(key=lambda f: _beyond(f, values[f.quantity], body), reverse=True)
    return WaterClass(table.levels[worst], tuple(f.quantity for f in leading), factors, missing)


def _bounds(factor: Factor, body: Body) -> tuple[float, ...]:
    return (factor.lake if body == "lake" else None) or factor.at_most or ()


def _rank(table: WaterTable, factor: Factor, value: float, body: Body) -> int:
    last = len(table.levels) - 1
    if factor.within is not None:
        low, high = factor.within
        return 0 if low <= value <= high else last
    if factor.at_least is not None:
        return next((rank for rank, bound in enumerate(factor.at_least) if value >= bound), last)
    return next((rank for rank, bound in enumerate(_bounds(factor, body)) if value <= bound), last)


def _beyond(factor: Factor, value: float, body: Body) -> float:
    """How many times the bound of class III the value is; for what must be high, how many times too small."""
    if factor.within is not None:
        return 1.0
    if factor.at_least is not None:
        return factor.at_least[_REFERENCE] / max(value, 1e-9)
    return value / _bounds(factor, body)[_REFERENCE]
