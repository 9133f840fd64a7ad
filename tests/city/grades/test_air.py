"""The three air quality indices, with the values of their standards and the edges between them."""

from datetime import date

import pytest

from gateway.city.grades import air, tables
from gateway.city.grades.air import Hour
from gateway.city.grades.tables import AirScale

TABLES = tables.load()
CN, CN_2012 = TABLES.scale("cn", date(2026, 3, 1)), TABLES.scale("cn", date(2026, 2, 28))
KR, US = TABLES.scale("kr", date(2026, 3, 1)), TABLES.scale("us", date(2026, 3, 1))
MOLAR = {"o3": 48.0, "no2": 46.01, "so2": 64.06, "co": 28.01}

_2026 = {
    "pm25": ([0, 35, 60, 115, 150, 250, 350, 500], [0, 50, 100, 150, 200, 300, 400, 500]),
    "pm10": ([0, 50, 120, 250, 350, 420, 500, 600], [0, 50, 100, 150, 200, 300, 400, 500]),
}
DAILY = {
    **_2026,
    "so2": ([0, 50, 150, 475, 800, 1600, 2100, 2620], [0, 50, 100, 150, 200, 300, 400, 500]),
    "no2": ([0, 40, 80, 180, 280, 565, 750, 940], [0, 50, 100, 150, 200, 300, 400, 500]),
    "co": ([0, 2, 4, 14, 24, 36, 48, 60], [0, 50, 100, 150, 200, 300, 400, 500]),
    "o3": ([0, 100, 160, 215, 265, 800], [0, 50, 100, 150, 200, 300]),
}
HOURLY = {
    **_2026,
    "so2": ([0, 150, 500, 650, 800], [0, 50, 100, 150, 200]),
    "no2": ([0, 100, 200, 700, 1200, 2340, 3090, 3840], [0, 50, 100, 150, 200, 300, 400, 500]),
    "co": ([0, 5, 10, 35, 60, 90, 120, 150], [0, 50, 100, 150, 200, 300, 400, 500]),
    "o3": ([0, 160, 200, 300, 400, 800, 1000, 1200], [0, 50, 100, 150, 200, 300, 400, 500]),
}


def points(table: dict[str, tuple[list[int], list[int]]]) -> list[tuple[str, float, int]]:
    return [
        (name, bound, index)
        for name, (bounds, values) in table.items()
        for bound, index in zip(bounds, values, strict=True)
    ]


def stored(quantity: str, value: float, unit: str) -> float:
    """A mixing ratio as the store holds it: µg/m³, for carbon monoxide mg/m³."""
    if unit not in {"ppm", "ppb"}:
        return value
    micrograms = value * (1000 if unit == "ppm" else 1) * MOLAR[quantity] / 24.45
    return micrograms / 1000 if quantity == "co" else micrograms


def hour(scale: AirScale, quantity: str, value: float, unit: str = "µg/m³") -> int | None:
    return air.now(scale, {quantity: Hour(stored(quantity, value, unit), 1.0)}).sub.get(quantity)


def daily(scale: AirScale, quantity: str, value: float, unit: str = "µg/m³") -> int | None:
    return air.day(scale, {quantity: [Hour(stored(quantity, value, unit), 1.0)] * 24}).sub.get(quantity)


@pytest.mark.parametrize(("quantity", "value", "index"), points(HOURLY))
def test_a_break_point_of_hj_633_has_its_index_by_the_hour(quantity: str, value: float, index: int) -> None:
    assert hour(CN, quantity, value) == index


@pytest.mark.parametrize(("quantity", "value", "index"), points(DAILY))
def test_a_break_point_of_hj_633_has_its_index_by_the_day(quantity: str, value: float, index: int) -> None:
    assert daily(CN, quantity, value) == index


@pytest.mark.parametrize(
    ("quantity", "value", "by_2026", "by_2012"),
    [
        ("pm25", 75, 114, 100),
        ("pm10", 150, 112, 100),
        ("pm25", 60, 100, 82),
        ("pm10", 120, 100, 85),
        ("pm25", 115, 150, 150),
        ("pm10", 250, 150, 150),
    ],
)
def test_the_table_follows_the_date_of_the_data(quantity: str, value: float, by_2026: int, by_2012: int) -> None:
    assert hour(CN, quantity, value) == daily(CN, quantity, value) == by_2026
    assert hour(CN_2012, quantity, value) == daily(CN_2012, quantity, value) == by_2012


