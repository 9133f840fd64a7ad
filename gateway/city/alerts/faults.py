"""Faults: which events of alerts were none, by what is known of their sensors.

An event whose sensor's fault has an open case is one of a sensor in maintenance. A verdict of the filter that comes
after an event, of a fault in which the event began, takes it back for good.
"""

import time
from collections import defaultdict
from collections.abc import Iterable

from gateway.city.alerts.models import Kept
from gateway.city.store.base import UNDECIDED, Event, SensorKey, Store, Verdict

MAINTENANCE = "maintenance"
"""Why an event was withdrawn that a verdict has not named."""
_EVERY_S = 30.0
_BACK_MS = 2 * 86_400_000  # verdicts on readings of that time are looked at


class Faults:
    """Says which events were faults.

    Args:
        store: Where verdicts are.

    Attributes:
        told: Of sensors whose events a verdict took back, what it said; whoever makes a case of it takes it out.
    """

    def __init__(self, store: Store) -> None:
        self.told: dict[str, str] = {}
        self._store = store
        self._asked = float("-inf")
        self._verdicts: dict[tuple[SensorKey, str], list[Verdict]] = {}

    async def refresh(self, now: int) -> None:
        """Asks for verdicts, if that is due.

        Raises:
            StoreError: If the store does not answer.
        """
        if time.monotonic() - self._asked < _EVERY_S:
            return
        self._asked = time.monotonic()
        found: dict[tuple[SensorKey, str], list[Verdict]] = defaultdict(list)
        for verdict in await self._store.verdicts(now - _BACK_MS, now + 1):
            if verdict.what != UNDECIDED:
                found[verdict.key, verdict.quantity].append(verdict)
        self._verdicts = found

    def withdraw(self, alert: Kept, faulty: Iterable[str]) -> bool:
        """Notes which events of an alert were none; True if that has changed.

        Args:
            alert: It is changed.
            faulty: Ids of the sensors whose faults have an open case.
        """
        withdrawn = dict(alert.withdrawn)
        for name, event in alert.members.items():
            if (fault := self._fault(event)) is not None:
                if withdrawn.get(name) != fault.what:
                    self.told[event.last.key.id] = f"{fault.what}: {event.last.quantity} ({fault.reason})"
                withdrawn[name] = fault.what
            elif event.until is None:
                if event.last.key.id in faulty:
                    withdrawn.setdefault(name, MAINTENANCE)
                elif withdrawn.get(name) == MAINTENANCE:
                    del withdrawn[name]
        changed = withdrawn != alert.withdrawn
        alert.withdrawn = withdrawn
        return changed

    def _fault(self, event: Event) -> Verdict | None:
        """The fault in which an event began."""
        said = self._verdicts.get((event.last.key, event.last.quantity), ())
        return next((v for v in said if v.since <= event.since and (v.lasts or event.since <= v.until)), None)
