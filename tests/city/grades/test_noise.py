"""Noise against the limits of GB 3096, by day and by night."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.city.grades import noise, tables
from gateway.city.grades.noise import Period

TABLE = tables.load().noise
LIMITS = [("0", 50, 40), ("1", 55, 45), ("2", 60, 50), ("3", 65, 55), ("4a", 70, 55), ("4b", 70, 60)]
LOCAL = timezone(timedelta(hours=8))


@pytest.mark.parametrize(
    ("zone", "when", "limit"),
    [(zone, "day", day) for zone, day, _ in LIMITS] + [(zone, "night", night) for zone, _, night in LIMITS],
)
def test_a_limit_holds_up_to_itself(zone: str, when: Period, limit: float) -> None:
    at, above = noise.grade(TABLE, zone, when, limit), noise.grade(TABLE, zone, when, limit + 0.1)
    assert (at.limit, at.over, at.level.name) == (limit, 0, "within")
    assert (above.over, above.level.name) == (0.1, "over")


def test_every_zone_of_the_table_is_tested() -> None:
    assert list(TABLE.zones) == [zone for zone, _, _ in LIMITS]
    with pytest.raises(KeyError):
        noise.grade(TABLE, "5", "day", 50)


@pytest.mark.parametrize(
    ("clock", "when", "began"),
    [
        ("23T05:59", "night", "22T22:00"),
        ("23T06:00", "day", "23T06:00"),
        ("23T21:59", "day", "23T06:00"),
        ("23T22:00", "night", "23T22:00"),
        ("24T00:00", "night", "23T22:00"),
    ],
)
def test_the_day_is_from_six_to_ten_in_local_time(clock: str, when: Period, began: str) -> None:
    moment = datetime.fromisoformat(f"2026-11-{clock}:00+08:00")
    assert noise.period(TABLE, moment) == when
    assert noise.period_start(TABLE, moment) == datetime.fromisoformat(f"2026-11-{began}:00+08:00")
    assert noise.period(TABLE, moment.astimezone(UTC).astimezone(LOCAL)) == when


def test_levels_join_by_their_energy() -> None:
    assert noise.equivalent([(60, 1), (60, 3)]) == pytest.approx(60)
    assert noise.equivalent([(60, 1), (70, 1)]) == pytest.approx(67.404, abs=1e-3)
    assert noise.equivalent([(70, 60), (0, 540)]) == pytest.approx(60, abs=1e-4)  # loud for a tenth of the time
    assert noise.equivalent([]) is None
    assert noise.equivalent([(60, 0)]) is None
