"""What goes wrong in the simulated town, and what truly happens: faults and events by a script, with their truth.

A script is TOML. Times count from the start of the simulation, on its clock::

    [[fault]]
    type = "stuck"            # stuck | spike | drift | dropout | garbage | clock
    sensors = ["noise-02"]    # by name, or by id kind:site:sensor
    start = "20s"
    duration = "14m"
    every = "20m"             # optional: again each 20 minutes
    quantity = "laeq"         # of spike and drift; of stuck when only one quantity freezes
    amount = 40               # of spike and drift, in the quantity's unit; of clock, in seconds

    [[event]]
    type = "accident"         # plume | rainstorm | accident
    sensors = ["traffic-03"]  # of an accident: where it happens
    start = "40s"
    duration = "4m"
    amount = 0.9              # plume: µg/m³ of PM2.5; rainstorm: mm/h; accident: share of the road that is blocked
    pace = 10                 # of a plume: how many times faster than the wind it travels
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sensors import files
from sensors.durations import Duration


class ScriptError(Exception):
    """A script cannot be used; the message names the file and the key."""


class Entry(BaseModel):
    """One fault or event of a script, as often as it repeats.

    Attributes:
        start: Seconds from the start of the simulation to the first occurrence.
        duration: Seconds that each occurrence lasts.
        every: Seconds between the starts of occurrences; once when absent.
        amount: Size, see the module's docstring.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Duration
    duration: Duration = Field(gt=0)
    every: Duration | None = None
    sensors: tuple[str, ...] = ()
    amount: float | None = None

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.every is not None and self.every < self.duration:
            msg = "'every' must not be shorter than 'duration'"
            raise ValueError(msg)
        return self


class Fault(Entry):
    """A fault of sensors."""

    type: Literal["stuck", "spike", "drift", "dropout", "garbage", "clock"]
    sensors: tuple[str, ...] = Field(min_length=1)
    quantity: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type in {"spike", "drift"} and (self.quantity is None or self.amount is None):
            msg = f"a {self.type} needs 'quantity' and 'amount'"
            raise ValueError(msg)
        if self.type == "clock" and self.amount is None:
            msg = "a wrong clock needs 'amount', in seconds"
            raise ValueError(msg)
        return self


class Event(Entry):
    """Something that truly happens, and that no filter may call a fault."""

    type: Literal["plume", "rainstorm", "accident"]
    amount: float
    pace: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.type == "accident" and not self.sensors:
            msg = "an accident needs 'sensors': the detectors of its road"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that an entry happens.

    Attributes:
        start: ms UTC, inclusive.
        end: ms UTC, exclusive.
    """

    entry: Fault | Event
    start: int
    end: int

    def progress(self, time: float) -> float:
        """How much of it is over at a time in ms: 0 at its start, 1 at its end."""
        return (time - self.start) / (self.end - self.start)


class Script(BaseModel):
    """All faults and events of a simulation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: tuple[Fault, ...] = ()
    event: tuple[Event, ...] = ()

    @classmethod
    def read(cls, name: str) -> Self:
        """Reads a script.

        Args:
            name: ``demo``, ``none`` or the path of a TOML file.

        Raises:
            ScriptError: If there is no such file or a key is wrong.
        """
        if name == "none":
            return cls()
        path = Path(__file__).parent / "scripts" / "demo.toml" if name == "demo" else Path(name)
        return files.read(path, cls, ScriptError)

    def occurrences(self, origin: int) -> Iterator[Occurrence]:
        """Every occurrence in the order of start; endless when an entry repeats.

        Args:
            origin: Start of the simulation, ms UTC.
        """

        def of(entry: Fault | Event) -> Iterator[Occurrence]:
            for turn in count():
                yield _occurrence(entry, origin, turn)
                if entry.every is None:
                    return

        streams = [of(fault) for fault in self.fault] + [of(event) for event in self.event]
        return heapq.merge(*streams, key=lambda occurrence: occurrence.start)


def at(entry: Fault | Event, origin: int, time: int) -> Occurrence | None:
    """The occurrence of an entry that is on at a time, if any; all times in ms."""
    since = time - origin - entry.start * 1000
    occurrence = _occurrence(entry, origin, int(since // (entry.every * 1000)) if entry.every and since > 0 else 0)
    return occurrence if occurrence.start <= time < occurrence.end else None


def _occurrence(entry: Fault | Event, origin: int, turn: int) -> Occurrence:
    start = origin + round((entry.start + turn * (entry.every or 0)) * 1000)
    return Occurrence(entry, start, start + round(entry.duration * 1000))
