import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.edge.units import conversion
from sensors.formats import Declared, PayloadError, Sample
from sensors.formats.cayenne import Cayenne
from tests.sensors.formats import documents

_PLAIN = Declared()
_EIGHT_IN_CHINA = 1_795_392_000


def _read(payload: bytes, declared: Declared = _PLAIN) -> Sample:
    (sample,) = Cayenne(declared).decode("lpp", payload, 0).samples
    return sample


def _vector(name: str) -> bytes:
    return documents.payload(f"cayenne/{name}.hex")


def test_the_first_channel_of_a_type_has_the_plain_name() -> None:
    sample = _read(_vector("two_temperatures"))
    assert sample.values == {"temperature": 27.2, "temperature_5": 25.5}
    assert sample.units == {"temperature": "°C", "temperature_5": "°C"}
    assert (sample.sensor, sample.problems) == (None, ())
    assert math.isnan(sample.time)


def test_an_acceleration_has_three_axes() -> None:
    sample = _read(_vector("temperature_acceleration"))
    assert sample.values == {
        "temperature": -4.1,
        "accelerometer_x": 1.234,
        "accelerometer_y": -1.234,
        "accelerometer_z": 0,
    }
    assert sample.units["accelerometer_x"] == "standard_gravity"


def test_a_position_is_read() -> None:
    sample = _read(_vector("gps"))
    assert sample.values == {"gps_latitude": 42.3519, "gps_longitude": -87.9094, "gps_altitude": 10}
    assert sample.units == {"gps_latitude": "°", "gps_longitude": "°", "gps_altitude": "m"}


def test_a_weather_station_tells_its_own_time() -> None:
    sample = _read(_vector("weather"))
    assert sample.time == _EIGHT_IN_CHINA
    assert sample.values == {
        "temperature": -5.2,
        "humidity": 65.5,
        "pressure": 1013.2,
        "temperature_2": 3.8,
        "illuminance": 42000,
        "voltage": 3.62,
    }
    assert sample.units["pressure"] == "hPa"


def test_a_clock_that_was_never_set_is_not_believed() -> None:
    assert math.isnan(_read(bytes.fromhex("00850000003c 01670001")).time)


def test_the_other_types_are_read() -> None:
    assert _read(_vector("extended")).values == {
        "digital_in": 1,
        "digital_out": 0,
        "analog_in": -327.67,
        "analog_out": 12.5,
        "generic": 4294967295,
        "presence": 1,
        "current": 1.5,
        "frequency": 50,
        "percentage": 87,
        "altitude": -12,
        "concentration": 415,
        "power": 2300,
        "distance": 1.234,
        "energy": 5678.901,
        "direction": 270,
        "gyrometer_x": 1.23,
        "gyrometer_y": -4.56,
        "gyrometer_z": 0,
        "colour_red": 255,
        "colour_green": 128,
        "colour_blue": 0,
        "switch": 1,
    }


@pytest.mark.parametrize(
    ("name", "quantity", "stored", "factor"),
    [
        ("weather", "temperature", "K", 1),
        ("weather", "pressure", "Pa", 100),
        ("weather", "illuminance", "klx", 0.001),
        ("gps", "gps_latitude", "rad", math.pi / 180),
        ("temperature_acceleration", "accelerometer_y", "m/s²", 9.80665),
        ("extended", "gyrometer_y", "rad/s", math.pi / 180),
        ("extended", "concentration", "%", 1e-4),
        ("extended", "energy", "J", 3.6e6),
    ],
)
def test_units_are_those_that_can_be_converted(name: str, quantity: str, stored: str, factor: float) -> None:
    assert conversion(_read(_vector(name)).units[quantity], stored).factor == pytest.approx(factor, rel=1e-4)


