"""Unit: a sensor sends in another unit for a while, after a restart or an update of its software.

The values jump, and go on as if nothing had happened when they are converted back: so they do for as long as it lasts,
and so does the first value after it. Held against what a channel was expected to be, the converted values are off by a
small part of what the sent ones are off by. Digits tell, too, unless the sensor rounds them: what is a multiple of the
channel's resolution only when it is converted back was measured in the channel's unit.
"""

import numpy as np

from gateway.edge.faults.look import CALLED, COMMON, COUNT, LAST, LEARNING, MEAN, PAIRS, QUICK, TIME, WINDOW, Look, What
from gateway.edge.readings import Flags, Floats, Ints, Rules

# What a sensor may send instead of a kind's unit: sent = true · factor + offset. Factors of NIST SP 811, appendix B;
# gases at 25 °C and 1013 hPa (US EPA, 40 CFR 50); pH by the Nernst slope at 25 °C, 59.16 mV. Not of rain, which may be
# any part of what it was.
_UNITS: dict[str, tuple[tuple[float, float], ...]] = {
    "°C": ((1.8, 32), (1, 273.15)),  # °F, K
    "m/s": ((3.6, 0), (1.943844, 0), (2.236936, 0), (3.28084, 0), (100, 0)),  # km/h, kn, mph, ft/s, cm/s
    "km/h": ((1 / 3.6, 0), (0.539957, 0), (0.621371, 0)),  # m/s, kn, mph
    "hPa": ((0.1, 0), (0.750062, 0), (100, 0), (0.02953, 0), (0.0145038, 0)),  # kPa, mmHg, Pa, inHg, psi
    "µg/m³": ((0.001, 0), (1000, 0), (0.531, 0), (0.509, 0), (0.382, 0)),  # mg/m³, ng/m³, ppb of NO2, O3, SO2
    # µg/m³, ppb and ppm of CO; mg/m³ and ppm of what is sent as µg/m³ and converted
    "mg/m³": ((1000, 0), (873, 0), (0.873, 0), (0.001, 0), (0.000873, 0)),
    "mg/L": ((1000, 0), (0.001, 0), (10, 0), (31.25, 0)),  # µg/L, g/L, about % of saturation with oxygen, µmol/L of it
    "µS/cm": ((0.001, 0), (0.1, 0), (0.0001, 0)),  # mS/cm, mS/m, S/m
    "m": ((3.28084, 0), (100, 0), (1000, 0), (39.37008, 0)),  # ft, cm, mm, in
    "m³/s": ((35.31467, 0), (1000, 0), (3600, 0)),  # ft³/s, L/s, m³/h
    "pH": ((-59.16, 414.12),),  # mV of the electrode
    "%": ((0.01, 0),),  # a share
    "lx": ((0.092903, 0), (0.001, 0)),  # fc, klx
    "veh/h": ((0.25, 0), (1 / 60, 0)),  # in a quarter of an hour, in a minute
}
_MOST = max(len(units) for units in _UNITS.values())

_HOUR = 3_600_000.0  # ms
_BY_RATIO = 8.0  # a factor from which values are compared by their ratio, as they may vary by more than they are
_UNLIKE = 4.0  # by how much a value must be a multiple, or a part, of the one before
_USUAL = 5.0  # spreads from its mean, in which a channel is
_RARE = 2.0  # decades by which a step must be rare that is no such multiple
_EXPLAINED = 0.3  # share of a jump that may be left of it in the other unit
_RUN = 0.35  # the same, on average
_BOTH = 0.6  # the sum of those of the beginning, the time between, and the end
_SHORTEST = 3  # readings, until it may be over
_SHORTEST_LIKE = 10  # the same, of a jump that is no such multiple
_SURE = 6  # readings until it may be called while it lasts
_IMPOSSIBLE = 6.0  # decades by which the jump is then rare if it is no such multiple, or both jumps together
_FAR = 5.0  # times the size of one step in a hundred, that it is then off by
_FAR_ALONE = 10.0  # the same, of what may be a part or a multiple by itself, as wind is, where no neighbour tells
_TIED = 0.5  # correlation with neighbours that tell
_CLEAR = 0.15  # what may be left then of a jump that is no multiple
_TINY = 1e-9  # what zero is taken as where values are compared by their ratio
_LONGEST = 48 * _HOUR
# Of digits:
_COARSEST, _FINEST = 0.01, 1e6  # multiples of the unit in which values may be whole numbers
_WHOLE = 0.05  # off a whole number
_PACE = 0.25  # by which the share of values that are none follows
_ODD, _EVEN = 0.65, 0.35  # that share when it may begin, and when it is over
_OTHER, _AGAIN = 0.9, 200  # that share when the channel may just have more digits, and readings between two looks
_DIGITS = [10.0**-power for power in range(7, -4, -1)]
_ROUNDED = 1e-3  # of a digit
_INEXACT = 0.001  # by which a factor may be another: a gas is weighed at some temperature
_LEAST = 0.02  # chance of a whole number at least
_DECADES = 5.0  # by which so many different whole numbers are unlikely by chance
_FEWEST = 4  # different fractions that are, where these would be anyway
_UNIT = int(What.UNIT)  # as a number: what is compared with an enumeration takes several times as long
_EVERY = 4  # readings between two looks while all are fractions

