"""Runs the city view until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time

import uvicorn

from gateway.city.app import create_app
from gateway.city.stream import Hub
from gateway.config import CityConfig, ConfigError

_LOG = logging.getLogger(__name__)
_STOP_S = 5
_SWITCH_S = 0.001
_GARBAGE = (20_000, 20, 20)
_SETTLED_S = 30.0


class _Server(uvicorn.Server):
    """Ends the streams before it waits for requests to end.

    What answers requests must not wait 5 ms, Python's default, for each thread that reads the store or packs an answer;
    nor for the garbage collector to look through all that was imported, and a whole town, every second.
    """

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(_SWITCH_S)
        gc.set_threshold(*_GARBAGE)
        gc.collect()
        gc.freeze()
        asyncio.get_running_loop().call_later(_SETTLED_S, gc.freeze)  # what is there by then; freed all the same
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)


def main(config: CityConfig) -> None:
    """Serves the city view; returns within 10 seconds of SIGTERM or SIGINT.

    Args:
        config: The whole configuration.

    Raises:
        ConfigError: If a needed token is missing, the address cannot be listened on, or the store cannot be opened.
    """
    if config.map.timezone is not None:  # by which datetime.astimezone tells local time, everywhere
        os.environ["TZ"] = config.map.timezone
        time.tzset()
    app = create_app(config)
    here = app.state.context
    options = uvicorn.Config(
        app,
        ssl_certfile=config.server.tls_cert,
        ssl_keyfile=config.server.tls_key,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    listener = _listen(config.server.host, config.server.port)
    scheme = "http" if config.server.tls_cert is None else "https"
    _LOG.info("the city view is at %s://%s:%d", scheme, config.server.host, config.server.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again after it stopped; that was no failure
    try:
        _Server(options, here.hub).run([listener])
    except SystemExit:
        if here.view.failure is None:
            raise
        raise ConfigError(str(here.view.failure)) from None
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        msg = f"server: cannot listen on {host} port {port}: {error.strerror or error}; choose another host or port"
        raise ConfigError(msg) from error
    return listener
