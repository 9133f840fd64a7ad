"""Certificates towards a real broker: renewed while messages flow, and every way in which they can be wrong."""

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.edge import ingest as module
from tests.servers.conftest import Mosquitto, Server
from tests.servers.consumer import FILTER, Consumer, Kind, both, consuming, settings
from tests.servers.wait import until


class Certificates:
    """A CA, and what it signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        for name in ("ca.pem", "trusted.pem"):  # the broker's and the gateway's
            self.ca.cert_pem.write_to_path(str(folder / name))
        self.issue("server", "127.0.0.1")
        self.issue("client", "gw-test")
        self.issue("sensor", "n-1")

    def issue(self, name: str, who: str, *, ca: trustme.CA | None = None, days: int = 30) -> None:
        """Writes a certificate and its key, each whole, one after the other."""
        now = datetime.now(UTC)
        made = (ca or self.ca).issue_cert(
            who, common_name=who, not_before=now - timedelta(days=60), not_after=now + timedelta(days=days)
        )
        for suffix, blob in (("key", made.private_key_pem), ("pem", made.cert_chain_pems[0])):
            fresh = self.folder / f"{name}.{suffix}.new"
            blob.write_to_path(str(fresh))
            fresh.replace(self.folder / f"{name}.{suffix}")

    def settings(self, port: int, **more: object) -> dict[str, object]:
        """TLS settings of the ingest."""
        files = {"tls_ca": "trusted.pem", "tls_cert": "client.pem", "tls_key": "client.key"}
        return {"port": port, "tls": True, **{key: self.folder / name for key, name in files.items()}, **more}

    @contextlib.contextmanager
    def publishing(self, port: int) -> Iterator[list[int]]:
        """A sensor with a certificate of its own that publishes numbers all the while; yields those the broker has."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "sensor.pem", self.folder / "sensor.key")
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.tls_set_context(context)
        client.connect("127.0.0.1", port)
        client.loop_start()
        stop, sent = threading.Event(), list[int]()

        def publish() -> None:
            while not stop.wait(0.002):
                client.publish("city/a/air/n-1", str(len(sent)), qos=1).wait_for_publish(20)
                sent.append(len(sent))

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield sent
        finally:
            stop.set()
            thread.join()
            client.disconnect()
            client.loop_stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def broker(mosquitto: Mosquitto, certificates: Certificates) -> Server:
    """A broker that wants certificates, and takes the name in them as the account."""
    folder = certificates.folder
    return mosquitto(
        f"cafile {folder}/ca.pem",
        f"certfile {folder}/server.pem",
        f"keyfile {folder}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
        anonymous=False,
    )


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL_CHECK", 0.05)


