"""Decode: topics and payloads to columns of readings, by the declared sources.

What cannot be read becomes a dead letter with its reason and its bytes; it never stops the stream. A message whose
bytes were seen on the same topic a moment ago, with a time of its own, is a redelivery and is counted as a duplicate.
"""

import difflib
import math
import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import DeadLetter, RawBatch
from gateway.edge.inspect import Reason
from gateway.edge.readings import Channels, Ints, Readings, Sensor, Shape
from gateway.edge.units import UnitError, conversion
from sensors.formats.json import Json, PayloadError, Sample
from sensors.kinds import Kind

UNMATCHED = "unmatched"
"""The source, on the ledger, of messages whose topic no source declares."""
_REMEMBERED = 16384  # messages a generation; two generations outlast any window of unacknowledged messages
_MOST_TOPICS = 100_000
_IDENTIFIER = re.compile(r"[\w.-]{1,64}")
_QUANTITY = re.compile(r"(?!time$)[^\W\d][\w.-]{0,63}(?<!_qc)")
_DAY = 86_400_000  # ms
_LATEST = 9_223_372_036_854  # 2262-04-11, ms; the last that InfluxDB can store
_TIME_SCALES = ((1e11, 1e3), (1e14, 1.0), (1e17, 1e-3), (math.inf, 1e-6))  # below: s, ms, µs, ns


class SourceError(Exception):
    """A source cannot be used as declared; the message names source and key."""


class Source:
    """A declared family of topics."""

    def __init__(self, config: SourceConfig, kinds: Mapping[str, Kind]) -> None:
        self.config = config
        self.format = Json(config.time, config.rename)
        levels = [_level(level) for level in config.topic.split("/")]
        self.filter = "/".join(
            "#" if level == "#" else "+" if level.startswith("{") else level for level in config.topic.split("/")
        )
        self.pattern = re.compile("/".join(levels).replace("/.*", "(?:/.*)?"), re.DOTALL)
        if config.kind is not None and config.kind not in kinds:
            msg = f"source '{config.name}': {_unknown_kind(config.kind, kinds)}"
            raise SourceError(msg)


def _level(level: str) -> str:
    if match := re.fullmatch(r"\{(site|kind|sensor)\}", level):
        return f"(?P<{match[1]}>[^/]+)"
    return {"+": "[^/]+", "#": ".*"}.get(level, re.escape(level))


def _unknown_kind(kind: str, kinds: Mapping[str, Kind]) -> str:
    near = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(kinds))}."
    return f"unknown kind '{kind}'; {hint} A new kind is a file {kind}.toml in gateway.kinds_dir"


