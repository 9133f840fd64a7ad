"""Recorded streams, ``.cgrec``: messages as a broker delivered them, byte for byte, in one compact append-only file.

A file is a header, blocks of messages, and an index of the blocks. A block is whole or it is not: it carries its own
place, its lengths and two checksums, and a crash costs at most the block that was being written. Without an index, as
after a crash, the blocks are found one after another; behind a damaged one, reading goes on at the next whole one.
docs/recordings.md has the format, byte by byte.

Whatever the bytes of a file are, a reader holds no more than one block of 64 MiB.
"""

import errno
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

VERSION = 1
MAGIC = b"\x89CGREC\r\n"
"""The first bytes of a file; no text begins so, and a transfer that changes line ends breaks it."""
BLOCK_MESSAGES = 4000
"""Messages that complete a block."""
BLOCK_BYTES = 2**20
"""Bytes of topics, payloads and properties that complete a block."""
MAX_MESSAGE = 2**24
"""Bytes of the largest message that is recorded, topic and properties included."""

_MARK = b"\xc6CGBLK\r\n"
_END = b"CGEND\r\n\x1a"
_HEADER = struct.Struct("<8sHHII")  # magic, version, flags, length of the description, checksum
_BLOCK = struct.Struct("<8sQBBHIIIIIqqqqI")
_TRAILER = struct.Struct("<QI8s")  # where the index is, checksum, magic
_ENTRY = np.dtype([("offset", "<u8"), ("count", "<u4"), ("run", "<u4"), ("first", "<i8"), ("last", "<i8")])
_MESSAGES, _INDEX = 1, 2
_ZLIB = 1
_LEVEL = 4  # a sixth of the bytes of readings in JSON; 6 needs twice the time for a tenth less
_MAX_RAW = 2**26
_MAX_COUNT = 2**16
_MAX_META = 2**16
_RETAIN, _DUPLICATE, _QOS, _FLAGS = 4, 8, 3, 15
_SEARCHED = 2**18  # bytes at a time in which a block is looked for
_MINUS = -(2**63)

Words = npt.NDArray[np.uint64]
_Word = TypeVar("_Word", bound=np.unsignedinteger[Any])


class StreamError(Exception):
    """A recording cannot be read or written; the message names the file and, where it can, the byte."""


class Message(NamedTuple):
    """One message as it was delivered.

    Attributes:
        topic: What is not UTF-8 in it is escaped (``surrogateescape``), so that encoding it so gives the same bytes.
        payload: As it came.
        qos: 0, 1 or 2.
        retain: As the publisher set it.
        properties: The MQTT 5 properties as they stood in the packet, without their length; empty if there were none.
        monotonic: When it arrived by a clock that nobody sets, ns; comparable within a run.
        wall: When it arrived by the system's clock, ns since 1970.
        duplicate: Whether the broker said that it may have delivered it before.
        run: Number of the session that wrote it; 0 is the first.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: bytes = b""
    monotonic: int = 0
    wall: int = 0
    duplicate: bool = False
    run: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """What cannot be read.

    Attributes:
        offset: Byte at which it begins.
        length: How many bytes are passed over.
        reason: What is wrong with it.
        at_end: Whether nothing whole follows, as where a crash or a full disk ended the writing.
    """

    offset: int
    length: int
    reason: str
    at_end: bool = False

    def __str__(self) -> str:
        """As people read it."""
        return f"byte {self.offset:,}: {self.reason}; {self.length:,} bytes passed over"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recording holds, as its blocks' headers say.

    Attributes:
        messages: How many.
        blocks: How many.
        runs: How many sessions wrote it.
        first: Earliest arrival, ns since 1970; None without messages.
        last: Latest arrival.
    """

    messages: int
    blocks: int
    runs: int
    first: int | None
    last: int | None


class _Block(NamedTuple):
    """A block's header."""

    offset: int
    kind: int
    run: int
    held: int  # messages, or of the index entries
    raw: int
    packed: int
    checksum: int
    first: int  # earliest and latest arrival, ns since 1970
    last: int
    monotonic: int  # of the first message
    wall: int

    @property
    def end(self) -> int:
        return self.offset + _BLOCK.size + self.packed

    def pack(self) -> bytes:
        head = _BLOCK.pack(
            *(_MARK, self.offset, self.kind, _ZLIB, 0, self.run, self.held, self.raw, self.packed, self.checksum),
            *(self.first, self.last, self.monotonic, self.wall, 0),
        )[:-4]
        return head + struct.pack("<I", zlib.crc32(head))

    @classmethod
    def unpack(cls, data: bytes, offset: int) -> Self | None:
        """The header that stands there, if one does."""
        if len(data) < _BLOCK.size or not data.startswith(_MARK):
            return None
        mark, place, kind, packing, zero, *numbers, checksum = _BLOCK.unpack_from(data)
        if mark != _MARK or zlib.crc32(data[: _BLOCK.size - 4]) != checksum or place != offset:
            return None
        block = cls(offset, kind, *numbers)
        possible = packing == _ZLIB and not zero and block.raw <= _MAX_RAW and block.packed <= _MAX_RAW
        return block if possible and (block.held <= _MAX_COUNT or kind == _INDEX) else None


