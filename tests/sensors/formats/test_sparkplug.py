import math
import os
import struct
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sensors.formats import Answer, Declared, Decoded, PayloadError, Quality, Sample
from sensors.formats import sparkplug as module
from sensors.formats.sparkplug import Sparkplug
from tests.sensors.formats import documents

_ROOT = Path(__file__).parents[3]
_PLAIN = Declared()
_EIGHT = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1000)
_NODE, _DEVICE = "spBv1.0/town/{}/edge1", "spBv1.0/town/{}/edge1/station7"
_INT8, _INT16, _INT32, _INT64, _UINT32, _UINT64, _FLOAT, _DOUBLE, _BOOLEAN, _TEXT = 1, 2, 3, 4, 7, 8, 9, 10, 11, 12


def _vector(name: str) -> bytes:
    """A payload that the encoder of ``pysparkplug`` made."""
    return documents.payload(f"sparkplug/{name}.hex")


# An encoder of our own, as the encoding of protobuf is documented, for what no library writes.
def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    head = b""
    while value > 0x7F:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def _field(number: int, value: float | bytes, wire: int = 0) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if isinstance(value, int):
        return _varint(number << 3 | wire) + _varint(value)
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _metric(name: str | None = None, value: bytes = b"", alias: int | None = None, **more: int) -> bytes:
    numbers = {"timestamp": 3, "datatype": 4, "historical": 5, "null": 7}
    head = _field(1, name.encode()) if name is not None else b""
    if alias is not None:
        head += _field(2, alias)
    return head + b"".join(_field(numbers[key], number) for key, number in more.items()) + value


def _payload(*metrics: bytes, timestamp: int = _EIGHT, seq: int | None = None) -> bytes:
    return (
        _field(1, timestamp)
        + b"".join(_field(2, metric) for metric in metrics)
        + (b"" if seq is None else _field(3, seq))
    )


def _properties(**values: int | str) -> bytes:
    keys = b"".join(_field(1, key.encode()) for key in values)
    entries = b"".join(
        _field(
            2, _field(1, 12) + _field(8, value.encode()) if isinstance(value, str) else _field(1, 3) + _field(3, value)
        )
        for value in values.values()
    )
    return _field(9, keys + entries)


_T = _metric("T", _field(13, 1.5), 1, datatype=_DOUBLE)


class _Host:
    """A format that reads the messages of one broker, with the time at which they arrive."""

    def __init__(self, declared: Declared = _PLAIN) -> None:
        self.format = Sparkplug(declared)
        self.now = _EIGHT

    def send(self, what: str, payload: bytes, edge: str = "edge1", device: str = "station7") -> Decoded:
        place = f"{edge}/{device}" if what.startswith("D") else edge
        return self.format.decode(f"spBv1.0/town/{what}/{place}", payload, self.now)

    def samples(self, what: str, payload: bytes) -> list[Sample]:
        return self.send(what, payload).samples

    def session(self) -> "_Host":
        self.send("NBIRTH", _vector("nbirth"))
        self.send("DBIRTH", _vector("dbirth"))
        return self


def _born(*metrics: bytes, declared: Declared = _PLAIN) -> tuple[_Host, Sample]:
    host = _Host(declared)
    (sample,) = host.samples("NBIRTH", _payload(*metrics, seq=0))
    return host, sample


def test_the_birth_of_a_node_gives_its_own_readings() -> None:
    assert _Host().samples("NBIRTH", _vector("nbirth")) == [
        Sample(_EIGHT, {"temperature": -4.0, "battery": 87.0}, sensor="edge1")
    ]


def test_the_birth_of_a_device_gives_its_readings_with_their_units() -> None:
    host = _Host()
    host.send("NBIRTH", _vector("nbirth"))
    (sample,) = host.samples("DBIRTH", _vector("dbirth"))
    assert sample == Sample(
        _EIGHT + 10,
        {"pm25": 12.3, "temperature": 50.9, "humidity": 61.5, "speed": 3.25, "offset": -3.0, "door": 1.0},
        sensor="station7",
        units={"pm25": "ug/m3", "temperature": "°F"},
    )


