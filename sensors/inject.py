"""Faults and events, put into a clean recording: where each begins and ends is then known, and a filter can be judged.

Every fault has a look-alike, a true event of the same size in the same quantity, that a filter must not take for it.
What tells them apart is what tells them apart in a town: an event keeps to what the quantity can do (its bounds, and
the fastest change that the recording has seen), it begins and ends without a break, quantities that go together move
together, and neighbours see it too, somewhat earlier or later. A fault does none of this.

Sizes are relative to what the channel did in the weeks before: its *range* (between its 1 % and 99 % quantiles), and
its *noise* (the robust spread of its steps). Nothing is put into the first part of a recording, nor close to something
else at the same sensor, so that a filter can know each channel before it is put to the test.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sensors import kinds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Random = np.random.Generator

FAULTS: Mapping[str, str | None] = {
    "drift": "season",
    "skew": "holiday",
    "offset": "front",
    "noise": "storm",
    "stuck": "calm",
    "dropout": "zero",
    "unit": None,
    "spike": "gust",
}
"""Each fault, and the shape of the event that looks like it; first those that need most room."""
AMPLITUDES = ("small", "medium", "large")
EVENT = "event"
"""The label of every event, whatever its shape."""

_DAY = 86_400_000  # ms
_HOUR = _DAY // 24
_TRIES = 150
"""Places that are looked at before an episode is given up."""
_COLD_START = 0.2, 30  # share of a recording that is left clean at its start, and days at most
_HISTORY = 14  # days that sizes are relative to
_COMPANY = 28  # days from which it is known which quantities go together
_TOGETHER = 0.5  # correlation of changes from which they do
_LONGEST = 6  # days that any episode needs at most
_NEIGHBOURS = 12
_COVERED = 0.9  # readings that an episode needs, of those that the interval promises
_ENOUGH = 0.6  # share of its size that must be left of an event within the quantity's bounds
_BELOW_ZERO = frozenset({"°C", "dBm", "dB", "dB(A)"})
"""Units of quantities that are truly negative at times, not only as a sensor's noise."""
_REGIONAL = frozenset({"temperature", "pressure", "dew_point", "humidity"})
"""Quantities that do not change at one place alone."""
_LOCAL = frozenset({"traffic", "parking", "noise", "weather"})
"""Kinds whose sensors may be quiet each by itself."""
_ORDERED = (("pm25", "pm10"), ("dew_point", "temperature"))
"""Quantities of which the first is never above the second."""
_SIZE = {
    "spike": {"small": (0.3, 5), "medium": (0.6, 8), "large": (1.2, 16)},
    "drift": {"small": (0.4, 4), "medium": (0.8, 8), "large": (1.6, 16)},
    "offset": {"small": (0.25, 4), "medium": (0.5, 8), "large": (1.0, 16)},
    "noise": {"small": (0.06, 3), "medium": (0.12, 6), "large": (0.25, 12)},
}
"""Size as a share of the range, and as a multiple of the noise, whichever is more."""
_LOST = {"small": 0.5, "medium": 0.85, "large": 1.0}  # share of a dropout's readings
_SHIFT = {"small": 2, "medium": 4, "large": 8}  # hours that a clock is wrong
_STILL = {"small": 1.3, "medium": 2.0, "large": 4.0}  # a stuck value's time, by the longest in the history
_FLATTENED = {"small": 0.5, "medium": 0.75, "large": 1.0}  # of a day's course, on a holiday
_UNITS: Mapping[str, Sequence[Callable[[Floats], Floats]]] = {
    "°C": (lambda x: x * 1.8 + 32, lambda x: x * 1.8 + 32, lambda x: x + 273.15),
    "m/s": (lambda x: x * 1.944, lambda x: x * 3.6, lambda x: x * 100),  # kn, km/h, cm/s
    "km/h": (lambda x: x / 1.609, lambda x: x / 3.6, lambda x: x / 3.6),  # mph, m/s
    "hPa": (lambda x: x * 0.75006, lambda x: x / 10, lambda x: x * 100),  # mmHg, kPa, Pa
    "µg/m³": (lambda x: x / 2, lambda x: x / 1000, lambda x: x * 1000),  # about ppb, mg/m³, ng/m³
    "mg/m³": (lambda x: x / 1.15, lambda x: x * 873, lambda x: x * 1000),  # ppm and ppb of CO, µg/m³
    "mg/L": (lambda x: x * 10, lambda x: x * 1000, lambda x: x / 1000),  # about % of saturation, µg/L, g/L
    "µS/cm": (lambda x: x / 10, lambda x: x / 1000, lambda x: x / 1000),  # mS/m, mS/cm
    "m": (lambda x: x * 3.2808, lambda x: x * 100, lambda x: x * 1000),  # ft, cm, mm
    "m³/s": (lambda x: x * 35.31, lambda x: x * 1000, lambda x: x * 3600),  # ft³/s, L/s, m³/h
    "mm": (lambda x: x / 25.4, lambda x: x / 10, lambda x: x / 1000),  # in, cm, m
    "pH": (lambda x: 59.16 * (7 - x),) * 3,  # mV of the electrode
    "%": (lambda x: x / 100,) * 3,
    "lx": (lambda x: x / 10.764, lambda x: x / 1000, lambda x: x / 1000),  # fc, klx
    "veh/h": (lambda x: x / 4, lambda x: x / 60, lambda x: x / 3600),
}
"""Units that a quantity is also measured in, from the nearest to the farthest: small, medium and large."""


