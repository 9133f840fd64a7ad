"""Dropout: readings fall to zero, or to another constant, in a row or again and again, and come back.

What is lost falls in one step and comes back in one step, and nothing is ever between it and what is measured. A true
zero is reached through what lies between, or from nearby. Zero is what most sensors send for nothing, so little more
is asked for; another constant has to be reached and left by steps that are very rare for the channel.
"""

import numpy as np

from gateway.edge.faults.look import COMMON_ACTIVITY, EXCESS, LAST, QUICK, STEADY, STEP, WINDOW, ZEROS, Look, What
from gateway.edge.readings import Flags, Floats, Ints

_OFTEN = 0.7  # share of steps that are none, from which a channel counts rather than measures
_UNQUIET = 2.0  # of the usual activity of the neighbours: in a storm, anything jumps
_AROUND = 3  # readings before and after each lost one, that have to be far from it, and on one side
_STEPS = 2.0, 8.0  # mean steps; to zero, and to another constant
_DECADES = 0.5, 4.0  # by which a step as large is rare; to zero, and to another constant
_FASTER = 1.5  # mean steps of those around
_MANY = 3, 4  # lost readings; zero, and another constant
_RARE = 2.0  # decades by which the step there or the step back is; or else, to zero:
_CLEAR = 4.0  # multiples of all but a tenth of the steps among the others; or:
_ODD = 5.0  # decades of both steps together, and of zero itself
_SHARE = 0.3, 0.5  # of the median distance, that the least one is; in the first case, and in the others

UNTIL, ENTRY, STILL = range(3)