def test_data_is_read_by_the_aliases_of_the_birth() -> None:
    (sample,) = _Host().session().samples("DDATA", _vector("ddata"))
    assert math.isnan(sample.values.pop("humidity"))
    assert sample == Sample(
        _EIGHT + 60_000,
        {"pm25": 14.1, "temperature": 51.8, "speed": 3.5, "offset": -128.0},
        sensor="station7",
        units={"pm25": "ug/m3", "temperature": "°F"},
        quality={"temperature": Quality.SUSPECT, "offset": Quality.BAD},
    )


def test_several_times_are_several_samples_and_what_was_stored_is_historical() -> None:
    host = _Host().session()
    host.send("DDATA", _vector("ddata"))
    decoded = host.send("DDATA", _vector("ddata_stored"))
    assert decoded.answers == ()
    assert [(sample.time - _EIGHT, sample.values, sample.historical) for sample in decoded.samples] == [
        (120_000, {"pm25": 15.0, "temperature": 52.7}, True),
        (150_000, {"pm25": 16.2}, True),
        (180_000, {"pm25": 17.4}, False),
    ]


def test_a_node_has_aliases_of_its_own() -> None:
    (sample,) = _Host().session().samples("NDATA", _vector("ndata"))
    assert sample == Sample(_EIGHT + 240_000, {"temperature": -5.0, "battery": 86.0}, sensor="edge1")


def test_a_device_that_dies_is_gone() -> None:
    host = _Host().session()
    assert host.samples("DDEATH", _vector("ddeath")) == [Sample(_EIGHT + 300_000, sensor="station7", gone=True)]
    assert host.samples("NDEATH", _vector("ndeath")) == [Sample(sensor="edge1", gone=True)]


def test_a_node_that_dies_takes_its_devices_with_it() -> None:
    host = _Host().session()
    host.send("DBIRTH", _payload(_T, seq=2), device="other")
    host.send("DBIRTH", _vector("dbirth"), edge="edge2", device="far")
    gone = host.samples("NDEATH", _vector("ndeath"))
    assert [(sample.sensor, sample.gone, math.isnan(sample.time)) for sample in gone] == [
        ("edge1", True, True),
        ("station7", True, True),
        ("other", True, True),
    ]


def test_the_late_death_of_an_earlier_session_ends_nothing() -> None:
    host = _Host().session()
    assert host.send("NDEATH", _vector("ndeath_earlier")) == Decoded([])
    assert host.send("DDATA", _vector("ddata")).answers == ()
    assert len(host.samples("NDEATH", _vector("ndeath"))) == 2


def test_a_death_is_believed_where_no_birth_tells_the_session() -> None:
    assert _Host().samples("NDEATH", _vector("ndeath")) == [Sample(sensor="edge1", gone=True)]
    host = _Host()
    host.send("NBIRTH", _payload(_T, seq=0))
    assert [sample.gone for sample in host.samples("NDEATH", _vector("ndeath_earlier"))] == [True]


@pytest.mark.parametrize(
    "topic", ["spBv1.0/STATE/scada", "spBv1.0/town/NCMD/edge1", "spBv1.0/town/DCMD/edge1/station7"]
)
def test_states_of_hosts_and_commands_are_of_no_interest(topic: str) -> None:
    for payload in (b'{"online":true,"timestamp":1}', _vector("rebirth")):
        assert Sparkplug(_PLAIN).decode(topic, payload, 0) == Decoded([])


