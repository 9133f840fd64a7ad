import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors import stream
from sensors.stream import Message, Reader, StreamError, Writer

SECOND = 10**9
KEPT, FRESH = True, False  # retained, not retained
ODD = [
    Message("city/a/air/a1", b'{"ts":1,"pm25":2}', 1, FRESH, b"", 5, 1_767_000_000 * SECOND),
    Message("city/a/air/a1", b"", 0, KEPT, b"", 5, 1_767_000_000 * SECOND),
    Message("kein/UTF-8/\udcff\udc80", bytes(range(256)), 2, FRESH, b"\x26\x00\x01a\x00\x01b", 7, -1, duplicate=True),
    Message("城市/空气", b"\xc6CGBLK\r\n" * 3, 1, KEPT, b"\x01\x01", 2**63 - 1, 2**63 - 1),
    Message("city/a/air/a1", b"clock set back", 1, FRESH, b"", 0, -(2**63)),
]


def write(path: Path, messages: Sequence[Message], *, block: int = 2, append: bool = False) -> list[tuple[int, int]]:
    """Writes a recording; gives for each block where it ends and how many messages there are up to there."""
    ends = []
    with Writer(path, append=append, meta={"by": "test"}) as writer:
        for at in range(0, len(messages), block):
            for message in messages[at : at + block]:
                values = message._asdict()
                del values["run"]
                writer.add(values.pop("topic"), values.pop("payload"), **values)
            writer.flush()
            ends.append((writer.size, writer.messages))
    return ends


def read(path: Path) -> list[Message]:
    with Reader(path) as reader:
        return list(reader)


def numbered(count: int) -> list[Message]:
    return [Message(f"t/{n % 3}", b"%d" % n, 1, FRESH, b"", n * 1000, n * SECOND) for n in range(count)]


def test_what_is_written_is_read_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "odd.cgrec"
    write(path, ODD)
    with Reader(path) as reader:
        assert list(reader) == ODD
        assert list(reader) == ODD
        assert (reader.meta["by"], reader.indexed, reader.damage) == ("test", True, [])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Message,
            st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")),
            st.binary(max_size=60),
            st.integers(0, 2),
            st.booleans(),
            st.binary(max_size=20),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            st.booleans(),
            run=st.just(0),
        ),
        max_size=12,
    )
)
def test_any_messages_come_back(tmp_path_factory: pytest.TempPathFactory, messages: list[Message]) -> None:
    path = tmp_path_factory.mktemp("any") / "any.cgrec"
    write(path, messages, block=3)
    assert read(path) == messages


