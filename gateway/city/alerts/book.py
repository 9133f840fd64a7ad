"""The book: alerts on disk, so that what was acknowledged stays so.

A SQLite file of its own (WAL, synchronous=FULL) beside whatever store the readings are in: what was written survives a
power cut. Its methods block, so call them in a thread.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gateway.city.alerts.models import Kept
from gateway.city.store.base import StoreError

_VERSION = 2
_SCHEMA = """
CREATE TABLE alert (id TEXT PRIMARY KEY, changed INTEGER NOT NULL, open INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX alert_changed ON alert (changed);
"""
_LETTERS = """
CREATE TABLE letter (
    number INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, time INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX letter_channel ON letter (channel, number);
"""


class Letter(NamedTuple):
    """What is to be told by a channel.

    Attributes:
        channel: The channel's name.
        time: Since when, ms UTC.
        body: What.
    """

    channel: str
    time: int
    body: str


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
                if version < _VERSION:
                    made = (_SCHEMA if version == 0 else "") + _LETTERS
                    self._connection.executescript(f"BEGIN;{made}PRAGMA user_version = {_VERSION};COMMIT;")
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from error
            if version > _VERSION:
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
            (number,),
        )
        return [Kept.model_validate_json(body) for (body,) in rows]

    def between(self, start: int, end: int) -> list[Kept]:
        """The alerts that began with start <= time < end, in ms UTC.

        Raises:
            StoreError: If the file cannot be read.
        """
        rows = self._run("SELECT body FROM alert WHERE changed >= ?", (start,))
        alerts = (Kept.model_validate_json(body) for (body,) in rows)
        return [alert for alert in alerts if start <= alert.since < end]

    def write(self, alerts: Iterable[Kept], letters: Iterable[Letter] = ()) -> None:
        """Writes alerts as they are now, and what is to be told of them; on disk when it returns.

        Raises:
            StoreError: If they cannot be written; none is, then.
        """
        rows: list[tuple[object, ...]] = [
            (alert.id, alert.revisions[-1], alert.until is None, alert.model_dump_json(exclude_defaults=True))
            for alert in alerts
        ]
        with self._lock:
            connection = self._used()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    connection.executemany("INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?)", rows)
                    connection.executemany("INSERT INTO letter (channel, time, body) VALUES (?, ?, ?)", letters)
                    connection.execute("COMMIT")
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def next_letter(self, channel: str) -> tuple[int, Letter] | None:
        """The oldest letter of a channel with its number; None if none waits.

        Raises:
            StoreError: If the file cannot be read.
        """
        rows = self._run(
            "SELECT number, channel, time, body FROM letter WHERE channel = ? ORDER BY number LIMIT 1", (channel,)
        )
        return (rows[0][0], Letter(*rows[0][1:])) if rows else None

    def tear_up(self, number: int) -> None:
        """Deletes a letter that was taken.

        Raises:
            StoreError: If the file cannot be written.
        """
        self._run("DELETE FROM letter WHERE number = ?", (number,))

    def waiting(self) -> dict[str, int]:
        """How many letters wait, by channel.

        Raises:
            StoreError: If the file cannot be read.
        """
        return dict(self._run("SELECT channel, count(*) FROM letter GROUP BY channel", ()))

    def prune(self, before: int) -> int:
        """Deletes alerts that ended before a time in ms UTC.

        Returns:
            How many went.

        Raises:
            StoreError: If the file cannot be written.
        """
        return len(self._run("DELETE FROM alert WHERE NOT open AND changed < ? RETURNING id", (before,)))

    def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            connection = self._used()
            try:
                return connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def _used(self) -> sqlite3.Connection:
        if self._connection is None:
            msg = f"{self._path}: the file of alerts is closed"
            raise StoreError(msg)
        return self._connection

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: the file of alerts cannot be used: {error}; check the disk and its owner")