class InjectionError(Exception):
    """Nothing of what was asked for can be put into a recording; the message says why."""


@dataclass(eq=False)
class Channel:
    """One quantity of one sensor, as it was recorded and as it becomes.

    Attributes:
        time: int64[n], ms UTC, rising.
        text: Values as recorded, n of them.
        value: float64[n], NaN where the text is no number.
        changed: Place to the text that stands there instead.
        label: Place to the label of what was put there.
    """

    site: str
    kind: str
    sensor: str
    quantity: str
    time: Ints
    text: Sequence[str]
    value: Floats
    changed: dict[int, str] = field(default_factory=dict)
    label: dict[int, str] = field(default_factory=dict)

    @cached_property
    def limits(self) -> kinds.Quantity | None:
        """What its kind says of its quantity."""
        kind = kinds.builtin().get(self.kind)
        return None if kind is None else kind.quantities.get(self.quantity)

    @cached_property
    def interval(self) -> int:
        """Time between two readings, ms."""
        return int(np.median(np.diff(self.time))) if len(self.time) > 1 else 0

    @cached_property
    def decimals(self) -> int:
        """Digits after the point, as recorded."""
        sample = self.text[:: max(1, len(self.text) // 500)]
        return min(4, max(len(text.partition(".")[2]) if "e" not in text.lower() else 4 for text in sample))

    @cached_property
    def resolution(self) -> float:
        """The power of ten that nearly all of its values are multiples of."""
        sample = np.rint(self.value[:: max(1, len(self.value) // 2000)] * 10**self.decimals)
        power = 0
        while power - self.decimals < 3 and (sample % 10 ** (power + 1) == 0).mean() > 0.98:  # noqa: PLR2004
            power += 1
        return float(10.0 ** (power - self.decimals))

    @cached_property
    def fastest(self) -> float:
        """The largest change between two readings that is its own, not a glitch of the recording."""
        near = np.diff(self.time) <= 1.5 * self.interval
        steps = np.abs(np.diff(self.value))[near]
        return float(np.quantile(steps, 0.999)) if len(steps) else 0.0

    @cached_property
    def measurable(self) -> tuple[float, float]:
        """What the sensor can send."""
        low, high = (self.limits and self.limits.fail) or (-np.inf, np.inf)
        return min(low, float(self.value.min())), max(high, float(self.value.max()))

    @cached_property
    def possible(self) -> tuple[float, float]:
        """What the quantity can be, and what is usual for it: between these an event stays."""
        low, high = (self.limits and self.limits.suspect) or self.measurable
        if self.limits is not None and self.limits.unit == "%":
            high = min(high, 100.0)
        if self.limits is not None and self.limits.unit not in _BELOW_ZERO:
            low = max(low, 0.0)
        return min(low, float(self.value.min())), max(high, float(self.value.max()))

    @cached_property
    def judged(self) -> bool:
        """Whether it is a number that goes up and down, so that a fault in it can be seen."""
        if self.limits is None or self.limits.direction or self.quantity in kinds.DIAGNOSTICS:
            return False
        if len(self.value) < 3 * _COLD_MINIMUM or np.isnan(self.value).any():
            return False
        return bool((np.diff(self.value) != 0).mean() > 0.3)  # noqa: PLR2004 - rain and counts of zero are still for longer

    def place(self, time: float) -> int:
        """Of the first reading at or after a time."""
        return int(np.searchsorted(self.time, time))

    def put(self, place: int, value: float, *, fine: bool = False) -> None:
        """Changes a reading, in the digits that the sensor sends."""
        decimals = self.decimals + 2 * fine
        if not fine:
            value = round(value / self.resolution) * self.resolution
        self.changed[place] = f"{round(value, decimals) + 0.0:.{decimals}f}"


_COLD_MINIMUM = 100  # readings


class Part(NamedTuple):
    """What one sensor has of an episode; times in ms UTC, both inclusive."""

    site: str
    kind: str
    sensor: str
    quantities: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Episode:
    """A fault, or an event, with where it can be seen.

    Attributes:
        id: Its number.
        pair: Number of the look-alike; None without one.
        label: The fault's name, or ``event``.
        shape: The fault's name, or the event's shape.
        amplitude: small, medium or large.
        quantity: Where it began; an event may take others along.
        parts: One a sensor.
    """

    id: int
    pair: int | None
    label: str
    shape: str
    amplitude: str
    quantity: str
    parts: tuple[Part, ...]


class _Past(NamedTuple):
    """What a channel did before a time."""

    range: float
    noise: float
    longest: float  # ms without a move
    low: float  # 1 % quantile
    middle: float  # median
    high: float  # 99 %


@dataclass(eq=False)
class _Sensor:
    """All channels of a sensor, and when something is wrong with it."""

    channels: list[Channel]
    place: tuple[float, float] | None
    busy: list[tuple[int, int]] = field(default_factory=list)

    def channel(self, quantity: str) -> Channel | None:
        return next((channel for channel in self.channels if channel.quantity == quantity), None)

    def free(self, start: int, end: int, gap: int) -> bool:
        return all(end + gap < first or last + gap < start for first, last in self.busy)


class _Sized(NamedTuple):
    """Where an event begins, and how large and long it is.

    Attributes:
        size: In the unit of the channel where it begins.
        length: ms.
    """

    channel: Channel
    start: int
    size: float
    length: int
    past: _Past
    amplitude: str


def inject(  # noqa: PLR0913 - what a suite consists of
    channels: Sequence[Channel],
    *,
    seed: int,
    per_kind: int,
    faults: Collection[str] = tuple(FAULTS),
    amplitudes: Sequence[str] = AMPLITUDES,
    places: Mapping[tuple[str, str, str], tuple[float, float]] | None = None,
    step: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Puts faults and their look-alikes into channels.

    Args:
        channels: What was recorded; their ``changed`` and ``label`` are filled.
        seed: The same seed puts the same things into the same places.
        per_kind: How many of each fault, and of each look-alike; fewer where there is no room.
        faults: Which faults.
        amplitudes: How large; they take turns.
        places: Latitude and longitude by site, kind and sensor; without them, all sensors of a kind at a site are
            neighbours, or all of the recording where each site has but one.
        step: Called after each fault.

    Returns:
        What was put there.

    Raises:
        InjectionError: If there was no room for anything.
    """
    suite = _Suite(channels, places or {}, np.random.default_rng(seed))
    for fault in (fault for fault in FAULTS if fault in faults):
        for number in range(per_kind):
            suite.put(fault, amplitudes[number % len(amplitudes)])
            step()
    if not suite.episodes:
        msg = (
            "there is no room for a single fault: the recording is too short, or too broken, or nothing in it moves. "
            f"A channel needs {3 * _COLD_MINIMUM} readings at the least, and skew and drift some weeks"
        )
        raise InjectionError(msg)
    return suite.episodes


class _Suite:
    def __init__(
        self, channels: Sequence[Channel], places: Mapping[tuple[str, str, str], tuple[float, float]], random: Random
    ) -> None:
        self.episodes: list[Episode] = []
        self._random = random
        grouped: dict[tuple[str, str, str], list[Channel]] = {}
        for channel in channels:
            grouped.setdefault((channel.site, channel.kind, channel.sensor), []).append(channel)
        self._sensors = [_Sensor(of_sensor, places.get(key)) for key, of_sensor in grouped.items()]
        self._owner = {channel: sensor for sensor in self._sensors for channel in sensor.channels}
        self._judged = [channel for channel in channels if channel.judged]
        first = min((int(channel.time[0]) for channel in self._judged), default=0)
        last = max((int(channel.time[-1]) for channel in self._judged), default=0)
        # in a short recording all that takes days takes less
        self._day = int(min(_DAY, (last - first) / 60))
        share, days = _COLD_START
        self._begin, self._end = first + int(min(share * (last - first), days * self._day)), last

    # -- placing -----------------------------------------------------------------------------------------------------

    def put(self, fault: str, amplitude: str) -> None:
        """Puts a fault and its look-alike somewhere, each if there is room."""
        shape = FAULTS[fault]
        event = self._try(shape, amplitude, self._judged, EVENT) if shape else None
        like = [channel for channel in self._judged if event and channel.quantity == event.quantity]
        if shape == "zero" and self._random.random() < 0.5:  # noqa: PLR2004 - most quantities are never truly zero
            like = []
        own = self._try(fault, amplitude, like, fault) or self._try(fault, amplitude, self._judged, fault)
        number = len(self.episodes)
        both = event is not None and own is not None
        for episode in filter(None, (event, own)):
            pair = (number + 1 if episode is event else number) if both else None
            self.episodes.append(replace(episode, id=len(self.episodes), pair=pair))

    def _try(self, shape: str, amplitude: str, channels: Sequence[Channel], label: str) -> Episode | None:
        if not channels:
            return None
        make = getattr(self, f"_{shape}")
        for _ in range(_TRIES):
            channel = channels[int(self._random.integers(len(channels)))]
            start = int(self._random.integers(self._begin, max(self._begin + 1, self._end)))
            at = channel.place(start)
            room = (
                self._owner[channel].free(start, start, self._day) and channel.time[-1] >= start + _LONGEST * self._day
            )
            if not room or (past := self._past(channel, at)) is None:
                continue
            changes = make(channel, at, past, amplitude)
            if changes and self._has_room(changes, channel):
                return self._commit(changes, label, shape, amplitude, channel.quantity)
        return None

    def _past(self, channel: Channel, at: int) -> _Past | None:
        """The weeks before a reading; None if there is none, or if they say too little."""
        if at >= len(channel.time):
            return None
        begin = channel.place(int(channel.time[at]) - _HISTORY * self._day)
        time, value = channel.time[begin:at], channel.value[begin:at]
        expected = _HISTORY * self._day / channel.interval
        if len(value) < max(_COLD_MINIMUM, 0.6 * expected):
            return None
        steps = np.diff(value)
        noise = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) or 0.8 * float(np.abs(steps).mean())
        low, middle, high = np.quantile(value, (0.01, 0.5, 0.99))
        if noise == 0 or high - low < 3 * channel.resolution:
            return None
        moves = time[np.flatnonzero(steps) + 1]
        longest = float(np.diff(np.concatenate((time[:1], moves, time[-1:]))).max())
        return _Past(float(high - low), noise, longest, float(low), float(middle), float(high))

    def _has_room(self, changes: "_Changes", main: Channel) -> bool:
        for sensor, changed in changes.items():
            start, end = _span(changed)
            # as long again is left clean, so that a filter can settle
            if start < self._begin or not sensor.free(start, end, max(self._day, 12 * changed[0].channel.interval)):
                return False
            places = next((one.places for one in changed if one.channel is main), None)
            if places is not None and len(places) * main.interval < _COVERED * np.ptp(main.time[places]):
                return False
        return True

    def _commit(self, changes: "_Changes", label: str, shape: str, amplitude: str, quantity: str) -> Episode:
        parts = []
        for sensor, changed in changes.items():
            start, end = _span(changed)
            sensor.busy.append((start, end))
            for one in changed:
                one.write(label)
            channel = changed[0].channel
            quantities = tuple(one.channel.quantity for one in changed)
            parts.append(Part(channel.site, channel.kind, channel.sensor, quantities, start, end))
        return Episode(0, None, label, shape, amplitude, quantity, tuple(parts))

    def _size(self, fault: str, amplitude: str, past: _Past) -> float:
        share, multiple = _SIZE[fault][amplitude]
        return max(share * past.range, multiple * past.noise)

    def _readings(self, channel: Channel, days: float, least: int, spread: float = 2.0) -> int:
        """A random time in readings: some days, but so many readings at the least."""
        wanted = max(least, days * self._day / channel.interval)
        return round(wanted * self._random.uniform(1, spread))

    # -- faults ------------------------------------------------------------------------------------------------------

    def _alone(self, channel: Channel, at: int, value: Floats, *, fine: bool = False) -> "_Changes":
        return {self._owner[channel]: [_Change(channel, np.arange(at, at + len(value)), value, fine=fine)]}

    def _sign(self, channel: Channel, value: Floats, size: float) -> int:
        """Up or down; where the sensor can send it, if there is such a way."""
        low, high = channel.measurable
        ways = [sign for sign in (1, -1) if low <= (value + sign * size).min() and (value + sign * size).max() <= high]
        return int(self._random.choice(ways or (1, -1)))

    def _spike(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        many = 1 + int(self._random.integers(1 + AMPLITUDES.index(amplitude)))
        value = channel.value[at : at + many]
        size = self._size("spike", amplitude, past)
        return self._alone(
            channel, at, value + self._sign(channel, value, size) * size * self._random.uniform(0.8, 1.2)
        )

    def _stuck(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        least = AMPLITUDES.index(amplitude) * 12 + 12
        many = self._readings(channel, _STILL[amplitude] * past.longest / self._day, least, 1.5)
        value = channel.value[at : at + many]
        hidden = (np.diff(value) != 0).sum() >= 0.3 * many and np.ptp(value) >= 4 * past.noise
        if many * channel.interval > 4 * self._day or not hidden:
            return None
        return self._alone(channel, at, np.full(len(value), channel.value[at - 1]))

    def _drift(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        value = channel.value[at : at + self._readings(channel, 2.0, 48, 1.5)]
        size = self._size("drift", amplitude, past)
        return self._alone(
            channel, at, value + self._sign(channel, value, size) * size * np.linspace(0, 1, len(value) + 1)[1:]
        )

    def _offset(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        value = channel.value[at : at + self._readings(channel, 1.0, 24, 1.5)]
        size = self._size("offset", amplitude, past)
        return self._alone(channel, at, value + self._sign(channel, value, size) * size)

    def _noise(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        value = channel.value[at : at + self._readings(channel, 0.5, 24)]
        noisy = value + self._random.normal(0, self._size("noise", amplitude, past), len(value))
        return self._alone(channel, at, np.clip(noisy, *channel.measurable))

    def _dropout(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        value = channel.value[at : at + self._readings(channel, 0.25, 6)]
        if np.median(np.abs(value)) < max(0.25 * past.range, 6 * past.noise):
            return None
        lost = self._random.random(len(value)) < _LOST[amplitude]
        lost[[0, -1]] = True
        return self._alone(channel, at, np.where(lost, 0.0, value))

    def _unit(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        units = _UNITS.get(channel.limits.unit if channel.limits else "")
        if units is None:
            return None
        value = channel.value[at : at + self._readings(channel, 0.5, 12)]
        other = units[AMPLITUDES.index(amplitude)](value)
        if np.median(np.abs(other - value)) < max(0.3 * past.range, 4 * past.noise):
            return None
        return self._alone(channel, at, other, fine=True)

    def _skew(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """The clock of a sensor is wrong: all that it sends is of an earlier or a later time."""
        if not self._has_days(channel):
            return None
        start = int(channel.time[at])
        end = start + self._readings(channel, 2.0, 48, 1.5) * channel.interval
        shift = int(_SHIFT[amplitude] * _HOUR * self._random.choice((1, -1)))
        changed = []
        for one in self._owner[channel].channels:
            first, last = one.place(start), one.place(end)
            source = np.searchsorted(one.time, one.time[first:last] - shift, "right") - 1
            if last > first and source.min() >= 0:
                changed.append(_Change(one, np.arange(first, last), source=source))
        main = next((change for change in changed if change.channel is channel), None)
        if main is None or main.source is None:
            return None
        moved = channel.value[main.source] - channel.value[main.places]
        seen = np.sqrt((moved**2).mean()) >= max(0.2 * past.range, 2 * past.noise)
        return {self._owner[channel]: changed} if seen else None

    # -- events ------------------------------------------------------------------------------------------------------

    def _gust(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """A burst: up within a few readings, and away more slowly."""
        size = self._size("spike", amplitude, past)
        rise = max(1, int(np.ceil(size / (1.25 * channel.fastest)))) * channel.interval
        if rise > max(3 * channel.interval, 0.1 * self._day):
            return None
        fall = max(rise, channel.interval) * self._random.uniform(0.7, 2)

        def course(time: Floats) -> Floats:
            return np.where(time < rise, time / rise, np.exp(-(time - rise) / fall))

        length = int(rise + 4 * fall)
        event = _Sized(channel, int(channel.time[at]), size, length, past, amplitude)
        sign = 1 if channel.possible[0] >= 0 else int(self._random.choice((1, -1)))
        shared = channel.quantity in _REGIONAL or bool(self._random.random() < 0.5)  # noqa: PLR2004 - as often as not
        return self._moved(event, lambda time: sign * course(time), shared=shared)

    def _front(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """A step within what the quantity can do, that lasts, and wears off."""
        size = self._size("offset", amplitude, past)
        rise = (1 + int(np.ceil(1.5 * size / (1.25 * channel.fastest)))) * channel.interval
        if rise > max(6 * channel.interval, 0.25 * self._day):
            return None
        hold = self._readings(channel, 0.6, 14, 1.5) * channel.interval
        fall = 0.4 * hold

        def course(time: Floats) -> Floats:
            up = np.clip(time / rise, 0, 1)
            return up * up * (3 - 2 * up) * np.exp(-np.maximum(time - hold, 0) / fall)

        event = _Sized(channel, int(channel.time[at]), size, int(hold + 3.5 * fall), past, amplitude)
        sign = int(self._random.choice((1, -1)))
        return self._moved(event, lambda time: sign * course(time), shared=True)

    def _season(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """A warm spell, or the like: days up and days down, everywhere."""
        size = self._size("drift", amplitude, past)
        up = self._readings(channel, 2.0, 48, 1.3) * channel.interval
        event = _Sized(channel, int(channel.time[at]), size, 2 * up, past, amplitude)
        sign = int(self._random.choice((1, -1)))
        return self._moved(event, lambda time: sign * (1 - np.cos(np.pi * time / up)) / 2, shared=True)

    def _storm(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """All quantities of all neighbours are unquiet, and each value has to do with the one before."""
        length = self._readings(channel, 0.5, 24) * channel.interval
        event = _Sized(channel, int(channel.time[at]), self._size("noise", amplitude, past), length, past, amplitude)
        common = self._unrest(event)
        changes: _Changes = {}
        for sensor, lag, _ in self._seen_by(event, shared=True):
            for one in sensor.channels:
                if not one.judged or (of_one := self._past(one, one.place(event.start))) is None:
                    continue
                size = min(self._size("noise", amplitude, of_one), 0.8 * one.fastest)
                own = self._unrest(event)

                course = _sum((0.6, common), (0.8, own))
                self._move(changes, sensor, one, _When(event.start + lag, event.length), course, size)
        return self._whole(changes, event)

    def _unrest(self, event: _Sized) -> "_Course":
        """Red noise of size one that comes and goes softly."""
        grid = np.arange(0, event.length + 2 * event.channel.interval, event.channel.interval)
        white = self._random.normal(0, 1, len(grid))
        red = np.array(list(itertools.accumulate(white, lambda last, new: 0.7 * last + 0.714 * new)))
        soft = np.sqrt(np.clip(np.sin(np.pi * grid / max(event.length, 1)), 0, 1))
        return lambda time: np.interp(time, grid, red * soft)

    def _calm(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """Hardly anything moves: a still night, or a quantity that has come to the end of what it can be."""
        least = AMPLITUDES.index(amplitude) * 12 + 12
        many = self._readings(channel, _STILL[amplitude] * past.longest / self._day, least, 1.5)
        if many * channel.interval > 4 * self._day:
            return None
        event = _Sized(channel, int(channel.time[at]), 0, many * channel.interval, past, amplitude)
        low, high = channel.possible
        near, middle = 0.1 * past.range, float(np.median(channel.value[at : at + many]))
        ends = [past.low] * (past.low - low < near) + [past.high] * (high - past.high < near)
        ends = [end for end in ends if abs(end - middle) < 0.4 * past.range]
        end = float(self._random.choice(ends)) if ends else None
        edge = max(2, many // 8)
        if end is not None:
            edge = max(edge, int(np.ceil(1.5 * np.abs(channel.value[at : at + many] - end).max() / channel.fastest)))
        if 3 * edge > many:
            return None

        def quiet(one: Channel, places: Ints) -> Floats:
            value = one.value[places]
            weight = _edges(len(value), edge)
            level = np.linspace(value[0], value[-1], len(value)) if end is None else np.full(len(value), end)
            still = one.resolution if end is None else 0.4 * one.resolution
            walk = np.cumsum(self._random.choice((-1, 0, 0, 0, 0, 1), len(value))) * still
            rest = level + walk - np.linspace(0, walk[-1], len(value))
            return np.clip((1 - weight) * value + weight * rest, *one.possible)

        return self._replaced(event, quiet, shared=self._widely(channel))

    def _zero(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """It truly comes down to zero, as a wind does, or the dust after rain, and up again."""
        if not (0 <= past.low <= 0.2 * past.range and past.middle <= 0.6 * past.range):
            return None
        inner = self._readings(channel, 0.25, 6)
        edge = max(2, int(np.ceil(1.5 * np.median(channel.value[at : at + inner]) / (1.25 * channel.fastest))))
        event = _Sized(channel, int(channel.time[at]), 0, (inner + 2 * edge) * channel.interval, past, amplitude)

        def down(one: Channel, places: Ints) -> Floats:
            weight = _edges(len(places), edge)
            rest = self._random.exponential(0.5 * one.resolution, len(places))
            return np.maximum(0, (1 - weight) * one.value[places] + weight * rest)

        return self._replaced(event, down, shared=self._widely(channel))

    def _widely(self, channel: Channel) -> bool:
        """Whether it is quiet among the neighbours, too."""
        if channel.quantity in _REGIONAL or not (channel.kind in _LOCAL or channel.quantity == "wind_speed"):
            return True
        return bool(self._random.random() < 0.5)  # noqa: PLR2004 - as often as not

    def _holiday(self, channel: Channel, at: int, past: _Past, amplitude: str) -> "_Changes | None":
        """Days without their usual course, everywhere."""
        course = self._course_of_day(channel, at)
        if course is None or np.ptp(course) < max(0.25 * past.range, 3 * past.noise):
            return None
        length = self._readings(channel, 2.0, 48, 1.5) * channel.interval
        event = _Sized(channel, int(channel.time[at]), 0, length, past, amplitude)

        def flattened(one: Channel, places: Ints) -> Floats:
            its = self._course_of_day(one, int(places[0]))
            if its is None:
                return one.value[places]
            hour = one.time[places] % _DAY * 24 // _DAY
            weight = _edges(len(places), max(2, _HOUR * 3 // one.interval))
            return _within(one.value[places], -weight * _FLATTENED[amplitude] * its[hour], *one.possible)

        return self._replaced(event, flattened, shared=True)

    def _course_of_day(self, channel: Channel, at: int) -> Floats | None:
        """float64[24], the usual difference of each hour from the day's mean; None if that is not known."""
        begin = channel.place(int(channel.time[at]) - _HISTORY * _DAY)
        hour = channel.time[begin:at] % _DAY * 24 // _DAY
        count = np.bincount(hour, minlength=24)
        if not self._has_days(channel) or count.min() < 5:  # noqa: PLR2004 - a mean of fewer is none
            return None
        mean = np.bincount(hour, channel.value[begin:at], 24) / count
        return np.asarray(mean - mean.mean())

    def _has_days(self, channel: Channel) -> bool:
        return self._day == _DAY and channel.interval <= 2 * _HOUR

    # -- how an event is seen ----------------------------------------------------------------------------------------

    def _seen_by(self, event: _Sized, *, shared: bool) -> Iterator[tuple[_Sensor, int, float]]:
        """Sensors that see an event: its own first, then, if it is shared, its neighbours. Each with lag and strength.

        It crosses the neighbours in one direction; where they are not known, in any order.
        """
        own = self._owner[event.channel]
        yield own, 0, 1.0
        if not shared:
            return
        others = self._near(own, event.channel)
        slowest = max(3 * _HOUR * self._day // _DAY, 3 * event.channel.interval)
        heading = self._random.uniform(0, 2 * np.pi)
        ahead = [
            self._random.uniform(0, 1)
            if own.place is None or other.place is None
            else np.cos(heading) * (other.place[0] - own.place[0]) + np.sin(heading) * (other.place[1] - own.place[1])
            for other in others
        ]
        farthest = max(map(abs, ahead), default=1) or 1
        for other, distance in zip(others, ahead, strict=True):
            lag = round(distance / farthest * slowest / event.channel.interval) * event.channel.interval
            yield other, lag, float(self._random.uniform(0.7, 1.1))

    def _near(self, own: _Sensor, channel: Channel) -> list[_Sensor]:
        others = [
            sensor
            for sensor in self._sensors
            if sensor is not own and sensor.channels[0].kind == channel.kind and sensor.channel(channel.quantity)
        ]
        if own.place is not None:
            here = np.array(own.place)
            placed = [sensor for sensor in others if sensor.place is not None]
            return sorted(placed, key=lambda sensor: float(np.hypot(*(np.array(sensor.place) - here))))[:_NEIGHBOURS]
        return [sensor for sensor in others if sensor.channels[0].site == channel.site] or others

    def _moved(self, event: _Sized, course: "_Course", *, shared: bool) -> "_Changes | None":
        """Adds a course to the quantity, and what goes with it to the quantities that go with it."""
        changes: _Changes = {}
        for sensor, lag, strength in self._seen_by(event, shared=shared):
            one = sensor.channel(event.channel.quantity)
            if one is None or (of_one := self._past(one, one.place(event.start))) is None:
                continue
            size = event.size * strength * (1.0 if one is event.channel else of_one.range / event.past.range)
            when = _When(event.start + lag, event.length)
            self._move(changes, sensor, one, when, course, size)
            for other, slope in self._company(one, event):
                self._move(changes, sensor, other, when, course, slope * size)
        return self._whole(changes, event)

    def _replaced(self, event: _Sized, path: Callable[[Channel, Ints], Floats], *, shared: bool) -> "_Changes | None":
        """Puts another course in place of the quantity's own, and what goes with the difference to the others."""
        changes: _Changes = {}
        for sensor, lag, _ in self._seen_by(event, shared=shared):
            one = sensor.channel(event.channel.quantity)
            if one is None or not one.judged:
                continue
            start = event.start + lag
            places = np.arange(one.place(start), one.place(start + event.length + 1))
            if len(places) < 4 or places[0] == 0:  # noqa: PLR2004 - a course has a beginning, a middle and an end
                continue
            difference = path(one, places) - one.value[places]
            changes.setdefault(sensor, []).append(_Change(one, places, one.value[places] + difference))
            same = _drawn((one.time[places] - start).astype(float), difference)
            for other, slope in self._company(one, event):
                self._move(changes, sensor, other, _When(start, event.length), same, slope)
        return self._whole(changes, event)

    def _company(self, one: Channel, event: _Sized) -> Iterator[tuple[Channel, float]]:
        """Channels of the same sensor whose changes go with those of this one, and how much they change with it."""
        at = one.place(event.start)
        begin = one.place(event.start - _COMPANY * self._day)
        time, value = one.time[begin:at], one.value[begin:at]
        if not len(time):
            return
        lag = max(1, min(event.length // 4, self._day) // one.interval)
        for other in self._owner[one].channels:
            if other is one or not other.judged:
                continue
            place = np.searchsorted(other.time, time)
            place[place == len(other.time)] -= 1
            same = other.time[place] == time
            x, y = value[same], other.value[place[same]]
            if len(x) < _COLD_MINIMUM + lag:
                continue
            x, y = x[lag:] - x[:-lag], y[lag:] - y[:-lag]
            spread = x.std() * y.std()
            if spread > 0 and abs(np.mean((x - x.mean()) * (y - y.mean())) / spread) >= _TOGETHER:
                yield other, float(np.mean((x - x.mean()) * (y - y.mean())) / x.var())

    def _move(  # noqa: PLR0913, PLR0917 - where, when and how
        self, changes: "_Changes", sensor: _Sensor, one: Channel, when: "_When", course: "_Course", size: float
    ) -> None:
        places = np.arange(one.place(when.start), one.place(when.start + when.length + 1))
        if len(places) and places[0]:
            more = size * course((one.time[places] - when.start).astype(float))
            changes.setdefault(sensor, []).append(_Change(one, places, _within(one.value[places], more, *one.possible)))

    def _whole(self, changes: "_Changes", event: _Sized) -> "_Changes | None":
        """The changes, if the event is as large as it should be, and nothing in it contradicts itself."""
        main = next((one for one in changes.get(self._owner[event.channel], []) if one.channel is event.channel), None)
        if main is None or main.value is None:
            return None
        effect = float(np.abs(main.value - main.channel.value[main.places]).max())
        if effect < max(_ENOUGH * event.size, 2 * event.past.noise):
            return None
        for sensor, changed in changes.items():
            _put_in_order(sensor, changed, event.channel.quantity)
        return changes


_Course = Callable[[Floats], Floats]
"""What is added to a channel, by the time since the event began, ms."""


class _When(NamedTuple):
    start: int
    length: int


def _sum(*parts: tuple[float, _Course]) -> _Course:
    return lambda time: np.asarray(sum(weight * course(time) for weight, course in parts))


def _drawn(time: Floats, value: Floats) -> _Course:
    return lambda wanted: np.interp(wanted, time, value)


@dataclass(eq=False)
class _Change:
    """New values of a channel: numbers, or copies of its own readings of another time."""

    channel: Channel
    places: Ints
    value: Floats | None = None
    source: Ints | None = None
    fine: bool = False

    def write(self, label: str) -> None:
        channel = self.channel
        for number, place in enumerate(self.places.tolist()):
            channel.label[place] = label
            if self.source is not None:
                channel.changed[place] = channel.text[int(self.source[number])]
            elif self.value is not None and self.value[number] != channel.value[place]:
                channel.put(place, float(self.value[number]), fine=self.fine)


_Changes = dict[_Sensor, list[_Change]]


def _span(changed: Sequence[_Change]) -> tuple[int, int]:
    return (
        min(int(one.channel.time[one.places[0]]) for one in changed),
        max(int(one.channel.time[one.places[-1]]) for one in changed),
    )


def _edges(many: int, edge: int) -> Floats:
    """float64[many], from 0 to 1 and back to 0, each within some readings."""
    place = np.minimum(np.arange(1, many + 1), np.arange(many, 0, -1))
    ramp = np.clip(place / (edge + 1), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def _within(value: Floats, more: Floats, low: float, high: float) -> Floats:
    """A sum that comes ever closer to a bound and never passes it, nor lies flat on it."""
    below, above = value - low, high - value
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        down = low + np.where(below > 0, below * np.exp(np.minimum(more, 0) / below), 0) if np.isfinite(low) else None
        up = high - np.where(above > 0, above * np.exp(-np.maximum(more, 0) / above), 0) if np.isfinite(high) else None
    falling = value + more if down is None else down
    rising = value + more if up is None else up
    return np.where(more < 0, falling, np.where(more > 0, rising, value))


def _put_in_order(sensor: _Sensor, changed: list[_Change], quantity: str) -> None:
    """Keeps a quantity from passing the one that it is a part of, where it did not before.

    Args:
        sensor: Its channels.
        changed: What is new of them; gets what has to give way.
        quantity: The one that does not give way.
    """
    for lower, upper in _ORDERED:
        leading, yielding = (lower, upper) if quantity == lower else (upper, lower)
        lead = next((one for one in changed if one.channel.quantity == leading), None)
        other = sensor.channel(yielding)
        if lead is None or lead.value is None or other is None:
            continue
        give = next((one for one in changed if one.channel is other), None)
        if give is None or give.value is None:
            first, last = lead.channel.time[lead.places[[0, -1]]]
            places = np.arange(other.place(first), other.place(last + 1))
            give = _Change(other, places, other.value[places])
        assert give.value is not None  # noqa: S101 - for the type checker
        _, of_lead, of_give = np.intersect1d(
            lead.channel.time[lead.places], other.time[give.places], assume_unique=True, return_indices=True
        )
        sign = 1 if leading == lower else -1
        was = sign * lead.channel.value[lead.places[of_lead]] <= sign * other.value[give.places[of_give]]
        pushed = was & (sign * lead.value[of_lead] > sign * give.value[of_give])
        if pushed.any():
            give.value[of_give[pushed]] = lead.value[of_lead[pushed]]
            if give not in changed:
                changed.append(give)
