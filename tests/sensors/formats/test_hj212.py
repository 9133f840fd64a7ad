import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sensors.formats import Answer, Declared, Decoded, PayloadError, Quality, Sample
from sensors.formats.hj212 import Hj212, crc
from tests.sensors.formats import documents

_PLAIN = Declared()
_EIGHT = datetime(2026, 11, 23, tzinfo=UTC).timestamp()  # in Beijing
_STATION = "010000A8900016F000169DC0"


def _all(payload: bytes, declared: Declared = _PLAIN) -> Decoded:
    return Hj212(declared).decode("hj", payload, 0)


def _read(payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = _all(payload, declared).samples
    return sample


def _crc(segment: bytes) -> int:
    """As the standard's appendix describes it, bit by bit."""
    register = 0xFFFF
    for byte in segment:
        register = register >> 8 ^ byte
        for _ in range(8):
            low = register & 1
            register >>= 1
            if low:
                register ^= 0xA001
    return register


def _frame(content: str, head: str = "ST=22;CN=2011;PW=1;MN=A;Flag=4", encoding: str = "utf-8") -> bytes:
    segment = f"{head};CP=&&{content}&&".encode(encoding)
    return b"##%04d%b%04X\r\n" % (len(segment), segment, _crc(segment))


_HEAD = "QN=20261123080000000;ST=22;CN=2011;PW=1;MN=A;Flag=4"


def _vector(name: str) -> bytes:
    return documents.payload(f"hj212/{name}")


@given(st.binary(min_size=1, max_size=400))
def test_the_crc_is_that_of_the_standard(segment: bytes) -> None:
    assert crc(segment) == _crc(segment)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 4096, 9999, 40_000])
def test_the_crc_of_a_segment_of_any_length(length: int) -> None:
    segment = bytes(place * 7 % 256 for place in range(length))
    assert crc(segment) == _crc(segment)


def test_the_standards_own_frame_is_accepted_and_holds_no_readings() -> None:
    assert _all(_vector("interval.txt")).samples == []


def test_real_time_data_is_read() -> None:
    assert _read(_vector("real_time.txt")) == Sample(_EIGHT, {"pm25": 35.2, "pm10": 58.0}, sensor=_STATION)


def test_codes_of_2005_and_a_crc_in_lower_case_are_read() -> None:
    sample = _read(_vector("code_2005.txt"))
    assert sample == Sample(
        datetime(2016, 1, 3, 5, 30, 30, tzinfo=UTC).timestamp(),
        {"nh3n": 3.0943, "cod": 18.0412, "ph": 8.2137, "flow": 10.989},
        sensor="0873HHMZWSLH02",
    )
    assert Hj212.units["flow"] == "L/s"


def test_of_minute_data_the_average_is_the_value_and_the_time_the_start() -> None:
    sample = _read(_vector("minute.txt"))
    assert sample == Sample(_EIGHT, {"so2": 0.021, "pressure": 101.3}, sensor=_STATION)
    assert (Hj212.units["so2"], Hj212.units["pressure"]) == ("mg/m³", "kPa")


def test_other_attributes_are_quantities_where_the_source_names_them() -> None:
    declared = Declared(rename={"a21026-Max": "so2_max", "a01006": "station_pressure", "a01006-Min": "lowest"})
    sample = _read(_vector("minute.txt"), declared)
    assert sample.values == {"so2": 0.021, "so2_max": 0.025, "station_pressure": 101.3, "lowest": 101.2}


def test_a_source_says_which_attribute_is_the_value() -> None:
    sample = _read(_vector("minute.txt"), Declared(options={"value": ["ZsAvg", "Max"]}))
    assert sample.values == {"so2": 0.034, "pressure": 101.4}


def test_flags_of_the_station_become_qualities() -> None:
    sample = _read(_vector("hour.txt"))
    assert sample.time == _EIGHT
    assert sample.values == {"pm25": 36.0, "pm10": 61.5, "o3": 0.082, "no2": 0.031, "a99999": 4.0}
    assert sample.quality == {
        "pm25": Quality.BAD,
        "pm10": Quality.OVER_RANGE,
        "o3": Quality.SUSPECT,
        "a99999": Quality.SUSPECT,
    }


@pytest.mark.parametrize(
    ("flag", "quality"),
    [
        ("N", None),
        ("n", None),
        ("", None),
        ("F", Quality.SUSPECT),
        ("M", Quality.SUSPECT),
        ("S", Quality.SUSPECT),
        ("C", Quality.SUSPECT),
        ("D", Quality.BAD),
        ("B", Quality.BAD),
        ("T", Quality.OVER_RANGE),
        ("Q", Quality.SUSPECT),
        ("NTD", Quality.BAD),
    ],
)
def test_each_flag_says_what_the_standard_means_by_it(flag: str, quality: Quality | None) -> None:
    sample = _read(_frame(f"a34004-Rtd=1,a34004-Flag={flag}"))
    assert sample.quality.get("pm25") is quality


