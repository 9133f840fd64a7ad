"""The tables of the grades: one TOML file a standard, checked when read.

A site changes a table by putting a file of the same name into a folder of its own, as with kinds of sensors.
"""

import itertools
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sensors import files
from sensors.kinds import Title

AirIndexName = Literal["cn", "kr", "us"]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
_BUILTIN = Path(__file__).parent / "tables"
_AIR = ("cn-2026", "cn-2012", "kr", "us")


class TableError(Exception):
    """A table cannot be used; the message names the file and the key."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Level(_Model):
    """A grade of a scale: its name in the API, its name for people, its colour."""

    name: str
    title: Title
    colour: Colour


class AirLevel(Level):
    """A grade of an air quality index, up to and including ``upto``."""

    upto: int


class Breakpoints(_Model):
    """Concentrations and the index values they stand for; between them the index is linear.

    Attributes:
        bounds: Concentrations in the pollutant's unit, rising. A table that starts above 0 says nothing below.
        index: As many index values, rising. Beyond the last bound the last one holds.
    """

    bounds: tuple[float, ...]
    index: tuple[int, ...]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.bounds) != len(self.index) or len(self.bounds) < 2:  # noqa: PLR2004 - a segment has two ends
            msg = "'bounds' and 'index' need the same number of values, at least two"
            raise ValueError(msg)
        for values in (self.bounds, self.index):
            if any(high <= low for low, high in itertools.pairwise(values)):
                msg = "'bounds' and 'index' must rise"
                raise ValueError(msg)
        return self


class Pollutant(_Model):
    """How one pollutant enters an index. One that enters by two tables is listed twice.

    Attributes:
        quantity: Name in ``sensors/kinds/air.toml``.
        unit: Unit of the bounds.
        molar: g/mol, for a gas whose bounds are mixing ratios.
        decimals: Digits to which a concentration is brought first, in ``unit``; none when absent.
        hour: For the mean of an hour; absent when the table has no use for it.
        day: For the value of 24 hours.
        statistic: Which value of 24 hours that is.
    """

    quantity: str
    unit: Literal["µg/m³", "mg/m³", "ppm", "ppb"]
    molar: float | None = None
    decimals: int | None = None
    hour: Breakpoints | None = None
    day: Breakpoints
    statistic: Literal["mean24h", "max8h", "max1h"]


class Coverage(_Model):
    """How much data a mean needs.

    Attributes:
        hour: Share of an hour that its readings must cover.
        of24: Hours of 24 for a mean, or a highest hour, of 24 hours.
        of8: Hours of 8 for a running mean of 8 hours.
        windows: Of the 17 running means of 8 hours within 24 hours, for their highest.
    """

    hour: float = Field(gt=0, le=1)
    of24: int = Field(ge=1, le=24)
    of8: int = Field(ge=1, le=8)
    windows: int = Field(ge=1, le=17)


class AirScale(_Model):
    """An air quality index.

    Attributes:
        index: Which index; more than one table of it may exist.
        title: Name for people.
        source: Where the numbers are from, and what of them is unverified.
        valid_from: First day of data that this table judges; always when absent.
        cut: How a concentration is brought to its decimals.
        rounding: How an index value becomes a whole number.
        stepped: Segments start one unit of the last decimal, and one index value, above the one before.
        primary_above: The pollutant that leads is named when the index is above.
        required: Pollutants without which there is no index.
        bonus: Added when that many pollutants, or more, are above ``bonus_above``.
        bonus_above: See *bonus*.
        coverage: How much data a mean needs.
        levels: Grades, rising.
        pollutants: What enters.
    """

    index: AirIndexName
    title: Title
    source: str
    valid_from: date | None = None
    cut: Literal["truncate", "round"] = "truncate"
    rounding: Literal["up", "nearest"]
    stepped: bool
    primary_above: int = 0
    required: tuple[str, ...] = ()
    bonus: dict[int, int] = Field(default_factory=dict)
    bonus_above: int = 0
    coverage: Coverage
    levels: tuple[AirLevel, ...]
    pollutants: tuple[Pollutant, ...]

    @model_validator(mode="after")
    def _steps_have_a_size(self) -> Self:
        for pollutant in self.pollutants:
            if self.stepped and pollutant.decimals is None:
                msg = f"{pollutant.quantity}: a stepped scale needs 'decimals'"
                raise ValueError(msg)
            if (pollutant.molar is None) != (pollutant.unit in {"µg/m³", "mg/m³"}):
                msg = f"{pollutant.quantity}: 'molar' belongs to a mixing ratio, and to nothing else"
                raise ValueError(msg)
        return self


class Factor(_Model):
    """Bounds of a quantity for the classes, best first.

    Attributes:
        quantity: Name in ``sensors/kinds/water.toml``.
        at_most: Highest value of each class.
        at_least: Lowest value of each class.
        lake: Highest value of each class in lakes and reservoirs, where it differs.
        within: A range that all classes ask for.
    """

    quantity: str
    at_most: tuple[float, ...] | None = None
    at_least: tuple[float, ...] | None = None
    lake: tuple[float, ...] | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.at_most, self.at_least, self.within)) != 1:
            msg = f"{self.quantity}: exactly one of 'at_most', 'at_least' and 'within'"
            raise ValueError(msg)
        return self


class WaterTable(_Model):
    """Classes of surface water, best first; the last of the levels is for what misses all of them."""

    title: Title
    source: str
    levels: tuple[Level, ...]
    factors: tuple[Factor, ...]

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        for factor in self.factors:
            for bounds in (factor.at_most, factor.at_least, factor.lake):
                if bounds is not None and len(bounds) != len(self.levels) - 1:
                    msg = f"{factor.quantity}: needs a bound for each level but the last"
                    raise ValueError(msg)
        return self


class Zone(_Model):
    """Limits of a functional area, dB(A)."""

    title: Title
    day: float
    night: float


class NoiseTable(_Model):
    """Limits of noise by functional area; the day is from its first to before its last hour, local time."""

    title: Title
    source: str
    quantity: str
    day: tuple[int, int]
    zones: dict[str, Zone]
    levels: tuple[Level, Level]


class Road(_Model):
    """Speeds in km/h above which a road of this class has each grade but the last, best first."""

    title: Title
    above: tuple[float, ...]


class SpeedTable(_Model):
    """Speed grades by class of road, and the index value at which each grade ends, best first."""

    title: Title
    source: str
    levels: tuple[Level, ...]
    ends: tuple[float, ...]
    roads: dict[str, Road]

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if len(self.ends) != len(self.levels):
            msg = "'ends' needs a value for each level"
            raise ValueError(msg)
        for name, road in self.roads.items():
            if len(road.above) != len(self.levels) - 1 or sorted(set(road.above), reverse=True) != list(road.above):
                msg = f"roads.{name}: 'above' needs a falling speed for each level but the last"
                raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables."""

    air: tuple[AirScale, ...]
    water: WaterTable
    noise: NoiseTable
    speed: SpeedTable

    def scale(self, index: AirIndexName, day: date) -> AirScale:
        """The table of an index that judges the data of a day: the youngest that is valid by then."""
        valid = [s for s in self.air if s.index == index and (s.valid_from is None or s.valid_from <= day)]
        return max(valid, key=lambda scale: scale.valid_from or date.min)


def load(folder: Path | None = None) -> Tables:
    """Reads the tables that come with the package, or those of a site's folder where it has them.

    Args:
        folder: The site's folder; none when absent.

    Raises:
        TableError: If the folder or a file cannot be used; names file and key.
    """
    if folder is not None and not folder.is_dir():
        msg = f"{folder}: no such folder of tables"
        raise TableError(msg)
    known = {path.stem for path in _BUILTIN.glob("*.toml")}
    for path in sorted(folder.glob("*.toml")) if folder else ():
        if path.stem not in known:
            msg = f"{path}: no table is called so; there are {', '.join(sorted(known))}"
            raise TableError(msg)
    return Tables(
        air=tuple(_read(name, folder, AirScale) for name in _AIR),
        water=_read("water", folder, WaterTable),
        noise=_read("noise", folder, NoiseTable),
        speed=_read("traffic", folder, SpeedTable),
    )


_Table = TypeVar("_Table", bound=_Model)


def _read(name: str, folder: Path | None, model: type[_Table]) -> _Table:
    own = None if folder is None else folder / f"{name}.toml"
    path = own if own is not None and own.is_file() else _BUILTIN / f"{name}.toml"
    return files.read(path, model, TableError)
