"""The ingest against real brokers."""

import asyncio
import logging
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import mqtt5
import pytest
import trustme
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import MqttConfig
from gateway.edge import ingest as module
from gateway.edge.ingest import Mqtt5Ingest, Receipt
from gateway.edge.ingest_paho import PahoIngest
from tests.servers.conftest import IotcoreBroker, Mosquitto
from tests.servers.consumer import FILTER, Consumer, Kind, both, consuming, publish, settings
from tests.servers.wait import until


@both
async def test_messages_arrive_in_order_and_complete_in_columns_of_equal_length(
    mosquitto: Mosquitto, kind: Kind
) -> None:
    broker = mosquitto()
    count = 20_000
    async with consuming(kind(settings(broker.port), [FILTER])) as consumer:
        await asyncio.to_thread(publish, broker.port, range(count))
        await until(lambda: len(consumer.numbers) >= count, 60)
        assert consumer.numbers == list(range(count))
        for batch in consumer.batches:
            assert 0 < len(batch.topics) <= 2000
            assert len(batch.topics) == len(batch.payloads) == len(batch.received)
            assert set(batch.topics) == {"city/a/air/n-1"}
            assert not batch.retained
            assert batch.received == sorted(batch.received)


@both
async def test_only_what_was_not_acknowledged_comes_again(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    async with consuming(kind(settings(broker.port), [FILTER]), acknowledge=False) as first:
        for start in (0, 100):
            await asyncio.to_thread(publish, broker.port, range(start, start + 100))
            await until(lambda start=start: len(first.numbers) == start + 100)  # type: ignore[misc]
        acknowledged = first.batches[0]
        first.ingest.acknowledge(acknowledged)
        assert not any(batch.redelivered for batch in first.batches)
        kept = [int(payload) for batch in first.batches[1:] for payload in batch.payloads]
    async with consuming(kind(settings(broker.port), [FILTER])) as second:
        await until(lambda: len(second.numbers) >= len(kept))
        await asyncio.to_thread(publish, broker.port, range(1000, 1001))
        await until(lambda: 1000 in second.numbers)
        assert second.numbers == [*kept, 1000]
        redelivered = [batch.payloads[place] for batch in second.batches for place in sorted(batch.redelivered)]
        assert [int(payload) for payload in redelivered] == kept


@both
async def test_the_broker_keeps_messages_for_an_absent_gateway(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    async with consuming(kind(settings(broker.port), [FILTER])):
        pass
    await asyncio.to_thread(publish, broker.port, range(500))
    async with consuming(kind(settings(broker.port), [FILTER])) as consumer:
        await until(lambda: len(consumer.numbers) >= 500)
        assert consumer.numbers == list(range(500))


@both
async def test_memory_is_bounded_when_nothing_is_acknowledged(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    ingest = kind(settings(broker.port, receive_max=200, batch_size=50, keep_alive=4.0), [FILTER])
    async with consuming(ingest, acknowledge=False) as consumer:
        await asyncio.to_thread(publish, broker.port, range(20_000), size=1000)
        await until(lambda: len(consumer.numbers) >= 200)
        await asyncio.sleep(6.5)  # longer than the keep-alive: a gateway that is behind is not a dead one
        assert len(consumer.numbers) < 200 + 500  # one read of the socket beyond the limit
        assert ingest.connected
        consumer.acknowledge = True
        for batch in list(consumer.batches):
            ingest.acknowledge(batch)
        await until(lambda: len(consumer.numbers) >= 20_000, 60)
        assert consumer.numbers == list(range(20_000))


async def test_a_flood_of_qos_0_pauses_reading_too(mosquitto: Mosquitto) -> None:
    broker = mosquitto()
    ingest = Mqtt5Ingest(settings(broker.port, receive_max=200, batch_size=50), [FILTER])
    async with consuming(ingest, acknowledge=False) as consumer:
        await asyncio.to_thread(publish, broker.port, range(5_000), size=1000, qos=0)
        await until(lambda: len(consumer.numbers) >= 200 and ingest._paused)
        assert len(consumer.numbers) < 200 + 500


@both
async def test_a_broker_that_restarts_is_found_again(
    mosquitto: Mosquitto, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = mosquitto()
    ingest = kind(settings(broker.port), [FILTER])
    async with consuming(ingest) as consumer:
        await asyncio.to_thread(publish, broker.port, range(100))
        await until(lambda: len(consumer.numbers) == 100)
        held = consumer.batches[-1]
        await asyncio.to_thread(broker.stop)
        await until(lambda: not ingest.connected)
        ingest.acknowledge(held)  # a receipt of the earlier connection harms nothing
        await asyncio.to_thread(broker.start)
        await until(lambda: ingest.connected)
        await asyncio.to_thread(publish, broker.port, range(100, 200))
        await until(lambda: 199 in consumer.numbers)
        # the broker may have gone before it read our acknowledgements, and then delivers twice
        assert list(dict.fromkeys(consumer.numbers)) == list(range(200))
    assert "next attempt in" in caplog.text
    assert "forgot" not in caplog.text


@both
async def test_a_broker_that_forgot_the_session_is_named(
    mosquitto: Mosquitto, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = mosquitto("persistence false")
    ingest = kind(settings(broker.port), [FILTER])
    async with consuming(ingest):
        await asyncio.to_thread(broker.stop)
        await until(lambda: not ingest.connected)
        await asyncio.to_thread(broker.start)
        await until(lambda: ingest.connected)
    assert "forgot the session" in caplog.text


@both
async def test_a_batch_in_hand_while_the_connection_breaks_is_delivered_again_and_acknowledged_once(
    mosquitto: Mosquitto, kind: Kind
) -> None:
    broker = mosquitto()
    ingest = kind(settings(broker.port), [FILTER])
    async with consuming(ingest, acknowledge=False) as consumer:
        await asyncio.to_thread(publish, broker.port, range(50))
        await until(lambda: len(consumer.numbers) == 50)
        earlier = list(consumer.batches)
        await asyncio.to_thread(broker.stop)
        await until(lambda: not ingest.connected)
        await asyncio.to_thread(broker.start)
        await until(lambda: len(consumer.numbers) == 100)
        for batch in earlier:
            ingest.acknowledge(batch)
        for batch in consumer.batches:
            ingest.acknowledge(batch)
        assert consumer.numbers == [*range(50), *range(50)]
        assert (ingest._held, ingest._held_bytes) == (0, 0)


@both
async def test_a_wrong_password_is_logged_with_what_to_do_and_retried_slowly(
    mosquitto: Mosquitto,
    kind: Kind,
    tmp_path: Path,
    program: Callable[[str, str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    passwords = tmp_path / "passwords"
    tool = program("mosquitto_passwd", "mosquitto")
    await asyncio.to_thread(subprocess.run, [tool, "-b", "-c", str(passwords), "gw", "right"], check=True)
    passwords.chmod(0o644)
    broker = mosquitto(f"password_file {passwords}", anonymous=False)
    wrong = MqttConfig.model_validate(
        {"port": broker.port, "client_id": "gw-test", "username": "gw", "password": "wrong"}
    )
    ingest = kind(wrong, [FILTER])
    consumer = Consumer(ingest)
    await until(lambda: "next attempt" in caplog.text)
    await ingest.close()
    await consumer.task
    record = next(record for record in caplog.records if "next attempt" in record.message)
    assert record.levelno == logging.ERROR
    assert "mqtt.username and password_file" in record.message
    assert record.__dict__["delay_s"] >= 15
    assert "wrong;" not in record.message
    right = MqttConfig.model_validate(
        {"port": broker.port, "client_id": "gw-test", "username": "gw", "password": "right"}
    )
    async with consuming(kind(right, [FILTER])) as consumer:
        assert consumer.ingest.connected


@both
async def test_tls_with_a_client_certificate(
    mosquitto: Mosquitto, kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, made in (("server", ca.issue_cert("127.0.0.1")), ("client", ca.issue_cert("gw-test"))):
        made.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        made.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    broker = mosquitto(
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
        "require_certificate true",
    )
    trusted = {"tls": True, "tls_ca": tmp_path / "ca.pem"}
    files = {"tls_cert": tmp_path / "client.pem", "tls_key": tmp_path / "client.key"}
    async with consuming(kind(settings(broker.port, **trusted, **files), [FILTER, "own"])) as consumer:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        context.load_cert_chain(files["tls_cert"], files["tls_key"])
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.tls_set_context(context)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        for number in range(3000):
            client.publish("own", str(number), qos=1)
        await until(lambda: len(consumer.numbers) >= 3000)
        client.disconnect()
        client.loop_stop()
        assert consumer.numbers == list(range(3000))
    ingest = kind(settings(broker.port, tls=True, **files), [FILTER])
    untrusting = Consumer(ingest)
    await until(lambda: "not trusted" in caplog.text)
    await ingest.close()
    await untrusting.task
    assert "mqtt.tls_ca" in caplog.text


async def test_the_embedded_broker_by_mqtt_5(iotcore_broker: IotcoreBroker) -> None:
    port = iotcore_broker.v5_port
    async with consuming(Mqtt5Ingest(settings(port), [FILTER]), acknowledge=False):
        pass
    async with consuming(Mqtt5Ingest(settings(port), [FILTER])) as consumer:
        await asyncio.to_thread(publish, iotcore_broker.v4_port, range(5000), inflight=50)
        await until(lambda: len(consumer.numbers) >= 5000, 60)
        assert consumer.numbers == list(range(5000))


async def test_the_embedded_broker_by_mqtt_3_1_1(iotcore_broker: IotcoreBroker) -> None:
    port = iotcore_broker.v4_port
    async with consuming(PahoIngest(settings(port, protocol="3.1.1"), [FILTER])) as consumer:
        await asyncio.to_thread(publish, port, range(2000), inflight=50)
        await until(lambda: len(consumer.numbers) >= 2000, 60)
        assert consumer.numbers == list(range(2000))


async def test_a_broker_without_mqtt_5_is_told_apart(
    iotcore_broker: IotcoreBroker, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = Mqtt5Ingest(settings(iotcore_broker.v4_port), [FILTER])
    consumer = Consumer(ingest)
    await until(lambda: "next attempt" in caplog.text)
    await ingest.close()
    await consumer.task
    assert 'mqtt.protocol = "3.1.1"' in caplog.text


@both
async def test_pending_messages_are_yielded_after_stop_and_none_is_taken_anew(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    ingest = kind(settings(broker.port, batch_time=60.0), [FILTER])
    async with consuming(ingest) as consumer:
        await asyncio.to_thread(publish, broker.port, range(100))
        await until(lambda: ingest._held == 100)
        assert consumer.numbers == []
        await ingest.stop()
        await asyncio.wait_for(consumer.task, 5)
        assert consumer.numbers == list(range(100))
        await asyncio.to_thread(publish, broker.port, range(100, 200))
    async with consuming(kind(settings(broker.port), [FILTER])) as later:
        await until(lambda: len(later.numbers) >= 100)
        assert later.numbers == list(range(100, 200))


@both
async def test_the_status_topic_says_whether_the_gateway_is_there(mosquitto: Mosquitto, kind: Kind) -> None:
    broker = mosquitto()
    seen: list[bytes] = []
    watcher = paho.Client(CallbackAPIVersion.VERSION2)
    watcher.on_message = lambda _client, _data, message: seen.append(bytes(message.payload))
    watcher.connect("127.0.0.1", broker.port)
    watcher.subscribe("citygate/gw-test/status", 1)
    watcher.loop_start()
    async with consuming(kind(settings(broker.port), [FILTER])):
        await until(lambda: seen == [b"online"])
    await until(lambda: seen == [b"online", b"offline"])
    watcher.disconnect()
    watcher.loop_stop()


@both
async def test_a_broker_that_stops_answering_is_left(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    connections = 0
    connack = mqtt5.ConnAckPacket().write() if kind is Mqtt5Ingest else b"\x20\x02\x00\x00"
    suback = mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write()

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1)
        writer.write(connack + (suback if kind is Mqtt5Ingest else b"\x90\x03\x00\x01\x01"))
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(fall_silent, "127.0.0.1", 0)
    ingest = kind(settings(server.sockets[0].getsockname()[1], keep_alive=1.0), [FILTER])
    async with consuming(ingest):
        await until(lambda: connections >= 2, 15)
    server.close()
    assert "next attempt" in caplog.text


async def test_a_second_client_of_the_same_name_is_named(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = mosquitto()
    async with consuming(Mqtt5Ingest(settings(broker.port), [FILTER])):
        async with consuming(Mqtt5Ingest(settings(broker.port), [FILTER])):
            await until(lambda: "another client" in caplog.text)
        assert "'gw-test'" in caplog.text


async def test_a_brokers_own_limit_of_messages_in_flight_does_not_slow_the_stream(mosquitto: Mosquitto) -> None:
    broker = mosquitto("max_inflight_messages 20")
    ingest = Mqtt5Ingest(settings(broker.port), [FILTER])
    async with consuming(ingest):
        pass
    await asyncio.to_thread(publish, broker.port, range(2000), inflight=20)
    async with consuming(Mqtt5Ingest(settings(broker.port), [FILTER])) as consumer:
        await until(lambda: len(consumer.numbers) >= 2000, 10)  # 20 s if each 20 waited for the batch time
        assert consumer.numbers == list(range(2000))


class Pipe(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the codec panics; that is the point
async def test_any_fragmentation_retained_qos_2_and_an_unreadable_topic_lose_nothing() -> None:
    ingest = Mqtt5Ingest(settings(1), [FILTER])
    link = module.Link(ingest, asyncio.get_running_loop())
    pipe = Pipe()
    link.connection_made(pipe)
    level = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.EXACTLY_ONCE)
    packets = [
        mqtt5.PublishPacket(
            f"t/{number}",
            b"x" * number,
            qos=level[number % 3],
            packet_id=number if number % 3 else None,
            retain=number % 5 == 0,
        ).write()
        for number in range(1, 60)
    ]
    unreadable = b"\x32\x09\x00\x02\xff\x41\x00\x63\x00hi"  # a topic that is not UTF-8
    stream = b"".join([*packets, unreadable])
    for start in range(0, len(stream), 7):
        link.data_received(stream[start : start + 7])
    batch = ingest._filling
    assert batch.topics == [*(f"t/{number}" for number in range(1, 60)), "\\xffA"]
    assert batch.payloads == [*(b"x" * number for number in range(1, 60)), b"hi"]
    assert batch.retained == {place for place in range(59) if (place + 1) % 5 == 0}
    assert len(batch.received) == 60
    pipe.written = b""
    ingest.acknowledge(batch)
    expected = b"".join(
        (b"\x40\x02" if number % 3 == 1 else b"\x50\x02") + number.to_bytes(2) for number in range(1, 60) if number % 3
    )
    assert pipe.written == expected + b"\x40\x02\x00\x63"
    assert isinstance(batch.receipt, Receipt)
    assert (ingest._held, ingest._held_bytes) == (0, 0)
    pipe.written = b""
    ingest.acknowledge(batch)
    assert pipe.written == b""
    link.data_received(mqtt5.PubRelPacket(2).write())
    assert pipe.written == mqtt5.PubCompPacket(2).write()
    link.data_received(b"\x00\x00")  # no packet of MQTT
    assert pipe.closed
    assert isinstance(link.closed.exception(), Exception)
