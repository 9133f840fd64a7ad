"""The spool: what is ours and not yet everywhere, in one SQLite file.

``append`` returns when a batch is on the disk (WAL, ``synchronous=FULL``): from then on a power cut takes nothing of
it. A batch is deleted when every configured output has it. The ledger changes in the same transaction as the batches,
so that for every source, after a kill at any moment::

    received = delivered + queued + quarantined + dead + duplicate + evicted

One thread does all the work and commits everything that waits in one transaction, so that a reader of the spool and a
busy ingest share one fsync.
"""

import asyncio
import copy
import fcntl
import json
import logging
import os
import queue
import re
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gateway.edge.batch import DeadLetter, Entry

SCHEMA_VERSION = 2
FATES = ("delivered", "queued", "quarantined", "dead", "duplicate", "evicted")
"""Where a received reading can be; their sum is ``received``."""
CLASSES = ("raw", "aggregate", "quarantine", "event")
"""Classes of data, of which a full spool evicts one after another."""

_ROW_OVERHEAD = 128  # columns, b-tree cell and the unused rest of the last page, bytes
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_READINGS = (b"quarantine", b"event", b"gateway")  # measurements that hold no delivered readings

_PRAGMAS = (
    "PRAGMA page_size=2048",  # half the bytes written for a small batch, none more for a large one
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=2000",  # 4 MB: a batch delivered before the checkpoint is never written to the main file
    "PRAGMA journal_size_limit=8388608",
    "PRAGMA cache_size=-1024",
    "PRAGMA temp_store=MEMORY",
)
_SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,      -- of the append, ms UTC
    crc INTEGER NOT NULL,       -- CRC-32 of everything else in the row
    class INTEGER NOT NULL,     -- its place among CLASSES
    lines INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL, -- of the line protocol
    raw_crc INTEGER NOT NULL,   -- CRC-32 of the line protocol
    readings TEXT NOT NULL,     -- JSON, source: readings in it
    body BLOB NOT NULL          -- raw deflate, flushed and not finished: bodies can be joined
);
CREATE TABLE refused (
    batch INTEGER NOT NULL, line INTEGER NOT NULL, readings INTEGER NOT NULL, PRIMARY KEY (batch, line)
) WITHOUT ROWID;
CREATE TABLE output (
    name TEXT PRIMARY KEY,
    delivered INTEGER NOT NULL, -- readings
    refused INTEGER NOT NULL,   -- readings
    ranges TEXT NOT NULL        -- JSON, [[first, last], ...]: batches that this output has
) WITHOUT ROWID;
CREATE TABLE ledger (
    source TEXT PRIMARY KEY,
    received INTEGER NOT NULL, delivered INTEGER NOT NULL, queued INTEGER NOT NULL, quarantined INTEGER NOT NULL,
    dead INTEGER NOT NULL, duplicate INTEGER NOT NULL, evicted INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, received INTEGER NOT NULL, source TEXT NOT NULL, output TEXT NOT NULL, topic TEXT NOT NULL,
    reason TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE dead_dropped (count INTEGER NOT NULL);
INSERT INTO dead_dropped VALUES (0);
"""
# A damaged page can hold anything: what is summed up is a number in any case.
_SIZES = "coalesce(CAST(raw_bytes AS INTEGER), 0), coalesce(length(body), 0)"
_BATCH_COLUMNS = "id, time, crc, class, lines, raw_bytes, raw_crc, readings, body"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class SpoolError(Exception):
    """The spool cannot do it now; the message says why and what to do. Nothing of the request was done."""


@dataclass(slots=True, frozen=True)
class Row:
    """One batch in the spool.

    Attributes:
        id: Ascending in the order of the appends.
        time: Of the append, ms UTC.
        lines: Number of points.
        raw_bytes: Length of the line protocol.
        raw_crc: CRC-32 of the line protocol.
        body: The line protocol, compressed; see ``text`` and ``gzip_of``.
    """

    id: int
    time: int
    lines: int
    raw_bytes: int
    raw_crc: int
    body: bytes

    def text(self) -> list[bytes]:
        """The points as lines."""
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.body).removesuffix(b"\n").split(b"\n")


@dataclass(slots=True, frozen=True)
class Refusal:
    """A point that a server refused for good.

    Attributes:
        row: The row's id.
        line: Number of the line in the row, from 0.
        text: The line.
        reason: The server's own reason.
    """

    row: int
    line: int
    text: bytes
    reason: str


@dataclass(slots=True, frozen=True)
class Backlog:
    """What an output has yet to get: rows, and bytes of line protocol."""

    rows: int
    bytes: int


@dataclass(slots=True, frozen=True)
class Ledger:
    """Where every reading is.

    Attributes:
        sources: Source → readings by fate, and ``received``, which is their sum.
        outputs: Output → readings it has (``delivered``) and has refused for good (``refused``).
        dead_letters: Dead letters kept.
        dead_dropped: Dead letters dropped at the bound, oldest first; they stay counted as dead.
        bytes: Size of the batches in the spool, compressed.
    """

    sources: dict[str, dict[str, int]]
    outputs: dict[str, dict[str, int]]
    dead_letters: int
    dead_dropped: int
    bytes: int

    @property
    def total(self) -> dict[str, int]:
        """All sources together."""
        return {fate: sum(counts[fate] for counts in self.sources.values()) for fate in ("received", *FATES)}


def gzip_of(rows: Iterable[Row]) -> bytes:
    """Joins the rows to one gzip member without compressing anything again.

    One member, since servers differ in whether they read on after the first.
    """
    crc = size = 0
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for row in rows:
        crc = _join_crc(crc, row.raw_crc, row.raw_bytes)
        size += row.raw_bytes
        parts.append(row.body)
    parts += b"\x03\x00", struct.pack("<II", crc, size & 0xFFFFFFFF)  # an empty last block, the trailer of RFC 1952
    return b"".join(parts)


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials modulo that of CRC-32, lowest power in the highest bit."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xEDB88320 if b & 1 else 0)
    return product


_SQUARES = [1 << 30]  # x^(2^k)
while len(_SQUARES) < 32:  # noqa: PLR2004 - x^(2^32) is x again
    _SQUARES.append(_multiply(_SQUARES[-1], _SQUARES[-1]))


def _join_crc(first: int, second: int, length: int) -> int:
    """CRC-32 of two texts, the second ``length`` bytes long, from their CRCs: first · x^(8·length) + second."""
    power = 3
    while length and first:
        if length & 1:
            first = _multiply(_SQUARES[power % 32], first)
        length >>= 1
        power += 1
    return first ^ second


def _readings_in(line: bytes) -> int:
    """Number of readings that a point of a sensor carries: its value fields."""
    parts = re.split(rb"(?<!\\) ", line, maxsplit=2)
    if len(parts) == 1 or re.split(rb"[, ]", parts[0], maxsplit=1)[0] in _NOT_READINGS:
        return 0
    return sum(not name.partition(b"=")[0].endswith(b"_qc") for name in parts[1].split(b","))


def _crc(row: tuple[Any, ...], body: object) -> int | None:
    if not isinstance(body, bytes):
        return None  # damaged: the column's type has changed
    return zlib.crc32(body, zlib.crc32(repr(row).encode()))


def _now() -> int:
    """Wall clock, ms UTC."""
    return time.time_ns() // 1_000_000


def _sources(text: str) -> dict[str, int]:
    try:
        return {str(source): int(count) for source, count in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


@dataclass(slots=True)
class _Position:
    """How far an output is: ranges of row ids that it has, and what it has not."""

    ranges: list[list[int]] = field(default_factory=list)
    delivered: int = 0
    refused: int = 0
    rows: int = 0
    bytes: int = 0

    def has(self, row: int) -> bool:
        return any(first <= row <= last for first, last in self.ranges)

    def add(self, row: int) -> None:
        merged: list[list[int]] = []
        for first, last in sorted([*self.ranges, [row, row]]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1][1] = max(last, merged[-1][1])
            else:
                merged.append([first, last])
        self.ranges = merged

    def gaps(self) -> Iterator[tuple[int, int]]:
        start = 0
        for first, last in self.ranges:
            yield start, first - 1
            start = last + 1
        yield start, 2**62


@dataclass(slots=True)
class _State:
    """What the writer knows without reading the file; put back when a transaction fails."""

    next_id: int = 1
    bytes: int = 0
    rows: int = 0
    dead_rows: int = 0
    dead_bytes: int = 0
    dead_dropped: int = 0
    ledger: dict[str, dict[str, int]] = field(default_factory=dict)
    outputs: dict[str, _Position] = field(default_factory=dict)

    def count(self, source: str, fate: str, number: int) -> None:
        self.ledger.setdefault(source, dict.fromkeys(("received", *FATES), 0))[fate] += number


class Spool:
    """Batches on disk until every output has them.

    Methods may be called from one event loop. Everything is done in the order of the calls.

    Args:
        path: The file; its folder is created.
        outputs: Names of the configured outputs. What an output that is no longer among them lacked is forgotten; a
            new one begins at the oldest row present.
        max_bytes: Size of compressed batches at which the oldest are evicted, and counted.
        dead_rows: Most dead letters kept.
        dead_bytes: Most bytes of dead letters kept.

    Raises:
        SpoolError: The file cannot be used; a damaged one is moved aside instead, and what is readable is kept.
    """

    def __init__(
        self,
        path: Path,
        outputs: Sequence[str],
        max_bytes: int = 2**30,
        dead_rows: int = 10_000,
        dead_bytes: int = 2**24,
    ) -> None:
        self.path = path
        self._outputs = tuple(outputs)
        self._max_bytes = max_bytes
        self._dead_limits = dead_rows, dead_bytes
        self._state = self._draft = _State()
        self._events: list[asyncio.Event] = []
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"{path}: cannot open the spool: {error.strerror}. Its folder must be writable by this user"
            raise SpoolError(msg) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open()
        except BlockingIOError as error:
            os.close(self._lock)
            msg = f"{path}: another gateway uses this spool. Stop it, or give this one another [spool] path"
            raise SpoolError(msg) from error
        except sqlite3.Error as error:
            os.close(self._lock)
            raise self._explained(error) from error
        except SpoolError:
            os.close(self._lock)
            raise
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    # What others ask, from the event loop

    async def append(self, entry: Entry) -> int:
        """Keeps a batch.

        Returns:
            The last row's id, after the commit; 0 when the entry had no lines (its counts and dead letters are kept).

        Raises:
            SpoolError: Nothing was kept (disk full, file locked, ...): do not acknowledge, try again later.
            ValueError: The entry counts queued readings and has no lines.
        """
        row = await self._do(lambda: self._append(entry))
        if row:
            for event in self._events:
                event.set()
        return row

    async def next_rows(
        self, output: str, max_bytes: int, *, newest_first: bool = False, without: Collection[int] = ()
    ) -> list[Row]:
        """Rows that the output has yet to get.

        Args:
            output: Its name.
            max_bytes: Most line protocol in them; one row is returned even if it alone is larger.
            newest_first: Take them from the newest back; otherwise from the oldest on.
            without: Ids of rows that are on their way already.

        Returns:
            The rows, oldest first.
        """
        return await self._do(lambda: self._next_rows(output, max_bytes, newest_first=newest_first, without=without))

    async def delivered(self, output: str, rows: Iterable[int], refused: Iterable[Refusal] = ()) -> None:
        """Notes, in one transaction, that the output has these rows except for the refused points.

        Args:
            output: Its name.
            rows: Their ids; those that are gone meanwhile, or noted before, are passed over.
            refused: Points of these rows that its server refused for good; they become dead letters.

        Raises:
            SpoolError: Nothing was noted; the rows will be asked for again.
        """
        await self._do(lambda: self._delivered(output, list(rows), list(refused)))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""

        def work() -> list[DeadLetter]:
            query = "SELECT received, source, topic, payload, reason FROM dead ORDER BY id DESC LIMIT ?"
            return [DeadLetter(*columns) for columns in self._db.execute(query, (limit,))]

        return await self._do(work)

    def arrival(self) -> asyncio.Event:
        """An event that is set at every append from now on; whoever waits for it clears it."""
        event = asyncio.Event()
        self._events.append(event)
        return event

    def backlog(self, output: str) -> Backlog:
        """What the output has yet to get, as of the last commit."""
        position = self._state.outputs[output]
        return Backlog(position.rows, position.bytes)

    def ledger(self) -> Ledger:
        """Where every reading is, as of the last commit."""
        state = self._state
        return Ledger(
            sources={source: dict(counts) for source, counts in state.ledger.items()},
            outputs={
                name: {"delivered": position.delivered, "refused": position.refused}
                for name, position in state.outputs.items()
            },
            dead_letters=state.dead_rows,
            dead_dropped=state.dead_dropped,
            bytes=state.bytes,
        )

    async def close(self) -> None:
        """Finishes what was asked for and closes the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _do(self, work: Callable[[], _T]) -> _T:
        if self._closed:
            msg = f"{self.path}: the spool is closed"
            raise SpoolError(msg)
        future: Future[_T] = Future()
        self._jobs.put((work, future))
        return await asyncio.wrap_future(future)

    # The writer's thread

    def _work(self) -> None:
        running = True
        while running:
            waiting = [self._jobs.get()]
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._jobs.get_nowait())
            running = None not in waiting
            self._commit([job for job in waiting if job and job[1].set_running_or_notify_cancel()])
        with suppress(sqlite3.Error):
            self._db.close()
        os.close(self._lock)

    def _commit(self, jobs: list[tuple[Callable[[], Any], Future[Any]]], *, again: bool = True) -> None:
        try:
            results = self._transaction([work for work, _ in jobs])
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            damaged = isinstance(error, sqlite3.Error) and _code(error) in _DAMAGED
            if damaged and again:
                try:
                    self._recover()
                except (OSError, sqlite3.Error) as failure:
                    _log.error("%s: cannot replace the damaged spool: %s", self.path, failure)
                self._commit(jobs, again=False)
            elif len(jobs) > 1:  # one of them spoils it for all
                for job in jobs:
                    self._commit([job], again=again)
            else:
                explained = self._explained(error) if isinstance(error, sqlite3.Error) else error
                jobs[0][1].set_exception(explained)
        else:
            for (_, future), result in zip(jobs, results, strict=True):
                future.set_result(result)

    def _transaction(self, works: list[Callable[[], Any]]) -> list[Any]:
        # The working copy is published at the commit, so that the event loop never reads of what may be rolled back.
        before, self._draft = self._state, copy.deepcopy(self._state)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [work() for work in works]
            self._db.execute("COMMIT")
        except BaseException:
            self._draft = before
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._state = self._draft
        return results

    def _explained(self, error: sqlite3.Error) -> SpoolError:
        match _code(error):
            case sqlite3.SQLITE_FULL:
                hint = "the disk is full. Free some space, or lower [spool] max_bytes"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                hint = "the file is locked by another program. Close it there"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                hint = "cannot write. The file and its folder must be writable by this user"
            case sqlite3.SQLITE_IOERR:
                hint = "the disk reports an error. Check the medium"
            case _:
                hint = "the spool cannot be used now"
        return SpoolError(f"{self.path}: {hint} ({error})")

    # Requests, inside a transaction

    def _append(self, entry: Entry) -> int:
        state = self._draft
        queued: dict[str, int] = {}
        for source, counts in entry.counts.items():
            for name, number in counts.items():
                state.count(source, name, number)
            if counts.get("queued"):
                queued[source] = counts["queued"]
        if queued and not entry.lines:
            msg = f"an entry without lines counts queued readings: {queued}"
            raise ValueError(msg)
        row = 0
        for kind, lines in enumerate((entry.lines, entry.sums, entry.quarantine, entry.events)):
            if lines:
                row = self._insert(kind, lines, {} if kind else queued)
        self._bury((letter, "") for letter in entry.dead)
        self._write_ledger(entry.counts)
        return row

    def _insert(self, kind: int, lines: bytes, queued: dict[str, int]) -> int:
        text = lines + b"\n"
        compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
        columns = (
            self._draft.next_id,
            _now(),
            kind,
            text.count(b"\n"),
            len(text),
            zlib.crc32(text),
            json.dumps(queued, separators=(",", ":")),
        )
        self._evict(len(body) + _ROW_OVERHEAD)
        self._insert_row(columns, body)
        return columns[0]

    def _insert_row(self, columns: tuple[int, int, int, int, int, int, str], body: bytes) -> None:
        row, moment, *rest = columns
        self._db.execute(
            f"INSERT INTO batch ({_BATCH_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (row, moment, _crc(columns, body), *rest, body),
        )
        state = self._draft
        state.next_id = row + 1
        state.rows += 1
        state.bytes += len(body) + _ROW_OVERHEAD
        for position in state.outputs.values():
            if not position.has(row):
                position.rows += 1
                position.bytes += columns[4]

    def _evict(self, size: int) -> None:
        state = self._draft
        gone = 0
        while state.rows and state.bytes + size > self._max_bytes:
            (row,) = self._db.execute("SELECT min(id) FROM batch").fetchone()
            gone += self._remove(row, "evicted")
        if gone:
            _log.warning("%s: at its size limit, %d readings evicted, oldest first", self.path, gone)

    def _remove(self, row: int, fate: str) -> int:
        """Deletes a row and moves its readings from queued to their fate; the refused ones are dead."""
        state = self._draft
        query = f"SELECT readings, {_SIZES} FROM batch WHERE id = ?"  # noqa: S608
        text, raw_bytes, size = self._db.execute(query, (row,)).fetchone()
        (dead,) = self._db.execute("SELECT coalesce(sum(readings), 0) FROM refused WHERE batch = ?", (row,)).fetchone()
        readings = _sources(text)
        moved = 0
        for source, number in readings.items():
            lost = min(dead, number)
            dead -= lost
            moved += number - lost
            state.count(source, "queued", -number)
            state.count(source, "dead", lost)
            state.count(source, fate, number - lost)
        self._db.execute("DELETE FROM batch WHERE id = ?", (row,))
        self._db.execute("DELETE FROM refused WHERE batch = ?", (row,))
        state.rows -= 1
        state.bytes -= size + _ROW_OVERHEAD
        for position in state.outputs.values():
            if not position.has(row):
                position.rows -= 1
                position.bytes -= raw_bytes
        self._write_ledger(readings)
        return moved

    def _next_rows(self, output: str, max_bytes: int, *, newest_first: bool, without: Collection[int]) -> list[Row]:
        rows: list[Row] = []
        damaged = []
        total = 0
        order = "DESC" if newest_first else "ASC"
        query = f"SELECT {_BATCH_COLUMNS} FROM batch WHERE id BETWEEN ? AND ? ORDER BY id {order}"  # noqa: S608
        gaps = list(self._draft.outputs[output].gaps())
        for gap in reversed(gaps) if newest_first else gaps:
            for row, moment, crc, kind, lines, raw_bytes, raw_crc, readings, body in self._db.execute(query, gap):
                if row in without:
                    continue
                if _crc((row, moment, kind, lines, raw_bytes, raw_crc, readings), body) != crc:
                    damaged.append(row)
                    continue
                if rows and total + raw_bytes > max_bytes:
                    break
                total += raw_bytes
                rows.append(Row(row, moment, lines, raw_bytes, raw_crc, body))
            else:
                continue
            break
        for row in damaged:
            self._set_aside(row)
        if damaged:
            self._reconcile("dead")
        return sorted(rows, key=lambda row: row.id)

    def _set_aside(self, row: int) -> None:
        _log.error("%s: row %d is damaged on disk; its bytes are in the dead letters", self.path, row)
        query = "SELECT coalesce(CAST(body AS BLOB), x'') FROM batch WHERE id = ?"
        (body,) = self._db.execute(query, (row,)).fetchone()
        letter = DeadLetter(_now(), "", "", body, "damaged on disk: the row's checksum is wrong")
        self._bury([(letter, "")])
        self._db.execute("DELETE FROM batch WHERE id = ?", (row,))
        self._db.execute("DELETE FROM refused WHERE batch = ?", (row,))

    def _delivered(self, output: str, rows: list[int], refused: list[Refusal]) -> None:
        position = self._draft.outputs[output]
        lost: dict[int, list[Refusal]] = {}
        for refusal in refused:
            lost.setdefault(refusal.row, []).append(refusal)
        query = f"SELECT readings, {_SIZES} FROM batch WHERE id = ?"  # noqa: S608
        for row in rows:
            found = self._db.execute(query, (row,)).fetchone()
            if found is None or position.has(row):
                continue
            sources = _sources(found[0])
            left = total = sum(sources.values())
            for refusal in lost.get(row, ()):
                readings = min(left, _readings_in(refusal.text))
                left -= readings
                self._db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?, ?)", (row, refusal.line, readings))
                source = next(iter(sources), "")
                letter = DeadLetter(_now(), source, "", refusal.text, refusal.reason)
                self._bury([(letter, output)])
            position.delivered += left
            position.refused += total - left
            position.rows -= 1
            position.bytes -= found[1]
            position.add(row)
            if all(other.has(row) for other in self._draft.outputs.values()):
                self._remove(row, "delivered")
        self._write_output(output)

    def _bury(self, letters: Iterable[tuple[DeadLetter, str]]) -> None:
        state = self._draft
        before = state.dead_rows, state.dead_bytes
        for letter, output in letters:
            self._db.execute(
                "INSERT INTO dead (received, source, output, topic, reason, payload) VALUES (?, ?, ?, ?, ?, ?)",
                (letter.received, letter.source, output, letter.topic, letter.reason, letter.payload),
            )
            state.dead_rows += 1
            state.dead_bytes += len(letter.payload)
        if before == (state.dead_rows, state.dead_bytes):
            return
        most_rows, most_bytes = self._dead_limits
        dropped = 0
        while state.dead_rows > most_rows or state.dead_bytes > most_bytes:
            oldest, size = self._db.execute("SELECT id, length(payload) FROM dead ORDER BY id LIMIT 1").fetchone()
            self._db.execute("DELETE FROM dead WHERE id = ?", (oldest,))
            state.dead_rows -= 1
            state.dead_bytes -= size
            dropped += 1
        if dropped:
            state.dead_dropped += dropped
            self._db.execute("UPDATE dead_dropped SET count = ?", (state.dead_dropped,))

    def _write_ledger(self, sources: Iterable[str]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO ledger VALUES (:source, :received, :delivered, :queued, :quarantined, :dead, "
            ":duplicate, :evicted)",
            [{"source": source, **self._draft.ledger[source]} for source in sources if source in self._draft.ledger],
        )

    def _write_output(self, name: str) -> None:
        position = self._draft.outputs[name]
        (oldest,) = self._db.execute("SELECT coalesce(min(id), 0) FROM batch").fetchone()
        position.ranges = [span for span in position.ranges if oldest and span[1] >= oldest]
        self._db.execute(
            "INSERT OR REPLACE INTO output VALUES (?, ?, ?, ?)",
            (name, position.delivered, position.refused, json.dumps(position.ranges, separators=(",", ":"))),
        )

    # Opening, and what to do with a damaged file

    def _open(self) -> None:
        try:
            self._connect()
            self._transaction([self._load])
        except sqlite3.Error as error:
            if _code(error) not in _DAMAGED:
                raise
            self._recover()

    def _connect(self) -> None:
        # The constructor's thread opens, the writer's thread goes on; never both at a time.
        self._db = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        self._db.text_factory = lambda text: text.decode("utf-8", "replace")
        for pragma in _PRAGMAS:
            self._db.execute(pragma)
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._db.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
            return
        version = None
        if "schema_version" in tables:
            version = self._db.execute("SELECT version FROM schema_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            self._db.close()
            known = f"this citygate reads version {SCHEMA_VERSION}"
            what = f"has version {version}" if version else "is not a spool of citygate"
            msg = f"{self.path}: the file {what}; {known}. Use the matching citygate, or another [spool] path"
            raise SpoolError(msg)

    def _load(self) -> None:
        """Reads the writer's state from the file, and fits it to the configured outputs."""
        state = self._draft = _State()
        for source, *numbers in self._db.execute(
            "SELECT source, received, delivered, queued, quarantined, dead, duplicate, evicted FROM ledger"
        ):
            state.ledger[source] = dict(zip(("received", *FATES), numbers, strict=True))
        stored = {
            name: _Position(json.loads(ranges), delivered, refused)
            for name, delivered, refused, ranges in self._db.execute("SELECT * FROM output")
        }
        for name in stored.keys() - set(self._outputs):
            _log.warning("%s: the output '%s' is no longer configured; what it lacked is forgotten", self.path, name)
            self._db.execute("DELETE FROM output WHERE name = ?", (name,))
        state.outputs = {name: stored.get(name, _Position()) for name in self._outputs}
        self._measure()
        query = "SELECT count(*), coalesce(sum(length(payload)), 0), (SELECT count FROM dead_dropped) FROM dead"
        state.dead_rows, state.dead_bytes, state.dead_dropped = self._db.execute(query).fetchone()
        for row in self._everywhere() if stored.keys() != set(self._outputs) else []:
            self._remove(row, "delivered")
        for name in self._outputs:
            if name not in stored:
                self._write_output(name)

    def _measure(self) -> None:
        state = self._draft
        state.rows = state.bytes = 0
        ends = [span[1] for position in state.outputs.values() for span in position.ranges]
        for position in state.outputs.values():
            position.rows = position.bytes = 0
        for row, raw_bytes, size in self._db.execute(f"SELECT id, {_SIZES} FROM batch"):  # noqa: S608
            ends.append(row)
            state.rows += 1
            state.bytes += size + _ROW_OVERHEAD
            for position in state.outputs.values():
                if not position.has(row):
                    position.rows += 1
                    position.bytes += raw_bytes
        state.next_id = max([state.next_id - 1, *ends], default=0) + 1

    def _everywhere(self) -> list[int]:
        positions = self._draft.outputs.values()
        rows = [row for (row,) in self._db.execute("SELECT id FROM batch")]
        return [row for row in rows if positions and all(position.has(row) for position in positions)]

    def _reconcile(self, fate: str) -> None:
        """After damage: what the ledger calls queued and no row holds any more has met the given fate."""
        state = self._draft
        self._measure()
        queued: dict[str, int] = {}
        for (text,) in self._db.execute("SELECT readings FROM batch"):
            for source, number in _sources(text).items():
                queued[source] = queued.get(source, 0) + number
        for source in queued.keys() | state.ledger.keys():
            state.count(source, "queued", 0)
            missing = state.ledger[source]["queued"] - queued.get(source, 0)
            state.count(source, "queued", -missing)
            state.count(source, fate if missing > 0 else "received", abs(missing))
        self._write_ledger(list(state.ledger))

    def _recover(self) -> None:
        """Moves a damaged file aside and starts a new one with all that can be read of it."""
        if hasattr(self, "_db"):
            self._db.close()
        aside = Path(f"{self.path}.damaged-{_now()}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        self._connect()
        old = sqlite3.connect(aside, isolation_level=None)
        old.text_factory = self._db.text_factory
        try:
            self._transaction([lambda: self._salvage(old)])
        finally:
            with suppress(sqlite3.Error):
                old.close()
        _log.error(
            "%s: the spool was damaged; it is set aside as %s and a new one started, with %d batches kept",
            self.path,
            aside,
            self._state.rows,
        )

    def _salvage(self, old: sqlite3.Connection) -> None:
        for table in ("ledger", "output", "refused", "dead"):
            for columns in _readable(old, f"SELECT * FROM {table}"):  # noqa: S608
                with suppress(sqlite3.IntegrityError):
                    marks = ", ".join("?" * len(columns))
                    self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", columns)  # noqa: S608
        for count in _readable(old, "SELECT count FROM dead_dropped"):
            self._db.execute("UPDATE dead_dropped SET count = ?", count)
        self._load()
        for row, moment, crc, kind, lines, raw_bytes, raw_crc, readings, body in _readable_batches(old):
            columns = (row, moment, kind, lines, raw_bytes, raw_crc, readings)
            if _crc(columns, body) == crc:
                self._insert_row(columns, body)
        self._reconcile("evicted")
        for row in self._everywhere():
            self._remove(row, "delivered")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one


def _readable(old: sqlite3.Connection, query: str, *arguments: int) -> Iterator[tuple[Any, ...]]:
    """Rows up to the first that cannot be read."""
    with suppress(sqlite3.Error):
        yield from old.execute(query, arguments)


def _readable_batches(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Rows from both ends up to the damage, then one by one between."""
    query = f"SELECT {_BATCH_COLUMNS} FROM batch"  # noqa: S608
    low, high = 0, 0
    for columns in _readable(old, f"{query} ORDER BY id"):
        low = columns[0]
        yield columns
    for columns in _readable(old, f"{query} WHERE id > ? ORDER BY id DESC", low):
        high = columns[0]
        yield columns
    for row in range(low + 1, high):
        yield from _readable(old, f"{query} WHERE id = ?", row)


__all__ = ["CLASSES", "FATES", "Backlog", "Ledger", "Refusal", "Row", "Spool", "SpoolError", "gzip_of"]
