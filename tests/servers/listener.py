"""A subscriber that hears all of a broker's `city/#`, and a wire to a broker that can be cut."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


class Listener:
    """Hears `city/#` at QoS 1; a context manager.

    Attributes:
        heard: Topics and payloads in order of arrival.
    """

    def __init__(self, port: int, username: str | None = None, password: str | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._last = time.monotonic()
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.username_pw_set(username, password)
        self._client.on_connect = lambda client, *_: client.subscribe("city/#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._hear(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload)))
        self._last = time.monotonic()

    def quiet(self) -> bool:
        """Whether nothing came for two seconds."""
        return time.monotonic() - self._last > 2

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"heard {len(self.heard)} messages"
            time.sleep(0.01)


class Wire:
    """A TCP proxy to a port that loses its first connections after some bytes; a context manager.

    Args:
        port: Where it leads.
        cuts: After how many bytes towards the broker it cuts the first, second, ... connection.
    """

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._target = port
        self._cuts = list(cuts)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                limit = self._cuts.pop(0) if self._cuts else None
                for source, sink, most in ((near, far, limit), (far, near, None)):
                    threading.Thread(target=self._carry, args=(source, sink, most), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, most: int | None) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                carried += len(data)
                if most is not None and carried > most:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