def _planes(words: npt.NDArray[_Word]) -> bytes:
    """All first bytes, then all second bytes, …: so zeros lie side by side."""
    return np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1).T.tobytes()


def _difference(values: Words, start: int) -> Words:
    return np.diff(values, prepend=np.uint64(start % 2**64))


class _Cursor:
    """Takes columns off the bytes of a block; never more than there are.

    Raises:
        ValueError: There are not as many.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            msg = f"its columns end after {len(self.data)} bytes"
            raise ValueError(msg)
        self.at += size
        return self.data[self.at - size : self.at]

    def planes(self, count: int, width: int) -> Words:
        planes = np.frombuffer(self.take(count * width), np.uint8).reshape(width, count)
        words = np.zeros((count, 8), np.uint8)
        words[:, :width] = planes.T
        return words.view("<u8")[:, 0].astype(np.uint64, copy=False)

    def pieces(self, lengths: Words) -> list[bytes]:
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        data = self.take(total)
        if not total:
            return [b""] * len(lengths)
        stops: list[int] = ends.tolist()
        return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _pack_messages(messages: list[Message]) -> bytes:
    """The columns of a block; each starts where the one before ends."""
    numbers: dict[str, int] = {}
    topic, payload, qos, retain, properties, monotonic, wall, duplicate, _ = zip(*messages, strict=True)
    places = [numbers.setdefault(name, len(numbers)) for name in topic]
    names = [name.encode("utf-8", "surrogateescape") for name in numbers]
    flags = [
        level | _RETAIN * kept | _DUPLICATE * again for level, kept, again in zip(qos, retain, duplicate, strict=True)
    ]
    by_clock = np.array(monotonic, np.int64).view(np.uint64)
    ahead = np.array(wall, np.int64).view(np.uint64) - by_clock
    return b"".join(
        (
            struct.pack("<I", len(names)),
            _planes(np.array([*map(len, names)], "<u4")),
            *names,
            bytes(flags),
            _planes(np.array(places, "<u4")),
            _planes(_difference(by_clock, monotonic[0]).astype("<u8")),
            _planes(_difference(ahead, wall[0] - monotonic[0]).astype("<u8")),
            _planes(np.array([*map(len, payload)], "<u4")),
            _planes(np.array([*map(len, properties)], "<u4")),
            *properties,
            *payload,
        )
    )


def _unpack_messages(block: _Block, raw: bytes) -> Iterator[Message]:
    """The messages of a block.

    Raises:
        ValueError: These are no such columns.
    """
    cursor, count = _Cursor(raw), block.held
    (topics,) = struct.unpack("<I", cursor.take(4))
    if topics > count:
        msg = f"it has {topics} topics for {count} messages"
        raise ValueError(msg)
    names = [name.decode("utf-8", "surrogateescape") for name in cursor.pieces(cursor.planes(topics, 4))]
    flags = np.frombuffer(cursor.take(count), np.uint8)
    places = cursor.planes(count, 4)
    qos = flags & _QOS
    if (flags > _FLAGS).any() or (qos == _QOS).any() or (places >= topics).any():
        msg = "it has flags or topics that there are not"
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        monotonic = np.cumsum(cursor.planes(count, 8)) + np.uint64(block.monotonic % 2**64)
        ahead = np.cumsum(cursor.planes(count, 8)) + np.uint64((block.wall - block.monotonic) % 2**64)
        wall = monotonic + ahead
    lengths, of_properties = cursor.planes(count, 4), cursor.planes(count, 4)
    properties, payloads = cursor.pieces(of_properties), cursor.pieces(lengths)
    if cursor.at != len(raw):
        msg = f"its columns end before its {len(raw)} bytes do"
        raise ValueError(msg)
    columns = (
        [names[place] for place in places.tolist()],
        payloads,
        qos.tolist(),
        ((flags & _RETAIN) != 0).tolist(),
        properties,
        monotonic.view(np.int64).tolist(),
        wall.view(np.int64).tolist(),
        ((flags & _DUPLICATE) != 0).tolist(),
        [block.run] * count,
    )
    return map(Message._make, zip(*columns, strict=True))


class Reader:
    """Reads a recording, block by block; a context manager, and iterable as often as wanted.

    Of a file that is being written, it reads what is whole.

    Args:
        path: The file.

    Attributes:
        path: The same.
        version: Version of the format.
        meta: What the writer said of it: where and when it was made, and of what.
        indexed: Whether the file was ended in order.

    Raises:
        StreamError: It cannot be read, is no recording, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damage: dict[int, Damage] = {}
        self._index_at = 0
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise StreamError(msg) from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.version, self.meta, self._start = self._header()
            self._index = self._read_index()
        except BaseException:
            self._file.close()
            raise
        self.indexed = self._index is not None

    def __enter__(self) -> Self:
        """The reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Message]:
        """All messages, in the order of arrival."""
        return self.messages()

    @property
    def damage(self) -> list[Damage]:
        """What could not be read so far, by its place; all of it once everything was read."""
        return [damage for _, damage in sorted(self._damage.items())]

    def messages(
        self, start: int | None = None, end: int | None = None, wanted: Callable[[str], bool] | None = None
    ) -> Iterator[Message]:
        """Messages in the order of arrival.

        Args:
            start: Earliest arrival by the system's clock, ns since 1970.
            end: Latest arrival.
            wanted: Says of a topic whether its messages are wanted.

        Raises:
            StreamError: The file cannot be read from.
        """
        for block in self._blocks():
            if (start is not None and block.last < start) or (end is not None and block.first > end):
                continue
            messages = self._open(block)
            if start is not None or end is not None:
                low, high = _MINUS if start is None else start, -_MINUS if end is None else end
                messages = (message for message in messages if low <= message.wall <= high)
            if wanted is not None:
                messages = (message for message in messages if wanted(message.topic))
            yield from messages

    def summary(self) -> Summary:
        """What the recording holds, without reading a message."""
        messages = blocks = 0
        first: int | None = None
        last: int | None = None
        runs: set[int] = set()
        for block in self._blocks():
            messages, blocks = messages + block.held, blocks + 1
            first = block.first if first is None else min(first, block.first)
            last = block.last if last is None else max(last, block.last)
            runs.add(block.run)
        return Summary(messages, blocks, len(runs), first, last)

    @property
    def ends(self) -> tuple[int, int]:
        """The byte behind the last whole block, where more can be appended, and the number of the next run."""
        end, run = self._start, -1
        for block in self._blocks():
            end, run = block.end, max(run, block.run)
        return end, run + 1

    def _at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            msg = f"{self.path}: byte {offset:,}: {error.strerror}"
            raise StreamError(msg) from error

    def _header(self) -> tuple[int, dict[str, Any], int]:
        head = self._at(0, _HEADER.size)
        if not head.startswith(MAGIC):
            what = "is empty" if not head else "ends in its header" if MAGIC.startswith(head) else "is no recording"
            msg = f"{self.path}: {what}"
            raise StreamError(msg)
        if len(head) < _HEADER.size:
            msg = f"{self.path}: ends in its header"
            raise StreamError(msg)
        _, version, flags, length, checksum = _HEADER.unpack(head)
        if version != VERSION or flags:
            msg = f"{self.path}: is of version {version}.{flags}; this citygate reads version {VERSION}"
            raise StreamError(msg)
        text = self._at(_HEADER.size, min(length, _MAX_META))
        if len(text) < length <= _MAX_META:
            msg = f"{self.path}: ends in its header"
            raise StreamError(msg)
        meta: object = None
        if zlib.crc32(text, zlib.crc32(head[:-4])) == checksum:
            try:
                meta = json.loads(text)
            except (ValueError, RecursionError):
                meta = None
        if not isinstance(meta, dict):
            self._damage[0] = Damage(0, _HEADER.size + min(length, _MAX_META), "its header is damaged")
            return version, {}, _HEADER.size
        return version, meta, _HEADER.size + length

    def _read_index(self) -> npt.NDArray[np.void] | None:
        trailer = self._at(max(self._size - _TRAILER.size, 0), _TRAILER.size)
        if len(trailer) < _TRAILER.size:
            return None
        offset, checksum, magic = _TRAILER.unpack(trailer)
        if magic != _END or zlib.crc32(trailer[:8]) != checksum or not self._start <= offset < self._size:
            return None
        block = _Block.unpack(self._at(offset, _BLOCK.size), offset)
        if block is None or block.kind != _INDEX or block.end != self._size - _TRAILER.size:
            return None
        try:
            index = np.frombuffer(self._unpacked(block), _ENTRY)
        except ValueError:
            return None
        self._index_at, offsets = offset, index["offset"]
        ordered = bool((offsets[:-1] < offsets[1:]).all()) and (not len(index) or self._start <= offsets[0])
        return index if ordered and (not len(index) or offsets[-1] < offset) else None

    def _unpacked(self, block: _Block) -> bytes:
        """What a block holds.

        Raises:
            ValueError: It is not whole.
        """
        data = self._at(block.offset + _BLOCK.size, block.packed)
        if len(data) < block.packed or zlib.crc32(data) != block.checksum:
            msg = "a block with a wrong checksum"
            raise ValueError(msg)
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(data, block.raw + 1)
        except zlib.error as error:
            msg = f"a block that cannot be unpacked: {error}"
            raise ValueError(msg) from error
        if len(raw) != block.raw or not unpacker.eof:
            msg = "a block of another length than it says"
            raise ValueError(msg)
        return raw

    def _open(self, block: _Block) -> Iterator[Message]:
        """The messages of a block; none if it is damaged."""
        try:
            return _unpack_messages(block, self._unpacked(block))
        except ValueError as error:
            of = f", of {block.held:,} messages" if block.held else ""
            length = block.end - block.offset
            self._damage[block.offset] = Damage(block.offset, length, f"{error}{of}", at_end=block.end == self._size)
            return iter(())

    def _blocks(self) -> Iterator[_Block]:
        """The headers of all blocks of messages that can be found."""
        if self._index is None:
            yield from self._found()
            return
        offsets: list[int] = self._index["offset"].tolist()
        for offset, following in zip(offsets, [*offsets[1:], self._index_at], strict=False):
            block = _Block.unpack(self._at(offset, _BLOCK.size), offset)
            if block is None or block.kind != _MESSAGES or block.end > following:
                self._damage[offset] = Damage(offset, following - offset, "a block with a damaged header")
            else:
                yield block

    def _found(self) -> Iterator[_Block]:
        """The same without an index, one after another."""
        at, behind_index = self._start, False
        while at < self._size:
            block = _Block.unpack(self._at(at, _BLOCK.size), at)
            if block is None:
                following = self._search(at + 1)
                rest = (following or self._size) - at
                reason = "the end of a block is missing" if following is None else "a damaged block"
                if not (behind_index and rest <= _TRAILER.size):  # else it is a part of the trailer
                    self._damage[at] = Damage(at, rest, reason, at_end=following is None)
                at = following or self._size
            elif block.end > self._size:
                self._damage[at] = Damage(at, self._size - at, "the end of a block is missing", at_end=True)
                return
            else:
                if block.kind == _MESSAGES:
                    yield block
                at, behind_index = block.end, block.kind == _INDEX

    def _search(self, at: int) -> int | None:
        """Where the next block begins."""
        while at < self._size:
            data = self._at(at, _SEARCHED + _BLOCK.size)
            place = data.find(_MARK)
            while 0 <= place < _SEARCHED:
                if _Block.unpack(data[place : place + _BLOCK.size], at + place):
                    return at + place
                place = data.find(_MARK, place + 1)
            at += _SEARCHED
        return None


class Writer:
    """Writes a recording; a context manager.

    A block is on the disk when `flush` returns, or the `add` that completed it; so what was told of it can be
    acknowledged. When the disk is full, the block that does not fit is taken back, and what was written before can be
    read.

    Args:
        path: The file; it must not exist, unless *append*.
        append: Go on with a file that exists, behind its last whole block.
        meta: What to say of the recording in its header; of one that exists, its own stays.
        sync: Wait for the disk after each block; else once, at the end.

    Attributes:
        messages: Messages that were written, without those before an append.
        payload_bytes: Bytes of their topics and payloads.
        size: Bytes of the file.

    Raises:
        StreamError: It exists, cannot be written, is no recording, or is being written by another.
    """

    def __init__(
        self, path: Path, *, append: bool = False, meta: Mapping[str, object] | None = None, sync: bool = True
    ) -> None:
        self.path = path
        self.messages = self.payload_bytes = self.size = 0
        self._sync = sync
        self._pending: list[Message] = []
        self._pending_bytes = 0
        self._entries: list[tuple[int, int, int, int, int]] = []
        self._run = 0
        existing = append and path.exists() and path.stat().st_size > 0
        try:
            self._file = path.open("r+b" if append and path.exists() else "xb", buffering=0)
        except FileExistsError as error:
            msg = f"{path}: exists; append to it, or choose another name"
            raise StreamError(msg) from error
        except OSError as error:
            msg = f"{path}: {error.strerror}"
            raise StreamError(msg) from error
        try:
            self._lock()
            if existing:
                self._go_on()
            else:
                self._begin(meta or {})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what is left, and the index."""
        self.close()

    @property
    def pending(self) -> int:
        """Messages that are not written yet."""
        return len(self._pending)

    def add(  # noqa: PLR0913 - the parts of a message
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: bytes = b"",
        monotonic: int,
        wall: int,
        duplicate: bool = False,
    ) -> None:
        """Takes a message; see `Message`. It is written with its block.

        Raises:
            StreamError: It is too large, or a block cannot be written.
        """
        size = len(topic) + len(payload) + len(properties)
        if size > MAX_MESSAGE:
            msg = f"{self.path}: a message of {size:,} bytes is larger than {MAX_MESSAGE:,}"
            raise StreamError(msg)
        self._pending.append(Message(topic, payload, qos, retain, properties, monotonic, wall, duplicate))
        self._pending_bytes += size
        if len(self._pending) >= BLOCK_MESSAGES or self._pending_bytes >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Completes the block, so that all that was added is on the disk.

        Raises:
            StreamError: It cannot be written; what was added since the last block is given up.
        """
        messages, self._pending, self._pending_bytes = self._pending, [], 0
        if not messages:
            return
        raw = _pack_messages(messages)
        walls = [message.wall for message in messages]
        first, start = messages[0], self.size
        times = min(walls), max(walls), first.monotonic, first.wall
        self._write(self._block(_MESSAGES, len(messages), raw, *times), sync=self._sync)
        self._entries.append((start, len(messages), self._run, times[0], times[1]))
        self.messages += len(messages)
        topics = {message.topic: 0 for message in messages}
        for topic in topics:
            topics[topic] = len(topic.encode("utf-8", "surrogateescape"))
        self.payload_bytes += sum(len(message.payload) + topics[message.topic] for message in messages)

    def close(self) -> None:
        """Writes what is left, and the index.

        Raises:
            StreamError: It cannot be written; what was written before can be read all the same.
        """
        if self._file.closed:
            return
        try:
            self.flush()
            raw = np.array(self._entries, _ENTRY).tobytes()
            if len(raw) <= _MAX_RAW:  # else it is found without
                place = struct.pack("<Q", self.size)
                trailer = place + struct.pack("<I8s", zlib.crc32(place), _END)
                self._write(self._block(_INDEX, len(self._entries), raw, 0, 0, 0, 0) + trailer, sync=True)
        finally:
            self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = f"{self.path}: is being written by another"
            raise StreamError(msg) from error

    def _begin(self, meta: Mapping[str, object]) -> None:
        text = json.dumps({"created": time.time_ns() // 1_000_000, **meta}).encode()
        if len(text) > _MAX_META:
            msg = f"{self.path}: a description of {len(text):,} bytes is larger than {_MAX_META:,}"
            raise StreamError(msg)
        head = _HEADER.pack(MAGIC, VERSION, 0, len(text), 0)[:-4]
        self._write(head + struct.pack("<I", zlib.crc32(text, zlib.crc32(head))) + text, sync=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _go_on(self) -> None:
        with Reader(self.path) as reader:
            self.size, self._run = reader.ends
            self._entries = [(b.offset, b.held, b.run, b.first, b.last) for b in reader._blocks()]  # noqa: SLF001
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def _block(self, kind: int, count: int, raw: bytes, *times: int) -> bytes:  # earliest, latest, monotonic, wall
        packed = zlib.compress(raw, _LEVEL)
        run = self._run if kind == _MESSAGES else 0
        block = _Block(self.size, kind, run, count, len(raw), len(packed), zlib.crc32(packed), *times)
        return block.pack() + packed

    def _write(self, data: bytes, *, sync: bool) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
            if sync:
                os.fdatasync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self.size)
            self._file.seek(self.size)
            what = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else error.strerror
            msg = f"{self.path}: {what}; the {self.messages:,} messages written before can be read"
            raise StreamError(msg) from error
        self.size += len(data)


__all__ = [
    "BLOCK_BYTES",
    "BLOCK_MESSAGES",
    "MAGIC",
    "MAX_MESSAGE",
    "VERSION",
    "Damage",
    "Message",
    "Reader",
    "StreamError",
    "Summary",
    "Writer",
]
