import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sensors.formats import Declared, PayloadError, Sample
from sensors.formats.tasmota import Tasmota
from tests.sensors.formats import documents

_PLAIN = Declared()


def _all(topic: str, payload: bytes, declared: Declared = _PLAIN) -> list[Sample]:
    return Tasmota(declared).decode(topic, payload, 0).samples


def _read(topic: str, payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = _all(topic, payload, declared)
    return sample


def test_a_chip_is_read_with_the_units_that_the_device_says() -> None:
    sample = _read("tele/greenhouse/SENSOR", documents.payload("tasmota/bme280.json"))
    assert sample.sensor == "greenhouse"
    assert sample.values == {"temperature": 20.5, "humidity": 55.1, "dew_point": 11.2, "pressure": 1009.4}
    assert sample.units == {"temperature": "degC", "dew_point": "degC", "pressure": "hPa"}
    assert sample.problems == ()


def test_a_time_without_a_zone_counts_only_where_the_source_declares_the_offset() -> None:
    payload = documents.payload("tasmota/bme280.json")
    assert math.isnan(_read("tele/a/SENSOR", payload).time)
    sample = _read("tele/a/SENSOR", payload, Declared(options={"utc_offset": 8}))
    assert sample.time == datetime(2023, 5, 20, 17, 6, 38, tzinfo=UTC).timestamp()


def test_a_clock_that_was_never_set_is_not_believed() -> None:
    declared = Declared(options={"utc_offset": 0})
    assert math.isnan(_read("tele/a/SENSOR", b'{"Time":"1970-01-01T00:00:12","A":{"Temperature":1}}', declared).time)


def test_a_time_with_an_offset_counts_always() -> None:
    sample = _read("tele/a/SENSOR", b'{"Time":"2023-05-21T01:06:38+02:00","A":{"Temperature":1}}')
    assert sample.time == datetime(2023, 5, 20, 23, 6, 38, tzinfo=UTC).timestamp()


def test_of_several_chips_the_first_has_the_plain_names() -> None:
    sample = _read("tele/boiler/SENSOR", documents.payload("tasmota/several.json"))
    assert math.isnan(sample.values.pop("ds18b20-2.temperature"))
    assert sample.values == {
        "temperature": 68.9,
        "bmp180.temperature": 69.4,
        "pressure": 757.1,
        "pm25": 8.1,
        "pm10": 14.6,
    }
    assert sample.units == {
        "temperature": "degF",
        "ds18b20-2.temperature": "degF",
        "bmp180.temperature": "degF",
        "pressure": "mmHg",
    }


def test_a_source_says_which_chip_has_the_plain_names() -> None:
    sample = _read(
        "tele/boiler/SENSOR", documents.payload("tasmota/several.json"), Declared(options={"chip": "BMP180"})
    )
    assert sample.values["temperature"] == 69.4
    assert sample.values["ds18b20-1.temperature"] == 68.9
    assert sample.values["sds0x1.pm2.5"] == 8.1


def test_a_source_names_quantities_by_chip_and_key() -> None:
    declared = Declared(rename={"DS18B20-1.Temperature": "inlet", "PM2.5": "dust", "DS18B20-1.Id": "serial"})
    sample = _read("tele/boiler/SENSOR", documents.payload("tasmota/several.json"), declared)
    assert sample.values["inlet"] == 68.9
    assert sample.units["inlet"] == "degF"
    assert sample.values["dust"] == 8.1
    assert sample.problems == ("DS18B20-1.Id: expected a number, not '01131B123456'",)


def test_a_meter_is_read() -> None:
    sample = _read("tele/plug/SENSOR", documents.payload("tasmota/energy.json"))
    assert sample.values == {
        "energy": 118.374,
        "energy_yesterday": 1.204,
        "energy_today": 0.311,
        "energy.period": 5,
        "power": 61,
        "apparent_power": 70,
        "reactive_power": 34,
        "power_factor": 0.87,
        "voltage": 231,
        "current": 0.303,
    }


def test_phases_of_a_meter_are_numbered() -> None:
    sample = _read("tele/plug/SENSOR", b'{"ENERGY":{"Power":[10,20]},"Switch1":"ON"}')
    assert sample.values == {"energy.power.1": 10, "energy.power.2": 20, "switch1": 1}


def test_the_state_says_how_well_the_device_is_heard() -> None:
    sample = _read("tele/plug/STATE", documents.payload("tasmota/state.json"))
    assert sample.sensor == "plug"
    assert sample.values == {"rssi": -63, "linkquality": 74}


def test_a_last_will_says_that_the_device_is_gone() -> None:
    sample = _read("tele/plug/LWT", documents.payload("tasmota/lwt.txt"))
    assert (sample.sensor, sample.gone, sample.values) == ("plug", True, {})


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("tele/a/LWT", b"Online"),
        ("tele/a/INFO1", b"{}"),
        ("tele/a/RESULT", b"x"),
        ("stat/a/STATUS8", b"{}"),
        ("tele/a/STATE", b'{"Uptime":"0T00:00:10"}'),
        ("tele/a/SENSOR", b'{"Time":"2023-05-21T01:06:38"}'),
    ],
)
def test_what_is_no_telemetry_holds_no_readings(topic: str, payload: bytes) -> None:
    assert _all(topic, payload) == []


