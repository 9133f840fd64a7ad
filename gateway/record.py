"""`citygate record`: what a broker delivers, written byte for byte into a recording.

What it promises: a message of QoS 1 or 2 is acknowledged once its block is on the disk, so what a crash or a full disk
takes is still the broker's, for as long as the broker keeps the session. Of QoS 0, a crash takes up to ``block_time``.
At most ``receive_max`` messages are unacknowledged: when the disk is slow, the broker waits.

What is personal, by the kinds of a gateway's sources or by its name alone, does not reach the disk.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from gateway import __version__
from gateway.config import GatewayConfig, MqttConfig
from gateway.edge.redact import Redactor, withheld
from gateway.edge.tap import Tap, TapError, Tapped
from gateway.publish import Broker
from sensors.kinds import builtin
from sensors.stream import StreamError, Writer

RECEIVE_MAX = 16_384
"""Messages that the broker may have under way; four blocks."""
BLOCK_MESSAGES = 4000
BLOCK_TIME = 5.0
"""Seconds after which a block is written though it is not full."""
_SESSION = 3600.0  # seconds for which the broker keeps messages over a lost link
_KEPT = 7 * 86_400.0
_RETAIN, _DUPLICATE = 1, 8  # bits of the first byte of a packet


class RecordError(Exception):
    """It cannot be recorded as asked for; the message is for people."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded from where, and whose personal data it may hold.

    Attributes:
        mqtt: Broker and session.
        filters: Topic filters.
        redactor: Takes out what is personal.
        keep: Whether the broker is to keep the session for the next time.
    """

    mqtt: MqttConfig
    filters: list[str]
    redactor: Redactor
    keep: bool

    @classmethod
    def of_broker(cls, broker: Broker, filters: list[str], *, tls_ca: Path | None, client_id: str | None) -> "Recorded":
        """Topics of a broker; personal is what is so by its name, in whatever message."""
        mqtt = MqttConfig(
            host=broker.host,
            port=broker.port,
            username=broker.username,
            password=None if broker.password is None else SecretStr(broker.password),
            tls=broker.tls is not None,
            tls_ca=tls_ca,
        )
        return cls._as(mqtt, filters, Redactor((), builtin()), client_id)

    @classmethod
    def of_gateway(cls, config: GatewayConfig, filters: list[str], *, client_id: str | None) -> "Recorded":
        """What a gateway takes, and further topics; personal is what its kinds declare.

        Raises:
            RecordError: If its broker does not speak MQTT 5.
            SourceError, KindError: If its sources or kinds cannot be used.
        """
        from gateway.edge.decode import Decoder  # noqa: PLC0415 - numpy, only where there are sources
        from gateway.edge.readings import Channels  # noqa: PLC0415

        if config.mqtt.protocol != "5":
            msg = f"mqtt.protocol is {config.mqtt.protocol}; a recording holds what MQTT 5 tells"
            raise RecordError(msg)
        decoder = Decoder.of(config, Channels())
        own = [source.filter for source in decoder.sources]
        redactor = Redactor(decoder.sources, decoder.kinds)
        return cls._as(config.mqtt, [*dict.fromkeys([*own, *filters])], redactor, client_id)

    @classmethod
    def _as(cls, mqtt: MqttConfig, filters: list[str], redactor: Redactor, client_id: str | None) -> "Recorded":
        settings = {
            "client_id": client_id or f"citygate-record-{os.urandom(6).hex()}",
            "receive_max": RECEIVE_MAX,
            "batch_size": BLOCK_MESSAGES,
            "batch_time": BLOCK_TIME,
            "session_expiry": _KEPT if client_id else _SESSION,
        }
        return cls(mqtt.model_copy(update=settings), filters, redactor, client_id is not None)


@dataclass(slots=True)
class Record:
    """A recording under way; also how a test records.

    Attributes:
        source: What is recorded.
        writer: Where to.
        max_size: Bytes of the file at which it ends.
        messages: Messages that are on the disk.
        payload_bytes: Bytes of their topics and payloads.
        redelivered: Messages that the broker delivered a second time, of those.
        withheld: Messages of which something personal was taken out.
        ended: What ended it.
    """

    source: Recorded
    writer: Writer
    max_size: int | None = None
    messages: int = 0
    payload_bytes: int = 0
    redelivered: int = 0
    withheld: int = 0
    ended: str = ""
    tap: Tap = field(init=False)

    def __post_init__(self) -> None:
        """Makes the tap, which must happen in the event loop."""
        self.tap = Tap(self.source.mqtt, self.source.filters, keep=self.source.keep)

    async def run(self) -> None:
        """Records until `stop`, or until the file has its size.

        Raises:
            TapError: The broker cannot be reached, or refuses.
            StreamError: The file cannot be written any more.
        """
        try:
            async for batch in self.tap.batches():
                assert isinstance(batch, Tapped)  # noqa: S101 - what a tap delivers
                await asyncio.to_thread(self._write, batch)
                self.tap.acknowledge(batch)
                if self.max_size is not None and self.writer.size >= self.max_size:
                    self.ended = "max-size"
                    break
        finally:
            await self.tap.close()

    async def stop(self, why: str) -> None:
        """Takes nothing new; what was taken is written."""
        self.ended = self.ended or why
        await self.tap.stop()

    def _write(self, batch: Tapped) -> None:
        """Puts a batch on the disk."""
        writer, redactor = self.writer, self.source.redactor
        columns = zip(
            batch.topics, batch.payloads, batch.heads, batch.properties, batch.received, batch.walls, strict=True
        )
        for topic, payload, head, properties, monotonic, wall in columns:
            kept = redactor.recorded(topic, payload)
            if kept is not payload:
                kept, self.withheld = withheld(payload) if kept is None else kept, self.withheld + 1
            writer.add(
                topic,
                kept,
                qos=head >> 1 & 3,
                retain=bool(head & _RETAIN),
                properties=properties and redactor.recorded_properties(topic, properties),
                monotonic=monotonic,
                wall=wall,
                duplicate=bool(head & _DUPLICATE),
            )
            self.redelivered += (head & _DUPLICATE) // _DUPLICATE
        writer.flush()
        self.messages, self.payload_bytes = writer.messages, writer.payload_bytes


def main(  # noqa: PLR0913 - the command's options
    file: Path,
    source: Recorded,
    *,
    append: bool = False,
    duration: float | None = None,
    max_size: int | None = None,
    as_json: bool = False,
) -> int:
    """Records until it is told to stop.

    Args:
        file: The recording; it must not exist, unless *append*.
        source: What is recorded.
        append: Go on with a recording that exists.
        duration: Seconds after which it ends.
        max_size: Bytes of the file at which it ends.
        as_json: Print the summary as JSON.

    Returns:
        The exit code: 0 ended as asked for, 1 the broker or the disk ended it, 2 the file cannot be used.
    """
    console = Console(stderr=True)
    place = f"{source.mqtt.host}:{source.mqtt.port}"
    meta = {"by": f"citygate {__version__}", "broker": place, "topics": source.filters}
    try:
        writer = Writer(file, append=append, meta=meta)
    except StreamError as error:
        return _fail(error, 2)
    began, failure = time.monotonic(), ""
    record: Record | None = None

    async def run() -> None:
        nonlocal record
        record = Record(source, writer, max_size)
        async with _told(console), _shown(record, place, console, began), _stopping(record, duration):
            await record.run()

    try:
        asyncio.run(run())
    except (TapError, StreamError) as error:
        failure = str(error)
    try:
        writer.close()
    except StreamError as error:
        failure = failure or str(error)
    if record is not None:
        _summary(record, file, time.monotonic() - began, as_json=as_json)
    return _fail(failure, 1) if failure else 0


@contextlib.asynccontextmanager
async def _told(console: Console) -> AsyncIterator[None]:
    """Says what the ingest logs, beside the progress."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _say(console, record.getMessage())

    log, handler = logging.getLogger("citygate.ingest"), Told(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextlib.asynccontextmanager
async def _stopping(record: Record, duration: float | None) -> AsyncIterator[None]:
    """Ends the recording at a signal, or when its time is over."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def stop(why: str) -> None:
        tasks.add(asyncio.ensure_future(record.stop(why)))

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, "signal")
    timer = None if duration is None else loop.call_later(duration, stop, "duration")
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _shown(record: Record, place: str, console: Console, began: float) -> AsyncIterator[None]:
    """Shows how far it is, on a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"Recording from {place}", total=None, state="")

        async def show() -> None:
            before, told = 0, False
            while True:
                await asyncio.sleep(0.5 if told else 0.05)
                if record.tap.connected and not told:
                    topics = ", ".join(record.source.filters)
                    _say(console, f"recording {topics} of {place} to {record.writer.path}; Ctrl-C ends it")
                    told = True
                rate, before = (record.messages - before) * 2, record.messages
                link = "" if record.tap.connected else ", not connected"
                progress.update(task, state=f"{_text(record, time.monotonic() - began)} ({rate:,}/s now){link}")

        shown = asyncio.create_task(show())
        try:
            yield
        finally:
            shown.cancel()


