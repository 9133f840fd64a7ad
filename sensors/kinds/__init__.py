"""Kinds of sensors: one TOML file a kind, with its quantities, units, quality-control limits and titles.

Adding a kind is adding a file to this folder, or to a folder named by a gateway's ``kinds_dir`` setting.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sensors import files
from sensors.durations import Duration
from sensors.kinds import expressions

Severity = Literal["blue", "yellow", "orange", "red"]
SEVERITIES: tuple[Severity, ...] = ("blue", "yellow", "orange", "red")
"""From mild to grave, the four colours of Chinese public alerts."""

Limits = Annotated[tuple[float, float], Field(description="lowest and highest accepted value, inclusive")]
Month = Annotated[int, Field(ge=1, le=12)]
Hour = Annotated[int, Field(ge=0, le=23)]


_FIELD = re.compile(r"(?!time$)[^\W\d][\w.-]{0,55}")  # with room for _total_qc


class KindError(Exception):
    """A kind's file cannot be used; the message names the file and the key."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Title(_Model):
    """A name in each language of the operations view."""

    zh: str
    en: str
    ko: str


class EventLimit(_Model):
    """A value from which a good reading is an event (never a fault)."""

    severity: Severity
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            msg = "an event limit needs exactly one of 'above' and 'below'"
            raise ValueError(msg)
        return self


class Flat(_Model):
    """The flat-line test of QARTOD: a value that does not move for too long.

    Attributes:
        suspect: Seconds without movement after which a value is suspect.
        fail: Seconds without movement after which a value fails; never when absent.
        tolerance: A change of at most this much, in the quantity's unit, is no movement.
        exempt_below: Values at or below are exempt (calm wind, no rain).
        exempt_above: Values at or above are exempt (saturated humidity).
    """

    suspect: Duration
    fail: Duration | None = None
    tolerance: float = 0.0
    exempt_below: float | None = None
    exempt_above: float | None = None


class Spike(_Model):
    """The spike test of QARTOD in its form for the newest value: the value before stands in for the one to come.

    Attributes:
        suspect: Beyond this much, in the quantity's unit, a value is suspect.
        method: ``differential``: how far the value is from both values before it, on the same side; ``average``: how
            far it is from their average.
    """

    suspect: float = Field(gt=0)
    method: Literal["differential", "average"] = "differential"


class Attenuated(_Model):
    """The attenuated-signal test of QARTOD: the range of all values within a window is too small.

    Attributes:
        window: Seconds. Kept in eighths, so that the range is that of the window and up to an eighth more.
        suspect: A range below, in the quantity's unit, is suspect.
        fail: A range below fails; never when absent.
        exempt_below: Values at or below are exempt (calm wind).
        exempt_above: Values at or above are exempt.
    """

    window: Duration = Field(gt=0)
    suspect: float
    fail: float | None = None
    exempt_below: float | None = None
    exempt_above: float | None = None


class Usual(_Model):
    """What is usual at some months and hours.

    Attributes:
        months: 1 to 12; all when absent.
        hours: 0 to 23; all when absent.
        suspect: Outside, a value is suspect.
        fail: Outside, a value fails.
    """

    months: tuple[Month, ...] = tuple(range(1, 13))
    hours: tuple[Hour, ...] = tuple(range(24))
    suspect: Limits | None = None
    fail: Limits | None = None


class Climatology(_Model):
    """The climatology test of QARTOD: what is usual at a month and an hour.

    Attributes:
        utc_offset: Hours from UTC to the standard time in which months and hours are told.
        usual: Ranges; where several have a month and an hour, the last one holds, where none has them, nothing does.
    """

    utc_offset: float = Field(0.0, ge=-12, le=14)
    usual: tuple[Usual, ...]


