"""`citygate replay FILE.csv`: a recorded stream, published over MQTT at its own pace, faster, or at full speed.

What it promises: it exits with 0 only when the broker has acknowledged every message (QoS 1, so each arrives at least
once); over a lost connection it connects again and sends what was not acknowledged.
"""

import asyncio
import json
import re
import string
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from gateway.layouts import layout_of
from gateway.publish import Broker, Publisher, PublishError, broker, until_signal
from sensors.recording import Recording, RecordingError

_PATIENCE = 30.0
"""Seconds for which a broker may be away."""
_OFTEN = 256
"""Messages between two looks at the clock at full speed."""


def main(  # noqa: PLR0913 - the command's options
    file: Path,
    *,
    broker_address: str = "127.0.0.1:1883",
    speed: str = "1",
    time_column: str | None = None,
    sensor_column: str | None = None,
    site: str = "replay",
    site_column: str | None = None,
    kind: str | None = None,
    kind_column: str | None = None,
    columns: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    timezone: str | None = None,
    topic: str = "city/{site}/{kind}/{sensor}",
    shift_to_now: bool = False,
    limit: int | None = None,
    skip_bad: bool = False,
    username: str | None = None,
    password_file: Path | None = None,
    tls: bool = False,
    tls_ca: Path | None = None,
    as_json: bool = False,
) -> int:
    """Replays a CSV file.

    Args:
        file: CSV, plain or gzip'd, with a column a quantity, or with the columns ``quantity`` and ``value``.
        broker_address: ``HOST:PORT``.
        speed: 1 for the recording's own pace, 60 for a minute each second, ``max`` for no pause at all.
        time_column: Column of the time; ``time``, ``timestamp``, ``date`` or ``datetime`` by default.
        sensor_column: Column of the sensor's name; ``sensor``, ``station``, ``id`` or ``name`` by default.
        site: Site of all rows.
        site_column: Column of the site; ``site`` by default, if there is one.
        kind: Kind of all rows; by default the one whose quantities match most columns.
        kind_column: Column of the kind; ``kind`` by default, if there is one.
        columns: ``NAME=QUANTITY`` for columns with another name than their quantity.
        ignore: Columns to leave out.
        missing: Texts that stand for no value, such as -9999.
        timezone: Zone of times without offset: a name such as Asia/Shanghai, or an offset such as +08:00.
        topic: Template with ``{site}``, ``{kind}`` and ``{sensor}``.
        shift_to_now: Move all times so that the last reading carries the time at which it is sent.
        limit: Messages to send at most.
        skip_bad: Count rows that cannot be read instead of stopping before the first message.
        username: Name at the broker.
        password_file: File with the password at the broker.
        tls: Use TLS with the system's authorities.
        tls_ca: Use TLS with this authority's certificate.
        as_json: Print the summary as JSON.

    Returns:
        The exit code: 0 all acknowledged, 1 not, 2 wrong options or file.
    """
    try:
        pace = pace_of(speed)
        _check_topic(topic)
        layout = layout_of(
            time=time_column,
            sensor=sensor_column,
            site=site,
            site_column=site_column,
            kind=kind,
            kind_column=kind_column,
            columns=columns,
            ignore=ignore,
            missing=missing,
            timezone=timezone,
            skip_bad=skip_bad,
        )
        target = broker(broker_address, username=username, password_file=password_file, tls=tls, tls_ca=tls_ca)
        console = Console(stderr=True)
        with console.status(f"Reading {file} …"):
            recording = Recording(file, layout)
    except (ValueError, PublishError, RecordingError) as error:
        return _fail(error, 2)
    replay = _Replay(recording, target, pace, topic, shift_to_now=shift_to_now, limit=limit)
    try:
        finished = asyncio.run(replay.run(console))
    except PublishError as error:
        replay.summary(file, as_json=as_json)
        return _fail(error, 1)
    replay.summary(file, as_json=as_json)
    return 0 if finished else _fail("stopped before the end", 1)


