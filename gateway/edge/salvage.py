"""Records of a damaged SQLite file, read page by page without SQLite.

SQLite stops at the first page that contradicts another. Here every page that looks like the end of a b-tree is read on
its own, in the file and in its write-ahead log, by the published format (https://www.sqlite.org/fileformat2.html). So
damage costs the records of the damaged pages, and no others.

Nothing says which records are true: there are stale ones among them, and bytes that happen to look like one.
Whoever asks must check them, by a checksum in the record.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"SQLite format 3\x00"
_PAGE_SIZES = [2**power for power in range(9, 17)]
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 13, 10, 2  # an index's inner pages hold records, a table's do not
_FILE_HEADER, _WAL_HEADER, _FRAME_HEADER = 100, 32, 24
_SAMPLE = 512  # pages by which the page size is judged
_Words = np.ndarray[Any, np.dtype[np.uint32]]
_MAX_RECORD = 2**27  # bytes
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # serial type → bytes
_WAL_MAGIC = {0x377F0682: "<u4", 0x377F0683: ">u4"}  # → byte order of the words that are summed up
_FLOAT, _ZERO, _ONE, _BLOB = 7, 8, 9, 12


def records(path: Path) -> Iterator[tuple[Any, ...]]:
    """Reads what is left of a database.

    Never fails, whatever the bytes are, and holds no more than a few pages and one record at a time.

    Args:
        path: The file; its ``-wal`` is read too. Neither need exist.

    Yields:
        Columns of every record of every table, older copies before newer ones. A rowid stands for the ``INTEGER PRIMARY
        KEY`` in the first column. A record can come several times, and in several versions.
    """
    with ExitStack() as stack:
        files = []
        for name in (str(path), f"{path}-wal"):
            file = -1
            with suppress(OSError):
                file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, file)
            files.append(file)
        yield from _Pages(*files).records()


def is_cut(path: Path) -> bool:
    """Whether damage hides committed transactions in the write-ahead log.

    SQLite reads the log up to the first frame with a wrong checksum, and drops what stands behind it without a word.
    That is right for the end of a write that the power cut, but not for a damaged byte.

    Args:
        path: The database, not open anywhere.

    Returns:
        Whether a frame that ends a transaction stands behind a frame with a wrong checksum.
    """
    with ExitStack() as stack:
        try:
            wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        stack.callback(os.close, wal)
        header = _read(wal, 0, _WAL_HEADER)
        magic, _, page_size, _, salt, *wanted = struct.unpack(">IIII8sII", header)
        if magic not in _WAL_MAGIC or page_size not in _PAGE_SIZES:
            return _size(wal) > _WAL_HEADER + _FRAME_HEADER
        words = _WAL_MAGIC[magic]
        sums = _checksum(header[:24], words, np.zeros(2, np.uint32))
        whole = sums.tolist() == wanted
        for offset in range(_WAL_HEADER, _size(wal), _FRAME_HEADER + page_size):
            frame = _read(wal, offset, _FRAME_HEADER + page_size)
            commit, salted, *wanted = struct.unpack(">4xI8sII", frame[:_FRAME_HEADER])
            if whole:
                sums = _checksum(frame[:8] + frame[_FRAME_HEADER:], words, sums)
                whole = salted == salt and sums.tolist() == wanted
            if not whole and commit and salted == salt:
                return True
    return False


def _checksum(data: bytes, words: str, sums: _Words) -> _Words:
    """The log's running checksum, modulo 2³²: for every two words x and y, a += x + b, then b += y + a."""
    power, factors = _steps(len(data) // 8)
    return power @ sums + factors @ np.frombuffer(data, words).astype(np.uint32)


@cache
def _steps(count: int) -> tuple[_Words, _Words]:
    """So many steps of the checksum in one: what the sums before are multiplied by, and what the words are."""
    step, add = np.array([[1, 1], [1, 2]], np.uint32), np.array([[1, 0], [1, 1]], np.uint32)
    power, factors = np.eye(2, dtype=np.uint32), list[_Words]()
    for _ in range(count):
        factors.append(power @ add)
        power = power @ step
    return power, np.hstack(factors[::-1])


def _size(file: int) -> int:
    with suppress(OSError):
        return os.fstat(file).st_size
    return 0


def _read(file: int, offset: int, size: int) -> bytes:
    """Bytes of the file; zeros for what is not there or cannot be read."""
    data = b""
    with suppress(OSError):
        data = os.pread(file, size, offset)
    return data.ljust(size, b"\x00")


@dataclass(slots=True, frozen=True)
class _Cell:
    """A record as it is on its page: how long it is, what of it is here, and the page where it goes on."""

    rowid: int | None
    size: int
    local: bytes
    overflow: int
    end: int


class _Pages:
    """Every copy of every page.

    Frames of the log that an earlier round has left behind in it are older than the file, all others are newer.
    """

    def __init__(self, main: int, wal: int) -> None:
        self._main, self._wal = main, wal
        self._size = self._page_size()
        self._count = -(-_size(main) // self._size)
        self._frames = -(-max(_size(wal) - _WAL_HEADER - _FRAME_HEADER, 0) // (self._size + _FRAME_HEADER))
        self._copies: dict[int, list[int]] = {}  # page → its frames, ascending
        self._ends = [0] * self._frames  # frame → the last one of its transaction
        self._current = 0  # frames from here on are left behind
        salts = {_read(wal, 16, 8)}
        for frame in range(self._frames):
            page, commit, salt = struct.unpack(">II8s", _read(wal, self._frame(frame) - _FRAME_HEADER, 16))
            self._copies.setdefault(page, []).append(frame)
            self._ends[frame] = commit
            if frame == 0:
                salts.add(salt)  # the log's header may be damaged, or this frame's
            if salt in salts:
                self._current = frame + 1
        end = self._frames - 1
        for frame in reversed(range(self._frames)):
            end = self._ends[frame] = frame if self._ends[frame] else end

    def records(self) -> Iterator[tuple[Any, ...]]:
        for frame in range(self._current, self._frames):
            yield from self._records(self._wal, self._frame(frame), self._ends[frame])
        for page in range(self._count):
            yield from self._records(self._main, page * self._size, -1)
        for frame in range(self._current):
            yield from self._records(self._wal, self._frame(frame), self._ends[frame])

    def _frame(self, frame: int) -> int:
        return _WAL_HEADER + _FRAME_HEADER + frame * (self._size + _FRAME_HEADER)

    def _page_size(self) -> int:
        """The size by which most pages are filled exactly to their end; the header may be damaged."""
        claimed = int.from_bytes(_read(self._main, 16, 2), "big")
        scores: dict[int, tuple[int, bool]] = {}
        for size in _PAGE_SIZES:
            score = 0
            for file, start, gap in ((self._main, 0, 0), (self._wal, _WAL_HEADER + _FRAME_HEADER, _FRAME_HEADER)):
                count = max(_size(file) - start, 0) // (size + gap)
                for index in range(0, count, count // _SAMPLE + 1):
                    score += _is_full(_read(file, start + index * (size + gap), size))
            scores[size] = (score, size == claimed or (size, claimed) == (65536, 1))
        return max(scores, key=lambda size: scores[size])

    def _records(self, file: int, offset: int, moment: int) -> Iterator[tuple[Any, ...]]:
        page = _read(file, offset, self._size)
        for kind, start in _cells(page):
            cell = _cell(page, kind, start)
            if cell is None or (layout := _layout(cell)) is None:
                continue
            for payload in self._payloads(cell, moment):
                columns = _columns(payload, *layout)
                if cell.rowid is not None and columns[0] is None:
                    columns[0] = cell.rowid
                yield tuple(columns)

    def _payloads(self, cell: _Cell, moment: int) -> Iterator[bytes]:
        """The whole record: with its overflow pages of that moment, with those in the file, and with the newest."""
        if len(cell.local) == cell.size:
            yield cell.local
            return
        found: list[bytes] = []
        for when in dict.fromkeys((moment, -1, self._current - 1)):
            parts, page, left, met = [cell.local], cell.overflow, cell.size - len(cell.local), set[int]()
            while left > 0 and page not in met and (copy := self._copy(page, when)) is not None:
                met.add(page)
                data = _read(*copy, self._size)
                parts.append(data[4 : 4 + left])
                left -= self._size - 4
                page = int.from_bytes(data[:4], "big")
            payload = b"".join(parts)
            if len(payload) == cell.size and payload not in found:
                found.append(payload)
                yield payload

    def _copy(self, page: int, moment: int) -> tuple[int, int] | None:
        """File and offset of the page as of that frame, or of another copy if it has none so old."""
        frames = self._copies.get(page, [])
        place = bisect_right(frames, moment) - 1
        if place >= 0 and (frames[place] < self._current) == (moment < self._current):
            return self._wal, self._frame(frames[place])
        if 0 < page <= self._count:
            return self._main, (page - 1) * self._size
        return (self._wal, self._frame(frames[-1])) if frames else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = 0
    for index, byte in enumerate(data[at : at + 9]):
        if index == 8:  # noqa: PLR2004 - the ninth byte has no mark
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - no mark: the last one
            return value, at + index + 1
    return 0, len(data)


def _cells(page: bytes) -> Iterator[tuple[int, int]]:
    """Kind of the page, and where its cells start; nothing if it is no page with records."""
    start = _FILE_HEADER if page.startswith(_MAGIC) else 0
    kind = page[start]
    if kind not in {_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR}:
        return
    array = start + (12 if kind == _INDEX_INTERIOR else 8)
    count = min(int.from_bytes(page[start + 3 : start + 5], "big"), (len(page) - array) // 2)
    for (cell,) in struct.iter_unpack(">H", page[array : array + 2 * count]):
        if array + 2 * count <= cell < len(page):
            yield kind, cell


def _cell(page: bytes, kind: int, start: int) -> _Cell | None:
    usable = len(page)
    size, body = _varint(page, start + 4 if kind == _INDEX_INTERIOR else start)
    rowid = None
    if kind == _TABLE_LEAF:
        rowid, body = _varint(page, body)
        rowid -= 2**64 if rowid >= 2**63 else 0
    most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    local = size
    if size > most:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
    body_end = body + local
    end = body_end + (4 if local < size else 0)
    if not 0 < size <= _MAX_RECORD or end > usable:
        return None
    return _Cell(rowid, size, page[body:body_end], int.from_bytes(page[body_end:end], "big"), end)


def _is_full(page: bytes) -> bool:
    """Whether it is a page with records whose last cell ends where the page does."""
    kind, start = max(_cells(page), key=lambda item: item[1], default=(0, 0))
    cell = _cell(page, kind, start) if kind else None
    return cell is not None and cell.end == len(page) and _layout(cell) is not None


def _layout(cell: _Cell) -> tuple[int, list[int]] | None:
    """Length of a record's header and the types of its columns; None if they do not make up the record's size."""
    end, at = _varint(cell.local, 0)
    if not at < end <= len(cell.local):
        return None
    types = []
    while at < end:
        kind, at = _varint(cell.local, at)
        types.append(kind)
    valid = at == end and end + sum(map(_length, types)) == cell.size and not {10, 11} & set(types)
    return (end, types) if valid else None


def _length(kind: int) -> int:
    if kind >= _BLOB:
        return (kind - _BLOB) // 2
    return 8 if kind == _FLOAT else _INTEGERS.get(kind, 0)


def _columns(payload: bytes, at: int, types: list[int]) -> list[Any]:
    columns: list[Any] = []
    for kind in types:
        data = payload[at : at + _length(kind)]
        at += len(data)
        if kind >= _BLOB:
            columns.append(data.decode("utf-8", "replace") if kind % 2 else data)
        elif kind == _FLOAT:
            columns.append(struct.unpack(">d", data)[0])
        elif kind in {_ZERO, _ONE}:
            columns.append(kind - _ZERO)
        else:
            columns.append(int.from_bytes(data, "big", signed=True) if kind else None)
    return columns
