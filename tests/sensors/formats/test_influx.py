import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.formats import Declared, PayloadError, Sample
from sensors.formats.influx import Influx
from tests.sensors.formats import documents

_TIME = 1_795_392_000_000

_PLAIN = Declared()


def _read(payload: bytes, declared: Declared = _PLAIN) -> list[Sample]:
    return Influx(declared).decode("lines", payload, 0).samples


def test_each_line_is_a_sample_of_the_sensor_that_its_tag_names() -> None:
    first, second = _read(documents.payload("influx/weather.line"))
    assert first == Sample(_TIME, {"temperature": 21.5, "humidity": 48, "wet": 0}, sensor="roof-1")
    assert second == Sample(_TIME + 500, {"temperature": 20.9, "humidity": 51}, sensor="roof-2")


def test_a_lone_value_is_called_like_its_measurement_and_text_is_a_problem() -> None:
    first, second = _read(documents.payload("influx/controller.line"))
    assert first == Sample(_TIME, {"cpu_temp": 48.2}, sensor="edge 7")
    assert math.isnan(second.time)
    assert (second.sensor, second.values) == ("edge 7", {"watts": 3.4})
    assert second.problems == ("line 2: supply: text is no reading; options.text passes it over",)


def test_text_can_be_passed_over() -> None:
    _, second = _read(documents.payload("influx/controller.line"), Declared(options={"text": True}))
    assert second.problems == ()


def test_a_source_names_tag_quantities_and_precision() -> None:
    declared = Declared(
        rename={"weather.t": "temperature", "h": "humidity"}, options={"sensor_tag": "id", "precision": "s"}
    )
    (sample,) = _read(b"weather,id=a,sensor=b t=1,h=2 1795392000", declared)
    assert sample == Sample(_TIME, {"temperature": 1, "humidity": 2}, sensor="a")


def test_a_line_without_the_tag_leaves_the_sensor_to_the_topic() -> None:
    (sample,) = _read(b"weather t=1")
    assert sample.sensor is None


def test_a_time_shortly_after_1970_stays_there() -> None:
    (sample,) = _read(b"m t=1 86400", Declared(options={"precision": "s"}))
    assert sample.time == 86400


def test_a_bad_line_costs_itself_only_and_is_named() -> None:
    first, second = _read(b"a,sensor=x t=1 1795392000\na,sensor=x t=oops\na,sensor=y t=2")
    assert first.problems == (
        "line 2: the field 't' is 'oops': not a number in range, an integer (1i, 1u), a boolean or a quoted string",
    )
    assert (second.sensor, second.problems) == ("y", ())


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "line 1: there is none"),
        (b"# nothing\n", "line 1: there is none"),
        (b"weather", "line 1: no field"),
        (b"\nweather t=", "line 2: cannot read the field 't='"),
        (b"weather t=1 soon", "line 1: the timestamp 'soon' is not an integer of 64 bits in s, ms, us or ns"),
        (b"weather,sensor t=1", "line 1: cannot read the tags"),
        (b"w t=1\xff", "line 1: not valid UTF-8"),
        (b'w t="', "line 1: a string field has no closing quote"),
    ],
)
def test_lines_that_cannot_be_read_are_refused_with_their_number(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _read(payload)


@given(st.binary() | st.text(alphabet='ab,= \\"10iutf.-\n').map(str.encode))
def test_nothing_but_a_payload_error_leaves(payload: bytes) -> None:
    try:
        samples = _read(payload)
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        for sample in samples:
            assert all(map(math.isfinite, sample.values.values()))
            assert all(problem.encode() for problem in sample.problems)


def test_a_payload_cut_anywhere_is_read_or_refused() -> None:
    whole = documents.payload("influx/controller.line")
    for length in range(len(whole)):
        try:
            read = [sample.problems for sample in _read(whole[:length])]
        except PayloadError as error:
            read = [(str(error),)]
        assert all(problem.startswith("line ") for problems in read for problem in problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("influx")
