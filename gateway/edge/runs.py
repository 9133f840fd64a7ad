"""Runs: the values of a batch in order of their channels, and what came before each of them.

Those of one channel are a *run*, in the order in which they came. What a value is compared with is found by running
maxima over all runs at once, without a loop over values. Where no channel has two values, as in a message that comes
alone, what came before is the state of the channel, and next to nothing has to be computed.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Flags, Ints, widened

_Scalar = TypeVar("_Scalar", bound=np.generic)
Column = npt.NDArray[_Scalar]


class Runs:
    """The values of a batch in order of their channels: n values in r runs.

    Args:
        channel: int64[n], in the order of the batch.
        single: Whether it is known that no channel has two values.

    Attributes:
        order: Where each value is in the batch.
        alone: Whether every run is of one value.
        run: int64[n], the run of each.
        head: int64[n], where its run begins.
        heads, tails: int64[r], where each run begins and ends.
        channel: int64[r].
        where: The same, or the slice that it is.
    """

    def __init__(self, channel: Ints, *, single: bool) -> None:
        self.order: Ints | slice = slice(None)
        self.channel = channel
        rises = bool((channel[1:] > channel[:-1]).all())
        self.alone = single or rises
        self.where = _where(channel) if rises else channel
        if self.alone:
            return
        # a sort of numbers that hold channel and place is twice as fast as a stable sort of channels
        packed = np.sort(channel * len(channel) + np.arange(len(channel)))
        sorted_channel = packed // len(channel)
        self.order = packed - sorted_channel * len(channel)
        new = np.empty(len(channel), bool)
        new[0] = True
        np.not_equal(sorted_channel[1:], sorted_channel[:-1], out=new[1:])
        self.heads: Ints = np.flatnonzero(new)
        self.channel = sorted_channel[self.heads]
        self.where = _where(self.channel)
        self.alone = len(self.heads) == len(channel)
        if not self.alone:
            self.run: Ints = np.cumsum(new) - 1
            self.head: Ints = self.heads[self.run]
            self.tails: Ints = np.append(self.heads[1:], len(channel)) - 1

    def spread(self, of_runs: Column[_Scalar]) -> Column[_Scalar]:
        """[n] of [r]: what each run has, for each of its values."""
        return of_runs if self.alone else of_runs[self.run]

    def backward(self, column: Column[_Scalar]) -> Column[_Scalar]:
        """[n]: a column in the order of the batch."""
        if isinstance(self.order, slice):
            return column
        batch = np.empty_like(column)
        batch[self.order] = column
        return batch

    def of(self, places: Ints) -> Ints:
        """The runs of values at some places."""
        return places if self.alone else self.run[places]

    def rounds(self, places: Ints) -> Iterator[Ints]:
        """Some places in parts that have no channel twice: the first of each run, the second of each, and so on."""
        if self.alone or not len(places):
            yield places
            return
        run = self.run[places]
        begin = np.flatnonzero(np.append(True, run[1:] != run[:-1]))
        length = np.diff(begin, append=len(places))
        for nth in range(int(length.max())):
            begin = begin[length > nth]
            length = length[length > nth]
            yield places[begin + nth]

    def rising(self, time: Ints) -> bool:
        """Whether the times of every run rise."""
        if self.alone:
            return True
        rises = time[1:] > time[:-1]
        rises[self.heads[1:] - 1] = True
        return bool(rises.all())

    def highest_before(self, time: Ints, which: Flags) -> Flags:
        """bool[n]: whether each time is later than those of some values before it in its run."""
        ranks = np.unique(time, return_inverse=True)[1] + 1
        offset = self.run * (len(time) + 1)  # puts each run above those before it
        highest = np.maximum.accumulate(offset + np.where(which, ranks, 0))
        before = np.append(0, highest[:-1])
        later: Flags = offset + ranks > np.maximum(before, offset)
        return later


def _where(channel: Ints) -> Ints | slice:
    """Channels that rise, as a slice if none is left out."""
    first, last = int(channel[0]), int(channel[-1])
    return slice(first, last + 1) if last - first + 1 == len(channel) else channel


class Chain:
    """Some values of each run, as links of which each knows the one before.

    Args:
        runs: The runs.
        which: bool[n], the values that are links.
    """

    def __init__(self, runs: Runs, which: Flags) -> None:
        self._runs = runs
        self._which = which

    @cached_property
    def _every(self) -> bool:
        """Whether all are links."""
        return bool(np.count_nonzero(self._which) == len(self._which))

    @cached_property
    def _latest(self) -> Ints:
        """int64[n]: place of the latest link, up to and with each value; less than ``head`` if there is none."""
        latest: Ints = np.maximum.accumulate(np.where(self._which, np.arange(len(self._which)), -1))
        return latest

    @cached_property
    def _before(self) -> tuple[Ints, Flags]:
        before = np.append(-1, self._latest[:-1])
        return before, before >= self._runs.head

    def before(self, column: Column[_Scalar], state: Column[_Scalar]) -> Column[_Scalar]:
        """[n]: a column's value at the link before each value; the run's state[r] where the batch has none."""
        if self._runs.alone:
            return state
        before, within = self._before
        return np.where(within, column[before], state[self._runs.run])

    def up_to(self, column: Column[_Scalar], state: Column[_Scalar]) -> Column[_Scalar]:
        """[n]: as ``before``, but a link is its own latest one."""
        if self._runs.alone:
            return np.where(self._which, column, state)
        return np.where(self._latest >= self._runs.head, column[self._latest], state[self._runs.run])

    def last(self, column: Column[_Scalar], state: Column[_Scalar]) -> Column[_Scalar]:
        """[r]: a column's value at the last link of each run, its state where there is none."""
        if self._runs.alone:
            return column if self._every else np.where(self._which, column, state)
        end = self._latest[self._runs.tails]
        return np.where(end >= self._runs.heads, column[end], state)


