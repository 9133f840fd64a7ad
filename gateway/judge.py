"""`citygate evaluate FILE.csv`: how good the filter of the device is, on a recording in which faults are known.

The readings go the way that they go on a device, in batches as they would arrive, through the same decoder and the same
inspector. What came of them is then held against the labels:

- An *episode* is a run of readings of one channel with one label; what befalls more than half of a sensor's channels
  at once is one, and with a truth an episode is what that says. It is *found* when one of its readings is suspect or
  worse; the *latency* is the time from its start to the moment at which that was known. A fault is *called* when one
  of them is called a fault within 48 hours; an event is, whenever that happens.
- *Clean* is what has no label and does not follow an episode of the same sensor by less than that lasted, or a day.
- An *alarm* is a time during which a sensor's readings are suspect or worse, a *false fault-call* one during which they
  are called faults; it ends when for an hour, or for three readings, none was. It counts if it began on clean data.
"""

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway import foreign_units, misses
from gateway.config import GatewayConfig, SourceConfig
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.faults.look import Verdict, What
from gateway.edge.filter import Filter
from gateway.edge.readings import FAIL, SUSPECT, Bytes, Channels, Flags, Floats, Ints, Readings
from gateway.edge.watch import Event
from sensors import kinds
from sensors.recording import Layout, Reading, Recording

EVENT_LABEL = "event"
_PATIENCE = 48 * 3_600_000  # ms within which a fault has to be called
_RECOVERY = 24 * 3_600_000
_PAUSE = 3_600_000  # ms without a flag that end an alarm, if they are three readings
_TOGETHER = 1000  # ms; messages of so much time arrive in one batch
_MOST_TOGETHER = 5000
_WEEK = 7 * 24 * 3_600_000
_Z = 1.959964  # of a two-sided 95 % interval
_NEVER = np.iinfo(np.int64).max


class JudgeError(Exception):
    """A recording cannot be judged; the message says why."""


class Call(IntEnum):
    """What the filter says of a reading, from mild to grave."""

    NOTHING = 0
    EVENT = 1
    SUSPECT = 2
    FAULT = 3


class Calls(NamedTuple):
    """What a batch said: of its own readings, or of earlier ones.

    Attributes:
        channel: int64[n], channel number.
        since, until: int64[n], first and last time of the readings concerned, ms UTC.
        call: uint8[n], a :class:`Call`.
    """

    channel: Ints
    since: Ints
    until: Ints
    call: Bytes


_OF_FLAG = np.zeros(256, np.uint8)
_OF_FLAG[SUSPECT], _OF_FLAG[FAIL] = Call.SUSPECT, Call.FAULT
_OF_VERDICT = {What.NOTHING: Call.NOTHING, What.EVENT: Call.EVENT, What.UNDECIDED: Call.SUSPECT}


def calls(readings: Readings, events: Sequence[Event]) -> Calls:
    """What the filter says of a batch. A reading that it fails is kept out of the main measurement: a fault."""
    call = _OF_FLAG[readings.flag]
    begun = {(event.channel, event.time) for event in events if event.severity != "none"}
    if begun:
        for place in np.flatnonzero(np.isin(readings.channel, [channel for channel, _ in begun])).tolist():
            if (int(readings.channel[place]), int(readings.time[place])) in begun:
                call[place] = max(call[place], Call.EVENT)
    return Calls(readings.channel, readings.time, readings.time, call)


def spoken(verdicts: Sequence[Verdict]) -> Calls:
    """What verdicts say, of readings of the past."""
    said = [(its.channel, its.since, its.until, _OF_VERDICT.get(its.what, Call.FAULT)) for its in verdicts]
    channel, since, until, call = np.array(said, np.int64).reshape(-1, 4).T
    return Calls(channel, since, until, call.astype(np.uint8))


