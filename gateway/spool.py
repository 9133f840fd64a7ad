"""``citygate spool``: what waits in the spool, in figures, rows and points, and what a person can do with it.

What only looks works while the gateway runs: SQLite lets others read while one writes.
"""

import asyncio
import base64
import fcntl
import json
import os
import sys
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.config import GatewayConfig
from gateway.edge.batch import Held
from gateway.edge.decode import Decoder
from gateway.edge.filter import Filter
from gateway.edge.forward import Forwarder
from gateway.edge.readings import Channels
from gateway.edge.redact import Redactor
from gateway.edge.requeue import requeue as try_again
from gateway.edge.spool import CLASSES, FATES, Dead, Ledger, Peek, Row, Spool, Waiting
from gateway.publish import until_signal
from sensors.formats.objects import printable

_WIDE = 10_000  # columns, where no terminal has a width: a pipe gets whole texts
_HEX_WIDTH = 16  # bytes a line
_LONGEST = 65_536  # of a fact of a dead letter: no topic is longer
_GAP = 2  # columns between those of a table
_LONG = ("topic", "reason", "boot", "lacking at", "source")
_TEXTS = (*_LONG, "time", "class")
_LEAST_WIDTH = 10
_SHOWN = 20  # dead letters after a requeue
_AT_ONCE = 0.01  # s
_FULL_SPEED = 2**40  # bytes a second: nothing fresh needs room beside a drain
_PATIENCE = 30.0  # s that a gateway may take for dead letters, beyond the interval at which it looks for requests


class SpoolCommandError(Exception):
    """It cannot be done; the message says why and what to do."""


def _peek(config: GatewayConfig) -> Peek:
    if not config.spool_path.exists():
        msg = f"{config.spool_path}: there is no spool. A gateway makes it when it first runs"
        raise SpoolCommandError(msg)
    return Peek(config.spool_path)


