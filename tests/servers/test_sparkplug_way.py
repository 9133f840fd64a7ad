"""Sparkplug the whole way: an edge node with its will, a real broker, the agent as a process, a real database."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from sensors.formats.sparkplug import _PAYLOAD
from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import WITHIN, MakeGateway, make_gateway, output, query, wait_for

__all__ = ["make_gateway"]

SOURCE = """[[source]]
name = "edge"
topic = "spBv1.0/{site}/+/#"
format = "sparkplug"
kind = "weather"
[source.options]
rebirth_every = "1s"
"""
DOUBLE, BOOLEAN, INT64 = 10, 11, 4


class EdgeNode:
    """An edge node with one device, as a maker builds it: births when it is asked, else aliases only."""

    def __init__(self, port: int, session: int) -> None:
        self.session, self.seq, self.births = session, 0, 0
        self._born = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"edge1-{session}")
        self.client.will_set("spBv1.0/town/NDEATH/edge1", self._death(), qos=1)
        self.client.on_message = self._command
        self.client.on_subscribe = lambda *_: self._born.set()
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("spBv1.0/town/NCMD/edge1", 1)
        self.client.loop_start()
        assert self._born.wait(WITHIN)

    def _death(self) -> bytes:
        message = _PAYLOAD(timestamp=_now())
        message.metrics.add(name=b"bdSeq", datatype=INT64, long_value=self.session)
        return bytes(message.SerializeToString())

    def _command(self, _client: paho.Client, _data: object, sent: paho.MQTTMessage) -> None:
        (metric,) = _PAYLOAD.FromString(sent.payload).metrics
        if metric.name == b"Node Control/Rebirth" and metric.boolean_value:
            self.birth()

    def birth(self) -> None:
        """Says what it and its device will send."""
        self.births, self.seq = self.births + 1, 0
        node = _PAYLOAD(timestamp=_now(), seq=0)
        node.metrics.add(name=b"bdSeq", datatype=INT64, long_value=self.session)
        node.metrics.add(name=b"Node Control/Rebirth", datatype=BOOLEAN, boolean_value=False)
        self.client.publish("spBv1.0/town/NBIRTH/edge1", bytes(node.SerializeToString()))
        device = self._next()
        metric = device.metrics.add(name=b"Environment/Temperature", alias=7, datatype=DOUBLE, double_value=50.0)
        metric.properties.keys.append(b"engUnit")
        metric.properties.values.add(string_value="°F".encode())
        self.client.publish("spBv1.0/town/DBIRTH/edge1/station7", bytes(device.SerializeToString()))

    def data(self, value: float) -> None:
        """Sends a value by its alias."""
        message = self._next()
        metric = message.metrics.add(alias=7, double_value=value)
        metric.timestamp = message.timestamp
        self.client.publish("spBv1.0/town/DDATA/edge1/station7", bytes(message.SerializeToString()))

    def _next(self) -> Any:  # noqa: ANN401 - built at run time
        self.seq = (self.seq + 1) % 256
        return _PAYLOAD(timestamp=_now(), seq=self.seq)

    def lose(self) -> None:
        """Its power fails: the broker publishes its will."""
        self.client.loop_stop()
        socket = self.client.socket()
        assert socket is not None
        socket.close()


@contextmanager
def _edge_node(port: int, session: int) -> Iterator[EdgeNode]:
    node = EdgeNode(port, session)
    try:
        yield node
    finally:
        node.client.loop_stop()
        node.client.disconnect()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _temperatures(server: Server) -> list[float]:
    return [row[1] for row in query(server, "SELECT temperature FROM weather WHERE sensor = 'station7'")]


def test_a_gateway_that_meets_a_session_asks_for_its_birth_and_reads_by_it(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, SOURCE + output(influxdb))
    gateway.start()
    with _edge_node(broker.port, 3) as node:
        node.data(51.8)  # its birth was before the gateway's time
        wait_for(lambda: node.births == 1, "the birth that is asked for")
        wait_for(lambda: _temperatures(influxdb) == [10.0], "the birth's value, in the kind's unit")
        node.data(51.8)
        wait_for(lambda: _temperatures(influxdb) == [10.0, 11.0], "data by the birth")
        gateway.kill()
        gateway.start()  # it knows no birth
        node.data(53.6)
        wait_for(lambda: node.births == 2, "the birth that is asked for again")
        node.data(55.4)
        wait_for(lambda: _temperatures(influxdb)[-1:] == [13.0], "data by the new birth")
    ledger = gateway.ledger()
    assert ledger["dead"] == 2, "the two values that nothing explained"
    assert ledger["received"] == sum(count for fate, count in ledger.items() if fate != "received")


@pytest.mark.slow  # whoever left is told of once a minute
def test_the_will_of_a_node_says_that_its_device_is_silent(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, SOURCE + output(influxdb))
    gateway.start()
    with _edge_node(broker.port, 3) as node:
        node.birth()
        wait_for(lambda: _temperatures(influxdb) == [10.0], "the birth's value")
        node.lose()
        silence = "SELECT message FROM event WHERE sensor = 'station7'"
        wait_for(lambda: bool(query(influxdb, silence)), "the event", 120)
        assert query(influxdb, silence)[0][1].startswith("reported gone, silent since ")