class Dropout:
    """Calls constant readings that are far from all readings around, once the channel came back from them.

    Its rows are the time until which readings have been called, ms, the size of the last step that was one, and
    whether the last was none.
    """

    rows = 3

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at what comes back with a large step from a value that came twice."""
        still = own[STILL]
        back = still.nonzero()[0]
        if len(back):
            back = back[look.size[back] > _STEPS[0] * look.own[STEP][back]]
        if len(back):
            back = back[~look.young[back] & (look.own[STEADY][back] < _OFTEN)]
            back = back[~(look.beside[COMMON_ACTIVITY][back] > _UNQUIET)]
            back = back[_may_be_lost(look, own, back)]
        if len(back):
            self._try(look, own, back)
        still[:] = look.still
        on = look.still.nonzero()[0]
        before = own[ENTRY][on]
        own[ENTRY] = look.size
        own[ENTRY, on] = before

    @staticmethod
    def _try(look: Look, own: Floats, places: Ints) -> None:
        """Calls what was lost.

        Args:
            look: The readings.
            own: Rows.
            places: int64[m], of channels that may be back.
        """
        window = look.window(places, WINDOW)
        off = window.value - look.own[LAST, places, None]
        every = off == 0
        some = every.sum(1) >= np.where(look.own[LAST][places] == 0, *_MANY)
        if not some.any():
            return
        places, off, every = places[some], off[some], every[some]
        last = np.zeros_like(every)
        last[:, :-1] = np.logical_and.accumulate(every[:, -2::-1], 1)[:, ::-1]
        # what was lost again and again is more; but a true zero of the hours before is not to hide what is lost now
        found_all, found_last = (_is_lost(look, own, places, off, lost) for lost in (every, last))
        found = found_all | found_last
        if not found.any():
            return
        times = window.time[some]
        for row in np.flatnonzero(found).tolist():
            place, time = int(places[row]), times[row]
            lost = (every if found_all[row] else last)[row].astype(np.int64)
            begins, ends = np.flatnonzero(np.diff(lost, prepend=0) > 0), np.flatnonzero(np.diff(lost) < 0)
            for since, until in zip(time[begins].tolist(), time[ends].tolist(), strict=True):
                if until > own[UNTIL, place]:
                    look.say(place, since, until, What.DROPOUT, 0.95, ["constant", "steps there and back"])
            own[UNTIL, place] = time[-2]


def _may_be_lost(look: Look, own: Floats, places: Ints) -> Flags:
    """bool[m], whether the steps there and back are large enough, if they are to another constant than zero."""
    nearest = np.minimum(look.size[places], own[ENTRY][places])
    with np.errstate(invalid="ignore", divide="ignore"):
        large = (nearest / look.own[STEP][places] >= _STEPS[1]) & (_decades(look, places, nearest) >= _DECADES[1])
    may: Flags = large | (look.own[LAST][places] == 0)
    return may


def _is_lost(look: Look, own: Floats, places: Ints, off: Floats, lost: Flags) -> Flags:
    """bool[m], whether readings are lost.

    Args:
        look: The readings.
        own: Rows.
        places: int64[m], of channels.
        off: float64[m, k], by how much the latest readings are off the constant value.
        lost: bool[m, k], which of them may be lost.
    """
    around = np.zeros_like(lost)
    for shift in range(1, _AROUND + 1):
        around[:, shift:] |= lost[:, :-shift]
        around[:, :-shift] |= lost[:, shift:]
    around &= ~lost
    one_sided = (around & (off > 0)).any(1) != (around & (off < 0)).any(1)
    far = np.where(around, np.abs(off), np.nan)
    # the step there is known even if it was before the first of the readings
    there, back = own[ENTRY, places], look.size[places]
    nearest = np.minimum(np.nanmin(far, 1), there)
    share = nearest / np.maximum(_middle(far), there * lost[:, 0])
    steps = nearest / look.own[STEP, places]
    # where it goes that fast all around, it goes there by itself
    pairs = around[:, 1:] & around[:, :-1]
    pace = (np.abs(np.diff(off)) * pairs).sum(1) / np.maximum(pairs.sum(1), 1)
    decades = _decades(look, places, nearest)
    of_there, of_back = (_decades(look, places, its) for its in (there, back))
    zero, many = look.own[LAST, places] == 0, lost.sum(1)
    far_off = (steps >= np.where(zero, *_STEPS)) & (decades >= np.where(zero, *_DECADES)) & (share >= _SHARE[0])
    far_off &= np.maximum(of_there, of_back) >= _RARE
    new = -np.log10(np.maximum(look.own[ZEROS, places], 0.01))
    plain = zero & (share >= _SHARE[1]) & ~far_off
    odd = plain & (steps >= 1) & (many >= _MANY[1])
    odd &= np.minimum(of_there, 4) + np.minimum(of_back, 4) + new >= _ODD
    for row in np.flatnonzero(plain).tolist():
        others = off[row] != 0
        among = np.abs(np.diff(off[row]))[others[1:] & others[:-1]]
        plain[row] = len(among) and nearest[row] >= _CLEAR * np.quantile(among, 0.9)
    found: Flags = one_sided & (nearest > _FASTER * pace) & (many >= np.where(zero, *_MANY)) & (far_off | odd | plain)
    return found


def _middle(values: Floats) -> Floats:
    """float64[m], medians of rows, NaN left out; several times faster than ``nanmedian``."""
    ordered, count = np.sort(values, 1), np.isfinite(values).sum(1)  # NaN come last
    every = np.arange(len(values))
    middle: Floats = (ordered[every, np.maximum(count - 1, 0) // 2] + ordered[every, count // 2]) / 2
    return middle


def _decades(look: Look, places: Ints, size: Floats) -> Floats:
    """float64[m], decades by which steps of a size are rare, also where they are not: 2 for one in a hundred."""
    quick, excess = look.own[QUICK, places], look.own[EXCESS, places]
    with np.errstate(invalid="ignore", divide="ignore"):
        rare = 2 + np.where(size > quick, (size - quick) / (2.302585 * excess), 0)
        decades: Floats = np.where(size > quick, rare, 2 * size / quick)
    return decades
