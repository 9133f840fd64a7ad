"""Decode: topics and payloads to columns of readings, by the declared sources.

What cannot be read becomes a dead letter with its reason and its bytes; it never stops the stream. A message that is
known already, by its topic and its bytes, is a duplicate if it has a time of its own, or if the broker says that it is
sent again. What is known is what :meth:`Decoder.remember` was told: a batch that is decoded in vain is not.
"""

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from itertools import chain, compress
from math import nan
from typing import Self

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.config import ClockConfig, DiscoverConfig, GatewayConfig, LimitsConfig, OverrideConfig, SourceConfig
from gateway.edge.batch import Boot, DeadLetter, Held, RawBatch
from gateway.edge.discover import Discoveries
from gateway.edge.keep import Known
from gateway.edge.limits import Flood
from gateway.edge.overrides import OverrideError, fitting, longest_gap, overridden, verify
from gateway.edge.readings import (
    NO_RULE,
    Channels,
    Family,
    Floats,
    Indices,
    Ints,
    Layout,
    Readings,
    Rule,
    Rules,
    Sensor,
)
from gateway.edge.reasons import Reason
from gateway.edge.redact import coarse, scrubbed, withheld, without_text
from gateway.edge.source import Source, SourceError, Topic, unknown_kind
from gateway.edge.units import AS_SENT, UnitError, condition, conversion
from sensors.discovery import HOLDING, UNDECLARED
from sensors.formats import Answer, Decoded, Format, PayloadError, Quality, Sample
from sensors.formats.json import plain
from sensors.formats.objects import printable
from sensors.kinds import Kind, Personal, known
from sensors.personal import ALWAYS, normal

UNMATCHED = "unmatched"
"""The source, on the ledger, of messages whose topic no source declares."""
_REMEMBERED = 16384  # messages a generation; two generations outlast any window of unacknowledged messages
_MOST_REFUSED = 1024  # topics; a flood of further ones is looked at anew
_MOST_SCATTERED = 16384
_MOST_REMARKS = 32  # of one source
_MOST_LETTERS = 8  # of one message, each of which holds the whole of it
_IDENTIFIER = re.compile(r"[\w.-]{1,64}")
_QUANTITY = re.compile(r"(?!time$)[^\W\d][\w.-]{0,63}(?<!_qc)(?<!_reason)")
FLOODING = "flooding"
"""How the reason begins of a dead letter that stands for others beside itself, which were not kept."""
_LATEST = 9_223_372_036_854  # 2262-04-11, ms; the last that InfluxDB can store
_UNTIMED, _IMPOSSIBLE = -1, -2  # in place of a time
_SCALE_BOUNDS = np.array([1e11, 1e14, 1e17])
_SCALES = np.array([1e3, 1.0, 1e-3, 1e-6])  # below the first bound: s; then ms, µs, ns
_log = logging.getLogger("citygate.decode")
_LIMITS, _CLOCK = LimitsConfig(), ClockConfig()


_SAID = {
    Quality.SUSPECT: Reason.SENDER_SUSPECT.value,
    Quality.OVER_RANGE: Reason.OVER_RANGE.value,
    Quality.BAD: Reason.SENDER_BAD.value,
}
"""What the sender says of a value → the reason."""


@dataclass(slots=True, frozen=True)
class _Remarks:
    """What a payload says of a row beside its values.

    Attributes:
        reasons: Quantity → bit set of ``Reason``.
        historical: Whether it must not become a live value.
        converted: Quantities that have the kind's unit already.
    """

    reasons: Mapping[str, int]
    historical: bool
    converted: frozenset[str]


@dataclass(slots=True)
class _Messages:
    """What the messages of a batch say, as far as it is still under way, in columns.

    A row is what one sensor says at one time. Most messages are one row; those of a message lie side by side.
    """

    places: list[int] = field(default_factory=list)
    sensors: list[Sensor] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    fields: list[dict[str, float]] = field(default_factory=list)
    problems: dict[int, tuple[str, Sequence[str]]] = field(default_factory=dict)  # by place: source, what is left out
    bare: list[tuple[int, Sensor, float]] = field(default_factory=list)  # place, sensor, time: nothing but personal
    remarks: dict[int, _Remarks] = field(default_factory=dict)  # by the identity of the row's fields
    keys: dict[int, str] = field(default_factory=dict)  # by place: by which the message is known, if not by its bytes
    answers: list[Answer] = field(default_factory=list)
    gone: dict[Sensor, int] = field(default_factory=dict)  # the place of the message that says so

    def add(self, place: int, sensor: Sensor, time: float, fields: dict[str, float]) -> None:
        """Adds a row of a sensor that is turned to its layout."""
        self.places.append(place)
        self.sensors.append(sensor)
        self.layouts.append(sensor.layout)
        self.firsts.append(sensor.first)
        self.times.append(time)
        self.fields.append(fields)

    def size(self, row: int) -> int:
        """How many readings a row stands for on the ledger."""
        return sum(value == value for value in self.fields[row].values())  # noqa: PLR0124 - not NaN

    def forget_problems(self, places: Iterable[int]) -> dict[str, int]:
        """Of messages that leave for another reason: what is left out of them is told no more.

        Returns:
            How many readings that is, by source.
        """
        left_out: dict[str, int] = {}
        for place in places:
            source, problems = self.problems.pop(place, ("", ()))
            if problems:
                left_out[source] = left_out.get(source, 0) + len(problems)
        return left_out

    def drop(self, rows: set[int]) -> None:
        """Takes rows out."""
        keep = [row not in rows for row in range(len(self.places))]
        for column in (self.places, self.sensors, self.layouts, self.firsts, self.times, self.fields):
            column[:] = compress(column, keep)  # type: ignore[arg-type]

    def first(self, row: int) -> bool:
        """Whether it is the first one of its message."""
        return not row or self.places[row - 1] != self.places[row]