@dataclass
class _Replay:
    recording: Recording
    target: Broker
    pace: float | None
    topic: str
    shift_to_now: bool
    limit: int | None
    taken: int = 0
    acknowledged: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Messages to send."""
        messages = self.recording.messages
        return messages if self.limit is None else min(self.limit, messages)

    async def run(self, console: Console) -> bool:
        """Publishes all; says whether it came to the end."""
        began = time.monotonic()
        async with Publisher(self.target, patience=_PATIENCE) as publisher:
            try:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]}"),
                    TimeRemainingColumn(),
                )
                with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                    task = progress.add_task(f"Publishing to {self.target}", total=self.total, rate="")

                    async def show() -> None:
                        while True:
                            await asyncio.sleep(0.2)
                            rate = publisher.acknowledged / (time.monotonic() - began)
                            progress.update(task, completed=publisher.acknowledged, rate=f"{rate:,.0f}/s")

                    shown = asyncio.create_task(show())
                    try:
                        return await until_signal(self._publish(publisher))
                    finally:
                        shown.cancel()
                        progress.update(task, completed=publisher.acknowledged)
            finally:
                self.acknowledged = publisher.acknowledged
                self.seconds = time.monotonic() - began

    async def _publish(self, publisher: Publisher) -> None:
        began, first, shift = time.monotonic(), self.recording.first or 0, self._shift()
        topics: dict[tuple[str, str, str], str] = {}
        for reading in islice(self.recording, self.limit):
            if self.pace is not None:
                ahead = (reading.time - first) / 1000 / self.pace - (time.monotonic() - began)
                if ahead > 0:
                    await asyncio.sleep(ahead)
            if self.taken % _OFTEN == 0:
                await asyncio.sleep(0)
            key = (reading.site, reading.kind, reading.sensor)
            if (topic := topics.get(key)) is None:
                site, kind, sensor = key
                topic = topics[key] = self.topic.format(site=site, kind=kind, sensor=sensor)
            await publisher.publish(topic, reading.payload(reading.time + shift))
            self.taken += 1
        await publisher.drain()

    def _shift(self) -> int:
        """Ms to add to every time. At the recording's own pace the first reading, too, is then of now."""
        first, last = self.recording.first, self.recording.last
        if not self.shift_to_now or first is None or last is None:
            return 0
        lasts = 0 if self.pace is None else (last - first) / self.pace
        return round(time.time() * 1000 + lasts) - last

    def summary(self, file: Path, *, as_json: bool) -> None:
        """Prints what was done, to stdout."""
        rate = self.acknowledged / self.seconds if self.seconds else 0.0
        recording = self.recording
        if as_json:
            fields = {
                "file": str(file),
                "messages": self.acknowledged,
                "of": self.total,
                "rows": recording.rows,
                "empty_rows": recording.empty,
                "bad_rows": recording.bad,
                "seconds": round(self.seconds, 3),
                "rate": round(rate, 1),
            }
            print(json.dumps(fields))  # noqa: T201
            return
        skipped = f"{recording.empty:,} without a value, {recording.bad:,} unreadable"
        print(  # noqa: T201
            f"{self.acknowledged:,} of {self.total:,} messages acknowledged by {self.target} in {self.seconds:.1f} s"
            f" ({rate:,.0f}/s), from {recording.rows:,} rows ({skipped})"
        )


def pace_of(text: str) -> float | None:
    """Reads a speed: times real time; None for ``max``.

    Raises:
        ValueError: It is none.
    """
    if text == "max":
        return None
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0 < pace < float("inf"):
        msg = f"speed: expected a number above 0 or 'max', not {text!r}"
        raise ValueError(msg)
    return pace


def _check_topic(topic: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(topic) if name is not None}
    except ValueError as error:
        msg = f"topic: {error}"
        raise ValueError(msg) from error
    if unknown := fields - {"site", "kind", "sensor"}:
        msg = f"topic: unknown {{{min(unknown)}}}; there are {{site}}, {{kind}} and {{sensor}}"
        raise ValueError(msg)
    if not topic or re.search(r"[+#\0]", topic):
        msg = f"topic: {topic!r} cannot be published to"
        raise ValueError(msg)


def _fail(error: object, code: int) -> int:
    print(f"citygate replay: {error}", file=sys.stderr)  # noqa: T201
    return code
