"""Climatology: what is usual at a month and an hour, as one table of 12 · 24 ranges a rule."""

from collections.abc import Sequence
from time import gmtime

import numpy as np

from gateway.edge.readings import Flags, Floats, Ints
from sensors import kinds

_HOUR = 3_600_000  # ms
_HOURS = 24


class Climatology:
    """The climatologies of all rules.

    Args:
        rules: That of each rule, if it has one.

    Attributes:
        any: Whether a rule has one.
    """

    def __init__(self, rules: Sequence[kinds.Climatology | None]) -> None:
        self._place = np.zeros(len(rules), np.int64)
        tables: list[Floats] = [_table(())]
        offsets = [0.0]
        for number, climatology in enumerate(rules):
            if climatology is not None:
                self._place[number] = len(tables)
                tables.append(_table(climatology.usual))
                offsets.append(climatology.utc_offset)
        self._tables: Floats = np.array(tables)
        self._offset: Ints = np.rint(np.array(offsets) * _HOUR).astype(np.int64)
        self.any = len(tables) > 1

    def judge(self, rule: Ints, time: Ints, value: Floats) -> tuple[Flags, Flags]:
        """Which values are unusual, and which are too much so: bool[n] each.

        Args:
            rule: int64[n].
            time: int64[n], ms UTC.
            value: float64[n].
        """
        unusual, wrong = np.zeros(len(rule), bool), np.zeros(len(rule), bool)
        chosen = np.flatnonzero(self._place[rule])
        if not len(chosen):
            return unusual, wrong
        place, now = self._place[rule[chosen]], value[chosen]
        hours = (time[chosen] + self._offset[place]) // _HOUR
        month = hours.astype("datetime64[h]").astype("datetime64[M]").astype(np.int64) % 12
        low, high, lowest, highest = self._tables[place, month, hours % _HOURS].T
        unusual[chosen] = (now < low) | (now > high)
        wrong[chosen] = (now < lowest) | (now > highest)
        return unusual, wrong

    def judge_one(self, rule: int, time: int, value: float) -> tuple[bool, bool]:
        """Whether one value is unusual, and whether it is too much so."""
        place = int(self._place[rule])
        hours = (time + int(self._offset[place])) // _HOUR
        month = gmtime(hours * 3600).tm_mon - 1
        low, high, lowest, highest = self._tables[place, month, hours % _HOURS].tolist()
        return value < low or value > high, value < lowest or value > highest


def _table(usual: Sequence[kinds.Usual]) -> Floats:
    """float64[12, 24, 4]: suspect low and high, fail low and high of each month and hour."""
    table = np.empty((12, _HOURS, 4))
    table[:] = -np.inf, np.inf, -np.inf, np.inf
    for some in usual:
        table[np.ix_(np.array(some.months) - 1, np.array(some.hours))] = (
            *(some.suspect or (-np.inf, np.inf)),
            *(some.fail or (-np.inf, np.inf)),
        )
    return table
