"""Overrides: the limits of some sensors in place of those of their kind's file.

A rule is kept once for each distinct set of limits, however many sensors share it.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gateway.config import OverrideConfig, masked
from sensors.kinds import DIAGNOSTICS, Kind, Quantity, unknown_quantity


class OverrideError(Exception):
    """An override fits nothing; the message names its place and the nearest name."""


def fitting(overrides: Sequence[OverrideConfig], site: str, sensor: str, kind: str) -> tuple[int, ...]:
    """Places of the overrides that a sensor has, in their order."""
    return tuple(
        place
        for place, override in enumerate(overrides)
        if fnmatchcase(site, override.site)
        and fnmatchcase(sensor, override.sensor)
        and fnmatchcase(kind, override.kind)
    )


def overridden(name: str, limits: Quantity, overrides: Sequence[OverrideConfig]) -> Quantity:
    """A quantity's limits after some overrides, the last one wins."""
    for override in overrides:
        if override.quantity == name:
            limits = limits.model_copy(update=override.limits)
    return limits


def longest_gap(kind: Kind, overrides: Sequence[OverrideConfig], name: str) -> float:
    """Seconds without a value after which the next one of a quantity is the first after a gap."""
    gap, interval = kind.gap, kind.interval
    declared = False
    for override in overrides:
        if override.quantity in {None, name}:
            declared = declared or override.quantity == name
            gap, interval = override.gap or gap, override.interval or interval
    return float("inf") if name in DIAGNOSTICS and not declared else gap * interval


def verify(overrides: Sequence[OverrideConfig], kinds: Mapping[str, Kind]) -> None:
    """Looks whether each override can have an effect.

    Raises:
        OverrideError: If one names a kind or a quantity that there is not, or gives an angle what it cannot have.
    """
    for place, override in enumerate(overrides):
        fits = [kind for name, kind in kinds.items() if fnmatchcase(name, override.kind)]
        if not fits:
            msg = f"override[{place}].kind: no kind is like '{override.kind}'; known: {', '.join(sorted(kinds))}"
            raise OverrideError(msg)
        if override.quantity is None:
            continue
        known = {name: quantity for kind in fits for name, quantity in kind.quantities.items()}
        if override.quantity not in known:
            msg = f"override[{place}].quantity: {unknown_quantity(override.quantity, known)}"
            raise OverrideError(msg)
        if known[override.quantity].direction and (override.spike or override.attenuated):
            msg = f"override[{place}]: {override.quantity} is an angle, which has no spike and no attenuated test"
            raise OverrideError(msg)


def effective(overrides: Sequence[OverrideConfig], kinds: Mapping[str, Kind]) -> Iterator[dict[str, Any]]:
    """The limits in effect where an override says something, for a sensor that it names.

    Yields:
        Site, sensor, kind, quantity and every limit, as plain values.
    """
    for override in overrides:
        for name, kind in kinds.items():
            if not fnmatchcase(name, override.kind):
                continue
            own = [overrides[place] for place in fitting(overrides, override.site, override.sensor, name)]
            for quantity, limits in kind.quantities.items():
                if quantity == override.quantity or (override.quantity is None and quantity not in DIAGNOSTICS):
                    shown = masked(overridden(quantity, limits, own))
                    gap = longest_gap(kind, own, quantity)
                    yield {
                        "site": override.site,
                        "sensor": override.sensor,
                        "kind": name,
                        "quantity": quantity,
                        **({} if gap == float("inf") else {"gap": f"{gap:g}s"}),
                        **{key: shown[key] for key in shown if key not in {"title", "decimals"} and shown[key]},
                    }
