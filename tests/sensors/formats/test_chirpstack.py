import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sensors.formats import Declared, Decoded, FormatError, PayloadError, Sample
from sensors.formats.chirpstack import Chirpstack
from sensors.formats.lorawan import Counters
from tests.sensors.formats import documents

_PLAIN = Declared()
_CAYENNE = Declared(options={"codec": "cayenne"})
_UP = "application/17c82e96/device/0101010101010101/event/up"
_ROOF = "a84041b931831234"
_MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def _payload(name: str) -> bytes:
    return documents.payload(f"chirpstack/{name}.json")


def _all(payload: bytes, declared: Declared = _PLAIN, topic: str = _UP) -> Decoded:
    return Chirpstack(declared).decode(topic, payload, 0)


def _read(payload: bytes, declared: Declared = _PLAIN, topic: str = _UP) -> Sample:
    (sample,) = _all(payload, declared, topic).samples
    return sample


def _uplink(**fields: object) -> bytes:
    sent: dict[str, object] = {
        "time": "2026-11-23T00:00:00+00:00",
        "deviceInfo": {"devEui": _ROOF},
        "devAddr": "01a2b3c4",
        **fields,
    }
    return json.dumps(sent).encode()


def test_the_servers_own_example_is_read_by_a_codec_and_without_one_says_so() -> None:
    sample = _read(_payload("up"))
    assert sample.sensor == "0101010101010101"
    assert sample.time == datetime(2022, 7, 18, 9, 34, 15, 775023, UTC).timestamp()
    assert sample.values == {"rssi": -36, "snr": 10.5}
    assert sample.problems == (
        "object: the server has no codec for the device: give it one there, or declare options.codec",
    )
    assert _read(_payload("up"), _CAYENNE).problems == (
        "data: byte 1: expected the type of channel 170, found the end",
    )


def test_an_object_is_read_and_the_gateway_that_heard_best_counts() -> None:
    sample = _read(_payload("object"))
    assert (sample.sensor, sample.time) == (_ROOF, _MIDNIGHT + 0.021)
    assert math.isnan(sample.values.pop("uv"))
    assert sample.values == {
        "temperature": 5.0,
        "humidity": 81.5,
        "pressure": 1016.2,
        "wind_speed": 3.4,
        "wind_direction": 270,
        "raining": 0,
        "rssi": -87,
        "snr": 0,  # left out, since it is 0, and better than -7.2
    }
    assert sample.problems == ()


def test_what_the_servers_own_cayenne_codec_makes_has_the_names_of_the_format() -> None:
    sample = _read(_payload("cayenne_object"))
    assert sample.values == {"temperature": 27.2, "temperature_5": 25.5, "humidity": 65.5, "rssi": -113, "snr": -7.2}


def test_the_devices_bytes_are_read_by_a_declared_codec() -> None:
    declared = Declared(
        rename={"humidity_4": "air_humidity"},
        options={"codec": "cayenne", "codec_options": {"channels": {"5": "soil"}}},
    )
    sample = _read(_payload("data"), declared)
    assert (sample.sensor, sample.time) == (_ROOF, _MIDNIGHT + 1800.118)
    assert sample.values == {"temperature": 27.2, "soil": 25.5, "air_humidity": 65.5, "rssi": -87, "snr": 0}
    assert sample.units == {"temperature": "°C", "soil": "°C", "air_humidity": "%", "rssi": "dBm", "snr": "dB"}


def test_a_codec_goes_before_the_servers_object() -> None:
    sample = _read(_uplink(data="A2cBEA==", object={"temperature": 99}), _CAYENNE)
    assert sample.values == {"temperature": 27.2}
    assert _read(_uplink(object={"temperature": 99}), _CAYENNE).values == {"temperature": 99}