class Decoder:
    """Turns raw messages into readings.

    Args:
        sources: Declared sources, the first that matches a topic wins.
        kinds: Kinds by name.
        gateway: The gateway's name, for the tags.
        channels: Where new channels are entered.
        limits: What no sender gets more of.
        clock: Which times are believed.
        overrides: Limits of some sensors in place of their kinds'.

    Attributes:
        sources: The sources.
        discoveries: Devices that nobody has declared.
        kinds: Kinds by name.
        future: Messages whose time was too far ahead.
        past: Messages whose time was before the earliest that is believed.
        refused_sensors: Messages of sensors that were one too many.
        loose_messages: Messages that were not as their standard says, though they were read.
        loose: Source → in what messages were not as their standard says, though they were read → how many.

    Raises:
        SourceError: If a source names an unknown kind, or a unit that cannot be converted, or an override what is not.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the sections of a configuration
        self,
        sources: Sequence[SourceConfig | DiscoverConfig],
        kinds: Mapping[str, Kind],
        gateway: str,
        channels: Channels,
        limits: LimitsConfig = _LIMITS,
        clock: ClockConfig = _CLOCK,
        overrides: Sequence[OverrideConfig] = (),
    ) -> None:
        try:
            verify(overrides, kinds)
        except OverrideError as error:
            raise SourceError(str(error)) from error
        self.sources = [Source(config, kinds) for config in sources]
        self.discoveries = Discoveries(kinds)
        self.future = self.past = self.refused_sensors = self.loose_messages = 0
        self.loose: dict[str, Counter[str]] = {}
        self.kinds = kinds = {**kinds, HOLDING: UNDECLARED}
        self._overrides = overrides
        self._gateway = gateway
        self._channels = channels
        self._limits = limits
        self._ahead = int(clock.ahead * 1000)
        self._earliest = int(datetime.combine(clock.earliest, time(), UTC).timestamp() * 1000)
        self._too_many = f"there are limits.sensors = {limits.sensors} sensors already"
        self._too_many_held = f"there are limits.holding = {limits.holding} undeclared devices already"
        self._binds = any(config.sender for config in sources)
        self._flood = Flood(limits.rate)
        self._topics: dict[str, Sensor | Topic] = {}
        self._refused: dict[str, tuple[str, str]] = {}  # topic → source on the ledger, and why
        self._families: dict[tuple[str, str], Family] = {}
        self._fitted: dict[tuple[str, str, tuple[int, ...]], Family] = {}  # by source, kind and overrides
        self._fitted_rules: dict[tuple[int, tuple[int, ...]], int] = {}  # by the kind's rule and overrides
        self._rules = [NO_RULE]
        for source in self.sources:
            for kind in source.kinds(kinds):
                of_kind = _rules(source.config, kinds[kind], source.format)
                places = {rule.quantity: place for place, rule in enumerate(of_kind, len(self._rules))}
                self._families[source.config.name, kind] = Family(source.config, kinds[kind], places, source.format)
                self._rules += of_kind
        channels.rules = Rules(self._rules.copy())
        self._scattered: list[list[int]] = []  # channels of layouts that do not lie side by side
        self._firsts: dict[tuple[int, tuple[str, ...]], int] = {}  # of second layouts, as Sensor.first
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()

    @classmethod
    def of(cls, config: GatewayConfig, channels: Channels) -> Self:
        """The decoder of a gateway.

        Raises:
            KindError: If a file of kinds cannot be used.
            SourceError: If a source, or an override, cannot be used as declared.
        """
        of_site = known(config.gateway.kinds_dir)
        sources: tuple[SourceConfig | DiscoverConfig, ...] = (*config.source, *config.discover)
        return cls(sources, of_site, config.gateway.id, channels, config.limits, config.clock, config.override)

    @property
    def sensors(self) -> int:
        """Number of sensors seen."""
        return len(self._channels.sensors)

    def enter(self, sensors: Iterable[Known]) -> list[list[int]]:
        """Enters sensors that were known in an earlier run, so that they have channels before they send.

        Returns:
            Of each sensor, the channels of *home* and *later*; -1 for those that the configuration has no place for.
        """
        entered = [self._enter_known(known) for known in sensors]
        self._renew_rules()
        return entered

    def remember(self, keys: Iterable[int]) -> None:
        """Makes messages known by their keys, oldest first; to be told of those that nothing keeps from the spool."""
        self._seen.update(keys)
        if len(self._seen) > _REMEMBERED:
            self._seen, self._seen_before = set(), self._seen

    def decode(self, batch: RawBatch) -> Readings:
        """Reads a batch; every message ends as readings, as held, as a duplicate, or as dead letters."""
        if len(self._firsts) > _MOST_SCATTERED:
            self._forget_layouts()
        if len(self._refused) > _MOST_REFUSED:
            self._refused.clear()
        dead: list[DeadLetter] = []
        messages, others = self._admit(batch, dead)
        if others:
            self._read_others(batch, others, messages, dead)
        self._renew_rules()
        times = _milliseconds(messages.times)
        keys = [self._key(batch, messages, place) for place in messages.places]

        leaving = self._impossible(batch, messages, times, dead)
        known = self._known(batch, messages, times, keys) - leaving
        leaving |= known
        duplicates = _duplicates(messages, known, leaving)
        accepted = keys if not leaving else [key for row, key in enumerate(keys) if row not in leaving]
        if others:
            accepted = [*dict.fromkeys([*accepted, *self._plain_keys(batch, messages, leaving)])]
        held = self._hold(batch, batch.boot, messages, times, leaving, dead)
        if leaving:
            messages.drop(leaving)
            times = np.delete(times, list(leaving))
        for place, (source, problems) in messages.problems.items():
            dead += self._letters(batch, place, source, problems)

        readings = self._columns(batch, messages, times)
        if batch.personal:
            self._sight(batch, messages, readings, accepted)
        readings.keys, readings.held, readings.duplicates, readings.dead = accepted, held, dict(duplicates), dead
        if others:
            self.discoveries.heard(readings)
        readings.answers = messages.answers
        readings.gone = [*messages.gone]
        return readings

    def _key(self, batch: RawBatch, messages: _Messages, place: int) -> int:
        """By which a message is known again."""
        if messages.keys and (named := messages.keys.get(place)) is not None:
            return xxh3_64_intdigest(named.encode("utf-8", "backslashreplace"))
        return self._plain_key(batch, place)

    def _plain_key(self, batch: RawBatch, place: int) -> int:
        key = xxh3_64_intdigest(batch.payloads[place], xxh3_64_intdigest(batch.topics[place].encode()))
        return self._salted(batch, place, key) if batch.personal else key

    def _plain_keys(self, batch: RawBatch, messages: _Messages, leaving: set[int]) -> Iterator[int]:
        """By which messages whose time is that of their arrival are known when the broker sends them again."""
        for row, (place, sensor) in enumerate(zip(messages.places, messages.sensors, strict=True)):
            if place in messages.keys and sensor.family.format.relative_times and row not in leaving:
                yield self._plain_key(batch, place)

    def _admit(self, batch: RawBatch, dead: list[DeadLetter]) -> tuple[_Messages, list[tuple[int, Topic]]]:
        """Finds the sensors, and reads what is plain. What is refused before it is read costs next to nothing.

        Returns:
            What was read; the places of the others, and what their topics say.
        """
        topics = self._topics
        found = [topics.get(topic) or self._find(topic) for topic in batch.topics]
        places: Sequence[int] = range(len(found))
        sensors = [sensor for sensor in found if type(sensor) is Sensor]
        others: list[tuple[int, Topic]] = []
        if len(sensors) < len(found):
            for place in [place for place, sensor in enumerate(found) if not sensor]:
                source, why = self._refused[batch.topics[place]]
                self.refused_sensors += why == self._too_many
                dead.append(self._letter(batch, place, source, why))
            places = [place for place, sensor in enumerate(found) if type(sensor) is Sensor]
            others = [(place, topic) for place, topic in enumerate(found) if type(topic) is Topic]
        if sensors:
            places, sensors = self._admit_sensors(batch, places, sensors, dead)
        return self._read(batch, places, sensors, dead), others

    def _admit_sensors(
        self, batch: RawBatch, places: Sequence[int], sensors: list[Sensor], dead: list[DeadLetter]
    ) -> tuple[Sequence[int], list[Sensor]]:
        refused = self._flooding(batch, places, sensors, dead)
        for row, (place, sensor) in enumerate(zip(places, sensors, strict=True)) if self._scrutinise(batch) else ():
            if row not in refused and (
                objection := self._too_large(batch, place) or self._unauthorised(batch, place, sensor)
            ):
                refused.add(row)
                dead.append(self._letter(batch, place, sensor.family.source, objection))
        if refused:
            rows = [row for row in range(len(places)) if row not in refused]
            return [places[row] for row in rows], [sensors[row] for row in rows]
        return places, sensors

    def _flooding(
        self, batch: RawBatch, places: Sequence[int], sensors: Sequence[Sensor], dead: list[DeadLetter]
    ) -> set[int]:
        """Which of some messages are too many of their sensors; the first one of each is kept as a dead letter."""
        refused: set[int] = set()
        first: dict[Sensor, DeadLetter] = {}
        for row in self._flood.excess([sensor.number for sensor in sensors], self.sensors, batch.received[-1]):
            refused.add(row)
            if (letter := first.get(sensors[row])) is None:
                rate = f"limits.rate = {self._limits.rate:g} messages a second"
                reason = f"{FLOODING}, at more than {rate}; the first left out"
                first[sensors[row]] = self._letter(batch, places[row], sensors[row].family.source, reason)
            else:
                letter.readings += 1
        dead += first.values()
        return refused

    def _scrutinise(self, batch: RawBatch) -> bool:
        return self._binds or max(map(len, batch.payloads)) > self._limits.payload

    def _too_large(self, batch: RawBatch, place: int) -> str | None:
        if (size := len(batch.payloads[place])) > self._limits.payload:
            return (
                f"the payload has {size} bytes, more than limits.payload = {self._limits.payload}; the rest is cut off"
            )
        return None

    @staticmethod
    def _unauthorised(batch: RawBatch, place: int, sensor: Sensor) -> str | None:
        if sensor.family.bound and (sender := batch.senders.get(place)) != sensor.name:
            named = "names no sender" if sender is None else f"names the sender {sender[:80]!r}"
            return f"the broker {named}, the message the sensor {sensor.name!r}"
        return None

    def _letter(self, batch: RawBatch, place: int, source: str, reason: str) -> DeadLetter:
        payload = batch.payloads[place]
        if (taken := batch.personal.get(place)) and taken.sealed:
            reason, payload = scrubbed(reason, payload, taken.known), withheld(payload)
        payload = payload[: self._limits.payload]
        return DeadLetter(batch.received[place], source, batch.topics[place], payload, reason)

    def _letters(self, batch: RawBatch, place: int, source: str, reasons: Sequence[str]) -> list[DeadLetter]:
        """A dead letter of each reason, but no more than fit on any disk: the last counts for the rest."""
        letters = [self._letter(batch, place, source, reason) for reason in reasons[:_MOST_LETTERS]]
        if (more := len(reasons) - _MOST_LETTERS) > 0:
            letters[-1].reason += f"; and {more} more"
            letters[-1].readings += more
        return letters

    def _read(self, batch: RawBatch, places: Sequence[int], sensors: list[Sensor], dead: list[DeadLetter]) -> _Messages:
        messages = _Messages()
        all_payloads = len(places) == len(batch.payloads)
        payloads = batch.payloads if all_payloads else [batch.payloads[place] for place in places]
        for place, sensor, plainly in zip(places, sensors, plain(payloads), strict=True):
            form, observed = sensor.family.format, nan
            problems: tuple[str, ...] = ()
            if (fields := plainly) is None:
                try:
                    sample = form.decode(batch.topics[place], batch.payloads[place], batch.received[place]).samples[0]
                except PayloadError as error:
                    dead.append(self._letter(batch, place, sensor.family.source, str(error)))
                    continue
                observed, fields, problems = sample.time, sample.values, sample.problems
                fields = _coarse(fields, self.kinds[sensor.family.kind].personal)
            else:
                if form.time is not None:
                    observed = fields.pop(form.time, nan)
                if form.rename:
                    fields = {form.rename.get(name, name): value for name, value in fields.items()}
            if problems or tuple(fields) != sensor.names:
                problems = (*problems, *self._lay_out(sensor, fields))
                if not (fields or problems) and place in batch.personal:
                    messages.bare.append((place, sensor, observed))
                    continue
                if not fields:
                    reasons = problems or ("no quantity in the payload",)
                    dead += self._letters(batch, place, sensor.family.source, reasons)
                    continue
                if problems:
                    messages.problems[place] = (sensor.family.source, problems)
            messages.places.append(place)
            messages.sensors.append(sensor)
            messages.layouts.append(sensor.layout)
            messages.firsts.append(sensor.first)
            messages.times.append(observed)
            messages.fields.append(fields)
        return messages

    def _read_others(
        self, batch: RawBatch, others: Sequence[tuple[int, Topic]], messages: _Messages, dead: list[DeadLetter]
    ) -> None:
        """Reads the messages that may say more than what one sensor measures at one time."""
        plain = len(messages.places)
        for place, topic in others:
            source = topic.source.config.name
            if objection := self._too_large(batch, place):
                dead.append(self._letter(batch, place, source, objection))
                continue
            try:
                decoded = topic.source.format.decode(batch.topics[place], batch.payloads[place], batch.received[place])
            except PayloadError as error:
                dead.append(self._letter(batch, place, source, str(error)))
                continue
            if decoded.loose:
                self._note_loose(source, decoded.loose)
            before, bare = len(messages.places), len(messages.bare)
            problems = self._take(batch, place, topic, decoded, messages)
            if problems and len(messages.places) > before:
                messages.problems[place] = (source, problems)
            else:
                dead += self._letters(batch, place, source, problems)
            if decoded.key is not None and len(messages.places) + len(messages.bare) > before + bare:
                messages.keys[place] = f"{source}\0{decoded.key}"
        heads = [row for row in range(plain, len(messages.places)) if messages.first(row)]
        if heads:
            places, sensors = [messages.places[row] for row in heads], [messages.sensors[row] for row in heads]
            if flooding := {places[number] for number in self._flooding(batch, places, sensors, dead)}:
                messages.drop({row for row in range(plain, len(messages.places)) if messages.places[row] in flooding})
                messages.forget_problems(flooding)
        if messages.gone:
            last = dict(zip(messages.sensors, messages.places, strict=True))
            messages.gone = {its: place for its, place in messages.gone.items() if last.get(its, -1) <= place}

    def _note_loose(self, source: str, remarks: Iterable[str]) -> None:
        self.loose_messages += 1
        counts = self.loose.setdefault(source, Counter())
        for remark in remarks:
            if remark not in counts:
                if len(counts) >= _MOST_REMARKS:
                    continue
                _log.info("source %s: read all the same, though not as the standard says: %s", source, remark)
            counts[remark] += 1

    def _take(self, batch: RawBatch, place: int, topic: Topic, decoded: Decoded, messages: _Messages) -> list[str]:
        """Takes the samples of a message; says what is left out of them."""
        left_out: list[str] = []
        for sample in decoded.samples:
            if sample.gone:
                if (known := self._known_sensor(topic, sample.sensor)) is not None:
                    messages.gone[known] = place
                continue
            sensor = self._sensor(topic, sample.sensor)
            objection = sensor if isinstance(sensor, str) else self._unauthorised(batch, place, sensor)
            if isinstance(sensor, str) or objection is not None:
                self.refused_sensors += objection == self._too_many
                left_out += [str(objection)] * max(len(sample.values), 1)
            else:
                left_out += self._take_sample(batch, place, sensor, sample, messages)
        if decoded.announced:
            self.discoveries.announce(decoded.announced)
        if not (batch.again or batch.held):  # else the sender was answered when it came
            messages.answers += decoded.answers
        return left_out

    def _take_sample(
        self, batch: RawBatch, place: int, sensor: Sensor, sample: Sample, messages: _Messages
    ) -> list[str]:
        problems = [*sample.problems]
        fields = _coarse({**sample.values}, self.kinds[sensor.family.kind].personal)
        remarks = self._remarks(sample, sensor, fields, problems) if _says_more(sample) else None
        if tuple(fields) != sensor.names:
            problems += self._lay_out(sensor, fields)
        if fields:
            messages.add(place, sensor, sample.time, fields)
            if remarks is not None:
                messages.remarks[id(fields)] = remarks
        elif not problems and place in batch.personal:
            messages.bare.append((place, sensor, sample.time))
        elif not problems:
            problems.append("no quantity in the payload")
        return problems

    def _remarks(self, sample: Sample, sensor: Sensor, fields: dict[str, float], problems: list[str]) -> _Remarks:
        """What a sample says beside its values, of which those with a unit of their own get that of the kind."""
        rules, converted = sensor.family.rules, set()
        for name, unit in sample.units.items():
            limits = self._rules[rules.get(name, 0)].limits
            if limits is None or name not in fields:
                continue
            try:
                how = conversion(unit, limits.unit, limits.molar_mass, sensor.family.gas_at)
            except UnitError as error:
                problems.append(f"{name}: {error}")
                del fields[name]
            else:
                fields[name] = how.of(fields[name])
                converted.add(name)
        reasons = {name: _SAID[quality] for name, quality in sample.quality.items()}
        return _Remarks(reasons, sample.historical, frozenset(converted))

    def _sensor(self, topic: Topic, named: str | None) -> Sensor | str:
        """The sensor that a payload names, or why there is none."""
        if (known := topic.sensors.get(named)) is not None:
            return known
        names = topic.source.names(topic.levels, named)
        if isinstance(names, str):
            return names
        found = self._place(topic.source, names)
        if not isinstance(found, Sensor):
            return found[1]
        called = topic.levels.get("sensor", found.name) if named is None else named
        if (other := topic.source.called.setdefault(found.prefix, called)) != called:
            both = f"{printable(called)!r} and {printable(other)!r} would both be the sensor {found.name!r}"
            return f"{both}; give each a name of its own in a file of devices (source.devices)"
        if names["kind"] == HOLDING:
            self.discoveries.appeared(found, topic, called)
        if len(topic.sensors) >= self._limits.sensors:
            topic.sensors.clear()
        topic.sensors[named] = found
        return found

    def _known_sensor(self, topic: Topic, named: str | None) -> Sensor | None:
        """The same, if it was heard of before."""
        names = topic.source.names(topic.levels, named)
        return None if isinstance(names, str) else topic.source.sensors.get(self._prefix(names))

    def _impossible(self, batch: RawBatch, messages: _Messages, times: Ints, dead: list[DeadLetter]) -> set[int]:
        """Rows of messages whose own time cannot be stored; they are dead letters."""
        rows = set(np.flatnonzero(times == _IMPOSSIBLE).tolist())
        for row in rows:
            family = messages.sensors[row].family
            reason = f"{family.format.time or 'time'}: the time {messages.times[row]!r} is outside 1970..2262"
            dead.append(self._letter(batch, messages.places[row], family.source, reason))
        return rows

    def _known(self, batch: RawBatch, messages: _Messages, times: Ints, keys: list[int]) -> set[int]:
        """Rows of messages that are no new ones."""
        timed = times >= 0
        rows = set()
        if batch.retained:  # without a time of its own there is no telling of when it is
            rows = {row for row, place in enumerate(messages.places) if place in batch.retained and not timed[row]}
        met: set[int] = set(keys)
        again = batch.redelivered.intersection(messages.keys)
        new = batch.again or batch.held  # what was read in part, or waits, is known and no duplicate
        seen, seen_before = (set[int](), set[int]()) if new else (self._seen, self._seen_before)
        if not again and len(met) == len(keys) and met.isdisjoint(seen) and met.isdisjoint(seen_before):
            return rows
        met.clear()
        known, last = False, -1
        for row, (place, key) in enumerate(zip(messages.places, keys, strict=True)):
            if place != last:
                known, last = key in met or key in seen or key in seen_before, place
                if not known and place in again:
                    sent_before = self._plain_key(batch, place)
                    known = sent_before in seen or sent_before in seen_before
                met.add(key)
            if known and (timed[row] or place in batch.redelivered or place in messages.keys):
                rows.add(row)
        return rows

    def _hold(  # noqa: PLR0913, PLR0917 - what a batch is made of
        self,
        batch: RawBatch,
        boot: Boot | None,
        messages: _Messages,
        times: Ints,
        leaving: set[int],
        dead: list[DeadLetter],
    ) -> list[Held]:
        """Messages that wait for the clock, without text that may be personal; they leave the batch."""
        if boot is None:
            return []
        waiting: dict[int, list[int]] = {}
        for row in np.flatnonzero(times == _UNTIMED).tolist():
            waiting.setdefault(messages.places[row], [])
        for row, (place, sensor) in enumerate(zip(messages.places, messages.sensors, strict=True)):
            if row not in leaving and (place in waiting or sensor.family.format.relative_times):
                waiting.setdefault(place, []).append(row)
        held = []
        for place, rows in waiting.items():
            if not rows:
                continue
            leaving.update(rows)
            source = messages.sensors[rows[0]].family.source
            readings = sum(map(messages.size, rows)) + sum(messages.forget_problems([place]).values())
            if (taken := batch.personal.get(place)) and not taken.readable:
                reason = "cannot wait for the clock: what is personal in it cannot be told from the rest"
                letter = self._letter(batch, place, source, reason)
                letter.readings = readings
                dead.append(letter)
                continue
            moment = batch.received[place] - boot.offset
            payload = batch.payloads[place]
            if taken and taken.sealed:
                payload = without_text(payload, taken.own)
            held.append(Held(source, batch.topics[place], payload, readings, boot.id, moment, boot.floor))
        return held

    @staticmethod
    def _salted(batch: RawBatch, place: int, key: int) -> int:
        """A key that tells a message from one in which another person is meant, and tells nobody which."""
        taken = batch.personal.get(place)
        return key ^ taken.salt if taken else key

    def _sight(self, batch: RawBatch, messages: _Messages, readings: Readings, accepted: list[int]) -> None:
        """Says of which sensors, and when, something personal was taken out."""
        last = -1
        for place, sensor, moment in zip(messages.places, messages.sensors, readings.times.tolist(), strict=True):
            if place != last and (taken := batch.personal.get(place)):
                readings.sightings.append((sensor, moment, taken))
            last = place
        times = _milliseconds([observed for _, _, observed in messages.bare]).tolist()
        for (place, sensor, _), moment in zip(messages.bare, times, strict=True):
            key = self._key(batch, messages, place)
            met = key in self._seen or key in self._seen_before or key in accepted
            if moment == _IMPOSSIBLE or (met and (moment >= 0 or place in batch.redelivered)):
                continue
            accepted.append(key)
            if moment >= 0 or batch.boot is None:
                readings.sightings.append(
                    (sensor, moment if moment >= 0 else batch.received[place], batch.personal[place])
                )

    def _columns(self, batch: RawBatch, messages: _Messages, times: Ints) -> Readings:
        reason = self._dated(batch, messages, times)
        self._flood.note([sensor.number for sensor in messages.sensors], times)

        count = np.fromiter(map(len, messages.fields), np.int64, len(messages.fields))
        starts = np.cumsum(count) - count
        values = int(count.sum())
        first = np.array(messages.firsts, np.int64)
        channel = np.repeat(first - starts, count) + np.arange(values)
        for row in np.flatnonzero(first < 0).tolist():
            channel[starts[row] : starts[row] + count[row]] = self._scattered[-1 - messages.firsts[row]]
        rule = self._channels.rule[channel]
        value = np.fromiter(chain.from_iterable(fields.values() for fields in messages.fields), np.float64, values)
        sent, reason = value, np.repeat(reason, count)
        if self._channels.rules.converts:
            with np.errstate(over="ignore"):
                rules = self._channels.rules
                value = (value * rules.times[rule] + rules.plus[rule]) / rules.over[rule]
        if messages.remarks:
            _remark(messages, starts, reason, value, sent)
        if self._channels.rules.converts or messages.remarks:
            np.clip(value, -sys.float_info.max, sys.float_info.max, out=value)  # line protocol has no infinity
        return Readings(
            sensors=messages.sensors,
            layouts=messages.layouts,
            times=times,
            starts=starts,
            channel=channel,
            rule=rule,
            time=np.repeat(times, count),
            value=value,
            flag=np.zeros(values, np.uint8),
            reason=reason,
        )

    def _dated(self, batch: RawBatch, messages: _Messages, times: Ints) -> Indices:
        """Gives a time, in place, to each row that has none; says of each what is to be said of its time."""
        received = np.array([batch.received[place] for place in messages.places], np.int64)
        reason = np.zeros(len(times), np.int32)
        for row in np.flatnonzero(times == _UNTIMED).tolist():
            sensor = messages.sensors[row]
            times[row] = sensor.arrive(int(received[row]))
            reason[row] = 0 if sensor.family.format.time is None else Reason.NO_TIME.value
            if batch.estimated:
                reason[row] |= Reason.CLOCK.value
        if batch.estimated:
            relative = [sensor.family.format.relative_times for sensor in messages.sensors]
            reason[np.array(relative, np.bool_)] |= Reason.CLOCK.value
        if batch.boot is None:
            future = times > received + self._ahead
            reason[future] |= Reason.FUTURE.value
            self.future += int(future.sum())
        past = times < self._earliest
        reason[past] |= Reason.PAST.value
        self.past += int(past.sum())
        return reason

    def _find(self, topic: str) -> Sensor | Topic | None:
        """What a topic says that was not seen lately; if it is refused, the reason is in ``_refused``."""
        if topic in self._refused:
            return None
        found: Sensor | Topic | tuple[str, str] = (UNMATCHED, "no declared source has a topic like this one")
        for source in self.sources:
            if (match := source.pattern.fullmatch(topic)) is not None:
                found = self._read_topic(source, topic, match.groupdict())
                break
        if isinstance(found, tuple):
            self._refused[topic] = found
            return None
        if len(self._topics) >= 2 * self._limits.sensors:  # a source may have many topics of one sensor
            self._topics.clear()
        self._topics[topic] = found
        return found

    def _read_topic(self, source: Source, topic: str, levels: Mapping[str, str]) -> Sensor | Topic | tuple[str, str]:
        if not source.plain:
            return Topic(source, topic, levels)
        names = source.names(levels)
        return (UNMATCHED, names) if isinstance(names, str) else self._place(source, names)

    def _place(self, source: Source, names: Mapping[str, str]) -> Sensor | tuple[str, str]:
        """The sensor of these names; or a source on the ledger, and why there is none."""
        config = source.config
        for key in ("kind", "site", "sensor"):
            if not _IDENTIFIER.fullmatch(names[key]):
                return UNMATCHED, (
                    f"the {key} {names[key][:80]!r} may hold letters, digits, '.', '-' and '_' only, 64 at most"
                )
        kind, site, name = names["kind"], names["site"], names["sensor"]
        if (family := self._families.get((config.name, kind))) is None:
            return UNMATCHED, unknown_kind(kind, tuple(name for name in self.kinds if name != HOLDING))
        prefix = self._prefix(names)
        if (sensor := source.sensors.get(prefix)) is None:
            if self.sensors >= self._limits.sensors:
                return config.name, self._too_many
            if kind == HOLDING and len(self.discoveries) >= self._limits.holding:
                return config.name, self._too_many_held
            family = self._with_overrides(config.name, family, site, name)
            sensor = Sensor(family, sys.intern(site), name, prefix, self.sensors)
            source.sensors[prefix] = sensor
            self._channels.sensors.append(sensor)
        return sensor

    def _prefix(self, names: Mapping[str, str]) -> str:
        return f"{names['kind']},gateway={self._gateway},sensor={names['sensor']},site={names['site']}"

    def _enter_known(self, known: Known) -> list[int]:
        quantities = (*known.home, *known.later)
        levels = {"kind": known.kind, "site": known.site, "sensor": known.sensor}
        source = next((source for source in self.sources if source.config.name == known.source), None)
        sensor = self._place(source, levels) if source and source.can_name(levels) else None
        if not isinstance(sensor, Sensor):
            return [-1] * len(quantities)
        for some in (known.home, quantities):  # first those that make its layout
            names = [name for name in some if name in sensor.family.rules or name in known.foreign]
            self._enter(sensor, tuple(names))
        own = {*sensor.home.names, *(sensor.channels or {})}
        return [sensor.channel(name) if name in own else -1 for name in quantities]

    def _renew_rules(self) -> None:
        if len(self._rules) > len(self._channels.rules.all):
            self._channels.rules = Rules(self._rules.copy())

    def _with_overrides(self, source: str, family: Family, site: str, sensor: str) -> Family:
        """The family of the sensors that share a sensor's limits."""
        places = fitting(self._overrides, site, sensor, family.kind)
        if not places:
            return family
        if (fitted := self._fitted.get((source, family.kind, places))) is None:
            kind = self.kinds[family.kind]
            rules = {name: self._with_limits(kind, rule, places) for name, rule in family.rules.items()}
            fitted = self._fitted[source, family.kind, places] = family.with_rules(rules)
        return fitted

    def _with_limits(self, kind: Kind, place: int, places: tuple[int, ...]) -> int:
        """The place of a rule after overrides; no distinct limits are kept twice."""
        rule = self._rules[place]
        some = tuple(number for number in places if self._overrides[number].quantity in {None, rule.quantity})
        if not some or rule.limits is None:
            return place
        if (place, some) not in self._fitted_rules:
            overrides = [self._overrides[number] for number in some]
            limits = overridden(rule.quantity, rule.limits, overrides)
            self._fitted_rules[place, some] = len(self._rules)
            self._rules.append(rule._replace(limits=limits, gap=longest_gap(kind, overrides, rule.quantity)))
        return self._fitted_rules[place, some]

    def _lay_out(self, sensor: Sensor, fields: dict[str, float]) -> list[str]:
        """Turns a sensor to the layout of a message; takes out what cannot be stored, and says why."""
        reasons = []
        if tuple(fields) not in sensor.family.layouts:
            for name in [name for name in fields if not _QUANTITY.fullmatch(name)]:
                del fields[name]
                reasons.append(f"{name[:80]!r} is no name for a quantity")
            kind = self.kinds[sensor.family.kind]
            for name in [name for name in fields if _is_personal(name, kind)]:  # of a payload that is no JSON
                del fields[name]
        if tuple(fields) != sensor.home.names and (sensor.number, tuple(fields)) not in self._firsts:
            for name in self._enter(sensor, tuple(fields)):
                del fields[name]
                reasons.append(f"{name}: the sensor has limits.quantities = {self._limits.quantities} of them already")
        if fields:
            sensor.layout = sensor.family.layout(tuple(fields))
            sensor.names = sensor.layout.names
            sensor.first = self._first(sensor, sensor.names)
        return reasons

    def _enter(self, sensor: Sensor, names: tuple[str, ...]) -> Sequence[str]:
        """Enters channels of quantities that are new; returns those that are too many."""
        most = self._limits.quantities
        if not sensor.home.names:
            if names[:most]:
                sensor.home = sensor.family.layout(names[:most])
                sensor.base = self._channels.add(sensor, sensor.home.rules)
            return names[most:]
        later = sensor.channels or {}
        new = [name for name in names if name not in sensor.home.names and name not in later]
        room = most - len(sensor.home.names) - len(later)
        if added := new[:room]:
            base = self._channels.add(sensor, [sensor.family.rules.get(name, 0) for name in added])
            sensor.channels = {**later, **{name: channel for channel, name in enumerate(added, base)}}
        return new[room:]

    def _first(self, sensor: Sensor, names: tuple[str, ...]) -> int:
        """The first channel of a layout, if they lie side by side; else where all are, as a negative number."""
        if names == sensor.home.names:
            return sensor.base
        if (first := self._firsts.get((sensor.number, names))) is None:
            channels = [sensor.channel(name) for name in names]
            first = channels[0]
            if channels != list(range(first, first + len(channels))):
                self._scattered.append(channels)
                first = -len(self._scattered)
            self._firsts[sensor.number, names] = first
        return first

    def _forget_layouts(self) -> None:
        """A sensor that sends ever other sets of quantities must not fill the memory."""
        self._firsts.clear()
        self._scattered.clear()
        for sensor in self._channels.sensors:
            sensor.names = None


