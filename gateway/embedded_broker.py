"""The embedded broker: rumqttd, in the wheel ``iotcore``, for the demo and for tests.

It keeps its messages in memory, for one site on one machine; a real site runs mosquitto. It has a listener for each
version of MQTT, and what is published at one is delivered at both.
"""

import os
import socket
import struct
from pathlib import Path

PACKAGE = "iotcore"
_CONFIG = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 2000
max_segment_size = 16777216
max_segment_count = 8
"""
_LISTENER = """\
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {payload}
max_inflight_count = 2000
dynamic_filters = true
"""
_CONNECT = struct.Struct("!H4sBBH")
_CONNACK = 0x20
_DISCONNECT = b"\xe0\0"


def arguments(folder: Path, *, mqtt: int, mqtt5: int, payload: int = 2**18) -> list[str]:
    """Writes its configuration, ``broker.toml``, into a folder.

    Args:
        folder: Where its configuration goes.
        mqtt: Port of loopback for MQTT 3.1.1.
        mqtt5: Port of loopback for MQTT 5.
        payload: Bytes of the largest message.

    Returns:
        What Python starts it with.
    """
    path = folder / "broker.toml"
    listeners = [
        _LISTENER.format(version=version, port=port, payload=payload) for version, port in (("v4", mqtt), ("v5", mqtt5))
    ]
    path.write_text("".join([_CONFIG, *listeners]), "ascii")
    return ["-m", PACKAGE, "--config", str(path), "--log-level", "CRITICAL"]


def answers(port: int, *, v5: bool, within: float = 2.0) -> bool:
    """Whether a broker accepts a client there.

    Args:
        port: Port of loopback.
        v5: Whether to ask by MQTT 5 or 3.1.1.
        within: Seconds.
    """
    name = os.urandom(8).hex().encode()  # a name that comes back while its last session ends can hang for ever
    body = _CONNECT.pack(4, b"MQTT", 5 if v5 else 4, 2, 60) + (b"\0" if v5 else b"")
    body += struct.pack("!H", len(name)) + name
    try:
        with socket.create_connection(("127.0.0.1", port), within) as link:
            link.sendall(bytes((0x10, len(body))) + body)
            accepted = link.recv(1)[:1] == bytes((_CONNACK,))
            link.sendall(_DISCONNECT)
    except OSError:
        return False
    return accepted
