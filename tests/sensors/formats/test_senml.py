import json
import math
from decimal import Decimal
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.edge.units import conversion
from sensors.formats import Declared, Decoded, PayloadError, Sample
from sensors.formats.senml import _UNITS, Senml
from tests.sensors.formats import documents

_PLAIN = Declared()
_NOW = 1_795_392_000  # 2026-11-23T00:00:00Z
_WIRE = "urn:dev:ow:10e2073a01080063"


def _all(pack: object, declared: Declared = _PLAIN, received: int = _NOW * 1000) -> Decoded:
    payload = pack if isinstance(pack, bytes) else json.dumps(pack).encode()
    return Senml(declared).decode("senml", payload, received)


def _read(pack: object, declared: Declared = _PLAIN) -> Sample:
    (sample,) = _all(pack, declared).samples
    return sample


def _vector(name: str) -> bytes:
    return documents.payload(f"senml/{name}")


def test_a_name_without_a_quantity_is_the_sensors_and_the_unit_tells_what_is_measured() -> None:
    sample = _read(_vector("single.json"))
    assert (sample.sensor, sample.values, sample.units) == (_WIRE, {"temperature": 23.1}, {"temperature": "°C"})
    assert math.isnan(sample.time), "it is that of the arrival"


def test_records_of_one_time_are_one_sample() -> None:
    sample = _read(_vector("now.json"))
    assert (sample.sensor, sample.values) == (_WIRE, {"voltage": 120.1, "current": 1.2})
    assert sample.units == {"voltage": "V", "current": "A"}


@pytest.mark.parametrize("name", ["current.json", "current.hex"])
def test_base_fields_hold_for_the_records_that_follow_and_samples_come_in_order_of_time(name: str) -> None:
    decoded = _all(_vector(name))
    first, *others, last = decoded.samples
    assert decoded.key is None
    assert first == Sample(
        1276020076.001 - 5, {"current": 1.2}, sensor="urn:dev:ow:10e2073a0108006", units={"current": "A"}
    )
    assert [sample.values for sample in others] == [{"current": value} for value in (1.3, 1.4, 1.5, 1.6)]
    assert [sample.time for sample in others] == [1276020076.001 - ago for ago in (4, 3, 2, 1)]
    assert (last.time, last.values) == (1276020076.001, {"voltage": 120.1, "current": 1.7})
    assert last.units == {"voltage": "V", "current": "A"}


def test_the_first_of_two_is_the_earlier_one() -> None:
    first, second = _all(_vector("two.json")).samples
    assert first == Sample(
        1276020071.001, {"current": 1.2}, sensor="urn:dev:ow:10e2073a0108006", units={"current": "A"}
    )
    assert second == Sample(
        1276020076.001, {"voltage": 120.1}, sensor="urn:dev:ow:10e2073a0108006", units={"voltage": "V"}
    )


def test_a_mobile_sensor_says_where_it_is() -> None:
    samples = _all(_vector("mobile.json")).samples
    assert {sample.sensor for sample in samples} == {_WIRE}
    assert [(sample.time - 1320067464, sample.values) for sample in samples] == [
        (0, {"humidity": 20, "lon": 24.30621, "lat": 60.07965}),
        (60, {"humidity": 20.3, "lon": 24.30622, "lat": 60.07965}),
        (120, {"humidity": 20.7, "lon": 24.30623, "lat": 60.07966}),
        (150, {"battery": 98}),
        (180, {"humidity": 21.2, "lon": 24.30628, "lat": 60.07967}),
    ]
    assert samples[0].units == {"humidity": "%", "lon": "°", "lat": "°"}


def test_text_and_data_are_no_readings_and_truth_is_a_number() -> None:
    sample = _read(_vector("types.json"))
    assert (sample.values, sample.problems) == ({"temp": 23.1, "open": 0}, ())
    assert _all([{"n": "label", "vs": "Machine Room"}]) == Decoded([])
    named = _read(_vector("types.json"), Declared(rename={"label": "room", "temp": "temperature"}))
    assert named.values == {"temperature": 23.1, "open": 0}
    assert named.problems == ("$[1]: expected a number for room, found text or data",)


