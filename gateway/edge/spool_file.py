"""The spool's file: its tables, the checksum of every record, and the space on its disk."""

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.edge.salvage import is_cut, records
from gateway.edge.spool_state import State

SCHEMA_VERSION = 2
PAGE_SIZE = 1024  # a small commit writes two pages; with larger ones it writes twice as much

# Every record has its id first and its checksum second, so that it is known wherever it is found.
_TABLES = {
    "state": """
        id INTEGER PRIMARY KEY, -- 1: there is one
        crc INTEGER NOT NULL,
        serial INTEGER NOT NULL, -- ascending with every transaction
        text TEXT NOT NULL, -- JSON: ledger, outputs and the next ids
        recent BLOB NOT NULL -- the newest keys, 8 bytes each""",
    "batch": """
        id INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,
        time INTEGER NOT NULL, -- of the append, ms UTC
        class INTEGER NOT NULL, -- its place among CLASSES
        overall INTEGER NOT NULL, -- whether its readings are on the whole ledger, not only on that of an output
        lines INTEGER NOT NULL,
        raw_bytes INTEGER NOT NULL, -- of the line protocol
        raw_crc INTEGER NOT NULL, -- CRC-32 of the line protocol
        readings TEXT NOT NULL, -- JSON, source: readings in it
        body BLOB NOT NULL -- raw deflate, flushed and not finished: bodies can be joined""",
    "refused": """
        id INTEGER PRIMARY KEY, -- of the row, times 2^24, plus the line's number
        crc INTEGER NOT NULL,
        readings INTEGER NOT NULL,
        source TEXT NOT NULL""",
    "dead": """
        id INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,
        received INTEGER NOT NULL, -- ms UTC
        source TEXT NOT NULL,
        output TEXT NOT NULL, -- whose server refused it; '': it could not be read
        topic TEXT NOT NULL,
        reason TEXT NOT NULL,
        readings INTEGER NOT NULL,
        overall INTEGER NOT NULL, -- whether it is on the whole ledger: it is not if another output refused it before
        refused INTEGER NOT NULL, -- id in that table, or 0
        payload BLOB NOT NULL""",
    "held": """
        id INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,
        source TEXT NOT NULL,
        topic TEXT NOT NULL,
        readings INTEGER NOT NULL,
        boot TEXT NOT NULL,
        moment INTEGER NOT NULL, -- ms since that boot
        floor INTEGER NOT NULL, -- wall clock last known before, ms UTC
        payload BLOB NOT NULL""",
    "keys": """
        id INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,
        serial INTEGER NOT NULL, -- of the state with which it came
        keys BLOB NOT NULL -- 8 bytes each""",
}
COLUMNS = {table: [line.split()[0] for line in text.split("\n") if line.strip()] for table, text in _TABLES.items()}
_INSERTS = {
    table: f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    for table, columns in COLUMNS.items()
}
_BALLAST = 2**20
_BALLAST_PART = 16  # of a small file system
_CHECKPOINT = 2**22  # bytes of log: a batch delivered before the checkpoint is never written to the main file
_CHECKED = 2**26  # bytes of a file whose every page is looked at when it is opened
_SLACK = 2**16  # the log's index, folders, and what is wrong with the estimate
_RETRY = 10.0  # s between two attempts to make the file smaller

_log = logging.getLogger(__name__)


class SpoolError(Exception):
    """The spool cannot do it now; the message says why and what to do. Nothing of the request was done."""


class Damaged(Exception):  # noqa: N818 - it is mended, and seen by nobody
    """The file contradicts itself; the message says how."""


def seal(table: str, columns: Sequence[Any]) -> int:
    """Checksum of a record; ``columns`` are all but the checksum."""
    *rest, last = columns
    if isinstance(last, bytes):
        return zlib.crc32(last, zlib.crc32(repr((SCHEMA_VERSION, table, *rest)).encode()))
    return zlib.crc32(repr((SCHEMA_VERSION, table, *columns)).encode())


def put(db: sqlite3.Connection, table: str, columns: Sequence[Any]) -> None:
    """Writes a record; ``columns`` are all but the checksum, which is the second one in the file."""
    db.execute(_INSERTS[table], (columns[0], seal(table, columns), *columns[1:]))


def copy(db: sqlite3.Connection, table: str, record: Sequence[Any]) -> None:
    """Writes a whole record as it was found."""
    db.execute(_INSERTS[table], record)


def whole(table: str, record: Sequence[Any]) -> bool:
    """Whether a record, as it is in the file, is as it was written."""
    return len(record) == len(COLUMNS[table]) and record[1] == seal(table, (record[0], *record[2:]))


