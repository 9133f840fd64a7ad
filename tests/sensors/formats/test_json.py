import json
import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import DiscoverConfig, SourceConfig
from gateway.edge.source import Source
from sensors import formats, kinds
from sensors.formats import Declared, PayloadError, Sample
from tests.sensors.formats import documents

NOW = 1_790_000_000
_PLAIN = Declared("ts")
_PROBES = Declared("meta.at", {"air.t": "temperature"}, {"each": "probes", "sensor": "id"})


def _read(payload: bytes, declared: Declared = _PLAIN) -> list[Sample]:
    return formats.make("json", declared).decode("loggers", payload, 0).samples


def test_a_plain_object_is_one_sample() -> None:
    (sample,) = _read(documents.payload("json/plain.json"))
    assert sample.time == NOW * 1000
    assert {name: value for name, value in sample.values.items() if name != "no2"} == {
        "pm25": 12.3,
        "o3": 80,
        "wind_direction": 225,
    }
    assert sample.values["no2"] != sample.values["no2"]
    assert (sample.sensor, sample.problems) == (None, ())


def test_text_is_a_number_only_as_everybody_writes_numbers() -> None:
    payload = json.dumps({"pm25": "E", "no2": "1_0", "o3": "\u0661", "wind_dir": "E", "co": " 1e1 "})
    (sample,) = _read(payload.encode())
    assert sample.values == {"wind_dir": 90, "co": 10}
    assert [problem.partition(":")[0] for problem in sample.problems] == ["pm25", "no2", "o3"]


def test_each_object_of_a_list_is_a_sample_with_what_stands_beside_the_list() -> None:
    one, other = _read(documents.payload("json/probes.json"), _PROBES)
    assert (one.sensor, one.time, other.sensor, other.time) == ("p1", NOW, "p2", NOW - 60)
    assert one.values == {"battery": 87, "temperature": 14.2, "moisture": 31}
    assert other.values == {"battery": 87, "temperature": 13.8, "moisture": 28}


def test_what_lies_deeper_is_read_where_a_source_asks_for_it() -> None:
    payload = b'{"ts": 1, "a": {"b": 2}, "c": [3]}'
    (plain,) = _read(payload)
    assert plain.problems == ("a: expected a number, not a dict", "c: expected a number, not a list")
    for asks in (Declared("ts", {}, {"nested": True}), Declared("ts", {"a.b": "pm25"})):
        (sample,) = _read(payload, asks)
        assert sample.values == {asks.rename.get("a.b", "a.b"): 2, "c.0": 3}


def test_the_payload_may_be_the_list() -> None:
    samples = _read(b'[{"ts": 1, "a": [1, {"b": 2}]}, {"a": []}]', Declared("ts", {}, {"each": "."}))
    assert [sample.values for sample in samples] == [{"a.0": 1, "a.1.b": 2}, {}]
    assert samples[1].problems == ("1.a: expected a number, not a list",)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"probes": [', "not valid JSON: Expecting value: line 1 column 13"),
        (b"[]", "expected a JSON object, not list"),
        (b'{"probes": {"id": "p1"}}', "probes: expected a list of objects, not a dict"),
        (b'{"probes": [{"id": "p1"}, 5]}', "probes.1: expected a JSON object, not int"),
        (b'{"probes": [{"id": {}}]}', "probes.0.id: expected the name of a sensor, not a dict"),
        (b'{"probes": [{"id": "p1", "meta": {"at": "noon"}}]}', "probes.0.meta.at: expected a time"),
    ],
)
def test_what_cannot_be_read_names_the_byte_or_the_path(payload: bytes, why: str) -> None:
    with pytest.raises(PayloadError) as told:
        _read(payload, _PROBES)
    assert why in str(told.value)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda data: str(data).encode()))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    for declared in (_PLAIN, _PROBES):
        with suppress(PayloadError):
            _read(payload, declared)


def test_its_document_shows_these_payloads() -> None:
    documents.verify("json")


@pytest.mark.parametrize("name", sorted(formats.BUILTIN))
def test_the_source_in_each_document_can_be_declared_so(name: str) -> None:
    config = tomllib.loads(documents.source(name))
    declared: list[SourceConfig | DiscoverConfig] = [SourceConfig.model_validate(its) for its in config["source"]]
    declared += [DiscoverConfig.model_validate(its) for its in config.get("discover", ())]
    assert name in {Source(its, kinds.builtin()).config.format for its in declared}