class Decoder:
    """Turns raw messages into readings.

    Args:
        sources: Declared sources, the first that matches a topic wins.
        kinds: Kinds by name.
        gateway: The gateway's name, for the tags.
        channels: Where new channels are entered.

    Raises:
        SourceError: If a source names an unknown kind, or a unit that cannot be converted.
    """

    def __init__(
        self, sources: Sequence[SourceConfig], kinds: Mapping[str, Kind], gateway: str, channels: Channels
    ) -> None:
        self.sources = [Source(config, kinds) for config in sources]
        self._kinds = kinds
        self._gateway = gateway
        self._channels = channels
        self._topics: dict[str, tuple[Source, Sensor] | str] = {}
        self._sensors: dict[tuple[str, ...], Sensor] = {}
        self._conversions: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        for source in self.sources:
            for kind in [source.config.kind] if source.config.kind else kinds:
                self._conversions[source.config.name, kind] = _conversions(source.config, kinds[kind])
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()

    @property
    def sensors(self) -> int:
        """Number of sensors seen."""
        return len(self._sensors)

    def decode(self, batch: RawBatch) -> Readings:  # noqa: C901, PLR0915 - the hot loop stays in one piece
        """Reads a batch; every message ends as readings, as a duplicate, or as dead letters."""
        sensors: list[Sensor] = []
        shapes: list[Shape] = []
        times: list[float] = []
        received: list[int] = []
        counts: list[int] = []
        channels: list[int] = []
        values: list[float] = []
        duplicates: dict[str, int] = {}
        dead: list[DeadLetter] = []
        topics, seen, seen_before = self._topics, self._seen, self._seen_before
        for topic, payload, arrival in zip(batch.topics, batch.payloads, batch.received, strict=True):
            if (found := topics.get(topic)) is None:
                found = self._find(topic)
            if isinstance(found, str):
                dead.append(DeadLetter(arrival, UNMATCHED, topic, payload, found))
                continue
            source, sensor = found
            try:
                sample = source.format.decode(payload)
            except PayloadError as error:
                dead.append(DeadLetter(arrival, source.config.name, topic, payload, str(error)))
                continue
            time, fields, problems = sample
            observed = -1.0 if source.config.time else float(arrival)
            if time == time:  # noqa: PLR0124 - not NaN: the message has a time of its own
                key = hash(topic) ^ hash(payload)
                if key in seen or key in seen_before:
                    duplicates[source.config.name] = duplicates.get(source.config.name, 0) + (len(fields) or 1)
                    continue
                if (ms := _milliseconds(time)) is None:
                    reason = f"{source.config.time}: the time {time!r} is outside 1970..2262"
                    dead.append(DeadLetter(arrival, source.config.name, topic, payload, reason))
                    continue
                observed = ms
                seen.add(key)
            if (shape := sensor.shapes.get(tuple(fields))) is None or problems:
                shape, fields, reasons = self._shape(sensor, sample)
                dead += [DeadLetter(arrival, source.config.name, topic, payload, reason) for reason in reasons]
            if not fields:
                if not sample.values and not problems:
                    dead.append(DeadLetter(arrival, source.config.name, topic, payload, "no quantity in the payload"))
                continue
            times.append(observed)
            sensors.append(sensor)
            shapes.append(shape)
            received.append(arrival)
            counts.append(len(fields))
            channels += shape.channels
            values += fields.values()
        if len(seen) > _REMEMBERED:
            self._seen, self._seen_before = set(), seen
        return self._columns(sensors, shapes, times, received, counts, channels, values, duplicates, dead)

    def _columns(  # noqa: PLR0913, PLR0917 - the columns themselves
        self,
        sensors: list[Sensor],
        shapes: list[Shape],
        times: list[float],
        received: list[int],
        counts: list[int],
        channels: list[int],
        values: list[float],
        duplicates: dict[str, int],
        dead: list[DeadLetter],
    ) -> Readings:
        channel = np.array(channels, np.int64)
        value = np.array(values, np.float64)
        if self._channels.converts:
            with np.errstate(over="ignore"):
                value = value * self._channels.factor[channel] + self._channels.offset[channel]
            np.clip(value, -sys.float_info.max, sys.float_info.max, out=value)  # line protocol has no infinity
        sent = np.array(times, np.float64).astype(np.int64)
        arrived = np.array(received, np.int64)
        untimed = sent < 0
        count = np.array(counts, np.int64)
        observed: Ints = np.where(untimed, arrived, sent)
        reason = untimed * Reason.NO_TIME.value | (observed > arrived + _DAY) * Reason.FUTURE.value
        return Readings(
            sensors=sensors,
            shapes=shapes,
            times=observed,
            starts=np.cumsum(count) - count,
            channel=channel,
            time=np.repeat(observed, count),
            value=value,
            flag=np.zeros(len(value), np.uint8),
            reason=np.repeat(reason.astype(np.int64), count),
            duplicates=duplicates,
            dead=dead,
        )

    def _find(self, topic: str) -> tuple[Source, Sensor] | str:
        found: tuple[Source, Sensor] | str = "no declared source has a topic like this one"
        for source in self.sources:
            if (match := source.pattern.fullmatch(topic)) is not None:
                found = self._place(source, match.groupdict())
                break
        if len(self._topics) < _MOST_TOPICS:
            self._topics[topic] = found
        return found

    def _place(self, source: Source, levels: dict[str, str]) -> tuple[Source, Sensor] | str:
        config = source.config
        names = {key: levels.get(key) or getattr(config, key) for key in ("kind", "site", "sensor")}
        for key, name in names.items():
            if not _IDENTIFIER.fullmatch(name):
                return (
                    f"the {key} {name[:80]!r} in the topic may hold letters, digits, '.', '-' and '_' only, 64 at most"
                )
        kind, site, name = names["kind"], names["site"], names["sensor"]
        if kind not in self._kinds:
            return _unknown_kind(kind, self._kinds)
        identity = (config.name, kind, site, name)  # another source may convert other units
        if (sensor := self._sensors.get(identity)) is None:
            prefix = f"{kind},gateway={self._gateway},sensor={name},site={site}"
            sensor = Sensor(config.name, kind, site, name, prefix, self._conversions[config.name, kind])
            self._sensors[identity] = sensor
        return source, sensor

    def _shape(self, sensor: Sensor, sample: Sample) -> tuple[Shape, dict[str, float], list[str]]:
        problems = list(sample.problems)
        fields = {}
        for name, value in sample.values.items():
            if _QUANTITY.fullmatch(name):
                fields[name] = value
            else:
                problems.append(f"{name[:80]!r} is no name for a quantity")
        names = tuple(fields)
        if (shape := sensor.shapes.get(names)) is None:
            rules = self._kinds[sensor.kind].quantities
            indices = [self._channels.get(sensor, name, rules.get(name)).index for name in names]
            columns = ",".join(f"{name}=%r,{name}_qc=1i" for name in names)
            shape = Shape(names, indices, f"{sensor.prefix} {columns} %d")
            sensor.shapes[names] = shape
        return shape, fields, problems


def _milliseconds(time: float) -> float | None:
    if not time >= 0:
        return None
    for bound, scale in _TIME_SCALES:
        if time < bound:
            ms = round(time * scale)
            return ms if ms <= _LATEST else None
    return None


def _conversions(config: SourceConfig, kind: Kind) -> dict[str, tuple[float, float]]:
    conversions = {}
    for name, unit in config.units.items():
        if (quantity := kind.quantities.get(name)) is None:
            if config.kind is not None:
                msg = f"source '{config.name}': units.{name}: the kind '{kind.name}' has no such quantity"
                raise SourceError(msg)
            continue
        try:
            conversions[name] = conversion(unit, quantity.unit)
        except UnitError as error:
            msg = f"source '{config.name}': units.{name}: {error}"
            raise SourceError(msg) from error
    return conversions