@pytest.mark.parametrize(
    ("datatype", "value", "number"),
    [
        (_INT8, _field(10, 0xFF), -1),
        (_INT8, _field(10, 0xFFFFFFFF), -1),  # extended to 32 bits, as in Java
        (_INT8, _field(10, 0x7F), 127),
        (_INT16, _field(10, 0x8000), -32768),
        (_INT16, _field(11, -2), -2),
        (_INT32, _field(10, 0xFFFFFFFE), -2),
        (_INT32, _field(10, 0x7FFFFFFF), 2147483647),
        (_INT64, _field(11, -3), -3),
        (_UINT32, _field(10, 0xFFFFFFFE), 4294967294),
        (_UINT64, _field(11, 2**63), 2.0**63),
        (_FLOAT, _varint(12 << 3 | 5) + struct.pack("<f", 12.3), 12.3),
        (_FLOAT, _varint(12 << 3 | 5) + struct.pack("<f", 1013.25), 1013.25),
        (_DOUBLE, _field(13, 0.1), 0.1),
        (_BOOLEAN, _field(14, 1), 1),
        (_BOOLEAN, _field(14, 0), 0),
    ],
)
def test_each_type_of_number_is_read(datatype: int, value: bytes, number: float) -> None:
    host, sample = _born(_metric("x", value, 5, datatype=datatype))
    assert sample.values == {"x": number}
    (later,) = host.samples("NDATA", _payload(_metric(value=value, alias=5), seq=1))  # data may leave the type out
    assert later.values == {"x": number}


@pytest.mark.parametrize(
    ("code", "quality"),
    [
        (192, None),
        (216, None),  # OPC: good, local override
        (0, Quality.BAD),
        (24, Quality.BAD),
        (500, Quality.SUSPECT),
        (64, Quality.SUSPECT),  # OPC: uncertain
        (0x80000200, Quality.BAD),  # 32 bits, as Ignition has them
        (0x40000100, Quality.SUSPECT),
    ],
)
def test_the_quality_of_a_metric_is_read(code: int, quality: Quality | None) -> None:
    _, sample = _born(_metric("x", _field(13, 1.0) + _properties(Quality=code), 5, datatype=_DOUBLE))
    assert sample.quality.get("x") is quality


def test_a_quality_holds_for_its_value_and_a_unit_until_another_one_is_told() -> None:
    host, _ = _born(_metric("x", _field(13, 1.0) + _properties(engUnit="kPa"), 5, datatype=_DOUBLE))
    (bad,) = host.samples("NDATA", _payload(_metric(None, _field(13, 1.0) + _properties(Quality=0), 5), seq=1))
    (good,) = host.samples("NDATA", _payload(_metric(None, _field(13, 2.0), 5), seq=2))
    assert (bad.quality, bad.units) == ({"x": Quality.BAD}, {"x": "kPa"})
    assert (good.quality, good.units) == ({}, {"x": "kPa"})
    (other,) = host.samples("NDATA", _payload(_metric(None, _field(13, 2.0) + _properties(engUnit="hPa"), 5), seq=3))
    assert other.units == {"x": "hPa"}


@pytest.mark.parametrize("unit", ["", " ", "x" * 41])
def test_what_cannot_be_a_unit_is_none(unit: str) -> None:
    _, sample = _born(_metric("x", _field(13, 1.0) + _properties(engUnit=unit), 5, datatype=_DOUBLE))
    assert sample.units == {}


def test_a_source_may_leave_the_units_of_the_birth_out() -> None:
    declared = Declared(options={"eng_unit": False})
    _, sample = _born(
        _metric("x", _field(13, 1.0) + _properties(engUnit="raw"), 5, datatype=_DOUBLE), declared=declared
    )
    assert sample.units == {}


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("Temperature", "temperature"),
        ("Environment/PM2.5", "pm25"),
        ("PM2_5", "pm25"),
        ("PM1.0", "pm1.0"),
        ("A/B/Wind Speed (avg)", "wind_speed_avg"),
        ("室外/温度", "温度"),
        ("Channel/1", "metric_1"),
        ("//", "metric_"),
    ],
)
def test_a_metric_is_called_by_its_last_level(name: str, quantity: str) -> None:
    _, sample = _born(_metric(name, _field(13, 1.0), datatype=_DOUBLE))
    assert sample.values == {quantity: 1.0}


