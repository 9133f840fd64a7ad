"""Units: the factor and the offset that turn a sent value into the kind's unit, found once, when a source is loaded.

Units come from configurations, formats and payloads, so that a text is looked at before ``pint`` is: it must be names
with small exponents. What is found is exact before it is rounded to a double, and remembered.
"""

import math
import re
import unicodedata
from contextlib import suppress
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pint

_LONGEST = 40  # characters
_REMEMBERED = 4096  # conversions; payloads may name units, and pint keeps each
_NAME = r"(?:°?[^\W\d_]\w*?|[°%‰]|1)"
_POWER = r"(?:\^?[-+]?[1-9])?"
_UNIT = re.compile(rf"{_NAME}{_POWER}(?: ?[*/·⋅. ] ?{_NAME}{_POWER})*")
_EXPONENT = re.compile(r"(?<=[^\W\d_])\^?([-+]?[1-9])(?!\w)")
_SPELLINGS = {
    "cel": "degC",  # UCUM, and so SenML
    "°c": "degC",
    "degc": "degC",
    "celsius": "degC",
    "deg c": "degC",
    "degrees c": "degC",
    "°f": "degF",
    "degf": "degF",
    "deg f": "degF",
    "degrees f": "degF",
    "fahrenheit": "degF",
    "oc": "degC",  # º, an ordinal, is often taken for a degree
    "of": "degF",
    "dba": "dB(A)",
    "db a": "dB(A)",
    "db(a)": "dB(A)",
    "%rh": "%",
    "% rh": "%",
    "pct": "%",
    "ppmv": "ppm",
    "ppbv": "ppb",
    "mcg/m3": "ug/m3",
    "hpa": "hPa",
    "kpa": "kPa",
    "mb": "mbar",  # pint's is the millibarn
    "mmhg": "mmHg",
    "inhg": "inHg",
    "kts": "knot",
    "kmh": "km/h",
    "kph": "km/h",
    "km/h": "km/h",
    "m/sec": "m/s",
    "ntu": "NTU",
    "ph": "pH",
    "us/cm": "uS/cm",
    "ms/cm": "mS/cm",
}
"""Spellings that are usual and that pint does not know or takes for something else; in lower case."""
_TEMPERATURES = {"C": "degC", "F": "degF"}  # else coulomb and farad
_GAS_CONSTANT = Fraction("8.31446261815324")  # J/(mol K), exact since the SI of 2019
_CONDITION = re.compile(r"(-?\d{1,4}(?:\.\d{1,4})?) ?(\D[^,]*), ?(\d{1,6}(?:\.\d{1,4})?) ?(\D.*)")


class UnitError(Exception):
    """A unit is unknown, or measures something else."""


class Conversion(NamedTuple):
    """How to convert: stored value = (sent value · times + plus) / over.

    As three whole numbers, where these are not too large, so that 122 °F are 50 °C, and not 50.00000000000001.
    """

    times: float
    plus: float
    over: float

    @property
    def factor(self) -> float:
        """What a step of one in the sent unit is in the stored one."""
        return self.times / self.over

    @property
    def offset(self) -> float:
        """What zero in the sent unit is in the stored one."""
        return self.plus / self.over

    def of(self, value: float) -> float:
        """A sent value in the stored unit."""
        return (value * self.times + self.plus) / self.over


AS_SENT = Conversion(1.0, 0.0, 1.0)
_WHOLE = 2**53  # up to here a float holds every whole number


def conversion(sent: str, stored: str, molar_mass: float | None = None, gas_at: str | None = None) -> Conversion:
    """Finds how to convert; what was found before costs a look-up.

    Args:
        sent: Unit in which values arrive, such as ``"mg/m³"``, ``"degF"`` or ``"ppb"``.
        stored: The quantity's unit in its kind.
        molar_mass: Of a gas, g/mol: by it, parts per billion become a mass and back.
        gas_at: Temperature and pressure at which a volume of gas has its mass, such as ``"25 °C, 1013.25 hPa"``.

    Raises:
        UnitError: If a unit is unknown or no unit, or the two measure different things, or a gas lacks its condition.
    """
    if sent == stored:
        return AS_SENT
    found = _found(sent[: _LONGEST + 1], stored, molar_mass, gas_at)
    if isinstance(found, str):
        msg = f"cannot convert {_shown(sent)} to '{stored}': {found}"
        raise UnitError(msg)
    return found


@lru_cache(_REMEMBERED)
def _found(sent: str, stored: str, molar_mass: float | None, gas_at: str | None) -> Conversion | str:
    """The conversion, or why there is none."""
    if _found.cache_info().misses % _REMEMBERED == 0:
        _registry.cache_clear()  # it keeps every unit that it ever saw
    try:
        factor, offset = _exact(_written(sent, stored), _written(stored, stored), molar_mass, gas_at)
        over = math.lcm(factor.denominator, offset.denominator)
        if max(float(abs(factor * over)), float(abs(offset * over)), float(over)) > _WHOLE:
            over = 1
        found = Conversion(float(factor * over), float(offset * over), float(over))
    except UnitError as error:
        return str(error)
    except OverflowError:
        found = Conversion(0.0, 0.0, 1.0)
    return found if found.times else "the factor is beyond all numbers"


