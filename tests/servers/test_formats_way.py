"""Sources of every format, as a site declares them: a real broker, the agent as a process, a real database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.sensors.formats import documents
from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import MakeGateway, make_gateway, output, publish, query, wait_for

__all__ = ["make_gateway"]  # a fixture

SOURCES = """
[[source]]
name = "stations"
topic = "hj212/{site}/up"
format = "hj212"
kind = "air"
options = { answer_topic = "hj212/{mn}/down" }

[[source]]
name = "plant"
topic = "spBv1.0/{site}/#"
format = "sparkplug"
kind = "air"

[[source]]
name = "lora"
topic = "application/+/device/+/event/up"
format = "chirpstack"
devices = "devices.toml"
options = { codec = "cayenne" }

[[source]]
name = "loggers"
topic = "loggers/{site}"
format = "json"
kind = "soil"
time = "meta.at"
rename = { "air.t" = "temperature" }
options = { each = "probes", sensor = "id" }
"""


@contextmanager
def hearing(port: int, *filters: str) -> Iterator[list[tuple[str, bytes]]]:
    """What is published to some topics."""
    heard: list[tuple[str, bytes]] = []
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda its, *_: its.subscribe([(topic, 1) for topic in filters])
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: heard.append((message.topic, bytes(message.payload)))
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(10)
    yield heard
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_stored_and_what_is_answered(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway, protocol: str
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, f'protocol = "{protocol}"\n{SOURCES}{output(influxdb)}')
    devices = '["a84041b931831234"]\nkind = "soil"\nsite = "field"\nsensor = "probe-1"\n'
    gateway.config.with_name("devices.toml").write_text(devices, "utf-8")
    gateway.start()
    frame = documents.payload("hj212/real_time.txt")
    uplink = documents.payload("chirpstack/data.json")
    with hearing(broker.port, "hj212/+/down", "spBv1.0/+/NCMD/#") as heard:
        publish(
            broker.port,
            [
                ("hj212/north/up", frame),
                ("hj212/north/up", frame),
                ("hj212/north/up", frame.replace(b"35.2", b"35.3")),
                ("spBv1.0/works/DDATA/edge1/station7", documents.payload("sparkplug/ddata.hex")),
                ("spBv1.0/works/NBIRTH/edge1", documents.payload("sparkplug/nbirth.hex")),
                ("spBv1.0/works/DBIRTH/edge1/station7", documents.payload("sparkplug/dbirth.hex")),
                ("application/1/device/a84041b931831234/event/up", uplink),
                ("loggers/south", documents.payload("json/probes.json")),
            ],
        )
        wait_for(lambda: len(heard) >= 3, "the answers")
        wait_for(lambda: gateway.ledger()["queued"] == 0 and gateway.ledger()["delivered"] > 0, "all delivered")
    topics = [topic for topic, _ in heard]
    assert topics.count("hj212/010000A8900016F000169DC0/down") == 2, (
        "also the frame that came again, not the broken one"
    )
    assert topics.count("spBv1.0/works/NCMD/edge1") == 1
    assert query(influxdb, "SELECT pm25, pm10 FROM air WHERE site = 'north'") == [[1_795_392_000_000, 35.2, 58.0]]
    stored = "SELECT temperature, moisture, battery FROM soil WHERE site = 'south' GROUP BY sensor"
    assert query(influxdb, stored) == [[1_790_000_000_000, 14.2, 31, 87], [1_789_999_940_000, 13.8, 28, 87]]
    assert query(influxdb, "SELECT count(*) FROM air WHERE site = 'works' AND sensor = 'station7'")
    assert query(influxdb, "SELECT count(*) FROM soil WHERE sensor = 'probe-1' AND site = 'field'")
    ledger = gateway.ledger()
    assert ledger["received"] == sum(count for fate, count in ledger.items() if fate != "received")
    assert ledger["duplicate"] == 2