def test_a_codec_may_tell_an_earlier_time_and_the_link_keeps_that_of_the_uplink() -> None:
    measured, link = _all(_uplink(data="AIVrA4IAAGcBEA==", rxInfo=[{"rssi": -90}]), _CAYENNE).samples
    assert measured == Sample(_MIDNIGHT, {"temperature": 27.2}, sensor=_ROOF, units={"temperature": "°C"})
    assert link == Sample(_MIDNIGHT, {"rssi": -90, "snr": 0}, sensor=_ROOF, units={"rssi": "dBm", "snr": "dB"})


def test_any_format_may_be_the_codec_and_its_units_hold() -> None:
    reader = Chirpstack(Declared(options={"codec": "airrohr"}))
    assert reader.units == {"pressure": "Pa"}
    assert Chirpstack(_PLAIN).units == {}
    data = base64.b64encode(documents.payload("airrohr/sds011_bme280.json")).decode()
    board, link = reader.decode(_UP, _uplink(data=data, rxInfo=[{"rssi": -90}]), 0).samples
    assert (board.sensor, board.time, board.values["pressure"]) == ("13789284", _MIDNIGHT, 101325.44)
    assert (link.sensor, link.values) == (_ROOF, {"rssi": -90, "snr": 0})


def test_what_a_codec_says_of_how_long_ago_is_counted_from_the_uplink() -> None:
    pack = base64.b64encode(b'[{"n":"temperature","u":"Cel","v":5,"t":-60}]').decode()
    first, _ = _all(_uplink(data=pack, rxInfo=[{"rssi": -90}]), Declared(options={"codec": "senml"})).samples
    assert (first.sensor, first.time, first.values) == (_ROOF, _MIDNIGHT - 60, {"temperature": 5})


def test_a_state_says_battery_and_margin() -> None:
    decoded = _all(_payload("status"), topic=_UP.replace("/up", "/status"))
    assert decoded.key == "bf2a9746-1c8b-49be-a92e-f0b89c8534e4"
    assert decoded.samples == [
        Sample(
            datetime(2022, 7, 18, 9, 35, 6, 927173, UTC).timestamp(),
            {"margin": 10, "battery": 88.3},
            sensor="0101010101010101",
        )
    ]


@pytest.mark.parametrize(
    ("fields", "battery"),
    [({}, 0.0), ({"externalPowerSource": True}, None), ({"batteryLevelUnavailable": True}, math.nan)],
)
def test_a_battery_may_be_empty_or_absent_or_not_known(fields: dict[str, bool], battery: float | None) -> None:
    values = _read(_uplink(margin=-3, **fields), topic="a/event/status").values
    assert values["margin"] == -3
    assert values.get("battery") == pytest.approx(battery, nan_ok=True)


def test_an_error_that_the_server_logs_is_a_problem() -> None:
    sample = _read(_payload("log"), topic="a/event/log")
    assert (sample.sensor, sample.values) == ("0101010101010101", {})
    assert sample.problems == ("UPLINK_MIC: MIC of join-request is invalid, make sure keys are correct",)
    assert _all(_uplink(level="WARNING", description="x"), topic="a/event/log") == Decoded([])


@pytest.mark.parametrize("event", ["join", "ack", "txack", "location", "integration"])
def test_other_events_hold_no_readings(event: str) -> None:
    assert _all(_payload("join"), topic=f"a/event/{event}") == Decoded([])
    assert _all(_uplink(integrationName="loracloud", object={"a": 1}), topic=f"a/event/{event}") == Decoded([])


@pytest.mark.parametrize("name", ["up", "object", "cayenne_object", "data", "status", "join", "log"])
def test_an_event_is_known_by_what_it_holds_where_the_topic_does_not_say(name: str) -> None:
    usual = {"status": "status", "join": "join", "log": "log"}.get(name, "up")
    assert _all(_payload(name), topic="site/lora") == _all(_payload(name), topic=f"a/event/{usual}")
    assert _all(_uplink(integrationName="loracloud", object={"a": 1}), topic="site/lora") == Decoded([])


def test_lost_uplinks_are_counted_from_the_second_on() -> None:
    reader = Chirpstack(_PLAIN)
    lost = [
        reader.decode(_UP, _payload(name), 0).samples[0].values.get("lost_uplinks")
        for name in ("object", "cayenne_object", "data", "cayenne_object", "data")
    ]
    assert lost == [None, 2, 0, 2, 0], "a message that is read again says the same"


