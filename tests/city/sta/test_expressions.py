"""Expressions of $filter: what they say, and where they are wrong."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.city.sta import expressions, options
from gateway.city.sta.expressions import ExpressionError
from gateway.city.sta.options import OptionError


class Thing:
    """An entity for expressions."""

    known: dict[str, list[Any]] = {  # noqa: RUF012 - never changed
        "name": ["Old Town's air"],
        "number": [7],
        "none": [None],
        "yes": [True],
        "many/value": [1.0, 5.0],
        "nobody/value": [],
        "time": ["2026-11-23T06:05:32.250Z"],
    }

    def values(self, path: tuple[str, ...]) -> list[Any]:
        """The values at a path."""
        found = self.known["/".join(path)]
        return [expressions.read(found[0]).of(self)[0]] if path == ("time",) else found


@pytest.mark.parametrize(
    "text",
    [
        "number eq 7",
        "7 eq number",
        "number ne 8 and number gt 6 and number ge 7",
        "number lt 8 and number le 7",
        "not number eq 8",
        "not not yes",
        "yes",
        "number eq 8 or yes eq true",
        "false and false or true",  # and binds stronger than or
        "not (true and false)",
        "2 add 3 mul 4 eq 14",
        "(2 add 3) mul 4 eq 20",
        "10 sub 2 sub 3 eq 5",
        "7 mod 4 eq 3 and 7 div 2 eq 3.5",
        "-number lt -6.5",
        "number eq 7e0",
        "name eq 'Old Town''s air'",
        "startswith(name, 'Old') and endswith(name,'air') and substringof('Town',name) and contains(name,'s a')",
        "tolower(name) eq 'old town''s air' and toupper('a') eq 'A'",
        "length(concat(trim(' a '), 'bc')) eq 3",
        "indexof(name,'Town') eq 4 and substring(name,4,4) eq 'Town' and substring(name,11) eq 'air'",
        "round(2.5) eq 3 and round(-2.5) eq -3 and floor(-0.5) eq -1 and ceiling(0.5) eq 1",
        "time eq 2026-11-23T14:05:32.25+08:00",
        "time gt 2026-11-23T06:05:32Z and time lt now()",
        "time le '2026-11-24T00:00:00Z'",
        "year(time) eq 2026 and month(time) eq 11 and day(time) eq 23",
        "hour(time) eq 6 and minute(time) eq 5 and second(time) eq 32",
        "many/value gt 4",  # any of them
        "not nobody/value gt 4",
        "none eq null and name ne null",
        "not none gt 1",
        "none add 1 eq null",
    ],
)
def test_this_holds(text: str) -> None:
    assert expressions.holds(expressions.read(text), Thing())


@pytest.mark.parametrize(
    "text", ["number eq 8", "yes and false", "many/value eq 3", "name eq 'Old'", "none", "'a' eq 1"]
)
def test_this_does_not_hold(text: str) -> None:
    assert not expressions.holds(expressions.read(text), Thing())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name eqq 'x'", "at character 6: expected an operator or the end, found 'eqq'"),
        ("name eq", "at character 8: expected a value, found the end"),
        ("", "at character 1: expected a value, found the end"),
        ("name eq 'x", "at character 9: ''x' is not understood"),
        ("(name eq 'x'", r"at character 13: expected '\)', found the end"),
        ("name eq 'x')", r"at character 12: expected an operator or the end, found '\)'"),
        ("length(name", r"at character 12: expected ',' or '\)'"),
        ("shout(name)", "at character 1: there is no function 'shout'; there are ceiling, concat"),
        ("add(1,2)", "there is no function 'add'"),
        ("length(name,1)", "'length' takes 1 arguments, not 2"),
        ("time gt 2026-13-01T00:00:00Z", "at character 9: '2026-13-01T00:00:00Z' is no time"),
        ("(" * 40 + "1" + ")" * 40, "nested more than 30 deep"),
        ("1" + " add 1" * 200, "longer than 150 words and signs"),
        ("-" * 200 + "1", "longer than 150"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError, match=complaint):
        expressions.read(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour eq 'red'", "at character 1: there is no property 'colour'"),
        ("name gt 5", "at character 6: 'Old Town's air' and 5.0 cannot be compared"),
        ("length(number) eq 1", "at character 1: 'length' cannot be applied to 7.0"),
        ("1 div 0 eq 1", "at character 3: 'div' cannot be applied to 1.0, 0.0"),
        ("name", "'Old Town's air' is no condition"),
        ("time gt 'yesterday'", "'yesterday' is no time"),
    ],
)
def test_what_has_no_value_is_told_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError, match=complaint):
        expressions.holds(expressions.read(text), Thing())


def test_many_times_many_values_end() -> None:
    class Crowd(Thing):
        known = {"many": [1.0] * 200}  # noqa: RUF012 - never changed

    with pytest.raises(ExpressionError, match="more than 10000 combinations"):
        expressions.holds(expressions.read("many eq many"), Crowd())


@given(st.text(alphabet="()' ,-09azeqndor/@.TZ:é\n", max_size=60))
def test_any_text_is_read_or_told(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        expressions.holds(expressions.read(text), Thing())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time ge 1970-01-01T00:00:01Z and time lt 1970-01-01T00:00:02Z", (1000, 2000, True)),
        ("time gt 1970-01-01T00:00:01Z and 1970-01-01T00:00:02Z ge time", (1001, 2001, True)),
        ("time eq 1970-01-01T00:00:01.0005Z", (1001, 1001, True)),  # between two milliseconds, nothing
        ("time ge 1970-01-01T00:00:01Z and result gt 3", (1000, None, False)),
        ("time ge 1970-01-01T00:00:01Z or result gt 3", (None, None, False)),
        ("time ne 1970-01-01T00:00:01Z", (None, None, False)),
    ],
)
def test_times_that_bound_an_expression_are_found(text: str, found: tuple[int | None, int | None, bool]) -> None:
    assert expressions.bounds(expressions.read(text), frozenset({"time"})) == found


def test_expansions_nest_by_slash_and_by_options() -> None:
    read = options.read({"$expand": "Datastreams/Observations($top=1;$orderby=result desc),Locations($select=name,id)"})
    inner = read.expand["Datastreams"].expand["Observations"]
    assert (inner.top, len(inner.order), inner.order[0][1]) == (1, 1, True)
    assert read.expand["Locations"].select == ("name", "id")


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"$top": "-1"}, r"\$top: '-1' is no whole number"),
        ({"$skip": "9" * 30}, r"\$skip: '9+' is no whole number"),
        ({"$count": "yes"}, r"\$count: 'yes' is neither true nor false"),
        ({"$search": "x"}, r"\$search: there is no such option; there are \$filter"),
        ({"$expand": "A($top=1"}, r"\$expand: 'A\(\$top=1' lacks its '\)'"),
        ({"$expand": "A,,B"}, r"\$expand: a name is missing"),
        ({"$expand": "A($top)"}, r"\$expand: '\$top' is no option"),
        ({"$expand": "A($filter=x eq)"}, r"\$expand=A: \$filter: at character 5: expected a value"),
        ({"$expand": "/".join("A" * 9)}, "nested more than 6 deep"),
        ({"$orderby": "name downwards"}, r"\$orderby: at character 6: expected an operator"),
    ],
)
def test_wrong_options_are_named(query: dict[str, str], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        options.read(query)
