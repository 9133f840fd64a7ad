"""How a recording is to be read, from the options of a command line."""

import re
from collections.abc import Collection, Iterable
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sensors.recording import Layout


def layout_of(  # noqa: PLR0913 - the options
    *,
    time: str | None = None,
    sensor: str | None = None,
    site: str = "replay",
    site_column: str | None = None,
    kind: str | None = None,
    kind_column: str | None = None,
    columns: Iterable[str] = (),
    ignore: Collection[str] = (),
    missing: Collection[str] = (),
    timezone: str | None = None,
    skip_bad: bool = False,
) -> Layout:
    """A layout of the options that ``replay``, ``inject`` and ``evaluate`` have in common.

    Args:
        time: Column of the time.
        sensor: Column of the sensor's name.
        site: Site of all rows.
        site_column: Column of the site.
        kind: Kind of all rows.
        kind_column: Column of the kind.
        columns: ``NAME=QUANTITY`` for columns with another name than their quantity.
        ignore: Columns to leave out.
        missing: Texts that stand for no value, such as -9999.
        timezone: Zone of times without offset: a name such as Asia/Shanghai, or an offset such as +08:00.
        skip_bad: Count rows that cannot be read instead of stopping.

    Raises:
        ValueError: An option cannot be understood; the message names it.
    """
    return Layout(
        time=time,
        sensor=sensor,
        site=site,
        site_column=site_column,
        kind=kind,
        kind_column=kind_column,
        columns=dict(_rename(text) for text in columns),
        ignore=ignore,
        missing=missing,
        zone=zone_of(timezone) if timezone else None,
        skip_bad=skip_bad,
    )


def _rename(text: str) -> tuple[str, str]:
    name, equals, quantity = text.rpartition("=")
    if not equals or not name or not quantity:
        msg = f"column: expected NAME=QUANTITY, not {text!r}"
        raise ValueError(msg)
    return name, quantity


def zone_of(text: str) -> tzinfo:
    """A zone by its name, such as Asia/Shanghai, or its offset, such as +08:00.

    Raises:
        ValueError: There is none.
    """
    if re.fullmatch(r"[+-]\d\d:\d\d", text):
        zone = datetime.fromisoformat(f"2000-01-01T00:00{text}").tzinfo
        if zone is not None:
            return zone
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"timezone: no zone {text!r}; expected a name such as Asia/Shanghai, or an offset such as +08:00"
        raise ValueError(msg) from error
