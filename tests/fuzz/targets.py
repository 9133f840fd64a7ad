"""What is fuzzed: each target takes any bytes, and raises if something is lost, miscounted or cannot be stored."""

import asyncio
import contextlib
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.config import MqttConfig, SourceConfig
from gateway.edge import salvage
from gateway.edge.ingest import MAX_PACKET, Link, Mqtt5Ingest
from sensors import stream
from sensors.formats import BUILTIN, Declared, PayloadError, find
from sensors.lineprotocol import parse
from tests.edge.test_way import Way

FOREIGN = SourceConfig(name="foreign", topic="x/{sensor}/#", kind="water", site="s", time=None, units={"level": "cm"})
_LOOP = asyncio.new_event_loop()
CONNACK = b"\x20\x03\x00\x00\x00"


def payload(data: bytes) -> None:
    """Payloads and topics, from decode to line protocol. Messages are parted by 0xFF, topic and payload by 0xFE."""
    messages = []
    for part in data.split(b"\xff"):
        head, parted, rest = part.partition(b"\xfe")
        topic = head.decode(errors="backslashreplace") if parted else "city/a/air/b"
        messages.append((topic, rest if parted else head))
    entry = Way(SourceConfig(), FOREIGN).send(messages)
    for counts in entry.counts.values():
        assert counts["received"] == sum(count for fate, count in counts.items() if fate != "received")
        assert min(counts.values()) >= 0
    assert sum(counts["dead"] for counts in entry.counts.values()) == sum(letter.readings for letter in entry.dead)
    for lines in (entry.lines, entry.quarantine, entry.events):
        if lines:
            points, errors = parse(lines, "ms")
            assert not errors, errors
            assert len(points) == lines.count(b"\n") + 1


_FORMATS = [find(name) for name in BUILTIN]  # imported now, so that the fuzzer sees into them
_TOPICS = ("city/a/air/b", "tele/a/SENSOR", "zigbee2mqtt/a", "spBv1.0/a/NBIRTH/b", "spBv1.0/a/NDATA/b")


def formats(data: bytes) -> None:
    """Any bytes to every format, as a payload and again: samples that can be stored, or a refusal."""
    for kind in _FORMATS:
        form = kind(Declared("ts"))
        for topic in _TOPICS * 2:
            try:
                decoded = form.decode(topic, data, 1_700_000_000_000)
            except PayloadError as error:
                assert str(error).isprintable(), error  # noqa: PT017 - a refusal is one line
                continue
            for sample in decoded.samples:
                assert not any(map(math.isinf, sample.values.values())), sample
                assert "\n" not in "".join(sample.problems), sample
                assert sample.quality.keys() <= sample.values.keys(), sample


class _Wire(asyncio.Transport):
    """Takes what is written, and can be closed."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def packet(data: bytes) -> None:
    """Whatever a broker sends, in two pieces: it is taken, or the connection is given up with a reason."""

    async def serve() -> None:
        ingest = Mqtt5Ingest(MqttConfig(client_id="fuzz"), ["city/#"])
        link = Link(ingest, asyncio.get_running_loop())
        link.connection_made(_Wire())
        link.data_received(CONNACK)
        cut = data[0] if data else 0
        for piece in (data[1 : 1 + cut], data[1 + cut :]):
            if piece and not link.closed.done():
                link.data_received(piece)
        assert len(link._rest) <= MAX_PACKET
        for batch in [*ingest._ready, ingest._filling]:
            assert len(batch.topics) == len(batch.payloads) == len(batch.received)
        link.connection_lost(None)
        link.closed.exception()
        await ingest.stop()

    _LOOP.run_until_complete(serve())


def line_protocol(data: bytes) -> None:
    """What others write to the city view: points and errors, never anything else."""
    points, errors = parse(data, "ms")
    assert len(points) + len(errors) <= data.count(b"\n") + 1


def spool(data: bytes) -> None:
    """A file of any bytes where the spool should be: records or none."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for record in salvage.records(Path(file.name)):
            assert isinstance(record, tuple)


def recording(data: bytes) -> None:
    """A file of any bytes where a recording should be, and any bytes where a block's columns should be."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(stream.StreamError), stream.Reader(Path(file.name)) as reader:
            assert sum(1 for _ in reader) <= reader.summary().messages
    count, raw = int.from_bytes(data[:2]), data[2:]
    block = stream._Block(0, 1, 0, count, len(raw), 0, 0, 0, 0, 0, 0)
    with contextlib.suppress(ValueError):
        messages = [*stream._unpack_messages(block, raw)]
        assert len(messages) == count
        assert sum(len(message.payload) + len(message.properties) for message in messages) <= len(raw)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "payload": payload,
    "formats": formats,
    "packet": packet,
    "line_protocol": line_protocol,
    "spool": spool,
    "recording": recording,
}