@pytest.mark.parametrize(
    ("quantity", "value", "index"),
    [
        ("pm25", 35.01, 51),  # rounds up however little is over
        ("pm25", 34.99, 50),
        ("pm25", 0.1, 1),
        ("pm25", -3, 0),  # an instrument's noise
        ("pm25", 501, 500),
        ("so2", 800.1, 200),  # by the hour, the index ends here
        ("so2", 5000, 200),
        ("o3", 1200.5, 500),
    ],
)
def test_the_hours_edges_of_hj_633(quantity: str, value: float, index: int) -> None:
    assert hour(CN, quantity, value) == index


@pytest.mark.parametrize(("quantity", "value", "index"), [("o3", 800.1, 300), ("o3", 3000, 300), ("so2", 2700, 500)])
def test_the_days_edges_of_hj_633(quantity: str, value: float, index: int) -> None:
    assert daily(CN, quantity, value) == index


@pytest.mark.parametrize("scale", [CN, KR, US])
def test_an_index_never_falls_when_a_concentration_rises(scale: AirScale) -> None:
    for pollutant in scale.pollutants:
        found = [hour(scale, pollutant.quantity, step / 4) or 0 for step in range(4000)]
        assert found == sorted(found)


@pytest.mark.parametrize(
    ("value", "level", "primary"),
    [
        (0, "excellent", ()),
        (35, "excellent", ()),
        (35.1, "good", ("pm25",)),
        (60, "good", ("pm25",)),
        (60.1, "light", ("pm25",)),
        (115.1, "moderate", ("pm25",)),
        (150.1, "heavy", ("pm25",)),
        (250.1, "severe", ("pm25",)),
    ],
)
def test_the_grade_changes_above_its_bound_and_a_pollutant_leads_above_50(
    value: float, level: str, primary: tuple[str, ...]
) -> None:
    found = air.now(CN, {"pm25": Hour(value, 1.0), "co": Hour(0.0, 1.0)})
    assert found.level is not None
    assert (found.level.name, found.primary) == (level, primary)


def test_two_pollutants_may_lead_together() -> None:
    found = air.now(CN, {"pm25": Hour(60, 1.0), "pm10": Hour(120, 1.0), "no2": Hour(100, 1.0)})
    assert (found.value, found.primary) == (100, ("pm25", "pm10"))
    assert found.missing == ("so2", "co", "o3")


@pytest.mark.parametrize(
    ("quantity", "unit", "bounds"),
    [
        ("pm10", "µg/m³", [(30, 31), (80, 81), (150, 151), (600, 700)]),
        ("pm25", "µg/m³", [(15, 16), (35, 36), (75, 76), (500, 501)]),
        ("o3", "ppm", [(0.030, 0.031), (0.090, 0.091), (0.150, 0.151), (0.6, 0.7)]),
        ("no2", "ppm", [(0.030, 0.031), (0.060, 0.061), (0.200, 0.201), (2, 3)]),
        ("co", "ppm", [(2, 2.01), (9, 9.01), (15, 15.01), (50, 51)]),
        ("so2", "ppm", [(0.020, 0.021), (0.050, 0.051), (0.150, 0.151), (1, 2)]),
    ],
)
def test_the_bounds_of_the_cai(quantity: str, unit: str, bounds: list[tuple[float, float]]) -> None:
    last = [hour(KR, quantity, value, unit) for value, _ in bounds]
    first = [hour(KR, quantity, value, unit) for _, value in bounds]
    assert (last, first) == ([50, 100, 250, 500], [51, 101, 251, 500])


def test_the_cai_rounds_to_the_nearest_and_concentrations_to_their_digits() -> None:
    assert hour(KR, "pm25", 20) == 61  # 51 + 49 * 4 / 19 = 61.3
    assert hour(KR, "pm25", 15.4) == 50
    assert hour(KR, "pm25", 15.5) == 51


def test_the_cai_needs_its_four_pollutants() -> None:
    four = {"pm10": Hour(30, 1.0), "pm25": Hour(15, 1.0), "no2": Hour(10, 1.0), "o3": Hour(20, 1.0)}
    assert air.now(KR, four).value == 50
    for name in four:
        found = air.now(KR, {key: value for key, value in four.items() if key != name})
        assert (found.value, found.level) == (None, None)
        assert name in found.missing


@pytest.mark.parametrize(
    ("pm10", "pm25", "no2_ppm", "value"),
    [(80, 36, 0.03, 101), (81, 36, 0.03, 151), (81, 36, 0.061, 176), (600, 500, 0.03, 500)],
)
def test_the_cai_adds_points_when_several_pollutants_are_unhealthy(
    pm10: float, pm25: float, no2_ppm: float, value: int
) -> None:
    hours = {"pm10": pm10, "pm25": pm25, "no2": stored("no2", no2_ppm, "ppm"), "o3": 20.0}
    assert air.now(KR, {name: Hour(mean, 1.0) for name, mean in hours.items()}).value == value