def test_a_counter_that_starts_anew_loses_nothing() -> None:
    reader = Chirpstack(_PLAIN)
    sent = [
        (1204, "01a2b3c4"),
        (0, "01a2b3c4"),  # left out, since it is 0
        (2, "01a2b3c4"),
        (7, "02a2b3c4"),  # another session
        (9, "02a2b3c4"),
        (4, "01a2b3c4"),
    ]
    lost = [
        reader.decode(_UP, _uplink(devAddr=address, rxInfo=[{}], **({"fCnt": counter} if counter else {})), 0).samples
        for counter, address in sent
    ]
    assert [samples[0].values.get("lost_uplinks") for samples in lost] == [None, None, 1, None, 1, 1]


def test_what_is_remembered_of_counters_is_bounded() -> None:
    counters = Counters()
    for device in range(Counters.MOST_DEVICES + 1):
        counters.lost((str(device), ""), 0)
    for counter in range(3, 1000, 3):
        assert counters.lost(("9", ""), counter) == 2
    assert len(counters._devices) == Counters.MOST_DEVICES
    assert len(counters._devices["9", ""]) == Counters.MOST_COUNTERS
    assert counters.lost(("0", ""), 5) is None, "it was heard longest ago"
    assert counters.lost(("2", ""), 5) == 4


def test_what_is_remembered_of_names_is_bounded() -> None:
    reader = Chirpstack(_PLAIN)
    for number in range(10_000):
        reader.decode(_UP, _uplink(object={f"n{number}": 1, f"{'n' * 300}{number}": 2}), 0)
    assert 0 < len(reader._names) <= 4096
    assert max(map(len, reader._names)) < 300


def test_one_uplink_has_one_key_whoever_heard_it() -> None:
    first = json.loads(_payload("object"))
    again = first | {"deduplicationId": "another", "rxInfo": first["rxInfo"][:1], "time": "2026-11-23T00:00:07.5+00:00"}
    assert _all(json.dumps(first).encode()).key == _all(json.dumps(again).encode()).key


@pytest.mark.parametrize(
    "change",
    [
        {"fCnt": 1205},
        {"devAddr": "01a2b3c5"},
        {"deviceInfo": {"devEui": "a84041b931831235"}},
        {"data": "AfQBLAE="},
        {"time": "2026-11-23T01:00:00+00:00"},  # a device without join that began anew
    ],
)
def test_another_uplink_has_another_key(change: dict[str, object]) -> None:
    first = json.loads(_payload("object"))
    assert _all(json.dumps(first).encode()).key != _all(json.dumps(first | change).encode()).key


def test_a_source_says_what_names_sensors_and_values() -> None:
    declared = Declared(rename={"wind.speed": "gust", "mode": "state"}, options={"sensor": "device_name"})
    sample = _read(_payload("object"), declared)
    assert (sample.sensor, sample.values["gust"]) == ("Roof 1", 3.4)
    assert sample.problems == ("object.mode: expected a number, not 'normal'",)


def test_lists_are_numbered_and_numbers_may_be_text() -> None:
    sent = {"Power": [1, 2.5], "msgs": [{"v": "3"}], "Bat": "3.3 V", "open": True, "temp": 4, "Temperature": 5}
    assert _read(_uplink(object=sent)).values == {
        "power_1": 1,
        "power_2": 2.5,
        "msgs_1_v": 3,
        "open": 1,
        "temperature": 4,
        "Temperature": 5,
    }


