"""Rules on what the sensors say: when an event begins, and when it ends.

A rule looks at the newest good value of each sensor whenever a newer one has come; the time at which it was observed
counts. Suspect and failed values say nothing. An event begins once the condition has held for ``hold``, from value to
value; it ends once it has not for ``release``, a value between ``clear`` and the limit being neither. A sensor that
falls silent leaves its event as it is.

Which events run is kept with the alerts; how long a condition has held so far is not, and is counted anew after a
restart.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gateway.city.alerts.rules import Rule, Rules
from gateway.city.grade_models import GradesOut, PlaceGrades
from gateway.city.grades.tables import AirIndexName
from gateway.city.store.base import GOOD, NOT_EVALUATED, Event, EventPoint, LatestSensor, Reading, SensorKey
from gateway.city.view import View
from gateway.config import RuleConfig
from sensors.kinds import expressions

PREFIX = "rule:"
"""Begins the id of every event of a rule: ``rule:NAME:SUBJECT:SINCE``."""
_TOGETHER_MS = 600_000  # values of one sensor that are further apart are no moment that an expression could be about
_INTERVALS = 3  # of a sensor without a value, after which a condition has to hold anew
_INDEX_KIND = {
    "aqi": "air",
    "cai": "air",
    "us_aqi": "air",
    "congestion": "traffic",
    "water_class": "water",
    "water_over": "water",
    "noise_over": "noise",
}
_AIR: dict[str, AirIndexName] = {"aqi": "cn", "cai": "kr", "us_aqi": "us"}


class Sample(NamedTuple):
    """What a rule sees of a sensor or a place.

    Attributes:
        key: Of whom.
        time: Observed, ms UTC.
        value: In the quantity's unit.
        met: The condition holds.
        over: It is clearly over.
        gap: ms after which the next sample no longer continues this one.
    """

    key: SensorKey
    time: int
    value: float
    met: bool
    over: bool
    gap: float


@dataclass(slots=True)
class _Course:
    """How far a rule has come with a subject."""

    event: Event | None = None
    seen: int = -1  # time of the newest sample
    met_since: int | None = None
    over_since: int | None = None


@dataclass(slots=True)
class _Trail:
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


class Evaluation:
    """Evaluates rules.

    Args:
        rules: Those in force.
        view: What sensors and quantities are.
    """

    def __init__(self, rules: Rules, view: View) -> None:
        self._rules = rules
        self._view = view
        self._courses: dict[tuple[str, str], _Course] = {}
        self._configs: dict[str, RuleConfig] = {}
        self._trails: dict[tuple[str, SensorKey], _Trail] = {}
        self.watched: dict[str, int] = {}
        """How many sensors or places each rule looks at."""

    def restore(self, events: Iterable[Event]) -> None:
        """Takes up the running events of an earlier run."""
        for event in events:
            if event.last.id.startswith(PREFIX) and event.until is None:
                _, name, rest = event.last.id.split(":", 2)
                subject = rest.rpartition(":")[0]
                self._courses[name, subject] = _Course(event, seen=event.last.time, met_since=event.since)

    def running(self, name: str) -> int:
        """How many events of a rule run."""
        return sum(course.event is not None for (rule, _), course in list(self._courses.items()) if rule == name)

    def look(self, sensors: Mapping[str, LatestSensor], grades: GradesOut | None, now: int) -> list[Event]:
        """The events that began or ended.

        Args:
            sensors: The newest readings.
            grades: The indices of places, once they are known.
            now: ms UTC.
        """
        changed = self._end_those_of_no_rule(now)
        for name, rule in self._rules.rules.items():
            config = rule.config
            if self._configs.get(name) != config:
                self._begin_anew(name, config)
            samples = self._places(rule, grades, now) if config.index else self._sensors(rule, sensors, now)
            self.watched[name] = len(samples)
            if config.sensors > 1:
                samples = _together(config, samples, now)
            for subject, sample in samples.items():
                course = self._courses.setdefault((name, subject), _Course())
                event = self._step(config, subject, course, sample)
                if event is not None:
                    changed.append(event)
            if config.sensors == 1 and config.index is None:
                changed += self._end_in_maintenance(name, now)
        return changed

    def _begin_anew(self, name: str, config: RuleConfig) -> None:
        """A rule is new or another one: what runs goes on, but nothing has held so far."""
        self._configs[name] = config
        for (rule, _), course in self._courses.items():
            if rule == name:
                course.over_since, course.seen = None, -1
                course.met_since = course.met_since if course.event else None
        self._trails = {key: trail for key, trail in self._trails.items() if key[0] != name}

    def _end_those_of_no_rule(self, now: int) -> list[Event]:
        ended = []
        for key in [key for key in self._courses if key[0] not in self._rules.rules]:
            event = self._courses.pop(key).event
            self._configs.pop(key[0], None)
            self.watched.pop(key[0], None)
            if event is not None:
                ended.append(Event(event.last, event.since, now))
        return ended

    def _end_in_maintenance(self, name: str, now: int) -> list[Event]:
        ended = []
        for (rule, _), course in self._courses.items():
            if rule == name and course.event is not None and self._rules.excused(course.event.last.key, now):
                ended.append(Event(course.event.last, course.event.since, now))
                course.event = course.met_since = course.over_since = None
        return ended

    def _sensors(self, rule: Rule, sensors: Mapping[str, LatestSensor], now: int) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        for name, latest in sensors.items():
            if latest.readings and rule.patterns.fit(latest.key) and not self._rules.excused(latest.key, now):
                sample = self._sample(rule.config, latest, now)
                if sample is not None:
                    found[name] = sample
        return found

    def _sample(self, rule: RuleConfig, latest: LatestSensor, now: int) -> Sample | None:
        gap = _INTERVALS * 1000 * self._view.interval(latest.key)
        if rule.absent is not None:
            newest = max(reading.time for reading in latest.readings.values())
            met = now - newest > rule.absent * 1000
            return Sample(latest.key, now, (now - newest) / 1000, met, not met, float("inf"))
        if rule.when is not None:
            return _expression(rule.when, latest, gap)
        reading = latest.readings.get(rule.quantity or "")
        value = _good(reading)
        if reading is None or value is None:
            return None
        return self._judged(rule, latest.key, reading.time, value, gap)

    def _places(self, rule: Rule, grades: GradesOut | None, now: int) -> dict[str, Sample]:
        if grades is None:
            return {}
        config, found = rule.config, {}
        for place in [grades.town] if config.of == "town" else grades.sites:
            key = SensorKey(_INDEX_KIND[config.index or "aqi"], place.place, "")
            value = self._index(config.index or "aqi", place)
            if value is not None and (config.of == "town" or rule.patterns.fit(key)):
                found[key.id] = self._judged(config, key, now, value, float("inf"))
        return found

    def _index(self, name: str, place: PlaceGrades) -> float | None:
        match name:
            case "congestion":
                return None if place.traffic is None else place.traffic.index
            case "noise_over":
                return None if place.noise is None else place.noise.over
            case "water_over":
                return None if place.water is None else place.water.over
            case "water_class":
                levels = [level.name for level in self._view.grading.tables.water.levels]
                return None if place.water is None else levels.index(place.water.level) + 1
            case _:
                index = None if place.air is None else place.air.now.get(_AIR[name])
                return None if index is None or index.value is None else float(index.value)

    def _judged(self, rule: RuleConfig, key: SensorKey, time: int, value: float, gap: float) -> Sample:
        if rule.change is not None:
            trail = self._trails.setdefault((rule.name, key), _Trail())
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

    def _step(self, rule: RuleConfig, subject: str, course: _Course, sample: Sample) -> Event | None:
        if sample.time <= course.seen:
            return None
        broken = course.seen >= 0 and sample.time - course.seen > max(sample.gap, rule.hold * 1000)
        course.seen = sample.time
        if broken and course.event is None:
            course.met_since = None
        if sample.met:
            course.over_since = None
            course.met_since = sample.time if course.met_since is None else course.met_since
            if course.event is None and sample.time - course.met_since >= rule.hold * 1000:
                course.event = _begun(rule, subject, course.met_since, sample, self._unit(rule))
                return course.event
        elif course.event is None:
            course.met_since = None
        elif not sample.over:
            course.over_since = None
        else:
            course.over_since = sample.time if course.over_since is None else course.over_since
            if sample.time - course.over_since >= rule.release * 1000:
                event, course.event = course.event, None
                course.met_since = course.over_since = None
                return Event(event.last, event.since, sample.time)
        return None

    def _unit(self, rule: RuleConfig) -> str:
        return self._view.quantity(rule.kind or "", rule.quantity or "").unit


def _expression(text: str, latest: LatestSensor, gap: float) -> Sample | None:
    expression = expressions.read(text)
    values: dict[str, np.float64] = {}
    times = []
    for name in expression.names:
        reading = latest.readings.get(name)
        value = _good(reading)
        if reading is None or value is None:
            return None
        values[name] = np.float64(value)
        times.append(reading.time)
    if not times or max(times) - min(times) > _TOGETHER_MS:
        return None
    with np.errstate(all="ignore"):
        met = bool(expression.holds(values))
    return Sample(latest.key, max(times), float(values[expression.names[0]]), met, not met, gap)


def _together(rule: RuleConfig, samples: Mapping[str, Sample], now: int) -> dict[str, Sample]:
    """One sample for each place: the condition holds when it does at enough sensors, and is over when it is not.

    Sensors that have fallen silent do not count.
    """
    places: dict[str, list[Sample]] = {}
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


def _begun(rule: RuleConfig, subject: str, since: int, sample: Sample, unit: str) -> Event:
    limit = next((x for x in (rule.above, rule.below, rule.change, rule.absent) if x is not None), None)
    about = rule.quantity or rule.index or ("silence" if rule.absent is not None else rule.name)
    shown = f"{about} {sample.value:.4g} {unit}".strip() if rule.when is None else rule.when
    point = EventPoint(
        id=f"{PREFIX}{rule.name}:{subject}:{since}",
        time=sample.time,
        severity=rule.severity,
        key=sample.key,
        gateway="",
        quantity=about,
        value=sample.value,
        limit=None if rule.change is not None else limit,
        message=f"{rule.title.en}: {shown}",
    )
    return Event(point, since, None)


def _good(reading: Reading | None) -> float | None:
    return None if reading is None or reading.flag not in {GOOD, NOT_EVALUATED} else reading.value
