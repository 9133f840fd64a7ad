"""The store for a city: InfluxDB, read by InfluxQL over ``/query``, which versions 1, 2 and 3 all answer.

The newest points of each sensor are asked for with ``ORDER BY time DESC LIMIT n`` by group, because ``last(*)`` loses
the time of each value. The first look goes deep; the following ones take the last few points and are merged into what
is known, so that a quantity that is reported once an hour keeps its reading.
"""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import aiohttp

from gateway.city.store import base
from gateway.city.store.base import (
    FAIL,
    GOOD,
    HOUR_MS,
    MAX_POINTS,
    MISSING,
    NOT_EVALUATED,
    QC_SUFFIX,
    REASON_SUFFIX,
    RESERVED,
    SUSPECT,
    Bucket,
    Event,
    EventPoint,
    GatewayHealth,
    Heard,
    LatestSensor,
    Quarantined,
    Reading,
    SensorKey,
    StepMean,
    StoreError,
    TooManyPointsError,
    Verdict,
)
from gateway.config import StoreSection

_LOOK_BACK = "30d"
_LOOK_BACK_MS = 30 * 86_400_000
_DEPTH_FIRST, _DEPTH = 20, 3
_EVENT_POINTS = 5000
_TIMEOUT_S = 15.0
_SENSOR_TAGS = frozenset({"site", "sensor"})
_KINDS_FOR_S = 60.0
_NEPERS = math.log(10) / 10
"""A decibel as the natural logarithm of an energy: InfluxQL has exp(), and no power of a constant."""


