"""The desk: events arrive, are put together with those of the same cause, located, and written into the book.

It looks at what the view has fetched, so the store is not asked more often for it. An event is on disk in its alert
before anybody is told of it; after a restart the desk goes on where the book ends.
"""

import asyncio
import hashlib
import itertools
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from gateway.city import view as city
from gateway.city.alerts import cap, grouping, origin
from gateway.city.alerts.book import Book, Letter
from gateway.city.alerts.channels import Channels
from gateway.city.alerts.evaluate import PREFIX, Evaluation
from gateway.city.alerts.families import Cause, cause
from gateway.city.alerts.faults import Faults
from gateway.city.alerts.models import (
    Acknowledgement,
    AlertEvent,
    AlertOut,
    ChannelOut,
    ChannelsOut,
    Kept,
    RuleOut,
    RulesOut,
)
from gateway.city.alerts.rules import Listed, Rules
from gateway.city.alerts.wording import What
from gateway.city.models import iso
from gateway.city.registry import WatchedGeoJson
from gateway.city.store.base import Event, StoreError
from gateway.city.view import Snapshot, View
from gateway.config import AlertsSection, ChannelConfig, written
from sensors.kinds import SEVERITIES, Title

_Done = TypeVar("_Done")
_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
_PRUNE_EVERY_S = 3600.0
_REMEMBERED = 300  # alerts in memory beside the open ones
_OLD_MS = 86_400_000  # an event that ended longer ago begins no alert
_WIND_MS = 900_000  # for so long after an event began it is tried to find the wind
_WIND_EVERY_S = 20.0
_ASKED_AT_ONCE = 20
_UNSAFE = re.compile(r"[^\w.-]")  # in the identifiers of CAP, and in an address