def test_a_source_renames_by_the_whole_name_or_by_the_last_level() -> None:
    declared = Declared(rename={"Wind/Speed": "wind_speed", "PM2.5": "fine_dust"})
    host = _Host(declared)
    host.send("NBIRTH", _vector("nbirth"))
    (sample,) = host.samples("DBIRTH", _vector("dbirth"))
    assert {"wind_speed": 3.25, "fine_dust": 12.3}.items() <= sample.values.items()
    assert sample.units["fine_dust"] == "ug/m3"


def test_metrics_that_share_their_last_level_are_called_by_all_of_it() -> None:
    two = (
        _metric("Inlet/T", _field(13, 1.0), 1, datatype=_DOUBLE),
        _metric("Outlet/T", _field(13, 2.0), 2, datatype=_DOUBLE),
    )
    assert _born(*two)[1].values == {"inlet_t": 1.0, "outlet_t": 2.0}
    assert _born(*two, declared=Declared(rename={"Outlet/T": "t"}))[1].values == {"inlet_t": 1.0, "t": 2.0}
    assert _born(*two, declared=Declared(rename={"T": "t"}))[1].values == {"inlet_t": 1.0, "outlet_t": 2.0}


def test_metrics_that_cannot_be_told_apart_are_a_problem() -> None:
    _, sample = _born(_metric("T", _field(13, 1.0), datatype=_DOUBLE), _metric("t", _field(13, 2.0), datatype=_DOUBLE))
    assert sample.values == {"t": 1.0}
    assert sample.problems == ("t: another metric is called 't', too: rename it",)
    rename = {"a": "q", "b": "q"}
    metrics = [_metric(name, _field(13, 1.0), datatype=_DOUBLE) for name in rename]
    assert _born(*metrics, declared=Declared(rename=rename))[1].problems == (
        "b: another metric is called 'q', too: rename it",
    )


def test_what_is_no_number_is_no_reading_unless_the_source_names_it() -> None:
    metrics = (
        _metric("Firmware", _field(15, b"2.4.1"), 1, datatype=_TEXT),
        _metric("Level", _field(15, b"12.5"), 2, datatype=_TEXT),
        _metric("Table", _field(17, b""), 3, datatype=16),
        _metric("Node Control/Scan rate", _field(11, 5), 4, datatype=_INT64),
    )
    assert _Host().samples("NBIRTH", _payload(*metrics, seq=0)) == []
    names = {"Firmware": "firmware", "Level": "level", "Table": "table"}
    _, sample = _born(*metrics, declared=Declared(rename=names))
    assert sample.values == {"level": 12.5}
    assert sample.problems == ("Firmware: expected a number, not '2.4.1'", "Table: expected a number, found no value")


def test_an_infinite_value_costs_itself_only() -> None:
    _, sample = _born(_metric("x", _field(13, math.inf), datatype=_DOUBLE), _T)
    assert (sample.values, sample.problems) == ({"t": 1.5}, ("x: expected a number, not inf",))


def test_a_message_without_a_time_has_the_metrics_times_or_none() -> None:
    (sample,) = _Host().samples("NBIRTH", _payload(_T, timestamp=0, seq=0))
    assert math.isnan(sample.time)
    own = _metric("T", _field(13, 1.5), datatype=_DOUBLE, timestamp=_EIGHT)
    (sample,) = _Host().samples("NBIRTH", _payload(own, timestamp=0, seq=0))
    assert sample.time == _EIGHT


def test_a_broker_may_have_levels_before_the_namespace() -> None:
    format_ = Sparkplug(_PLAIN)
    decoded = format_.decode("plant/spBv1.0/town/DDATA/edge1/d", _payload(_metric(None, _field(13, 1.0), 3), seq=1), 0)
    assert [answer.topic for answer in decoded.answers] == ["plant/spBv1.0/town/NCMD/edge1"]


