import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import SourceConfig
from gateway.edge.source import SourceError
from gateway.edge.units import UnitError, condition, conversion
from sensors import kinds
from tests.edge.test_way import NOW, Way

GB_3095 = "25 °C, 1013.25 hPa"
_PIECES = [*"kmgµsKBe1°%./*^-_ ", "degC", "dB", "ppm", "rad", "delta_", "count", "veh", "nan", "**", "^-9", "pH", "Np"]
EU = "293 K, 101.3 kPa"
GASES = {name: item for name, item in kinds.builtin()["air"].quantities.items() if item.molar_mass}


@pytest.mark.parametrize(
    ("sent", "unit", "stored", "value"),
    [
        # fixed points of the scales, ITS-90 and the definitions of °F and K
        (50, "°F", "°C", 10.0),
        (32, "degF", "°C", 0.0),
        (212, "F", "°C", 100.0),
        (-40, "℉", "°C", -40.0),
        (273.15, "K", "°C", 0.0),
        (20.5, "C", "°C", 20.5),
        (20.5, "ºC", "°C", 20.5),  # an ordinal in place of a degree
        (20.5, "℃", "°C", 20.5),
        (20.5, "Cel", "°C", 20.5),  # RFC 8428
        # NIST SP 811, appendix B.8
        (1e5, "Pa", "hPa", 1000.0),
        (101.325, "kPa", "hPa", 1013.25),
        (1013.25, "mbar", "hPa", 1013.25),
        (1013.25, "mb", "hPa", 1013.25),
        (760, "mmHg", "hPa", 1013.25),
        (29.92, "inHg", "hPa", 1013.21),
        (1, "kn", "km/h", 1.852),
        (90, "km/h", "m/s", 25.0),
        (10, "kts", "m/s", 5.14444444),
        (10, "㎧", "km/h", 36.0),
        (55, "mph", "km/h", 88.51392),
        (1, "in", "mm", 25.4),
        (1, "ft", "m", 0.3048),
        (1, "L/s", "m³/s", 0.001),
        (3600, "m³/h", "m³/s", 1.0),
        (1.413, "mS/cm", "µS/cm", 1413.0),
        (0.1413, "S/m", "µS/cm", 1413.0),
        (0.25, "1", "%", 25.0),
        (250, "‰", "%", 25.0),
        (61, "%RH", "%", 61.0),
        (12, "veh/min", "veh/h", 720.0),
        (55, "dBA", "dB(A)", 55.0),
        (3.14159265358979, "rad", "°", 180.0),
        (1, "klx", "lx", 1000.0),
        # as data sheets and configurations have them
        (20.5, "DEGC", "°C", 20.5),
        (90, "KM/H", "km/h", 90),
        (1.413, "ms/cm", "µS/cm", 1413.0),
        (4, "ntu", "NTU", 4),
        (7, "PH", "pH", 7),
    ],
)
def test_a_value_arrives_in_its_kinds_unit(sent: float, unit: str, stored: str, value: float) -> None:
    assert conversion(unit, stored).of(sent) == pytest.approx(value, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("sent", "unit", "stored", "value"),
    [
        (50, "°F", "°C", 10.0),
        (122, "°F", "°C", 50.0),
        (293.15, "K", "°C", 20.0),
        (1e5, "Pa", "hPa", 1000.0),
        (101325, "Pa", "hPa", 1013.25),
        (35.2, "µg/m³", "mg/m³", 0.0352),
        (0.0352, "mg/m³", "µg/m³", 35.2),
        (10, "in", "mm", 254.0),
    ],
)
def test_round_values_stay_round(sent: float, unit: str, stored: str, value: float) -> None:
    assert conversion(unit, stored).of(sent) == value


def test_what_converts_are_whole_numbers() -> None:
    assert conversion("degF", "°C") == (5, -160, 9)
    assert conversion("m³/h", "m³/s") == (1, 0, 3600)


@pytest.mark.parametrize("spelling", ["mg/m³", "mg/m3", "mg/m^3", "mg/m**3", "mg m-3", "mg·m⁻³", "mg.m-3", "㎎/㎥"])
def test_a_concentration_is_known_in_all_its_spellings(spelling: str) -> None:
    assert conversion(spelling, "µg/m³") == (1000, 0, 1)


@pytest.mark.parametrize(
    "spelling",
    ["\u00b5g/m³", "\u03bcg/m³", "\u00b5g/m3", "\u03bcg/m3", "ug/m3", "ug/m³", "ug/m^3", "mcg/m3", "ug m-3", "㎍/㎥"],
)
def test_a_microgram_is_known_with_both_micro_signs_and_with_none(spelling: str) -> None:
    assert conversion(spelling, "\u00b5g/m³") == (1, 0, 1)
    assert conversion(spelling, "mg/m³") == (1, 0, 1000)


@pytest.mark.parametrize(
    ("gas", "unit", "value"),
    # at 25 °C and 1 atm, as air-quality reports round them (US EPA: 24.45 L/mol)
    [
        ("o3", "ppb", 1.96),
        ("no2", "ppb", 1.88),
        ("no", "ppb", 1.23),
        ("nox", "ppb", 1.88),
        ("so2", "ppb", 2.62),
        ("co", "ppm", 1.145),
    ],
)
def test_a_gas_in_parts_becomes_a_mass_at_the_condition_of_gb_3095(gas: str, unit: str, value: float) -> None:
    found = conversion(unit, GASES[gas].unit, GASES[gas].molar_mass, GB_3095)
    assert found.factor == pytest.approx(value, rel=3e-3)
    assert found.offset == 0