class Desk:
    """Keeps the alerts.

    Args:
        view: The city as it is now.
        config: The section ``[alerts]``.
        path: File of the book.
        sources: GeoJSON of sources of pollution, if there is one.
        channels: Where alerts are told.

    Attributes:
        version: Grows with every change of an alert.
        faults: Which events were faults of sensors.

    Raises:
        ConfigError: If the file of rules has a mistake.
    """

    def __init__(
        self,
        view: View,
        config: AlertsSection,
        path: Path,
        sources: Path | None,
        channels: tuple[ChannelConfig, ...] = (),
    ) -> None:
        self.version = 0
        self._view = view
        self._config = config
        self._book = Book(path)
        self._channels = Channels(channels, self._book, view)
        self._letters: list[Letter] = []
        self._origins = origin.Origins(view.store, config)
        self.faults = Faults(view.store)
        self._rules = Rules(config.rules, view.maintenance, config.page_rules or path.with_name("page-rules.toml"))
        self._evaluation = Evaluation(self._rules, view)
        self._source_file = WatchedGeoJson(sources)
        self._sources: list[origin.DeclaredSource] = []
        self._alerts: dict[str, Kept] = {}
        self._of: dict[str, str] = {}  # event → alert
        self._changed: dict[str, int] = {}  # alert → version
        self._unwritten: set[str] = set()
        self._passed_over: set[str] = set()  # events that began in maintenance
        self._tried: dict[tuple[str, str], float] = {}
        self._seen: Snapshot | None = None
        self._lock = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the book and looks at what comes, until it is closed.

        Raises:
            StoreError: If the book cannot be used.
        """
        await asyncio.to_thread(self._book.open)
        for alert in await asyncio.to_thread(self._book.recent, _REMEMBERED):
            self._alerts[alert.id] = alert
            self._of.update(dict.fromkeys(alert.members, alert.id))
            self._changed[alert.id] = 0
            self._evaluation.restore(alert.members.values())
        self._running = asyncio.create_task(self._run())
        self._channels.start()

    async def close(self) -> None:
        """Ends; what was looked at is in the book."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._channels.close()
        await asyncio.to_thread(self._book.close)

    async def _run(self) -> None:
        failing, pruned = False, float("-inf")
        while True:
            try:
                await self.look()
                if time.monotonic() - pruned > _PRUNE_EVERY_S:
                    pruned = time.monotonic()
                    before = city.now_ms() - round(self._config.retention * 1000)
                    await asyncio.to_thread(self._book.prune, before)
                failing = False
            except StoreError as error:
                if not failing:
                    _LOG.warning("alerts wait: %s", error)
                failing = True
            except Exception:  # noqa: BLE001 - one bad look must not end all later ones
                _LOG.exception("a look for alerts failed")
            await asyncio.sleep(max(_LOOK_S, self._view.store.freshness))

    async def look(self) -> None:
        """Takes in what is new.

        Raises:
            StoreError: If the store or the book cannot be used.
        """
        async with self._lock:
            snapshot = await self._view.snapshot()
            if snapshot is not self._seen:
                now = city.now_ms()
                if self._source_file.refresh() and self._source_file.content is not None:
                    self._sources = origin.read_sources(self._source_file.content)
                self._rules.refresh()
                for event in await self._news(snapshot, now):
                    self._take(event, now)
                indices = any(rule.config.index for rule in self._rules.rules.values())
                grades = self._view.grades_soon(snapshot, now) if indices else None
                # hundreds of sensors take some milliseconds, for which nobody else has to wait
                found = await asyncio.to_thread(
                    self._evaluation.look, snapshot.sensors, grades.out if grades else None, now
                )
                for event in found:
                    rule = self._rules.rules.get(event.last.id.split(":", 2)[1])
                    self._take(event, now, rule.config.title if rule else None)
                await self.faults.refresh(now)
                self._excuse(now)
                for alert in self._alerts.values():
                    if alert.until is None or alert.id in self._unwritten:
                        await self._locate(alert, snapshot, now)
                for alert in self._alerts.values():
                    self._tell(alert, now)
                self._forget(snapshot)
            await self._write()
            self._seen = snapshot

    async def acknowledge(self, name: str, by: str, note: str) -> AlertOut | None:
        """Notes that somebody has taken notice; None if there is no such alert.

        Raises:
            StoreError: If it cannot be written down.
        """
        async with self._lock:
            alert = self._alerts.get(name)
            if alert is None:
                return None
            alert.acknowledged = Acknowledgement(time=iso(city.now_ms()), by=by, note=note, severity=alert.severity)
            self._touch(alert)
            await self._write()
            return self.describe(alert)

    def get(self, name: str) -> Kept | None:
        """An alert by its id, or by that of one of its events."""
        return self._alerts.get(name) or self._alerts.get(self._of.get(name, ""))

    def alerts(self, since_version: int = -1) -> list[AlertOut]:
        """The alerts that changed since a version: open ones first, the gravest on top, then the newest."""
        chosen = (alert for name, alert in self._alerts.items() if self._changed[name] > since_version)
        return [self.describe(alert) for alert in sorted(chosen, key=_urgency)]

    def between(self, start: int, end: int) -> list[Kept]:
        """The alerts that began with start <= time < end, in ms UTC, as they are kept.

        Raises:
            StoreError: If the file of alerts cannot be read.
        """
        return self._book.between(start, end)

    def cap(self, alert: Kept) -> bytes:
        """An alert as Common Alerting Protocol 1.2."""
        return cap.document(alert, self._view, self._config)

    async def channels(self) -> ChannelsOut:
        """The channels.

        Raises:
            StoreError: If the book cannot be read.
        """
        waiting = await asyncio.to_thread(self._book.waiting)
        return ChannelsOut(
            channels=[
                ChannelOut(
                    name=config.name,
                    type=config.type,
                    severity=config.severity,
                    waiting=waiting.get(config.name, 0),
                    problem=self._channels.problems[config.name],
                )
                for config in self._channels.configs
            ]
        )

    def rules(self) -> RulesOut:
        """All rules, in force or not."""
        return RulesOut(
            problem=self._rules.problem,
            tag=self._rules.tag,
            rules=[self._rule(one) for one in self._rules.listed()],
        )

    def _rule(self, one: Listed) -> RuleOut:
        name = one.config.name
        return RuleOut(
            name=name,
            title=one.config.title,
            severity=one.config.severity,
            enabled=one.config.enabled,
            of_page=one.of_page,
            in_file=one.in_file,
            settings=written(one.config),
            watched=self._evaluation.watched.get(name, 0),
            running=self._evaluation.running(name),
        )

    async def edit(self, change: Callable[[Rules], _Done]) -> _Done:
        """Has the rules changed, between two looks; the next look goes by them.

        Raises:
            EditError: If it cannot be done.
            OSError: If the file cannot be written.
        """
        async with self._lock:
            done = await asyncio.to_thread(change, self._rules)
            self._seen = None
        return done

    def describe(self, alert: Kept) -> AlertOut:
        """An alert for the API."""
        events = sorted(
            alert.members.values(),
            key=lambda event: (event.until is not None, -grouping.rank(event.last.severity), -event.last.time),
        )
        return AlertOut(
            id=alert.id,
            cause=alert.cause,
            title=alert.family.title,
            severity=alert.severity,
            state=_state(alert),
            since=iso(alert.since),
            until=None if alert.until is None else iso(alert.until),
            time=iso(alert.revisions[-1]),
            revision=len(alert.revisions),
            sites=alert.sites,
            events=[AlertEvent(**dict(city.event(event)), rule=alert.titles.get(event.last.id)) for event in events],
            wind=list(alert.wind.values()),
            sources=alert.sources,
            upstream=alert.upstream,
            acknowledged=alert.acknowledged,
            withdrawn=next(iter(alert.withdrawn.values())) if alert.withdrawn.keys() >= alert.members.keys() else None,
        )

    async def _news(self, snapshot: Snapshot, now: int) -> list[Event]:
        """Events that began or changed, in the order in which they began."""
        found = {event.last.id: event for event in snapshot.events}
        lost = [
            event
            for alert in self._alerts.values()
            if alert.until is None
            for event in alert.members.values()
            if event.until is None and event.last.id not in found and not event.last.id.startswith(PREFIX)
        ]
        for event in itertools.islice(lost, _ASKED_AT_ONCE):  # a flood has pushed them out of the newest
            same = [e for e in await self._view.store.events(50, key=event.last.key) if e.last.id == event.last.id]
            found[event.last.id] = same[0] if same else Event(event.last, event.since, event.last.time)
        return sorted(
            (event for event in found.values() if self._is_news(event, now)),
            key=lambda event: (event.since, event.last.id),
        )

    def _is_news(self, event: Event, now: int) -> bool:
        name = self._of.get(event.last.id)
        if name is None:
            if self._rules.excused(event.last.key, now):
                self._passed_over.add(event.last.id)
                return False
            if event.until is None:
                return True
            return event.until > now - _OLD_MS and event.last.id not in self._passed_over
        alert = self._alerts.get(name)
        return alert is not None and event.last.id in alert.members and alert.members[event.last.id] != event

    def _take(self, event: Event, now: int, title: Title | None = None) -> None:
        alert = self._alerts.get(self._of.get(event.last.id, ""))
        if alert is None:
            its = self._cause(event, title)
            quiet = round(self._config.quiet * 1000)
            alert = grouping.home(self._alerts.values(), event, its, self._view.places, quiet)
            if alert is None:
                alert = self._begin(event, its, now)
            elif event.last.key.site not in alert.sites:
                grouping.revise(alert, now)
            self._of[event.last.id] = alert.id
        alert.members[event.last.id] = event
        if title is not None:
            alert.titles[event.last.id] = title
        grouping.settle(alert, now, lambda its: self._rules.excused(its.last.key, now))
        self._touch(alert)

    def _excuse(self, now: int) -> None:
        """Events of sensors in maintenance count as over while it lasts, and again when it has passed.

        What was a fault of its sensor was none.
        """
        for alert in self._alerts.values():
            running = any(event.until is None for event in alert.members.values())
            if self.faults.withdraw(alert, self._view.maintenance.cases):
                self._touch(alert)
                running = True
            if running and grouping.settle(alert, now, lambda its: self._rules.excused(its.last.key, now)):
                self._touch(alert)

    def _cause(self, event: Event, title: Title | None) -> Cause:
        kind, quantity = event.last.key.kind, event.last.quantity
        return cause(kind, quantity, title or self._view.quantity(kind, quantity).title)

    def _begin(self, event: Event, its: Cause, now: int) -> Kept:
        moment = datetime.fromtimestamp(event.since / 1000, UTC)
        mark = hashlib.sha256(event.last.id.encode()).hexdigest()[:6]
        alert = Kept(
            id=f"{_UNSAFE.sub('_', its.name)}-{moment:%Y%m%dT%H%M%SZ}-{mark}",
            cause=its.name,
            family=its.family,
            members={event.last.id: event},
            since=event.since,
            until=event.until,
            severity=SEVERITIES[grouping.rank(event.last.severity)],
            revisions=[now],
        )
        self._alerts[alert.id] = alert
        return alert

    def _touch(self, alert: Kept) -> None:
        self.version += 1
        self._changed[alert.id] = self.version
        self._unwritten.add(alert.id)

    async def _locate(self, alert: Kept, snapshot: Snapshot, now: int) -> None:
        before = alert.wind, alert.sources
        if alert.family.upwind:
            for site in alert.sites:
                began = min(event.since for event in alert.members.values() if event.last.key.site == site)
                tried = self._tried.get((alert.id, site), float("-inf"))
                late = now - began > _WIND_MS and alert.id not in self._unwritten
                if site in alert.wind or late or time.monotonic() - tried < _WIND_EVERY_S:
                    continue
                self._tried[alert.id, site] = time.monotonic()
                try:
                    sector = await self._origins.wind(site, began, self._view.places, snapshot.sensors.values())
                except StoreError as error:
                    _LOG.warning("the wind at %s is not known: %s", site, error)
                    continue
                if sector is not None:
                    alert.wind = {**alert.wind, site: sector}
            if alert.id in self._unwritten or alert.wind != before[0]:
                alert.sources = self._origins.sources(alert, self._view.places, self._sources)
        if alert.family.river and alert.id in self._unwritten:
            alert.upstream = origin.upstream(alert, self._view, self._view.places, snapshot.sensors)
        if (alert.wind, alert.sources) != before:
            self._touch(alert)

    def _tell(self, alert: Kept, now: int) -> None:
        """Has channels told what began, became graver, or has been over for so long that it stays so."""
        if not self._channels.configs:
            return
        what = self._due(alert, now)
        if what is not None:
            alert.told, alert.told_end = (alert.told, True) if what == "ended" else (alert.severity, False)
            self._letters += self._channels.letters(alert, self.describe(alert), what, now)
            self._touch(alert)

    def _due(self, alert: Kept, now: int) -> What | None:
        if alert.until is not None:
            lasts = now - alert.until >= self._config.quiet * 1000
            return "ended" if lasts and alert.told is not None and not alert.told_end else None
        if alert.told is None:
            return "begins"
        return "graver" if grouping.rank(alert.severity) > grouping.rank(alert.told) else None

    def _forget(self, snapshot: Snapshot) -> None:
        """Lets go of what ended long ago, so that memory does not grow; the book still has it."""
        ended = sorted((a.revisions[-1], a.id) for a in self._alerts.values() if a.until is not None)
        for _, name in ended[: max(0, len(ended) - _REMEMBERED)]:
            if name not in self._unwritten:
                del self._alerts[name], self._changed[name]
        shown = {event.last.id for event in snapshot.events}
        self._passed_over &= shown
        named = shown.union(*(a.members for a in self._alerts.values()))
        self._of = {event: alert for event, alert in self._of.items() if event in named}
        self._tried = {key: moment for key, moment in self._tried.items() if key[0] in self._alerts}

    async def _write(self) -> None:
        if self._unwritten:
            names = sorted(self._unwritten)
            letters = list(self._letters)
            await asyncio.to_thread(self._book.write, [self._alerts[name] for name in names], letters)
            self._unwritten.difference_update(names)
            del self._letters[: len(letters)]
            if letters:
                self._channels.notify()


def _state(alert: Kept) -> Literal["open", "acknowledged", "ended"]:
    if alert.until is not None:
        return "ended"
    taken = alert.acknowledged
    return "acknowledged" if taken and grouping.rank(taken.severity) >= grouping.rank(alert.severity) else "open"


_ORDER = ("open", "acknowledged", "ended")


def _urgency(alert: Kept) -> tuple[int, int, int]:
    state = _state(alert)
    grave = 0 if state == "ended" else -grouping.rank(alert.severity)
    return _ORDER.index(state), grave, -(alert.until or alert.newest)