def test_devices_may_be_called_by_their_nodes_too() -> None:
    host = _Host(Declared(options={"qualify": True})).session()
    assert [sample.sensor for sample in host.samples("DDATA", _vector("ddata"))] == ["edge1.station7"]
    assert [sample.sensor for sample in host.samples("NDEATH", _vector("ndeath"))] == ["edge1", "edge1.station7"]


# The birth that is asked for


def test_data_before_a_birth_lets_the_node_be_asked_for_it() -> None:
    host = _Host()
    host.now = _EIGHT + 400_000
    decoded = host.send("DDATA", _vector("ddata"))
    assert decoded.answers == (Answer("spBv1.0/town/NCMD/edge1", _vector("rebirth")),)
    (sample,) = decoded.samples
    assert (sample.sensor, sample.values) == ("station7", {})
    assert sample.problems[0] == "alias 10: no birth names it"
    assert len(sample.problems) == 5


def test_names_that_the_birth_does_not_have_are_asked_for() -> None:
    host, _ = _born(_T)
    decoded = host.send("NDATA", _payload(_metric("New", _field(13, 1.0), datatype=_DOUBLE), seq=1))
    assert len(decoded.answers) == 1
    assert decoded.samples[0].problems == ("New: no birth names it",)


def test_a_gap_in_the_numbers_lets_the_node_be_asked_and_costs_no_value() -> None:
    host, _ = _born(_T)
    assert host.send("NDATA", _payload(_metric(None, _field(13, 2.0), 1), timestamp=_EIGHT + 1, seq=1)).answers == ()
    after = host.send("NDATA", _payload(_metric(None, _field(13, 3.0), 1), timestamp=_EIGHT + 2, seq=3))
    assert len(after.answers) == 1
    assert after.samples[0].values == {"t": 3.0}


def test_numbers_go_on_with_0_after_255() -> None:
    host, _ = _born(_T)
    answers = [
        host.send(
            "NDATA", _payload(_metric(None, _field(13, 2.0), 1), timestamp=_EIGHT + place, seq=place % 256)
        ).answers
        for place in range(1, 600)
    ]
    assert answers == [()] * 599


def test_devices_and_their_node_share_the_numbers() -> None:
    host = _Host().session()
    steps = [("DDATA", "ddata"), ("DDATA", "ddata_stored"), ("NDATA", "ndata"), ("DDEATH", "ddeath")]
    assert [host.send(what, _vector(name)).answers for what, name in steps] == [()] * 4
    assert len(host.send("DDATA", _payload(seq=7, timestamp=_EIGHT + 400_000)).answers) == 1


def test_a_node_is_asked_again_only_after_a_while_and_not_after_its_birth() -> None:
    host = _Host(Declared(options={"rebirth_every": "30s"}))
    data = [_payload(_metric(None, _field(13, 1.0), 1), timestamp=_EIGHT + place, seq=place) for place in range(1, 9)]
    asked = []
    for place, payload in enumerate(data):
        host.now = _EIGHT + place * 10_000
        asked.append(len(host.send("NDATA", payload).answers))
    assert asked == [1, 0, 0, 1, 0, 0, 1, 0]
    host.send("NBIRTH", _payload(_T, timestamp=_EIGHT + 100, seq=0))
    host.now += 60_000
    assert host.send("NDATA", _payload(_metric(None, _field(13, 1.0), 1), timestamp=_EIGHT + 101, seq=1)).answers == ()


def test_a_source_may_ask_nobody() -> None:
    assert _Host(Declared(options={"rebirth": False})).send("DDATA", _vector("ddata")).answers == ()


def test_data_of_a_device_whose_death_was_told_is_read_and_its_birth_asked_for() -> None:
    host = _Host().session()
    host.send("DDEATH", _payload(seq=2, timestamp=_EIGHT + 20))
    decoded = host.send("DDATA", _payload(_metric(None, _field(13, 9.0), 11), timestamp=_EIGHT + 30, seq=3))
    assert decoded.samples[0].values == {"temperature": 9.0}
    assert len(decoded.answers) == 1