def _in_use(path: Path) -> bool:
    """Whether a gateway has this spool open."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        msg = f"{path}.lock: {error.strerror}. Be the user that the gateway runs as"
        raise SpoolCommandError(msg) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


# count


def count(config: GatewayConfig, *, as_json: bool) -> bool:
    """Prints what is in the spool: by class, by output, the dead letters and the ledger.

    Returns:
        Whether the ledger balances.

    Raises:
        SpoolCommandError: There is no spool.
        SpoolError: It cannot be read.
    """
    with _peek(config) as peek:
        ledger, rows, held = peek.ledger(), list(peek.rows()), len(peek.held())
    state = {
        "path": str(config.spool_path),
        "in_use": _in_use(config.spool_path),
        "bytes": ledger.bytes,
        "max_bytes": config.spool.max_bytes,
        "classes": {name: _sum(row for row in rows if row.kind == name) for name in CLASSES},
        "outputs": {
            output.name: _sum(row for row in rows if output.name in row.outputs)
            | {"readings": sum(ledger.outputs_waiting.get(output.name, {}).values())}
            for output in config.output
        },
        "held": held,
        "dead_letters": ledger.dead_letters,
        "dead_letters_dropped": ledger.dead_dropped,
        "ledger": ledger.sources,
        "output_ledgers": ledger.outputs,
        "mismatches": ledger.mismatches(),
    }
    if as_json:
        _print_json(state)
    else:
        _show_count(state, ledger)
    return not state["mismatches"]


def _sum(rows: Iterable[Waiting]) -> dict[str, int]:
    figures = {"batches": 0, "points": 0, "bytes": 0}
    for row in rows:
        for name, number in zip(figures, (1, row.lines, row.bytes), strict=True):
            figures[name] += number
    return figures


def _show_count(state: dict[str, Any], ledger: Ledger) -> None:
    console = _console()
    who = "a gateway uses it" if state["in_use"] else "no gateway uses it"
    size = f"{_size(state['bytes'])} of {_size(state['max_bytes'])}"
    console.print(f"[bold]{escape(state['path'])}[/bold]  {size}, {who}", soft_wrap=True)
    console.print()
    _print_table(console, ({"class": name, **figures} for name, figures in state["classes"].items()))
    console.print()
    _print_table(console, ({"lacking at": name, **figures} for name, figures in state["outputs"].items()))
    if ledger.sources:
        console.print()
        fates = ("received", *FATES)
        _print_table(
            console, ({"source": name} | {key: of[key] for key in fates} for name, of in ledger.sources.items())
        )
    console.print()
    dropped = f", {ledger.dead_dropped:,} more dropped to bound them" if ledger.dead_dropped else ""
    console.print(f"dead letters: {ledger.dead_letters:,}{dropped}", soft_wrap=True)
    if state["held"]:
        console.print(f"messages held until the clock is known: {state['held']:,}", soft_wrap=True)
    for mismatch in state["mismatches"]:
        console.print(f"[red bold]the ledger does not balance:[/] {escape(mismatch)}", soft_wrap=True)
    if not state["mismatches"]:
        console.print("[green]the ledger balances, on the whole and for each output[/green]", soft_wrap=True)


# list


def show(config: GatewayConfig, *, dead: bool, held: bool, limit: int, as_json: bool) -> None:
    """Prints the newest rows, dead letters or held messages, the newest last.

    Raises:
        SpoolCommandError: There is no spool.
        SpoolError: It cannot be read.
    """
    with _peek(config) as peek:
        if dead:
            items = [_letter(letter) for letter in reversed(peek.dead_letters())]
        elif held:
            items = [_held(message) for message in peek.held()]
        else:
            items = [_row(row) for row in peek.rows()]
    older, items = len(items) - limit, items[-limit:]
    if as_json:
        _print_json(items)
        return
    console = _console()
    if not items:
        console.print("no dead letters" if dead else "no held messages" if held else "nothing waits")
        return
    _print_table(console, map(_brief, items) if dead else items)
    if older > 0:
        console.print(f"[dim]and {older:,} older: --limit {older + limit} shows all[/dim]")


def _row(row: Waiting) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": _iso(row.time),
        "class": row.kind,
        "points": row.lines,
        "bytes": row.bytes,
        "lacking at": list(row.outputs),
    }


def _letter(dead: Dead) -> dict[str, Any]:
    return {
        "id": dead.id,
        "time": _iso(dead.received),
        "source": dead.source,
        "output": dead.output,
        "readings": dead.readings,
        "bytes": len(dead.payload),
        "topic": dead.topic,
        "reason": dead.reason,
    }


def _brief(letter: Mapping[str, Any]) -> dict[str, Any]:
    """What of a dead letter fits into a line."""
    origin = f"refused by {letter['output']}" if letter["output"] else letter["topic"]
    return {"id": letter["id"], "time": letter["time"], "topic": origin, "reason": letter["reason"]}


def _held(message: Held) -> dict[str, Any]:
    return {
        "id": message.id,
        "source": message.source,
        "readings": message.readings,
        "bytes": len(message.payload),
        "ms since boot": message.moment,
        "boot": message.boot,
        "topic": message.topic,
    }


# inspect


def inspect(config: GatewayConfig, number: int, *, dead: bool, as_json: bool) -> None:
    """Prints a row's points, or a dead letter with its payload and the whole reason.

    Raises:
        SpoolCommandError: There is none with this id.
        SpoolError: The spool cannot be read.
    """
    with _peek(config) as peek:
        if dead:
            letter = next((letter for letter in peek.dead_letters() if letter.id == number), None)
            facts, content = (_letter(letter), letter.payload) if letter else ({}, b"")
        else:
            row = peek.row(number)
            facts = next((_row(item) for item in peek.rows() if item.id == number), {}) if row else {}
            content = _points(row) if row else b""
    if not facts:
        what, hint = ("dead letter", "list --dead") if dead else ("batch", "list")
        msg = f"there is no {what} {number} (any more). See  citygate spool {hint}"
        raise SpoolCommandError(msg)
    text = _readable(content)
    if as_json:
        name = "payload" if dead else "lines"
        _print_json({**facts, **({f"{name}_base64": _base64(content)} if text is None else {name: text})})
        return
    console = _console()
    for name, value in facts.items():
        if value or value == 0:
            console.print(f"[dim]{name:10}[/dim]  {escape(printable(_text(name, value), _LONGEST))}", soft_wrap=True)
    console.print()
    console.print(escape(_hex(content) if text is None else text), soft_wrap=True)


def _points(row: Row) -> bytes:
    """Line protocol; nothing if it is damaged on disk: the gateway will put such a row to the dead letters."""
    try:
        text = b"".join(line + b"\n" for line in row.text())
    except zlib.error:
        return b""
    return text if zlib.crc32(text) == row.raw_crc else b""


def _readable(content: bytes) -> str | None:
    """The content as text; None if a terminal must not see it."""
    try:
        text = content.decode().rstrip("\n")
    except UnicodeDecodeError:
        return None
    return text if all(sign.isprintable() or sign in "\n\t" for sign in text) else None


def _hex(content: bytes) -> str:
    lines = []
    for place in range(0, len(content), _HEX_WIDTH):
        part = content[place : place + _HEX_WIDTH]
        signs = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{place:06x}  {part.hex(' '):{3 * _HEX_WIDTH - 1}}  {signs}")
    return "\n".join(lines)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


# export


def export(config: GatewayConfig, target: Path, *, classes: Sequence[str], dead: bool) -> None:
    """Writes what is queued as line protocol, or the dead letters as JSON lines. Nothing leaves the spool.

    Args:
        config: The gateway's configuration.
        target: The file; ``-`` is stdout.
        classes: Classes of points to write.
        dead: Write the dead letters instead.

    Raises:
        SpoolCommandError: There is no spool, or the file cannot be written.
        SpoolError: The spool cannot be read.
    """
    part = target.with_name(f".{target.name}.part")
    console = Console(stderr=True, highlight=False)
    to_file = str(target) != "-"
    number = 0
    with _peek(config) as peek, ExitStack() as stack:
        rows = [] if dead else [row.id for row in peek.rows() if row.kind in classes]
        letters = peek.dead_letters()[::-1] if dead else []
        texts = map(_exported, letters) if dead else _lines(peek, rows)
        progress = stack.enter_context(_progress(console, shown=to_file))
        try:
            file = stack.enter_context(part.open("wb")) if to_file else sys.stdout.buffer
            for text in progress.track(texts, total=len(letters) + len(rows), description="Writing"):
                file.write(text)
                number += text.count(b"\n")
            file.flush()
            if to_file:
                part.replace(target)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever reads has read enough
            return
        except OSError as error:
            msg = f"{target}: cannot write: {error.strerror}"
            raise SpoolCommandError(msg) from error
        finally:
            if to_file:
                part.unlink(missing_ok=True)
    console.print(f"{number:,} dead letters" if dead else f"{number:,} points, times in ms")


def _lines(peek: Peek, rows: Iterable[int]) -> Iterator[bytes]:
    """Points row by row, since one long read would keep the log from being begun anew; some may leave meanwhile."""
    for number in rows:
        row = peek.row(number)
        yield _points(row) if row else b""


def _exported(dead: Dead) -> bytes:
    item = {**_letter(dead), "payload": _base64(dead.payload)}
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


# drain


def drain(config: GatewayConfig) -> bool:
    """Sends what is queued until every output has it.

    Returns:
        Whether it came to the end.

    Raises:
        SpoolCommandError: There is no spool, or a gateway has it: it sends by itself.
        SpoolError: The spool cannot be used.
    """
    if _in_use(config.spool_path):
        msg = f"{config.spool_path}: a gateway uses this spool and sends by itself. Stop it first to drain by hand"
        raise SpoolCommandError(msg)
    _peek(config).__exit__()
    return asyncio.run(_drain(config))


async def _drain(config: GatewayConfig) -> bool:
    console = Console(stderr=True, highlight=False)
    spool = Spool.of(config)
    forwarders = [
        Forwarder(spool, output.model_copy(update={"backlog_rate": _FULL_SPEED, "flush_interval": _AT_ONCE}))
        for output in config.output
    ]
    names = [output.name for output in config.output]
    first = {name: spool.backlog(name).rows for name in names}

    async def send() -> None:
        with _progress(console) as progress:
            tasks = [progress.add_task(name, total=first[name], visible=first[name] > 0) for name in names]
            while any(spool.backlog(name).rows for name in names):
                for forwarder, name, task in zip(forwarders, names, tasks, strict=True):
                    status = forwarder.status()
                    trouble = "" if status["state"] == "ok" else " [red]retrying[/red]"  # the log has said why
                    sent = first[name] - spool.backlog(name).rows
                    progress.update(task, completed=sent, description=f"{escape(name)}{trouble}")
                await asyncio.sleep(0.1)

    sending = [asyncio.create_task(forwarder.run()) for forwarder in forwarders]
    try:
        finished = await until_signal(send())
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        left = {name: spool.backlog(name).rows for name in names}
        held = await spool.held(1)
        await spool.close()
    for forwarder, name in zip(forwarders, names, strict=True):
        error = forwarder.status()["last_error"] if left[name] else None
        why = f": {error}" if error else ""
        console.print(f"{name}: {first[name] - left[name]:,} batches sent, {left[name]:,} left{why}", markup=False)
    if held:
        console.print("messages that are held until the clock is known stay: only a running gateway can date them")
    return finished


# requeue


def requeue(config: GatewayConfig, ids: Collection[int], *, reason: str | None, as_json: bool) -> None:
    """Gives dead letters another try; a running gateway is asked to do it.

    Args:
        config: The gateway's configuration.
        ids: Of the dead letters; all if there are none.
        reason: Take only those whose reason has this text in it.
        as_json: Print JSON.

    Raises:
        SpoolCommandError: One of them is not there, or the gateway does not do it in time.
        SpoolError: The spool cannot be used.
        SourceError: If a source cannot be used as declared.
        KindError: If a file of kinds cannot be used.
    """
    with _peek(config) as peek:
        before = {dead.id: dead for dead in peek.dead_letters()}
    if missing := set(ids) - before.keys():
        numbers = ", ".join(map(str, sorted(missing)))
        msg = f"there is no dead letter {numbers} (any more). See  citygate spool list --dead"
        raise SpoolCommandError(msg)
    chosen = [
        dead
        for number, dead in before.items()
        if (number in ids or not ids) and (reason or "").casefold() in dead.reason.casefold()
    ]
    outputs = {output.name for output in config.output}
    hopeless = [dead.id for dead in chosen if (dead.output not in outputs if dead.output else not dead.topic)]
    wanted = sorted({dead.id for dead in chosen} - set(hopeless))
    if wanted:
        with Console(stderr=True).status(f"Trying {len(wanted):,} dead letters again …"):
            if _in_use(config.spool_path):
                _ask(config, wanted)
            else:
                asyncio.run(_requeue(config, wanted))
    with _peek(config) as peek:
        after = peek.dead_letters()
    tried = {_content(before[number]) for number in wanted}
    again = [_letter(dead) for dead in after[::-1] if dead.id not in before and _content(dead) in tried]
    result = {"tried": len(wanted), "dead_again": again, "left_alone": hopeless}
    if as_json:
        _print_json(result)
        return
    console = _console()
    console.print(f"dead letters tried again: {len(wanted):,}, of which {len(again):,} are dead letters again")
    if again:
        _print_table(console, map(_brief, again[:_SHOWN]))
    if len(again) > _SHOWN:
        console.print(f"[dim]and {len(again) - _SHOWN:,} more: citygate spool list --dead[/dim]")
    if hopeless:
        why = "damaged on disk, or refused by an output that is not configured"
        console.print(f"left alone: {len(hopeless):,} ({why})", soft_wrap=True)


def _content(dead: Dead) -> tuple[str, str, bytes]:
    return dead.output, dead.topic, dead.payload


async def _requeue(config: GatewayConfig, ids: Sequence[int]) -> None:
    channels = Channels()
    decoder = Decoder.of(config, channels)
    judge = Filter(channels)
    spool = Spool.of(config)
    try:
        redactor = Redactor(decoder.sources, decoder.kinds)
        await try_again(spool, redactor, decoder, judge, channels, config.gateway.id, ids)
    finally:
        await spool.close()


def _ask(config: GatewayConfig, ids: Sequence[int]) -> None:
    """Hands the ids over to the running gateway, and waits until it is done with them."""
    with _peek(config) as peek:
        peek.ask(ids)
        deadline = time.monotonic() + config.gateway.health_interval + _PATIENCE
        while left := {dead.id for dead in peek.dead_letters()} & set(ids):
            if time.monotonic() > deadline:
                msg = (
                    f"the gateway has not yet tried {len(left)} of {len(ids)} dead letters; it has the request, and "
                    "will when it can, or when it next starts. Its log may say why it waits"
                )
                raise SpoolCommandError(msg)
            time.sleep(0.2)


# What all of them print


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)


def _progress(console: Console, *, shown: bool = True) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def _print_table(console: Console, items: Iterable[Mapping[str, Any]]) -> None:
    """Prints a table without lines. In a narrow terminal the longest texts end in an ellipsis; numbers never do."""
    rows = [{name: _text(name, value) for name, value in item.items()} for item in items]
    widths = {name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]}
    while sum(widths.values()) + _GAP * (len(widths) - 1) > console.width:
        longest = max((name for name in widths if name in _LONG), key=lambda name: widths[name], default="")
        if not longest or widths[longest] <= _LEAST_WIDTH:
            break
        widths[longest] -= 1
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, width in widths.items():
        table.add_column(
            name, width=width, justify="left" if name in _TEXTS else "right", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(escape(printable(text, len(text))) for text in row.values()))
    console.print(table, width=sum(widths.values()) + _GAP * len(widths), crop=False, no_wrap=True)


def _text(name: str, value: object) -> str:
    match value:
        case int() if name == "bytes":
            return _size(value)
        case int() if name != "id":
            return f"{value:,}"
        case list():
            return ", ".join(value)
        case str() if name == "time":
            return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case _:
            return str(value)


def _size(count: float) -> str:
    if count < 1000:  # noqa: PLR2004 - the next unit
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:  # noqa: PLR2004 - the next unit
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
