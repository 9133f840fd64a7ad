import json

from sensors.homeassistant import Proposal, proposal

TOPIC = "homeassistant/sensor/0x00158d/temperature/config"


def test_an_announcement_becomes_a_proposal() -> None:
    said = {
        "state_topic": "zigbee2mqtt/attic",
        "value_template": "{{ value_json.temperature }}",
        "unit_of_measurement": "°C",
        "device_class": "temperature",
    }
    wanted = Proposal("0x00158d", "zigbee2mqtt/attic", ("temperature",), "temperature", "°C")
    assert proposal(TOPIC, json.dumps(said).encode()) == wanted


def test_abbreviations_and_nested_keys_are_understood() -> None:
    said = {"~": "tele/attic", "stat_t": "~/SENSOR", "val_tpl": "{{value_json['BME280'].Pressure|float}}"}
    wanted = Proposal("0x00158d", "tele/attic/SENSOR", ("BME280", "Pressure"), "Pressure", None)
    assert proposal(TOPIC, json.dumps(said).encode()) == wanted


def test_what_announces_no_value_of_json_is_passed_over() -> None:
    assert proposal(TOPIC, b"") is None
    assert proposal(TOPIC, b'{"state_topic":"a"}') is None
    assert proposal("homeassistant/switch/a/config", b"{}") is None
