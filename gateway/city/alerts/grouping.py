"""Grouping: which alert an event belongs to, and what becomes of an alert when its events change."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.city.alerts.families import Cause
from gateway.city.alerts.models import Kept
from gateway.city.alerts.origin import distance_km, site_point
from gateway.city.registry import Registry
from gateway.city.store.base import Event
from sensors.kinds import SEVERITIES, Severity

_MEMBERS = 200
"""Events that an alert names; of more, the earliest that have ended are no longer named."""


class _Fit(NamedTuple):
    same_site: bool
    open: bool
    newest: int


def rank(severity: str) -> int:
    """How grave: 0 blue … 3 red; -1 for none."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def home(alerts: Iterable[Kept], event: Event, cause: Cause, registry: Registry, quiet: int) -> Kept | None:
    """The alert that an event joins; None when it begins one.

    Args:
        alerts: Those that there are.
        event: The event.
        cause: Its cause.
        registry: Where sites and rivers are.
        quiet: After an alert's end, in ms, for which an event still joins it, and opens it again.
    """
    best: tuple[_Fit, Kept] | None = None
    for alert in alerts:
        if alert.cause != cause.name:
            continue
        same = event.last.key.site in alert.sites
        end = float("inf") if alert.until is None else alert.until + quiet
        event_end = float("inf") if event.until is None else event.until
        if not alert.since - quiet <= event_end or event.since > end:
            continue
        if not same and not (
            abs(event.since - alert.newest) <= cause.family.window * 1000 and _near(alert, event, cause, registry)
        ):
            continue
        fit = _Fit(same, alert.until is None, alert.newest)
        if best is None or fit > best[0]:
            best = fit, alert
    return None if best is None else best[1]


def _near(alert: Kept, event: Event, cause: Cause, registry: Registry) -> bool:
    if cause.family.river:
        here = registry.sensors.get(event.last.key)
        if here is not None and here.river is not None:
            keys = (member.last.key for member in alert.members.values())
            return any((place := registry.sensors.get(key)) and place.river == here.river for key in keys)
    point = site_point(registry, event.last.key.site)
    if cause.family.reach_km == 0 or point is None:
        return False
    points = (site_point(registry, site) for site in alert.sites)
    return any(other is not None and distance_km(point, other) <= cause.family.reach_km for other in points)


def settle(alert: Kept, now: int, excused: Callable[[Event], bool] = lambda _: False) -> bool:
    """Draws an alert's severity and end from its events; notes a revision when one acts upon what changed.

    Args:
        alert: It is changed.
        now: ms UTC.
        excused: Which events count as over, because their sensor is in maintenance.

    Returns:
        Whether there is a new revision.
    """
    true = [event for name, event in alert.members.items() if name not in alert.withdrawn]
    running = [event for event in true if event.until is None and not excused(event)]
    severity = _gravest(running or true or alert.members.values())
    until = None if running else max(event.until or alert.until or now for event in alert.members.values())
    since = min([alert.since, *(event.since for event in alert.members.values())])
    different = (severity, until) != (alert.severity, alert.until)
    alert.severity, alert.until, alert.since = severity, until, since
    if different:
        revise(alert, now)
    surplus = len(alert.members) - _MEMBERS
    if surplus > 0:
        ended = sorted((event.since, name) for name, event in alert.members.items() if event.until is not None)
        for _, name in ended[:surplus]:
            del alert.members[name]
            alert.titles.pop(name, None)
            alert.withdrawn.pop(name, None)
    return different


def revise(alert: Kept, now: int) -> None:
    """Notes that an alert changed, at a time in ms UTC; no two revisions have the same."""
    alert.revisions.append(max(now, alert.revisions[-1] + 1))


def _gravest(events: Iterable[Event]) -> Severity:
    return SEVERITIES[max(rank(event.last.severity) for event in events)]
