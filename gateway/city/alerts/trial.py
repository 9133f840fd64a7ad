"""A rule tried on the past: what it would have raised, judged by the means of steps instead of by every value.

The steps are as short as a bounded effort allows; a peak shorter than a step is lost in its mean.
"""

import asyncio

from gateway.city.alerts.evaluate import Evaluation
from gateway.city.alerts.rules import Rule, Rules
from gateway.city.store.base import GOOD, Event, LatestSensor, Means, Reading, SensorKey
from gateway.city.view import View
from gateway.config import CityRuleConfig
from sensors.kinds import expressions

_DAY_MS = 86_400_000
_STEPS_S = (60, 300, 600, 900, 1800, 3600)
_LOOKS = 150_000  # of a sensor, at a step: some seconds


async def of(view: View, config: CityRuleConfig, now: int, days: int) -> tuple[int, int, list[Event]]:
    """Tries a rule about sensors on the last days.

    Args:
        view: Where readings are.
        config: The rule; not of an index.
        now: ms UTC.
        days: How far back.

    Returns:
        How many sensors it looks at; seconds of a step; its events, in the order in which they began.

    Raises:
        StoreError: If the store does not answer.
    """
    rule = Rule(config)
    latest = (await view.snapshot()).sensors.values()
    known = [sensor for sensor in latest if rule.patterns.fit(sensor.key)]
    quantities = _quantities(config, known)
    of_kind = max(1, sum(sensor.key.kind == config.kind for sensor in latest) * len(quantities))
    step = next((step for step in _STEPS_S if of_kind * days * 86400 // step <= _LOOKS), _STEPS_S[-1])
    rules = Rules(None)
    rules.rules = {config.name: rule}
    evaluation = Evaluation(rules, view, step)
    sensors = {sensor.key.id: LatestSensor(sensor.key, sensor.gateway) for sensor in known}
    events: dict[str, Event] = {}
    step_ms = step * 1000
    for start in range((now - days * _DAY_MS) // step_ms * step_ms, now, _DAY_MS):
        end = min(start + _DAY_MS, now + 1)
        means = await view.store.means(config.kind or "", quantities, start, end, step_ms, energy=False)
        looks = range(start + step_ms, end + step_ms, step_ms)
        for event in await asyncio.to_thread(_look, evaluation, sensors, means, looks):
            events[event.last.id] = event
    return len(known), step, sorted(events.values(), key=lambda event: (event.since, event.last.id))


def _quantities(config: CityRuleConfig, known: list[LatestSensor]) -> list[str]:
    if config.quantity is not None:
        return [config.quantity]
    if config.when is not None:
        return list(expressions.read(config.when).names)
    return sorted({name for sensor in known for name in sensor.readings})


def _look(evaluation: Evaluation, sensors: dict[str, LatestSensor], means: Means, looks: range) -> list[Event]:
    """The events that began or ended when one looks at the end of each step."""
    steps: dict[int, list[tuple[SensorKey, str, float]]] = {}
    for (key, quantity), values in means.items():
        for value in values:
            steps.setdefault(value.time + looks.step, []).append((key, quantity, value.mean))
    found: list[Event] = []
    for time in looks:
        for key, quantity, mean in steps.get(time, ()):
            if (sensor := sensors.get(key.id)) is not None:
                sensor.readings[quantity] = Reading(time, mean, GOOD)
        found += evaluation.look(sensors, None, time)
    return found
