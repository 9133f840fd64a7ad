"""How flags and times are called where people read them: in tests and in reports."""

from datetime import UTC, datetime

FLAGS = {1: "good", 2: "unknown", 3: "suspect", 4: "fail", 9: "missing"}
"""QARTOD flags by number; *unknown* is "not evaluated"."""


def iso(time: int) -> str:
    """A time in ms UTC, as people read it: ``2026-03-01T08:00:00Z``."""
    moment = datetime.fromtimestamp(time / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if time % 1000 else "seconds").replace("+00:00", "Z")
