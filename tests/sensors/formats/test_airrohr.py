import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.formats import Declared, PayloadError, Sample
from sensors.formats.airrohr import Airrohr
from tests.sensors.formats import documents

_PLAIN = Declared()


def _read(payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = Airrohr(declared).decode("airrohr", payload, 0).samples
    return sample


def test_a_station_with_dust_and_climate_is_read() -> None:
    sample = _read(documents.payload("airrohr/sds011_bme280.json"))
    assert sample.sensor == "13789284"
    assert sample.values == {
        "pm10": 15.23,
        "pm25": 7.4,
        "temperature": 21.87,
        "pressure": 101325.44,
        "humidity": 47.12,
        "rssi": -62,
    }
    assert math.isnan(sample.time)
    assert Airrohr.units == {"pressure": "Pa"}
    assert sample.problems == ()


def test_the_first_of_two_chips_keeps_the_plain_name() -> None:
    sample = _read(documents.payload("airrohr/sps30_noise.json"))
    assert sample.sensor == "4417"
    assert sample.values == {
        "pm1": 3.11,
        "pm10": 4.92,
        "pm25": 4.05,
        "pm4": 4.7,
        "sps30_n05": 21.3,
        "temperature": 19.5,
        "ds18b20_temperature": 18.94,
        "laeq": 52.6,
        "lamax": 71.2,
        "rssi": -71,
    }


def test_a_source_chooses_names_and_how_sensors_are_called() -> None:
    declared = Declared(
        rename={"DS18B20_temperature": "temperature", "temperature": "case"}, options={"prefix": "airrohr-"}
    )
    sample = _read(documents.payload("airrohr/sps30_noise.json"), declared)
    assert sample.sensor == "airrohr-4417"
    assert sample.values["temperature"] == 18.94
    assert sample.values["case"] == 19.5


def test_a_value_that_is_no_number_costs_itself_only() -> None:
    sample = _read(
        b'{"chipid":7,"sensordatavalues":[{"value_type":"SDS_P1","value":"nan"},{"value_type":"SDS_P2","value":"4"}]}'
    )
    assert sample.sensor == "7"
    assert sample.values == {"pm25": 4}
    assert sample.problems == ("sensordatavalues.SDS_P1: expected a number, not 'nan'",)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"esp8266id":"1"}', "sensordatavalues"),
        (b'{"esp8266id":"1","sensordatavalues":[]}', "sensordatavalues: no reading among 0 values"),
        (b'{"esp8266id":"1","sensordatavalues":{}}', r"\$.sensordatavalues"),
        (b'{"esp8266id":"1","sensordatavalues":[{"value":"1"}]}', "value_type"),
        (b'{"esp8266id":[],"sensordatavalues":[]}', r"\$.esp8266id"),
        (b"", "byte 0"),
        (b'{"esp8266id":x}', "byte 13"),
    ],
)
def test_what_is_not_of_airrohr_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _read(payload)


def test_a_payload_cut_anywhere_is_refused() -> None:
    whole = documents.payload("airrohr/sds011_bme280.json")
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _read(whole[:length])


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.binary()
    | st.lists(st.fixed_dictionaries({"value_type": st.text(), "value": _ANY})).map(
        lambda values: json.dumps({"esp8266id": "1", "sensordatavalues": values}).encode()
    )
)
def test_nothing_but_a_payload_error_leaves(payload: bytes) -> None:
    try:
        sample = _read(payload)
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        assert not any(math.isinf(value) for value in sample.values.values())
        assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("airrohr")
