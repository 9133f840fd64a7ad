"""The book: alerts on disk, so that what was acknowledged stays so.

A SQLite file of its own (WAL, synchronous=FULL) beside whatever store the readings are in: what was written survives a
power cut. Its methods block, so call them in a thread.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from gateway.city.alerts.models import Kept
from gateway.city.store.base import StoreError

_VERSION = 1
_SCHEMA = """
CREATE TABLE alert (id TEXT PRIMARY KEY, changed INTEGER NOT NULL, open INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX alert_changed ON alert (changed);
"""


class Book:
    """Keeps alerts.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Opens the file, or makes it.

        Raises:
            StoreError: If it cannot be used.
        """
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(
                    self._path, timeout=30, isolation_level=None, check_same_thread=False
                )
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    self._connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_VERSION};COMMIT;")
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from error
            if version not in {0, _VERSION}:
                msg = f"{self._path}: written by another version of citygate (schema {version}, not {_VERSION})"
                raise StoreError(msg)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def recent(self, number: int) -> list[Kept]:
        """All open alerts, and the newest of the others up to this number, in the order of their last change.

        Raises:
            StoreError: If the file cannot be read.
        """
        rows = self._run(
            "SELECT body FROM alert WHERE open OR id IN (SELECT id FROM alert ORDER BY changed DESC LIMIT ?)"
            " ORDER BY changed",
            [(number,)],
        )
        return [Kept.model_validate_json(body) for (body,) in rows]

    def write(self, alerts: Iterable[Kept]) -> None:
        """Writes alerts as they are now; on disk when it returns.

        Raises:
            StoreError: If they cannot be written; none is, then.
        """
        rows: list[tuple[object, ...]] = [
            (alert.id, alert.revisions[-1], alert.until is None, alert.model_dump_json(exclude_defaults=True))
            for alert in alerts
        ]
        self._run("INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?)", rows)

    def prune(self, before: int) -> int:
        """Deletes alerts that ended before a time in ms UTC.

        Returns:
            How many went.

        Raises:
            StoreError: If the file cannot be written.
        """
        return len(self._run("DELETE FROM alert WHERE NOT open AND changed < ? RETURNING id", [(before,)]))

    def _run(self, statement: str, rows: list[tuple[object, ...]]) -> list[tuple[str]]:
        with self._lock:
            connection = self._connection
            if connection is None:
                msg = f"{self._path}: the file of alerts is closed"
                raise StoreError(msg)
            try:
                if len(rows) == 1:
                    return connection.execute(statement, rows[0]).fetchall()
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(statement, rows)
            except sqlite3.Error as error:
                raise self._unusable(error) from error
            return []

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: the file of alerts cannot be used: {error}; check the disk and its owner")