@pytest.mark.parametrize(
    ("gas", "unit", "value"),
    # at 293 K and 101.3 kPa (directive 2008/50/EC), as the United Kingdom's reports give them
    [
        ("o3", "ppb", 1.9957),
        ("no2", "ppb", 1.9125),
        ("no", "ppb", 1.2473),
        ("so2", "ppb", 2.6609),
        ("co", "ppm", 1.1642),
    ],
)
def test_a_gas_in_parts_becomes_a_mass_at_the_condition_of_the_eu(gas: str, unit: str, value: float) -> None:
    found = conversion(unit, GASES[gas].unit, GASES[gas].molar_mass, EU)
    assert found.factor == pytest.approx(value, rel=1.5e-3)


def test_a_mass_becomes_parts_where_a_kind_stores_those() -> None:
    there = conversion("ppm", "µg/m³", 47.9982, GB_3095)
    back = conversion("µg/m³", "ppm", 47.9982, GB_3095)
    assert there.factor * back.factor == pytest.approx(1, rel=1e-15)
    assert conversion("nmol/mol", "µg/m³", 47.9982, GB_3095) == conversion("ppbv", "µg/m³", 47.9982, GB_3095)
    assert conversion("ppm", "ppb") == (1000, 0, 1)


def test_a_condition_is_a_temperature_and_a_pressure_on_earth() -> None:
    for text in ("25 °C, 1 atm", "298.15K,1013.25hPa", "77 °F, 101325 Pa"):
        assert tuple(map(float, condition(text))) == (298.15, 101325)
    for text in ("", "25 °C", "25, 1013", "25 hPa, 25 °C", "1000 K, 1 atm", "25 °C, 5 hPa", "25 °C, 1013.25 hPa" * 9):
        with pytest.raises(UnitError, match=r"expected a temperature and a pressure, such as '25 °C, 1013.25 hPa'"):
            condition(text)


@pytest.mark.parametrize(
    ("unit", "stored", "reason"),
    [
        ("kPa", "µg/m³", "one measures length^-1 mass time^-2, the other length^-3 mass"),
        ("bla", "µg/m³", "'bla' is unknown"),
        ("dB", "1", "'dB' is unknown, or logarithmic"),
        ("degC veh", "°C", "no factor leads from one to the other"),
        ("°", "%", "one measures angle, the other a plain number"),
        ("ppb", "µg/m³", "molar mass"),
        ("", "m", "is no unit"),
        ("nan", "1", "'nan' is unknown"),
        ("0.2 mm", "mm", "is no unit"),
        ("Ym9 Ym9", "ym9 ym9", "beyond all numbers"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_reason(unit: str, stored: str, reason: str) -> None:
    with pytest.raises(UnitError, match=r"^cannot convert '") as raised:
        conversion(unit, stored)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "unit",
    [
        "9**9**9",
        "m**9**9**9",
        "m^99999999",
        "1e999999999 m",
        "m" * 10**6,
        "((((m))))",
        "__import__('os').abort()",
        "m; import os",
        "m\x00",
        "\ufdfa" * 40,  # one character that NFKC makes eighteen
        "m/" * 20,
        "m " * 19 + "!",
    ],
)
def test_a_hostile_unit_is_refused_at_once_and_in_few_words(unit: str) -> None:
    conversion("degF", "°C")  # pint is there
    began = time.process_time()
    with pytest.raises(UnitError) as raised:
        conversion(unit, "m")
    assert time.process_time() - began < 0.1
    assert len(str(raised.value)) < 250


@given(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6).map("".join), st.sampled_from(["°C", "%", "µg/m³", "1"])
)
def test_whatever_a_payload_calls_a_unit_is_converted_or_refused(unit: str, stored: str) -> None:
    try:
        found = conversion(unit, stored, 48.0, GB_3095)
    except UnitError:
        return
    assert all(map(math.isfinite, found))
    assert found.factor != 0


def test_a_source_that_sends_parts_per_billion_says_at_which_condition() -> None:
    parts = SourceConfig(units={"o3": "ppb", "co": "ppm"}, gas_at=GB_3095)
    (line,) = Way(parts).lines({"ts": NOW, "o3": 50, "co": 1})
    values = dict(field.split("=") for field in line.split(" ")[1].split(","))
    assert float(values["o3"]) == pytest.approx(98.1, abs=0.1)
    assert float(values["co"]) == pytest.approx(1.145, abs=0.001)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SourceConfig(units={"o3": "ppb"}), r"source 'city': units\.o3: cannot convert 'ppb' to 'µg/m³': .*set gas_at"),
        (SourceConfig(units={"pm25": "ppb"}, gas_at=GB_3095), r"units\.pm25: .* states none \(molar_mass\)"),
        (SourceConfig(gas_at="warm"), r"source 'city': gas_at: expected a temperature and a pressure"),
    ],
)
def test_a_source_that_cannot_be_converted_is_refused_when_it_is_loaded(config: SourceConfig, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Way(config)