@dataclass(eq=False)
class Values:
    """All readings of a file, in its order, and what was said of each.

    Attributes:
        keys: Site, kind, sensor and quantity of each channel.
        labels: The names that ``label`` refers to; the first is empty.
        channel: int64[n], place in ``keys``.
        time: int64[n], ms UTC.
        value: float64[n], NaN where it is no number.
        label: uint8[n], place in ``labels``.
        worst: uint8[n], the gravest :class:`Call`.
        suspect_at: int64[n], when it was first called suspect or worse, ms UTC.
        fault_at: int64[n], when it was first called a fault.
    """

    keys: list[tuple[str, str, str, str]]
    labels: list[str]
    channel: Ints
    time: Ints
    value: Floats
    label: Ints
    worst: Bytes = field(init=False)
    suspect_at: Ints = field(init=False)
    fault_at: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.worst = np.zeros(len(self.time), np.uint8)
        self.suspect_at, self.fault_at = (np.full(len(self.time), _NEVER) for _ in range(2))
        sensors: dict[tuple[str, str, str], int] = {}
        self.of_sensor = np.array([sensors.setdefault(key[:3], len(sensors)) for key in self.keys], np.int64)
        self.sensors = list(sensors)

    def hear(self, said: Calls, made: Ints) -> None:
        """Takes what was said of readings.

        Args:
            said: n calls, by numbers of channels that are places in ``keys``.
            made: int64[n], when each was made, ms UTC.
        """
        if not len(self.time) or not len(made):
            return
        first, last = int(self.time.min()), int(self.time.max())
        span = last - first + 1
        own = self.channel * span + (self.time - first)
        order = np.argsort(own, kind="stable")
        since, until = np.maximum(said.since, first) - first, np.minimum(said.until, last) - first
        low = np.searchsorted(own[order], said.channel * span + since)
        many = np.maximum(np.searchsorted(own[order], said.channel * span + until, "right") - low, 0)
        many[since > until] = 0
        number = np.repeat(np.arange(len(many)), many)
        row = order[low[number] + np.arange(len(number)) - np.repeat(np.cumsum(many) - many, many)]
        call, made = said.call[number], made[number]
        np.maximum.at(self.worst, row, call.astype(np.uint8))
        for which, moment in ((Call.SUSPECT, self.suspect_at), (Call.FAULT, self.fault_at)):
            such = call >= which
            np.minimum.at(moment, row[such], made[such])


@dataclass(eq=False)
class Episode:
    """A fault or an event in a file.

    Attributes:
        label: As in the file.
        rows: int64[n], its readings, in the order of the file.
        start: ms UTC.
        end: ms UTC, of its last reading.
        id: Its number in the truth; -1 without one.
        pair: Its look-alike's.
        shape: What an event looks like, or the label again.
        amplitude: How large it is; empty if that is not known.
        quantity: Where it is seen best.
        found_after: ms until a reading of it was suspect or worse; None if none was.
        called_after: ms until a reading of it was called a fault; None if none was.
    """

    label: str
    rows: Ints
    start: int
    end: int
    id: int = -1
    pair: int | None = None
    shape: str = ""
    amplitude: str = ""
    quantity: str = ""
    found_after: int | None = None
    called_after: int | None = None

    @property
    def event(self) -> bool:
        """Whether it is true, and no fault."""
        return self.label == EVENT_LABEL

    @property
    def found(self) -> bool:
        """Whether a reading of it was suspect or worse."""
        return self.found_after is not None

    @property
    def called(self) -> bool:
        """Whether it was called a fault; soon enough, if it is one."""
        return self.called_after is not None and (self.event or self.called_after <= _PATIENCE)