def test_a_pack_may_hold_several_devices() -> None:
    first, second = _all(_vector("devices.json")).samples
    assert (first.sensor, first.time, first.values) == (
        "2001:db8::2",
        1320078429,
        {"temperature": 25.2, "humidity": 30},
    )
    assert (second.sensor, second.time, second.values) == (
        "2001:db8::1",
        1320078429,
        {"temperature": 12.3, "humidity": 67},
    )


def test_base_values_are_added_and_sums_are_quantities_of_their_own() -> None:
    first, second = _all(_vector("meter.json")).samples
    assert first == Sample(
        _NOW - 10,
        {"power": 1021.5, "power_sum": 86400, "reserve": 1000, "humidity": 0.42},
        sensor="urn:dev:mac:0024befffe804ff1",
        units={"power": "W", "power_sum": "W*s", "reserve": "W", "humidity": "1"},
    )
    assert (second.time, second.values) == (_NOW - 5, {"power": 1023})


def test_a_base_sum_holds_for_the_records_that_follow() -> None:
    sample = _read([{"bn": "d:", "bs": 100, "bu": "W"}, {"n": "a", "s": 5}, {"n": "b", "v": 1}, {"n": "c"}])
    assert sample.values == {"a_sum": 105, "b": 1, "b_sum": 100, "c_sum": 100}


def test_a_weather_station_is_read() -> None:
    sample = _read(_vector("weather.json"))
    assert (sample.sensor, sample.time) == (_WIRE, _NOW)
    assert sample.values == {
        "temperature": 21.5,
        "humidity": 48,
        "pressure": 101325,
        "wind_speed": 3.1,
        "illuminance": 42000,
    }
    assert sample.units["pressure"] == "Pa"


@pytest.mark.parametrize(
    ("time", "absolute"),
    [
        (2**28, 2**28),
        (2**28 - 1, _NOW + 2**28 - 1),
        (60, _NOW + 60),
        (-0.5, _NOW - 0.5),
        (0, math.nan),
        (1.3e9, 1.3e9),
    ],
)
def test_a_time_before_2_to_the_28_is_relative_to_the_arrival(time: float, absolute: float) -> None:
    assert _read([{"n": "a", "v": 1, "t": time}]).time == pytest.approx(absolute, nan_ok=True)
    assert _read([{"n": "a", "v": 1, "bt": time}]).time == pytest.approx(absolute, nan_ok=True)


def test_what_says_how_long_ago_is_known_again_by_its_arrival_too() -> None:
    ago = [{"n": "a", "v": 1, "t": -5}]
    assert _all(ago).key is not None
    assert _all(ago).key == _all(ago).key
    assert _all(ago).key != _all(ago, received=_NOW * 1000 + 1).key
    assert _all(ago).key != _all([{"n": "b", "v": 1, "t": -5}]).key
    assert _all([{"n": "a", "v": 1}]).key is None, "without a time, it is as any other message that has none"


@pytest.mark.parametrize(
    ("record", "sensor", "quantity"),
    [
        ({"bn": "urn:dev:ow:01_", "n": "wind_speed"}, "urn:dev:ow:01", "wind_speed"),
        ({"n": "urn:dev:ops:32473-mast-7_temp"}, "urn:dev:ops:32473-mast-7", "temp"),
        ({"n": "urn:dev:mac:01:probe/temp"}, "urn:dev:mac:01:probe", "temp"),
        ({"n": "urn:dev:mac:01_probe:temp"}, "urn:dev:mac:01_probe", "temp"),
        ({"bn": "urn:dev:mac:01:", "u": "lx"}, "urn:dev:mac:01", "illuminance"),
        ({"bn": "mast_7", "u": "m/s"}, "mast_7", "value"),
        ({"bn": "site/mast_7/", "n": "wind_speed"}, "site/mast_7", "wind_speed"),
        ({"bn": "site/mast_7/wind_speed"}, "site/mast_7", "wind_speed"),
        ({"bn": "2001:db8::1/", "u": "Pa"}, "2001:db8::1", "pressure"),
        ({"n": "wind_speed"}, None, "wind_speed"),
    ],
)
def test_a_name_parts_into_sensor_and_quantity(record: dict[str, str], sensor: str | None, quantity: str) -> None:
    sample = _read([{**record, "v": 1}])
    assert (sample.sensor, list(sample.values)) == (sensor, [quantity])


