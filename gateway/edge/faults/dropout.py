"""Dropout: readings fall to zero, or to another constant, in a row or again and again, and come back.

What is lost falls in one step and comes back in one step, and nothing is ever between it and what is measured. A true
zero is reached through what lies between, or from nearby. Zero is what most sensors send for nothing, so little more
is asked for; another constant has to be reached and left by steps that are very rare for the channel.
"""

import numpy as np

from gateway.edge.faults.look import EXCESS, LAST, QUICK, STEADY, STEP, WINDOW, Look, What
from gateway.edge.readings import Floats, Ints

_OFTEN = 0.7  # share of steps that are none, from which a channel counts rather than measures
_AROUND = 3  # readings before and after each lost one, that have to be far from it, and on one side:
_SHARE = 0.3  # of their median distance, at the least
_STEPS = 2.0, 8.0  # mean steps; to zero, and to another constant
_DECADES = 0.5, 4.0  # by which a step as large is rare; to zero, and to another constant
_MANY = 3, 4  # lost readings
_RARE = 2.0  # decades by which the largest step is, that leads there or back; or else:
_PLAIN = 0.5, 2.0  # share of the median distance, and multiples of all but a tenth of the steps among the others

UNTIL, ENTRY = range(2)


class Dropout:
    """Calls constant readings that are far from all readings around, once the channel came back from them.

    Its rows are the time until which readings have been called, ms, and the size of the last step that was one.
    """

    rows = 2

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at what comes back with a large step from a value that came twice."""
        back = np.flatnonzero(look.size > _STEPS[0] * look.own[STEP])
        if len(back):
            back = back[~look.young[back] & (look.own[STEADY, back] < _OFTEN)]
            back = back[look.back(2, back) == look.own[LAST, back]]
        if len(back):
            self._try(look, own, back)
        np.copyto(own[ENTRY], look.size, where=look.size > 0)

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
        lost = off == 0
        leads = lost[:, 1:] != lost[:, :-1]
        around = np.zeros_like(lost)
        for shift in range(1, _AROUND + 1):
            around[:, shift:] |= lost[:, :-shift]
            around[:, :-shift] |= lost[:, shift:]
        around &= ~lost
        one_sided = (around & (off > 0)).any(1) != (around & (off < 0)).any(1)
        far = np.where(around, np.abs(off), np.nan)
        nearest, usual = np.nanmin(far, 1), np.nanmedian(far, 1)
        largest = (leads * np.abs(np.diff(window.value))).max(1)
        # a loss that is longer than the window: how it began is known all the same
        longer = lost[:, :-1].all(1)
        entry = own[ENTRY, places]
        usual, largest = (np.where(longer, np.maximum(its, entry), its) for its in (usual, largest))
        nearest = np.where(longer, np.minimum(nearest, entry), nearest)
        zero = look.own[LAST, places] == 0
        far_off = (
            (nearest >= np.where(zero, *_STEPS) * look.own[STEP, places])
            & (_decades(look, places, nearest) >= np.where(zero, *_DECADES))
            & (_decades(look, places, largest) >= _RARE)
        )
        plain = zero & ~longer & (nearest >= _PLAIN[0] * usual)
        found = (lost.sum(1) >= np.where(zero, *_MANY)) & (longer | ~lost[:, 0]) & one_sided
        found &= (nearest >= _SHARE * usual) & (far_off | plain)
        for row in np.flatnonzero(found).tolist():
            among = np.abs(np.diff(window.value[row]))[~lost[row, 1:] & ~lost[row, :-1]]
            if not far_off[row] and nearest[row] < _PLAIN[1] * np.quantile(among, 0.9):
                continue
            place, time = int(places[row]), window.time[row]
            begins = np.flatnonzero(np.diff(lost[row].astype(int), prepend=0) > 0)
            ends = np.flatnonzero(np.diff(lost[row].astype(int)) < 0)
            for since, until in zip(time[begins].tolist(), time[ends].tolist(), strict=True):
                if until > own[UNTIL, place]:
                    look.say(place, since, until, What.DROPOUT, 0.95, ["constant", "steps there and back"])
            own[UNTIL, place] = time[-2]


def _decades(look: Look, places: Ints, size: Floats) -> Floats:
    """float64[m], decades by which steps of a size are rare, also where they are not: 2 for one in a hundred."""
    quick, excess = look.own[QUICK, places], look.own[EXCESS, places]
    with np.errstate(invalid="ignore", divide="ignore"):
        rare = 2 + np.where(size > quick, (size - quick) / (2.302585 * excess), 0)
        decades: Floats = np.where(size > quick, rare, 2 * size / quick)
    return decades