def _duplicates(messages: _Messages, known: set[int], leaving: set[int]) -> Counter[str]:
    """How many readings leave with the rows that are known already, by source."""
    duplicates: Counter[str] = Counter()
    for row in known:
        duplicates[messages.sensors[row].family.source] += messages.size(row)
    if known and messages.problems:
        here = {place for row, place in enumerate(messages.places) if row not in leaving}
        duplicates.update(messages.forget_problems({messages.places[row] for row in known} - here))
    return duplicates


def _is_personal(name: str, kind: Kind) -> bool:
    rule = kind.personal.get(name)
    return rule.grid is None if rule else name not in kind.quantities and normal(name) in ALWAYS


def _coarse(fields: dict[str, float], personal: Mapping[str, Personal]) -> dict[str, float]:
    """Rounds what a payload that is no JSON says of the position of a person."""
    if not (grids := {name: rule.grid for name, rule in personal.items() if rule.grid is not None}):
        return fields
    return {name: coarse(value, grids[name]) if name in grids else value for name, value in fields.items()}


def _milliseconds(times: list[float]) -> Ints:
    """Times as sent, in s, ms, µs or ns, told apart by their size."""
    sent = np.array(times, np.float64)
    with np.errstate(over="ignore"):
        scaled = np.rint(sent * _SCALES[np.searchsorted(_SCALE_BOUNDS, sent, side="right")])
    possible = (sent >= 0) & (scaled <= _LATEST)
    untimed = np.isnan(sent)
    return np.where(possible, scaled, np.where(untimed, _UNTIMED, _IMPOSSIBLE)).astype(np.int64)


