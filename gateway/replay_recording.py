"""`citygate replay FILE.cgrec`: a recording, played to a broker; what is said of it, on the command line."""

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from gateway.config import GatewayConfig
from gateway.play import Part, Played, play, span, wanted
from gateway.publish import Broker, PublishError, until_signal
from gateway.shift import Shift
from sensors.durations import seconds
from sensors.stream import MAGIC, Reader, StreamError, Summary

_NANO = 10**9


def is_recording(path: Path) -> bool:
    """Whether a file begins as a recording does; one that cannot be read does not."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def main(  # noqa: PLR0913 - the command's options
    file: Path,
    target: Broker,
    *,
    pace: float | None,
    start: str | None = None,
    end: str | None = None,
    topics: tuple[str, ...] = (),
    limit: int | None = None,
    rounds: int = 1,
    recorded_time: bool = False,
    shift_to_now: bool = False,
    config: GatewayConfig | None = None,
    as_json: bool = False,
) -> int:
    """Replays a recording.

    Args:
        file: The recording.
        target: Where to publish.
        pace: Times the recording's own pace; as fast as the broker takes it when None.
        start: Earliest arrival: RFC 3339, or a span since the first one, such as ``90s``.
        end: Latest arrival, in the same way.
        topics: Topic filters; all by default.
        limit: Messages of each round at most.
        rounds: How often; 0 is until it is told to stop.
        recorded_time: Tell the recorded time of arrival, in a user property.
        shift_to_now: Move that time so that the last message carries the time at which it is sent.
        config: With *shift_to_now*: sources whose times in JSON payloads are moved, too.
        as_json: Print the summary as JSON.

    Returns:
        The exit code: 0 all of it taken by the broker, 1 not, 2 wrong options or file.
    """
    console = Console(stderr=True)
    played = Played()
    try:
        wanted(topics)
        with Reader(file) as reader:
            summary = reader.summary()
            part = Part(moment_of(start, "from", summary), moment_of(end, "to", summary), topics, limit, rounds or None)
            shift = _to_now(reader, part, pace) if shift_to_now else 0
        rewrite = Shift(config) if shift_to_now and config is not None else None
    except (ValueError, StreamError) as error:
        return _fail(error, 2)

    async def run() -> bool:
        playing = play(
            file,
            target,
            speed=pace,
            part=part,
            tell_arrival=recorded_time or shift_to_now,
            shift=shift,
            rewrite=rewrite,
            played=played,
        )

        async def work() -> None:
            await playing

        async with _shown(played, part, summary, target, console):
            return await until_signal(work())

    failure = ""
    try:
        if not asyncio.run(run()) and rounds:
            failure = "stopped before the end"
    except (PublishError, StreamError) as error:
        failure = str(error)
    _summary(played, rewrite, file, target, as_json=as_json)
    for damage in played.damage:
        print(f"citygate replay: {file}: {damage}", file=sys.stderr)  # noqa: T201
    if failure:
        return _fail(failure, 1)
    lost = any(not damage.at_end for damage in played.damage)
    return 1 if lost or played.refused or played.left_out else 0


def moment_of(text: str | None, what: str, summary: Summary) -> int | None:
    """A time as asked for.

    Args:
        text: RFC 3339, or a span since the first message.
        what: Name of the option.
        summary: Of the recording.

    Returns:
        ns since 1970; None if nothing is asked for.

    Raises:
        ValueError: It is neither.
    """
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        if not re.match(r"\d{4}-", text):
            return (summary.first or 0) + round(seconds(text) * _NANO)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return round(moment.timestamp() * 1000) * 1_000_000
    msg = (
        f"{what}: {text!r} is neither a time with its offset, such as 2026-03-01T08:00:00+08:00, "
        f"nor a span since the first message, such as 90s or 2h"
    )
    raise ValueError(msg)


def _to_now(reader: Reader, part: Part, pace: float | None) -> int:
    """Ns to add to every time. At the recording's own pace the first message, too, is then of now."""
    found = span(reader, part)
    if found is None:
        return 0
    lasts = 0 if pace is None else round((found[1] - found[0]) / pace)
    return time.time_ns() + lasts - found[1]


@contextlib.asynccontextmanager
async def _shown(played: Played, part: Part, summary: Summary, target: Broker, console: Console) -> AsyncIterator[None]:
    """Shows how far it is, on a terminal."""
    whole = part.start is None and part.end is None and not part.topics and part.rounds is not None
    number = summary.messages if part.limit is None else min(part.limit, summary.messages)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        total = number * (part.rounds or 1) if whole else None
        task = progress.add_task(f"Replaying to {target}", total=total, state="")

        async def show() -> None:
            before, every = 0, 0.5
            while True:
                await asyncio.sleep(every)
                rate, before = (played.done - before) / every, played.done
                late = f", {played.lag:,.1f} s late" if played.lag >= every else ""
                progress.update(task, completed=played.done, state=f"{rate:,.0f}/s{late}")

        shown = asyncio.create_task(show())
        try:
            yield
        finally:
            shown.cancel()


def _summary(played: Played, rewrite: Shift | None, file: Path, target: Broker, *, as_json: bool) -> None:
    """Prints what was done, to stdout."""
    rate = played.done / played.seconds if played.seconds else 0.0
    if as_json:
        fields: dict[str, object] = {
            "file": str(file),
            "messages": played.taken,
            "acknowledged": played.acknowledged,
            "sent": played.sent,
            "refused": played.refused,
            "left_out": played.left_out,
            "rounds": played.rounds,
            "seconds": round(played.seconds, 3),
            "rate": round(rate, 1),
            "lag": round(played.lag, 3),
            "damage": [{"byte": one.offset, "bytes": one.length, "reason": one.reason} for one in played.damage],
        }
        if rewrite is not None:
            fields |= {"times_moved": rewrite.moved, "times_kept": rewrite.kept}
        print(json.dumps(fields))  # noqa: T201
        return
    taken = f"{played.acknowledged:,} acknowledged"
    if played.sent:
        taken += f" and {played.sent:,} of QoS 0 sent"
    print(  # noqa: T201
        f"{played.taken:,} messages, {taken}, to {target} in {played.seconds:.1f} s ({rate:,.0f}/s)"
    )
    for reason, number in [*played.refused.items()]:
        print(f"  {number:,} refused by the broker: {reason}")  # noqa: T201
    for reason, number in [*played.left_out.items()]:
        print(f"  {number:,} left out: {reason}")  # noqa: T201
    if rewrite is not None:
        print(f"  times moved in {rewrite.moved:,} payloads, as they were in {rewrite.kept:,}")  # noqa: T201


def _fail(error: object, code: int) -> int:
    print(f"citygate replay: {error}", file=sys.stderr)  # noqa: T201
    return code