@pytest.mark.parametrize(
    ("topic", "node"),
    [("tele/a/b/SENSOR", "a/b"), ("plug/tele/SENSOR", "plug"), ("town/tele/plug/SENSOR", "town/plug")],
)
def test_the_prefix_may_stand_anywhere_in_the_topic(topic: str, node: str) -> None:
    assert _read(topic, b'{"A":{"Temperature":1}}').sensor == node


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("plug/SENSOR", b"{}", "options.prefix"),
        ("tele/SENSOR", b"{}", "options.prefix"),
        ("tele/a/SENSOR", b"", "byte 0"),
        ("tele/a/SENSOR", b'"x"', "expected a JSON object"),
        ("tele/a/SENSOR", b'{"Time":"noon"}', "Time: expected a date and time, not 'noon'"),
        ("tele/a/SENSOR", b'{"Time":7}', "Time: .*'7'"),
        ("tele/a/SENSOR", b'{"A":{"Temperature":1},"TempUnit":"X"}', "TempUnit: .*'X'"),
        ("tele/a/SENSOR", b'{"A":{"Pressure":1},"PressureUnit":[]}', "PressureUnit: "),
        ("tele/a/LWT", b"Gone", "LWT: expected 'Online' or 'Offline', not 'Gone'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(topic: str, payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(topic, payload)


def test_a_value_that_is_no_number_costs_itself_only() -> None:
    sample = _read("tele/a/SENSOR", b'{"A":{"Temperature":"hot","Humidity":50,"Mode":"x"}}')
    assert sample.values == {"humidity": 50}
    assert sample.problems == ("A.Temperature: expected a number, not 'hot'",)
    sample = _read("tele/a/STATE", b'{"Wifi":{"Signal":"good","RSSI":70}}')
    assert sample.values == {"linkquality": 70}
    assert sample.problems == ("Wifi.Signal: expected a number, not 'good'",)


def test_an_offset_that_no_place_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="utc_offset"):
        Tasmota(Declared(options={"utc_offset": 15}))


def test_a_payload_cut_anywhere_is_refused() -> None:
    whole = documents.payload("tasmota/several.json")
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _read("tele/a/SENSOR", whole[:length])


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_KEYS = st.sampled_from(["Time", "TempUnit", "PressureUnit", "Wifi", "ENERGY"]) | st.text()


@given(
    st.sampled_from(["tele/a/SENSOR", "tele/a/STATE", "tele/a/LWT"]) | st.text(),
    st.binary()
    | st.dictionaries(_KEYS, _ANY | st.dictionaries(st.sampled_from(["Temperature", "Signal"]), _ANY)).map(
        lambda state: json.dumps(state).encode()
    )
    | st.datetimes(timezones=st.none() | st.timezones()).map(
        lambda time: json.dumps({"Time": time.isoformat(), "A": {"B": 1}}).encode()
    ),
)
def test_nothing_but_a_payload_error_leaves(topic: str, payload: bytes) -> None:
    try:
        samples = _all(topic, payload, Declared(options={"utc_offset": -12}))
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        for sample in samples:
            assert not any(math.isinf(value) for value in sample.values.values())
            assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("tasmota")
