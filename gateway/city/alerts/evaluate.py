"""Rules on what the sensors say: when an event begins, and when it ends.

A rule looks at the newest good value of each sensor whenever a newer one has come (`gateway.conditions`). Suspect and
failed values say nothing. A sensor that falls silent leaves its event as it is.

Which events run is kept with the alerts; how long a condition has held so far is not, and is counted anew after a
restart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.city.alerts.rules import Rule, Rules
from gateway.city.grade_models import GradesOut, PlaceGrades
from gateway.city.grades.tables import AirIndexName
from gateway.city.store.base import GOOD, NOT_EVALUATED, Event, EventPoint, LatestSensor, Reading, SensorKey
from gateway.city.view import View
from gateway.conditions import GAP_INTERVALS, Course, Sample, Trail, about, expressed, judged, limit, together
from gateway.config import RuleConfig

PREFIX = "rule:"
"""Begins the id of every event of a rule: ``rule:NAME:SUBJECT:SINCE``."""
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


@dataclass(slots=True)
class _Course(Course):
    """How far a rule has come with a subject, and its event while it runs."""

    event: Event | None = None


class Evaluation:
    """Evaluates rules.

    Args:
        rules: Those in force.
        view: What sensors and quantities are.
        step: Seconds between two looks, where readings come no more often than these.
    """

    def __init__(self, rules: Rules, view: View, step: float = 0.0) -> None:
        self._every = step
        self._rules = rules
        self._view = view
        self._courses: dict[tuple[str, str], _Course] = {}
        self._configs: dict[str, RuleConfig] = {}
        self._trails: dict[tuple[str, SensorKey], Trail] = {}
        self.watched: dict[str, int] = {}
        """How many sensors or places each rule looks at."""

    def restore(self, events: Iterable[Event]) -> None:
        """Takes up the running events of an earlier run."""
        for event in events:
            if event.last.id.startswith(PREFIX) and event.until is None:
                _, name, rest = event.last.id.split(":", 2)
                subject = rest.rpartition(":")[0]
                self._courses[name, subject] = _Course(
                    since=event.since, seen=event.last.time, met_since=event.since, event=event
                )

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
                samples = together(config, samples, now)
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
                course.begin_anew()
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
                course.event = None
                course.end()
        return ended

    def _sensors(self, rule: Rule, sensors: Mapping[str, LatestSensor], now: int) -> dict[str, Sample[SensorKey]]:
        found: dict[str, Sample[SensorKey]] = {}
        for name, latest in sensors.items():
            if latest.readings and rule.patterns.fit(latest.key) and not self._rules.excused(latest.key, now):
                sample = self._sample(rule.config, latest, now)
                if sample is not None:
                    found[name] = sample
        return found

    def _sample(self, rule: RuleConfig, latest: LatestSensor, now: int) -> Sample[SensorKey] | None:
        gap = GAP_INTERVALS * 1000 * max(self._every, self._view.interval(latest.key))
        if rule.absent is not None:
            newest = max(reading.time for reading in latest.readings.values())
            met = now - newest > rule.absent * 1000
            return Sample(latest.key, now, (now - newest) / 1000, met, not met, float("inf"))
        if rule.when is not None:
            good = {name: (r.time, value) for name, r in latest.readings.items() if (value := _good(r)) is not None}
            return expressed(rule.when, latest.key, good, gap)
        reading = latest.readings.get(rule.quantity or "")
        value = _good(reading)
        if reading is None or value is None:
            return None
        return self._judged(rule, latest.key, reading.time, value, gap)

    def _places(self, rule: Rule, grades: GradesOut | None, now: int) -> dict[str, Sample[SensorKey]]:
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

    def _judged(self, rule: RuleConfig, key: SensorKey, time: int, value: float, gap: float) -> Sample[SensorKey]:
        return judged(rule, self._trails.setdefault((rule.name, key), Trail()), key, time, value, gap)

    def _step(self, rule: RuleConfig, subject: str, course: _Course, sample: Sample[SensorKey]) -> Event | None:
        match course.step(rule, sample):
            case "begins":
                course.event = _begun(rule, subject, course.since or sample.time, sample, self._unit(rule))
                return course.event
            case "ends" if (event := course.event) is not None:
                course.event = None
                course.end()
                return Event(event.last, event.since, sample.time)
        return None

    def _unit(self, rule: RuleConfig) -> str:
        return self._view.quantity(rule.kind or "", rule.quantity or "").unit


def _begun(rule: RuleConfig, subject: str, since: int, sample: Sample[SensorKey], unit: str) -> Event:
    shown = f"{about(rule)} {sample.value:.4g} {unit}".strip() if rule.when is None else rule.when
    point = EventPoint(
        id=f"{PREFIX}{rule.name}:{subject}:{since}",
        time=sample.time,
        severity=rule.severity,
        key=sample.key,
        gateway="",
        quantity=about(rule),
        value=sample.value,
        limit=limit(rule),
        message=f"{rule.title.en}: {shown}",
    )
    return Event(point, since, None)


def _good(reading: Reading | None) -> float | None:
    return None if reading is None or reading.flag not in {GOOD, NOT_EVALUATED} else reading.value
