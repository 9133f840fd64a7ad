"""CSV in parts, so that a file of any length needs little memory: a sensor's values, and what other tables need."""

import asyncio
import csv
import io
import operator
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from starlette.responses import StreamingResponse

from gateway.city.models import iso
from gateway.city.store.base import MAX_POINTS, Quarantined, Reading, SensorKey, Store

COLUMNS = ("time", "sensor", "quantity", "value", "unit", "flag", "quarantined", "reason")
_PART = 5000
_BOM = "\ufeff"  # by which spreadsheets know UTF-8
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Csv(StreamingResponse):
    """A file of CSV in parts."""

    media_type = "text/csv; charset=utf-8"


async def csv_of(store: Store, key: SensorKey, units: Mapping[str, str], start: int, end: int) -> AsyncIterator[str]:
    """The values of some quantities with start <= time < end, in milliseconds, quantity after quantity, by time.

    Args:
        store: Where they are.
        key: The sensor.
        units: The quantities and their units.
        start: First millisecond.
        end: First millisecond that no longer belongs.

    Yields:
        Lines of CSV (RFC 4180), the names of the columns with the first of them.

    Raises:
        StoreError: If the store does not answer.
    """
    first = head(COLUMNS)
    for quantity, unit in units.items():
        at = start
        while at < end:
            good = await store.page(key, quantity, at, end, _PART)
            until = good[-1].time + 1 if len(good) == _PART else end
            failed = await store.quarantined(key, quantity, at, until)
            if len(failed) >= MAX_POINTS:
                until = failed[-1].time + 1
                good = [reading for reading in good if reading.time < until]
            yield first + await asyncio.to_thread(_part, key, quantity, unit, good, failed)
            first, at = "", until
    if first:
        yield first


def file_name(key: SensorKey, start: int, end: int) -> str:
    """What a browser calls the file: ASCII without anything that a file system minds."""
    place = re.sub(r"[^A-Za-z0-9._-]+", "_", key.id)
    return f"{place}_{iso(start)[:10]}_{iso(end - 1)[:10]}.csv"


def _part(key: SensorKey, quantity: str, unit: str, good: Sequence[Reading], failed: Sequence[Quarantined]) -> str:
    """Lines by time; what they have in common is quoted once, and the zone is looked up seldom."""
    name, of = lines([(text(key.id), text(quantity))])[:-2], lines([(text(unit),)])[:-2]
    clock = _Clock()
    found = [
        (time, f"{clock(time)},{name},{'' if value is None else repr(value)},{of},{flag},no,\r\n")
        for time, value, flag in good
    ]
    for time, value, flag, reason in failed:
        number = "" if value is None else repr(value)
        found.append((time, f"{clock(time)},{name},{number},{of},{flag},yes,{lines([(text(reason),)])}"))
    if failed:
        found.sort(key=operator.itemgetter(0))
    return "".join(line for _, line in found)


class _Clock:
    """As ``iso``, which it asks once a quarter of an hour: no zone's offset has been finer since 1972."""

    def __init__(self) -> None:
        self._quarters: dict[int, tuple[str, int, str]] = {}

    def __call__(self, time: int) -> str:
        quarter, within = divmod(time, 900_000)
        if quarter not in self._quarters:
            known = iso(quarter * 900_000)
            self._quarters[quarter] = known[:14], int(known[14:16]), known[23:]
        hour, minute, zone = self._quarters[quarter]
        return f"{hour}{minute + within // 60_000:02d}:{within // 1000 % 60:02d}.{within % 1000:03d}{zone}"


def head(columns: Iterable[str]) -> str:
    """The names of the columns, as a file in UTF-8 begins."""
    return _BOM + lines([tuple(columns)])


def text(said: str) -> str:
    """Text that a spreadsheet must not take for a formula."""
    return f"'{said}" if said.startswith(_FORMULA) else said


def lines(rows: Iterable[tuple[str, ...]]) -> str:
    """Lines of CSV (RFC 4180)."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
