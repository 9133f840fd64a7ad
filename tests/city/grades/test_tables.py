"""The tables' files: what comes with the package, and what a site puts in its place."""

from datetime import date
from pathlib import Path

import pytest

from gateway.city.grades import tables
from gateway.city.grades.tables import TableError

BUILTIN = Path(tables.__file__).parent / "tables"


def test_every_table_names_its_source_and_what_is_unverified() -> None:
    found = tables.load()
    sources = [*(scale.source for scale in found.air), found.water.source, found.noise.source, found.speed.source]
    assert all("unverified" in source for source in sources)


def test_the_index_of_a_day_is_by_the_table_of_that_day() -> None:
    found = tables.load()
    assert found.scale("cn", date(2026, 2, 28)).valid_from is None
    assert found.scale("cn", date(2026, 3, 1)).valid_from == date(2026, 3, 1)


def test_a_site_changes_a_limit_by_a_file_of_its_own(tmp_path: Path) -> None:
    text = (
        (BUILTIN / "noise.toml").read_text("utf-8").replace("0 = { day = 50, night = 40", "0 = { day = 48, night = 38")
    )
    (tmp_path / "noise.toml").write_text(text, "utf-8")
    found = tables.load(tmp_path)
    assert (found.noise.zones["0"].day, found.noise.zones["0"].night) == (48, 38)
    assert found.water == tables.load().water


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("us.toml", "decimals = 1\nstatistic", "statistic", "pm25: a stepped scale needs 'decimals'"),
        ("kr.toml", "molar = 48.0\n", "", "o3: 'molar' belongs to a mixing ratio"),
        ("cn-2026.toml", "[0, 35, 60, ", "[0, 60, 35, ", "pollutants.0.hour: .*must rise"),
        ("cn-2026.toml", "[0, 35, 60, ", "[0, 35, ", "need the same number of values"),
        ("water.toml", "[7.5, 6, 5, 3, 2]", "[7.5, 6, 5, 3]", "dissolved_oxygen: needs a bound for each level"),
        ("water.toml", "within = [6, 9]", "within = [6, 9], at_most = [1, 2, 3, 4, 5]", "exactly one of"),
        ("traffic.toml", "[40, 30, 20, 15]", "[40, 30, 30, 15]", "roads.arterial: 'above' needs a falling speed"),
        ("traffic.toml", "ends = [2, 4, 6, 8, 10]", "ends = [2, 4]", "'ends' needs a value for each level"),
        ("noise.toml", "day = [6, 22]", "day = 6", "day"),
        ("noise.toml", "day = [6, 22]", "day = [6, 22", "noise.toml"),
    ],
)
def test_a_wrong_table_is_refused_by_file_and_key(
    tmp_path: Path, name: str, old: str, new: str, complaint: str
) -> None:
    text = (BUILTIN / name).read_text("utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(TableError, match=complaint) as error:
        tables.load(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def test_a_table_that_nobody_reads_and_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sound.toml").write_text("", "utf-8")
    with pytest.raises(TableError, match=r"sound\.toml: no table is called so; there are .*noise"):
        tables.load(tmp_path)
    with pytest.raises(TableError, match="no such folder"):
        tables.load(tmp_path / "missing")
