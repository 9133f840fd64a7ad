"""Redact: what is personal in a message is taken out right behind the broker, before any other step sees it.

So no later step can write it: not the spool, no dead letter, no held message, no log. What a kind wants to keep of it
goes on apart, in memory: a pseudonym (HMAC-SHA256 under a random key that is destroyed after at most a day), or how
many there were in a bin of at least a quarter of an hour. When power fails, keys and open bins are gone.

A payload in which personal data may stand anywhere is *sealed*: it is read, and never written.
"""

import hashlib
import hmac
import json
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.edge.batch import Entry, RawBatch, Seen, Taken
from sensors.formats.json import COMPASS
from sensors.formats.objects import number
from sensors.kinds import Kind, Personal
from sensors.personal import ALWAYS, REMOVED, Mentions, normal, plain_value, random_mac, taken_out

if TYPE_CHECKING:
    from gateway.edge.readings import Sensor
    from gateway.edge.source import Source

log = logging.getLogger("citygate.redact")

LEAST = 5
"""A count below is not told: it could be somebody."""
_DROP = Personal(treat="drop")
_GRACE = 60_000  # ms after its end, and after the last that came for it, for which a bin stays open
_MOST_BINS, _MOST_TOKENS = 16_384, 1_000_000  # 100 MB at worst
_MOST_TOPICS = 131_072
_WITHHELD = b"(withheld: personal data, "
_WORD = re.compile(r"[^\s'\"`,;(){}\[\]<>=]+")
_OPEN = {"json", "senml", "airrohr", "tasmota", "zigbee2mqtt"}
"""Formats whose JSON hides nothing: what is personal stands there under its name."""
_TELLING = frozenset({
    "bn", "bu", "chipid", "esp8266id", "espid", "lastseen", "n", "pressureunit", "tempunit", "time", "u", "valuetype",
})  # fmt: skip
"""Normal names of the text that these formats need beside values."""
_SHORT = 4  # ASCII characters that are no plate and no number yet


def withheld(payload: bytes) -> bytes:
    """What is kept in place of a sealed payload: its size."""
    return payload if is_withheld(payload) else b"%s%d bytes)" % (_WITHHELD, len(payload))


def is_withheld(payload: bytes) -> bool:
    """Whether this stands in place of a sealed payload."""
    return payload.startswith(_WITHHELD)


def without_text(payload: bytes, own: Collection[str]) -> bytes:
    """A JSON payload without the text in it that is no number, time or direction: it may be about a person.

    Args:
        payload: As it is read.
        own: Normal names of fields whose text is needed.
    """

    def decide(path: str, value: object) -> object:
        return value if normal(path) in own else _no_text(value)

    clean = taken_out(json.loads(payload), decide)
    return json.dumps({} if clean is REMOVED else clean, ensure_ascii=False).encode("utf-8", "replace")


def scrubbed(reason: str, payload: bytes, known: Collection[str] = ()) -> str:
    """A reason without what it quotes from a sealed payload.

    Args:
        reason: Why the payload could not be read.
        payload: As it came.
        known: Names that may stand in it: of quantities.
    """
    text = payload.decode("utf-8", "replace").casefold()
    if b"\0" in payload:
        text += payload.replace(b"\0", b"").decode("utf-8", "replace").casefold()

    def word(match: re.Match[str]) -> str:
        bare = match[0].strip(".:!?…").casefold()
        harmless = bare in known or normal(bare) in ALWAYS or (bare.isascii() and len(bare) < _SHORT)
        return match[0] if harmless or bare not in text else match[0].replace(match[0].strip(".:!?…"), "…")

    quoted = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", lambda m: m[0] if m[0][1:-1] in known else "'…'", reason)
    return _WORD.sub(word, quoted)


def coarse(value: float, grid: float) -> float:
    """The nearest multiple of the grid."""
    return round(round(value / grid) * grid, 12) if math.isfinite(value) else value