class Quantity(_Model):
    """One measured quantity and the limits of its quality control.

    Attributes:
        title: Name in each language.
        unit: Unit of every stored value, as shown to people.
        decimals: Digits after the point when shown.
        fail: Outside, a value fails (QARTOD gross range).
        suspect: Outside, a value is suspect (QARTOD operator range).
        step: Largest plausible change per minute; beyond it a value is suspect (QARTOD rate of change).
        spike: The spike test, if any.
        flat: The flat-line test, if any.
        attenuated: The attenuated-signal test, if any.
        climatology: The climatology test, if any.
        healthy: Of what a sensor says of itself: outside, its other values are suspect.
        sensitivity: Factor on the evidence of the adaptive detector: above 1, what is unusual for the channel itself is
            suspect sooner, below 1 later, at 0 never.
        events: Limits from which a good value raises an event.
        direction: An angle in degrees, where 359 and 1 are neighbours and compass points are accepted.
        molar_mass: Of a gas, g/mol: by it, what arrives in ppb or ppm becomes a mass.
    """

    title: Title
    unit: str
    decimals: int = 1
    fail: Limits | None = None
    suspect: Limits | None = None
    step: float | None = None
    spike: Spike | None = None
    flat: Flat | None = None
    attenuated: Attenuated | None = None
    climatology: Climatology | None = None
    healthy: Limits | None = None
    sensitivity: float = Field(0.35, ge=0, le=10)
    events: tuple[EventLimit, ...] = ()
    direction: bool = False
    molar_mass: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _tests_fit(self) -> Self:
        if self.direction and (self.spike or self.attenuated):
            msg = "an angle has no spike and no attenuated test: their differences do not turn through north"
            raise ValueError(msg)
        return self


class Check(_Model):
    """What the quantities of one message must not say together.

    Attributes:
        expect: A condition that holds; else the values contradict each other.
        same: Quantities that do not all stay as they are for longer than *longest*.
        longest: See *same*; seconds.
        when: A condition on which the rule depends; always when absent.
        suspects: Quantities that are suspect when the rule is broken; those of *expect* or *same* when absent.
    """

    expect: expressions.Text | None = None
    same: tuple[str, ...] | None = None
    longest: Duration | None = None
    when: expressions.Text | None = None
    suspects: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.expect is None) == (self.same is None):
            msg = "a rule needs exactly one of 'expect' and 'same'"
            raise ValueError(msg)
        if (self.same is None) != (self.longest is None):
            msg = "'same' and 'longest' belong together"
            raise ValueError(msg)
        return self

    @property
    def names(self) -> frozenset[str]:
        """Quantities without which the rule says nothing."""
        conditions = [expressions.read(text) for text in (self.expect, self.when) if text]
        return frozenset(self.same or ()).union(*(condition.names for condition in conditions))

    @property
    def blamed(self) -> tuple[str, ...]:
        """Quantities that are suspect when the rule is broken."""
        return self.suspects or self.same or (expressions.read(self.expect).names if self.expect else ())


class Personal(_Model):
    """A field of the payload that is about a person, and what is done with it before anything is written or sent.

    Attributes:
        treat: ``drop``: it is taken out; ``pseudonym``: a name that holds for at most *period* is stored in its place,
            as text; ``count``: how many there were, and how many different ones, in bins; ``coarsen``: the number is
            rounded.
        period: Of a pseudonym: after so many seconds its key is destroyed and another one made.
        bin: Of a count: its length, seconds; a part of a day.
        grid: Of a coarsened number: it is rounded to a multiple of this, in the unit in which it is sent.
    """

    treat: Literal["drop", "pseudonym", "count", "coarsen"]
    period: Duration = Field(86_400.0, ge=60, le=86_400)
    bin: Duration = Field(900.0, ge=900, le=86_400)
    grid: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.treat == "coarsen") != (self.grid is not None):
            msg = "'treat = \"coarsen\"' and 'grid' belong together"
            raise ValueError(msg)
        if 86_400 % self.bin:
            msg = '\'bin\' must be a part of a day, such as "15m", "30m" or "1h"'
            raise ValueError(msg)
        return self


