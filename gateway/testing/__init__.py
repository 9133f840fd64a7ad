"""For the tests of whoever runs gateways: a pytest plugin that replays recordings through a broker and a gateway.

docs/testing.md has all of it. The plugin is loaded wherever citygate is installed, so a name's module is loaded when
the name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.testing.agent import Gateway
    from gateway.testing.assertions import assert_flags, assert_ledger, assert_stored
    from gateway.testing.broker import Broker
    from gateway.testing.golden import Golden
    from gateway.testing.playing import Replay
    from gateway.testing.points import DeadLetter, Event, Ledger, Stored, Verdict
    from gateway.testing.store import Store

_HOMES = {
    "agent": ("Gateway",),
    "assertions": ("assert_flags", "assert_ledger", "assert_stored"),
    "broker": ("Broker",),
    "golden": ("Golden",),
    "playing": ("Replay",),
    "points": ("DeadLetter", "Event", "Ledger", "Stored", "Verdict"),
    "store": ("Store",),
}

__all__ = [
    "Broker",
    "DeadLetter",
    "Event",
    "Gateway",
    "Golden",
    "Ledger",
    "Replay",
    "Store",
    "Stored",
    "Verdict",
    "assert_flags",
    "assert_ledger",
    "assert_stored",
]


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
