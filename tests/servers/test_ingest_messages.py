"""What the ingest tells of each message beside its payload, and messages that are too large."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.edge.ingest import Mqtt5Ingest
from tests.servers.conftest import Mosquitto
from tests.servers.consumer import FILTER, Consumer, Kind, both, consuming, publish, settings
from tests.servers.wait import until

MIB = 2**20


def say(port: int, topic: str, *, retain: bool = False, properties: list[tuple[str, str]] | None = None) -> None:
    """Publishes one message by MQTT v5."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    more = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if properties:
        more.UserProperty = properties
    client.publish(topic, b"1", qos=1, retain=retain, properties=more).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


@both
async def test_what_the_broker_had_stored_is_told_from_what_is_new(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    await asyncio.to_thread(say, broker.port, "city/a/air/old", retain=True)
    async with consuming(kind(settings(broker.port), [FILTER])) as consumer:
        await until(lambda: len(consumer.numbers) == 1)
        await asyncio.to_thread(say, broker.port, "city/a/air/new", retain=True)
        await until(lambda: len(consumer.numbers) == 2)
        old, new = consumer.batches
        assert (old.topics, old.retained) == (["city/a/air/old"], {0})
        assert (new.topics, new.retained) == (["city/a/air/new"], set())


@both
async def test_arrivals_are_stamped_by_the_clock_that_was_given(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    async with consuming(kind(settings(broker.port), [FILTER], now=lambda: 42)) as consumer:
        await asyncio.to_thread(publish, broker.port, range(3))
        await until(lambda: len(consumer.numbers) == 3)
        assert {stamp for batch in consumer.batches for stamp in batch.received} == {42}


async def test_senders_are_told_where_they_are_asked_for(mosquitto: Mosquitto) -> None:
    broker = mosquitto()
    asked = Mqtt5Ingest(settings(broker.port), [FILTER], sender_properties=frozenset({"sender"}))
    told: list[list[tuple[str, str]] | None] = [
        [("sender", "n-1")],
        None,
        [("other", "n-2")],
        [("other", "x"), ("sender", "n-3")],
        [("sender", "n-4"), ("sender", "n-4")],
        [("sender", "mine"), ("sender", "yours")],
    ]
    async with consuming(asked) as consumer:
        for properties in told:
            await asyncio.to_thread(say, broker.port, "city/a/air/n", properties=properties)
        await until(lambda: len(consumer.numbers) == len(told))
        senders = [batch.senders.get(place) for batch in consumer.batches for place in range(len(batch.topics))]
        assert senders == ["n-1", None, None, "n-3", "n-4", "mine/yours"]
        for batch in consumer.batches:
            assert len(batch.topics) == len(batch.payloads) == len(batch.received)


class Broker:
    """A broker that sends what it is given, to whoever subscribes, and takes no notice of what clients can bear.

    Args:
        script: Packets of the first connection.
        v5: Whether it speaks MQTT v5 or 3.1.1.
        piece: Bytes sent at a time.
    """

    def __init__(self, script: list[bytes], *, v5: bool, piece: int = 100_000) -> None:
        self.connections = 0
        self.acknowledged: list[int] = []
        self._script, self._v5, self._piece = script, v5, piece

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.read(1):
            length = shift = 0
            while True:
                (byte,) = await reader.readexactly(1)
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = await reader.readexactly(length)
            match head[0] >> 4:
                case 1:
                    writer.write(b"\x20\x03\x00\x00\x00" if self._v5 else b"\x20\x02\x00\x00")
                case 8:
                    writer.write(
                        b"\x90" + (b"\x04" + body[:2] + b"\x00\x01" if self._v5 else b"\x03" + body[:2] + b"\x01")
                    )
                    data = b"".join(self._script)
                    self._script = []
                    for start in range(0, len(data), self._piece):
                        writer.write(data[start : start + self._piece])
                        await writer.drain()
                case 3 if head[0] & 6:
                    topic = int.from_bytes(body[:2])
                    writer.write(b"\x40\x02" + body[2 + topic : 4 + topic])
                case 4:
                    self.acknowledged.append(int.from_bytes(body[:2]))
                case 14:
                    break
        writer.close()


def packet(number: int, payload: bytes, *, v5: bool, head: int = 0x32, properties: bytes = b"") -> bytes:
    """A PUBLISH with the topic `city/a/air/n-NUMBER`."""
    topic = f"city/a/air/n-{number}".encode()
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number)
    body += (variable(len(properties)) + properties if v5 else b"") + payload
    return bytes([head]) + variable(len(body)) + body


def variable(length: int) -> bytes:
    made = b""
    while length > 127:
        made += bytes([length & 127 | 128])
        length >>= 7
    return made + bytes([length])


@both
@pytest.mark.parametrize("piece", [100_000, 4999])
async def test_a_message_that_is_too_large_is_cut_and_acknowledged_and_the_stream_goes_on(
    kind: Kind, piece: int, caplog: pytest.LogCaptureFixture
) -> None:
    v5 = kind is Mqtt5Ingest
    large = b"A" * 12 * MIB
    script = [
        packet(1, b"before", v5=v5),
        packet(2, large, v5=v5),
        packet(3, b"between", v5=v5),
        packet(4, large[: 2 * MIB], v5=v5, head=0x3B),
        packet(5, large[: MIB - 100], v5=v5),  # just not too large
        packet(6, b"after", v5=v5),
    ]
    broker = Broker(script, v5=v5, piece=piece)
    async with broker.serve() as port:
        async with consuming(kind(settings(port), [FILTER])) as consumer:
            await until(lambda: broker.acknowledged == [1, 2, 3, 4, 5, 6])
            topics = [topic for batch in consumer.batches for topic in batch.topics]
            payloads = [payload for batch in consumer.batches for payload in batch.payloads]
            assert topics == [f"city/a/air/n-{number}" for number in range(1, 7)]
            assert [payloads[place] for place in (0, 2, 5)] == [b"before", b"between", b"after"]
            for cut in (payloads[1], payloads[3]):
                assert MIB - 100 < len(cut) < MIB + 100_000
                assert set(cut) == {ord("A")}
            assert payloads[4] == large[: MIB - 100]
            batch = next(batch for batch in consumer.batches if "city/a/air/n-4" in batch.topics)
            assert batch.retained == batch.redelivered == {batch.topics.index("city/a/air/n-4")}
            assert consumer.ingest._held_bytes == 0
        assert broker.connections == 1
    assert "next attempt" not in caplog.text


async def test_properties_that_are_too_large_leave_no_payload() -> None:
    property_ = b"\x26" + struct.pack(">H", 1) + b"k" + struct.pack(">H", 60_000) + b"v" * 60_000
    script = [packet(1, b"payload", v5=True, properties=property_ * 20), packet(2, b"after", v5=True)]
    broker = Broker(script, v5=True)
    async with broker.serve() as port, consuming(Mqtt5Ingest(settings(port), [FILTER])) as consumer:
        await until(lambda: broker.acknowledged == [1, 2])
        assert [payload for batch in consumer.batches for payload in batch.payloads] == [b"", b"after"]


@pytest.mark.parametrize(
    ("head", "start", "reason"),
    [(0xD0, b"", "no message"), (0x32, b"\x00\x01a\x00\x01\xff\xff\xff\x7f", "contradict")],
)
async def test_what_is_too_large_and_no_message_ends_the_connection(
    head: int, start: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker([bytes([head]) + variable(2 * MIB) + start.ljust(2 * MIB, b"x")], v5=True)
    async with broker.serve() as port, consuming(Mqtt5Ingest(settings(port), [FILTER])) as consumer:
        await until(lambda: broker.connections == 2)
        assert reason in caplog.text
        assert not consumer.batches


@both
async def test_a_gateway_counts_as_connected_when_its_subscriptions_are_held(kind: Kind) -> None:
    """A session that the broker kept may lack a source that was declared since."""
    v5 = kind is Mqtt5Ingest
    asked, granting, links = asyncio.Event(), asyncio.Event(), list[asyncio.StreamWriter]()

    async def hesitate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(writer)
        writer.write(b"\x20\x03\x01\x00\x00" if v5 else b"\x20\x02\x01\x00")  # it has the session
        text = b""
        while FILTER.encode() not in text:
            text += await reader.read(1000)
        asked.set()
        if len(links) == 1:
            await granting.wait()
            number = text[text.index(FILTER.encode()) - (5 if v5 else 4) :][:2]
            writer.write(b"\x90" + (b"\x04" + number + b"\x00\x01" if v5 else b"\x03" + number + b"\x01"))
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(hesitate, "127.0.0.1", 0)
    ingest = kind(settings(server.sockets[0].getsockname()[1]), [FILTER])
    consumer = Consumer(ingest)
    await asyncio.wait_for(asked.wait(), 10)
    assert not ingest.connected
    granting.set()
    await until(lambda: ingest.connected)
    links[0].close()
    await until(lambda: not ingest.connected)
    await until(lambda: ingest.connected)  # it was told once, and the session is still there
    await ingest.close()
    await asyncio.wait_for(consumer.task, 10)
    server.close()