class Kind(_Model):
    """A kind of sensor: what it measures and how its readings are judged.

    Attributes:
        name: Its name, the stem of its file.
        title: Name in each language.
        interval: How often a sensor usually reports, seconds.
        gap: After how many intervals without a value the next one is marked as the first after a gap.
        quantities: By name.
        rules: What the quantities of one message must not say together.
        personal: Fields of the payload that are about a person, by name.
    """

    name: str
    title: Title
    interval: Duration
    gap: float = Field(10.0, ge=1)
    quantities: Mapping[str, Quantity]
    rules: tuple[Check, ...] = ()
    personal: Mapping[str, Personal] = {}

    @field_validator("personal")
    @classmethod
    def _storable(cls, fields: Mapping[str, Personal]) -> Mapping[str, Personal]:
        for name, rule in fields.items():
            if rule.treat in {"pseudonym", "count"} and not _FIELD.fullmatch(name):
                msg = (
                    f"'{name}' is no name for a stored field: use letters, digits, '_', '.', '-' ('rename' maps others)"
                )
                raise ValueError(msg)
        return fields

    @model_validator(mode="after")
    def _rules_name_quantities(self) -> Self:
        for rule in self.rules:
            for name in {*rule.names, *rule.blamed} - self.quantities.keys() - DIAGNOSTICS.keys():
                msg = f"rules: {unknown_quantity(name, self.quantities)}"
                raise ValueError(msg)
        return self


def unknown_quantity(name: str, known: Iterable[str]) -> str:
    """Says that there is no such quantity, and which is nearest."""
    near = difflib.get_close_matches(name, known := [*known], n=1, cutoff=0.4)
    return f"unknown quantity '{name}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}")


DIAGNOSTICS: Mapping[str, Quantity] = {
    "battery": Quantity(
        title=Title(zh="电量", en="Battery", ko="배터리"),
        unit="%",
        decimals=0,
        fail=(0, 110),
        suspect=(10, 100),
        healthy=(5, 110),
    ),
    "rssi": Quantity(
        title=Title(zh="信号强度", en="Signal strength", ko="신호 세기"), unit="dBm", fail=(-200, 20), sensitivity=0
    ),
    "snr": Quantity(
        title=Title(zh="信噪比", en="Signal to noise", ko="신호 대 잡음비"), unit="dB", fail=(-50, 60), sensitivity=0
    ),
    "margin": Quantity(
        title=Title(zh="链路余量", en="Link margin", ko="링크 마진"),
        unit="dB",
        decimals=0,
        fail=(-50, 60),
        sensitivity=0,
    ),
    "lost_uplinks": Quantity(
        title=Title(zh="丢失上行帧", en="Lost uplinks", ko="손실 업링크"),
        unit="1",
        decimals=0,
        fail=(0, 2**32),
        sensitivity=0,
    ),
}
"""Quantities that every kind has: what a sensor says of itself."""


def read(path: Path) -> Kind:
    """Reads one kind's file; its name is the file's stem.

    Args:
        path: A TOML file with ``title``, ``interval`` and a table ``quantities``.

    Raises:
        KindError: If the file is not TOML or a key is wrong; names file and key.
    """
    kind = files.read(path, Kind, KindError, name=path.stem)
    return kind.model_copy(update={"quantities": {**DIAGNOSTICS, **kind.quantities}})


@cache
def builtin() -> Mapping[str, Kind]:
    """All kinds that come with the package, by name."""
    return read_folder(Path(__file__).parent)


def known(folder: Path | None) -> dict[str, Kind]:
    """The kinds that come with the package and those of a site's own folder, which win.

    Raises:
        KindError: If the folder or one of its files cannot be used.
    """
    return {**builtin(), **({} if folder is None else read_folder(folder))}


def read_folder(folder: Path) -> dict[str, Kind]:
    """Reads every ``*.toml`` of a folder.

    Raises:
        KindError: If the folder or one of its files cannot be used.
    """
    if not folder.is_dir():
        msg = f"{folder}: no such folder of kinds"
        raise KindError(msg)
    return {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}
