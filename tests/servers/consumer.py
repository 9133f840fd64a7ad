"""What the tests of the ingest share: who publishes, and who takes what arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import MqttConfig
from gateway.edge.batch import RawBatch  # noqa: TC001 - beside what is used at run time
from gateway.edge.ingest import Ingest, Mqtt5Ingest
from gateway.edge.ingest_paho import PahoIngest
from tests.servers.wait import until

FILTER = "city/+/+/+"
Kind = type[Mqtt5Ingest] | type[PahoIngest]


def settings(port: int, **values: object) -> MqttConfig:
    """The ingest's, for a broker on loopback."""
    return MqttConfig.model_validate({"port": port, "client_id": "gw-test"}).model_copy(update=values)


def publish(port: int, numbers: range, topic: str = "city/a/air/n-1", size: int = 0, **options: int) -> None:
    """Publishes numbers at QoS 1, and returns when the broker has them all."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(options.get("inflight", 1000))
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(topic, str(number).encode().ljust(size), qos=options.get("qos", 1)) for number in numbers]
    for info in sent:
        info.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


class Consumer:
    """Collects what an ingest yields; acknowledges at once unless told not to."""

    def __init__(self, ingest: Ingest, *, acknowledge: bool = True) -> None:
        self.ingest = ingest
        self.acknowledge = acknowledge
        self.batches: list[RawBatch] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for batch in self.ingest.batches():
            self.batches.append(batch)
            if self.acknowledge:
                self.ingest.acknowledge(batch)

    @property
    def numbers(self) -> list[int]:
        return [int(payload) for batch in self.batches for payload in batch.payloads]


@contextlib.asynccontextmanager
async def consuming(ingest: Ingest, *, acknowledge: bool = True) -> AsyncIterator[Consumer]:
    """A consumer that is connected; the ingest is closed afterwards."""
    consumer = Consumer(ingest, acknowledge=acknowledge)
    try:
        await until(lambda: ingest.connected or consumer.task.done())
        yield consumer
    finally:
        await ingest.close()
        await asyncio.wait_for(consumer.task, 10)


both = pytest.mark.parametrize("kind", [Mqtt5Ingest, PahoIngest])
"""Over MQTT v5 and 3.1.1."""
