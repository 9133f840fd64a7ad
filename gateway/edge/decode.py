"""Decode: topics and payloads to columns of readings, by the declared sources.

What cannot be read becomes a dead letter with its reason and its bytes; it never stops the stream. A message that is
known already, by its topic and its bytes, is a duplicate if it has a time of its own, or if the broker says that it is
sent again. What is known is what :meth:`Decoder.remember` was told: a batch that is decoded in vain is not.
"""

import difflib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from functools import lru_cache
from itertools import chain, compress
from math import nan
from typing import Self

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.config import ClockConfig, GatewayConfig, LimitsConfig, OverrideConfig, SourceConfig
from gateway.edge.batch import Boot, DeadLetter, Held, RawBatch
from gateway.edge.keep import Known
from gateway.edge.limits import Flood
from gateway.edge.overrides import OverrideError, fitting, longest_gap, overridden, verify
from gateway.edge.readings import NO_RULE, Channels, Family, Ints, Layout, Readings, Rule, Rules, Sensor
from gateway.edge.reasons import Reason
from gateway.edge.redact import coarse, scrubbed, withheld
from gateway.edge.units import UnitError, condition, conversion
from sensors.formats import Declared, PayloadError
from sensors.formats.json import Json, plain
from sensors.kinds import Kind, Personal, known
from sensors.personal import ALWAYS, normal

UNMATCHED = "unmatched"
"""The source, on the ledger, of messages whose topic no source declares."""
_REMEMBERED = 16384  # messages a generation; two generations outlast any window of unacknowledged messages
_MOST_REFUSED = 1024  # topics; a flood of further ones is looked at anew
_MOST_SCATTERED = 16384
_IDENTIFIER = re.compile(r"[\w.-]{1,64}")
_QUANTITY = re.compile(r"(?!time$)[^\W\d][\w.-]{0,63}(?<!_qc)(?<!_reason)")
_LATEST = 9_223_372_036_854  # 2262-04-11, ms; the last that InfluxDB can store
_UNTIMED, _IMPOSSIBLE = -1, -2  # in place of a time
_SCALE_BOUNDS = np.array([1e11, 1e14, 1e17])
_SCALES = np.array([1e3, 1.0, 1e-3, 1e-6])  # below the first bound: s; then ms, µs, ns
_LIMITS, _CLOCK = LimitsConfig(), ClockConfig()


class SourceError(Exception):
    """A source cannot be used as declared; the message names source and key."""


class Source:
    """A declared family of topics."""

    def __init__(self, config: SourceConfig, kinds: Mapping[str, Kind]) -> None:
        self.config = config
        self.format = Json(Declared(config.time, config.rename))
        self.sensors: dict[str, Sensor] = {}  # by prefix
        levels = [_level(level) for level in config.topic.split("/")]
        self.filter = "/".join(
            "#" if level == "#" else "+" if level.startswith("{") else level for level in config.topic.split("/")
        )
        self.pattern = re.compile("/".join(levels).replace("/.*", "(?:/.*)?"), re.DOTALL)
        if config.kind is not None and config.kind not in kinds:
            msg = f"source '{config.name}': {_unknown_kind(config.kind, tuple(kinds))}"
            raise SourceError(msg)

    def can_name(self, levels: Mapping[str, str]) -> bool:
        """Whether kind, site and sensor may be these."""
        return all(
            f"{{{key}}}" in self.config.topic or getattr(self.config, key) == name for key, name in levels.items()
        )


def _level(level: str) -> str:
    if match := re.fullmatch(r"\{(site|kind|sensor)\}", level):
        return f"(?P<{match[1]}>[^/]+)"
    return {"+": "[^/]+", "#": ".*"}.get(level, re.escape(level))


@lru_cache(1024)
def _unknown_kind(kind: str, kinds: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(kind, kinds, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(kinds))}."
    return f"unknown kind '{kind}'; {hint} A new kind is a file {kind}.toml in gateway.kinds_dir"