def column(
    state: Mapping[str, npt.NDArray[np.generic]], name: str, dtype: type[_Scalar], *shape: int
) -> npt.NDArray[_Scalar]:
    """A copy of one array of a saved state.

    Raises:
        ValueError: It is missing, or of another type or shape.
    """
    found = state.get(name)
    if found is None or found.dtype != dtype or found.shape != shape:
        message = f"not a saved state: '{name}' is not {np.dtype(dtype)}{[*shape]}"
        raise ValueError(message)
    return np.array(found, dtype)


class Places:
    """Places in arrays of state, for those channels alone that need one.

    Attributes:
        count: How many have a place.
    """

    def __init__(self) -> None:
        self.count = 0
        self._place: Ints = np.full(256, -1)

    def known(self, channel: Ints) -> Ints:
        """The places of channels; -1 where one has none."""
        if len(channel) and int(channel.max()) >= len(self._place):
            within = channel < len(self._place)
            return np.where(within, self._place[np.where(within, channel, 0)], -1)
        return self._place[channel]

    def of(self, channel: Ints) -> Ints:
        """The places of channels; those that have none get the next."""
        try:
            places = self._place[channel]
        except IndexError:
            self._make_room(int(channel.max()))
            places = self._place[channel]
        if np.count_nonzero(places < 0):
            new = np.unique(channel[places < 0])
            first, self.count = self.count, self.count + len(new)
            self._place[new] = np.arange(first, self.count)
            places = self._place[channel]
        return places

    def one(self, channel: int) -> int:
        """The place of a channel; if it has none, it gets the next."""
        if channel >= len(self._place):
            self._make_room(channel)
        place = int(self._place[channel])
        if place < 0:
            place = self._place[channel] = self.count
            self.count += 1
        return place

    def _make_room(self, most: int) -> None:
        if most >= (known := len(self._place)):
            self._place = widened(self._place, most + 1)
            self._place[known:] = -1
