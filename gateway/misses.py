"""A page of what a filter got wrong, worst first: values, the span of the label, the flags. No script, no network."""

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.edge.readings import Flags, Ints
    from gateway.judge import Episode, Values

_MOST = 40
_OF_A_SORT = 3  # episodes of one shape and one mistake
_DAY = 86_400_000  # ms after which a false call is another one
_POINTS = 700
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 190, 56, 8, 22
_SUSPECT, _FAULT = 2, 3
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 760px; padding: 0 1rem;
  color: #1b1f24; background: #fff }
figure { margin: 1.6rem 0 } figcaption { margin-bottom: .3rem } h1 { font-size: 1.3rem }
svg { width: 100%; height: auto; display: block } text { font: 11px system-ui, sans-serif; fill: #57606a }
.span { fill: #0969da; opacity: .12 } .axis { stroke: #d0d7de } .value { fill: none; stroke: #24292f }
.suspect { fill: #bf8700 } .fault { fill: #cf222e } .key { white-space: nowrap; margin-right: 1.2em }
"""


def write(path: Path, name: str, values: "Values", episodes: "Sequence[Episode]", clean: "Flags") -> None:
    """Draws the worst misses.

    Args:
        path: The HTML file.
        name: Of the recording.
        values: All readings and what was said of them.
        episodes: Faults and events, judged.
        clean: bool[n], readings that are neither.
    """
    order = np.lexsort((values.time, values.channel))
    limits = np.searchsorted(values.channel[order], np.arange(len(values.keys) + 1))
    figures = []
    for what, episode in _worst(episodes):
        channel = _channel(values, episode)
        rows = order[limits[channel] : limits[channel + 1]]
        figures.append(_figure(values, rows, (episode.start, episode.end), what))
    false, last = 0, dict[int, int]()
    for row in order[(clean & (values.worst == _FAULT))[order]].tolist():
        channel, moment = int(values.channel[row]), int(values.time[row])
        if false < _OF_A_SORT and moment - last.get(channel, -_DAY) >= _DAY:
            false += 1
            what = "clean data called a fault"
            figures.append(_figure(values, order[limits[channel] : limits[channel + 1]], (moment, moment), what))
        last[channel] = moment
    nothing = "<p>Nothing was missed.</p>"
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Worst misses: {escape(name)}</title>"
        f"<style>{_STYLE}</style><h1>Worst misses: {escape(name)}</h1>"
        "<p><span class=key><svg style='display:inline;width:18px;height:10px' viewBox='0 0 18 10'>"
        "<rect class=span width=18 height=10 /></svg> label</span>"
        "<span class=key><svg style='display:inline;width:10px;height:10px' viewBox='0 0 10 10'>"
        "<circle class=suspect cx=5 cy=5 r=4 /></svg> suspect</span>"
        "<span class=key><svg style='display:inline;width:10px;height:10px' viewBox='0 0 10 10'>"
        "<circle class=fault cx=5 cy=5 r=4 /></svg> fault</span></p>"
        f"{''.join(figures) or nothing}</html>\n",
        "utf-8",
    )


def _worst(episodes: "Sequence[Episode]") -> "list[tuple[str, Episode]]":
    """Events called faults, then faults not found, large ones first, then those not called; a few of each sort."""
    ranks = {"large": 0, "medium": 1, "small": 2}
    ranked = []
    for episode in episodes:
        if episode.event and episode.called:
            ranked.append((0, "event called a fault", episode))
        elif not episode.event and not episode.found:
            ranked.append((1, "not found", episode))
        elif not episode.event and not episode.called:
            ranked.append((2, "found, not called a fault", episode))
    ranked.sort(key=lambda miss: (miss[0], ranks.get(miss[2].amplitude, 3), miss[2].start))
    chosen: list[tuple[str, Episode]] = []
    sorts: dict[tuple[int, str], int] = {}
    for rank, what, episode in ranked:
        sorts[rank, episode.shape] = sorts.get((rank, episode.shape), 0) + 1
        if sorts[rank, episode.shape] <= _OF_A_SORT:
            chosen.append((f"{episode.amplitude} {episode.shape}: {what}".strip(), episode))
    return chosen[:_MOST]


def _channel(values: "Values", episode: "Episode") -> int:
    """Where an episode is seen best: where it was said to be a fault, else where it began."""
    rows = episode.rows
    if episode.event and episode.called:
        rows = rows[values.worst[rows] == _FAULT]
    own = [row for row in rows.tolist() if values.keys[values.channel[row]][3] == episode.quantity]
    return int(values.channel[own[0] if own else rows[0]])


def _figure(values: "Values", rows: "Ints", span: tuple[int, int], what: str) -> str:
    time = values.time[rows]
    first, last = np.searchsorted(time, span[0]), np.searchsorted(time, span[1], "right")
    around = min(max(int(last) - int(first), 36), 600)
    rows = rows[max(0, first - around) : last + around]
    time, value = values.time[rows], values.value[rows]
    low, high = float(np.nanmin(value)), float(np.nanmax(value))
    high = high if high > low else low + 1
    begin, length = int(time[0]), max(1, int(time[-1] - time[0]))

    def x(moment: float) -> float:
        return round(_LEFT + (moment - begin) / length * (_WIDTH - _LEFT - 8), 1)

    def y(number: float) -> float:
        return round(_TOP + (high - number) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    thin = slice(None, None, max(1, len(rows) // _POINTS))
    line = " ".join(f"{x(t)},{y(v)}" for t, v in zip(time[thin].tolist(), value[thin].tolist(), strict=True) if v == v)  # noqa: PLR0124 - not NaN
    dots = "".join(
        f"<circle class={'fault' if call == _FAULT else 'suspect'} cx={x(t)} cy={y(v)} r=2.5 />"
        for t, v, call in zip(time.tolist(), value.tolist(), values.worst[rows].tolist(), strict=True)
        if call >= _SUSPECT and v == v  # noqa: PLR0124
    )
    site, kind, sensor, quantity = values.keys[int(values.channel[rows[0]])]
    left, right = x(span[0]) - 1, x(span[1]) + 1
    return (
        f"<figure><figcaption><b>{escape(what)}</b> — {escape(sensor)} {escape(quantity)} ({escape(kind)}, "
        f"{escape(site)}), {_moment(span[0])} to {_moment(span[1])}</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img aria-label='{escape(what, quote=True)}'>"
        f"<rect class=span x={left:.1f} y={_TOP} width={right - left:.1f} height={_HEIGHT - _TOP - _BOTTOM} />"
        f"<line class=axis x1={_LEFT} x2={_LEFT} y1={_TOP} y2={_HEIGHT - _BOTTOM} />"
        f"<line class=axis x1={_LEFT} x2={_WIDTH - 8} y1={_HEIGHT - _BOTTOM} y2={_HEIGHT - _BOTTOM} />"
        f"<text x={_LEFT - 6} y={_TOP + 9} text-anchor=end>{high:g}</text>"
        f"<text x={_LEFT - 6} y={_HEIGHT - _BOTTOM} text-anchor=end>{low:g}</text>"
        f"<text x={_LEFT} y={_HEIGHT - 6}>{_moment(begin)}</text>"
        f"<text x={_WIDTH - 8} y={_HEIGHT - 6} text-anchor=end>{_moment(begin + length)}</text>"
        f"<polyline class=value points='{line}' />{dots}</svg></figure>"
    )


def _moment(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M")