def test_a_flag_may_be_of_one_attribute_and_the_worst_of_several_counts() -> None:
    declared = Declared(rename={"a34004-Max": "pm25_max"})
    one = _read(_frame("a34004-Avg=1,a34004-Max=2,a34004-Max-Flag=T"), declared)
    assert one.quality == {"pm25_max": Quality.OVER_RANGE}
    both = _read(_frame("a34004-Avg=1,a34004-Max=2,a34004-Flag=M,a34004-Max-Flag=D,a34004-Flag=T"), declared)
    assert both.quality == {"pm25": Quality.OVER_RANGE, "pm25_max": Quality.BAD}


@pytest.mark.parametrize("text", ["1_0", "\u0663\u0665"])
def test_a_number_is_one_only_as_everybody_writes_it(text: str) -> None:
    sample = _read(_frame(f"a34004-Rtd={text},a34002-Rtd=5"))
    assert (sample.values, sample.problems) == ({"pm10": 5}, (f"a34004-Rtd: expected a number, not '{text}'",))


def test_noise_of_a_day_is_read() -> None:
    sample = _read(_vector("noise_day.txt"))
    assert sample == Sample(
        datetime(2026, 11, 22, 16, tzinfo=UTC).timestamp(), {"laeq": 58.4, "ld": 60.1, "ln": 51.7}, sensor="NOISE3"
    )


def test_an_instantaneous_level_gives_way_to_the_equivalent_one() -> None:
    assert _read(_frame("LA-Rtd=61.0")).values == {"laeq": 61.0}
    assert _read(_frame("LA-Rtd=61.0;Leq-Rtd=58.0")).values == {"laeq": 58.0}
    both = _read(_frame("LA-Rtd=61.0;Leq-Rtd=58.0"), Declared(rename={"LA": "la"}))
    assert both.values == {"la": 61.0, "laeq": 58.0}


@pytest.mark.parametrize(
    ("frame", "loose"),
    [
        (_frame("a34004-Rtd=1", _HEAD), ()),
        (_frame("a34004-Rtd=1,a34004-Info=two words", _HEAD), ()),
        (_frame("a34004-Rtd=1"), ("no QN",)),
        (_frame("a34004-Rtd=1; a34002-Rtd=2", _HEAD.replace("PW=1;", "")), ("no PW", "spaces between the parts")),
        (_frame("a34004-Rtd=1", _HEAD)[:-6] + _frame("a34004-Rtd=1", _HEAD)[-6:].lower(), ("a CRC in lower case",)),
        (_frame("a34004-Rtd=1") * 2, ("no QN",)),
    ],
)
def test_what_is_not_as_the_standard_says_is_flagged(frame: bytes, loose: tuple[str, ...]) -> None:
    decoded = _all(frame)
    assert decoded.loose == loose
    assert decoded.samples[0].values["pm25"] == 1


def test_several_loose_frames_in_one_payload_are_read() -> None:
    first, second = _all(_vector("several.txt")).samples
    assert first == Sample(_EIGHT, {"ph": 7.41, "temperature": 12.6}, sensor="RIVER1")
    assert (second.sensor, second.values["dissolved_oxygen"]) == ("RIVER2", 8.02)
    assert math.isnan(second.values["nh3n"])
    assert second.quality == {"nh3n": Quality.BAD}


@pytest.mark.parametrize("name", ["code_2025.txt", "real_time.gbk"])
def test_chinese_text_is_no_obstacle(name: str) -> None:
    assert _read(_vector(name)) == Sample(_EIGHT, {"pm25": 35.2}, sensor=_STATION)


def test_two_factors_of_one_quantity_do_not_overwrite_each_other() -> None:
    assert _read(_frame("w01010-Rtd=12.6;a01001-Rtd=3.2")).values == {"temperature": 12.6, "a01001": 3.2}


def test_unknown_codes_keep_their_name() -> None:
    assert _read(_frame("A99054-Rtd=1;101-Rtd=2;e301-Rtd=3")).values == {"a99054": 1, "code_101": 2, "e301": 3}


def test_two_times_in_one_frame_are_two_samples() -> None:
    first, second = _all(_frame("DataTime=20261123080000;a34004-Avg=1;DataTime=20261123081000;a34004-Avg=2")).samples
    assert (first.time, first.values) == (_EIGHT, {"pm25": 1})
    assert (second.time, second.values) == (_EIGHT + 600, {"pm25": 2})