def test_after_the_death_of_a_node_its_aliases_hold_no_longer() -> None:
    host = _Host().session()
    host.send("NDEATH", _vector("ndeath"))
    decoded = host.send("DDATA", _vector("ddata"))
    assert decoded.samples[0].values == {}
    assert len(decoded.answers) == 1


def test_a_new_birth_of_the_node_ends_the_aliases_of_its_devices() -> None:
    host = _Host().session()
    host.send("NBIRTH", _payload(_T, timestamp=_EIGHT + 1000, seq=0))
    assert host.samples("DDATA", _vector("ddata"))[0].values == {}


# Messages that are read twice


def test_a_batch_that_is_read_twice_gives_the_same_and_asks_for_nothing() -> None:
    steps = [
        ("NBIRTH", "nbirth"),
        ("DBIRTH", "dbirth"),
        ("DDATA", "ddata"),
        ("DDATA", "ddata_stored"),
        ("NDATA", "ndata"),
    ]
    steps += [("DDEATH", "ddeath"), ("NDEATH", "ndeath_earlier"), ("NDEATH", "ndeath")]
    for end in range(1, len(steps)):
        host = _Host()
        first = [host.send(what, _vector(name)) for what, name in steps[:end]]
        again = [host.send(what, _vector(name)) for what, name in steps[:end]]
        assert repr(again) == repr(first)
        assert all(not decoded.answers for decoded in again)
        assert host.send(steps[end][0], _vector(steps[end][1])).answers == ()


# What is bounded


def test_what_is_remembered_is_bounded_and_the_oldest_birth_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_HELD", 100)
    host = _Host()
    for place in range(60):
        host.send("NBIRTH", _payload(_T, seq=0), edge=f"e{place}")
        host.send("DBIRTH", _payload(_T, seq=1), edge=f"e{place}")
    assert host.format._held == sum(node.held for node in host.format._nodes.values()) <= 100
    data = _payload(_metric(None, _field(13, 1.0), 1), timestamp=_EIGHT + 1, seq=2)
    assert host.send("DDATA", data, edge="e59").answers == ()
    assert len(host.send("DDATA", data, edge="e0").answers) == 1
    many = [_metric(f"m{place}", _field(13, 1.0), place, datatype=_DOUBLE) for place in range(200)]
    assert len(host.samples("NBIRTH", _payload(*many, seq=0))[0].values) == 200
    assert host.format._held == 0


def test_a_flood_of_nodes_is_not_answered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ASKED", 10)
    monkeypatch.setattr(module, "_MOST_TOPICS", 50)
    host = _Host()
    data = _payload(_metric(None, _field(13, 1.0), 1), seq=2)
    assert sum(len(host.send("NDATA", data, edge=f"e{place}").answers) for place in range(200)) == 10
    host.now += 60_000
    assert len(host.send("NDATA", data, edge="e7").answers) == 1
    assert len(host.format._topics) <= 50


