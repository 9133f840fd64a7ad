"""Runs: the values of a batch in order of their channels, and what came before each of them.

Those of one channel are a *run*, in the order in which they came. What a value is compared with is found by running
maxima over all runs at once, without a loop over values. Where no channel has two values, as in a message that comes
alone, what came before is the state of the channel, and next to nothing has to be computed.
"""

from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gateway.edge.readings import Flags, Ints

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
    """

    def __init__(self, channel: Ints, *, single: bool) -> None:
        self.order: Ints | slice = slice(None)
        self.alone = single
        self.channel = channel
        if single:
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
            return np.where(self._which, column, state)
        end = self._latest[self._runs.tails]
        return np.where(end >= self._runs.heads, column[end], state)
