"""Plates and addresses go into a real broker, and are looked for wherever the gateway writes and sends."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.edge.spool import Peek
from tests.servers.conftest import Mosquitto
from tests.servers.test_agent import START, publish, wait_for
from tests.servers.test_clock_way import Turned, _now

PLATES = ("京A12345", "粤B·D12345", "12가3456")
MACS = ("A4:83:E7:5C:11:22", "a483e75c1133", "DA-A1-19-5C-11-22")
PHONE = "13800138000"
PERSONAL = (*PLATES, *MACS, PHONE)
HARMLESS = "no-number-at-all"
"""Stands in a dead letter: what shows that the search finds what there is."""


class Database:
    """A server that keeps what it is sent, in plain; closed until it is opened."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.open = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
                self.send_response(204 if outer.open else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def database() -> Iterator[Database]:
    server = Database()
    yield server
    server.close()


@pytest.fixture
def gateway(
    tmp_path: Path,
    free_port: Callable[[], int],
    program: Callable[[str, str], str],
    mosquitto: Mosquitto,
    database: Database,
) -> Iterator[tuple[Turned, int]]:
    """A gateway on a clock that can be turned, with all that it writes in one folder, and its broker's port."""
    program("faketime", "faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    broker, port, folder = mosquitto(), free_port(), tmp_path / "device"
    folder.mkdir()
    path = folder / "gateway.toml"
    path.write_text(
        f"""[gateway]
id = "gw"
health_port = {port}
health_interval = "1s"
log_level = "debug"
[mqtt]
port = {broker.port}
batch_time = "10ms"
[clock]
trust = "system"
[limits]
payload = "2KiB"
[[source]]
[[source]]
name = "cameras"
topic = "cameras/{{sensor}}"
kind = "traffic"
site = "east"
personal = true
[[output]]
type = "influxdb1"
url = "http://127.0.0.1:{database.port}"
flush_interval = "100ms"
""",
        "utf-8",
    )
    made = Turned(path, port, broker.port, library=str(library))
    yield made, broker.port
    if made.process is not None:
        made.kill()


def messages(number: int) -> list[tuple[str, bytes]]:
    """One of each way in which a payload can be right or wrong, with everything personal in it."""
    moment = START + number

    def said(*, timed: bool = True, **fields: object) -> bytes:
        everything = {"plate": PLATES[number % 3], "mac": [*MACS], "phoneNumber": int(PHONE), **fields}
        return json.dumps({"ts": moment, **everything} if timed else everything, ensure_ascii=bool(number % 2)).encode()

    payloads = [
        said(speed=40),
        said(speed=41, timed=False),
        said(speed="fast"),
        said(),
        said(speed=42, ts="never"),
        said(speed=43)[:-2],
        said(speed=44, rest=" " * 3000),
        said(speed=45).decode().encode("utf-16"),
        f"@@{number};{';'.join(PERSONAL)}".encode(),
        f"{number} plate={PLATES[0]} mac={MACS[0]} {PHONE}".encode(),
    ]
    topics = ("city/east/passage/gate", "city/east/traffic/lane", "city/east/camera/c1", "cameras/c2")
    return [(topic, payload) for topic in topics for payload in payloads if b"@@" not in payload or "passage" in topic]


def found(texts: list[bytes]) -> list[str]:
    return [value for value in PERSONAL for text in texts if any(way in text for way in written(value))]


def written(value: str) -> list[bytes]:
    bare = "".join(sign for sign in value if sign.isalnum())
    of_text = [value.encode(), value.encode("utf-16-le"), json.dumps(value)[1:-1].encode(), bare.encode()]
    return [*of_text, bare.upper().encode(), bare.lower().encode()]


def on_disk(gateway: Turned) -> list[bytes]:
    """Every byte that the gateway has written; points and messages also as they are before they are compressed."""
    folder = gateway.config.parent
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    with Peek(folder / "data" / "spool.db") as peek:
        for waiting in peek.rows():
            row = peek.row(waiting.id)
            texts += [] if row is None else row.text()
        texts += [letter.payload + letter.reason.encode() + letter.topic.encode() for letter in peek.dead_letters()]
        texts += [held.payload for held in peek.held()]
    return texts


def test_no_plate_and_no_address_reaches_the_disk_the_log_or_the_network(
    gateway: tuple[Turned, int], database: Database
) -> None:
    device, broker = gateway
    device.turn(300 - _now() // 1000)
    device.start()
    sent = [message for number in range(4) for message in messages(number)]
    publish(broker, [*sent, ("city/east/air/a", f'{{"pm25": "{HARMLESS}"}}'.encode())])
    wait_for(lambda: any(HARMLESS.encode() in text for text in on_disk(device)), "the last message on the disk")
    publish(broker, sent)
    device.kill()

    texts = on_disk(device)
    assert found(texts) == []
    assert any(HARMLESS.encode() in text for text in texts), "the search finds what is there"
    with Peek(device.config.parent / "data" / "spool.db") as peek:
        assert peek.held(), "some wait for the clock"
        assert any(b"withheld" in letter.payload for letter in peek.dead_letters())
        assert peek.ledger().mismatches() == []

    device.start()
    device.turn(0)
    database.open = True
    wait_for(lambda: any(b"speed=41" in body for body in database.received), "what was held to be delivered")
    wait_for(lambda: device.counts("queued", 0), "everything to be delivered")
    publish(broker, sent)
    wait_for(lambda: device.ledger()["duplicate"] > 0, "what is known to be known")
    assert device.stop() == 0
    assert found(on_disk(device)) == []
    assert found(database.received) == []
    assert b"passage,gateway=gw,sensor=gate,site=east speed=40.0" in b"\n".join(database.received)
    assert "京" not in device.log()