@pytest.mark.parametrize(
    ("quantity", "unit", "bounds"),
    [
        ("pm25", "µg/m³", [(9.0, 9.1), (35.4, 35.5), (55.4, 55.5), (125.4, 125.5), (225.4, 225.5), (325.4, 400)]),
        ("pm10", "µg/m³", [(54, 55), (154, 155), (254, 255), (354, 355), (424, 425), (604, 605)]),
        ("co", "ppm", [(4.4, 4.5), (9.4, 9.5), (12.4, 12.5), (15.4, 15.5), (30.4, 30.5), (50.4, 60)]),
        ("no2", "ppb", [(53, 54), (100, 101), (360, 361), (649, 650), (1249, 1250), (2049, 2050)]),
    ],
)
def test_the_bounds_of_the_epa(quantity: str, unit: str, bounds: list[tuple[float, float]]) -> None:
    last = [hour(US, quantity, value, unit) for value, _ in bounds]
    first = [hour(US, quantity, value, unit) for _, value in bounds]
    assert (last, first) == ([50, 100, 150, 200, 300, 500], [51, 101, 151, 201, 301, 500])


@pytest.mark.parametrize(("value", "index"), [(9.09, 50), (35.49, 100), (12.0, 56), (35.0, 99), (0, 0)])
def test_the_epa_truncates_concentrations_and_rounds_the_index(value: float, index: int) -> None:
    assert daily(US, "pm25", value) == index


def test_ozone_of_an_hour_and_sulphur_dioxide_of_a_day_go_on_where_the_others_end() -> None:
    assert daily(US, "o3", 0.200, "ppm") == 300  # by the hour it would be 194
    assert daily(US, "o3", 0.405, "ppm") == 301
    assert daily(US, "so2", 304, "ppb") == 200
    assert daily(US, "so2", 305, "ppb") == 201
    assert hour(US, "so2", 900, "ppb") == 200


# -- missing data ----------------------------------------------------------------------------------------------------


def hours(*present: int, value: float = 60.0, coverage: float = 1.0) -> list[Hour | None]:
    return [Hour(value, coverage) if place in present else None for place in range(24)]


@pytest.mark.parametrize(("scale", "needed"), [(CN, 20), (KR, 18), (US, 18)])
def test_a_mean_of_24_hours_needs_its_hours(scale: AirScale, needed: int) -> None:
    assert "pm25" in air.day(scale, {"pm25": hours(*range(needed))}).sub
    short = air.day(scale, {"pm25": hours(*range(needed - 1))})
    assert (short.value, short.sub) == (None, {})
    assert "pm25" in short.missing
    assert air.valid_hours(scale, {"pm25": hours(*range(needed - 1)), "co": hours(1)}) == needed - 1


def test_a_mean_of_24_hours_is_over_the_hours_that_are_there() -> None:
    series = hours(*range(4, 24))
    series[4] = Hour(460.0, 1.0)  # (19 * 60 + 460) / 20 = 80
    assert air.day(CN, {"pm25": series}).sub == {"pm25": 119}  # 100 + 50 * 20 / 55 = 118.2


@pytest.mark.parametrize(("coverage", "counts"), [(0.75, True), (0.7499, False)])
def test_an_hour_needs_45_minutes(coverage: float, counts: bool) -> None:  # noqa: FBT001 - a parametrized answer
    assert bool(air.day(CN, {"pm25": hours(*range(24), coverage=coverage)}).sub) is counts
    assert air.now(CN, {"pm25": Hour(60, coverage)}).provisional is not counts
    assert air.now(CN, {"pm25": Hour(60, coverage)}).value == 100


def test_ozone_is_the_highest_mean_of_eight_hours() -> None:
    series: list[Hour | None] = [Hour(40.0, 1.0)] * 24
    series[12:20] = [Hour(160.0, 1.0)] * 8
    assert air.day(CN, {"o3": series}).sub == {"o3": 100}
    series[12] = series[13] = None  # six hours of eight are enough
    assert air.day(CN, {"o3": series}).sub == {"o3": 100}
    series[14] = None  # six windows have five hours now, and eleven are too few
    assert air.day(CN, {"o3": series}).sub == {}


def test_ozone_needs_14_means_of_eight_hours() -> None:
    assert "o3" in air.day(CN, {"o3": hours(*range(19))}).sub  # windows that start at 0 to 13 have six hours
    assert "o3" not in air.day(CN, {"o3": hours(*range(18))}).sub


def test_a_day_is_24_hours() -> None:
    with pytest.raises(ValueError, match="24 hours, not 23"):
        air.day(CN, {"pm25": [None] * 23})


def test_nothing_measured_is_no_index() -> None:
    assert air.now(CN, {}).value is None
    assert air.day(CN, {}).level is None
    assert air.valid_hours(CN, {}) == 0
