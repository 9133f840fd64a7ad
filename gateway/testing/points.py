"""What a gateway stored, as a test sees it: readings with their flags, events, verdicts, dead letters, the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.words import iso

FATES = ("delivered", "queued", "quarantined", "dead", "duplicate", "evicted")


class Stored(NamedTuple):
    """A reading as it is stored.

    Attributes:
        kind: Kind of the sensor; the measurement.
        site: Its site.
        sensor: Its name.
        quantity: What was measured.
        time: Observation time, ms UTC.
        value: In the kind's unit, also where it was kept apart; None where there is only a flag.
        flag: ``good``, ``unknown``, ``suspect``, ``fail`` or ``missing``; empty for what is not judged.
        reason: Why it is suspect or failed, such as ``gross_range+flat_line``; empty otherwise.
    """

    kind: str
    site: str
    sensor: str
    quantity: str
    time: int
    value: float | str | None
    flag: str
    reason: str = ""

    @property
    def quarantined(self) -> bool:
        """Whether the value was kept out of the main measurement."""
        return self.flag == "fail"

    def __str__(self) -> str:
        """As people read it."""
        return f"{iso(self.time)}  {text(self.value)}  {self.flag}  {self.reason}".rstrip()


class Event(NamedTuple):
    """The beginning, a change or the end (severity ``none``) of an event.

    Attributes:
        time: ms UTC.
        value: That made it.
        limit: That it is beyond, or back within.
    """

    kind: str
    site: str
    sensor: str
    quantity: str
    time: int
    severity: str
    value: float
    limit: float
    message: str

    def __str__(self) -> str:
        """As people read it."""
        name = f"{self.site}/{self.kind}/{self.sensor} {self.quantity}"
        return f"{iso(self.time)}  {name}  {self.severity}  {self.message}"


class Verdict(NamedTuple):
    """What was said of a channel's recent values: a fault by its name, an event, or nothing.

    Attributes:
        since: First of the values, ms UTC.
        until: Last of them.
        what: Such as ``stuck`` or ``event``.
        reason: What speaks for it.
    """

    kind: str
    site: str
    sensor: str
    quantity: str
    since: int
    until: int
    what: str
    reason: str

    def __str__(self) -> str:
        """As people read it."""
        name = f"{self.site}/{self.kind}/{self.sensor} {self.quantity}"
        return f"{iso(self.since)}..{iso(self.until)}  {name}  {self.what}  {self.reason}"


class DeadLetter(NamedTuple):
    """A message that could not be read.

    Attributes:
        received: Time of arrival, ms UTC.
        source: On whose ledger it counts.
        readings: For how many readings.
    """

    topic: str
    payload: bytes
    reason: str
    source: str
    received: int
    readings: int

    def __str__(self) -> str:
        """As people read it."""
        return f"{repr(self.topic)[1:-1]}  {self.reason}"  # whatever the topic is, this is a line


@dataclass(frozen=True)
class Ledger:
    """Where every reading is.

    Attributes:
        sources: Source → readings by fate, and ``received``.
    """

    sources: Mapping[str, Mapping[str, int]]

    def __getitem__(self, fate: str) -> int:
        """Readings of all sources with a fate, or ``received``."""
        if fate not in {"received", *FATES}:
            msg = f"no fate {fate!r}; there are received, {', '.join(FATES)}"
            raise KeyError(msg)
        return sum(counts[fate] for counts in self.sources.values())

    def imbalance(self) -> list[str]:
        """What does not add up, in words; nothing if all does."""
        return [
            f"source '{source}': {counts['received']} received, but {total} have a fate"
            for source, counts in self.sources.items()
            if counts["received"] != (total := sum(counts[fate] for fate in FATES))
        ]

    def __str__(self) -> str:
        """As people read it, a line a source."""
        return "\n".join(
            f"{source}  received {counts['received']}"
            + "".join(f"  {fate} {counts[fate]}" for fate in FATES if counts[fate])
            for source, counts in sorted(self.sources.items())
        )


def text(value: float | str | None) -> str:
    """A value as people read it: up to twelve digits, and no more than it has."""
    match value:
        case None:
            return "-"
        case str():
            return repr(value)
        case _:
            return f"{value:.12g}"