def _say(console: Console, text: str) -> None:
    console.print(f"citygate record: {text}", markup=False, highlight=False, soft_wrap=True)


def _text(record: Record, seconds: float) -> str:
    size, raw = record.writer.size, record.payload_bytes
    share = f", {size / raw:.0%} of {raw:,}" if raw else ""
    return f"{record.messages:,} messages in {seconds:,.1f} s, {size:,} bytes{share}"


def _summary(record: Record, file: Path, seconds: float, *, as_json: bool) -> None:
    size = file.stat().st_size
    if as_json:
        fields = {
            "file": str(file),
            "messages": record.messages,
            "raw_bytes": record.payload_bytes,
            "file_bytes": size,
            "redelivered": record.redelivered,
            "withheld": record.withheld,
            "seconds": round(seconds, 3),
            "ended": record.ended or "failure",
        }
        print(json.dumps(fields))  # noqa: T201
        return
    print(f"{file}: {_text(record, seconds)}")  # noqa: T201
    notes: tuple[tuple[int, Callable[[int], str]], ...] = (
        (record.redelivered, lambda n: f"{n:,} came a second time, and are marked so"),
        (record.withheld, lambda n: f"of {n:,} something personal was taken out"),
    )
    for number, note in notes:
        if number:
            print(f"  {note(number)}")  # noqa: T201


def _fail(error: object, code: int) -> int:
    print(f"citygate record: {error}", file=sys.stderr)  # noqa: T201
    return code
