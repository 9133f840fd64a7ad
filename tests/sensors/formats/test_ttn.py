import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sensors.formats import Declared, Decoded, PayloadError, Sample
from sensors.formats.ttn import Ttn
from tests.sensors.formats import documents

_PLAIN = Declared()
_CAYENNE = Declared(options={"codec": "cayenne"})
_TOPIC = "v3/weather@town/devices/roof-1/up"
_MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def _payload(name: str) -> bytes:
    return documents.payload(f"ttn/{name}.json")


def _all(payload: bytes, declared: Declared = _PLAIN) -> Decoded:
    return Ttn(declared).decode(_TOPIC, payload, 0)


def _read(payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = _all(payload, declared).samples
    return sample


def _message(ids: dict[str, str] | None = None, **uplink: object) -> bytes:
    sent = {"received_at": "2026-11-23T00:00:00Z", **uplink}
    return json.dumps({"end_device_ids": {"device_id": "roof-1", **(ids or {})}, "uplink_message": sent}).encode()


def test_the_servers_own_example_is_read() -> None:
    sample = _read(_payload("up"))
    assert sample == Sample(
        datetime(2020, 2, 12, 15, 15, 45, 789586, UTC).timestamp(),
        {"temperature": 1.0, "illuminance": 0.64, "rssi": -35, "snr": 5},
        sensor="dev1",
    )


def test_the_gateway_that_heard_best_counts_and_the_battery_is_what_the_server_knows() -> None:
    sample = _read(_payload("weather"))
    assert sample == Sample(
        _MIDNIGHT + 0.412,
        {
            "temperature": 5.1,
            "humidity": 78.5,
            "pressure": 1015.8,
            "wind_speed": 2.2,
            "wind_direction": 315,
            "rssi": -68,
            "snr": 9.2,
            "battery": 98.425,
        },
        sensor="roof-1",
    )


def test_what_the_servers_own_cayenne_formatter_makes_has_the_names_of_the_format() -> None:
    assert _read(_payload("cayenne_object")).values == {
        "gps_altitude": 10,
        "gps_latitude": 42.3519,
        "gps_longitude": -87.9094,
        "humidity": 65.5,
        "temperature": 27.2,
        "temperature_5": 25.5,
        "rssi": -103,
        "snr": -4.5,
    }


def test_the_devices_bytes_are_read_by_a_declared_codec_and_another_network_may_hide_the_signal() -> None:
    sample = _read(_payload("data"), _CAYENNE)
    assert sample.values == {"temperature": 27.2, "temperature_5": 25.5, "humidity": 65.5}
    assert sample.units == {"temperature": "°C", "temperature_5": "°C", "humidity": "%"}
    (problem,) = _read(_payload("data")).problems
    assert problem.startswith("uplink_message.decoded_payload: the server has no codec for the device")


def test_a_source_says_whose_clock_counts_and_what_names_sensors() -> None:
    declared = Declared(options={"time": "gateway", "sensor": "dev_eui"})
    sample = _read(_payload("weather"), declared)
    assert (sample.sensor, sample.time) == ("70B3D57ED005B89A", _MIDNIGHT + 0.392)
    assert _read(_message(settings={}), declared._replace(options={"time": "gateway"})).time == _MIDNIGHT


def test_without_a_time_of_the_uplink_that_of_the_message_counts() -> None:
    sent = {"end_device_ids": {"device_id": "a"}, "uplink_message": {"rx_metadata": [{"rssi": -1}]}}
    assert math.isnan(_read(json.dumps(sent).encode()).time)
    assert _read(json.dumps(sent | {"received_at": "2026-11-23T00:00:00Z"}).encode()).time == _MIDNIGHT


@pytest.mark.parametrize(
    ("battery", "value"), [({"f_cnt": 3, "value": 50.5}, 50.5), ({"f_cnt": 3}, 0), (12.5, 12.5), (0, 0)]
)
def test_a_battery_may_be_an_object_or_a_number(battery: object, value: float) -> None:
    assert _read(_message(last_battery_percentage=battery)).values == {"battery": value}


def test_what_is_no_uplink_holds_no_readings() -> None:
    assert _all(_payload("join")) == Decoded([])
    assert _all(_payload("simulated")) == Decoded([])
    sent = {"end_device_ids": {"device_id": "a"}, "location_solved": {"location": {"latitude": 1}}}
    assert _all(json.dumps(sent).encode()) == Decoded([])


def test_a_downlink_that_failed_is_a_problem() -> None:
    sample = _read(_payload("failed"))
    assert (sample.sensor, sample.values) == ("dev1", {})
    assert sample.problems == (
        "downlink_failed: application_downlink_too_long: application downlink payload is too long",
    )
    sent = {"end_device_ids": {"device_id": "a"}, "received_at": "2026-11-23T00:00:00Z", "downlink_failed": {}}
    assert _read(json.dumps(sent).encode()) == Sample(
        _MIDNIGHT, problems=("downlink_failed: no reason given",), sensor="a"
    )


def test_lost_uplinks_are_counted_from_the_second_on() -> None:
    reader = Ttn(_CAYENNE)
    lost = [
        reader.decode(_TOPIC, _payload(name), 0).samples[0].values.get("lost_uplinks")
        for name in ("weather", "data", "cayenne_object", "data")
    ]
    assert lost == [None, 1, 0, 1]


def test_one_uplink_of_a_session_has_one_key() -> None:
    first = _message(session_key_id="AWNb", f_cnt=7, frm_payload="AQ==", rx_metadata=[{"rssi": -1}])
    later = _message(session_key_id="AWNb", f_cnt=7, frm_payload="AQ==", received_at="2026-11-23T04:00:00Z")
    assert _all(first).key == _all(later).key == "roof-1 AWNb 7"
    assert _all(_message(session_key_id="AWNb", frm_payload="AQ==")).key == "roof-1 AWNb 0"
    assert _all(_message(session_key_id="AWNc", f_cnt=7)).key != _all(first).key
    assert _all(_message({"dev_eui": "7"}, session_key_id="AWNb", f_cnt=7)).key != _all(first).key


def test_without_a_session_key_the_hour_and_the_bytes_count_too() -> None:
    def key(**change: str) -> str | None:
        return _all(_message({"dev_addr": "260BABCD"}, f_cnt=7, **{"frm_payload": "AQ==", **change})).key

    assert key() == key(received_at="2026-11-23T00:00:09Z")
    assert len({key(), key(received_at="2026-11-23T01:00:00Z"), key(frm_payload="Ag==")}) == 3
    sent = {"end_device_ids": {"device_id": "a"}, "uplink_message": {"f_cnt": 7}}
    assert _all(json.dumps(sent).encode()).key is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "byte 0"),
        (b'{"end_device_ids":{}', "byte 20"),
        (b"7", "expected a message of The Things Stack 3: .*object"),
        (b"{}", r"end_device_ids\.device_id: there is none"),
        (b'{"app_id":"a","dev_id":"b","counter":1}', r"end_device_ids\.device_id: there is none"),
        (b'{"end_device_ids":{"device_id":1}}', r"\$\.end_device_ids\.device_id"),
        (_message(f_cnt=2**32), r"\$\.uplink_message\.f_cnt"),
        (_message(received_at="soon"), r"\$\.uplink_message\.received_at"),
        (_message(decoded_payload="x"), r"\$\.uplink_message\.decoded_payload"),
        (_message(rx_metadata=[{"snr": []}]), r"\$\.uplink_message\.rx_metadata\[0\]\.snr"),
        (_message(last_battery_percentage="x"), r"\$\.uplink_message\.last_battery_percentage"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(payload)


def test_a_name_that_the_source_wants_and_the_message_lacks_is_asked_for() -> None:
    with pytest.raises(PayloadError, match=r"end_device_ids\.dev_eui"):
        _all(_message(), Declared(options={"sensor": "dev_eui"}))


def test_bytes_that_the_codec_cannot_read_are_a_problem() -> None:
    sample = _read(_message(frm_payload="A2"), _CAYENNE)
    assert sample.problems == ("uplink_message.frm_payload: byte 1: expected the type of channel 3, found the end",)


@pytest.mark.parametrize("options", [{"time": "device"}, {"sensor": "name"}, {"port": 1}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Ttn(Declared(options=options))


def test_a_payload_cut_anywhere_is_refused() -> None:
    whole = _payload("weather").rstrip()
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _all(whole[:length])


_ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_UPLINKS = st.fixed_dictionaries(
    {},
    optional={
        "session_key_id": st.text(),
        "f_cnt": st.integers(-1, 2**33),
        "frm_payload": st.text("AQg=-_?") | st.text(),
        "decoded_payload": st.dictionaries(st.text(), _ANY) | _ANY,
        "rx_metadata": st.lists(st.dictionaries(st.sampled_from(["rssi", "snr"]), st.floats() | _ANY)),
        "received_at": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | st.text(),
        "last_battery_percentage": _ANY | st.fixed_dictionaries({"value": st.floats()}),
    },
)


@given(
    st.binary()
    | st.fixed_dictionaries(
        {"end_device_ids": st.fixed_dictionaries({"device_id": st.text(min_size=1)})},
        optional={"uplink_message": _UPLINKS, "downlink_failed": _ANY, "simulated": st.booleans()},
    )
    .map(json.dumps)
    .map(str.encode)
)
def test_nothing_but_a_payload_error_leaves(payload: bytes) -> None:
    for declared in (_PLAIN, _CAYENNE):
        try:
            samples = _all(payload, declared).samples
        except PayloadError as error:
            str(error).encode()  # a log can take it
        else:
            for sample in samples:
                assert not any(math.isinf(value) for value in sample.values.values())
                assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("ttn")
