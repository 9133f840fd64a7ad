"""The shipped broker settings, tried on mosquitto itself."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

if TYPE_CHECKING:
    from tests.deploy.conftest import Site

TIMEOUT = 30.0


@pytest.fixture
def broker(site: "Site", program: Callable[[str, str], str]) -> subprocess.Popen[bytes]:
    """Mosquitto on the shipped files."""
    program("mosquitto_pub", "mosquitto-clients")
    return site.start_broker(program("mosquitto", "mosquitto"))


class Client:
    """An MQTT 5 client that remembers what it got.

    Args:
        site: Whose broker.
        user: Account at the broker, or None for none.
        password: Its password.
        session: Name of a session that outlives the connection.
    """

    def __init__(self, site: "Site", user: str | None, password: str = "", session: str = "") -> None:
        """Connects and waits for the broker's answer, which is kept in ``reason``."""
        self.messages: list[bytes] = []
        self.reason: object = None
        self._answered, self._subscribed, self._arrived = threading.Event(), threading.Event(), threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=session, protocol=mqtt.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._answered.set()
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        if user is not None:
            self._client.username_pw_set(user, password)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600 if session else 0
        self._client.connect("127.0.0.1", site.broker_port, clean_start=not session, properties=properties)
        self._client.loop_start()
        assert self._answered.wait(TIMEOUT)

    def _on_connect(self, client: mqtt.Client, data: object, flags: object, reason: object, properties: object) -> None:
        del client, data, flags, properties
        self.reason = reason
        self._answered.set()

    def _on_message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        del client, data
        with self._arrived:
            self.messages.append(bytes(message.payload))
            self._arrived.notify_all()

    def subscribe(self, topic: str) -> None:
        """Subscribes and waits for the broker's answer."""
        self._subscribed.clear()
        self._client.subscribe(topic, qos=1)
        assert self._subscribed.wait(TIMEOUT)

    def publish(self, topic: str, *payloads: str) -> None:
        """Publishes with QoS 1 and waits until the broker has them all."""
        sent = [self._client.publish(topic, payload, qos=1) for payload in payloads]
        for info in sent:
            info.wait_for_publish(TIMEOUT)

    def wait_for(self, count: int) -> None:
        """Returns when this many messages have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, TIMEOUT), len(self.messages)

    def close(self) -> None:
        """Disconnects; a named session stays at the broker."""
        self._client.disconnect()
        self._client.loop_stop()


def _publish_in_vain(site: "Site", user: str, password: str, topic: str) -> None:
    """Publishes what the broker must not let through; some versions also close the connection, which is as well."""
    command = [
        "mosquitto_pub",
        "-p",
        str(site.broker_port),
        "-u",
        user,
        "-P",
        password,
        "-q",
        "1",
        "-t",
        topic,
        "-m",
        "no",
    ]
    subprocess.run(command, check=False, timeout=TIMEOUT, capture_output=True)


def _gateway(site: "Site", session: str = "") -> Client:
    return Client(site, "gateway", site.secret("gateway/mqtt-password"), session)


def _sensor(site: "Site") -> Client:
    return Client(site, "sensor", site.secret("operator/sensor-password"))


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(("user", "password"), [(None, ""), ("gateway", "wrong"), ("nobody", "nothing")])
def test_strangers_are_refused(site: "Site", user: str | None, password: str) -> None:
    client = Client(site, user, password)
    assert str(client.reason) in {"Not authorized", "Bad user name or password"}
    client.close()


@pytest.mark.usefixtures("broker")
def test_sensors_are_heard_by_the_gateway_and_hear_nothing(site: "Site") -> None:
    gateway, sensor, other = _gateway(site), _sensor(site), _sensor(site)
    gateway.subscribe("#")
    other.subscribe("city/#")
    _publish_in_vain(site, "sensor", site.secret("operator/sensor-password"), "elsewhere/longgang/air/air-01")
    sensor.publish("city/longgang/air/air-01", "yes")
    gateway.wait_for(1)
    sensor.publish("city/longgang/air/air-01", "again")
    gateway.wait_for(2)
    assert gateway.messages == [b"yes", b"again"]
    assert other.messages == []
    for client in (gateway, sensor, other):
        client.close()


@pytest.mark.usefixtures("broker")
def test_an_account_named_like_a_site_publishes_for_that_site_only(
    site: "Site", program: Callable[[str, str], str], broker: subprocess.Popen[bytes]
) -> None:
    passwords = site.folder / "credentials/broker/passwords"
    command = [program("mosquitto_passwd", "mosquitto"), "-b", str(passwords), "longgang", "secret"]
    subprocess.run(command, check=True, timeout=TIMEOUT, capture_output=True)
    site.stop(broker)
    site.start_broker(program("mosquitto", "mosquitto"))
    gateway, town = _gateway(site), Client(site, "longgang", "secret")
    gateway.subscribe("city/#")
    _publish_in_vain(site, "longgang", "secret", "city/changhua/air/air-01")
    town.publish("city/longgang/air/air-01", "ours")
    gateway.wait_for(1)
    assert gateway.messages == [b"ours"]
    gateway.close()
    town.close()


@pytest.mark.usefixtures("broker")
def test_an_account_named_like_a_sensor_publishes_as_that_sensor_only(
    site: "Site", program: Callable[[str, str], str], broker: subprocess.Popen[bytes]
) -> None:
    passwords = site.folder / "credentials/broker/passwords"
    for name in ("air-01", "air-02"):
        command = [program("mosquitto_passwd", "mosquitto"), "-b", str(passwords), name, "secret"]
        subprocess.run(command, check=True, timeout=TIMEOUT, capture_output=True)
    site.stop(broker)
    site.start_broker(program("mosquitto", "mosquitto"))
    gateway = _gateway(site)
    gateway.subscribe("city/#")
    for topic in (
        "city/longgang/air/air-02",
        "city/longgang/air-01/air-02",
        "city/air-02/air/air-03",
        "city/longgang/air/air-01/more",
        "city/longgang/air-01",
        "citygate/citygate-gw-1/status",
    ):
        _publish_in_vain(site, "air-01", "secret", topic)
    for name in ("air-01", "air-02"):
        sensor = Client(site, name, "secret")
        sensor.publish(f"city/longgang/air/{name}", name)
        sensor.close()
    gateway.wait_for(2)
    assert gateway.messages == [b"air-01", b"air-02"]
    gateway.close()


def test_a_killed_broker_keeps_what_it_had_written_for_an_absent_gateway(
    site: "Site", broker: subprocess.Popen[bytes], program: Callable[[str, str], str]
) -> None:
    gateway = _gateway(site, "citygate-gw-1")
    gateway.subscribe("city/#")
    gateway.close()
    sensor = _sensor(site)
    sensor.publish("city/longgang/air/air-01", *(str(number) for number in range(300)))
    broker.send_signal(signal.SIGUSR1)  # writes its database, as it does every minute by itself
    written = site.folder / "broker-data/mosquitto.db"
    deadline = time.monotonic() + TIMEOUT
    while not written.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sensor.publish("city/longgang/air/air-01", "later")
    sensor.close()
    broker.kill()
    broker.wait()
    site.start_broker(program("mosquitto", "mosquitto"))
    gateway = _gateway(site, "citygate-gw-1")
    gateway.wait_for(300)
    assert [payload.decode() for payload in gateway.messages] == [str(number) for number in range(300)]
    gateway.close()


def test_messages_for_an_absent_gateway_survive_a_restart_of_the_broker(
    site: "Site", broker: subprocess.Popen[bytes], program: Callable[[str, str], str]
) -> None:
    """6,000 is more than mosquitto's stock queue of 1,000, and than what is in flight at a time."""
    gateway = _gateway(site, "citygate-gw-1")
    gateway.subscribe("city/#")
    gateway.close()
    expected = [str(number) for number in range(6000)]
    sensor = _sensor(site)
    for start in range(0, len(expected), 500):
        sensor.publish("city/longgang/air/air-01", *expected[start : start + 500])
    sensor.close()
    assert site.stop(broker) == 0
    site.start_broker(program("mosquitto", "mosquitto"))
    gateway = _gateway(site, "citygate-gw-1")
    gateway.wait_for(len(expected))
    assert [payload.decode() for payload in gateway.messages] == expected
    gateway.close()


@pytest.mark.usefixtures("broker")
def test_the_containers_health_check_passes(site: "Site", root: Path, program: Callable[[str, str], str]) -> None:
    service = yaml.safe_load((root / "docker-compose.yml").read_text("utf-8"))["services"]["mosquitto"]
    _, name, *arguments = (word.replace("$$", "$") for word in service["healthcheck"]["test"])
    folder = service["environment"]["XDG_CONFIG_HOME"].replace("/etc/citygate", str(site.folder))
    command = [program(name, "mosquitto-clients"), *arguments, "-p", str(site.broker_port)]
    result = subprocess.run(
        command,
        env=os.environ | {"XDG_CONFIG_HOME": folder},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr
    assert "seconds" in result.stdout


def test_the_shipped_settings_need_no_other_folder(site: "Site") -> None:
    """Every path in the broker's config is one that the compose file and the guide provide."""
    config = (site.folder / "mosquitto/mosquitto.conf").read_text("utf-8")
    for line in config.splitlines():
        key, _, value = line.partition(" ")
        if key in {"password_file", "acl_file", "persistence_location", "include_dir"}:
            assert Path(value).exists(), line