def test_without_a_time_of_the_data_that_of_the_request_holds() -> None:
    sample = _read(_frame("a34004-Rtd=1", "QN=20261123080000250;ST=22;CN=2011;MN=A"))
    assert sample.time == _EIGHT + 0.25
    assert math.isnan(_read(_frame("a34004-Rtd=1")).time)
    assert math.isnan(_read(_frame("a34004-Rtd=1", "QN=1;CN=2011;MN=A")).time)


def test_a_source_says_in_which_zone_stations_are() -> None:
    sample = _read(_frame("DataTime=20261123080000;a34004-Rtd=1"), Declared(options={"utc_offset": 9}))
    assert sample.time == _EIGHT - 3600


@pytest.mark.parametrize("command", ["9011", "9012", "9013", "9014", "1011", "1013", "3019", "2021"])
def test_what_is_no_data_holds_no_readings(command: str) -> None:
    assert _all(_frame("a34004-Rtd=1", f"CN={command};MN=A")).samples == []


def test_a_request_for_data_holds_no_readings() -> None:
    declared = Declared(options={"answer_topic": "x/{mn}"})
    assert _all(_frame("", "QN=20261123080000000;CN=2011;MN=A;Flag=5"), declared).samples == []


def test_a_frame_that_asks_for_it_is_answered() -> None:
    declared = Declared(options={"answer_topic": "hj/{mn}/down"})
    segment = b"QN=20261123080000000;ST=91;CN=9014;PW=123456;MN=010000A8900016F000169DC0;Flag=4;CP=&&&&"
    expected = Answer(f"hj/{_STATION}/down", b"##0087" + segment + b"1A40\r\n")
    assert _crc(segment) == 0x1A40
    assert _all(_vector("real_time.txt"), declared).answers == (expected,)


def test_the_answer_to_a_frame_of_2025_is_of_2025() -> None:
    (answer,) = _all(_vector("code_2025.txt"), Declared(options={"answer_topic": "x"})).answers
    assert b";Flag=8;CP=&&&&" in answer.payload
    assert answer.topic == "x"


@pytest.mark.parametrize(
    "head",
    [
        "QN=20261123080000000;CN=2011;MN=A;Flag=4",
        "QN=20261123080000000;CN=2011;MN=A",
        "QN=20261123080000000;CN=2011;MN=A;Flag=x",
        "CN=2011;MN=A;Flag=5",
        "QN=20261123080000000;CN=2011;Flag=5",
        "QN=20261123080000000;CN=2011;MN=a/#;Flag=5",
    ],
)
def test_a_frame_that_does_not_ask_or_cannot_be_named_is_not_answered(head: str) -> None:
    decoded = _all(_frame("a34004-Rtd=1", head), Declared(options={"answer_topic": "x/{mn}"}))
    assert len(decoded.samples) == 1
    assert decoded.answers == ()


def test_nothing_is_answered_unless_the_source_declares_where() -> None:
    assert _all(_vector("real_time.txt")).answers == ()


@pytest.mark.parametrize("topic", ["x/#", "x/+/y", "x/{station}", "x/{mn"])
def test_a_topic_that_cannot_be_published_to_is_refused(topic: str) -> None:
    with pytest.raises(ValidationError, match=r"only \{mn\} is replaced"):
        Hj212(Declared(options={"answer_topic": topic}))


def test_a_wrong_crc_is_refused_unless_the_source_ignores_it() -> None:
    wrong = _vector("real_time.txt").replace(b"&&6240", b"&&6241")
    with pytest.raises(PayloadError, match="byte 176: expected the CRC 6240, found '6241'"):
        _all(wrong)
    assert _read(wrong, Declared(options={"crc": "ignore"})).values == {"pm25": 35.2, "pm10": 58.0}
    missing = _vector("real_time.txt").replace(b"&&6240", b"&&")
    assert _read(missing, Declared(options={"crc": "ignore"})).problems == ()


