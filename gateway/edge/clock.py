"""The gateway's own time, on devices that forget the time without power and are put right while they run.

Time is counted by the kernel's clock since boot, which nobody sets; the system's clock only says where that count
stands. Until it can be believed, messages are stamped with the time since boot alone, and dated later. Afterwards the
gateway's time never runs backwards, so that no reading is stored before an earlier one, or over it: see `Clock`.
"""

import ctypes
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.config import ClockConfig
from gateway.edge.batch import Boot, RawBatch

log = logging.getLogger("citygate.clock")

RELEASE = 1_767_225_600_000
"""No clock that shows less is right: 2026-01-01, before this program was."""
SET_BACK_MOST = 86_400_000
"""Up to this much, ms, a clock set back is met at half speed; more is doubted."""

_NOTICED = 1000  # ms; smaller corrections are a time service's daily work
_READING = 2  # ms by which two readings of clocks that agree may differ
_BEFORE_KNOWN = 60_000  # ms by which the time of the last run may be missed
_SERVICES = ("systemd/timesync", "chrony", "ntpd.pid", "openntpd")
_TIME_ERROR = 5


def _wall() -> int:
    return time.time_ns() // 1_000_000


def _since_boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # hidden by a sandbox: then this run is told apart from every other
        return str(uuid.uuid4())


def synchronised() -> bool:
    """Whether the kernel says that a time service keeps its clock right."""
    try:
        answer = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # all zero: only asks
    except AttributeError:
        answer = -1
    if answer < 0:  # forbidden by a sandbox
        return Path("/run/systemd/timesync/synchronized").exists()
    return answer != _TIME_ERROR


def served(run: Path = Path("/run")) -> bool:
    """Whether a time service runs: systemd-timesyncd, chrony, ntpd, ntpsec or openntpd."""
    return any((run / name).exists() for name in _SERVICES)


@dataclass(frozen=True, slots=True)
class System:
    """What a :class:`Clock` reads.

    Attributes:
        wall: The system's clock, ms UTC.
        since_boot: Time since boot, suspended time included, ms.
        synchronised: Whether the kernel says that the system's clock is synchronised.
        served: Whether a time service runs.
        boot_id: Names this run of the machine.
    """

    wall: Callable[[], int] = _wall
    since_boot: Callable[[], int] = _since_boot
    synchronised: Callable[[], bool] = synchronised
    served: Callable[[], bool] = served
    boot_id: Callable[[], str] = _boot_id