# What cannot be read


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"hello", r"byte 2: expected a Sparkplug payload \(protobuf\), found 'llo'"),
        (b'{"ts":1}', "byte 0: "),
        (_vector("dbirth")[:-1], r"byte 269: .*found '\\x18'"),
        (_vector("ddata")[:4], r"byte 0: .*found '\\x08"),
        (_payload(_T)[:-3], "byte 7: "),
        (_field(1, 5) + b"\x00", r"byte 2: .*found '\\x00'"),
        (_field(1, 5) + b"\x1f", "byte 2: "),
        (_field(1, 5) + _field(2, b"\x0a\x7f"), "byte 4: "),
        (_field(1, 5) + _field(2, _field(9, _field(2, b"\x42\x09a"))), "byte 8: "),
        (_field(1, 5) + b"\x18" + b"\xff" * 11, "byte 2: "),
        (_field(4, b"SPBV1.0_COMPRESSED") + _field(5, b"x"), "uuid: compressed payloads are not read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=f"^(?:{reason})"):
        _Host().send("NBIRTH", payload)


@pytest.mark.parametrize(
    "topic",
    [
        "town/NDATA/edge1",
        "spBv1.0",
        "spBv1.0/town/NDATA",
        "spBv1.0/town/NDATA/edge1/d",
        "spBv1.0/town/DDATA/edge1",
        "spBv1.0/town/XDATA/edge1",
        "spBv1.0//NDATA/edge1",
        "spBv1.0/town/DDATA/edge1/",
    ],
)
def test_another_topic_is_refused(topic: str) -> None:
    with pytest.raises(PayloadError, match=r"^topic: expected spBv1\.0/GROUP/TYPE/EDGE\[/DEVICE\], not '"):
        Sparkplug(_PLAIN).decode(topic, _vector("ndata"), 0)


def test_a_metric_of_a_birth_without_a_name_or_with_anothers_alias_is_a_problem() -> None:
    host, sample = _born(
        _metric(None, _field(13, 1.0), 1, datatype=_DOUBLE),
        _field(1, b"a\xff") + _metric(None, _field(13, 1.0), 2),
        _metric("A", _field(13, 1.0), 3, datatype=_DOUBLE),
        _metric("B", _field(13, 2.0), 3, datatype=_DOUBLE),
    )
    assert sample.values == {"a": 1.0, "b": 2.0}
    assert sample.problems == (
        "metrics[0].name: a birth names its metrics, and this one has none",
        "metrics[1].name: byte 1 is not UTF-8",
        "metrics[3].alias: 3 is that of 'A', too",
    )
    (later,) = host.samples("NDATA", _payload(_metric(None, _field(13, 1.0), 3), seq=1))
    assert (later.values, later.problems) == ({}, ("alias 3: no birth names it",))


@pytest.mark.parametrize(
    "options", [{"rebirth_every": "0s"}, {"rebirth_every": 5}, {"qualify": "perhaps"}, {"other": 1}]
)
def test_options_that_are_none_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sparkplug(Declared(options=options))


_KINDS = ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"]
_NAMES = ["nbirth", "dbirth", "ddata", "ddata_stored", "ndata", "ddeath", "ndeath"]


@given(
    st.lists(st.tuples(st.sampled_from(_KINDS), st.sampled_from(_NAMES), st.integers(0, 300), st.binary(max_size=6)))
)
def test_whatever_comes_in_whatever_order_is_read_or_refused(steps: list[tuple[str, str, int, bytes]]) -> None:
    host = _Host()
    for what, name, place, patch in steps:
        payload = _vector(name)
        payload = payload[:place] + patch + payload[place + len(patch) :]
        try:
            decoded = host.send(what, payload)
        except PayloadError as error:
            assert str(error).startswith("byte ")  # noqa: PT017 - each is refused with its place
            continue
        for sample in decoded.samples:
            assert sample.sensor in {"edge1", "station7"}
            assert not any(math.isinf(value) for value in sample.values.values())
            assert sample.quality.keys() <= sample.values.keys()
            assert sample.units.keys() <= sample.values.keys()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_their_place(payload: bytes) -> None:
    try:
        _Host().send("NBIRTH", payload)
    except PayloadError as error:
        assert str(error).startswith(("byte ", "uuid: "))  # noqa: PT017 - each is refused with its place


def test_where_protobuf_is_not_compiled_all_is_read_alike() -> None:
    """As on 32-bit ARM, for which there is no wheel with the compiled one."""
    code = (
        "from google.protobuf.internal import api_implementation as which\n"
        "from tests.sensors.formats.test_sparkplug import _Host, _vector\n"
        "print(which.Type(), repr(_Host().session().samples('DDATA', _vector('ddata'))))"
    )
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment, cwd=_ROOT
    ).stdout
    assert printed.strip() == f"python {_Host().session().samples('DDATA', _vector('ddata'))!r}"


def test_the_document_shows_what_is_tested() -> None:
    documents.verify("sparkplug")
    source = tomllib.loads(documents.source("sparkplug"))["source"][0]
    Sparkplug(Declared(rename=source["rename"], options=source["options"]))
