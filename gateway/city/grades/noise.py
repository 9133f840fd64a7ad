"""Noise against the limit of its functional area, by day and by night."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gateway.city.grades.tables import Level, NoiseTable

Period = Literal["day", "night"]


@dataclass(frozen=True, slots=True)
class NoiseGrade:
    """A level compared with its limit.

    Attributes:
        limit: dB(A).
        over: dB above the limit, negative below.
        level: ``within``, up to and with the limit, or ``over``.
    """

    limit: float
    over: float
    level: Level


def period(table: NoiseTable, moment: datetime) -> Period:
    """Whether ``moment``, in local time, is day or night."""
    first, last = table.day
    return "day" if first <= moment.hour < last else "night"


def period_start(table: NoiseTable, moment: datetime) -> datetime:
    """When the day or night of ``moment`` began, in local time."""
    first, last = table.day
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if moment.hour < first:
        return midnight - timedelta(days=1) + timedelta(hours=last)
    return midnight + timedelta(hours=first if moment.hour < last else last)


def grade(table: NoiseTable, zone: str, when: Period, level: float) -> NoiseGrade:
    """An equivalent level against the limit of a zone.

    Args:
        table: The limits.
        zone: Name of the functional area, such as ``4a``.
        when: Day or night.
        level: Equivalent level in dB(A).

    Raises:
        KeyError: If the table has no such zone.
    """
    limits = table.zones[zone]
    limit = limits.day if when == "day" else limits.night
    over = round(level - limit, 6)
    return NoiseGrade(limit, over, table.levels[over > 0])


def equivalent(levels: Iterable[tuple[float, float]]) -> float | None:
    """The equivalent level of several: the level of their mean energy.

    Args:
        levels: Levels in dB and their weights, such as seconds or numbers of readings.

    Returns:
        dB; None without any weight.
    """
    energy = weight = 0.0
    for level, share in levels:
        energy += share * 10 ** (level / 10)
        weight += share
    return 10 * math.log10(energy / weight) if weight > 0 else None
