"""TLS to an output, with client certificates that are renewed under way."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from gateway.config import OutputConfig
from gateway.edge import forward
from tests.edge.forwarding import entry, forwarding, lines_of, points
from tests.servers.wait import until

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_SLOW_DELAYS", (0.1, 0.2))


@dataclass
class SecureServer:
    """Takes points from clients with a certificate of its authority; remembers which."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)
    stored: set[bytes] = field(default_factory=set)
    requests: int = 0
    serials: list[str] = field(default_factory=list)  # a new one each time that another certificate comes
    half_closed: int = 0  # connections that ended within a request
    url: str = ""

    def __post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))

    @property
    def files(self) -> dict[str, Any]:
        return {
            "tls_ca": self.folder / "ca.pem",
            "tls_cert": self.folder / "client.pem",
            "tls_key": self.folder / "client.key",
        }

    def renew(self, authority: trustme.CA | None = None) -> None:
        """Writes a new certificate and then its key, as a renewal does."""
        made = (authority or self.authority).issue_cert("gw")
        (self.folder / "client.pem").write_bytes(made.cert_chain_pems[0].bytes())
        (self.folder / "client.key").write_bytes(made.private_key_pem.bytes())

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(HOST).configure_cert(context)
        self.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def write(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        serial = request.transport.get_extra_info("peercert")["serialNumber"]
        if self.serials[-1:] != [serial]:
            self.serials.append(serial)
        try:
            body = await request.read()
        except (OSError, asyncio.CancelledError):
            self.half_closed += 1
            raise
        self.requests += 1
        self.stored.update(body.removesuffix(b"\n").split(b"\n"))
        return web.Response(status=204)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SecureServer]:
    server = SecureServer(tmp_path)
    application = web.Application(client_max_size=2**26)
    application.router.add_post("/api/v2/write", server.write)
    application.router.add_post("/write", server.write)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=server.context()).start()
    server.url = f"https://{HOST}:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def output(server: SecureServer, kind: str = "influxdb2", **settings: object) -> OutputConfig:
    keys = {"name": "out", "type": kind, "url": server.url, "flush_interval": "100ms", **settings}
    return OutputConfig.model_validate(keys)


@pytest.mark.parametrize("kind", ["influxdb2", "influxdb1"])
async def test_certificates_renewed_under_way_lose_no_point(
    tmp_path: Path, server: SecureServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.renew()
    sent = 0
    async with forwarding(tmp_path, output(server, kind, **server.files)) as (spool, forwarder):
        for renewal in range(5):
            until_seen = renewal + 1
            while len(server.serials) < until_seen:
                await spool.append(entry(points(sent, sent + 20)))
                sent += 20
                await asyncio.sleep(0.005)
            server.renew()
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, sent))
        assert len(set(server.serials)) >= 5
        assert server.half_closed == 0
        assert forwarder.status()["last_error"] is None
        assert spool.ledger().total["delivered"] == sent
    assert "renewed" in caplog.text


async def test_a_renewal_that_is_half_done_stops_nothing(tmp_path: Path, server: SecureServer) -> None:
    server.renew()
    async with forwarding(tmp_path, output(server, **server.files)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        assert await forwarder.flush(20)
        for number, text in enumerate((b"", b"-----BEGIN CERTIFICATE-----\n", None), start=1):
            server.files["tls_cert"].unlink()
            if text is not None:
                server.files["tls_cert"].write_bytes(text)
            await spool.append(entry(points(10 * number, 10 * number + 10)))
            await until(lambda: len(server.stored) == 10 * number + 10)  # noqa: B023
        assert len(server.serials) == 1
        assert forwarder.status()["last_error"] is None
        server.renew()
        await spool.append(entry(points(90, 100)))
        assert await forwarder.flush(20)
        assert len(server.serials) == 2


async def test_a_certificate_of_a_stranger_is_explained_until_it_is_mended(
    tmp_path: Path, server: SecureServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.renew(trustme.CA())
    async with forwarding(tmp_path, output(server, **server.files)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert "tls_cert and tls_key" in forwarder.status()["last_error"]
        server.renew()
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, 10))
    key = server.files["tls_key"].read_text("ascii").splitlines()[1]
    assert key not in caplog.text


async def test_a_server_that_is_not_trusted_gets_nothing(tmp_path: Path, server: SecureServer) -> None:
    server.renew()
    trusted = server.files["tls_ca"].read_bytes()
    trustme.CA().cert_pem.write_to_path(str(server.files["tls_ca"]))
    async with forwarding(tmp_path, output(server, **server.files)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert "CERTIFICATE_VERIFY_FAILED" in forwarder.status()["last_error"]
        assert not server.stored
        server.files["tls_ca"].write_bytes(trusted)
        assert await forwarder.flush(20)


async def test_files_that_are_absent_at_the_start_are_waited_for(tmp_path: Path, server: SecureServer) -> None:
    async with forwarding(tmp_path, output(server, **server.files)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert f"tls_cert = {server.files['tls_cert']}: No such file" in forwarder.status()["last_error"]
        server.renew()
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, 10))
