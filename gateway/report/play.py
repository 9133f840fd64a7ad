"""Plays a recording the way of a gateway, and keeps what a report tells of it.

What is kept does not grow with the recording but by eight bytes a report of a sensor: a chart is a line of buckets,
each with the least and the greatest value, from the first reading on.
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from gateway.config import GatewayConfig, SourceConfig
from gateway.edge.batch import DeadLetter, Entry, RawBatch
from gateway.edge.decode import UNMATCHED, Decoder
from gateway.edge.encode import encode
from gateway.edge.faults.look import Verdict, What
from gateway.edge.filter import Filter, Findings
from gateway.edge.maintenance import Maintenance
from gateway.edge.readings import FAIL, GOOD, SUSPECT, UNKNOWN, Channels, Readings, Sensor
from gateway.edge.reasons import Reason
from gateway.edge.redact import Redactor
from gateway.edge.spool_row import pack
from gateway.streams import TOPIC, Stream

BUCKETS = 480
"""Of a chart, from left to right."""
CHARTED = 4000
"""Channels that are kept for a chart."""
LAYERS = ((GOOD, UNKNOWN), (SUSPECT,), (FAIL,))
"""Flags that are drawn alike."""
EXAMPLES = 3
_KEPT = 5000  # events, verdicts, and sorts of dead letters
_SAMPLED = 200  # lines of a batch that are compressed as they would be in everyday traffic
_PAYLOAD = 160  # bytes that are kept of a dead letter's payload


class Example(NamedTuple):
    """A reading that a test was not content with."""

    channel: int
    time: int
    value: float
    flag: int


@dataclass
class Tally:
    """How often a reason was given.

    Attributes:
        flags: Flag → readings.
        channels: Whose.
        examples: A few, of different channels.
    """

    flags: Counter[int] = field(default_factory=Counter)
    channels: set[int] = field(default_factory=set)
    examples: list[Example] = field(default_factory=list)


@dataclass
class Course:
    """An event from its beginning to its end.

    Attributes:
        since: ms UTC; with the channel, its identity.
        until: When it ended, ms UTC; None while it lasts.
        severity: The gravest.
        value: The value that made it so.
        limit: That it passed.
    """

    channel: int
    since: int
    until: int | None
    severity: str
    value: float
    limit: float


@dataclass
class Letters:
    """Dead letters of one source for one reason."""

    source: str
    reason: str
    messages: int = 0
    readings: int = 0
    topics: set[str] = field(default_factory=set)
    example: bytes = b""


SEVERITIES = ("none", "blue", "yellow", "orange", "red")
"""From mild to grave."""


class Play:
    """A gateway without broker, spool and servers, and what it made of a recording.

    Args:
        stream: The recording.
        config: The gateway's.

    Attributes:
        config: With a source of citygate's own JSON at the end, if the recording is a CSV and none has its topics.
        channels: Channels and sensors.
        messages: Played so far.
        raw_bytes: Of their topics and payloads.
        line_bytes: Of the line protocol that became of them.
        full_bytes: The same, compressed in full batches, as after an outage.
        counts: Source → readings by fate, as in the ledger.
        reports: Source → messages of sensors that could be read.
        heard: By sensor's number, the times of its reports, ms UTC.
        flags: int64[channel, flag], readings.
        low, high: float64[channel], least and greatest value that did not fail.
        buckets: float32[2, layer, channel, bucket], least and greatest value; NaN where there is none.
        outside: Readings whose time is outside the recording's.
        reasons: Reason → how often it was given.
        events: By channel and beginning.
        verdicts: Faults, in the order in which they were called.
        said: What verdicts said → how many.
        letters: Dead letters, alike ones together.

    Raises:
        KindError: If a file of kinds cannot be used.
        SourceError: If a source cannot be used as declared.
    """

    def __init__(self, stream: Stream, config: GatewayConfig) -> None:
        if stream.table and all(source.topic != TOPIC for source in config.source):
            names = {source.name for source in config.source}
            own = SourceConfig(name=next(name for name in ("recording", "rows", "table") if name not in names))
            config = config.model_copy(update={"source": (*config.source, own)})
        self.config = config
        self.stream = stream
        self.channels = Channels()
        self._decoder = Decoder.of(self.config, self.channels)
        self._redactor = Redactor(self._decoder.sources, self._decoder.kinds)
        self._filter = Filter(self.channels, Maintenance.of(self.config, self.channels))
        self.first, self.last = stream.first or 0, stream.last or 0
        self.messages = self.raw_bytes = self.line_bytes = self.full_bytes = self.outside = 0
        self._windows, self._window = 0, -inf  # that would be batches of a gateway, and the beginning of the last one
        self._sampled = np.zeros(2, np.int64)  # bytes of lines, and compressed in batches of that size
        self.counts: dict[str, Counter[str]] = {}
        self.reports: Counter[str] = Counter()
        self.heard: list[array[int]] = []
        self.flags = np.zeros((0, 10), np.int64)
        self.low, self.high = np.empty(0), np.empty(0)
        self.buckets = np.empty((2, len(LAYERS), 0, BUCKETS), np.float32)
        self.reasons: dict[Reason, Tally] = {}
        self.events: dict[tuple[int, int], Course] = {}
        self.verdicts: list[Verdict] = []
        self.said: Counter[str] = Counter()
        self.letters: dict[tuple[str, str], Letters] = {}

    def run(self, console: Console) -> None:
        """Plays all of it; shows how far it is where a terminal is."""
        columns = (SpinnerColumn(), TextColumn("Playing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("Playing", total=self.stream.messages)
            for batch in self._batches():
                self._redactor.redact(batch)
                self._judge(batch)
                if counted := self._redactor.tend(batch.received[-1]):
                    self._note_entry(counted)
                progress.advance(task, len(batch.topics))

    def name(self, channel: int) -> tuple[Sensor, str]:
        """Whose a channel is, and of which quantity."""
        sensor = self.channels.sensors[self.channels.owner[channel]]
        return sensor, self.channels.rules.all[self.channels.rule[channel]].quantity

    def unit(self, channel: int) -> str:
        """The unit of a channel's values; empty if its kind does not know the quantity."""
        limits = self.channels.rules.all[self.channels.rule[channel]].limits
        return limits.unit if limits else ""

    def _batches(self) -> Iterator[RawBatch]:
        most, window, batch = self.config.mqtt.batch_size, 1000 * self.config.mqtt.batch_time, RawBatch()
        for topic, payload, *_, wall, _, _ in self.stream:
            time = wall // 10**6
            if len(batch.topics) == most:
                yield batch
                batch = RawBatch()
            self.messages += 1
            if not 0 <= time - self._window < window:
                self._windows, self._window = self._windows + 1, time
            self.raw_bytes += len(topic.encode("utf-8", "surrogateescape")) + len(payload)
            batch.topics.append(topic)
            batch.payloads.append(payload)
            batch.received.append(time)
        if batch.topics:
            yield batch

    def _judge(self, batch: RawBatch) -> None:
        """As in the agent: a message that a step cannot bear is found by halving, and kept apart."""
        try:
            readings = self._decoder.decode(batch)
            try:
                findings = self._filter.judge(readings)
                entry = encode(readings, findings, self.channels, self.config.gateway.id)
                self._redactor.note(readings.sightings, batch.received[-1], entry)
            except Exception:
                self._filter.undo()
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the page tells it
            if len(batch.topics) > 1:
                for half in batch.halves():
                    self._judge(half)
                return
            reason, payload = f"cannot be processed: {type(error).__name__}", batch.payloads[0]
            letter = DeadLetter(
                batch.received[0], UNMATCHED, batch.topics[0], b"" if batch.personal else payload, reason
            )
            self._note_entry(Entry(counts={UNMATCHED: {"received": 1, "dead": 1}}, dead=[letter]))
            return
        self._decoder.remember(entry.keys)
        self._note_entry(entry)
        self._note_readings(readings)
        self._note_findings(findings)

    @property
    def sent_bytes(self) -> int:
        """The line protocol, compressed in batches of the messages that came together, as it is sent every day."""
        lines, packed = self._sampled.tolist()
        return round(self.line_bytes * packed / lines) if lines else 0

    def _sample(self, text: bytes) -> None:
        together = max(1, round(self.messages / max(1, self._windows)))
        lines = text.split(b"\n", _SAMPLED)[:_SAMPLED]
        for start in range(0, len(lines), together):
            packed = pack(b"\n".join(lines[start : start + together]))
            self._sampled += packed.raw_bytes, len(packed.body)

    def _note_entry(self, entry: Entry) -> None:
        for text in (entry.lines, entry.quarantine, entry.events):
            if text:
                packed = pack(text)
                self.line_bytes += packed.raw_bytes
                self.full_bytes += len(packed.body)
                self._sample(text)
        for source, counts in entry.counts.items():
            self.counts.setdefault(source, Counter()).update(counts)
        for letter in entry.dead:
            key = letter.source, letter.reason
            if key not in self.letters and len(self.letters) >= _KEPT:
                key = letter.source, "further reasons"
            alike = self.letters.setdefault(key, Letters(*key))
            alike.messages += 1
            alike.readings += letter.readings
            if not alike.topics:
                alike.example = letter.payload[:_PAYLOAD]
            if len(alike.topics) < EXAMPLES:
                alike.topics.add(letter.topic)

    def _note_readings(self, readings: Readings) -> None:
        self._widen()
        for sensor, time in zip(readings.sensors, readings.times.tolist(), strict=True):
            self.reports[sensor.family.source] += 1
            self.heard[sensor.number].append(time)
        channel, flag, value, time = readings.channel, readings.flag, readings.value, readings.time
        np.add.at(self.flags, (channel, flag), 1)
        sound = ((flag == GOOD) | (flag == UNKNOWN) | (flag == SUSPECT)) & np.isfinite(value)
        np.minimum.at(self.low, channel[sound], value[sound])
        np.maximum.at(self.high, channel[sound], value[sound])
        bucket = (time - self.first) * BUCKETS // max(1, self.last - self.first + 1)
        inside = (bucket >= -1) & (bucket <= BUCKETS)  # what was measured just before the first message, too
        bucket = bucket.clip(0, BUCKETS - 1)
        self.outside += int((~inside & (flag > 0)).sum())
        inside &= (channel < self.buckets.shape[2]) & np.isfinite(value)
        for layer, flags in enumerate(LAYERS):
            drawn = inside & np.isin(flag, flags)
            place = channel[drawn], bucket[drawn]
            np.fmin.at(self.buckets[0, layer], place, value[drawn].astype(np.float32))
            np.fmax.at(self.buckets[1, layer], place, value[drawn].astype(np.float32))
        given = int(np.bitwise_or.reduce(readings.reason)) if len(readings.reason) else 0
        for reason in Reason:
            if given & reason:
                self._note_reason(reason, readings)

    def _note_reason(self, reason: Reason, readings: Readings) -> None:
        tally = self.reasons.setdefault(reason, Tally())
        place = np.flatnonzero((readings.reason & reason.value) != 0)
        for flag, count in enumerate(np.bincount(readings.flag[place]).tolist()):
            tally.flags[flag] += count
        channels, first = np.unique(readings.channel[place], return_index=True)
        for channel, at in zip(channels.tolist(), place[first].tolist(), strict=True):
            if channel not in tally.channels and len(tally.examples) < EXAMPLES:
                example = Example(channel, int(readings.time[at]), float(readings.value[at]), int(readings.flag[at]))
                tally.examples.append(example)
            tally.channels.add(channel)

    def _note_findings(self, findings: Findings) -> None:
        for event in findings.events:
            key = event.channel, event.since
            if (course := self.events.get(key)) is None:
                if event.severity != "none" and len(self.events) < _KEPT:
                    self.events[key] = Course(
                        event.channel, event.since, None, event.severity, event.value, event.limit
                    )
            elif event.severity == "none":
                course.until = event.time
            else:
                course.until = None
                if SEVERITIES.index(event.severity) >= SEVERITIES.index(course.severity):
                    course.severity, course.value, course.limit = event.severity, event.value, event.limit
        for verdict in findings.verdicts:
            self.said[verdict.what.name.lower()] += 1
            fault = verdict.what not in {What.NOTHING, What.EVENT, What.UNDECIDED}
            if fault and len(self.verdicts) < _KEPT:
                self.verdicts.append(verdict)

    def _widen(self) -> None:
        """Makes room for channels and sensors that are new."""
        while len(self.heard) < len(self.channels.sensors):
            self.heard.append(array("q"))
        count, have = len(self.channels), len(self.flags)
        if count <= have:
            return
        more = max(count, have + have // 2) - have
        self.flags = np.vstack([self.flags, np.zeros((more, 10), np.int64)])
        self.low, self.high = np.append(self.low, np.full(more, inf)), np.append(self.high, np.full(more, -inf))
        drawn = min(CHARTED, have + more) - self.buckets.shape[2]
        if drawn > 0:
            blank = np.full((2, len(LAYERS), drawn, BUCKETS), np.nan, np.float32)
            self.buckets = np.concatenate([self.buckets, blank], axis=2)