def found(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every whole record in a damaged file, with the name of its table; older copies before newer ones."""
    for record in records(path):
        for table, columns in COLUMNS.items():
            if len(record) == len(columns) and whole(table, record):
                yield table, record


def code(error: BaseException) -> int:
    """SQLite's primary code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    """Opens a spool's file, or makes it.

    Raises:
        Damaged: The file contradicts itself.
        SpoolError: It is something else, or of another version.
        sqlite3.Error: As SQLite finds.
    """
    if is_cut(path):
        msg = "the write-ahead log is damaged"
        raise Damaged(msg)
    if not _size(str(path)) and _size(f"{path}-wal"):  # SQLite would delete the log
        msg = "the file is empty, and its log is not"
        raise Damaged(msg)
    # The constructor's thread opens, the writer's thread goes on; never both at a time.
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        log = log_size(path)
        for pragma in (
            f"page_size={PAGE_SIZE}",
            f"journal_mode={journal}",
            "synchronous=FULL",
            f"wal_autocheckpoint={log // PAGE_SIZE}",
            f"journal_size_limit={log + log // 4}",
            "cache_size=-1024",
            "temp_store=MEMORY",
            "secure_delete=OFF",  # Debian's SQLite writes zeros over whatever is deleted: twice the wear
        ):
            db.execute(f"PRAGMA {pragma}")
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if pages <= 1 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            tables = "".join(f"CREATE TABLE {table} ({columns}\n);\n" for table, columns in _TABLES.items())
            db.executescript(
                f"BEGIN IMMEDIATE;{tables}CREATE TABLE request (dead INTEGER PRIMARY KEY);"
                f"PRAGMA user_version={SCHEMA_VERSION};"
            )
            put(db, "state", (1, 0, State().text(), b""))
            db.execute("COMMIT")
        check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def check(db: sqlite3.Connection, path: Path) -> None:
    """Looks whether it is a spool of this version, and, unless that takes long, whether its pages are sound.

    Raises:
        Damaged: They are not.
        SpoolError: It is something else, or of another version.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "schema_version" in tables:  # before version 2
        (version,) = db.execute("SELECT version FROM schema_version").fetchone()
    if version != SCHEMA_VERSION or not tables.issuperset(COLUMNS):
        if any(True for _ in found(path)):
            msg = "its header or its schema is wrong"
            raise Damaged(msg)
        what = (
            f"has version {version}" if "batch" in tables and version != SCHEMA_VERSION else "is no spool of citygate"
        )
        msg = (
            f"{path}: the file {what}; this citygate reads version {SCHEMA_VERSION}. "
            "Use the matching citygate, or another [spool] path"
        )
        raise SpoolError(msg)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if pages * PAGE_SIZE <= _CHECKED:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(verdict)


def log_size(path: Path) -> int:
    """Size of the write-ahead log at which it is copied to the main file; less on a small file system."""
    return max(min(_CHECKPOINT, _total(path) // _BALLAST_PART), 2**16)


def _total(path: Path) -> int:
    system = os.statvfs(path.parent)
    return system.f_blocks * system.f_frsize


def _size(path: str) -> int:
    with suppress(OSError):
        return Path(path).stat().st_size
    return 0


class Space:
    """The room that is left for the spool, and a ballast: space that is given up so that a full disk can be mended.

    Args:
        path: The spool's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = Path(f"{path}.reserve")
        self._log = log_size(path)
        self.total = _total(path)
        self._ballast = min(_BALLAST, self.total // _BALLAST_PART)
        self._next = 0.0
        self._has_ballast = False
        self.fill()

    def left(self, db: sqlite3.Connection, enough: int) -> int:
        """Bytes that can be appended before other requests are in danger; not counted further than ``enough``."""
        system = os.statvfs(self._path.parent)
        free = system.f_bavail * system.f_frsize - _SLACK - (0 if self._has_ballast else self._ballast)
        if free > enough + 3 * self._log:
            return enough
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        missing = max(pages * PAGE_SIZE - _size(str(self._path)), 0)  # they are in the log only
        unlogged = max(self._log + self._log // 4 - _size(f"{self._path}-wal"), 0)
        return int(min(free - missing - unlogged + self.unused(db), enough))

    def unused(self, db: sqlite3.Connection) -> int:
        """Bytes in the file that are free already."""
        (unused,) = db.execute("PRAGMA freelist_count").fetchone()
        return int(unused) * PAGE_SIZE

    def is_hollow(self, db: sqlite3.Connection) -> bool:
        """Whether the file has more than the ballast to give back, and little to copy for that; asked now and then."""
        if monotonic() < self._next:
            return False
        self._next = monotonic() + _RETRY
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        unused = self.unused(db)
        return unused >= 2 * self._ballast and pages * PAGE_SIZE - unused <= 2 * self._log

    def scarce(self) -> bool:
        """Whether the file system is full, whatever the error says."""
        system = os.statvfs(self._path.parent)
        return system.f_bavail * system.f_frsize < _SLACK

    def give_up(self) -> bool:
        """Frees the ballast; whether there was one."""
        had, self._has_ballast = self._has_ballast, False
        with suppress(OSError):
            self._reserve.unlink()
        return had

    def fill(self) -> bool:
        """Takes the ballast again if it is missing and there is room; whether it is there."""
        if self._has_ballast:
            return True
        system = os.statvfs(self._path.parent)
        missing = self._ballast - _size(str(self._reserve))
        if missing > 0 and system.f_bavail * system.f_frsize < missing + _SLACK:
            return False
        try:
            file = os.open(self._reserve, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, self._ballast)
            finally:
                os.close(file)
        except OSError:
            self.give_up()
            return False
        self._has_ballast = True
        return True


__all__ = [
    "COLUMNS",
    "Damaged",
    "Space",
    "SpoolError",
    "check",
    "code",
    "connect",
    "copy",
    "found",
    "log_size",
    "put",
    "seal",
    "whole",
]
