"""Formats of installed packages: found by their entry points, looked at when they are loaded, and kept from doing harm.

What goes wrong in one of them costs the payload and never the stream: whatever it raises becomes a refusal with its
name, and what it gives is what the steps behind it rely on.
"""

import inspect
import math
from importlib.metadata import EntryPoint, entry_points

from pydantic import ValidationError

from sensors.formats import Declared, Decoded, Format, FormatError, Options, PayloadError, Sample

GROUP = "citygate.formats"
"""The group of entry points by which installed packages add formats."""


def names() -> set[str]:
    """Names of all formats that installed packages add."""
    return {entry.name for entry in entry_points(group=GROUP)}


def load(name: str) -> type[Format] | None:
    """Loads the format of an installed package; None if no package has one of that name.

    Raises:
        FormatError: If it cannot be imported, is no format, or is in two packages; names the package.
    """
    entries = list(entry_points(group=GROUP, name=name))
    if not entries:
        return None
    if len({entry.value for entry in entries}) > 1:
        msg = f"format '{name}' is in {' and in '.join(map(_package, entries))}: uninstall one of them"
        raise FormatError(msg)
    try:
        loaded = entries[0].load()
    except (Exception, SystemExit) as error:
        msg = f"format '{name}' of {_package(entries[0])} cannot be imported: {type(error).__name__}: {error}"
        raise FormatError(msg) from error
    if (wrong := _wrong(loaded)) is not None:
        msg = f"format '{name}' of {_package(entries[0])}: {entries[0].value} {wrong}"
        raise FormatError(msg)
    return _guarded(name, loaded)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def _wrong(loaded: object) -> str | None:
    """Why something is no format."""
    if not (isinstance(loaded, type) and issubclass(loaded, Format)):
        return "is no subclass of sensors.formats.Format"
    if inspect.isabstract(loaded):
        return "does not define decode"
    if not (isinstance(loaded.options, type) and issubclass(loaded.options, Options)):
        return "has options that are no subclass of sensors.formats.Options"
    return None


def _guarded(name: str, loaded: type[Format]) -> type[Format]:
    """The format, of which every error is one that the steps behind it expect."""

    def init(self: Format, declared: Declared) -> None:
        try:
            loaded.__init__(self, declared)
        except (ValidationError, FormatError):
            raise
        except Exception as error:
            msg = f"format '{name}' failed: {type(error).__name__}: {error}"
            raise FormatError(msg) from error

    def decode(self: Format, topic: str, payload: bytes, received: int) -> Decoded:
        try:
            return _checked(loaded.decode(self, topic, payload, received))
        except PayloadError:
            raise
        except Exception as error:
            msg = f"format '{name}' failed: {type(error).__name__}: {error}"
            raise PayloadError(msg) from error

    members = {"__init__": init, "decode": decode, "__doc__": loaded.__doc__, "__module__": loaded.__module__}
    guarded: type[Format] = type(loaded.__name__, (loaded,), members)
    return guarded


def _checked(decoded: object) -> Decoded:
    """What a format gives, with every value a number, and no infinite one.

    Raises:
        TypeError: If it is something else.
        ValueError: If a value is no number.
    """
    if not isinstance(decoded, Decoded):
        msg = f"decode gave {type(decoded).__name__} instead of Decoded"
        raise TypeError(msg)
    for sample in decoded.samples:
        if not isinstance(sample, Sample):
            msg = f"decode gave {type(sample).__name__} instead of Sample"
            raise TypeError(msg)
        values = {name: float(value) for name, value in sample.values.items()}
        if infinite := [name for name, value in values.items() if math.isinf(value)]:
            sample.problems = (*sample.problems, *(f"{name}: {values.pop(name)} is no number" for name in infinite))
        sample.time, sample.values = float(sample.time), values
    return decoded
