"""Charts as SVG, for a page without a script: a line of least and greatest values, and the flags on it."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np

from gateway.edge.readings import FAIL, GOOD, SUSPECT, UNKNOWN, Floats
from gateway.report.figures import STRIP, Availability
from gateway.report.play import BUCKETS, Play

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 190, 62, 10, 8, 24
_INNER = _WIDTH - _LEFT - _RIGHT
_GAP = 3.0  # usual intervals that break the line
_TICKS = (1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672, 1344, 2688)  # hours
_MOST_TICKS = 8
_HOUR = 3_600_000
_FULL, _SOME = 0.9, 0.02


def chart(play: Play, channel: int, interval: int | None, zone: tzinfo, label: str) -> str:
    """A channel's values over the recording's time.

    Args:
        play: What was played.
        channel: Its number; it must be one of those that are kept for a chart.
        interval: Usual time between two values, ms, if it is known.
        zone: Of the times.
        label: What the chart is, escaped.
    """
    low, high = (play.buckets[which, :, channel].astype(np.float64) for which in (0, 1))
    flags = play.flags[channel]
    lines = _scale(low, high, mostly_failed=bool(flags[FAIL] > flags[[GOOD, UNKNOWN, SUSPECT]].sum()))
    bottom, top = lines[0], lines[-1]
    span = max(1, play.last - play.first)
    width = _INNER / BUCKETS

    def x(bucket: int) -> int:
        return round(_LEFT + (bucket + 0.5) * width)

    def y(value: float) -> int:
        share = (top - min(max(value, bottom), top)) / (top - bottom)
        return round(_TOP + share * (_HEIGHT - _TOP - _BOTTOM))

    reach = max(2.0, _GAP * (interval or 0) / span * BUCKETS)
    line = "".join(_line(low[0], high[0], x, y, reach))
    suspect = "".join(f"M{x(at)} {y(value)}h0" for at, value in _marks(low[1], high[1]))
    fail = "".join(f"M{x(at) - 3} {y(value) - 3}l6 6m0-6l-6 6" for at, value in _marks(low[2], high[2]))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(_axes(play.first, span, lines, zone))}"
        f'<path class="line" d="{line}"/>'
        + (f'<path class="suspect" d="{suspect}"/>' if suspect else "")
        + (f'<path class="fail" d="{fail}"/>' if fail else "")
        + "</svg>"
    )


def _scale(low: Floats, high: Floats, *, mostly_failed: bool) -> list[float]:
    """Round values from below the least to above the greatest that is drawn; of failed ones only if most did."""
    layers = slice(0, len(low) if mostly_failed else len(low) - 1)
    if np.isnan(low[layers]).all():
        return [0.0, 1.0]
    least, greatest = float(np.nanmin(low[layers])), float(np.nanmax(high[layers]))
    span = (greatest - least) or abs(greatest) * 0.1 or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= 4)  # noqa: PLR2004
    start = math.floor(least / step)
    return [step * number for number in range(start, max(start + 1, math.ceil(greatest / step)) + 1)]


def _line(low: Floats, high: Floats, x: Callable[[int], int], y: Callable[[float], int], reach: float) -> Iterator[str]:
    """From bucket to bucket: to its least value, and to its greatest; broken where values are missing."""
    before = -math.inf
    for bucket in np.flatnonzero(~np.isnan(low)).tolist():
        least, greatest = y(low[bucket]), y(high[bucket])
        here = f"{x(bucket)} {least}"
        yield f"L{here}" if bucket - before <= reach else f"M{here}h0"
        if greatest != least:
            yield f"V{greatest}"
        before = bucket


def _marks(low: Floats, high: Floats) -> Iterator[tuple[int, float]]:
    for bucket in np.flatnonzero(~np.isnan(low)).tolist():
        yield bucket, low[bucket]
        if high[bucket] != low[bucket]:
            yield bucket, high[bucket]


def _axes(first: int, span: int, lines: list[float], zone: tzinfo) -> Iterator[str]:
    floor = _HEIGHT - _BOTTOM
    for line in lines:
        height = round(_TOP + (lines[-1] - line) / (lines[-1] - lines[0]) * (floor - _TOP))
        yield f'<path class="axis" d="M{_LEFT} {height}h{_INNER}"/>'
        yield f'<text x="{_LEFT - 6}" y="{height + 4}" text-anchor="end">{line:.6g}</text>'
    for moment, text in _ticks(first, span, zone):
        place = round(_LEFT + (moment - first) / span * _INNER)
        anchor = "end" if place > _WIDTH - 60 else "start" if place < _LEFT + 24 else "middle"
        yield f'<path class="axis" d="M{place} {floor}v4"/>'
        yield f'<text x="{place}" y="{floor + 16}" text-anchor="{anchor}">{text}</text>'


def _ticks(first: int, span: int, zone: tzinfo) -> Iterator[tuple[int, str]]:
    """Full hours or days of a zone; at most eight."""
    hours = next((step for step in _TICKS if span / _HOUR / step <= _MOST_TICKS), span // _HOUR // _MOST_TICKS + 1)
    if span < _HOUR:
        begin, end = (datetime.fromtimestamp(time / 1000, zone) for time in (first, first + span))
        yield from ((first, f"{begin:%H:%M:%S}"), (first + span, f"{end:%H:%M:%S}"))
        return
    moment = datetime.fromtimestamp(first / 1000, zone).replace(minute=0, second=0, microsecond=0)
    if hours >= 24:  # noqa: PLR2004 - a day
        moment = moment.replace(hour=0)
    while (time := round(moment.timestamp() * 1000)) <= first + span:
        midnight = moment.hour == 0
        if time >= first and (hours >= 24 or moment.hour % hours == 0):  # noqa: PLR2004 - a day
            yield time, f"{moment:%b %-d}" if midnight else f"{moment:%H:%M}"
        moment = (moment.astimezone(UTC) + timedelta(hours=1 if hours < 24 else hours)).astimezone(zone)  # noqa: PLR2004
        if hours >= 24 and moment.hour:  # noqa: PLR2004 - summer time came or went
            moment += timedelta(hours=24 - moment.hour if moment.hour > 12 else -moment.hour)  # noqa: PLR2004


def strip(its: Availability) -> str:
    """When a sensor was there: a bar that is filled where its reports came, half where some did."""
    cells = ["full" if part >= _FULL else "some" if part >= _SOME else "" for part in its.strip]
    parts, at = [], 0
    while at < STRIP:
        end = next((next_ for next_ in range(at, STRIP) if cells[next_] != cells[at]), STRIP)
        if cells[at]:
            parts.append(f'<rect class="{cells[at]}" x="{at}" width="{end - at}" height="10"/>')
        at = end
    return (
        f'<svg class="strip" viewBox="0 0 {STRIP} 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
