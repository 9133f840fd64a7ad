"""A recorded stream, replayed through a test's broker and gateway into its store."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.testing.agent import Gateway
from gateway.testing.points import DeadLetter, Event, Ledger, Stored, Verdict
from gateway.testing.process import TestingError

if TYPE_CHECKING:
    from gateway.streams import Stream


@dataclass(frozen=True, repr=False)
class Replay:
    """What came of a recording; what the fixture ``replayed`` gives.

    Attributes:
        path: The recording.
        gateway: What it went through.
        messages: How many were published.
        ledger: Where every reading is, at the end.
    """

    path: Path
    gateway: Gateway
    messages: int
    ledger: Ledger

    def __repr__(self) -> str:
        """In a word, for failures show it."""
        return f"Replay({self.path.name}: {self.messages} messages, {self.ledger['received']} readings)"

    def points(self, **names: str) -> list[Stored]:
        """Readings as they are stored, with their flags; by the arguments of :meth:`Store.points`."""
        return self.gateway.store.points(**names)

    def events(self) -> list[Event]:
        """Events in the order of time."""
        return self.gateway.store.events()

    def verdicts(self) -> list[Verdict]:
        """Verdicts in the order in which they were made."""
        return self.gateway.store.verdicts()

    def dead_letters(self) -> list[DeadLetter]:
        """Messages that could not be read."""
        return self.gateway.dead_letters()


def read(path: Path, options: Mapping[str, Any]) -> "Stream":
    """Opens a recording.

    Args:
        path: ``.cgrec``, or CSV, plain or gzip'd.
        options: How to read a CSV: those of ``citygate replay``, with ``_`` for ``-``.

    Raises:
        TestingError: It cannot be read, or an option is not known.
    """
    from gateway.streams import Stream  # noqa: PLC0415 - only when there is something to read
    from sensors.recording import RecordingError  # noqa: PLC0415
    from sensors.stream import StreamError  # noqa: PLC0415

    known = dict(options)
    topic = known.pop("topic", None)
    try:
        if "columns" in known:
            known["columns"] = [f"{name}={quantity}" for name, quantity in known["columns"].items()]
        return Stream(path, topic, known)
    except (RecordingError, StreamError, OSError) as error:
        raise TestingError(str(error)) from error
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"recording {path.name}: {str(error).removeprefix('layout_of() ')}"
        raise TestingError(msg) from error


def pace(speed: float | str) -> float | None:
    """How many times faster than it was recorded; None as fast as possible.

    Raises:
        TestingError: It is no speed.
    """
    if speed == "max":
        return None
    try:
        number = float(speed)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        msg = f"speed: expected a number above 0 or 'max', not {speed!r}"
        raise TestingError(msg)
    return number


def replay(path: Path, gateway: Gateway, *, speed: float | str = "max", options: Mapping[str, Any]) -> Replay:
    """Replays a recording; returns when the gateway has taken it and the store has what came of it.

    Args:
        path: The recording.
        gateway: Its broker is what is published to.
        speed: 1 for its own pace, 60 for a minute each second, ``max`` for no pause at all.
        options: How to read it.

    Raises:
        TestingError: It cannot be read or replayed.
    """
    rate = pace(speed)
    stream = read(path, options)
    published = gateway.broker.play(stream, speed=rate, behind=gateway.behind)
    for damage in stream.damage:
        warnings.warn(f"{path}: {damage}", stacklevel=2)
    return Replay(path, gateway, published, gateway.settle())


def found(name: str, folders: Iterable[Path], what: str) -> Path:
    """A file by its name, in the first of several folders that has it.

    Raises:
        TestingError: There is none; with the places that were looked at.
    """
    places = [folder / name for folder in folders]
    for place in places:
        if place.is_file():
            return place
    msg = f"{what} {name!r} is not there; looked for {', '.join(map(str, dict.fromkeys(places)))}"
    raise TestingError(msg)