def test_a_source_says_what_parts_a_name_and_what_values_are_called() -> None:
    declared = Declared(
        rename={"mast.7_wind": "wind_speed", "gust": "wind_gust", "temperature": "air"}, options={"separators": "_"}
    )
    first, second = _all(
        [{"bn": "mast.7_", "n": "wind", "v": 3}, {"n": "gust", "v": 5}, {"bn": "a/b", "u": "K", "v": 280}], declared
    ).samples
    assert (first.sensor, first.values) == ("mast.7", {"wind_speed": 3, "wind_gust": 5})
    assert (second.sensor, second.values, second.units) == ("a/b", {"air": 280}, {"air": "K"})


def test_a_second_value_for_one_time_is_kept() -> None:
    first, second = _all([{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "a", "v": 3}]).samples
    assert (first.values, second.values) == ({"a": 1, "b": 2}, {"a": 3})


@pytest.mark.parametrize(
    ("unit", "stored", "factor", "offset"),
    [
        ("Cel", "K", 1, 273.15),
        ("K", "°C", 1, -273.15),
        ("Pa", "hPa", 0.01, 0),
        ("%RH", "%", 1, 0),
        ("%", "%", 100, 0),
        ("/", "%", 100, 0),
        ("/100", "%", 1, 0),
        ("ug/m3", "mg/m³", 0.001, 0),
        ("kg/m3", "µg/m³", 1e9, 0),
        ("km/h", "m/s", 1 / 3.6, 0),
        ("l/s", "m³/s", 0.001, 0),
        ("S/m", "µS/cm", 10_000, 0),
        ("rad", "°", 180 / math.pi, 0),
        ("deg", "°", 1, 0),
        ("mm", "m", 0.001, 0),
        ("EL", "h", 1 / 3600, 0),
        ("1/min", "1/h", 60, 0),
        ("pH", "pH", 1, 0),
        ("NTU", "NTU", 1, 0),
    ],
)
def test_units_are_those_that_can_be_converted(unit: str, stored: str, factor: float, offset: float) -> None:
    sample = _read([{"bn": "d:", "n": "a", "u": unit, "v": 1}])
    found = conversion(sample.units["a"], stored)
    assert found.factor == pytest.approx(factor)
    assert found.offset == pytest.approx(offset)


@pytest.mark.parametrize("unit", sorted(set(_UNITS.values())))
def test_every_unit_of_the_registry_is_spelled_so_that_it_can_be_read(unit: str) -> None:
    assert conversion(f"{unit}*s" if unit not in {"1", "°C"} else unit, unit if unit in {"1", "°C"} else f"s*{unit}")


