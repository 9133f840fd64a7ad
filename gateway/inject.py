"""`citygate inject`: a clean recording becomes one with known faults and look-alike events, to judge a filter by."""

import csv
import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from sensors.inject import AMPLITUDES, FAULTS, Channel, Episode, inject
from sensors.recording import Layout, Recording


def main(  # noqa: PLR0913 - the command's options
    file: Path,
    *,
    layout: Layout,
    output: Path,
    truth: Path | None,
    seed: int,
    per_kind: int,
    faults: Collection[str],
    amplitude: str,
) -> None:
    """Reads a clean recording, puts faults and events into it, and writes what became of it.

    Args:
        file: The recording.
        layout: How to read it.
        output: The labelled recording: ``time,sensor,kind,quantity,value,label``, then ``lat,lon`` where the recording
            has them, and ``site`` where it has several.
        truth: JSON lines, one for each sensor of each episode: ``id``, ``pair`` (the look-alike's), ``label``,
            ``shape``, ``amplitude``, ``quantity``, ``site``, ``kind``, ``sensor``, ``quantities``, ``start``, ``end``.
        seed: Same seed, same output.
        per_kind: How many of each fault and of each look-alike.
        faults: Which faults.
        amplitude: ``small``, ``medium``, ``large``, or ``all``.

    Raises:
        InjectionError: There is no room for anything.
        OSError: A file cannot be written.
        RecordingError: The recording cannot be read.
    """
    console = Console(stderr=True)
    with console.status(f"Reading {file} …"):
        recording = Recording(file, layout)
        channels, order = _channels(recording)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Injecting", total=per_kind * len(faults))
        episodes = inject(
            channels,
            seed=seed,
            per_kind=per_kind,
            faults=faults,
            amplitudes=AMPLITUDES if amplitude == "all" else (amplitude,),
            places=recording.places,
            step=lambda: progress.advance(task),
        )
    with console.status(f"Writing {output} …"):
        _write(output, channels, order, recording)
        if truth is not None:
            _write_truth(truth, episodes)
    _show(episodes, faults, per_kind, console)


def _channels(recording: Recording) -> tuple[list[Channel], list[tuple[int, int]]]:
    """The channels, and for each reading in the order of the file its channel and its place there."""
    numbers: dict[tuple[str, str, str, str], int] = {}
    times: list[list[int]] = []
    texts: list[list[str]] = []
    order: list[tuple[int, int]] = []
    for reading in recording:
        for quantity, text in reading.values.items():
            number = numbers.setdefault((reading.site, reading.kind, reading.sensor, quantity), len(numbers))
            if number == len(times):
                times.append([])
                texts.append([])
            order.append((number, len(texts[number])))
            times[number].append(reading.time)
            texts[number].append(text)
    return [
        Channel(*key, np.array(time, np.int64), text, np.array([_number(value) for value in text]))
        for key, time, text in zip(numbers, times, texts, strict=True)
    ], order


def _number(text: str) -> float:
    return float("nan") if text.startswith('"') else float(text)


def _write(output: Path, channels: Sequence[Channel], order: Sequence[tuple[int, int]], recording: Recording) -> None:
    several = len({channel.site for channel in channels}) > 1
    header = ["time", "sensor", "kind", "quantity", "value", "label"]
    header += ["lat", "lon"] * bool(recording.places) + ["site"] * several
    tails = []
    for channel in channels:
        place = recording.places.get((channel.site, channel.kind, channel.sensor), ("", ""))
        tails.append([*(place if recording.places else ()), *([channel.site] if several else ())])
    shown: dict[int, str] = {}
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for number, at in order:
            channel = channels[number]
            time = int(channel.time[at])
            if (moment := shown.get(time)) is None:
                shown = {time: (moment := _moment(time))}
            text = channel.changed.get(at, channel.text[at]).strip('"')
            label = channel.label.get(at, "")
            writer.writerow([moment, channel.sensor, channel.kind, channel.quantity, text, label, *tails[number]])


def _moment(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds" if time % 1000 else "seconds")


def _write_truth(truth: Path, episodes: Sequence[Episode]) -> None:
    with truth.open("w", encoding="utf-8") as file:
        for episode in episodes:
            for part in episode.parts:
                line = {
                    "id": episode.id,
                    "pair": episode.pair,
                    "label": episode.label,
                    "shape": episode.shape,
                    "amplitude": episode.amplitude,
                    "quantity": episode.quantity,
                    "site": part.site,
                    "kind": part.kind,
                    "sensor": part.sensor,
                    "quantities": part.quantities,
                    "start": _moment(part.start),
                    "end": _moment(part.end),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _show(episodes: Sequence[Episode], faults: Collection[str], per_kind: int, console: Console) -> None:
    placed = Counter(episode.shape for episode in episodes)
    table = Table(box=None)
    for heading in ("fault", "", "look-alike event", ""):
        table.add_column(heading, justify="left" if heading else "right")
    short = []
    for fault in FAULTS:
        if fault not in faults:
            continue
        like = FAULTS[fault]
        table.add_row(fault, str(placed[fault]), like or "none", str(placed[like]) if like else "")
        short += [f"{shape} {placed[shape]}" for shape in (fault, like) if shape and placed[shape] < per_kind]
    Console().print(table)
    if short:
        console.print(f"There was no room for {per_kind} of each: {', '.join(short)}. Take fewer, and several seeds.")