def main(  # noqa: PLR0913 - the command's options
    file: Path,
    *,
    layout: Layout,
    units: Sequence[str] = (),
    config: GatewayConfig | None = None,
    truth: Path | None = None,
    plot: Path | None = None,
    baseline: Path | None = None,
    limit: int | None = None,
    as_json: bool = False,
) -> int:
    """Judges the filter on a labelled recording.

    Args:
        file: The recording.
        layout: How to read it.
        units: ``QUANTITY=UNIT`` for values that are not in their kind's unit. Where others cannot be in it, the unit
            that fits is taken, which is said.
        config: A gateway's configuration, for its own kinds and overrides.
        truth: What ``citygate inject --truth`` wrote with the file.
        plot: Where to draw the worst misses, HTML.
        baseline: An earlier result as JSON.
        limit: Messages to judge at most.
        as_json: Print JSON instead of a table.

    Returns:
        The exit code: 0, or 1 if something is worse than in the baseline.

    Raises:
        JudgeError: A file is not what it should be.
        OSError: The plot cannot be written.
        RecordingError: The recording cannot be read.
        SourceError: A unit cannot be converted.
    """
    before = None if baseline is None else _read_baseline(baseline)
    console = Console(stderr=True)
    with console.status(f"Reading {file} …"):
        recording = Recording(file, layout)
    families = kinds.known(None if config is None else config.gateway.kinds_dir)
    stated = dict(_unit(text) for text in units)
    guessed = foreign_units.found(recording, families, stated)
    for quantity, unit in guessed.items():
        text = f"{quantity} is taken to be in {unit}, for its kind's unit it cannot be in (else: --unit)"
        console.print(text, highlight=False, soft_wrap=True)
    values = run(recording, config, stated | guessed, limit, console)
    lines = None if truth is None else _read_truth(truth)
    episodes = _labelled(values) if lines is None else _told(values, lines, truth)
    for episode in episodes:
        _judge(values, episode)
    result = {"file": str(file), "units": stated | guessed, **summary(values, episodes)}
    if plot is not None:
        misses.write(plot, file.name, values, episodes, _clean(values, episodes))
    worse = [] if before is None else worsened(before, result)
    if as_json:
        print(json.dumps(result if before is None else {**result, "worse": worse}, indent=2))  # noqa: T201
    else:
        _show(result, Console())
    for text in worse:
        console.print(f"worse: {text}", highlight=False, soft_wrap=True)
    return 1 if worse else 0


# -- the way of the readings -------------------------------------------------------------------------------------------