@dataclass(slots=True)
class _Messages:
    """The messages of a batch that are still under way, in columns."""

    places: list[int] = field(default_factory=list)
    sensors: list[Sensor] = field(default_factory=list)
    layouts: list[Layout] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    fields: list[dict[str, float]] = field(default_factory=list)
    problems: dict[int, tuple[Sensor, Sequence[str]]] = field(default_factory=dict)  # by place; of what is left out
    bare: list[tuple[int, Sensor, float]] = field(default_factory=list)  # place, sensor, time: nothing but personal

    def size(self, row: int) -> int:
        """How many readings a message stands for on the ledger."""
        values = sum(value == value for value in self.fields[row].values())  # noqa: PLR0124 - not NaN
        place = self.places[row]
        return values + (len(self.problems[place][1]) if place in self.problems else 0)

    def drop(self, rows: set[int]) -> None:
        """Takes messages out."""
        for row in rows:
            self.problems.pop(self.places[row], None)
        keep = [row not in rows for row in range(len(self.places))]
        for column in (self.places, self.sensors, self.layouts, self.firsts, self.times, self.fields):
            column[:] = compress(column, keep)  # type: ignore[arg-type]


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
        kinds: Kinds by name.
        future: Messages whose time was too far ahead.
        past: Messages whose time was before the earliest that is believed.
        refused_sensors: Messages of sensors that were one too many.

    Raises:
        SourceError: If a source names an unknown kind, or a unit that cannot be converted, or an override what is not.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the sections of a configuration
        self,
        sources: Sequence[SourceConfig],
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
        self.future = self.past = self.refused_sensors = 0
        self.kinds = kinds
        self._overrides = overrides
        self._gateway = gateway
        self._channels = channels
        self._limits = limits
        self._ahead = int(clock.ahead * 1000)
        self._earliest = int(datetime.combine(clock.earliest, time(), UTC).timestamp() * 1000)
        self._too_many = f"there are limits.sensors = {limits.sensors} sensors already"
        self._binds = any(config.sender for config in sources)
        self._flood = Flood(limits.rate)
        self._topics: dict[str, Sensor] = {}
        self._refused: dict[str, tuple[str, str]] = {}  # topic → source on the ledger, and why
        self._families: dict[tuple[str, str], Family] = {}
        self._fitted: dict[tuple[str, str, tuple[int, ...]], Family] = {}  # by source, kind and overrides
        self._fitted_rules: dict[tuple[int, tuple[int, ...]], int] = {}  # by the kind's rule and overrides
        self._rules = [NO_RULE]
        for source in self.sources:
            for kind in [source.config.kind] if source.config.kind else kinds:
                of_kind = _rules(source.config, kinds[kind])
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
        return cls(config.source, of_site, config.gateway.id, channels, config.limits, config.clock, config.override)

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
        messages = self._read(batch, *self._admit(batch, dead), dead)
        self._renew_rules()
        times = _milliseconds(messages.times)
        keys = [
            xxh3_64_intdigest(batch.payloads[i], xxh3_64_intdigest(batch.topics[i].encode())) for i in messages.places
        ]
        if batch.personal:
            keys = [self._salted(batch, i, key) for i, key in zip(messages.places, keys, strict=True)]

        leaving = self._impossible(batch, messages, times, dead)
        duplicates: Counter[str] = Counter()
        for row in self._known(batch, messages, times, keys) - leaving:
            duplicates[messages.sensors[row].family.source] += messages.size(row)
            leaving.add(row)
        accepted = keys if not leaving else [key for row, key in enumerate(keys) if row not in leaving]
        held = [] if batch.boot is None else self._hold(batch, batch.boot, messages, times, leaving, dead)
        if leaving:
            messages.drop(leaving)
            times = np.delete(times, list(leaving))
        for place, (sensor, problems) in messages.problems.items():
            dead += [self._letter(batch, place, sensor.family.source, problem) for problem in problems]

        readings = self._columns(batch, messages, times)
        if batch.personal:
            self._sight(batch, messages, readings, accepted)
        readings.keys, readings.held, readings.duplicates, readings.dead = accepted, held, dict(duplicates), dead
        return readings

    def _admit(self, batch: RawBatch, dead: list[DeadLetter]) -> tuple[Sequence[int], list[Sensor]]:
        """Finds the sensors. What is refused before it is read costs next to nothing."""
        topics = self._topics
        found = [topics.get(topic) or self._find(topic) for topic in batch.topics]
        places: Sequence[int] = range(len(found))
        sensors = [sensor for sensor in found if sensor]
        if len(sensors) < len(found):
            for place in [place for place, sensor in enumerate(found) if not sensor]:
                source, why = self._refused[batch.topics[place]]
                self.refused_sensors += why == self._too_many
                dead.append(self._letter(batch, place, source, why))
            places = [place for place, sensor in enumerate(found) if sensor]
        if not sensors:
            return places, sensors

        refused: set[int] = set()
        first: dict[Sensor, DeadLetter] = {}
        numbers = [sensor.number for sensor in sensors]
        for row in self._flood.excess(numbers, self.sensors, batch.received[-1]):
            refused.add(row)
            if (letter := first.get(sensors[row])) is None:
                reason = (
                    f"flooding, at more than limits.rate = {self._limits.rate:g} messages a second; the first left out"
                )
                first[sensors[row]] = self._letter(batch, places[row], sensors[row].family.source, reason)
            else:
                letter.readings += 1
        dead += first.values()
        for row, (place, sensor) in enumerate(zip(places, sensors, strict=True)) if self._scrutinise(batch) else ():
            if row not in refused and (objection := self._objection(batch, place, sensor)):
                refused.add(row)
                dead.append(self._letter(batch, place, sensor.family.source, objection))
        if refused:
            rows = [row for row in range(len(places)) if row not in refused]
            return [places[row] for row in rows], [sensors[row] for row in rows]
        return places, sensors

    def _scrutinise(self, batch: RawBatch) -> bool:
        return self._binds or max(map(len, batch.payloads)) > self._limits.payload

    def _objection(self, batch: RawBatch, place: int, sensor: Sensor) -> str | None:
        if (size := len(batch.payloads[place])) > self._limits.payload:
            return (
                f"the payload has {size} bytes, more than limits.payload = {self._limits.payload}; the rest is cut off"
            )
        if sensor.family.bound and (sender := batch.senders.get(place)) != sensor.name:
            named = "names no sender" if sender is None else f"names the sender {sender[:80]!r}"
            return f"the broker {named}, the topic the sensor {sensor.name!r}"
        return None

    def _letter(self, batch: RawBatch, place: int, source: str, reason: str) -> DeadLetter:
        payload = batch.payloads[place]
        if (taken := batch.personal.get(place)) and taken.sealed:
            reason, payload = scrubbed(reason, payload, taken.known), withheld(payload)
        payload = payload[: self._limits.payload]
        return DeadLetter(batch.received[place], source, batch.topics[place], payload, reason)

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
                    dead += [self._letter(batch, place, sensor.family.source, reason) for reason in reasons]
                    continue
                if problems:
                    messages.problems[place] = (sensor, problems)
            messages.places.append(place)
            messages.sensors.append(sensor)
            messages.layouts.append(sensor.layout)
            messages.firsts.append(sensor.first)
            messages.times.append(observed)
            messages.fields.append(fields)
        return messages

    def _impossible(self, batch: RawBatch, messages: _Messages, times: Ints, dead: list[DeadLetter]) -> set[int]:
        """Rows of messages whose own time cannot be stored; they are dead letters."""
        rows = set(np.flatnonzero(times == _IMPOSSIBLE).tolist())
        for row in rows:
            family = messages.sensors[row].family
            reason = f"{family.format.time}: the time {messages.times[row]!r} is outside 1970..2262"
            dead.append(self._letter(batch, messages.places[row], family.source, reason))
        return rows

    def _known(self, batch: RawBatch, messages: _Messages, times: Ints, keys: list[int]) -> set[int]:
        """Rows of messages that are no new ones."""
        timed = times >= 0
        rows = set()
        if batch.retained:  # without a time of its own there is no telling of when it is
            rows = {row for row, place in enumerate(messages.places) if place in batch.retained and not timed[row]}
        met: set[int] = set(keys)
        seen, seen_before = (set[int](), set[int]()) if batch.again else (self._seen, self._seen_before)
        if len(met) == len(keys) and met.isdisjoint(seen) and met.isdisjoint(seen_before):
            return rows
        met.clear()
        for row, key in enumerate(keys):
            if not (key in met or key in seen or key in seen_before):
                met.add(key)
            elif timed[row] or messages.places[row] in batch.redelivered:
                rows.add(row)
        return rows

    def _hold(  # noqa: PLR0913, PLR0917 - what a batch is made of
        self,
        batch: RawBatch,
        boot: Boot,
        messages: _Messages,
        times: Ints,
        leaving: set[int],
        dead: list[DeadLetter],
    ) -> list[Held]:
        """Messages that wait for the clock, as they came; they leave the batch."""
        held = []
        for row in np.flatnonzero(times == _UNTIMED).tolist():
            if row in leaving:
                continue
            place = messages.places[row]
            source = messages.sensors[row].family.source
            if (taken := batch.personal.get(place)) and not taken.readable:
                reason = "cannot wait for the clock: what is personal in it cannot be told from the rest"
                letter = self._letter(batch, place, source, reason)
                letter.readings = messages.size(row)
                dead.append(letter)
                leaving.add(row)
                continue
            moment = batch.received[place] - boot.offset
            held.append(
                Held(
                    source, batch.topics[place], batch.payloads[place], messages.size(row), boot.id, moment, boot.floor
                )
            )
            leaving.add(row)
        return held

    @staticmethod
    def _salted(batch: RawBatch, place: int, key: int) -> int:
        """A key that tells a message from one in which another person is meant, and tells nobody which."""
        taken = batch.personal.get(place)
        return key ^ taken.salt if taken else key

    def _sight(self, batch: RawBatch, messages: _Messages, readings: Readings, accepted: list[int]) -> None:
        """Says of which sensors, and when, something personal was taken out."""
        for place, sensor, moment in zip(messages.places, messages.sensors, readings.times.tolist(), strict=True):
            if taken := batch.personal.get(place):
                readings.sightings.append((sensor, moment, taken))
        times = _milliseconds([observed for _, _, observed in messages.bare]).tolist()
        for (place, sensor, _), moment in zip(messages.bare, times, strict=True):
            topic = xxh3_64_intdigest(batch.topics[place].encode())
            key = self._salted(batch, place, xxh3_64_intdigest(batch.payloads[place], topic))
            met = key in self._seen or key in self._seen_before or key in accepted
            if moment == _IMPOSSIBLE or (met and (moment >= 0 or place in batch.redelivered)):
                continue
            accepted.append(key)
            if moment >= 0 or batch.boot is None:
                readings.sightings.append(
                    (sensor, moment if moment >= 0 else batch.received[place], batch.personal[place])
                )

    def _columns(self, batch: RawBatch, messages: _Messages, times: Ints) -> Readings:
        received = np.array([batch.received[place] for place in messages.places], np.int64)
        reason = np.zeros(len(times), np.int32)
        for row in np.flatnonzero(times == _UNTIMED).tolist():
            sensor = messages.sensors[row]
            times[row] = sensor.arrive(int(received[row]))
            reason[row] = 0 if sensor.family.format.time is None else Reason.NO_TIME.value
            if batch.estimated:
                reason[row] |= Reason.CLOCK.value
        if batch.boot is None:
            future = times > received + self._ahead
            reason[future] |= Reason.FUTURE.value
            self.future += int(future.sum())
        past = times < self._earliest
        reason[past] |= Reason.PAST.value
        self.past += int(past.sum())
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
        if self._channels.rules.converts:
            with np.errstate(over="ignore"):
                value = value * self._channels.rules.factor[rule] + self._channels.rules.offset[rule]
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
            reason=np.repeat(reason, count),
        )

    def _find(self, topic: str) -> Sensor | None:
        """The sensor of a topic that was not seen lately; if there is none, the reason is in ``_refused``."""
        if topic in self._refused:
            return None
        found: Sensor | tuple[str, str] = (UNMATCHED, "no declared source has a topic like this one")
        for source in self.sources:
            if (match := source.pattern.fullmatch(topic)) is not None:
                found = self._place(source, match.groupdict())
                break
        if isinstance(found, tuple):
            self._refused[topic] = found
            return None
        if len(self._topics) >= 2 * self._limits.sensors:  # a source may have many topics of one sensor
            self._topics.clear()
        self._topics[topic] = found
        return found

    def _place(self, source: Source, levels: dict[str, str]) -> Sensor | tuple[str, str]:
        config = source.config
        names = {key: levels.get(key) or getattr(config, key) for key in ("kind", "site", "sensor")}
        for key, name in names.items():
            if not _IDENTIFIER.fullmatch(name):
                return UNMATCHED, (
                    f"the {key} {name[:80]!r} in the topic may hold letters, digits, '.', '-' and '_' only, 64 at most"
                )
        kind, site, name = names["kind"], names["site"], names["sensor"]
        if (family := self._families.get((config.name, kind))) is None:
            return UNMATCHED, _unknown_kind(kind, tuple(self.kinds))
        prefix = f"{kind},gateway={self._gateway},sensor={name},site={site}"
        if (sensor := source.sensors.get(prefix)) is None:
            if self.sensors >= self._limits.sensors:
                return config.name, self._too_many
            family = self._with_overrides(config.name, family, site, name)
            sensor = Sensor(family, sys.intern(site), name, prefix, self.sensors)
            source.sensors[prefix] = sensor
            self._channels.sensors.append(sensor)
        return sensor

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


def _rules(config: SourceConfig, kind: Kind) -> list[Rule]:
    conversions = {}
    if config.gas_at is not None:
        try:
            condition(config.gas_at)
        except UnitError as error:
            msg = f"source '{config.name}': gas_at: {error}"
            raise SourceError(msg) from error
    for name, unit in config.units.items():
        if (quantity := kind.quantities.get(name)) is None:
            if config.kind is not None:
                msg = f"source '{config.name}': units.{name}: the kind '{kind.name}' has no such quantity"
                raise SourceError(msg)
            continue
        try:
            conversions[name] = conversion(unit, quantity.unit, quantity.molar_mass, config.gas_at)
        except UnitError as error:
            msg = f"source '{config.name}': units.{name}: {error}"
            raise SourceError(msg) from error
    return [
        Rule(name, limits, *conversions.get(name, (1.0, 0.0)), longest_gap(kind, (), name))
        for name, limits in kind.quantities.items()
    ]