def test_what_is_nested_too_deep_is_a_problem() -> None:
    deep: dict[str, Any] = {"v": 1}
    for _ in range(20):
        deep = {"a": deep}
    sample = _read(_uplink(object={"b": 1} | deep))
    assert sample.values == {"b": 1}
    assert sample.problems == ("object.a.a.a.a.a.a.a.a.a: nested more than 8 deep",)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "byte 0"),
        (b'{"deviceInfo":', "byte 14"),
        (b"[]", "expected an event of ChirpStack 4: .*object"),
        (b"{}", "deviceInfo.devEui: there is none"),
        (b'{"applicationID":"1","devEUI":"AgICAgICAgI="}', "deviceInfo.devEui: there is none"),
        (b'{"deviceInfo":{"devEui":7}}', r"\$\.deviceInfo\.devEui"),
        (b'{"deviceInfo":{"devEui":"%b"}}' % (b"a" * 101), r"\$\.deviceInfo\.devEui"),
        (_uplink(time="noon"), r"\$\.time"),
        (_uplink(time="2026-11-23T00:00:00"), r"\$\.time"),
        (_uplink(fCnt=-1), r"\$\.fCnt"),
        (_uplink(fCnt="x"), r"\$\.fCnt"),
        (_uplink(object=[1]), r"\$\.object"),
        (_uplink(rxInfo=[{"rssi": "strong"}]), r"\$\.rxInfo\[0\]\.rssi"),
        (b'{"deviceInfo":{"devEui":"1"},"object":{"v":1e999}}', "byte|range"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _all(payload)


def test_a_name_that_the_source_wants_and_the_event_lacks_is_asked_for() -> None:
    with pytest.raises(PayloadError, match=r"deviceInfo\.deviceName"):
        _all(_uplink(), Declared(options={"sensor": "device_name"}))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("A2cB?", "data: character 4: expected base64, found '?'"),
        ("A2cB", "data: byte 3: expected 1 more bytes of temperature_3, found the end"),
    ],
)
def test_bytes_that_the_codec_cannot_read_are_a_problem(data: str, problem: str) -> None:
    sample = _read(_uplink(data=data, rxInfo=[{"rssi": -90, "snr": 1}]), _CAYENNE)
    assert (sample.values, sample.problems) == ({"rssi": -90, "snr": 1}, (problem,))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"codec": "cayenn"}, "codec: unknown format 'cayenn'"),
        ({"codec": "cayenne", "codec_options": {"channel": 1}}, "codec: format 'cayenne': option channel: there is"),
        ({"codec": "ttn"}, "codec: 'ttn' reads what a server sends, not a device's own bytes"),
    ],
)
def test_a_codec_that_cannot_be_used_as_declared_is_refused(options: dict[str, object], error: str) -> None:
    with pytest.raises(FormatError, match=error):
        Chirpstack(Declared(options=options))


def test_an_option_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="sensor"):
        Chirpstack(Declared(options={"sensor": "id"}))


def test_a_payload_cut_anywhere_is_refused() -> None:
    whole = _payload("object").rstrip()
    for length in range(len(whole)):
        with pytest.raises(PayloadError, match=f"byte {length}"):
            _all(whole[:length])


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
_FIELDS = st.fixed_dictionaries(
    {"deviceInfo": st.fixed_dictionaries({"devEui": st.text(min_size=1)})},
    optional={
        "time": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | st.text(),
        "fCnt": st.integers(-1, 2**33),
        "data": st.text("AQg=-_?") | st.text(),
        "object": st.dictionaries(st.text(), _ANY) | _ANY,
        "rxInfo": st.lists(st.dictionaries(st.sampled_from(["rssi", "snr"]), st.floats() | _ANY)),
        "margin": _ANY,
        "batteryLevel": st.floats(),
        "level": st.sampled_from(["ERROR", "x"]),
        "description": st.text(),
    },
)


@given(
    st.sampled_from([_UP, "a/event/status", "a/event/log", "x"]), st.binary() | _FIELDS.map(json.dumps).map(str.encode)
)
def test_nothing_but_a_payload_error_leaves(topic: str, payload: bytes) -> None:
    for declared in (_PLAIN, _CAYENNE):
        try:
            samples = _all(payload, declared, topic).samples
        except PayloadError as error:
            str(error).encode()  # a log can take it
        else:
            for sample in samples:
                assert not any(math.isinf(value) for value in sample.values.values())
                assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("chirpstack")