def _remark(messages: _Messages, starts: Ints, reason: Indices, value: Floats, sent: Floats) -> None:
    """Applies, in place, what payloads say of rows beside their values."""
    for start, fields in zip(starts.tolist(), messages.fields, strict=True):
        if (remarks := messages.remarks.get(id(fields))) is not None:
            for place, name in enumerate(fields, start):
                reason[place] |= remarks.reasons.get(name, 0)
                if remarks.historical:
                    reason[place] |= Reason.OUT_OF_ORDER.value
                if name in remarks.converted:
                    value[place] = sent[place]


def _says_more(sample: Sample) -> bool:
    return bool(sample.units or sample.quality or sample.historical)


def _rules(config: SourceConfig | DiscoverConfig, kind: Kind, form: Format) -> list[Rule]:
    conversions = {}
    if config.gas_at is not None:
        try:
            condition(config.gas_at)
        except UnitError as error:
            msg = f"source '{config.name}': gas_at: {error}"
            raise SourceError(msg) from error
    for name, unit in {**form.units, **config.units}.items():
        if (quantity := kind.quantities.get(name)) is None:
            if config.kind is not None and config.devices is None and name in config.units:
                msg = f"source '{config.name}': units.{name}: the kind '{kind.name}' has no such quantity"
                raise SourceError(msg)
            continue
        try:
            conversions[name] = conversion(unit, quantity.unit, quantity.molar_mass, config.gas_at)
        except UnitError as error:
            msg = f"source '{config.name}': units.{name}: {error}"
            raise SourceError(msg) from error
    return [
        Rule(name, limits, conversions.get(name, AS_SENT), longest_gap(kind, (), name))
        for name, limits in kind.quantities.items()
    ]
