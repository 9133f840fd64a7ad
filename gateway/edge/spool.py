"""The spool: what is ours and not yet everywhere, in one SQLite file.

``append`` returns when a batch is on the disk (WAL, ``synchronous=FULL``): from then on a power cut takes nothing of
it. A row is deleted when every configured output has it. The ledger changes in the same transaction as the rows, so
that for every source, on the whole and for each output, after a kill at any moment::

    received = delivered + queued + quarantined + dead + duplicate + evicted

One thread does all the work and commits everything that waits in one transaction, so that a reader of the spool and a
busy ingest share one fsync. What was delivered is noted with the next commit, or soon: a note that a power cut takes
means that the row is sent again.

``spool_store`` is what it does in the file, ``spool_state`` what it knows by heart, ``spool_file`` the file itself.
"""

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from gateway.config import GatewayConfig
from gateway.edge.batch import Entry, Held
from gateway.edge.spool_file import Damaged, SpoolError, check, code
from gateway.edge.spool_row import Row, gzip_of
from gateway.edge.spool_state import CLASSES, FATES, Account, State
from gateway.edge.spool_store import DAMAGED, Dead, Limits, Refusal, Store, dead_in, differences, held_in, load

_NOTE_WITHIN = 5.0  # s until a delivery is on the disk; a commit before that takes it along
_REQUEST_TIMEOUT = 4 * _NOTE_WITHIN

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(slots=True, frozen=True)
class Backlog:
    """What an output has yet to get: rows, and bytes of line protocol."""

    rows: int
    bytes: int


@dataclass(slots=True, frozen=True)
class Waiting:
    """A row as ``citygate spool`` lists it.

    Attributes:
        id: Ascending in the order of the appends.
        time: Of the append, ms UTC.
        kind: Its class of data.
        lines: Number of points.
        raw_bytes: Length of the line protocol.
        bytes: Length of it, compressed.
        outputs: Those that lack it.
    """

    id: int
    time: int
    kind: str
    lines: int
    raw_bytes: int
    bytes: int
    outputs: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Ledger:
    """Where every reading is.

    Attributes:
        sources: Source → readings by fate, and ``received``, which is their sum.
        outputs: Output → the same for what the output has, lacks, or will never get. The ledger of an output that was
            configured later begins with what was in the spool then.
        dead_letters: Dead letters kept.
        dead_dropped: Dead letters dropped at the bound, oldest first; they stay counted as dead.
        bytes: Size of the rows and held messages in the spool, compressed.
        waiting: Source → readings in them.
        outputs_waiting: Output → the same for what it lacks.
    """

    sources: dict[str, dict[str, int]]
    outputs: dict[str, dict[str, dict[str, int]]]
    dead_letters: int
    dead_dropped: int
    bytes: int
    waiting: dict[str, int] = field(default_factory=dict)
    outputs_waiting: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> dict[str, int]:
        """All sources together."""
        return {fate: sum(counts[fate] for counts in self.sources.values()) for fate in ("received", *FATES)}

    def mismatches(self) -> list[str]:
        """What does not add up, in words; nothing if the ledger is exact."""
        found = _mismatches("", self.sources, self.waiting)
        for output, sources in self.outputs.items():
            found += _mismatches(f", output '{output}'", sources, self.outputs_waiting.get(output, {}))
        return found


def _mismatches(where: str, sources: dict[str, dict[str, int]], waiting: dict[str, int]) -> list[str]:
    found = []
    for source, counts in sources.items():
        place = f"source '{source}'{where}"
        total = sum(counts[fate] for fate in FATES)
        if counts["received"] != total:
            found.append(f"{place}: {counts['received']} received, but {total} delivered, waiting, or given up")
        found += [f"{place}: {name} is {number}" for name, number in counts.items() if number < 0]
    for source in differences(sources, waiting):
        queued = sources.get(source, {}).get("queued", 0)
        found.append(f"source '{source}'{where}: {queued} queued, but {waiting.get(source, 0)} in the spool")
    return found


@dataclass(slots=True, frozen=True)
class _Job:
    """Something to do in a transaction; ``durable`` if whoever asked waits for the disk."""

    work: Callable[[], Any]
    future: Future[Any]
    durable: bool