_GOOD = _frame("a34004-Rtd=1")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "byte 0: expected '##', found the end"),
        (b"\r\n", "byte 2: expected '##', found the end"),
        (b"hello", "byte 0: expected '##', found 'hello'"),
        (b"##01", "byte 2: expected the length in four digits, found '01'"),
        (b"##x123QN=", "byte 2: expected the length in four digits, found 'x123'"),
        (b"##0170QN=1", "byte 10: expected 166 more bytes, found the end"),
        (_GOOD.replace(b"##0050", b"##0049"), "byte 2: expected the length 0050, found 0049"),
        (_GOOD.replace(b"##0050", b"##0051"), "byte 2: expected the length 0050, found 0051"),
        (_GOOD[:-4], "byte 56: expected the CRC [0-9A-F]{4}, found '[0-9A-F]{2}'"),
        (_GOOD.replace(b"MN=A", b"MN=B"), "byte 56: expected the CRC"),
        (_frame("a34004-Rtd=1", "ST=22;CN"), "byte 12: expected KEY=value before CP, found 'CN'"),
        (_frame("a34004-Rtd=1", "ST=22;MN=A"), "CN: expected a command, found only ST, MN"),
        (_GOOD.replace(b"CP=&&", b"CP=;;"), "byte 56: expected the CRC"),
        (_frame("DataTime=20261323080000;a34004-Rtd=1"), "DataTime: .*'20261323080000'"),
        (_frame("DataTime=20261123250000;a34004-Rtd=1"), "DataTime: .*'20261123250000'"),
        (_frame("DataTime=now;a34004-Rtd=1"), "DataTime: .*'now'"),
        (b"##0020CN=2011;CP=&&a=1;b=2", "byte 24: expected && at the end of CP|byte 26: expected"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(payload)


def _closed(segment: bytes) -> bytes:
    return b"##%04d%b%04X\r\n" % (len(segment), segment, _crc(segment))


def test_a_segment_without_content_or_in_no_known_script_is_refused_with_the_place() -> None:
    with pytest.raises(PayloadError, match=r"byte 16: expected CP=&&…&&, found 'CN=2011;&&'"):
        _all(_closed(b"CN=2011;&&"))
    with pytest.raises(PayloadError, match="byte 14: expected CP=&&…&&"):
        _all(_closed(b"CN=2011;CP=&&"))
    with pytest.raises(PayloadError, match=r"byte 19: neither UTF-8 nor GBK: '\\xff\\xff&&'"):
        _all(_closed(b"CN=2011;CP=&&\xff\xff&&"))


def test_a_value_that_is_no_number_costs_itself_only() -> None:
    sample = _read(_frame("a34004-Rtd=oops;a34002-Rtd=5;a21026-Rtd=inf;a21004-Rtd;stray"))
    assert sample.values == {"pm10": 5}
    assert sample.problems == (
        "a34004-Rtd: expected a number, not 'oops'",
        "a21004-Rtd: expected a number, not ''",
        "CP: expected key=value, found 'stray'",
        "so2: expected a number, not inf",
    )


def test_a_bad_frame_costs_itself_only() -> None:
    bad = _frame("a34004-Rtd=2").replace(b"Rtd=2", b"Rtd=3")
    sample, other = _all(bad + b"noise" + _GOOD + _GOOD).samples
    assert sample.values == other.values == {"pm25": 1}
    (problem,) = sample.problems
    assert problem.startswith("byte 56: expected the CRC")


@pytest.mark.parametrize(
    "name", ["interval.txt", "real_time.txt", "code_2005.txt", "minute.txt", "hour.txt", "code_2025.txt"]
)
def test_a_frame_cut_anywhere_is_refused(name: str) -> None:
    whole = _vector(name).rstrip()
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=r"^byte "):
            _all(whole[:length])


def test_frames_cut_or_changed_anywhere_are_read_or_refused() -> None:
    whole = _vector("several.txt")
    reader = Hj212(Declared(options={"crc": "ignore", "answer_topic": "x"}))
    for place in range(len(whole)):
        for payload in (
            whole[:place],
            whole[:place] + b"\xff" + whole[place + 1 :],
            whole[:place] + whole[place + 1 :],
        ):
            try:
                reader.decode("hj", payload, 0)
            except PayloadError as error:
                str(error).encode()  # a log can take it


_CONTENT = st.lists(
    st.sampled_from(["a34004-Rtd=", "a34004-Flag=", "DataTime=", "LA-Avg=", "1", "N", "20261123080000", ";", ",", "-"])
    | st.text(max_size=5),
    max_size=12,
).map("".join)


@given(
    st.binary()
    | st.tuples(_CONTENT, st.lists(st.sampled_from(["CN=2011", "CN=2051", "Flag=5", "QN=1", "MN=A", " ", "\t", "x"])))
    .filter(lambda parts: parts[0].isprintable())
    .map(lambda parts: _frame(parts[0], ";".join(parts[1])))
)
def test_nothing_but_a_payload_error_leaves(payload: bytes) -> None:
    try:
        decoded = _all(payload, Declared(options={"answer_topic": "x/{mn}"}))
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        for sample in decoded.samples:
            assert not any(math.isinf(value) for value in sample.values.values())
            assert all(problem.encode() for problem in sample.problems)


def test_a_flood_of_keys_is_forgotten() -> None:
    reader = Hj212(_PLAIN)
    for first in range(0, 20_000, 100):
        reader.decode("hj", _frame(";".join(f"k{first + one}-Rtd=1" for one in range(100))), 0)
    assert len(reader._roles) < 5000
    (sample,) = reader.decode("hj", _frame("a34004-Rtd=1,a34004-Flag=D"), 0).samples
    assert sample.quality == {"pm25": Quality.BAD}


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("hj212")