class Clock:
    """The gateway's own time.

    The system's clock is believed when it is not before the last time known here and, where a time service is to be
    waited for, synchronised; or when patience is over; but never before :data:`RELEASE`. Until then :meth:`now` is the
    time since boot.

    Once believed, it is followed: forward at once; set back by up to a day, at half speed until both meet; set back by
    more, only when the kernel says that it is synchronised, or when patience is over. That last case is the only one in
    which :meth:`now` decreases.

    Args:
        config: Whom to believe, and for how long to wait.
        known_time: Latest time that was known in an earlier run, ms UTC; 0 if none was.
        system: What it reads.

    Attributes:
        known: Whether the time is known; never lost again. False until the first :meth:`check`.
        boot_id: Names this run of the machine.
        boot: While it is not known, of which run of the machine :meth:`now` tells; otherwise None.
    """

    def __init__(self, config: ClockConfig, known_time: int, system: System | None = None) -> None:
        self._system = system = system or System()
        self.known = False
        self.boot_id = system.boot_id()
        self.boot: Boot | None = Boot(self.boot_id, 0, known_time)
        self._trust = config.trust
        self._patience = config.patience * 1000
        self._known_time = known_time
        # Now is the later of two lines: since boot + offset, and a slower one that is ahead after a step back.
        self._offset = 0
        self._slow = 0
        self._waiting_since = system.since_boot()
        self._told = False  # that the clock is not known, or is doubted

    def now(self) -> int:
        """Present time, ms UTC; the time since boot while the clock is not known."""
        boot = self._system.since_boot()
        return max(boot + self._offset, boot // 2 + self._slow)

    def check(self) -> bool:
        """Looks at the system's clock; to be called every second or so, and before stamps are used.

        Returns:
            Whether the clock has become known just now.
        """
        boot, offset = self._measure()
        if self.known:
            if abs(offset - self._offset) > _READING or self._told:
                self._follow(boot, offset)
            return False
        doubt = self._doubt(boot, boot + offset)
        if doubt:
            if not self._told:
                log.warning(
                    "the clock is not known yet: it shows %s, %s. Readings without a time of their own are held",
                    _text(boot + offset),
                    doubt,
                )
                self._told = True
            return False
        if self._told:
            log.info("the clock is known: it is %s", _text(boot + offset))
        self.known, self.boot, self._offset, self._told = True, None, offset, False
        return True

    def at(self, moment: int) -> int:
        """When a moment of this run of the machine was.

        Args:
            moment: Time since boot, ms.

        Returns:
            Time, ms UTC; only of use once the clock is known.
        """
        return moment + self._offset

    def date(self, batch: RawBatch) -> None:
        """Says of a batch stamped by :meth:`now` what its stamps are, and dates those from before the clock was known.

        Args:
            batch: Its ``boot`` is set and, if the clock is known, its ``received`` made ms UTC.
        """
        batch.boot = self.boot
        if self.known and batch.received and batch.received[0] < RELEASE:
            batch.received = [self.at(stamp) if stamp < RELEASE else stamp for stamp in batch.received]

    def _measure(self) -> tuple[int, int]:
        """Time since boot, and what the system's clock shows more than that."""
        for _ in range(3):
            boot, wall, after = self._system.since_boot(), self._system.wall(), self._system.since_boot()
            if after - boot <= _READING:  # else something came between the readings
                break
        return after, wall - after

    def _doubt(self, boot: int, wall: int) -> str:
        """Why the clock is not to be believed yet; empty if it is."""
        if wall < RELEASE:
            return "which is before this program was made"
        if self._system.synchronised():
            if wall < self._known_time - _BEFORE_KNOWN:
                log.warning(
                    "the clock is synchronised, and before the last time known here, which must have been wrong"
                )
            return ""
        patience_over = boot - self._waiting_since >= self._patience
        if wall < self._known_time - _BEFORE_KNOWN:
            doubt = f"which is before the last time known here, {_text(self._known_time)}"
        elif self._trust == "ntp" or (self._trust == "auto" and self._system.served()):
            doubt = "and waits for its time service"
        else:
            return ""
        if patience_over:
            log.warning("the clock shows %s, %s: patience is over, it is believed", _text(wall), doubt)
            return ""
        return doubt

    def _follow(self, boot: int, offset: int) -> None:
        step, now, wall = offset - self._offset, self.now(), boot + offset
        back = now - wall
        if wall < RELEASE or back > SET_BACK_MOST:
            if not self._yields(boot, wall):
                return
            log.warning("the system's clock was set back by %s to %s: followed", _span(back), _text(wall))
            self._slow = 0
        elif step < -_READING:
            self._slow = now - boot // 2
            if step < -_NOTICED:
                log.warning("the system's clock was set back by %s: met at half speed", _span(-step))
        elif step > _NOTICED:
            log.warning("the system's clock was set forward by %s: followed", _span(step))
        elif self._told:
            log.info("the system's clock is right again")
        self._told = False
        self._offset = offset

    def _yields(self, boot: int, wall: int) -> bool:
        """Whether a clock that was set far back is followed after all."""
        if not self._told:
            self._told, self._waiting_since = True, boot
            if wall < RELEASE or not self._system.synchronised():
                log.error(
                    "the system's clock was set back to %s: not believed, the gateway's time goes on. Set it right "
                    "(timedatectl), or let a time service do it",
                    _text(wall),
                )
        return wall >= RELEASE and (self._system.synchronised() or boot - self._waiting_since >= self._patience)


def _text(moment: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)).isoformat(" ", "seconds")


def _span(milliseconds: int) -> str:
    return str(timedelta(seconds=round(milliseconds / 1000)))