class Spool:
    """Rows on disk until every output has them.

    Methods may be called from one event loop. Everything is done in the order of the calls.

    Args:
        path: The file; its folder is created.
        outputs: Names of the configured outputs. What an output that is no longer among them lacked is forgotten; a
            new one begins at the oldest row present.
        max_bytes: Size of compressed rows at which the spool is full, as it is when the disk is.
        hold: How long a full spool refuses what comes before it evicts, s.
        evict: Classes of data in the order in which a full spool evicts them, oldest first, each reading counted;
            those not named follow.
        keys_kept: How many keys of messages are remembered across restarts.
        dead_rows: Most dead letters kept.
        dead_bytes: Most bytes of dead letters kept; less on a small file system.

    Raises:
        SpoolError: The file cannot be used; a damaged one is moved aside instead, and what is readable is kept.
    """

    def __init__(  # noqa: PLR0913 - bounds, all but the first few by name
        self,
        path: Path,
        outputs: Sequence[str],
        max_bytes: int = 2**30,
        *,
        hold: float = 60.0,
        evict: Sequence[str] = ("raw", "aggregate"),
        keys_kept: int = 16384,
        dead_rows: int = 10_000,
        dead_bytes: int = 2**24,
    ) -> None:
        self.path = path
        self._events: list[asyncio.Event] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._notes: list[_Job] = []  # done in the open transaction; to be done again if it is lost
        self._due = 0.0
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"{path}: cannot open the spool: {error.strerror}. Its folder must be writable by this user"
            raise SpoolError(msg) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            limits = Limits(max_bytes, hold, evict, keys_kept, dead_rows, dead_bytes)
            self._store = Store(path, outputs, limits)
        except BlockingIOError as error:
            os.close(self._lock)
            msg = f"{path}: another gateway uses this spool. Stop it, or give this one another [spool] path"
            raise SpoolError(msg) from error
        except sqlite3.Error as error:
            os.close(self._lock)
            raise _explained(path, error) from error
        except BaseException:
            os.close(self._lock)
            raise
        self._saved = self._state = self._store.state
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, config: GatewayConfig) -> Self:
        """The spool of a gateway.

        Raises:
            SpoolError: The file cannot be used.
        """
        names, settings = [output.name for output in config.output], config.spool
        return cls(config.spool_path, names, settings.max_bytes, hold=settings.hold, evict=settings.evict)

    # What others ask, from the event loop

    async def append(self, entry: Entry) -> int:
        """Keeps a batch: a row for each class of data in it.

        Returns:
            The last row's id, after the commit; 0 when the entry had no lines (the rest of it is kept).

        Raises:
            SpoolError: Nothing was kept (spool or disk full, file locked, ...): do not acknowledge, try again within
                two seconds.
            ValueError: The entry counts queued readings and has neither lines nor held messages for them.
        """
        row = await self._do(lambda: self._store.append(entry), durable=True)
        if row:
            self._arrived()
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
        return await self._do(
            lambda: self._store.next_rows(output, max_bytes, newest_first=newest_first, without=without)
        )

    async def delivered(self, output: str, rows: Iterable[int], refused: Iterable[Refusal] = ()) -> None:
        """Notes that the output has these rows except for the refused points.

        The note is on the disk with the next commit, or soon; if a power cut takes it, the rows are sent again.

        Args:
            output: Its name.
            rows: Their ids; those that are gone meanwhile, or noted before, are passed over.
            refused: Points of these rows that its server refused for good; they become dead letters.

        Raises:
            SpoolError: Nothing was noted; the rows will be asked for again.
        """
        ids, bad = list(rows), list(refused)
        await self._do(lambda: self._store.delivered(output, ids, bad))

    def keys(self) -> list[int]:
        """Keys of messages appended in earlier runs, oldest first."""
        data = self._store.keys
        return list(struct.unpack(f"<{len(data) // 8}Q", data))

    @property
    def known_time(self) -> int:
        """``Entry.time`` of the last entry that had one, ms UTC; 0 if none ever had."""
        return self._state.time

    async def held(self, limit: int) -> list[Held]:
        """The oldest held messages, oldest first."""
        return await self._do(lambda: held_in(self._store.db, limit))

    async def dead_letters(self, limit: int = 100) -> list[Dead]:
        """The newest dead letters, newest first."""
        return await self._do(lambda: dead_in(self._store.db, limit))

    async def requests(self) -> list[int]:
        """Ids of the dead letters that another process wants to be tried again; see ``Peek.ask``."""
        return await self._do(self._store.requests)

    async def requeue(self, ids: Sequence[int], entry: Entry | None = None) -> int:
        """Takes dead letters out, in one transaction.

        A point that a server refused is queued again for that output alone; if the output is no longer configured, it
        stays. A message that could not be read leaves the ledger, and ``entry`` counts it again.

        Args:
            ids: Their ids.
            entry: What has become of the messages among them.

        Returns:
            How many have left the dead letters.

        Raises:
            SpoolError: Nothing was done.
            LookupError: Nothing was done: one of them is there no more.
        """
        numbers = await self._do(lambda: self._store.requeue(ids, entry), durable=True)
        self._arrived()
        return numbers

    def arrival(self) -> asyncio.Event:
        """An event that is set at every append from now on; whoever waits for it clears it."""
        event = asyncio.Event()
        self._events.append(event)
        return event

    def backlog(self, output: str) -> Backlog:
        """What the output has yet to get."""
        position = self._state.outputs[output]
        return Backlog(position.rows, position.bytes)

    def ledger(self) -> Ledger:
        """Where every reading is."""
        return _ledger(self._state)

    async def close(self) -> None:
        """Finishes what was asked for and closes the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _do(self, work: Callable[[], _T], *, durable: bool = False) -> _T:
        if self._closed:
            msg = f"{self.path}: the spool is closed"
            raise SpoolError(msg)
        future: Future[_T] = Future()
        self._jobs.put(_Job(work, future, durable))
        return await asyncio.wrap_future(future)

    def _arrived(self) -> None:
        for event in self._events:
            event.set()

    # The writer's thread

    def _work(self) -> None:
        running = True
        while running:
            waiting: list[_Job | None] = []
            with suppress(queue.Empty):
                waiting.append(self._jobs.get(timeout=max(self._due - time.monotonic(), 0) if self._notes else None))
                while True:
                    waiting.append(self._jobs.get_nowait())
            running = None not in waiting
            jobs = [job for job in waiting if job and job.future.set_running_or_notify_cancel()]
            self._serve(jobs, last=not running)
        with suppress(sqlite3.Error):
            self._store.db.close()
        os.close(self._lock)

    def _serve(self, jobs: list[_Job], *, last: bool) -> None:
        """Does what waits in one transaction; once more if the disk or the file could be mended."""
        mended: set[str] = set()
        while True:
            try:
                outcomes = self._transaction(jobs, last=last)
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                self._abandon()
                remedy = self._mend(error)
                if remedy is None or remedy in mended:
                    self._due = time.monotonic() + 1
                    refusal = _explained(self.path, error)
                    if not isinstance(refusal, SpoolError):  # about no single job
                        refusal = SpoolError(f"{self.path}: the spool cannot be used now ({error!r})")
                    for job in jobs:
                        job.future.set_exception(refusal)
                    return
                mended.add(remedy)
            else:
                break
        for job, (result, problem) in zip(jobs, outcomes, strict=True):
            if problem is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(problem)

    def _transaction(self, jobs: list[_Job], *, last: bool) -> list[tuple[Any, Exception | None]]:
        """Does the jobs, and commits unless only notes are to be written, which can wait."""
        store = self._store
        if store.broken:
            self._replace(store.broken)
        if not store.db.in_transaction:
            store.db.execute("BEGIN IMMEDIATE")
            for note in self._notes:  # the transaction that they were in is lost
                self._attempt(note)
        outcomes = []
        notes = []
        for job in jobs:
            result, problem, wrote = self._attempt(job)
            outcomes.append((result, problem))
            if wrote:
                notes.append(job)
        now = time.monotonic()
        if not self._notes:
            self._due = now + _NOTE_WITHIN
        if store.state.changed and not (last or now >= self._due or any(job.durable for job in notes)):
            self._notes += notes
            self._state = store.state
            return outcomes
        if store.state.changed:
            store.write()
        store.db.execute("COMMIT")
        self._notes.clear()
        self._saved = self._state = store.state
        store.committed(durable=any(job.durable for job in notes))
        return outcomes

    def _attempt(self, job: _Job) -> tuple[Any, Exception | None, bool]:
        """Does one job inside the transaction: its result or its error, and whether it wrote something.

        It works on a copy of the state, so that the event loop never reads of what may be undone.
        """
        store = self._store
        before = store.state
        draft = store.state = before.copy()
        draft.changed = False
        store.db.execute("SAVEPOINT job")
        try:
            result = job.work()
        except Exception as error:
            store.state = before
            if _spoils_all(error) or not store.db.in_transaction:
                raise
            store.db.execute("ROLLBACK TO job")
            store.db.execute("RELEASE job")
            return None, _explained(self.path, error), False
        store.db.execute("RELEASE job")
        wrote = store.state.changed
        if wrote:
            return result, None, True
        store.state = before
        return result, None, False

    def _abandon(self) -> None:
        with suppress(sqlite3.Error):
            self._store.db.execute("ROLLBACK")
        self._store.state = self._state = self._saved

    def _replace(self, why: str) -> None:
        self._store.replace(why)
        self._saved = self._state = self._store.state

    def _mend(self, error: Exception) -> str | None:
        """What was done so that the transaction can be tried again; None if nothing helps."""
        store = self._store
        try:
            if code(error) in DAMAGED:
                self._replace(str(error))
                return "replaced"
            if code(error) == sqlite3.SQLITE_FULL or (code(error) == sqlite3.SQLITE_IOERR and store.space.scarce()):
                store.full()
                return "room"
        except Exception as failure:  # noqa: BLE001 - whoever asks later gets it
            _log.error("%s: cannot be mended: %s", self.path, failure)
        return None


class Peek:
    """A look at a spool from another process; the gateway may be running.

    Args:
        path: The file.

    Raises:
        SpoolError: There is none, it cannot be read, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = _opened(path, "ro")
            self._db.execute("BEGIN")  # the ledger and the rows are those of one moment
            self._state = load(self._db)
            self._db.execute("COMMIT")
        except (sqlite3.Error, Damaged) as error:
            if isinstance(error, sqlite3.Error) and code(error) not in DAMAGED:
                raise _explained(path, error) from error
            msg = f"{path}: the spool is damaged ({error}); the gateway mends it when it starts"
            raise SpoolError(msg) from error

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._db.close()

    def ledger(self) -> Ledger:
        """Where every reading is; what was delivered in the last seconds may still be called queued."""
        return _ledger(self._state)

    def rows(self) -> Iterator[Waiting]:
        """All rows, oldest first, without their points."""
        query = "SELECT id, time, class, lines, raw_bytes, length(body) FROM batch ORDER BY id"
        outputs = self._state.outputs
        for row, moment, kind, lines, raw_bytes, size in self._db.execute(query):
            lacking = tuple(name for name, position in outputs.items() if not position.has(row))
            yield Waiting(row, moment, CLASSES[kind], lines, raw_bytes, size, lacking)

    def row(self, number: int) -> Row | None:
        """One row with its points, if it is there."""
        query = "SELECT id, time, lines, raw_bytes, raw_crc, body FROM batch WHERE id = ?"
        columns = self._db.execute(query, (number,)).fetchone()
        return Row(*columns) if columns else None

    def dead_letters(self, limit: int = -1) -> list[Dead]:
        """The newest dead letters, newest first; all by default."""
        return dead_in(self._db, limit)

    def held(self, limit: int = -1) -> list[Held]:
        """The oldest held messages, oldest first; all by default."""
        return held_in(self._db, limit)

    def ask(self, ids: Iterable[int]) -> None:
        """Asks the gateway to try these dead letters again; if it is not running, it will when it starts.

        Raises:
            SpoolError: The file cannot be written now.
        """
        try:
            db = _opened(self.path, "rw")
            try:
                db.executemany("INSERT OR IGNORE INTO request VALUES (?)", [(number,) for number in ids])
                db.commit()
            finally:
                db.close()
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_REQUEST_TIMEOUT)
    try:
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _ledger(state: State) -> Ledger:
    def sources(account: Account) -> dict[str, dict[str, int]]:
        return {source: counts.copy() for source, counts in account.sources.items()}

    def waiting(account: Account) -> dict[str, int]:
        return {source: number for source, number in account.waiting.items() if number}

    return Ledger(
        sources=sources(state.account),
        outputs={name: sources(position.account) for name, position in state.outputs.items()},
        dead_letters=state.dead_rows,
        dead_dropped=state.dead_dropped,
        bytes=state.size,
        waiting=waiting(state.account),
        outputs_waiting={name: waiting(position.account) for name, position in state.outputs.items()},
    )


def _spoils_all(error: Exception) -> bool:
    """Whether it is about the disk or the file, not about what was asked for."""
    return code(error) in {*DAMAGED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def _explained(path: Path, error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error | OSError):
        return error
    match code(error):
        case sqlite3.SQLITE_FULL:
            hint = "the disk is full. Free some space, or lower [spool] max_bytes"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            hint = "the file is locked by another program. Close it there"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            hint = "cannot open or write it. The file and its folder must belong to this user"
        case sqlite3.SQLITE_IOERR:
            hint = "the disk reports an error. Check the medium"
        case _:
            hint = "the spool cannot be used now"
    return SpoolError(f"{path}: {hint} ({error})")


__all__ = [
    "CLASSES",
    "FATES",
    "Backlog",
    "Dead",
    "Ledger",
    "Peek",
    "Refusal",
    "Row",
    "Spool",
    "SpoolError",
    "Waiting",
    "gzip_of",
]
