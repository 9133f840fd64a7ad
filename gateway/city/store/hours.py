"""Down-sampling in the embedded store: of each channel and hour one row, which stays when single readings go.

A write notes in its own transaction which hours of which channels it has touched: they are *due*. What condenses a due
hour takes the note away in the transaction that writes the hour's row, so that a power cut loses neither, and a row
that is not due holds all there is of its hour. Single readings are deleted by whole hours that are not due; what comes
later for such an hour is added to its row. All of it is done in short steps, between which the writer writes.

The functions run in the writing thread, on its connection, but for :func:`buckets`, which reads.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator

from gateway.city.store.base import Bucket
from sensors import kinds

HOUR_MS = 3_600_000
_DAY_MS = 24 * HOUR_MS
_RIPE_MS = 300_000  # by which readings usually have come; a later one makes its hour due again
_HOUR_OF = f"{{0}} - ({{0}} % {HOUR_MS} + {HOUR_MS}) % {HOUR_MS}"
SCHEMA = f"""
CREATE TABLE hour (
    channel INTEGER NOT NULL, time INTEGER NOT NULL, number INTEGER NOT NULL, mean REAL, length REAL, low REAL,
    high REAL, flag INTEGER NOT NULL, PRIMARY KEY (channel, time)
) WITHOUT ROWID;
CREATE TABLE due (
    channel INTEGER NOT NULL, time INTEGER NOT NULL, onwards INTEGER NOT NULL, PRIMARY KEY (channel, time)
) WITHOUT ROWID;
ALTER TABLE channel ADD COLUMN pruned INTEGER NOT NULL DEFAULT {-(2**63)};
INSERT INTO due SELECT id, {_HOUR_OF.format("first")}, 1
FROM (SELECT id, (SELECT min(time) FROM reading WHERE channel = id) AS first FROM channel) WHERE first IS NOT NULL;
"""  # noqa: S608 - constants
"""``hour``: how many values, their mean, the length of the mean vector of directions, the extremes, the worst flag.
``due``: hours whose row is not what it should be; ``onwards``: nor are those after. ``pruned``: the time before which
single readings were deleted."""
_OF_READING = "time, value IS NOT NULL AS number, value AS mean, 1 AS length, value AS low, value AS high, flag"
_PARTS = f"""
FROM (
    SELECT time, number, mean, length, low, high, flag FROM hour
    WHERE channel = :channel AND time >= :first_hour AND time < :last_hour
    UNION ALL SELECT {_OF_READING} FROM reading WHERE channel = :channel AND time >= :start AND time < :before
    UNION ALL SELECT {_OF_READING} FROM reading WHERE channel = :channel AND time >= :after AND time < :end
)
"""  # noqa: S608 - constants
# Ranks turn QARTOD's flags into "greater is worse", and back.
_WORST = "max(CASE flag WHEN 4 THEN 5 WHEN 3 THEN 4 WHEN 1 THEN 3 WHEN 9 THEN 1 ELSE 2 END)"
_FLAG = f"CASE {_WORST} WHEN 5 THEN 4 WHEN 4 THEN 3 WHEN 3 THEN 1 WHEN 1 THEN 9 ELSE 2 END"
_EAST, _NORTH = (f"sum(number * length * {of}(radians(mean)))" for of in ("sin", "cos"))
_NUMBER = "nullif(sum(number), 0)"
_PLAIN = f"sum(number), sum(mean * number) / {_NUMBER}, NULL, min(low), max(high), {_FLAG}"
_DIRECTION = (
    f"sum(number), mod(degrees(atan2({_EAST}, {_NORTH})) + 360, 360),"
    f" sqrt(pow({_EAST}, 2) + pow({_NORTH}, 2)) / {_NUMBER}, NULL, NULL, {_FLAG}"
)
_START = "time - ((time - :shift) % :step + :step) % :step AS start"
_HOURS = {
    direction: f"INSERT OR REPLACE INTO hour SELECT :channel, {_START}, {row} {_PARTS} GROUP BY start"
    for direction, row in ((False, _PLAIN), (True, _DIRECTION))
}
_BUCKETS = {
    direction: f"SELECT {_START}, {row} {_PARTS} GROUP BY start ORDER BY start"
    for direction, row in ((False, _PLAIN), (True, _DIRECTION))
}
_NEXT = f"""
INSERT INTO due SELECT :channel, {_HOUR_OF.format("first")}, 1
FROM (SELECT min(time) AS first FROM reading WHERE channel = :channel AND time >= :end) WHERE first IS NOT NULL
ON CONFLICT DO UPDATE SET onwards = 1
"""  # noqa: S608 - constants


def hour_of(at: int) -> int:
    """When the hour of a time began."""
    return at // HOUR_MS * HOUR_MS


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits at its end, or changes nothing if an exception leaves it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def note(connection: sqlite3.Connection, hours: Iterable[tuple[int, int]]) -> None:
    """Notes channels and hours as due, within the transaction that writes into them."""
    connection.executemany("INSERT OR IGNORE INTO due VALUES (?, ?, 0)", hours)


def condense(connection: sqlite3.Connection, now: int, budget: float) -> bool:
    """Makes rows of hours that are over, in one transaction.

    Args:
        connection: The writer's.
        now: This moment, in milliseconds.
        budget: Seconds after which it leaves the rest for the next time.

    Returns:
        Whether anything was due.
    """
    query = "SELECT channel, min(time) FROM due WHERE time < ? GROUP BY channel LIMIT 200"
    found = connection.execute(query, (hour_of(now - _RIPE_MS),)).fetchall()
    if found:
        until = time.monotonic() + budget
        with transaction(connection):
            for channel, first in found:
                _condense(connection, channel, first)
                if time.monotonic() > until:
                    break
    return bool(found)


def prune(connection: sqlite3.Connection, raw: int, hourly: int, channels: list[int], budget: float) -> list[int]:
    """Deletes single readings before ``raw`` and rows of hours before ``hourly``, in milliseconds, of some channels.

    Returns:
        The channels that are left for the next time, after ``budget`` seconds.
    """
    until, done = time.monotonic() + budget, 0
    with transaction(connection):
        while done < len(channels) and time.monotonic() < until:
            done += _prune(connection, channels[done], hour_of(raw), hourly)
    return channels[done:]


def buckets(  # noqa: PLR0913, PLR0917 - a series is named by all of these
    connection: sqlite3.Connection, channel: int, start: int, end: int, step: int, shift: int, *, direction: bool
) -> list[Bucket]:
    """A channel by steps: of rows of hours where steps consist of hours or nothing else is left, otherwise of readings.

    A row of an hour counts for the step in which the hour begins. Readings from before single ones were deleted are
    those that came later and are not in their hour's row yet.
    """
    (pruned,) = connection.execute("SELECT pruned FROM channel WHERE id = ?", (channel,)).fetchone()
    first_hour = min(-(-start // HOUR_MS) * HOUR_MS, end)
    last_hour = pruned
    if step % HOUR_MS == 0 and shift % HOUR_MS == 0:
        (due,) = connection.execute(
            "SELECT coalesce(min(time), :end) FROM due WHERE channel = :channel AND time >= :first AND time < :end"
            " OR channel = :channel AND onwards AND time < :end",
            {"channel": channel, "first": max(first_hour, pruned), "end": end},
        ).fetchone()
        last_hour = max(pruned, hour_of(min(due, end)))
    last_hour = max(first_hour, min(last_hour, end))
    names = {"channel": channel, "start": start, "end": end, "step": step, "shift": shift}
    names |= {"first_hour": first_hour, "last_hour": last_hour, "after": last_hour}
    names["before"] = min(max(first_hour, pruned), last_hour)
    rows = connection.execute(_BUCKETS[direction], names)
    return [Bucket(at, mean, flag, low, high) for at, _, mean, _, low, high, flag in rows]


def _condense(connection: sqlite3.Connection, channel: int, first: int) -> None:
    """Makes the rows of a channel's hours from ``first``, which is due, up to a day."""
    kind, quantity, pruned = connection.execute(
        "SELECT kind, quantity, pruned FROM channel c JOIN sensor s ON s.id = c.sensor WHERE c.id = ?", (channel,)
    ).fetchone()
    last, onwards = connection.execute(
        "SELECT max(time), max(onwards) FROM due WHERE channel = ? AND time >= ? AND time < ?",
        (channel, first, first + _DAY_MS),
    ).fetchone()
    late = first < pruned
    end = first + HOUR_MS if late else first + _DAY_MS if onwards else last + HOUR_MS
    names = {"channel": channel, "step": HOUR_MS, "shift": 0, "first_hour": first, "start": first, "end": end}
    names |= {"last_hour": end if late else first, "before": first, "after": first}
    connection.execute(_HOURS[_is_direction(kind, quantity)], names)
    if late:  # the row has them now, and must not be given them again
        connection.execute("DELETE FROM reading WHERE channel = ? AND time >= ? AND time < ?", (channel, first, end))
    connection.execute("DELETE FROM due WHERE channel = ? AND time >= ? AND time < ?", (channel, first, end))
    if onwards:
        connection.execute(_NEXT, {"channel": channel, "end": end})


def _prune(connection: sqlite3.Connection, channel: int, raw: int, hourly: int) -> bool:
    """Deletes a channel's oldest day that is too old; returns whether that was all."""
    connection.execute("DELETE FROM hour WHERE channel = ? AND time < ?", (channel, hourly))
    (first,) = connection.execute("SELECT min(time) FROM reading WHERE channel = ?", (channel,)).fetchone()
    if first is None or first >= raw:
        return True
    end = min(hour_of(first) + _DAY_MS, raw)
    while True:
        (due,) = connection.execute(
            "SELECT min(time) FROM due WHERE channel = ? AND time < ?", (channel, end)
        ).fetchone()
        if due is None:
            break
        _condense(connection, channel, due)
    connection.execute("DELETE FROM reading WHERE channel = ? AND time < ?", (channel, end))
    connection.execute("UPDATE channel SET pruned = max(pruned, ?) WHERE id = ?", (end, channel))
    return end == raw


def _is_direction(kind: str, quantity: str) -> bool:
    """Whether values are degrees of a circle."""
    known = kinds.builtin().get(kind)
    return known is not None and quantity in known.quantities and known.quantities[quantity].direction