class InfluxStore:
    """Readings, events and gateways in an InfluxDB database.

    Args:
        config: The section ``[store]``.
    """

    name = "influxdb"
    freshness = 2.0
    raw_s = math.inf

    def __init__(self, config: StoreSection) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[SensorKey, LatestSensor] = {}
        self._kinds: list[str] = []
        self._kinds_until = 0.0

    async def open(self) -> None:
        """Prepares the connections; the first query makes one."""
        headers, auth = {}, None
        if self._config.token is not None:
            headers["Authorization"] = f"Token {self._config.token.get_secret_value()}"
        elif self._config.username is not None:
            password = self._config.password.get_secret_value() if self._config.password else ""
            auth = aiohttp.BasicAuth(self._config.username, password)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=headers, auth=auth, timeout=timeout)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def latest(self) -> list[LatestSensor]:
        """The newest readings of every sensor."""
        depth = _DEPTH if self._known else _DEPTH_FIRST
        await self._newest(self._known, f"time > now() - {_LOOK_BACK}", depth)
        return [LatestSensor(s.key, s.gateway, dict(s.readings)) for s in self._known.values()]

    async def latest_at(self, at: int, since: int) -> list[LatestSensor]:
        """The newest readings of every sensor as they were, of the last few points of each."""
        known: dict[SensorKey, LatestSensor] = {}
        await self._newest(known, f"time > {since:d}ms AND time <= {at:d}ms", _DEPTH)
        return list(known.values())

    async def events_at(self, at: int, since: int) -> list[Event]:
        """Events as they were, newest first; of their last 5000 points."""
        return await self._events(f"time > {since:d}ms AND time <= {at:d}ms")

    async def readings(
        self, key: SensorKey, quantity: str, start: int, end: int, most: int = MAX_POINTS
    ) -> list[Reading]:
        """Readings with start <= time < end, in order."""
        return await self._raw(key, quantity, start, end, most)

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
        """Some readings that have a value: by the value alone for which points count, their flags beside it."""
        value, source = _name(quantity), f"FROM {_name(key.kind)} WHERE {_where(key, start, end)}"
        order = f"ORDER BY time {'DESC' if newest_first else 'ASC'} LIMIT {limit:d} OFFSET {offset:d}"
        times = [
            (row["time"], row["value"])
            for series in await self._query(f"SELECT {value} AS value {source} {order}")
            for row in _rows(series)
        ]
        if not times:
            return []
        first, last = min(at for at, _ in times), max(at for at, _ in times)
        flags = {
            row["time"]: int(row["flag"])
            for series in await self._query(
                f"SELECT {_name(quantity + QC_SUFFIX)} AS flag FROM {_name(key.kind)}"  # noqa: S608 - escaped
                f" WHERE {_where(key, first, last + 1)}"
            )
            for row in _rows(series)
        }
        return [Reading(at, float(value), flags.get(at, NOT_EVALUATED)) for at, value in times]

    async def count(self, key: SensorKey, quantity: str, start: int, end: int) -> int:
        """How many readings have a value."""
        found = await self._query(
            f"SELECT count({_name(quantity)}) AS number FROM {_name(key.kind)} WHERE {_where(key, start, end)}"  # noqa: S608 - escaped
        )
        return sum(int(row["number"]) for series in found for row in _rows(series))

    async def buckets(  # noqa: PLR0913 - see the protocol
        self, key: SensorKey, quantity: str, start: int, end: int, step: int, *, direction: bool, shift: int = 0
    ) -> list[Bucket]:
        """Readings put together by step, in the database."""
        if direction:
            return base.direction_buckets(await self._raw(key, quantity, start, end, MAX_POINTS * 10), step, shift)
        value, flag, where = _name(quantity), _name(quantity + QC_SUFFIX), _where(key, start, end)
        group = f"GROUP BY time({step:d}ms,{shift:d}ms) fill(none)"
        source = f"FROM {_name(key.kind)} WHERE {where}"
        rows: dict[int, dict[str, Any]] = {}
        for series in await self._query(
            f"SELECT mean({value}) AS mean, min({value}) AS low, max({value}) AS high {source} {group}",
            f"SELECT max({flag}) AS worst, min({flag}) AS best {source} AND {flag} < {MISSING} {group}",
        ):
            for row in _rows(series):
                rows.setdefault(row["time"], {}).update(row)
        return [
            Bucket(at, row.get("mean"), _bucket_flag(row), row.get("low"), row.get("high"))
            for at, row in sorted(rows.items())
        ]

    async def means(  # noqa: PLR0913 - see the protocol
        self, kind: str, quantities: Sequence[str], start: int, end: int, step: int, *, energy: bool
    ) -> base.Means:
        """Means by step of all sensors of a kind: sums of all readings, less those of what is suspect or failed.

        A point without a flag meets no condition on it, so what must stay out is asked for, not what may enter.
        """
        if not quantities or kind not in await self._sensor_kinds():
            return {}
        time_range = f"time >= {start:d}ms AND time < {end:d}ms"
        group = f'GROUP BY time({step:d}ms),"site","sensor" fill(none)'
        statements = []
        for quantity in quantities:
            value, flag = _name(quantity), _name(quantity + QC_SUFFIX)
            for where in (time_range, f"{time_range} AND {flag} >= {SUSPECT:d}"):
                source = f"FROM {_name(kind)} WHERE {where}"
                if energy:
                    nepers = f"SELECT {value} * {_NEPERS!r} AS level {source}"
                    source = f"FROM (SELECT exp(level) AS v FROM ({nepers})) WHERE {time_range}"  # noqa: S608 - escaped
                statements.append(
                    f"SELECT sum({'v' if energy else value}) AS total, count({'v' if energy else value}) AS number"
                    f" {source} {group}"
                )
        sums: dict[tuple[SensorKey, str], dict[int, list[float]]] = {}
        for place, found in enumerate(await self._results(*statements)):
            sign = -1 if place % 2 else 1
            for series in found:
                key = SensorKey(kind, series["tags"]["site"], series["tags"]["sensor"])
                steps = sums.setdefault((key, quantities[place // 2]), {})
                for row in _rows(series):
                    total = steps.setdefault(row["time"], [0.0, 0])
                    total[0] += sign * (row["total"] or 0.0)
                    total[1] += sign * (row["number"] or 0)
        means = {
            channel: [
                StepMean(at, math.log(total / count) / _NEPERS if energy else total / count, int(count))
                for at, (total, count) in sorted(steps.items())
                if count > 0
            ]
            for channel, steps in sums.items()
        }
        return {channel: steps for channel, steps in means.items() if steps}

    async def heard(self, start: int, end: int, without: Collection[str]) -> dict[SensorKey, Heard]:
        """In which hours sensors had a reading, by counts of an hour."""
        kinds = await self._sensor_kinds()
        where = f"WHERE time >= {start:d}ms AND time < {end:d}ms"
        counts = [
            f'SELECT count(*) FROM {_name(kind)} {where} GROUP BY time({HOUR_MS:d}ms),"site","sensor" fill(none)'  # noqa: S608 - escaped
            for kind in kinds
        ]
        firsts = [
            f'SELECT * FROM {_name(kind)} WHERE time < {end:d}ms GROUP BY "site","sensor" ORDER BY time LIMIT 1'  # noqa: S608 - escaped
            for kind in kinds
        ]
        first = {_series_key(series): row["time"] for series in await self._query(*firsts) for row in _rows(series)}
        others = {f"count_{name}{suffix}" for name in without for suffix in ("", QC_SUFFIX)} | {"time"}
        heard = {}
        for series in await self._query(*counts):
            key = _series_key(series)
            hours = {row["time"] // HOUR_MS for row in _rows(series) if any(row[name] for name in row.keys() - others)}
            heard[key] = Heard(first.get(key, start), frozenset(hours))
        return {key: heard.get(key, Heard(at, frozenset())) for key, at in first.items()} | heard

    async def quarantined(self, key: SensorKey, quantity: str, start: int, end: int) -> list[Quarantined]:
        """Values that failed with start <= time < end, in order."""
        found = await self._query(
            f'SELECT "value","flag","reason" FROM "quarantine" WHERE "kind" = {_text(key.kind)}'  # noqa: S608 - escaped
            f' AND "quantity" = {_text(quantity)} AND {_where(key, start, end)} LIMIT {MAX_POINTS}'
        )
        return [
            Quarantined(row["time"], row["value"], int(row["flag"] or FAIL), row["reason"] or "")
            for series in found
            for row in _rows(series)
        ]

    async def verdicts(self, start: int, end: int, *, channel: tuple[SensorKey, str] | None = None) -> list[Verdict]:
        """What the filter said of readings; of faults that last, those told in the 30 days before."""
        where = f'time >= {start - _LOOK_BACK_MS:d}ms AND "since" < {end:d}'
        if channel is not None:
            tags = {**channel[0]._asdict(), "quantity": channel[1]}
            where += "".join(f" AND {_name(tag)} = {_text(value)}" for tag, value in tags.items())
        found = await self._query(f'SELECT * FROM "verdict" WHERE {where} ORDER BY time DESC LIMIT {_EVENT_POINTS}')  # noqa: S608 - escaped
        return base.fold_verdicts(
            (_verdict(row) for series in found for row in _rows(series) if row.get("id")), start, end
        )

    async def events(self, limit: int, *, open_only: bool = False, key: SensorKey | None = None) -> list[Event]:
        """The newest events, newest first; of the last 30 days and at most their last 5000 points."""
        where = f"time > now() - {_LOOK_BACK}"
        if key is not None:
            where += "".join(f" AND {_name(tag)} = {_text(value)}" for tag, value in key._asdict().items())
        events = await self._events(where)
        return [event for event in events if not open_only or event.until is None][:limit]

    async def gateways(self) -> list[GatewayHealth]:
        """The newest health of every gateway."""
        found = await self._query(
            f'SELECT * FROM "gateway" WHERE time > now() - {_LOOK_BACK}'  # noqa: S608 - constants
            ' GROUP BY "gateway" ORDER BY time DESC LIMIT 1'
        )
        return sorted(
            (
                GatewayHealth(series["tags"]["gateway"], row["time"], {k: v for k, v in row.items() if v is not None})
                for series in found
                for row in _rows(series)
            ),
            key=lambda health: health.gateway,
        )

    async def _newest(self, known: dict[SensorKey, LatestSensor], where: str, depth: int) -> None:
        """Merges the last ``depth`` points of each sensor into what is known."""
        queries = [
            f"SELECT * FROM {_name(kind)} WHERE {where}"  # noqa: S608 - escaped
            f' GROUP BY "gateway","site","sensor" ORDER BY time DESC LIMIT {depth}'
            for kind in await self._sensor_kinds()
        ]
        for series in await self._query(*queries):
            tags = series["tags"]
            key = _series_key(series)
            if key.sensor:
                sensor = known.setdefault(key, LatestSensor(key, tags["gateway"]))
                _merge(sensor, tags["gateway"], list(_rows(series)))

    async def _events(self, where: str) -> list[Event]:
        found = await self._query(f'SELECT * FROM "event" WHERE {where} ORDER BY time DESC LIMIT {_EVENT_POINTS}')  # noqa: S608 - escaped
        return base.fold_events(_event(row) for series in found for row in _rows(series) if row.get("id"))

    async def _sensor_kinds(self) -> list[str]:
        if time.monotonic() >= self._kinds_until:
            found = await self._query("SHOW TAG KEYS")
            self._kinds = [
                series["name"]
                for series in found
                if series["name"] not in RESERVED and {row["tagKey"] for row in _rows(series)} >= _SENSOR_TAGS
            ]
            self._kinds_until = time.monotonic() + (_KINDS_FOR_S if self._kinds else 0.0)
        return self._kinds

    async def _raw(self, key: SensorKey, quantity: str, start: int, end: int, most: int) -> list[Reading]:
        found = await self._query(
            f"SELECT {_name(quantity)} AS value, {_name(quantity + QC_SUFFIX)} AS flag FROM {_name(key.kind)}"  # noqa: S608 - escaped
            f" WHERE {_where(key, start, end)} LIMIT {most + 1:d}"
        )
        rows = [
            Reading(row["time"], row["value"], NOT_EVALUATED if row["flag"] is None else int(row["flag"]))
            for series in found
            for row in _rows(series)
        ]
        if len(rows) > most:
            raise TooManyPointsError
        return rows

    async def _query(self, *statements: str) -> list[dict[str, Any]]:
        """Runs statements in one request and returns the series of all, in order."""
        return [series for result in await self._results(*statements) for series in result]

    async def _results(self, *statements: str) -> list[list[dict[str, Any]]]:
        """Runs statements in one request and returns the series of each."""
        if not statements:
            return []
        if self._session is None:
            msg = "the store is not open"
            raise StoreError(msg)
        config = self._config
        where = f"InfluxDB at {config.url}"
        form = {"db": config.database, "q": "; ".join(statements), "epoch": "ms"}
        try:
            async with self._session.post(f"{config.url.rstrip('/')}/query", data=form) as response:
                if response.status in {401, 403}:
                    what = "token_file" if config.type == "influxdb2" else "username and password_file"
                    msg = f"{where} refused the credentials ({response.status}); check {what} in [store]"
                    raise StoreError(msg)
                answer = await response.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            msg = f"{where} does not answer: {reason}; check url in [store] and that the server runs"
            raise StoreError(msg) from error
        except ValueError as error:
            msg = f"{where} answered with something else than JSON; check that url in [store] is InfluxDB's"
            raise StoreError(msg) from error
        failure = answer.get("error") or answer.get("message")
        results = answer.get("results", [])
        failure = failure or next((result["error"] for result in results if "error" in result), None)
        if failure:
            msg = f"{where} cannot answer for database '{config.database}': {failure}; check database in [store]"
            raise StoreError(msg)
        return [result.get("series", []) for result in results]


def _series_key(series: dict[str, Any]) -> SensorKey:
    return SensorKey(series["name"], series["tags"]["site"], series["tags"]["sensor"])


def _name(identifier: str) -> str:
    """An identifier in InfluxQL, whatever it holds."""
    return '"' + identifier.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _text(value: str) -> str:
    """A string literal in InfluxQL, whatever it holds."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _where(key: SensorKey, start: int, end: int) -> str:
    place = f'"site" = {_text(key.site)} AND "sensor" = {_text(key.sensor)}'
    return f"{place} AND time >= {start:d}ms AND time < {end:d}ms"


def _rows(series: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = series["columns"]
    for values in series.get("values", []):
        yield dict(zip(columns, values, strict=True))


def _merge(known: LatestSensor, gateway: str, rows: list[dict[str, Any]]) -> None:
    newest = max((reading.time for reading in known.readings.values()), default=-(2**63))
    for row in reversed(rows):  # oldest first
        at = row.pop("time")
        if at >= newest:
            known.gateway = gateway
        for name in {name.removesuffix(QC_SUFFIX) for name, value in row.items() if value is not None}:
            value, flag = row.get(name), row.get(name + QC_SUFFIX)
            before = known.readings.get(name)
            if name.endswith(REASON_SUFFIX) or isinstance(value, str) or (before is not None and before.time > at):
                continue
            number = None if value is None else float(value)
            known.readings[name] = Reading(at, number, NOT_EVALUATED if flag is None else int(flag))


def _bucket_flag(row: dict[str, Any]) -> int:
    worst, best = row.get("worst"), row.get("best")
    if worst is None or best is None:
        return NOT_EVALUATED if row.get("mean") is not None else MISSING
    return int(worst) if worst >= SUSPECT else GOOD if best == GOOD else NOT_EVALUATED


def _verdict(row: dict[str, Any]) -> Verdict:
    key = SensorKey(row.get("kind") or "", row.get("site") or "", row.get("sensor") or "")
    texts = str(row["id"]), key, row.get("quantity") or "", row.get("what") or ""
    times = int(row["since"]), int(row.get("until") or row["time"]), row["time"]
    return Verdict(*texts, *times, row.get("confidence"), row.get("reason") or "")


def _event(row: dict[str, Any]) -> EventPoint:
    key = SensorKey(row.get("kind") or "", row.get("site") or "", row.get("sensor") or "")
    return EventPoint(
        str(row["id"]),
        row["time"],
        row.get("severity") or "",
        key,
        row.get("gateway") or "",
        row.get("quantity") or "",
        row.get("value"),
        row.get("limit"),
        row.get("message") or "",
    )