class _Rules(NamedTuple):
    """What is personal in the messages of a topic: normal name → the name as declared, and what is done.

    Text under the names in ``own`` is needed to read a message.
    """

    fields: Mapping[str, tuple[str, Personal]]
    declared: bool
    known: frozenset[str] = frozenset()
    opaque: bool = False
    own: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Key:
    bytes: bytearray
    born: float

    def destroy(self) -> None:
        self.bytes[:] = bytes(len(self.bytes))


@dataclass(slots=True)
class _Bin:
    source: str
    end: int
    touched: int
    whole: bool
    key: bytearray = field(default_factory=lambda: bytearray(secrets.token_bytes(32)), repr=False)
    tokens: set[bytes] = field(default_factory=set, repr=False)
    total: int = 0


class Redactor:
    """Takes out what is personal, and keeps what a kind wants of it in memory.

    Args:
        sources: Declared sources.
        kinds: Kinds by name.
        since_boot: Seconds that pass also while the device sleeps.

    Attributes:
        taken: Fields that were taken out.
        uncounted: Sightings that came after the end of their bin, or when memory was full.
    """

    def __init__(
        self,
        sources: "Sequence[Source]",
        kinds: Mapping[str, Kind],
        since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.taken = self.uncounted = 0
        self._sources = sources
        self._kinds = kinds
        self._since_boot = since_boot
        self._secret = secrets.token_bytes(32)  # of this run: what is salted with it can be checked by nobody
        self._topics: dict[str, _Rules] = {}
        self._undeclared: set[str] = set()
        declared = [name for kind in kinds.values() for name in kind.personal]
        self._mentions = Mentions([*ALWAYS, *declared, *map(normal, declared)])
        anywhere = {name: (name, _DROP) for name in (*ALWAYS, *map(_key, declared))}
        self._anywhere = _Rules(anywhere, declared=False)
        self._keys: dict[float, _Key] = {}
        self._bins: dict[tuple[str, str, int], _Bin] = {}
        self._closed: dict[tuple[str, str], int] = {}  # end of the last bin that was told
        self._tokens = 0
        self._began = 0

    def redact(self, batch: RawBatch) -> None:
        """Takes out what is personal, in place; ``batch.personal`` says of which messages."""
        if not self._began and batch.received:
            self._began = batch.received[0]
        topics, payloads = batch.topics, batch.payloads
        if self._undeclared.issuperset(topics) and not self._mentions.any(payloads):
            return
        for place, topic in enumerate(topics):
            rules = self._topics.get(topic) or self._find(topic)
            if rules.declared or self._mentions.in_(payloads[place]):
                payload, taken = self._take(payloads[place], rules)
                if taken is not None:
                    payloads[place], batch.personal[place] = payload, taken

    def recorded(self, topic: str, payload: bytes) -> bytes | None:
        """A payload as a recording may hold it.

        Returns:
            The same, if nothing is personal in it; else one with pseudonyms in place of what is counted or
            pseudonymised; None if it must be left out.
        """
        rules = self._topics.get(topic) or self._find(topic)
        if not (rules.declared or self._mentions.in_(payload)):
            return payload
        clean, taken = self._take(payload, rules, in_place=True)
        if taken is None:
            return payload
        return clean if taken.readable else None

    def recorded_properties(self, topic: str, properties: bytes) -> bytes:
        """The MQTT properties of a message as a recording may hold them: none where they may be personal."""
        rules = self._topics.get(topic) or self._find(topic)
        return b"" if rules.declared or self._mentions.in_(properties) else properties

    def note(self, sightings: "Iterable[tuple[Sensor, int, Taken]]", now: int, entry: Entry) -> None:
        """Puts pseudonyms into an entry, as text beside the sensor's values, and counts what is to be counted.

        Args:
            sightings: Sensor, observation time (ms UTC), and what was taken out of its message.
            now: Time of arrival, ms UTC.
            entry: Its points and its part of the ledger are added to.
        """
        for sensor, moment, taken in sightings:
            texts: dict[str, str] = {}
            for seen in taken.seen:
                if seen.rule.treat == "count":
                    self._count(sensor, moment, now, seen)
                else:
                    texts[seen.name] = self._pseudonym(seen)
            if texts:
                fields = ",".join(f'{name}="{text}"' for name, text in texts.items())
                _add(entry, f"{sensor.prefix} {fields} {moment}", sensor.family.source, len(texts))

    def tend(self, now: int) -> Entry | None:
        """Destroys keys whose time is over, and tells the counts of bins that are; to be called every second or so.

        Args:
            now: The gateway's clock, ms UTC.

        Returns:
            The counts, if there are any.
        """
        moment = self._since_boot()
        for period, key in [*self._keys.items()]:
            if moment - key.born >= period:
                self._keys.pop(period).destroy()
        entry = Entry()
        for place, bin_ in [*self._bins.items()]:
            if now < max(bin_.end, bin_.touched) + _GRACE:
                continue
            prefix, name, _ = place
            del self._bins[place]
            bin_.key[:] = bytes(len(bin_.key))
            self._tokens -= len(bin_.tokens)
            self._closed[prefix, name] = max(bin_.end, self._closed.get((prefix, name), 0))
            if (different := len(bin_.tokens)) >= LEAST:
                flag = 1 if bin_.whole else 3
                line = (
                    f"{prefix} {name}_count={different}.0,{name}_count_qc={flag}i,"
                    f"{name}_total={bin_.total}.0,{name}_total_qc={flag}i {bin_.end}"
                )
                _add(entry, line, bin_.source, 2)
        return entry if entry.lines else None

    def _find(self, topic: str) -> _Rules:
        rules = self._anywhere
        for source in self._sources:
            if (match := source.pattern.fullmatch(topic)) is not None:
                kind = match.groupdict().get("kind") or source.config.kind
                rules = self._of(source, source.kinds(self._kinds) if source.devices else [kind or ""])
                break
        if len(self._topics) >= _MOST_TOPICS:
            self._topics.clear()
            self._undeclared.clear()
        self._topics[topic] = rules
        if not rules.declared:
            self._undeclared.add(topic)
        return rules

    def _of(self, source: "Source", names: Iterable[str]) -> _Rules:
        """The rules of a topic whose sensors are of some kinds."""
        config = source.config
        own = {normal(text) for text in chain(config.rename, [config.declared.time or ""], _texts(config))}
        kinds = [self._kinds[name] for name in names if name in self._kinds]
        declared = {key: rule for kind in reversed(kinds) for key, rule in kind.personal.items()}
        quantities = frozenset(chain.from_iterable(kind.quantities for kind in kinds))
        certain = kinds and not source.discovers
        always = dict.fromkeys(ALWAYS, ("", _DROP)) if certain else self._anywhere.fields
        fields = {key: rule for key, rule in always.items() if key not in own and key not in quantities}
        fields |= {_key(key): (key, rule) for key, rule in declared.items()}
        fields |= {_key(sent): (to, declared[to]) for sent, to in config.rename.items() if to in declared}
        explicit = bool(declared) or config.personal
        known = quantities | {config.declared.time or ""}
        return _Rules(fields, explicit, known, explicit and config.format not in _OPEN, _TELLING | own)

    def _take(self, payload: bytes, rules: _Rules, *, in_place: bool = False) -> tuple[bytes, Taken | None]:
        """The payload without its personal fields, and what was taken; None if there was nothing."""
        seen: list[Seen] = []
        values: list[Any] = []

        def decide(path: str, value: object) -> object:
            if (found := rules.fields.get(normal(path)) or rules.fields.get(path.casefold())) is None:
                return value
            values.append(value)
            name, rule = found
            if rule.grid is not None:
                return _coarsened(value, rule.grid)
            scalars = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str | int)]
            kept = [Seen(name, rule, str(one)) for one in scalars if not random_mac(name, str(one))]
            if rule.treat == "drop" or not kept:
                return REMOVED
            seen.extend(kept)
            if not in_place:
                return REMOVED
            texts = [self._pseudonym(one) for one in kept]
            return texts if isinstance(value, list) else texts[0]

        readable = True
        try:
            document = json.loads(payload)
            if not isinstance(document, dict | list):
                readable = False
            else:
                clean = taken_out(document, decide)
                if values:
                    left = {} if clean is REMOVED else clean
                    payload = json.dumps(left, ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            readable = False
        if readable and not (rules.declared or values):
            return payload, None
        self.taken += len(values)
        secret = payload + repr(values).encode("utf-8", "backslashreplace")
        salt = int.from_bytes(hashlib.blake2b(secret, key=self._secret, digest_size=8).digest(), "little")
        readable = readable and not rules.opaque
        return payload, Taken(rules.declared or not readable, readable, salt, tuple(seen), rules.known, rules.own)

    def _pseudonym(self, seen: Seen) -> str:
        if (key := self._keys.get(seen.rule.period)) is None or self._since_boot() - key.born >= seen.rule.period:
            if key is not None:
                key.destroy()
            key = self._keys[seen.rule.period] = _Key(bytearray(secrets.token_bytes(32)), self._since_boot())
        return _digest(key.bytes, seen)[:8].hex()

    def _count(self, sensor: "Sensor", moment: int, now: int, seen: Seen) -> None:
        length = int(seen.rule.bin * 1000)
        start = moment - moment % length
        closed = self._closed.get((sensor.prefix, seen.name), 0)
        place = sensor.prefix, seen.name, start
        if (bin_ := self._bins.get(place)) is None:
            if start + length <= closed or start > now + length or len(self._bins) >= _MOST_BINS:
                self.uncounted += 1
                return
            bin_ = self._bins[place] = _Bin(sensor.family.source, start + length, now, start >= self._began)
        token = _digest(bin_.key, seen)[:8]
        if token not in bin_.tokens:
            if self._tokens >= _MOST_TOKENS:
                self.uncounted += 1
                bin_.whole = False
                return
            bin_.tokens.add(token)
            self._tokens += 1
        bin_.total += 1
        bin_.touched = now


def _digest(key: bytearray, seen: Seen) -> bytes:
    return hmac.digest(bytes(key), f"{seen.name}\0{plain_value(seen.value)}".encode("utf-8", "replace"), "sha256")


def _key(name: str) -> str:
    return name.casefold() if "." in name else normal(name)


def _texts(config: Any) -> Iterable[str]:  # noqa: ANN401 - whatever options a format has
    """All texts in a source's options."""
    match getattr(config, "options", config if isinstance(config, str | Mapping | list | tuple) else None):
        case str() as text:
            yield text
        case Mapping() as table:
            yield from chain.from_iterable(_texts(item) for item in table.values())
        case list() | tuple() as items:
            yield from chain.from_iterable(_texts(item) for item in items)


def _no_text(value: object) -> object:
    match value:
        case str() if not _says_a_value(value):
            return REMOVED
        case list() if any(isinstance(one, str) for one in value):
            return [one for one in value if not isinstance(one, str) or _says_a_value(one)]
        case _:
            return value


def _says_a_value(text: str) -> bool:
    with suppress(ValueError):
        number(text)
        return True
    with suppress(ValueError):
        datetime.fromisoformat(text)
        return True
    return text.strip().upper() in COMPASS


def _coarsened(value: object, grid: float) -> object:
    match value:
        case list():
            return [item for one in value if (item := _coarsened(one, grid)) is not REMOVED]
        case dict():
            return {key: item for key, one in value.items() if (item := _coarsened(one, grid)) is not REMOVED}
        case int() | float() | str():
            try:
                return coarse(float(value), grid)
            except (ValueError, OverflowError):
                return REMOVED
        case _:
            return value


def _add(entry: Entry, line: str, source: str, readings: int) -> None:
    entry.lines = entry.lines + b"\n" + line.encode() if entry.lines else line.encode()
    counts = entry.counts.setdefault(source, {})
    for fate in ("received", "queued"):
        counts[fate] = counts.get(fate, 0) + readings


__all__ = ["LEAST", "Redactor", "coarse", "is_withheld", "scrubbed", "withheld", "without_text"]
