import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.lineprotocol import Field, Point, parse

_NAME = st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.endswith("\\") and not name.startswith("#") and name.strip() == name and '"' not in name
)
_FIELD = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


def _escape(text: str, characters: str) -> str:
    return "".join(f"\\{c}" if c in characters else c for c in text)


def _field(value: Field) -> str:
    match value:
        case bool():
            return "true" if value else "F"
        case int():
            return f"{value}i"
        case float():
            return repr(value)
        case str():
            return '"' + _escape(value, '"\\') + '"'


def _line(point: Point) -> str:
    tags = "".join(f",{_escape(key, ',= ')}={_escape(value, ',= ')}" for key, value in point.tags.items())
    fields = ",".join(f"{_escape(key, ',= ')}={_field(value)}" for key, value in point.fields.items())
    return f"{_escape(point.measurement, ', ')}{tags} {fields} {point.time}"


_POINT = st.builds(
    Point,
    measurement=_NAME,
    tags=st.dictionaries(_NAME, _NAME, max_size=3),
    fields=st.dictionaries(_NAME, _FIELD, min_size=1, max_size=4),
    time=st.integers(-(10**12), 4 * 10**12),
    line=st.just(1),
)


@given(st.lists(_POINT, min_size=1, max_size=4))
def test_every_point_that_can_be_written_is_read_back(points: list[Point]) -> None:
    found, errors = parse("\n".join(map(_line, points)).encode(), "ms")
    assert errors == []
    assert [(p.measurement, p.tags, p.fields, p.time) for p in found] == [
        (p.measurement, p.tags, p.fields, p.time) for p in points
    ]


@given(st.binary(max_size=80))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    points, errors = parse(body, now=0)
    assert len(points) + len(errors) <= body.count(b"\n") + 1
    assert all(math.isfinite(v) for p in points for v in p.fields.values() if isinstance(v, float))


@pytest.mark.parametrize(
    ("precision", "stamp"), [("ns", "1700000000123456789"), ("us", "1700000000123456"), ("ms", "1700000000123")]
)
def test_each_precision_is_read_as_milliseconds(precision: str, stamp: str) -> None:
    (point,), _ = parse(f"m f=1 {stamp}".encode(), precision)  # type: ignore[arg-type]
    assert point.time == 1_700_000_000_123


def test_a_bad_line_is_named_and_its_neighbours_are_read() -> None:
    points, errors = parse(b'a f=1 1\n# comment\n\nb f=nan 2\nc f="x\ny" 3\nd f="open 4\ne f=2i 5', "ms")
    assert [(p.measurement, p.line) for p in points] == [("a", 1), ("c", 5), ("e", 8)]
    assert points[1].fields == {"f": "x\ny"}
    assert [error.line for error in errors] == [4, 7]
    assert "closing quote" in errors[1].message


def test_a_line_that_is_not_utf8_costs_itself_alone() -> None:
    points, errors = parse(b'a f=1 1\nm\xff f=1 1\nm\xc3\xa9 f=1 1\nm f="a\n\xff" 1\nb f=2 3', "ms")
    assert [point.measurement for point in points] == ["a", "mé", "b"]
    assert all("UTF-8" in error.message for error in errors)


@pytest.mark.parametrize(
    "line",
    [
        "m", "m ", "m f", "m f=", "m =1", "m,t f=1", "m,t= f=1", ",t=1 f=1", "m f=1 x", "m f=1 1.5", "m f=0x10",
        "m f=1_0", "m f=inf", "m f=9223372036854775808i", "m f=-1u", "m f=1e999", "m,a=1,a=2 f=1", "m f=1,",
        'm f="a"b', "m f=1 1 1", "m f=1 99999999999999999999999999", "m \xff\\ =",
    ],
)  # fmt: skip
def test_what_influxdb_refuses_is_refused(line: str) -> None:
    points, errors = parse(line.encode("latin-1"))
    assert points == []
    assert len(errors) == 1


@pytest.mark.parametrize("stamp", ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000"])
def test_the_size_of_a_timestamp_tells_its_unit_where_nobody_says_it(stamp: str) -> None:
    points, errors = parse(f"m v=1 {stamp}".encode(), None)
    assert [point.time for point in points] == [1_700_000_000_000]
    assert not errors
