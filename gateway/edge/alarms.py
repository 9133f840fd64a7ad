"""Alarms: the gateway's own rules, for what a limit alone cannot say: how long, how fast, several sensors, expressions.

They need nothing but the values that come, so they work with the uplink down; what they raise waits in the spool with
everything else. The values that count are those that raise an event by a limit (`gateway.edge.watch`).

Which alarms run is in a file beside the spool before the batch that began them is committed, and stays there a minute
longer, so that the batch that ended them is committed by then. After a restart each is told again, with the same
identity, by the first value that comes: when power fails an alarm, or its end, is told twice, never not at all. How
long a condition has held so far is not kept.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from gateway.conditions import Course, Sample, Trail, about, expressed, judged, limit, together
from gateway.config import RuleConfig
from gateway.edge.keep import replace
from gateway.edge.readings import Channels, Flags, Readings, Sensor, widened
from gateway.edge.watch import counts
from sensors.kinds import expressions

_UNSURE_S = 60.0  # after its end, for which an alarm stays in the file

_log = logging.getLogger("citygate.alarms")


class Place(NamedTuple):
    """Who a sensor is."""

    kind: str
    site: str
    sensor: str


class Alarm(NamedTuple):
    """An alarm that begins, or ends.

    Attributes:
        rule: Name of its rule.
        key: The sensor; of several together the one that was worst as it began.
        since: When it began, ms UTC; with rule and sensor its identity.
        time: Observed, ms UTC.
        severity: A colour, or ``none`` when it ends.
        quantity: What its value is of.
        value: In the quantity's unit.
        limit: What was passed, if that is a value.
        message: In words.
    """

    rule: str
    key: Place
    since: int
    time: int
    severity: str
    quantity: str
    value: float
    limit: float | None
    message: str

    def line(self, gateway: str) -> str:
        """The point of the measurement ``event``, in line protocol."""
        kind, site, sensor = self.key
        passed = "" if self.limit is None else f"limit={self.limit!r},"
        message = self.message.replace("\\", "\\\\").replace('"', '\\"')
        return (
            f"event,gateway={gateway},kind={kind},sensor={sensor},severity={self.severity},site={site} "
            f'id="{kind}.{site}.{sensor}.{self.rule}.{self.since}",quantity="{self.quantity}",value={self.value!r},'
            f'{passed}message="{message}" {self.time}'
        )


@dataclass(slots=True)
class _Course(Course):
    """How far a rule has come with a subject.

    Attributes:
        alarm: What it began with, while it runs.
        told: It has been told since the start.
    """

    alarm: Alarm | None = None
    told: bool = True


_Subject = tuple[str, str]  # rule and sensor or site


class Alarms:
    """Evaluates a gateway's rules.

    Args:
        channels: All sensors and channels.
        rules: The rules.
        path: Where it is kept which alarms run; nowhere if there is none.
    """

    def __init__(self, channels: Channels, rules: Sequence[RuleConfig], path: Path | None = None) -> None:
        self._channels = channels
        self._rules = rules
        self._path = path
        self._about: Flags = np.empty(0, bool)  # of each channel: a rule is about it
        self._count = 0
        self._of: dict[int, list[RuleConfig]] = {}  # by the sensor's number
        self._courses: dict[_Subject, _Course] = defaultdict(_Course)
        self._before: dict[_Subject, _Course] = {}  # what the last batch changed
        self._trails: dict[_Subject, Trail] = defaultdict(Trail)
        self._latest: dict[Place, dict[str, tuple[int, float]]] = defaultdict(dict)
        self._samples: dict[str, dict[str, Sample[Place]]] = defaultdict(dict)  # of rules on several sensors
        self._gaps: dict[tuple[str, Place], float] = {}  # seconds after which the next value continues nothing
        self._ended: dict[str, Alarm] = {}  # that the file still has
        self._forget_at = float("inf")
        self._recall()

    def look(self, readings: Readings) -> list[Alarm]:
        """The alarms that began or ended."""
        self._before = {}
        self._make_room()
        if time.monotonic() > self._forget_at:
            self._ended, self._forget_at = {}, float("inf")
            self._save()
        its = self._about[readings.channel]
        if not its.any():
            return []
        found: list[Alarm] = []
        for sensor, moment, values in self._moments(readings, its):
            key = Place(sensor.family.kind, sensor.site, sensor.name)
            latest = self._latest[key]
            for name, value in values.items():
                if moment >= latest.get(name, (0, 0.0))[0]:
                    latest[name] = moment, value
            for rule in self._of[sensor.number]:
                if (sample := self._sample(rule, key, moment, values)) is not None:
                    found += self._step(rule, sample)
        if found:
            self._save()
        return found

    def undo(self) -> None:
        """Takes the last batch back."""
        self._courses.update(self._before)
        self._before = {}

    def _moments(self, readings: Readings, its: Flags) -> Iterator[tuple[Sensor, int, dict[str, float]]]:
        """Values that count of one sensor and time, in the order in which they came."""
        places = np.flatnonzero(its & counts(readings.flag, readings.reason))
        moments: dict[tuple[int, int], dict[str, float]] = {}
        for place in places.tolist():
            channel, moment = int(readings.channel[place]), int(readings.time[place])
            name = self._channels.rules.all[self._channels.rule[channel]].quantity
            moments.setdefault((int(self._channels.owner[channel]), moment), {})[name] = float(readings.value[place])
        for (owner, moment), values in moments.items():
            yield self._channels.sensors[owner], moment, values

    def _sample(self, rule: RuleConfig, key: Place, moment: int, values: dict[str, float]) -> Sample[Place] | None:
        gap = 1000 * self._gaps[rule.name, key]
        if rule.when is not None:
            return expressed(rule.when, key, self._latest[key], gap)
        value = values.get(rule.quantity or "")
        return None if value is None else judged(rule, self._trails[rule.name, ".".join(key)], key, moment, value, gap)

    def _step(self, rule: RuleConfig, sample: Sample[Place]) -> Iterator[Alarm]:
        samples = {".".join(sample.key): sample}
        if rule.sensors > 1:
            members = self._samples[rule.name]
            members.update(samples)
            here = {name: member for name, member in members.items() if member.key.site == sample.key.site}
            samples = together(rule, here, sample.time)
        for name, seen in samples.items():
            subject = rule.name, name
            course = self._courses[subject]
            self._before.setdefault(subject, copy(course))
            step = course.step(rule, seen)
            if step == "begins" or (course.alarm is not None and not course.told):
                course.told = True
                course.alarm = course.alarm or _begun(rule, seen, course.since or seen.time)
                yield course.alarm
            if step == "ends" and course.alarm is not None:
                yield course.alarm._replace(time=seen.time, value=seen.value, severity="none")
                self._ended["/".join(subject)] = course.alarm
                self._forget_at = time.monotonic() + _UNSURE_S
                course.alarm = None
                course.end()

    def _make_room(self) -> None:
        """Looks which rules are about new channels."""
        count = len(self._channels)
        if self._count == count:
            return
        self._about = widened(self._about, count)
        for channel in range(self._count, count):
            sensor = self._channels.sensors[self._channels.owner[channel]]
            its = self._channels.rules.all[self._channels.rule[channel]]
            fitting = [rule for rule in self._rules if _is_about(rule, sensor, its.quantity)]
            self._about[channel] = bool(fitting)
            known = self._of.setdefault(sensor.number, []) if fitting else []
            known += [rule for rule in fitting if rule not in known]
            for rule in fitting:
                self._gaps[rule.name, Place(sensor.family.kind, sensor.site, sensor.name)] = its.gap
        self._count = count

    def _save(self) -> None:
        if self._path is None:
            return
        running = {
            "/".join(subject): course.alarm for subject, course in self._courses.items() if course.alarm is not None
        }
        try:
            replace(self._path, msgspec.json.encode({**self._ended, **running}))
        except OSError as error:
            _log.error("%s: which alarms run is not kept: %s", self._path, error)

    def _recall(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            running = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Alarm])
        except (OSError, msgspec.MsgspecError) as error:
            _log.error("%s: which alarms ran is not known: %s", self._path, error)
            return
        names = {rule.name for rule in self._rules}
        for subject, alarm in running.items():
            rule, _, name = subject.partition("/")
            if rule in names:
                self._courses[rule, name] = _Course(alarm.since, -1, alarm.since, None, alarm, told=False)


def _is_about(rule: RuleConfig, sensor: Sensor, quantity: str) -> bool:
    names = (rule.quantity,) if rule.when is None else expressions.read(rule.when).names
    return (
        quantity in names
        and fnmatchcase(sensor.family.kind, rule.kind or "*")
        and fnmatchcase(sensor.site, rule.site)
        and fnmatchcase(sensor.name, rule.sensor)
    )


def _begun(rule: RuleConfig, sample: Sample[Place], since: int) -> Alarm:
    shown = rule.when or f"{about(rule)} {sample.value:.4g}"
    return Alarm(
        rule=rule.name,
        key=sample.key,
        since=since,
        time=sample.time,
        severity=rule.severity,
        quantity=about(rule),
        value=sample.value,
        limit=limit(rule),
        message=f"{rule.title.en}: {shown} at {sample.key.site}",
    )