def run(
    recording: Recording, config: GatewayConfig | None, units: dict[str, str], limit: int | None, console: Console
) -> Values:
    """Sends a recording through the decoder and the inspector of a device; units are those of its quantities."""
    channels = Channels()
    source = SourceConfig(units=units)
    if config is None:
        decoder = Decoder([source], kinds.builtin(), "evaluate", channels)
    else:
        decoder = Decoder.of(config.model_copy(update={"source": (source,)}), channels)
    judge = Filter(channels)
    keys: dict[tuple[str, str, str, str], int] = {}
    labels: dict[str, int] = {"": 0}
    channel, time, value, label = array("q"), array("q"), array("d"), array("q")
    said: list[tuple[Calls, int]] = []
    columns = (SpinnerColumn(), TextColumn("Judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        total = recording.messages if limit is None else min(limit, recording.messages)
        task = progress.add_task("Judging", total=total)
        for messages in _batches(recording, limit):
            raw = RawBatch()
            for reading in messages:
                site, sensor = _identifier(reading.site), _identifier(reading.sensor)
                raw.topics.append(f"city/{site}/{reading.kind}/{sensor}")
                raw.payloads.append(reading.payload(reading.time))
                raw.received.append(reading.time)
                for quantity, text in reading.values.items():
                    channel.append(keys.setdefault((site, reading.kind, sensor, quantity), len(keys)))
                    time.append(reading.time)
                    value.append(math.nan if text.startswith('"') else float(text))
                    label.append(labels.setdefault(reading.labels.get(quantity, ""), len(labels)))
            readings = decoder.decode(raw)
            if readings.dead:
                msg = f"{raw.topics[0]}: the gateway cannot read this: {readings.dead[0].reason}"
                raise JudgeError(msg)
            findings = judge.judge(readings)
            when = messages[-1].time
            said += (calls(readings, findings.events), when), (spoken(findings.verdicts), when)
            decoder.remember(readings.keys)
            progress.advance(task, len(messages))
    if said:
        said.append((spoken(judge.finish()), said[-1][1]))
    values = Values(
        list(keys),
        list(labels),
        np.array(channel, np.int64),
        np.array(time, np.int64),
        np.array(value),
        np.array(label, np.int64),
    )
    numbers = np.full(len(channels), -1)
    for its in channels.sensors:
        for quantity in (*its.home.names, *(its.channels or {})):
            numbers[its.channel(quantity)] = keys[its.site, its.family.kind, its.name, quantity]
    if said:
        made = np.repeat([when for _, when in said], [len(batch.call) for batch, _ in said])
        everything = Calls(*(np.concatenate(parts) for parts in zip(*(batch for batch, _ in said), strict=True)))
        values.hear(everything._replace(channel=numbers[everything.channel]), made)
    return values


def _batches(recording: Recording, limit: int | None) -> Iterator[list[Reading]]:
    """Messages of one moment together, as a gateway gets them."""
    batch: list[Reading] = []
    for number, reading in enumerate(recording):
        if number == limit:
            break
        if batch and (reading.time - batch[0].time >= _TOGETHER or len(batch) == _MOST_TOGETHER):
            yield batch
            batch = []
        batch.append(reading)
    if batch:
        yield batch


def _identifier(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:64]


def _unit(text: str) -> tuple[str, str]:
    quantity, equals, unit = text.partition("=")
    if not equals or not quantity or not unit:
        msg = f"unit: expected QUANTITY=UNIT, not {text!r}"
        raise JudgeError(msg)
    return quantity, unit


# -- episodes ----------------------------------------------------------------------------------------------------------


def _labelled(values: Values) -> list[Episode]:
    """Episodes as the labels tell: runs of one label in a channel; those of most of a sensor's channels are one."""
    runs: dict[tuple[int, int], list[Ints]] = {}
    order = np.lexsort((values.time, values.channel))
    channel, label = values.channel[order], values.label[order]
    for rows in np.split(order, np.flatnonzero((np.diff(channel) != 0) | (np.diff(label) != 0)) + 1):
        if len(rows) and values.label[rows[0]]:
            runs.setdefault((int(values.of_sensor[values.channel[rows[0]]]), int(values.label[rows[0]])), []).append(
                rows
            )
    episodes = []
    for (sensor, name), of_sensor in runs.items():
        channels = int((values.of_sensor == sensor).sum())
        for group in _overlapping(values, of_sensor):
            together = len({int(values.channel[rows[0]]) for rows in group}) > max(1, channels / 2)
            for rows in [np.sort(np.concatenate(group))] if together else group:
                text, time = values.labels[name], values.time[rows]
                episodes.append(Episode(text, rows, int(time.min()), int(time.max()), shape=text))
    return sorted(episodes, key=lambda episode: episode.start)


def _overlapping(values: Values, runs: Sequence[Ints]) -> list[list[Ints]]:
    """Runs in groups, each of runs that overlap in time."""
    groups: list[list[Ints]] = []
    end = -1
    for rows in sorted(runs, key=lambda rows: int(values.time[rows[0]])):
        if groups and int(values.time[rows[0]]) <= end:
            groups[-1].append(rows)
        else:
            groups.append([rows])
        end = max(end, int(values.time[rows[-1]]))
    return groups


def _told(values: Values, lines: Sequence[Mapping[str, Any]], truth: Path | None) -> list[Episode]:
    """Episodes as the truth tells; one of several sensors is one."""
    numbers = {key: number for number, key in enumerate(values.keys)}
    order = np.lexsort((values.time, values.channel))
    channel, time = values.channel[order], values.time[order]
    limits = np.searchsorted(channel, np.arange(len(values.keys) + 1))
    found: dict[int, Episode] = {}
    last = int(values.time.max()) if len(values.time) else 0
    for line in lines:
        start, end = (int(datetime.fromisoformat(line[key]).timestamp() * 1000) for key in ("start", "end"))
        if start > last:
            continue  # beyond --limit
        label = values.labels.index(line["label"]) if line["label"] in values.labels else -1
        rows = []
        for quantity in line["quantities"]:
            site, kind, sensor = (_identifier(line[key]) for key in ("site", "kind", "sensor"))
            if (number := numbers.get((site, kind, sensor, quantity))) is None:
                continue
            first, beyond = limits[number], limits[number + 1]
            low, high = np.searchsorted(time[first:beyond], (start, end + 1)) + first
            rows.append(order[low:high][values.label[order[low:high]] == label])
        its = np.concatenate(rows) if rows else np.empty(0, np.int64)
        if not len(its):
            msg = f"{truth}: {line['label']} of {line['sensor']} at {line['start']} is not in the recording"
            raise JudgeError(msg)
        if (known := found.get(line["id"])) is not None:
            known.rows = np.sort(np.concatenate((known.rows, its)))
            known.start, known.end = min(known.start, start), max(known.end, end)
        else:
            details = {key: line[key] for key in ("id", "pair", "shape", "amplitude", "quantity")}
            found[line["id"]] = Episode(line["label"], np.sort(its), start, end, **details)
    return sorted(found.values(), key=lambda episode: episode.start)


def _read_truth(path: Path) -> list[Mapping[str, Any]]:
    needed = {"id", "pair", "label", "shape", "amplitude", "quantity", "site", "kind", "sensor", "quantities"}
    needed |= {"start", "end"}
    lines: list[Mapping[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json.loads(text)
                if not isinstance(line, dict):
                    msg = f"{path}: line {number} is no object"
                    raise JudgeError(msg)
                if lacking := needed - set(line):
                    msg = f"{path}: line {number} has no {min(lacking)!r}"
                    raise JudgeError(msg)
                lines.append(line)
    except (OSError, ValueError) as error:
        msg = f"{path}: {error}"
        raise JudgeError(msg) from error
    return lines


def _judge(values: Values, episode: Episode) -> None:
    suspect, fault = (int(moment[episode.rows].min()) for moment in (values.suspect_at, values.fault_at))
    episode.found_after = None if suspect == _NEVER else max(0, suspect - episode.start)
    episode.called_after = None if fault == _NEVER else max(0, fault - episode.start)


def _clean(values: Values, episodes: Sequence[Episode]) -> Flags:
    """bool[n]: readings without a label, and not just behind an episode of the same sensor."""
    clean = values.label == 0
    sensor = values.of_sensor[values.channel]
    order = np.lexsort((values.time, sensor))
    time = values.time[order]
    limits = np.searchsorted(sensor[order], np.arange(len(values.sensors) + 1))
    for episode in episodes:
        for number in np.unique(sensor[episode.rows]).tolist():
            its = episode.rows[sensor[episode.rows] == number]
            start, end = int(values.time[its].min()), int(values.time[its].max())
            first, beyond = limits[number], limits[number + 1]
            low, high = np.searchsorted(time[first:beyond], (end, end + min(end - start, _RECOVERY)), "right") + first
            clean[order[low:high]] = False
    return np.asarray(clean)


# -- figures -----------------------------------------------------------------------------------------------------------


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson (1927)."""
    if not of:
        return 0.0, 1.0
    share, extra = hits / of, _Z * _Z / of
    middle = (share + extra / 2) / (1 + extra)
    half = _Z * math.sqrt(share * (1 - share) / of + extra / of / 4) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def poisson_upper(count: float) -> float:
    """The upper end of the 95 % interval of a count, by Byar's approximation."""
    return (count + 1) * (1 - 1 / (9 * (count + 1)) + _Z / (3 * math.sqrt(count + 1))) ** 3


def summary(values: Values, episodes: Sequence[Episode]) -> dict[str, Any]:
    """What ``--json`` prints.

    ``labels``, ``faults`` (all but events), ``events``, ``shapes`` and ``amplitudes`` (with a truth) hold groups of
    episodes: ``episodes``, ``found``, ``recall``, ``latency_median_s``, ``latency_p90_s``, ``called_fault``,
    ``fault_call_rate`` with ``fault_call_low`` and ``fault_call_high`` (Wilson, 95 %). ``pairs`` counts for each fault
    the pairs of it and its look-alike, and those that were ``told_apart``: the fault called, the event not. ``clean``
    holds what happened on clean data.
    """
    faults = [episode for episode in episodes if not episode.event]
    events = [episode for episode in episodes if episode.event]
    told = any(episode.id >= 0 for episode in episodes)
    return {
        "readings": len(values.time),
        "sensors": len(values.sensors),
        "channels": len(values.keys),
        "labels": _groups(episodes, lambda episode: episode.label),
        "faults": _group(faults),
        "events": _group(events),
        "shapes": _groups(events, lambda episode: episode.shape) if told else {},
        "amplitudes": _groups(episodes, lambda episode: f"{episode.shape}/{episode.amplitude}") if told else {},
        "pairs": _pairs(episodes),
        "clean": _on_clean(values, _clean(values, episodes)),
    }


def _groups(episodes: Sequence[Episode], of: Callable[[Episode], str]) -> dict[str, Any]:
    names = sorted({of(episode) for episode in episodes})
    return {name: _group([episode for episode in episodes if of(episode) == name]) for name in names}


def _group(episodes: Sequence[Episode]) -> dict[str, Any]:
    of = len(episodes)
    found, called = (sum(getattr(episode, what) for episode in episodes) for what in ("found", "called"))
    latency = [episode.found_after / 1000 for episode in episodes if episode.found_after is not None]
    low, high = wilson(called, of)
    return {
        "episodes": of,
        "found": found,
        "recall": found / of if of else None,
        "latency_median_s": float(np.median(latency)) if latency else None,
        "latency_p90_s": float(np.quantile(latency, 0.9)) if latency else None,
        "called_fault": called,
        "fault_call_rate": called / of if of else None,
        "fault_call_low": low,
        "fault_call_high": high,
    }


def _pairs(episodes: Sequence[Episode]) -> dict[str, Any]:
    by_id = {episode.id: episode for episode in episodes if episode.id >= 0}
    pairs: Counter[str] = Counter()
    apart: Counter[str] = Counter()
    for fault in by_id.values():
        if not fault.event and fault.pair is not None and (event := by_id.get(fault.pair)) is not None:
            pairs[fault.label] += 1
            apart[fault.label] += fault.called and not event.called
    return {label: {"pairs": pairs[label], "told_apart": apart[label]} for label in sorted(pairs)}


def _on_clean(values: Values, clean: Flags) -> dict[str, Any]:
    sensor = values.of_sensor[values.channel]
    weeks, alarms, false_calls = 0.0, 0, 0
    for number in range(len(values.sensors)):
        rows = np.flatnonzero(sensor == number)
        rows = rows[np.argsort(values.time[rows], kind="stable")]
        times, first = np.unique(values.time[rows], return_index=True)
        sound = np.logical_and.reduceat(clean[rows], first)
        worst = np.maximum.reduceat(values.worst[rows], first)
        interval = int(np.median(np.diff(times))) if len(times) > 1 else 0
        weeks += float(sound.sum()) * interval / _WEEK
        pause = max(_PAUSE, 3 * interval)
        alarms += _begun(times[worst >= Call.SUSPECT], sound[worst >= Call.SUSPECT], pause)
        false_calls += _begun(times[worst == Call.FAULT], sound[worst == Call.FAULT], pause)
    readings, touched = int(clean.sum()), int((clean & (values.worst >= Call.SUSPECT)).sum())
    return {
        "readings": readings,
        "sensor_weeks": weeks,
        "false_fault_calls": false_calls,
        "false_fault_calls_per_sensor_week": false_calls / weeks if weeks else None,
        "alarms": alarms,
        "alarms_per_sensor_week": alarms / weeks if weeks else None,
        "readings_touched": touched,
        "share_touched": touched / readings if readings else None,
    }


def _begun(times: Ints, sound: Flags, pause: int) -> int:
    """How many runs of times, each ended by a pause, begin soundly."""
    if not len(times):
        return 0
    return int(sound[np.append(True, np.diff(times) > pause)].sum())


# -- an earlier result -------------------------------------------------------------------------------------------------


def _read_baseline(path: Path) -> Mapping[str, Any]:
    try:
        before = json.loads(path.read_text("utf-8"))
        group = before["clean"]["alarms"], before["events"]["episodes"], before["labels"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: not what `citygate evaluate --json` prints ({error!r})"
        raise JudgeError(msg) from error
    del group
    return dict(before)


def worsened(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is worse than before, beyond the noise of the earlier result.

    A share (recall, faults called, events called faults) is worse when it lies beyond the 95 % interval by Wilson of
    the earlier one; a count a sensor-week when it lies above the 95 % interval of the earlier count (Poisson); the
    share of clean readings touched when it has grown by more than the alarms may. A label that is gone is worse, too.
    """
    worse = []
    for label, old in before["labels"].items():
        if (new := now["labels"].get(label)) is None:
            worse.append(f"{label}: none left in this recording, {old['episodes']} before")
            continue
        if label == EVENT_LABEL:
            worse += _higher("events called fault", old, new)
        else:
            worse += _lower(f"{label}: found", "found", old, new)
            worse += _lower(f"{label}: called fault", "called_fault", old, new)
    for what, count in (("false fault-calls", "false_fault_calls"), ("alarms", "alarms")):
        old_weeks, new_weeks = before["clean"]["sensor_weeks"], now["clean"]["sensor_weeks"]
        old_count, new_count = before["clean"][count], now["clean"][count]
        if old_weeks and new_weeks and new_count / new_weeks > poisson_upper(old_count) / old_weeks:
            worse.append(f"{what}: {new_count / new_weeks:.3f} per sensor-week, {old_count / old_weeks:.3f} before")
    old_share, new_share = before["clean"]["share_touched"], now["clean"]["share_touched"]
    slack = poisson_upper(before["clean"]["alarms"]) / max(before["clean"]["alarms"], 1)
    if old_share is not None and new_share is not None and new_share > old_share * slack:
        worse.append(f"clean readings touched: {new_share:.3%}, {old_share:.3%} before")
    return worse


def _lower(what: str, key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    low, _ = wilson(old[key], old["episodes"])
    share = new[key] / max(new["episodes"], 1)
    return [f"{what} {share:.1%}, {old[key] / old['episodes']:.1%} before"] if share < low else []


def _higher(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    _, high = wilson(old["called_fault"], old["episodes"])
    share = new["called_fault"] / max(new["episodes"], 1)
    return [f"{what} {share:.1%}, {old['called_fault'] / old['episodes']:.1%} before"] if share > high else []


# -- table -------------------------------------------------------------------------------------------------------------


def _show(result: Mapping[str, Any], console: Console) -> None:
    title = f"{result['readings']:,} readings of {result['sensors']} sensors ({result['channels']} channels)"
    table = Table(title=title, box=None)
    table.add_column("", no_wrap=True)
    for heading in ("episodes", "found", "median", "p90", "called fault", "95 %", "told apart"):
        table.add_column(heading, justify="right")
    for label, group in result["labels"].items():
        if label != EVENT_LABEL:
            table.add_row(*_row(label, group, result["pairs"].get(label)))
    if len(result["labels"]) > 1:
        table.add_row(*_row("all faults", result["faults"], None), end_section=True)
    table.add_row()
    for shape, group in result["shapes"].items():
        table.add_row(*_row(f"event {shape}", group, None))
    if result["events"]["episodes"]:
        table.add_row(*_row("all events", result["events"], None))
    console.print(table)
    clean = result["clean"]
    if clean["sensor_weeks"]:
        console.print(
            f"Clean: {clean['sensor_weeks']:,.1f} sensor-weeks; per sensor-week "
            f"{clean['false_fault_calls_per_sensor_week']:.3f} false fault-calls, "
            f"{clean['alarms_per_sensor_week']:.3f} alarms; {clean['share_touched']:.3%} of readings touched",
            highlight=False,
        )


def _row(name: str, group: Mapping[str, Any], pair: Mapping[str, int] | None) -> list[str]:
    if not group["episodes"]:
        return [name, "0"]
    return [
        name,
        str(group["episodes"]),
        f"{group['recall']:.1%}",
        _lasting(group["latency_median_s"]),
        _lasting(group["latency_p90_s"]),
        f"{group['fault_call_rate']:.1%}",
        f"{100 * group['fault_call_low']:.0f}..{100 * group['fault_call_high']:.0f}",
        f"{pair['told_apart'] / pair['pairs']:.1%}" if pair else "",
    ]


def _lasting(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{1 if seconds < 10 * size else 0}f} {unit}"
    return f"{seconds:.0f} s"
