"""What the values of one message, and a sensor's word on itself, say about each other.

Both are judged in the order of the batch, for a message lies side by side there.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gateway.edge.inspect_one import Tested
from gateway.edge.readings import Bytes, Channels, Flags, Floats, Ints, Layout, Readings, Together, widened
from gateway.edge.runs import Runs


def contradictions(readings: Readings, runs: Runs, ill: Flags, unmoved: Floats) -> Flags | None:
    """Values of messages that break a rule of their kind.

    Args:
        readings: The batch.
        runs: Its runs.
        ill: bool[n] in their order, missing or impossible: such a value says nothing about others.
        unmoved: float64[n] in their order, for how long each value has been as it is, ms.

    Returns:
        bool[n] in the order of the runs, or None if there are none.
    """
    if not (groups := _by_layout(readings.layouts)):
        return None
    ill = runs.backward(ill)
    some_ill = np.count_nonzero(ill) > 0
    if any(check.same for layout, _ in groups for check in layout.checks):
        unmoved = runs.backward(unmoved)
    blamed: Flags | None = None
    for layout, rows in groups:
        starts, many = readings.starts[rows], len(layout.names)
        every = rows if isinstance(rows, slice) else starts[:, None] + np.arange(many)
        value = readings.value[every].reshape(-1, many)
        for check in layout.checks:
            broken = _broken(check, {name: value[:, place] for name, place in check.places.items()}, len(starts))
            if not np.count_nonzero(broken):
                continue
            if some_ill:
                broken &= ~ill[every].reshape(-1, many)[:, [*check.places.values()]].any(1)
            if check.longest is not None:
                broken &= unmoved[starts[:, None] + np.array(check.same)].min(1) >= check.longest
            if np.count_nonzero(broken):
                blamed = np.zeros(len(ill), bool) if blamed is None else blamed
                blamed[starts[broken][:, None] + np.array(check.blamed)] = True
    return None if blamed is None else blamed[runs.order]


def _broken(check: Together, columns: dict[str, Floats], count: int) -> Flags:
    """Which of some messages a rule does not hold for, by their values alone."""
    with np.errstate(all="ignore"):
        unlike: Flags = np.ones(count, bool) if check.expect is None else ~check.expect(columns)
        return unlike if check.when is None else unlike & check.when(columns)


def contradictions_of_few(readings: Readings, tested: Sequence[Tested]) -> set[int]:
    """The same for few messages, where array operations would cost more.

    Args:
        readings: The batch.
        tested: What the other tests say of each value, in its order.

    Returns:
        Places of the values.
    """
    blamed: set[int] = set()
    for row, layout in enumerate(readings.layouts):
        for check in layout.checks:
            start = int(readings.starts[row])
            if any(tested[start + place].ill for place in check.places.values()):
                continue
            columns = {name: readings.value[start + place] for name, place in check.places.items()}
            with np.errstate(all="ignore"):
                broken = check.when is None or bool(check.when(columns))
                broken = broken and (check.expect is None or not check.expect(columns))
            if broken and (
                check.longest is None or min(tested[start + place].unmoved for place in check.same) >= check.longest
            ):
                blamed.update(start + place for place in check.blamed)
    return blamed


def _by_layout(layouts: list[Layout]) -> list[tuple[Layout, Ints | slice]]:
    """The messages of each layout that has rules."""
    different = set(layouts)
    if len(different) == 1:
        return [(layouts[0], slice(None))] if layouts[0].checks else []
    rows: dict[Layout, list[int]] = {layout: [] for layout in different if layout.checks}
    for row, layout in enumerate(layouts) if rows else ():
        if layout in rows:
            rows[layout].append(row)
    return [(layout, np.array(some)) for layout, some in rows.items()]


class Diagnostics:
    """What each sensor last said of itself, and so which of its values are suspect.

    Args:
        channels: The channels and their rules.

    Attributes:
        any: Whether a sensor is not well.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._bad: Flags = np.empty(0, bool)  # of each channel: whether it is a diagnosis, and a bad one
        self._troubles: Bytes = np.empty(0, np.uint8)  # of each sensor: how many of its channels are
        self._known = self._sensors = 0
        self.any = False

    def judge(self, readings: Readings) -> tuple[Flags | None, Callable[[], Callable[[], None]]]:
        """Values of sensors that say that they are not well, from the message that says so until one that does not.

        Returns:
            bool[n], or None if there are none; and what commits the new state, which returns what takes it back.
        """
        rules = self._channels.rules
        places = rules.diagnostic.take(readings.rule).nonzero()[0]
        if not (self.any or len(places)):
            return None, _nothing
        rule, value = readings.rule[places], readings.value[places]
        bad = (value < rules.healthy_low[rule]) | (value > rules.healthy_high[rule])
        if not (self.any or bad.any()):
            return None, _nothing
        self._make_room()
        owner, channel = self._channels.owner[readings.channel], readings.channel[places]
        suspect = self._troubles[owner] > 0
        matters = (bad | self._bad[channel] | np.isin(channel, channel[bad])) & ~np.isnan(value)
        now: dict[int, bool] = {}
        troubles: dict[int, int] = {}
        for place, number, ill in zip(
            places[matters].tolist(), channel[matters].tolist(), bad[matters].tolist(), strict=True
        ):
            if ill != now.get(number, bool(self._bad[number])):
                now[number], sensor = ill, int(owner[place])
                troubles[sensor] = troubles.get(sensor, int(self._troubles[sensor])) + (1 if ill else -1)
                start = int(readings.starts[np.searchsorted(readings.starts, place, side="right") - 1])
                suspect[start:][owner[start:] == sensor] = troubles[sensor] > 0
        suspect &= ~rules.diagnostic[readings.rule]

        def commit() -> Callable[[], None]:
            before = {number: bool(self._bad[number]) for number in now}
            troubles_before = {sensor: int(self._troubles[sensor]) for sensor in troubles}
            self._put(now, troubles)
            return lambda: self._put(before, troubles_before)

        return suspect, commit

    def state(self, channel: Ints) -> Flags:
        """Whether each of some channels is a bad diagnosis, bool[n]."""
        self._make_room()
        return self._bad[channel]

    def restore(self, bad: Flags, channel: Ints) -> None:
        """Takes up where another one left.

        Args:
            bad: What that one's ``state`` was.
            channel: int64[n], what the channels are here.
        """
        self._make_room()
        self._bad[channel] = bad & self._channels.rules.diagnostic[self._channels.rule[channel]]
        owner = self._channels.owner[: self._known][self._bad[: self._known]]
        self._troubles[: self._sensors] = np.bincount(owner, minlength=self._sensors)
        self.any = bool(len(owner))

    def _put(self, bad: dict[int, bool], troubles: dict[int, int]) -> None:
        for number, ill in bad.items():
            self._bad[number] = ill
        for sensor, count in troubles.items():
            self._troubles[sensor] = count
        if bad:
            self.any = bool(self._troubles[: self._sensors].any())

    def _make_room(self) -> None:
        channels, sensors = len(self._channels), len(self._channels.sensors)
        if channels > len(self._bad):
            self._bad = widened(self._bad, channels)
        if sensors > len(self._troubles):
            self._troubles = widened(self._troubles, sensors)
        self._bad[self._known : channels], self._troubles[self._sensors : sensors] = False, 0
        self._known, self._sensors = channels, sensors


def _nothing() -> Callable[[], None]:
    return lambda: None
