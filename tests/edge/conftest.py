"""What the tests of forwarding share."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.edge import forward
from tests.edge.forwarding import Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application(client_max_size=2**26)
    application.router.add_post("/api/v2/write", server.write)
    application.router.add_post("/write", server.write)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(forward, "_LEAST_DELAY", 0.01)
    monkeypatch.setattr(forward, "_LONGEST_DELAY", 0.05)
    monkeypatch.setattr(forward, "_SLOW_DELAYS", (0.02, 0.1))
    monkeypatch.setattr(forward, "_STUCK_DELAY", 0.2)