@cache
def _registry() -> "pint.UnitRegistry[Fraction]":
    import pint  # noqa: PLC0415 - 15 MB that only gateways with foreign units need

    registry: pint.UnitRegistry[Fraction] = pint.UnitRegistry(
        non_int_type=Fraction, autoconvert_offset_to_baseunit=True
    )
    registry.define("veh = count")
    if "ppb" not in registry:
        registry.define("ppb = 1e-9")
    return registry


def _written(unit: str, stored: str) -> str:
    """A unit as it is compared and as pint reads it.

    Raises:
        UnitError: If it cannot be a unit.
    """
    text = " ".join(unicodedata.normalize("NFKC", unit).split()) if len(unit) <= _LONGEST else unit
    if len(text) > _LONGEST:
        msg = f"a unit has at most {_LONGEST} characters"
        raise UnitError(msg)
    text = text.replace("∕", "/").replace("−", "-").replace("**", "^")  # noqa: RUF001 - what ㎧ and ⁻ become
    text = _SPELLINGS.get(text.lower(), text)
    if stored in {"°C", "°F", "K"}:
        text = _TEMPERATURES.get(text, text)
    if text == _SPELLINGS["dba"]:
        return text
    if not _UNIT.fullmatch(text):
        msg = f"{_shown(unit)} is no unit; it looks like 'µg/m³', 'ug/m3', 'm s-1' or 'degF'"
        raise UnitError(msg)
    return _EXPONENT.sub(r"**\1", re.sub(r" ?[·⋅. ] ?(?![*/])", "*", text.replace(" /", "/").replace("/ ", "/")))


def _exact(sent: str, stored: str, molar_mass: float | None, gas_at: str | None) -> tuple[Fraction, Fraction]:
    if sent == stored:
        return Fraction(1), Fraction(0)
    of_sent, of_stored = _measures(sent), _measures(stored)
    if of_sent == of_stored:
        return _linear(sent, stored)
    if {of_sent, of_stored} != {_FRACTION, _DENSITY}:
        msg = f"one measures {_described(of_sent)}, the other {_described(of_stored)}"
        raise UnitError(msg)
    if molar_mass is None:
        msg = "that takes the molar mass of a gas, and the quantity's kind states none (molar_mass)"
        raise UnitError(msg)
    if gas_at is None:
        msg = "a volume of gas has its mass at some temperature and pressure: set gas_at, such as '25 °C, 1013.25 hPa'"
        raise UnitError(msg)
    kelvin, pascal = condition(gas_at)
    whole = Fraction(str(molar_mass)) / 1000 * pascal / (_GAS_CONSTANT * kelvin)  # kg/m³ of a gas that is alone
    if of_sent == _FRACTION:
        return _linear(sent, "1")[0] * whole * _linear("kg/m**3", stored)[0], Fraction(0)
    return _linear(sent, "kg/m**3")[0] / whole * _linear("1", stored)[0], Fraction(0)


_Measures = frozenset[tuple[str, Any]]
_FRACTION: _Measures = frozenset()
_DENSITY: _Measures = frozenset({("mass", 1), ("length", -3)})


def _measures(unit: str) -> _Measures:
    """What a unit measures: dimensions and their exponents. An angle is a dimension here, as in pint it is not."""
    registry = _registry()
    try:
        read = registry.Unit(unit)
        dimensions = {name.strip("[]"): exponent for name, exponent in read.dimensionality.items()}
        angle = registry.Quantity(Fraction(1), read).to_root_units().unit_items()
        dimensions.update(("angle", exponent) for name, exponent in angle if name == "radian")
    except Exception as error:
        msg = f"'{unit.replace('**', '^')}' is unknown, or logarithmic"
        raise UnitError(msg) from error
    return frozenset(dimensions.items())


def _described(measures: _Measures) -> str:
    parts = [name if exponent == 1 else f"{name}^{exponent}" for name, exponent in sorted(measures)]
    return " ".join(parts) or "a plain number"


def _linear(sent: str, stored: str) -> tuple[Fraction, Fraction]:
    registry = _registry()
    try:
        at_zero, at_one = (registry.Quantity(Fraction(value), sent).to(stored).magnitude for value in (0, 1))
    except Exception as error:
        msg = "no factor leads from one to the other"
        raise UnitError(msg) from error
    return at_one - at_zero, at_zero


def condition(text: str) -> tuple[Fraction, Fraction]:
    """Reads a temperature and a pressure, such as ``"25 °C, 1013.25 hPa"``.

    Returns:
        Kelvin and pascal, exact.

    Raises:
        UnitError: If it is no such condition, or one that is nowhere on earth.
    """
    parts = _CONDITION.fullmatch(text.strip()) if len(text) <= 2 * _LONGEST else None
    found = []
    if parts is not None:
        with suppress(UnitError):
            for value, unit, base in ((*parts.group(1, 2), "K"), (*parts.group(3, 4), "Pa")):
                factor, offset = _exact(_written(unit.strip(), base), base, None, None)
                found.append(Fraction(value) * factor + offset)
    match found:
        case [kelvin, pascal] if 200 <= kelvin <= 400 and 30_000 <= pascal <= 120_000:  # noqa: PLR2004 - on earth
            return kelvin, pascal
    msg = f"expected a temperature and a pressure, such as '25 °C, 1013.25 hPa', not {_shown(text)}"
    raise UnitError(msg)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
