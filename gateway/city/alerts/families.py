"""Families of events: those that have one cause when they come together."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from sensors.durations import Duration
from sensors.kinds import Title

Category = Literal["Met", "Env", "Transport", "Infra", "Safety", "Other"]


class Family(BaseModel):
    """Events that belong together.

    Attributes:
        title: What an operator calls it.
        kind: Kind of the sensors; any when absent.
        quantities: Their quantities; any when absent.
        reach_km: Sites up to this far apart have one alert; 0 for one a site.
        river: Sites along one river have one alert.
        window: Seconds within which a further site's event begins.
        upwind: Where the wind comes from says where the cause may be.
        category: Of an event, by CAP 1.2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Title
    kind: str | None = None
    quantities: tuple[str, ...] = ()
    reach_km: float = Field(0.0, ge=0)
    river: bool = False
    window: Duration = Field(3600.0, gt=0)
    upwind: bool = False
    category: Category = "Other"

    @field_serializer("window")
    def _as_written(self, window: float) -> str:
        return f"{window:.12g}s"

    def has(self, kind: str, quantity: str) -> bool:
        """Whether an event of this kind and quantity belongs to it."""
        return self.kind in {None, kind} and (not self.quantities or quantity in self.quantities)


@dataclass(slots=True, frozen=True)
class Cause:
    """What an event's cause is called, and how far it spreads."""

    name: str
    family: Family


@cache
def builtin() -> Mapping[str, Family]:
    """The families that come with the package, by name."""
    data = tomllib.loads((Path(__file__).parent / "families.toml").read_text("utf-8"))
    return {name: Family.model_validate(family) for name, family in data.items()}


def cause(kind: str, quantity: str, title: Title) -> Cause:
    """The cause of an event.

    Args:
        kind: Kind of its sensor.
        quantity: Its quantity.
        title: What it is called when no family has it.
    """
    for name, family in builtin().items():
        if family.has(kind, quantity):
            return Cause(name, family)
    return Cause(f"{kind}.{quantity}", Family(title=title))
