"""Conditions of rules: whether one holds, for how long, and when it is over; the same on gateways and in the city.

A condition is looked at whenever a newer value has come, and the time at which that was observed counts. What it is
about begins once the condition has held for ``hold``, from value to value; it ends once it has not for ``release``, a
value between ``clear`` and the limit being neither.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from gateway.config import RuleConfig
from sensors.kinds import expressions

GAP_INTERVALS = 3
"""Intervals of a sensor without a value, after which a condition has to hold anew."""
_TOGETHER_MS = 600_000  # values of one sensor that are further apart are no moment that an expression could be about


class Placed(Protocol):
    """Who a sensor is; keys of one kind have an order."""

    @property
    def site(self) -> str:
        """Its site."""

    def __lt__(self, other: Any, /) -> bool:  # noqa: ANN401 - as a tuple has it
        """The order."""


_Key = TypeVar("_Key", bound=Placed)


class Sample(NamedTuple, Generic[_Key]):
    """What a rule sees of a sensor or a place.

    Attributes:
        key: Of whom.
        time: Observed, ms UTC.
        value: In the quantity's unit.
        met: The condition holds.
        over: It is clearly over.
        gap: ms after which the next sample no longer continues this one.
    """

    key: _Key
    time: int
    value: float
    met: bool
    over: bool
    gap: float


@dataclass(slots=True)
class Course:
    """How far a rule has come with a subject.

    Attributes:
        since: When what runs began, ms UTC; None while nothing does.
        seen: Time of the newest sample.
        met_since: Since when the condition has held.
        over_since: Since when it has not.
    """

    since: int | None = None
    seen: int = -1
    met_since: int | None = None
    over_since: int | None = None

    def step(self, rule: RuleConfig, sample: Sample[_Key]) -> Literal["begins", "ends"] | None:
        """Takes in a sample; an older one says nothing. What ``ends`` began at ``since``, which the caller clears."""
        if sample.time <= self.seen:
            return None
        broken = self.seen >= 0 and sample.time - self.seen > max(sample.gap, rule.hold * 1000)
        self.seen = sample.time
        if broken and self.since is None:
            self.met_since = None
        if sample.met:
            self.over_since = None
            self.met_since = sample.time if self.met_since is None else self.met_since
            if self.since is None and sample.time - self.met_since >= rule.hold * 1000:
                self.since = self.met_since
                return "begins"
        elif self.since is None:
            self.met_since = None
        elif not sample.over:
            self.over_since = None
        else:
            self.over_since = sample.time if self.over_since is None else self.over_since
            if sample.time - self.over_since >= rule.release * 1000:
                return "ends"
        return None

    def end(self) -> None:
        """Nothing runs any more, and nothing has held so far."""
        self.since = self.met_since = self.over_since = None

    def begin_anew(self) -> None:
        """The rule is another one: what runs goes on, but nothing has held so far."""
        self.over_since, self.seen = None, -1
        self.met_since = self.met_since if self.since is not None else None


@dataclass(slots=True)
class Trail:
    """Values of a channel within a time."""

    values: deque[tuple[int, float]] = field(default_factory=deque)

    def change(self, time: int, value: float, within: float, *, rise: bool) -> float:
        """Adds a value; how far it is above the lowest, or below the highest, of those within the time before."""
        if not self.values or time > self.values[-1][0]:
            self.values.append((time, value))
        while self.values[0][0] < time - within:
            self.values.popleft()
        earlier = [other for _, other in self.values]
        return value - (min(earlier) if rise else max(earlier))


def judged(rule: RuleConfig, trail: Trail, key: _Key, time: int, value: float, gap: float) -> Sample[_Key]:  # noqa: PLR0913, PLR0917 - what a sample is of
    """What a rule of the forms ``above``, ``below`` and ``change`` says of a value."""
    if rule.change is not None:
        by = trail.change(time, value, (rule.within or 0) * 1000, rise=rule.change > 0)
        met = by >= rule.change if rule.change > 0 else by <= rule.change
        return Sample(key, time, value, met, not met, gap)
    if rule.above is not None:
        met = value >= rule.above
        over = not met if rule.clear is None else value <= rule.clear
    else:
        met = rule.below is not None and value <= rule.below
        over = not met if rule.clear is None else value >= rule.clear
    return Sample(key, time, value, met, over, gap)


def expressed(text: str, key: _Key, latest: Mapping[str, tuple[int, float]], gap: float) -> Sample[_Key] | None:
    """What a rule of the form ``when`` says of a sensor; None where quantities are missing or too far apart.

    Args:
        text: The condition.
        key: The sensor.
        latest: Time and value of its quantities.
        gap: See ``Sample``.
    """
    expression = expressions.read(text)
    known = {name: latest[name] for name in expression.names if name in latest}
    times = [time for time, _ in known.values()]
    if len(known) < len(set(expression.names)) or not times or max(times) - min(times) > _TOGETHER_MS:
        return None
    with np.errstate(all="ignore"):
        met = bool(expression.holds({name: np.float64(value) for name, (_, value) in known.items()}))
    return Sample(key, max(times), known[expression.names[0]][1], met, not met, gap)


def together(rule: RuleConfig, samples: Mapping[str, Sample[_Key]], now: int) -> dict[str, Sample[_Key]]:
    """One sample for each place: the condition holds when it does at enough sensors, and is over when it is not.

    Sensors that have fallen silent do not count.
    """
    places: dict[str, list[Sample[_Key]]] = {}
    for sample in (sample for sample in samples.values() if now - sample.time <= sample.gap):
        places.setdefault(sample.key.site if rule.of == "site" else "", []).append(sample)
    found = {}
    for place, members in places.items():
        low = rule.below is not None or (rule.change is not None and rule.change < 0)
        worst = min(members, key=lambda s: (not s.met, s.value if low else -s.value, s.key))
        met = sum(sample.met for sample in members) >= rule.sensors
        over = sum(not sample.over for sample in members) < rule.sensors
        found[f"{rule.of}:{place}"] = worst._replace(
            time=max(sample.time for sample in members),
            met=met,
            over=over,
            gap=max(sample.gap for sample in members),
        )
    return found


def about(rule: RuleConfig) -> str:
    """What stands as the quantity of a rule's events."""
    return rule.quantity or rule.index or ("silence" if rule.absent is not None else rule.name)


def limit(rule: RuleConfig) -> float | None:
    """What was passed, as far as it is a value of the quantity."""
    return next((x for x in (rule.above, rule.below, rule.absent) if x is not None), None)