# Its rows.
(
    _SINCE,  # time of the first reading of what may be another unit, ms; 0 if there is none
    _BEFORE,  # the value before
    _WHICH,  # place of the unit in the table
    _COMMON,  # level of the neighbours then
    _BEGINNING,  # share of the jump that was left in that unit
    _COUNT,  # readings since
    _SENT,  # sum of what they are off by as they were sent
    _CONVERTED,  # and in that unit
    _RARITY,  # of the jump, decades
    _SCALE,  # multiples of the unit in which values are whole numbers
    _FRACTIONS,  # share of the latest that are not
) = range(11)


class Unit:
    """Calls values in another unit when enough of them fit, or when they end."""

    rows = 11

    def __init__(self) -> None:
        self._rules: Rules | None = None
        self._factor: Floats = np.zeros((0, _MOST))
        self._offset: Floats = np.zeros((0, _MOST))
        self._known: Flags = np.zeros(0, bool)

    def judge(self, look: Look, own: Floats) -> None:
        """Looks at readings that are far from the one before, and at channels that seem to be in another unit."""
        if self._rules is not look.rules:
            self._take(look.rules)
        self._look_at_digits(look, own)
        busy = own[_SINCE].nonzero()[0]
        if len(busy):
            self._follow(look, own, busy)
        value = np.abs(look.value)
        value *= _UNLIKE
        far = value < np.abs(look.own[LAST])
        rare = look.quick[look.rarity[look.quick] > _RARE]
        far[rare] |= look.size[rare] > look.spread[rare]
        far[busy] = False  # what is over just now is no beginning
        places = far.nonzero()[0]
        if len(places):
            known = self._known[look.rule[places]] & ~look.young[places] & (look.fault[places] != _UNIT)
            places = places[known]
        if len(places):
            self._begin(look, own, places)

    def _take(self, rules: Rules) -> None:
        """Units of each rule, NaN where there is none."""
        self._rules = rules
        self._factor, self._offset = np.full((2, len(rules.all), _MOST), np.nan)
        for number, rule in enumerate(rules.all):
            for place, (factor, offset) in enumerate(_UNITS.get(rule.limits.unit, ()) if rule.limits else ()):
                self._factor[number, place], self._offset[number, place] = factor, offset
        self._known = np.isfinite(self._factor[:, 0])

    def _look_at_digits(self, look: Look, own: Floats) -> None:
        """Begins and ends what digits tell."""
        scale, fractions = own[_SCALE], own[_FRACTIONS]
        fraction = _is_fraction(look.value, scale)
        fractions += _PACE * (fraction - fractions)
        if look.some_young:
            scale[look.own[COUNT] == 1] = _COARSEST
            finer = look.young & _is_fraction(look.value, scale) & (scale < _FINEST)
            scale[finer] *= 10
            fractions[look.young] = 0
        called = look.own[CALLED]
        if look.some_faulty and len(lasting := ((called == _UNIT) & (own[_SINCE] == 0)).nonzero()[0]):
            which = own[_WHICH, lasting].astype(np.int64)
            whole = self._are_whole(look, own, lasting)[0][np.arange(len(lasting)), which, -1]
            look.end(lasting[~whole | (fractions[lasting] < _EVEN)])
        if not np.count_nonzero(fractions > _ODD):
            return
        places = ((fractions > _ODD) & (called == 0) & (scale < _FINEST) & self._known[look.rule]).nonzero()[0]
        again = look.own[COUNT, places]
        places = places[(fractions[places] < _OTHER) | (again % _EVERY == 0)]
        if len(places):
            self._try_digits(look, own, places)
            finer = places[(look.own[COUNT, places] % _AGAIN == 0) & (fractions[places] > _OTHER)]
            scale[finer[called[finer] == 0]] *= 10

    def _are_whole(self, look: Look, own: Floats, places: Ints) -> tuple[Flags, Floats, Floats]:
        """bool[m, units, k], which of the latest values are whole numbers when they are converted back.

        With them, float64[m, units, k]: these numbers, and the chance of each to be whole, by how finely it is sent.
        """
        sent, rule, scale = look.window(places, WINDOW).value, look.rule[places], own[_SCALE, places]
        factor, offset = self._factor[rule][..., None], self._offset[rule][..., None]
        digit = np.zeros(len(places))  # in which all are sent
        for size in _DIGITS:
            digit[(np.abs(sent / size - np.rint(sent / size)) < _ROUNDED).all(1)] = size
        multiple = (sent[:, None] - offset) / factor * scale[:, None, None]
        number = np.rint(multiple)
        off = 0.5 * (digit * scale)[:, None, None] / np.abs(factor) + _INEXACT * np.abs(multiple)
        off = np.maximum(off, 0.5 * _LEAST)
        return (np.abs(multiple - number) <= off) & ((number != 0) | (multiple == 0)), number, np.minimum(2 * off, 1)

    def _try_digits(self, look: Look, own: Floats, places: Ints) -> None:
        """Calls channels whose latest values are whole multiples of their resolution only in another unit."""
        window, rule, scale = look.window(places, WINDOW), look.rule[places], own[_SCALE, places]
        sent, factor = window.value, self._factor[rule]
        whole, number, chance = self._are_whole(look, own, places)
        # since when all are
        its = np.logical_and.accumulate(whole[..., ::-1], 2)[..., ::-1]
        fractions = its & _is_fraction(sent, scale[:, None])[:, None]
        first = fractions.argmax(2).clip(1)
        its &= np.arange(WINDOW) >= first[..., None]
        # the same number again tells nothing more
        known = (np.tril(number[..., :, None] == number[..., None, :], -1) & its[..., None, :]).any(3)
        told = its & ~known & (number != 0)
        decades = (-np.log10(chance) * told).sum(2)
        # as they were sent, they are off the value before
        before = np.take_along_axis(sent, first - 1, 1)[..., None]
        converted = number / scale[:, None, None]
        off, off_converted = ((np.abs(these - before) * its).sum(2) for these in (sent[:, None], converted))
        misfit = off_converted / np.maximum(off, _TINY)
        # whatever has three more digits is a whole number in thousands: there it is how far they are off that tells
        by_ratio = _by_ratio(factor, self._offset[rule]) & ((told & fractions).sum(2) >= _FEWEST) & (misfit < _RUN)
        fits = fractions.any(2) & ((decades >= _DECADES) | by_ratio)
        misfit[~fits] = np.inf
        which = misfit.argmin(1)
        for row in np.flatnonzero(np.isfinite(misfit.min(1))).tolist():
            place, unit = int(places[row]), which[row]
            own[_SINCE, place], own[_WHICH, place] = 0, unit
            look.begin(place, What.UNIT, float(window.time[row, first[row, unit]]), 0.95, ("digits", "unit"))

    def _begin(self, look: Look, own: Floats, places: Ints) -> None:
        """The unit that explains a jump best, if any does."""
        rule, value = look.rule[places], look.value[places]
        # what would not be where the channel usually is in any unit, which is nearly everything, is done with
        converted = (value[:, None] - self._offset[rule]) / self._factor[rule]
        likely = np.abs(converted - look.own[MEAN][places][:, None]) < (_USUAL * look.spread[places])[:, None]
        if not np.count_nonzero(likely):
            return
        some = likely.any(1)
        places, rule, value, converted, likely = places[some], rule[some], value[some], converted[some], likely[some]
        last = look.own[LAST][places]
        ratio = _by_ratio(self._factor[rule], self._offset[rule])
        with np.errstate(invalid="ignore", divide="ignore"):
            left = _off(converted, last[:, None], ratio) / _off(value[:, None], last[:, None], ratio)
            usual = look.own[MEAN, places, None]
            away = _off(value[:, None], usual, ratio) > _off(last[:, None], usual, ratio)
        likely &= away & (ratio | (look.rarity[places] > _RARE)[:, None])
        left = np.where(likely & np.isfinite(left), left, np.inf)
        which = left.argmin(1)
        best = left[np.arange(len(places)), which]
        for number in np.flatnonzero(best < _EXPLAINED).tolist():
            place = int(places[number])
            common = np.nan_to_num(look.beside[COMMON, place])
            own[:_SCALE, place] = (
                look.time[place],
                last[number],
                which[number],
                common,
                best[number],
                0,
                0,
                0,
                look.rarity[place],
            )
            self._follow(look, own, places[number : number + 1], begun=True)

    def _follow(self, look: Look, own: Floats, places: Ints, *, begun: bool = False) -> None:
        """Whether values still fit, and whether they are as before."""
        rule, which = look.rule[places], own[_WHICH, places].astype(np.int64)
        factor, offset = self._factor[rule, which], self._offset[rule, which]
        ratio = _by_ratio(factor, offset)
        value, last = look.value[places], look.own[LAST, places]
        moved = np.nan_to_num(look.beside[COMMON, places]) - own[_COMMON, places]
        usual = look.shown[places]
        expected = own[_BEFORE, places] + np.where(ratio, 0, usual * moved)
        end = np.full(len(places), np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            if not begun:
                left = _off(value, (last - offset) / factor, ratio) / _off(value, last, ratio)
                end = np.where((ratio | (look.rarity[places] > _RARE)) & np.isfinite(left), left, np.inf)
            off, off_converted = _off(value, expected, ratio), _off((value - offset) / factor, expected, ratio)
        over = (end < _EXPLAINED) & (own[_COUNT, places] >= np.where(ratio, _SHORTEST, _SHORTEST_LIKE))
        on = places[~over]
        own[_COUNT, on] += 1
        own[_SENT, on] += off[~over]
        own[_CONVERTED, on] += np.minimum(off_converted, 2 * off)[~over]
        part = own[_CONVERTED, places] / own[_SENT, places]
        called = look.own[CALLED, places] == _UNIT
        rarity = own[_RARITY, places]
        both = (own[_BEGINNING, places] + part + end < _BOTH) & (rarity + look.rarity[places] > _IMPOSSIBLE)
        known = (look.own[PAIRS, places] > LEARNING) & (look.tie[places] > _TIED)
        alone = own[_SENT, places] > _FAR_ALONE * own[_COUNT, places] * look.own[QUICK, places]
        fits = (part < _RUN) & (ratio | (both & ((offset != 0) | known | alone)))
        for number in np.flatnonzero(over & fits & ~called).tolist():
            place = int(places[number])
            look.say(place, own[_SINCE, place], look.own[TIME, place], What.UNIT, 0.95, ("step", "unit", "return"))
        clear = (part < _CLEAR) & (rarity > _IMPOSSIBLE)
        clear &= own[_SENT, places] > _FAR * own[_COUNT, places] * look.own[QUICK, places]
        sure = ~over & ~called & (own[_COUNT, places] >= _SURE) & np.where(ratio, part < _RUN, clear)
        for number in np.flatnonzero(sure & (look.own[CALLED, places] == 0)).tolist():
            place = int(places[number])
            look.begin(place, What.UNIT, own[_SINCE, place], 0.9, ("step", "unit"))
        past = look.time[places] - own[_SINCE, places] > _LONGEST
        over |= (off_converted > off) | (past & (look.own[CALLED, places] != _UNIT))
        look.end(places[over & (look.own[CALLED, places] == _UNIT)])
        own[_SINCE, places[over]] = 0


def _is_fraction(value: Floats, scale: Floats) -> Flags:
    """Whether values are no whole multiples of a channel's resolution."""
    multiple = value * scale
    fraction: Flags = np.abs(multiple - np.rint(multiple)) > _WHOLE * np.minimum(np.abs(multiple), 1)
    return fraction


def _by_ratio(factor: Floats, offset: Floats) -> Flags:
    return np.asarray((offset == 0) & ((factor >= _BY_RATIO) | (factor * _BY_RATIO <= 1)))


def _off(value: Floats, expected: Floats, ratio: Flags) -> Floats:
    """By how much values are off, as numbers or by their ratio."""
    by_ratio = np.abs(np.log(np.maximum(value, _TINY) / np.maximum(expected, _TINY)))
    return np.where(ratio, by_ratio, np.abs(value - expected))
