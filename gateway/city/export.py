"""CSV in parts, so that a file of any length needs little memory: a sensor's values, and what other tables need."""

import csv
import io
import re
from collections.abc import AsyncIterator, Iterable, Mapping

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
            values: list[Reading | Quarantined] = [*good, *failed]
            values.sort(key=lambda value: value.time)
            yield first + lines(_row(key, quantity, unit, value) for value in values)
            first, at = "", until
    if first:
        yield first


def file_name(key: SensorKey, start: int, end: int) -> str:
    """What a browser calls the file: ASCII without anything that a file system minds."""
    place = re.sub(r"[^A-Za-z0-9._-]+", "_", key.id)
    return f"{place}_{iso(start)[:10]}_{iso(end - 1)[:10]}.csv"


def _row(key: SensorKey, quantity: str, unit: str, value: Reading | Quarantined) -> tuple[str, ...]:
    number = "" if value.value is None else repr(value.value)
    kept_out = isinstance(value, Quarantined)
    reason = value.reason if isinstance(value, Quarantined) else ""
    texts = (text(key.id), text(quantity), number, text(unit), str(value.flag))
    return (iso(value.time), *texts, "yes" if kept_out else "no", text(reason))


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
