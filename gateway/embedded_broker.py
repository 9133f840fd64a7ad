"""The embedded broker: rumqttd, in the wheel ``iotcore``, for the demo and for tests.

It keeps its messages in memory, for one site on one machine; a real site runs mosquitto. It has a listener for each
version of MQTT, and what is published at one is delivered at both.
"""

import socket
import struct
from pathlib import Path

PACKAGE = "iotcore"
KEPT = 2**24 * 8
"""Bytes of messages that it keeps for a subscriber who is behind; it drops the oldest beyond."""
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
    body = _CONNECT.pack(4, b"MQTT", 5 if v5 else 4, 2, 60) + (b"\0" if v5 else b"") + struct.pack("!H5s", 5, b"probe")
    try:
        with socket.create_connection(("127.0.0.1", port), within) as link:
            link.sendall(bytes((0x10, len(body))) + body)
            return link.recv(1)[:1] == bytes((_CONNACK,))
    except OSError:
        return False