@both
async def test_a_renewed_certificate_is_used_and_no_message_lost(
    broker: Server, certificates: Certificates, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ingest = kind(settings(**certificates.settings(broker.port)), [FILTER])  # type: ignore[arg-type]
    async with consuming(ingest) as consumer:
        with certificates.publishing(broker.port) as sent:
            for renewal in range(1, 4):
                enough = len(sent) + 100
                await until(lambda enough=enough: len(sent) > enough)  # type: ignore[misc]
                certificates.issue("client", f"gw-renewed-{renewal}")
                await until(lambda renewal=renewal: f"u'gw-renewed-{renewal}'" in broker.log())  # type: ignore[misc]
                await until(lambda: ingest.connected)
            enough = len(sent) + 100
            await until(lambda: len(sent) > enough)
        await until(lambda: set(consumer.numbers) == set(sent))
        again = [int(batch.payloads[place]) for batch in consumer.batches for place in batch.redelivered]
        assert len(consumer.numbers) - len(again) <= len(sent)  # what came twice was said to
        assert list(dict.fromkeys(consumer.numbers)) == sent
    assert "forgot the session" not in caplog.text
    assert not [
        record for record in caplog.records if record.name == "citygate.ingest" and record.levelno > logging.INFO
    ]
    assert caplog.text.count("connecting again with the new TLS files") == 3


@both
async def test_messages_in_hand_are_acknowledged_before_the_connection_is_made_anew(
    broker: Server, certificates: Certificates, kind: Kind
) -> None:
    ingest = kind(settings(**certificates.settings(broker.port)), [FILTER])  # type: ignore[arg-type]
    async with consuming(ingest, acknowledge=False) as consumer:
        with certificates.publishing(broker.port) as sent:
            await until(lambda: len(consumer.numbers) > 20)
        await until(lambda: len(consumer.numbers) == len(sent))
        certificates.issue("client", "gw-renewed")
        await until(lambda: ingest._renewing)
        assert ingest.connected
        consumer.acknowledge = True
        for batch in consumer.batches:
            ingest.acknowledge(batch)
        await until(lambda: "u'gw-renewed'" in broker.log() and ingest.connected)
        with certificates.publishing(broker.port) as more:
            await until(lambda: len(more) > 20)
        await until(lambda: len(consumer.numbers) == len(sent) + len(more))
        assert not any(batch.redelivered for batch in consumer.batches)


@both
async def test_a_gateway_that_cannot_commit_connects_anew_all_the_same(
    broker: Server, certificates: Certificates, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWAL_WAIT", 0.2)
    ingest = kind(settings(**certificates.settings(broker.port)), [FILTER])  # type: ignore[arg-type]
    async with consuming(ingest, acknowledge=False) as consumer:
        with certificates.publishing(broker.port) as sent:
            await until(lambda: len(consumer.numbers) > 20)
        await until(lambda: len(consumer.numbers) == len(sent))
        certificates.issue("client", "gw-renewed")
        await until(lambda: len(consumer.numbers) == 2 * len(sent))  # the broker had no word of them
        assert "u'gw-renewed'" in broker.log()
        assert sum(len(batch.redelivered) for batch in consumer.batches) == len(sent)


@both
async def test_a_broken_new_file_keeps_the_connection_and_is_told_once(
    broker: Server, certificates: Certificates, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = kind(settings(**certificates.settings(broker.port)), [FILTER])  # type: ignore[arg-type]
    async with consuming(ingest) as consumer:
        (certificates.folder / "client.pem").write_text("half a certificate", "ascii")
        await until(lambda: "cannot be used yet" in caplog.text)
        with certificates.publishing(broker.port) as sent:
            await until(lambda: len(sent) > 100)
        await until(lambda: consumer.numbers == sent)
        assert caplog.text.count("cannot be used yet") == 1
        assert broker.log().count("as gw-test") == 1
        certificates.issue("client", "gw-renewed")
        await until(lambda: "u'gw-renewed'" in broker.log() and ingest.connected)


@both
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong CA", "Set mqtt.tls_ca to the CA that signed it"),
        ("expired", "Renew the client certificate"),
        ("foreign", "The broker must trust the CA that signed the client certificate"),
        ("none", "Does it want a client certificate (mqtt.tls_cert, tls_key)?"),
        ("absent", "client.key: No such file"),
    ],
)
async def test_a_wrong_certificate_is_told_with_what_to_do_and_tried_again(  # noqa: PLR0913, PLR0917 - fixtures
    broker: Server,
    certificates: Certificates,
    kind: Kind,
    fault: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BACKOFF_CAP", 0.2)
    values, folder = certificates.settings(broker.port), certificates.folder
    match fault:
        case "wrong CA":
            trustme.CA().cert_pem.write_to_path(str(folder / "trusted.pem"))
        case "expired":
            certificates.issue("client", "gw-test", days=-1)
        case "foreign":
            certificates.issue("client", "gw-test", ca=trustme.CA())
        case "none":
            values |= {"tls_cert": None, "tls_key": None}
        case _:
            (folder / "client.key").unlink()
    ingest = kind(settings(**values), [FILTER])  # type: ignore[arg-type]
    consumer = Consumer(ingest)
    await until(lambda: caplog.text.count("next attempt") >= 3)
    assert not ingest.connected
    errors = [record for record in caplog.records if "next attempt" in record.message]
    assert {record.levelno for record in errors} == {logging.ERROR}
    assert all(reason in record.message for record in errors), [record.message for record in errors]
    if fault != "none":  # mended, it connects by itself
        certificates.ca.cert_pem.write_to_path(str(folder / "trusted.pem"))
        certificates.issue("client", "gw-test")
        await until(lambda: ingest.connected)
    await ingest.close()
    await asyncio.wait_for(consumer.task, 10)
