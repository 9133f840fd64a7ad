import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.formats import Declared, PayloadError, Sample
from sensors.formats.zigbee2mqtt import Zigbee2Mqtt
from tests.sensors.formats import documents

_EIGHT_IN_CHINA = datetime(2026, 11, 23, tzinfo=UTC).timestamp()

_PLAIN = Declared()


def _all(topic: str, payload: bytes, declared: Declared = _PLAIN) -> list[Sample]:
    return Zigbee2Mqtt(declared).decode(topic, payload, 0).samples


def _read(topic: str, payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = _all(topic, payload, declared)
    return sample


def test_a_climate_sensor_is_read() -> None:
    sample = _read("zigbee2mqtt/hall", documents.payload("zigbee2mqtt/climate.json"))
    assert sample.sensor == "hall"
    assert sample.values == {"temperature": 27.34, "humidity": 44.72, "battery": 91, "linkquality": 120}
    assert math.isnan(sample.time)


def test_last_seen_is_the_time_and_a_battery_is_in_millivolts() -> None:
    sample = _read("zigbee2mqtt/floor 2/lab/window", documents.payload("zigbee2mqtt/climate_last_seen.json"))
    assert sample.sensor == "floor 2/lab/window"
    assert sample.time == _EIGHT_IN_CHINA
    assert sample.values == {
        "battery": 100,
        "humidity": 51.2,
        "linkquality": 87,
        "pressure": 1013.6,
        "temperature": 18.05,
        "voltage": 3015,
    }
    assert sample.units == {"voltage": "mV"}


def test_a_motion_sensor_says_whether_somebody_is_there() -> None:
    sample = _read("zigbee2mqtt/stairs", documents.payload("zigbee2mqtt/motion.json"))
    assert sample.time == _EIGHT_IN_CHINA * 1000
    assert math.isnan(sample.values.pop("action"))
    assert sample.values == {
        "battery": 74,
        "illuminance_raw": 12041,
        "illuminance": 16,
        "linkquality": 54,
        "occupancy": 1,
    }
    assert sample.problems == ()


def test_a_plug_is_read_with_its_nested_values_and_without_the_names_of_modes() -> None:
    sample = _read("zigbee2mqtt/pump", documents.payload("zigbee2mqtt/plug.json"))
    assert sample.values == {
        "color.x": 0.46,
        "color.y": 0.41,
        "current": 0.31,
        "energy": 12.4,
        "linkquality": 201,
        "power": 66.2,
        "state": 1,
        "voltage": 231,
    }
    assert sample.units == {}


@pytest.mark.parametrize("name", ["availability_1.txt", "availability_2.json"])
def test_a_device_that_is_offline_is_gone(name: str) -> None:
    sample = _read("zigbee2mqtt/a/b/availability", documents.payload(f"zigbee2mqtt/{name}"))
    assert (sample.sensor, sample.gone, sample.values) == ("a/b", True, {})


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("zigbee2mqtt/a/availability", b"online"),
        ("zigbee2mqtt/a/availability", b'{"state":"online"}'),
        ("zigbee2mqtt/a/set", b'{"state":"ON"}'),
        ("zigbee2mqtt/a/set/state", b"ON"),
        ("zigbee2mqtt/a/b/get", b'{"state":""}'),
        ("zigbee2mqtt/bridge/state", b"online"),
        ("zigbee2mqtt/bridge/devices", b"[]"),
    ],
)
def test_what_is_no_state_holds_no_readings(topic: str, payload: bytes) -> None:
    assert _all(topic, payload) == []


def test_a_device_may_be_called_like_a_command() -> None:
    assert _read("zigbee2mqtt/set", b'{"temperature":1}').sensor == "set"


def test_a_source_names_the_base_and_the_quantities() -> None:
    declared = Declared(rename={"color.x": "hue", "action": "pressed"}, options={"base": "town/zigbee"})
    sample = _read("town/zigbee/lamp", b'{"color":{"x":0.5},"action":"single"}', declared)
    assert sample.sensor == "lamp"
    assert sample.values == {"hue": 0.5}
    assert sample.problems == ("action: expected a number, not 'single'",)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("other/hall", b"{}", "options.base"),
        ("zigbee2mqtt/", b"{}", "options.base"),
        ("zigbee2mqtt/hall", b"[1]", "expected a JSON object"),
        ("zigbee2mqtt/hall", b'{"temperature":', "byte 15"),
        ("zigbee2mqtt/hall", b'{"temperature":NaN}', "byte 15"),
        ("zigbee2mqtt/hall", b'{"last_seen":"yesterday"}', "last_seen: .*'yesterday'"),
        ("zigbee2mqtt/hall", b'{"last_seen":"2026-11-23T08:00:00"}', "last_seen: .*offset"),
        ("zigbee2mqtt/hall", b'{"last_seen":true}', "last_seen"),
        ("zigbee2mqtt/hall/availability", b"asleep", "state: expected 'online' or 'offline', not 'asleep'"),
        ("zigbee2mqtt/hall/availability", b"{}", "state: .*'None'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(topic: str, payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(topic, payload)


def test_a_quantity_that_is_no_number_costs_itself_only() -> None:
    sample = _read("zigbee2mqtt/hall", b'{"temperature":{"a":1},"humidity":"dry","pressure":[],"battery":50}')
    assert sample.values == {"battery": 50}
    assert sample.problems == (
        "temperature: expected a number, not an object",
        "humidity: expected a number, not 'dry'",
        "pressure: expected a number, not a list",
    )


def test_a_payload_cut_anywhere_is_refused() -> None:
    whole = documents.payload("zigbee2mqtt/plug.json")
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _read("zigbee2mqtt/pump", whole[:length])


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_KEYS = st.sampled_from(["temperature", "last_seen", "voltage", "update", "state"]) | st.text()


@given(
    st.sampled_from(["zigbee2mqtt/a", "zigbee2mqtt/a/availability", "zigbee2mqtt/a/set"]) | st.text(),
    st.binary() | st.dictionaries(_KEYS, _ANY).map(lambda state: json.dumps(state).encode()),
)
def test_nothing_but_a_payload_error_leaves(topic: str, payload: bytes) -> None:
    try:
        samples = _all(topic, payload)
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        for sample in samples:
            assert not any(math.isinf(value) for value in sample.values.values())
            assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("zigbee2mqtt")