def test_a_source_says_what_a_channel_measures() -> None:
    declared = Declared(
        rename={"humidity_1": "air_humidity"}, options={"channels": {"1": "air", "2": "soil_temperature", "8": "vcc"}}
    )
    assert _read(_vector("weather"), declared).values == {
        "air": -5.2,
        "air_humidity": 65.5,
        "pressure_1": 1013.2,  # the channel measures more than one thing, and the first has its name
        "soil_temperature": 3.8,
        "illuminance": 42000,
        "vcc": 3.62,
    }
    renamed = _read(_vector("gps"), Declared(options={"channels": {"1": "truck"}}))
    assert list(renamed.values) == ["truck_latitude", "truck_longitude", "truck_altitude"]
    clock = _read(bytes.fromhex("0085000000ff"), Declared(rename={"time_0": "uptime"}))
    assert clock.values == {"uptime": 255}


@pytest.mark.parametrize(
    ("encoding", "payload"),
    [("hex", b"03670110056700FF\n"), ("base64", b"A2cBEAVnAP8="), ("base64", b" A2cBEAVnAP8")],
)
def test_bytes_may_be_written_as_text(encoding: str, payload: bytes) -> None:
    sample = _read(payload, Declared(options={"encoding": encoding}))
    assert sample.values == {"temperature": 27.2, "temperature_5": 25.5}


@pytest.mark.parametrize(
    ("encoding", "payload", "reason"),
    [
        ("hex", b"0367x1", "character 4: expected hex, found 'x'"),
        ("hex", b"03670", "character 5: expected more hex, found the end"),
        ("base64", b"A2c\xff", "character 3: expected base64, found 'ÿ'"),
        ("base64", b"A2cBE", "character 5: expected more base64, found the end"),
    ],
)
def test_text_that_is_none_is_refused_with_the_place(encoding: str, payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _read(payload, Declared(options={"encoding": encoding}))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("", "byte 0: expected a value, found the end"),
        ("03", "byte 1: expected the type of channel 3, found the end"),
        ("0367", "byte 2: expected 2 more bytes of temperature_3, found the end"),
        ("036701", "byte 3: expected 1 more bytes of temperature_3, found the end"),
        ("03c80110", "byte 1: expected a type of Cayenne LPP, found 200; what follows has no known length"),
        ("03f00110", "byte 1: .* found 240"),
        ("0088067654f2960a00", "byte 9: expected 2 more bytes of gps_0_latitude"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_byte(payload: str, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        _read(bytes.fromhex(payload))


def test_what_came_before_a_fault_is_kept() -> None:
    sample = _read(bytes.fromhex("03670110 056700"))
    assert (sample.values, sample.problems) == (
        {"temperature": 27.2},
        ("byte 7: expected 1 more bytes of temperature_5, found the end",),
    )
    sample = _read(bytes.fromhex("03670110 05ff0000"))
    assert sample.problems == ("byte 5: expected a type of Cayenne LPP, found 255; what follows has no known length",)


def test_a_channel_that_has_two_values_of_a_type_keeps_both_once() -> None:
    sample = _read(bytes.fromhex("03670110 03670111 03670112"))
    assert sample.values == {"temperature": 27.2, "temperature_3": 27.3}
    assert sample.problems == ("byte 8: temperature_3 has a value already",)


@pytest.mark.parametrize("options", [{"channels": {"256": "x"}}, {"channels": {"a": "x"}}, {"encoding": "octal"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Cayenne(Declared(options=options))


def test_a_payload_cut_anywhere_is_read_up_to_there_or_refused() -> None:
    whole = _vector("extended")
    complete = _read(whole).values
    for length in range(len(whole)):
        values: dict[str, float] = {}
        problems: tuple[str, ...] = ()
        try:
            sample = _read(whole[:length])
            values, problems = sample.values, sample.problems
        except PayloadError as error:
            problems = (str(error),)
        assert values.items() <= complete.items()
        assert all(problem.startswith(f"byte {length}: ") for problem in problems)
        assert values or problems


@given(st.binary(), st.sampled_from(["binary", "hex", "base64"]))
def test_nothing_but_a_payload_error_leaves(payload: bytes, encoding: str) -> None:
    try:
        sample = _read(payload, Declared(options={"encoding": encoding}))
    except PayloadError as error:
        str(error).encode()  # a log can take it
    else:
        assert all(map(math.isfinite, sample.values.values()))
        assert all(problem.encode() for problem in sample.problems)


def test_the_document_shows_these_payloads_and_the_options() -> None:
    documents.verify("cayenne")
