"""Kinds of sensors: one TOML file a kind, with its quantities, units, quality-control limits and titles.

Adding a kind is adding a file to this folder, or to a folder named by a gateway's ``kinds_dir`` setting.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sensors.durations import Duration

Severity = Literal["blue", "yellow", "orange", "red"]
SEVERITIES: tuple[Severity, ...] = ("blue", "yellow", "orange", "red")
"""From mild to grave, the four colours of Chinese public alerts."""

Limits = Annotated[tuple[float, float], Field(description="lowest and highest accepted value, inclusive")]


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


class Quantity(_Model):
    """One measured quantity and the limits of its quality control.

    Attributes:
        title: Name in each language.
        unit: Unit of every stored value, as shown to people.
        decimals: Digits after the point when shown.
        fail: Outside, a value fails (QARTOD gross range).
        suspect: Outside, a value is suspect (QARTOD operator range).
        step: Largest plausible change per minute; beyond it a value is suspect (QARTOD rate of change).
        flat: The flat-line test, if any.
        events: Limits from which a good value raises an event.
        direction: An angle in degrees, where 359 and 1 are neighbours and compass points are accepted.
    """

    title: Title
    unit: str
    decimals: int = 1
    fail: Limits | None = None
    suspect: Limits | None = None
    step: float | None = None
    flat: Flat | None = None
    events: tuple[EventLimit, ...] = ()
    direction: bool = False


class Kind(_Model):
    """A kind of sensor: what it measures and how its readings are judged."""

    name: str
    title: Title
    interval: Duration
    quantities: Mapping[str, Quantity]


_DIAGNOSTICS = {
    "battery": Quantity(
        title=Title(zh="电量", en="Battery", ko="배터리"), unit="%", decimals=0, fail=(0, 110), suspect=(10, 100)
    ),
    "rssi": Quantity(title=Title(zh="信号强度", en="Signal strength", ko="신호 세기"), unit="dBm", fail=(-200, 20)),
    "snr": Quantity(title=Title(zh="信噪比", en="Signal to noise", ko="신호 대 잡음비"), unit="dB", fail=(-50, 60)),
}


def read(path: Path) -> Kind:
    """Reads one kind's file; its name is the file's stem.

    Args:
        path: A TOML file with ``title``, ``interval`` and a table ``quantities``.

    Raises:
        KindError: If the file is not TOML or a key is wrong; names file and key.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        kind = Kind(name=path.stem, **data)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        msg = f"{path}: {error}"
        raise KindError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        msg = f"{path}: {key}: {first['msg']}"
        raise KindError(msg) from error
    return kind.model_copy(update={"quantities": {**_DIAGNOSTICS, **kind.quantities}})


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