@pytest.mark.parametrize(
    ("pack", "reason"),
    [
        (b"", "expected a pack of SenML: .* at byte 0"),
        (b'[{"n":"a","v":1}', "at byte 16"),
        (b'[{"n":"a","v":1}]x', "trailing characters .byte 18"),
        (b'[{"n":"a","v":\xff}]', "expected a pack of SenML"),
        ([], "expected records, found none"),
        ("pack", "expected an array of records, found str"),
        ([1], r"\$\[0\]: expected a record, found int"),
        ([{"v": 1}], r"\$\[0\].n: expected letters, digits and -:./_ as a name, found ''"),
        ([{"n": "a b", "v": 1}], r"\$\[0\].n: .* found 'a b'"),
        ([{"n": "_a", "v": 1}], r"\$\[0\].n: .* found '_a'"),
        ([{"bn": "ä", "v": 1}], r"\$\[0\].bn: .* found 'ä'"),
        ([{"n": "a"}], r"\$\[0\]: expected one of v, vs, vb, vd and s, found none"),
        ([{"n": "a", "v": 1, "vb": True}], r"\$\[0\]: expected one of v, vs, vb and vd, found more"),
        ([{"n": "a", "v": "1"}], r"\$\[0\]\.v: Expected `float"),
        ([{"n": "a", "v": True}], r"\$\[0\]\.v: Expected `float"),
        ([{"n": 1, "v": 1}], r"\$\[0\]\.n: Expected `str"),
        ([{"n": "a", "v": 1e308, "bv": 1e308}], r"\$\[0\]: expected finite numbers, found v inf and s None"),
        ([{"n": "a", "v": 1, "t": 1e308, "bt": 1e308}], r"\$\[0\].t: expected a time, found inf"),
        ([{"n": "a", "v": 1}, {"bn": 1, "n": "b", "v": 1}], r"\$\[1\]\.bn: Expected `str"),
        ([{"n": "a", "v": 1}, {"bt": "x", "n": "b", "v": 1}], r"\$\[1\]\.bt: Expected `float"),
        ([{"n": "a", "v": 1, "bver": 11}], r"\$\[0\].bver: expected version 10 or older, found 11"),
        ([{"n": "a", "v": 1}, {"n": "a", "v": 1, "kind_": 1}], r"\$\[1\].kind_: must be understood, and is not"),
        (b'[{"n":"a","v":1,"kind\\u005f":1}]', r"\$\[0\].kind_: must be understood"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(pack: object, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(pack)


def test_a_bad_record_costs_itself_only() -> None:
    sample = _read([{"bn": "d:", "n": "a", "v": 1}, {"n": "b", "v": "x"}, {"n": "c d", "v": 1}, 7, {"n": "e", "v": 2}])
    assert sample.values == {"a": 1, "e": 2}
    assert sample.problems == (
        "$[1].v: Expected `float | null`, got `str`",
        "$[3]: expected a record, found int",
        "$[2].n: expected letters, digits and -:./_ as a name, found 'd:c d'",
    )


def test_what_is_not_known_and_may_be_ignored_is() -> None:
    pack = [{"bver": 10, "bn": "d:", "bx": [1], "n": "a_", "v": 1, "ut": 60, "l": "[]", "x": {"y_": 1}}, {"bu": "V"}]
    assert _read(pack).values == {"a_": 1}
    assert _read([{"n": "a", "v": 1, "bver": 5}]).values == {"a": 1}
    assert _read([{"n": "a", "v": 1, "bver": 26, "u": "km/h"}]).units == {"a": "km/h"}
    assert _read({"n": "a", "v": 1}).values == {"a": 1}, "a record without its array"


def _cbor(*records: dict[Any, Any]) -> bytes:
    return cbor2.dumps(records)


def test_cbor_says_the_same_in_numbers() -> None:
    record = {-2: "d:", -3: _NOW, -4: "W", -5: 1, -6: 2, -1: 10, 0: "a", 2: 3.5, 5: 4, 6: -60, 7: 60, 9: "l", 77: 1}
    sample = _read(_cbor(record))
    assert sample == Sample(_NOW - 60, {"a": 4.5, "a_sum": 6}, sensor="d", units={"a": "W", "a_sum": "W*s"})
    assert _read(_cbor({0: "a", 4: True}, {0: "b", 3: "x"}, {0: "c", 8: b"x"})).values == {"a": 1}
    assert _read(cbor2.dumps({0: "a", 2: Decimal("27.35")})).values == {"a": 27.35}
    assert _read(bytes.fromhex("9fbf0061610201ffff")).values == {"a": 1}, "a stream has no length"
    assert math.isnan(_read(_cbor({0: "a", 2: math.nan})).values["a"])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (_cbor({0: "a", 2: 1}) + b"\x00", "byte 7: expected the end of the pack, found 0x00"),
        (_cbor({0: "a", 2: 1})[:-1], "byte 6: expected a pack of SenML in CBOR: .*end"),
        (bytes.fromhex("81a200616100 6162"), "byte 8: .*[Dd]uplicate"),
        (bytes.fromhex("81a10061ff"), "byte 5: .*utf-8"),
        (bytes.fromhex("8181818181818101"), "byte 5: .*depth"),
        (bytes.fromhex("81c1a2006161021a"), "byte 8|byte 2: .*found 1"),
        (_cbor({0: "a", 2: 2**64}), r"byte 17: .*no tag but 4, a decimal fraction, found 2"),
        (_cbor({0: "a", 2: cbor2.CBORTag(4, [1])}), "byte 9: .*exponent and mantissa"),
        (_cbor({0: "a", 2: cbor2.CBORTag(4, [10**6, 1])}), "byte .*exponent and mantissa"),
        (bytes.fromhex("81d81c01"), "byte 4: .*found 28"),
        (_cbor({0: "a", 2: math.inf}), r"\$\[0\]: expected finite numbers"),
        (_cbor({0: "a", 2: 1, -3: -math.inf}), r"\$\[0\].t: expected a time, found -inf"),
        (_cbor({0: "a", 2: 1, 6: math.nan}), r"\$\[0\].t: expected a time, found nan"),
        (_cbor({0: "a", 2: 1, -1: 27}), r"\$\[0\].bver: expected version 10"),
        (_cbor({0: "a", 2: 1, "x_": 27}), r"\$\[0\].x_: must be understood"),
        (_cbor({0: b"a", 2: 1}), r"\$\[0\].n: Expected `str"),
        (_cbor({0: "a", 2: None}), r"\$\[0\]: expected one of v"),
    ],
)
def test_cbor_that_cannot_be_read_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(payload)


@pytest.mark.parametrize("separators", ["", "ab", "::/ "])
def test_separators_that_part_nothing_are_refused(separators: str) -> None:
    with pytest.raises(ValidationError, match="separators"):
        Senml(Declared(options={"separators": separators}))


@pytest.mark.parametrize("name", ["current.hex", "weather.json", "meter.json"])
def test_a_payload_cut_anywhere_is_refused(name: str) -> None:
    whole = _vector(name).rstrip()
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _all(whole[:length])


def test_a_flood_of_names_is_forgotten() -> None:
    reader = Senml(_PLAIN)
    for name in range(10_000):
        reader.decode("senml", _cbor({0: f"n{name}", 2: 1}), 0)
    assert len(reader._names) < 5000
    before = len(reader._names)
    (sample,) = reader.decode("senml", _cbor({0: "n" * 10_000, 2: 1}), 0).samples
    assert (len(sample.values), len(reader._names)) == (1, before), "a long name is not kept"


_ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_NUMBER = st.floats() | st.integers(-10, 10) | st.just(1.8e9) | _ANY
_RECORDS: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("bt", "bv", "bs", "bver", "v", "s", "t"), _NUMBER),
            **dict.fromkeys(("bn", "n", "u", "bu"), st.sampled_from(["a", "b:", "Cel", "%RH", "urn:dev:ow:1"]) | _ANY),
            **dict.fromkeys(("vs", "vb", "vd", "x_"), _ANY),
        },
    )
    | _ANY
)


@given(
    st.binary()
    | _RECORDS.map(json.dumps).map(str.encode)
    | _RECORDS.map(cbor2.dumps)
    | st.lists(st.dictionaries(st.integers(-7, 10), _ANY)).map(cbor2.dumps)
    | st.binary().map(lambda rest: b"\x81" + rest)
)
def test_nothing_but_a_payload_error_leaves(payload: bytes) -> None:
    try:
        samples = _all(payload, Declared(rename={"a": "x"})).samples
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        for sample in samples:
            assert not any(math.isinf(value) for value in sample.values.values())
            assert all(text.encode() for text in (*sample.problems, *sample.units.values()))


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("senml")
