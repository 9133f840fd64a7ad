import json
import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import SourceConfig
from sensors import discovery, kinds
from sensors.formats import Announcement, Declared, PayloadError
from sensors.formats.homeassistant import HomeAssistant
from tests.sensors.formats import documents

TOPIC = "homeassistant/sensor/0x00158d/temperature/config"


def _announced(payload: bytes, topic: str = TOPIC) -> tuple[Announcement, ...]:
    decoded = HomeAssistant(Declared()).decode(topic, payload, 0)
    assert decoded.samples == []
    return decoded.announced


def test_an_announcement_says_where_which_quantity_will_be() -> None:
    wanted = Announcement("attic", "zigbee2mqtt/attic", ("temperature",), "temperature", "°C")
    assert _announced(documents.payload("homeassistant/attic_temperature.json")) == (wanted,)


def test_abbreviations_and_nested_keys_are_understood() -> None:
    wanted = Announcement("0x00158d", "tele/attic/SENSOR", ("BME280", "Pressure"), "pressure", "mmHg")
    assert _announced(documents.payload("homeassistant/abbreviated.json")) == (wanted,)


def test_what_announces_no_value_that_a_key_leads_to_is_passed_over() -> None:
    assert _announced(b"") == ()
    assert _announced(b'{"state_topic":"a"}') == ()
    assert _announced(b'{"state_topic":"a","value_template":"{{ value_json.t * 2 }}"}') == ()
    assert _announced(b"{}", "homeassistant/switch/a/config") == ()


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"[1]", "expected a JSON object"),
        (b"{", "at byte 1"),
        (b"{}", "state_topic: expected"),
        (b'{"state_topic":"%b","value_template":"{{ value_json.t }}"}' % (b"a" * 257), "state_topic: expected at most"),
        (b'{"state_topic":"a","value_template":"{{ value_json.%b }}"}' % (b"a" * 257), "value_template: expected at"),
    ],
)
def test_what_is_no_announcement_is_told(payload: bytes, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        _announced(payload)


@given(
    st.binary(max_size=50) | st.dictionaries(st.text(), st.text() | st.integers()).map(lambda d: json.dumps(d).encode())
)
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    with suppress(PayloadError):
        _announced(payload)


def test_a_source_is_proposed_for_what_one_topic_will_have() -> None:
    announced = [
        Announcement("attic", "tele/attic", ("BME280", "Temperature"), "temperature", "°F"),
        Announcement("attic", "tele/attic", ("humidity",), "humidity", "%"),
    ]
    proposed = discovery.source("attic", announced, kinds.builtin())
    assert proposed in documents.source("homeassistant")
    (declared,) = tomllib.loads(proposed)["source"]
    assert SourceConfig.model_validate(declared).kind == "weather"


def test_its_document_shows_these_payloads() -> None:
    documents.verify("homeassistant")