def test_a_file_cut_at_any_byte_reads_up_to_its_last_whole_block(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole.cgrec", tmp_path / "cut.cgrec"
    messages = numbered(12)
    ends = write(path, messages, block=4)
    data = path.read_bytes()
    start = stream._HEADER.size + data[12] + 256 * data[13]
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        if size < start:
            with pytest.raises(StreamError, match=r"is empty|ends in its header"):
                Reader(cut)
            continue
        there = max((count for end, count in ends if end <= size), default=0)
        with Reader(cut) as reader:
            assert list(reader) == messages[:there], size
            assert not reader.indexed
            assert all(damage.at_end for damage in reader.damage)
            assert bool(reader.damage) == (
                size not in {start, *(end for end, _ in ends)} and not _in_trailer(size, data)
            )
            assert reader.summary().messages == there


def _in_trailer(size: int, data: bytes) -> bool:
    """Behind the index's block nothing is missing that anybody recorded."""
    return size >= len(data) - stream._TRAILER.size


def test_a_file_cut_at_any_byte_can_be_gone_on_with(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole.cgrec", tmp_path / "cut.cgrec"
    messages = numbered(6)
    ends = write(path, messages, block=2)
    data = path.read_bytes()
    start = stream._HEADER.size + data[12]
    for size in range(start, len(data) + 1, 3):
        cut.write_bytes(data[:size])
        there = max((count for end, count in ends if end <= size), default=0)
        write(cut, messages, append=True)
        with Reader(cut) as reader:
            found = list(reader)
            assert [message.payload for message in found] == [m.payload for m in (*messages[:there], *messages)]
            assert (reader.damage, reader.indexed) == ([], True)
            assert {message.run for message in found[there:]} == {1 if there else 0}


@pytest.mark.parametrize("indexed", [True, False])
def test_damage_in_the_middle_is_named_and_reading_goes_on_behind_it(tmp_path: Path, *, indexed: bool) -> None:
    path = tmp_path / "damaged.cgrec"
    messages = numbered(12)
    ends = write(path, messages, block=4)
    data = path.read_bytes()
    if not indexed:
        data = data[: ends[-1][0]]
    start, end = ends[0][0], ends[1][0]
    for byte in range(start, end):
        path.write_bytes(data[:byte] + bytes([data[byte] ^ 0xA5]) + data[byte + 1 :])
        with Reader(path) as reader:
            assert list(reader) == messages[:4] + messages[8:], byte
            (damage,) = reader.damage
            assert (damage.offset, damage.length, damage.at_end) == (start, end - start, False)
            assert f"byte {start:,}: a" in str(damage)


def test_a_block_within_a_payload_is_not_taken_for_one(tmp_path: Path) -> None:
    inner, path = tmp_path / "inner.cgrec", tmp_path / "outer.cgrec"
    write(inner, numbered(4), block=4)
    random = os.urandom(3000)  # so that it is packed as it is
    ends = write(path, [Message("t", random + inner.read_bytes() + random, 1), *numbered(2)], block=1)
    data = bytearray(path.read_bytes()[: ends[-1][0]])
    data[data.index(b"\xc6CGBLK\r\n")] ^= 1
    path.write_bytes(data)
    assert [message.payload for message in read(path)] == [b"0", b"1"]


def test_a_damaged_header_costs_only_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "header.cgrec"
    write(path, numbered(4))
    data = bytearray(path.read_bytes())
    data[stream._HEADER.size + 2] ^= 1
    path.write_bytes(data)
    with Reader(path) as reader:
        assert (reader.meta, list(reader)) == ({}, numbered(4))
        assert "its header is damaged" in str(reader.damage[0])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"time,sensor\n1,2\n", "is no recording"),
        (b"\x89CGREC\r", "ends in its header"),
        (stream._HEADER.pack(stream.MAGIC, 2, 0, 0, 0), "is of version 2.0; this citygate reads version 1"),
    ],
)
def test_what_is_no_recording_is_said(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(data)
    with pytest.raises(StreamError, match=says):
        Reader(path)


def test_a_window_and_topics_are_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "window.cgrec"
    messages = numbered(100)
    write(path, messages, block=10)
    with Reader(path) as reader:
        assert list(reader.messages(25 * SECOND, 47 * SECOND)) == messages[25:48]
        assert list(reader.messages(end=0)) == messages[:1]
        assert list(reader.messages(wanted=lambda topic: topic == "t/1")) == messages[1::3]


def test_the_summary_is_told_with_and_without_an_index(tmp_path: Path) -> None:
    path = tmp_path / "sum.cgrec"
    ends = write(path, numbered(10), block=4)
    for size in (path.stat().st_size, ends[-1][0]):
        os.truncate(path, size)
        with Reader(path) as reader:
            assert reader.summary() == stream.Summary(10, 3, 1, 0, 9 * SECOND)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kept.cgrec"
    write(path, numbered(2))
    with pytest.raises(StreamError, match="exists; append to it"):
        Writer(path)
    (tmp_path / "text").write_text("no recording")
    with pytest.raises(StreamError, match="is no recording"):
        Writer(tmp_path / "text", append=True)
    assert (tmp_path / "text").read_text() == "no recording"


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "one.cgrec"
    with Writer(path), pytest.raises(StreamError, match="is being written by another"):
        Writer(path, append=True)


def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path) -> None:
    path = tmp_path / "full.cgrec"
    code = f"""
import resource, signal
from pathlib import Path
from sensors.stream import Writer, StreamError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
writer, n = Writer(Path({str(path)!r})), 0
try:
    while True:
        writer.add("t", bytes([n % 251]) * 3 + __import__("os").urandom(90), monotonic=n, wall=n)
        n += 1
        if n % 50 == 0:
            writer.flush()
except StreamError as error:
    print(writer.messages, error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    written = int(out.split()[0])
    assert "the 200 messages written before can be read" in out
    with Reader(path) as reader:
        assert (len(list(reader)), reader.damage) == (written, [])
    assert written == 200


def _hostile() -> Iterator[tuple[str, bytes]]:
    meta = b"{}"
    head = stream._HEADER.pack(stream.MAGIC, 1, 0, len(meta), 0)[:-4]
    head += zlib.crc32(meta, zlib.crc32(head)).to_bytes(4, "little") + meta

    def block(raw: bytes, *, count: int, length: int | None = None, packed: bytes | None = None) -> bytes:
        data = zlib.compress(raw, 9) if packed is None else packed
        length = len(raw) if length is None else length
        return stream._Block(len(head), 1, 0, count, length, len(data), zlib.crc32(data), 0, 0, 0, 0).pack() + data

    none = bytes(4)
    yield "a bomb", head + block(bytes(2**26), count=1, length=100)
    yield "a bomb that tells its size", head + block(bytes(2**26 + 1), count=1)
    yield "columns of nothing", head + block(b"", count=65536)
    yield "more topics than bytes", head + block(b"\xff\xff\xff\xff", count=65536)
    yield "a topic of four gigabytes", head + block(b"\x01\0\0\0\xff\xff\xff\xff", count=1)
    yield "payloads of 2^48 bytes", head + block(none + bytes(65536 * 21) + b"\xff" * 65536 * 8, count=65536)
    yield "not packed", head + block(b"", count=1, length=5, packed=b"hello")
    yield "more than it says", head + block(b"\0" * 50, count=1, length=49)
    for byte in range(30):
        flip = bytearray(32)
        flip[byte] = 0xFF
        yield f"a byte {byte}", head + block(bytes(flip), count=1)


@pytest.mark.parametrize(("name", "data"), [pytest.param(*one, id=one[0]) for one in _hostile()])
def test_a_hostile_file_costs_little_and_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "hostile.cgrec"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Reader(path) as reader:
        messages = list(reader)
    assert len(messages) <= 1, name
    assert messages or reader.damage
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
