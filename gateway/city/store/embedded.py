"""The embedded store: SQLite, fed by the view's own write endpoint.

One row a (quantity of a sensor, time). A write is one transaction, on disk (WAL, synchronous=FULL) when it returns:
what was answered with 204 survives a power cut. Readers never wait for the writer. The newest readings are read from
the file once; from then on each write carries them on. What is older than single readings are kept has one row an hour.
"""

import asyncio
import itertools
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from gateway.city.store import base, hours
from gateway.city.store.base import (
    HOUR_MS,
    MAX_POINTS,
    NOT_EVALUATED,
    QC_SUFFIX,
    REASON_SUFFIX,
    Bucket,
    Event,
    EventPoint,
    GatewayHealth,
    LatestSensor,
    Quarantined,
    Reading,
    SensorKey,
    StepMean,
    StoreError,
    TooManyPointsError,
    Verdict,
)
from sensors.lineprotocol import LineError, Point

_LOG = logging.getLogger(__name__)
_PRUNE_EVERY_S = 3600.0
_KEPT_EVENTS = 16
_HOURLY_S = 2 * 365 * 86400.0
_STEP_S, _PAUSE_S, _LOOK_EVERY_S = 0.01, 0.04, 30.0  # of keeping house, which lets the writer write most of the time
_SCHEMA = (
    """
CREATE TABLE sensor (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, site TEXT NOT NULL, sensor TEXT NOT NULL, gateway TEXT NOT NULL,
    UNIQUE (kind, site, sensor)
);
CREATE TABLE channel (
    id INTEGER PRIMARY KEY, sensor INTEGER NOT NULL REFERENCES sensor, quantity TEXT NOT NULL, UNIQUE (sensor, quantity)
);
CREATE TABLE reading (
    channel INTEGER NOT NULL, time INTEGER NOT NULL, value REAL, flag INTEGER, PRIMARY KEY (channel, time)
) WITHOUT ROWID;
CREATE TABLE quarantine (
    channel INTEGER NOT NULL, time INTEGER NOT NULL, value REAL, flag INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (channel, time)
) WITHOUT ROWID;
CREATE TABLE event (
    id TEXT NOT NULL, time INTEGER NOT NULL, severity TEXT NOT NULL, kind TEXT NOT NULL, site TEXT NOT NULL,
    sensor TEXT NOT NULL, gateway TEXT NOT NULL, quantity TEXT NOT NULL, value REAL, threshold REAL,
    message TEXT NOT NULL, PRIMARY KEY (id, time, severity)
) WITHOUT ROWID;
CREATE INDEX event_time ON event (time);
CREATE TABLE gateway (gateway TEXT PRIMARY KEY, time INTEGER NOT NULL, fields TEXT NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE verdict (
    channel INTEGER NOT NULL, id TEXT NOT NULL, time INTEGER NOT NULL, what TEXT NOT NULL, since INTEGER NOT NULL,
    until INTEGER NOT NULL, confidence REAL, reason TEXT NOT NULL, PRIMARY KEY (channel, id, time, what)
) WITHOUT ROWID;
""",
    hours.SCHEMA,
    "CREATE INDEX event_sensor ON event (kind, site, sensor);",
)
"""What each version of the file has more than the one before."""
_READING = """
INSERT INTO reading VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
SET value = coalesce(excluded.value, value), flag = coalesce(excluded.flag, flag)
"""
_LATEST = """
SELECT s.kind, s.site, s.sensor, s.gateway, c.quantity, r.time, r.value, coalesce(r.flag, 2)
FROM channel c JOIN sensor s ON s.id = c.sensor JOIN reading r ON r.channel = c.id
AND r.time = (SELECT max(time) FROM reading WHERE channel = c.id)
"""
# CROSS keeps the order of the joins: else SQLite may go through all readings.
_LATEST_AT = """
SELECT s.kind, s.site, s.sensor, s.gateway, c.quantity, r.time, r.value, coalesce(r.flag, 2)
FROM channel c CROSS JOIN sensor s ON s.id = c.sensor CROSS JOIN reading r ON r.channel = c.id
AND r.time = (SELECT max(time) FROM reading WHERE channel = c.id AND time <= :at AND time > :since)
"""
# What is suspect (3) or failed (4) stays out; 9 has no value.
_MEANS = """
SELECT time - ((time % :step) + :step) % :step AS start, {mean}, count(value) FROM reading
WHERE channel = :channel AND time >= :start AND time < :end AND value IS NOT NULL AND coalesce(flag, 2) IN (1, 2)
GROUP BY start ORDER BY start
"""
_MEAN, _MEAN_ENERGY = "avg(value)", "ln(avg(exp(value * 0.2302585092994046))) / 0.2302585092994046"  # ln(10) / 10
_EVENTS = """
SELECT id, time, severity, kind, site, sensor, gateway, quantity, value, threshold, message FROM event WHERE id IN (
    SELECT id FROM event {where}
    GROUP BY id HAVING max(severity <> 'none')
    AND (NOT :open OR max(time) > coalesce(max(CASE WHEN severity = 'none' THEN time END), -9e18))
    ORDER BY max(CASE WHEN severity <> 'none' THEN time END) DESC LIMIT :limit
)
"""
_EVENTS_AT = """
SELECT id, time, severity, kind, site, sensor, gateway, quantity, value, threshold, message FROM event
WHERE time > ? AND time <= ?
"""

_VERDICTS = """
SELECT v.id, s.kind, s.site, s.sensor, c.quantity, v.what, v.since, v.until, v.time, v.confidence, v.reason
FROM verdict v CROSS JOIN channel c ON c.id = v.channel CROSS JOIN sensor s ON s.id = c.sensor
WHERE v.since < :end
"""
# From each hour's first reading to that of the next hour that has one, so that no others are looked at.
_HOURS = """
WITH RECURSIVE found (time) AS (
    SELECT min(time) FROM reading WHERE channel = :channel AND time >= :start AND time < :end
    UNION ALL
    SELECT (SELECT min(time) FROM reading WHERE channel = :channel
            AND time >= (found.time / 3600000 + 1) * 3600000 AND time < :end)
    FROM found WHERE found.time IS NOT NULL
)
SELECT time / 3600000 FROM found WHERE time IS NOT NULL
UNION SELECT time / 3600000 FROM hour WHERE channel = :channel AND time >= :start AND time <= :end - 3600000
"""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class EmbeddedStore:
    """Readings, events and gateways in one SQLite file.

    Args:
        path: The file; its folder is made when missing.
        retention: Seconds for which single readings, quarantined values, verdicts and ended events are kept.
        hourly: Seconds for which means of hours are kept.
    """

    name = "embedded"
    freshness = 1.0

    def __init__(self, path: Path, retention: float, hourly: float = _HOURLY_S) -> None:
        self._path = path
        self.raw_s = retention
        self._hourly = hourly
        self._writer = ThreadPoolExecutor(1, "city-write")
        self._readers = ThreadPoolExecutor(3, "city-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._sensors: dict[SensorKey, tuple[int, str]] = {}
        self._channels: dict[tuple[SensorKey, str], int] = {}
        self._named: dict[int, tuple[SensorKey, str]] = {}
        self._newest: dict[SensorKey, LatestSensor] | None = None  # replaced, never changed, by the writing thread
        self._event_version = 0
        self._kept_events: dict[tuple[int, bool], tuple[int, list[Event]]] = {}
        self._due: set[tuple[int, int]] = set()  # channels and hours that the file notes as due
        self._housekeeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the file, making it when there is none, and starts to keep house.

        Raises:
            StoreError: If the file cannot be used, or was written by a newer version.
        """
        await self._in(self._writer, EmbeddedStore._create)
        await self._in(self._writer, EmbeddedStore._latest)
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def close(self) -> None:
        """Finishes what is being written and closes the file."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        await asyncio.to_thread(self._shutdown)

    def _shutdown(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def write(self, points: Sequence[Point]) -> list[LineError]:
        """Stores points in one transaction.

        Numbers and booleans of any measurement with the tag ``sensor`` are kept; other fields of text are not.

        Returns:
            An error for each point that has no place in the data model; the others are stored.
        """
        return await self._in(self._writer, EmbeddedStore._write, points)

    async def latest(self) -> list[LatestSensor]:
        """The newest readings of every sensor; of those without a new one, the same objects as before."""
        if self._newest is None:
            return list((await self._in(self._writer, EmbeddedStore._latest)).values())
        return list(self._newest.values())

    async def latest_at(self, at: int, since: int) -> list[LatestSensor]:
        """The newest readings of every sensor as they were: one step down each channel's key."""
        return await self._in(self._readers, EmbeddedStore._latest_at, at, since)

    async def events_at(self, at: int, since: int) -> list[Event]:
        """Events as they were, newest first."""
        return await self._in(self._readers, EmbeddedStore._events_at, at, since)

    async def readings(
        self, key: SensorKey, quantity: str, start: int, end: int, most: int = MAX_POINTS
    ) -> list[Reading]:
        """Readings with start <= time < end, in order."""
        return await self._in(self._readers, EmbeddedStore._raw, key, quantity, start, end, most)

    async def page(  # noqa: PLR0913 - see the protocol
        self,
        key: SensorKey,
        quantity: str,
        start: int,
        end: int,
        limit: int,
        *,
        newest_first: bool = False,
        offset: int = 0,
    ) -> list[Reading]:
        """Some readings that have a value."""
        order = "DESC" if newest_first else "ASC"
        span = (start, end, limit, offset)
        return await self._in(self._readers, EmbeddedStore._page, key, quantity, order, span)

    async def count(self, key: SensorKey, quantity: str, start: int, end: int) -> int:
        """How many readings have a value."""
        return await self._in(self._readers, EmbeddedStore._count, key, quantity, start, end)

    async def buckets(  # noqa: PLR0913 - see the protocol
        self, key: SensorKey, quantity: str, start: int, end: int, step: int, *, direction: bool, shift: int = 0
    ) -> list[Bucket]:
        """Readings, or means of hours, put together by step, in the database."""
        steps = start, end, step, shift
        return await self._in(self._readers, EmbeddedStore._buckets, key, quantity, steps, direction=direction)

    async def means(  # noqa: PLR0913 - see the protocol
        self, kind: str, quantities: Sequence[str], start: int, end: int, step: int, *, energy: bool
    ) -> base.Means:
        """Means by step of all sensors of a kind, in the database."""
        mean = _MEAN_ENERGY if energy else _MEAN
        names = {"start": start, "end": end, "step": step}
        return await self._in(self._readers, EmbeddedStore._means, kind, quantities, _MEANS.format(mean=mean), names)

    async def heard(self, start: int, end: int, without: Collection[str]) -> dict[SensorKey, base.Heard]:
        """In which hours sensors had a reading, by a look at one reading an hour."""
        return await self._in(self._readers, EmbeddedStore._heard, start, end, without)

    async def quarantined(self, key: SensorKey, quantity: str, start: int, end: int) -> list[Quarantined]:
        """Values that failed with start <= time < end, in order."""
        return await self._in(self._readers, EmbeddedStore._quarantined, key, quantity, start, end)

    async def verdicts(self, start: int, end: int, *, channel: tuple[SensorKey, str] | None = None) -> list[Verdict]:
        """What the filter said of readings with start <= time < end, newest first."""
        return await self._in(self._readers, EmbeddedStore._verdicts, start, end, channel)

    async def events(self, limit: int, *, open_only: bool = False, key: SensorKey | None = None) -> list[Event]:
        """The newest events, newest first; those of all sensors are read again only when some were written."""
        kept = self._kept_events.get((limit, open_only)) if key is None else None
        version = self._event_version  # first: what is written meanwhile must not be taken for read
        if kept is not None and kept[0] == version:
            return kept[1]
        found = await self._in(self._readers, EmbeddedStore._events, limit, key, open_only=open_only)
        if key is None:
            if len(self._kept_events) >= _KEPT_EVENTS:
                self._kept_events.clear()
            self._kept_events[limit, open_only] = version, found
        return found

    async def gateways(self) -> list[GatewayHealth]:
        """The newest health of every gateway."""
        return await self._in(self._readers, EmbeddedStore._gateways)

    async def prune(self, before: int, hourly_before: int) -> None:
        """Deletes what is older than two times in milliseconds, in small steps between which the writer writes.

        Args:
            before: For single readings, by whole hours, and quarantined values, verdicts and ended events.
            hourly_before: For means of hours.
        """
        channels = await self._in(self._writer, EmbeddedStore._prune_others, before)
        while channels:
            channels = await self._in(self._writer, EmbeddedStore._prune, before, hourly_before, channels)
            await asyncio.sleep(_PAUSE_S if channels else 0)

    async def condense(self, now: int) -> bool:
        """Makes means of some of the hours that are over at ``now``, in milliseconds; returns whether any were due."""
        return await self._in(self._writer, EmbeddedStore._condense, now)

    async def _keep_house(self) -> None:
        pruned = float("-inf")
        while True:
            more, now = False, time.time()
            try:
                if time.monotonic() - pruned >= _PRUNE_EVERY_S:
                    pruned = time.monotonic()
                    await self.prune(int((now - self.raw_s) * 1000), int((now - self._hourly) * 1000))
                more = await self.condense(int(now * 1000))
            except StoreError as error:
                _LOG.warning("cannot keep house: %s", error)
            await asyncio.sleep(_PAUSE_S if more else _LOOK_EVERY_S)

    def _in(
        self,
        pool: ThreadPoolExecutor,
        job: "Callable[Concatenate[EmbeddedStore, sqlite3.Connection, _P], _T]",
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> Awaitable[_T]:
        def run() -> _T:
            try:
                return job(self, self._connection(), *args, **kwargs)
            except (sqlite3.Error, OSError) as error:
                msg = f"{self._path}: the embedded store cannot be used: {error}; check the disk and the file's owner"
                raise StoreError(msg) from error

        return asyncio.get_running_loop().run_in_executor(pool, run)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connections.append(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -8192")
            self._local.connection = connection
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(_SCHEMA):
            msg = f"{self._path}: written by a newer citygate (schema {version}, this one reads {len(_SCHEMA)})"
            raise StoreError(msg)
        for number, more in enumerate(_SCHEMA[version:], version + 1):
            connection.executescript(f"BEGIN;{more}PRAGMA user_version = {number};COMMIT;")

    def _write(self, connection: sqlite3.Connection, points: Sequence[Point]) -> list[LineError]:
        refused: list[LineError] = []
        readings: list[tuple[int, int, float | None, int | None]] = []
        try:
            with hours.transaction(connection):
                for point in points:
                    try:
                        match point.measurement:
                            case "event":
                                self._write_event(connection, point)
                            case "quarantine":
                                self._write_quarantined(connection, point)
                            case "verdict":
                                self._write_verdict(connection, point)
                            case "gateway":
                                self._write_gateway(connection, point)
                            case _:
                                readings.extend(self._rows(connection, point))
                    except _RefusedError as error:
                        refused.append(LineError(point.line, str(error)))
                connection.executemany(_READING, readings)
                due = {(channel, hours.hour_of(at)) for channel, at, *_ in readings} - self._due
                hours.note(connection, due)
        except BaseException:
            self._sensors.clear()
            self._channels.clear()
            raise
        self._due |= due
        self._event_version += any(point.measurement == "event" for point in points)
        self._carry_on(readings)
        return refused

    def _rows(
        self, connection: sqlite3.Connection, point: Point
    ) -> Iterable[tuple[int, int, float | None, int | None]]:
        key = _key(point, point.measurement)
        values: dict[str, list[float | int | None]] = {}
        for name, value in point.fields.items():
            if isinstance(value, str) or name.endswith(REASON_SUFFIX):
                continue
            if name.endswith(QC_SUFFIX):
                values.setdefault(name.removesuffix(QC_SUFFIX), [None, None])[1] = int(value)
            else:
                values.setdefault(name, [None, None])[0] = float(value)
        if not values:
            msg = f"'{point.measurement}' has no number among its fields"
            raise _RefusedError(msg)
        gateway = point.tags.get("gateway", "")
        for quantity, (number, flag) in values.items():
            yield self._channel(connection, key, quantity, gateway), point.time, number, _integer(flag)

    def _channel(
        self, connection: sqlite3.Connection, key: SensorKey, quantity: str, gateway: str | None = None
    ) -> int:
        channel = self._channels.get((key, quantity))
        known = self._sensors.get(key)
        if channel is not None and known is not None and (gateway is None or known[1] == gateway):
            return channel
        (sensor, stored) = connection.execute(
            "INSERT INTO sensor (kind, site, sensor, gateway) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET gateway ="
            " coalesce(?, gateway) RETURNING id, gateway",
            (*key, gateway or "", gateway),
        ).fetchone()
        (channel,) = connection.execute(
            "INSERT INTO channel (sensor, quantity) VALUES (?, ?) ON CONFLICT DO UPDATE SET quantity = quantity"
            " RETURNING id",
            (sensor, quantity),
        ).fetchone()
        self._sensors[key] = sensor, stored
        self._channels[key, quantity] = int(channel)
        self._named[int(channel)] = key, quantity
        return int(channel)

    def _write_quarantined(self, connection: sqlite3.Connection, point: Point) -> None:
        key = _key(point, _tag(point, "kind"))
        channel = self._channel(connection, key, _tag(point, "quantity"))
        value = point.fields.get("value")
        connection.execute(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)",
            (channel, point.time, _number(value), _number(point.fields.get("flag")) or 4, _str(point, "reason")),
        )

    def _write_verdict(self, connection: sqlite3.Connection, point: Point) -> None:
        key = _key(point, _tag(point, "kind"))
        channel = self._channel(connection, key, _tag(point, "quantity"))
        verdict, since, until = _str(point, "id"), *(_number(point.fields.get(name)) for name in ("since", "until"))
        if not verdict or since is None or until is None:
            msg = "a verdict needs the fields 'id', 'since' and 'until'"
            raise _RefusedError(msg)
        confidence, reason = _number(point.fields.get("confidence")), _str(point, "reason")
        connection.execute(
            "INSERT OR REPLACE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (channel, verdict, point.time, _tag(point, "what"), int(since), int(until), confidence, reason),
        )

    def _write_event(self, connection: sqlite3.Connection, point: Point) -> None:
        key = _key(point, _tag(point, "kind"))
        event = _str(point, "id")
        if not event:
            msg = "an event needs the field 'id'"
            raise _RefusedError(msg)
        value, limit = _number(point.fields.get("value")), _number(point.fields.get("limit"))
        texts = (point.tags.get("gateway", ""), _str(point, "quantity"), value, limit, _str(point, "message"))
        connection.execute(
            "INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (event, point.time, _tag(point, "severity"), *key, *texts),
        )

    def _write_gateway(self, connection: sqlite3.Connection, point: Point) -> None:
        connection.execute(
            "INSERT INTO gateway VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET time = excluded.time,"
            " fields = excluded.fields WHERE excluded.time >= time",
            (_tag(point, "gateway"), point.time, json.dumps(point.fields)),
        )

    def _latest(self, connection: sqlite3.Connection) -> dict[SensorKey, LatestSensor]:
        if self._newest is None:  # another asker may have waited for it too
            self._newest = _sensors_of(connection.execute(_LATEST))
        return self._newest

    def _latest_at(self, connection: sqlite3.Connection, at: int, since: int) -> list[LatestSensor]:
        return list(_sensors_of(connection.execute(_LATEST_AT, {"at": at, "since": since})).values())

    def _carry_on(self, rows: Iterable[tuple[int, int, float | None, int | None]]) -> None:
        """Puts rows that were just committed into the newest readings, by the rule of ``_READING``."""
        if self._newest is None:
            return
        changed: dict[SensorKey, LatestSensor] = {}
        for channel, at, value, flag in rows:
            key, quantity = self._named[channel]
            sensor = changed.get(key)
            if sensor is None:
                before = self._newest.get(key)
                sensor = LatestSensor(key, self._sensors[key][1], {} if before is None else dict(before.readings))
                changed[key] = sensor
            known = sensor.readings.get(quantity)
            if known is None or at > known.time:
                sensor.readings[quantity] = Reading(at, value, NOT_EVALUATED if flag is None else flag)
            elif at == known.time:
                merged = known.value if value is None else value, known.flag if flag is None else flag
                sensor.readings[quantity] = Reading(at, *merged)
        self._newest = {**self._newest, **changed}

    def _find(self, connection: sqlite3.Connection, key: SensorKey, quantity: str) -> int | None:
        row = connection.execute(
            "SELECT c.id FROM channel c JOIN sensor s ON s.id = c.sensor"
            " WHERE s.kind = ? AND s.site = ? AND s.sensor = ? AND c.quantity = ?",
            (*key, quantity),
        ).fetchone()
        return None if row is None else int(row[0])

    def _raw(  # noqa: PLR0913, PLR0917 - a series is named by all of these
        self, connection: sqlite3.Connection, key: SensorKey, quantity: str, start: int, end: int, most: int
    ) -> list[Reading]:
        rows = connection.execute(
            "SELECT time, value, coalesce(flag, 2) FROM reading"
            " WHERE channel = ? AND time >= ? AND time < ? ORDER BY time LIMIT ?",
            (self._find(connection, key, quantity), start, end, most + 1),
        ).fetchall()
        if len(rows) > most:
            raise TooManyPointsError
        return list(itertools.starmap(Reading, rows))

    def _page(
        self,
        connection: sqlite3.Connection,
        key: SensorKey,
        quantity: str,
        order: str,
        span: tuple[int, int, int, int],
    ) -> list[Reading]:
        rows = connection.execute(
            "SELECT time, value, coalesce(flag, 2) FROM reading WHERE channel = ? AND time >= ? AND time < ?"  # noqa: S608 - one of two words
            f" AND value IS NOT NULL ORDER BY time {order} LIMIT ? OFFSET ?",
            (self._find(connection, key, quantity), *span),
        )
        return list(itertools.starmap(Reading, rows))

    def _count(self, connection: sqlite3.Connection, key: SensorKey, quantity: str, start: int, end: int) -> int:
        (number,) = connection.execute(
            "SELECT count(value) FROM reading WHERE channel = ? AND time >= ? AND time < ?",
            (self._find(connection, key, quantity), start, end),
        ).fetchone()
        return int(number)

    def _buckets(
        self,
        connection: sqlite3.Connection,
        key: SensorKey,
        quantity: str,
        steps: tuple[int, int, int, int],
        *,
        direction: bool,
    ) -> list[Bucket]:
        channel = self._find(connection, key, quantity)
        return [] if channel is None else hours.buckets(connection, channel, *steps, direction=direction)

    def _means(
        self, connection: sqlite3.Connection, kind: str, quantities: Sequence[str], query: str, names: dict[str, int]
    ) -> base.Means:
        channels = connection.execute(
            "SELECT s.site, s.sensor, c.quantity, c.id FROM channel c JOIN sensor s ON s.id = c.sensor"
            " WHERE s.kind = ?",
            (kind,),
        ).fetchall()
        means: base.Means = {}
        for site, sensor, quantity, channel in channels:
            if quantity in quantities:
                rows = connection.execute(query, {**names, "channel": channel})
                means[SensorKey(kind, site, sensor), quantity] = list(itertools.starmap(StepMean, rows))
        return {channel: steps for channel, steps in means.items() if steps}

    def _heard(
        self, connection: sqlite3.Connection, start: int, end: int, without: Collection[str]
    ) -> dict[SensorKey, base.Heard]:
        channels = connection.execute(
            "SELECT s.kind, s.site, s.sensor, c.quantity, c.id, (SELECT min(time) FROM (SELECT min(time) AS time"
            " FROM reading WHERE channel = c.id UNION ALL SELECT min(time) FROM hour WHERE channel = c.id))"
            " FROM channel c JOIN sensor s ON s.id = c.sensor"
        ).fetchall()
        heard: dict[SensorKey, base.Heard] = {}
        whole = (end - 1) // HOUR_MS - start // HOUR_MS + 1
        for kind, site, sensor, quantity, channel, first in channels:
            if quantity in without or first is None:
                continue
            key = SensorKey(kind, site, sensor)
            known = heard.get(key, base.Heard(first, frozenset()))
            hours = known.hours
            if len(hours) < whole:  # another of its quantities may fill what is missing
                rows = connection.execute(_HOURS, {"channel": channel, "start": start, "end": end})
                hours |= {hour for (hour,) in rows}
            heard[key] = base.Heard(min(first, known.first), hours)
        return heard

    def _quarantined(
        self, connection: sqlite3.Connection, key: SensorKey, quantity: str, start: int, end: int
    ) -> list[Quarantined]:
        rows = connection.execute(
            "SELECT time, value, flag, reason FROM quarantine"
            " WHERE channel = ? AND time >= ? AND time < ? ORDER BY time LIMIT ?",
            (self._find(connection, key, quantity), start, end, MAX_POINTS),
        )
        return list(itertools.starmap(Quarantined, rows))

    def _verdicts(
        self, connection: sqlite3.Connection, start: int, end: int, channel: tuple[SensorKey, str] | None
    ) -> list[Verdict]:
        names, query = {"end": end}, _VERDICTS
        if channel is not None:
            query += " AND v.channel = :channel"
            names["channel"] = self._find(connection, *channel) or 0
        rows = connection.execute(query, names)
        return base.fold_verdicts((Verdict(row[0], SensorKey(*row[1:4]), *row[4:]) for row in rows), start, end)

    def _events(
        self,
        connection: sqlite3.Connection,
        limit: int,
        key: SensorKey | None,
        *,
        open_only: bool,
    ) -> list[Event]:
        where = "" if key is None else "WHERE kind = :kind AND site = :site AND sensor = :sensor"
        names = {"limit": limit, "open": open_only, **({} if key is None else key._asdict())}
        return _events_of(connection.execute(_EVENTS.format(where=where), names))

    def _events_at(self, connection: sqlite3.Connection, at: int, since: int) -> list[Event]:
        return _events_of(connection.execute(_EVENTS_AT, (since, at)))

    def _gateways(self, connection: sqlite3.Connection) -> list[GatewayHealth]:
        rows = connection.execute("SELECT gateway, time, fields FROM gateway ORDER BY gateway")
        return [GatewayHealth(name, at, json.loads(fields)) for name, at, fields in rows]

    def _condense(self, connection: sqlite3.Connection, now: int) -> bool:
        more = hours.condense(connection, now, _STEP_S)
        if more:
            self._due.clear()
        return more

    def _prune(self, connection: sqlite3.Connection, before: int, hourly_before: int, channels: list[int]) -> list[int]:
        self._due.clear()
        left = hours.prune(connection, before, hourly_before, channels, _STEP_S)
        if self._newest is not None and not left:
            self._newest = _since(self._newest, hours.hour_of(before))
        return left

    def _prune_others(self, connection: sqlite3.Connection, before: int) -> list[int]:
        """Deletes what is no reading; returns all channels."""
        channels = [channel for (channel,) in connection.execute("SELECT id FROM channel")]
        with hours.transaction(connection):
            for table in ("quarantine", "verdict"):  # by channel, so that the primary key finds the rows
                connection.executemany(
                    f"DELETE FROM {table} WHERE channel = ? AND time < ?",  # noqa: S608 - one of the names above
                    [(channel, before) for channel in channels],
                )
            connection.execute(
                "DELETE FROM event WHERE id IN (SELECT id FROM event GROUP BY id"
                " HAVING max(time) < ? AND max(CASE WHEN severity = 'none' THEN time END) = max(time))",
                (before,),
            )
        self._event_version += 1
        return channels


def _since(newest: dict[SensorKey, LatestSensor], start: int) -> dict[SensorKey, LatestSensor]:
    """The newest readings without those that were before ``start``, in milliseconds."""
    kept = {}
    for key, sensor in newest.items():
        readings = {name: reading for name, reading in sensor.readings.items() if reading.time >= start}
        if readings:
            kept[key] = sensor if len(readings) == len(sensor.readings) else replace(sensor, readings=readings)
    return kept


class _RefusedError(Exception):
    """A point has no place in the data model."""


def _sensors_of(rows: Iterable[Sequence[Any]]) -> dict[SensorKey, LatestSensor]:
    sensors: dict[SensorKey, LatestSensor] = {}
    for kind, site, name, gateway, quantity, *reading in rows:
        key = SensorKey(kind, site, name)
        sensor = sensors.get(key) or sensors.setdefault(key, LatestSensor(key, gateway))
        sensor.readings[quantity] = Reading(*reading)
    return sensors


def _events_of(rows: Iterable[Sequence[Any]]) -> list[Event]:
    return base.fold_events(
        EventPoint(row[0], row[1], row[2], SensorKey(row[3], row[4], row[5]), *row[6:]) for row in rows
    )


def _tag(point: Point, name: str) -> str:
    value = point.tags.get(name)
    if value is None:
        msg = f"'{point.measurement}' has no tag '{name}', which the embedded store needs"
        raise _RefusedError(msg)
    return value


def _key(point: Point, kind: str) -> SensorKey:
    return SensorKey(kind, point.tags.get("site", ""), _tag(point, "sensor"))


def _str(point: Point, name: str) -> str:
    value = point.fields.get(name, "")
    return value if isinstance(value, str) else str(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)
