"""The page: one HTML file without a script and without anything from elsewhere, for a screen, a phone or paper."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from html import escape
from typing import Any

from gateway import __version__
from gateway.edge.readings import FAIL, SUSPECT
from gateway.edge.reasons import Reason
from gateway.report import charts, figures
from gateway.report.play import CHARTED, SEVERITIES, Play
from gateway.report.style import STYLE

MOST_CHARTS = 60
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, halves of others, and what turns the direction of writing."""
_MOST_SENSORS = 200
_MOST_ROWS = 100
_NONE = "-"
_REASONS = {
    Reason.NO_TIME: "the message had no time; its arrival was taken",
    Reason.FUTURE: "its time is ahead of the gateway's clock",
    Reason.MISSING: "the sensor says that it has no value",
    Reason.GROSS_RANGE: "outside what the sensor can measure",
    Reason.SUSPECT_RANGE: "outside what is plausible here",
    Reason.RATE_OF_CHANGE: "faster than the quantity can change",
    Reason.FLAT_LINE: "has not moved for too long",
    Reason.OUT_OF_ORDER: "older than the reading before",
    Reason.DUPLICATE_TIME: "another value for a time that already has one",
    Reason.CLOCK: "the gateway's clock was not known",
    Reason.PAST: "before the earliest time that is believed",
    Reason.SPIKE: "far from both values before",
    Reason.ATTENUATED: "moves less than it should",
    Reason.CLIMATOLOGY: "not usual at this month and hour",
    Reason.GAP: "the first after a gap",
    Reason.CONTRADICTION: "quantities of one message contradict each other",
    Reason.DIAGNOSTICS: "the sensor says that it is not well",
    Reason.UNUSUAL: "surprising for this sensor",
    Reason.MAINTENANCE: "the sensor was being worked on: not judged",
    Reason.STUCK: "part of a fault: stuck",
    Reason.FAULT_SPIKE: "part of a fault: spikes",
    Reason.DRIFT: "part of a fault: drift",
    Reason.OFFSET: "part of a fault: offset",
    Reason.NOISE: "part of a fault: noise",
    Reason.DROPOUT: "part of a fault: dropout",
    Reason.UNIT: "part of a fault: another unit",
    Reason.SKEW: "part of a fault: a wrong clock",
    Reason.SENDER_SUSPECT: "the sender itself doubts it",
    Reason.OVER_RANGE: "the sender says that it is beyond its range",
    Reason.SENDER_BAD: "the sender itself knows it to be wrong",
}
_NOTES = (
    (
        "The way of the readings is the gateway's own: decode, filter, line protocol. Nothing went through a broker, a "
        "spool or a network; sensors that fall silent raise an event on a gateway, and none here."
    ),
    (
        "Bytes received are topics and payloads. Bytes sent are the bodies of requests, reckoned from a sample "
        "in batches of as many messages as came together; what MQTT, HTTP and TLS add is in neither."
    ),
    "A chart has 480 points in time, each with the least and greatest value of its share of the recording.",
)
_KEY = (
    '<ul class=key><li><svg viewBox="0 0 20 10"><path class="line" d="M1 8L8 3L13 6L19 2"/></svg>least and greatest '
    'value</li><li><svg viewBox="0 0 10 10"><path class="suspect" d="M5 5h0"/></svg>suspect</li>'
    '<li><svg viewBox="0 0 10 10"><path class="fail" d="M2 2l6 6m0-6l-6 6"/></svg>failed; at the edge if off the scale'
    "</li></ul>"
)
_FACE = {"good": "good", "unknown": "not judged", "suspect": "suspect", "fail": "failed", "missing": "missing"}


def page(play: Play, said: dict[str, Any], title: str, zone: tzinfo, made: datetime) -> str:
    """The whole page.

    Args:
        play: What was played, for the charts.
        said: What :func:`gateway.report.figures.summary` says.
        title: Of the page.
        zone: Of its times.
        made: When it is made.
    """
    times = _Times(zone)
    available = figures.availability(play)
    span = f"{times(said['first'])} to {times(said['last'])}" if said["first"] else "no message"
    way = f"Played through gateway <b>{e(said['gateway'])}</b>, citygate {e(__version__)}."
    parts = [
        f"<header><h1>{e(title)}</h1><p>{span}, times in {e(zone)}. {way}</p></header>",
        _tiles(said, available),
        _came(said),
        _flagged(said, times),
        _faults(said, times),
        _events(said, times),
        _availability(play, available),
        _charts(play, available, zone),
        _letters(said),
        _notes(play, said, times, made),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{e(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def e(text: object) -> str:
    """Any text, for HTML: escaped, and what cannot be seen made visible."""
    return escape(_UNSEEN.sub(_seen, str(text)))


def _seen(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode() if match[0] not in "\n\t" else " "


class _Times:
    """Writes times of a summary in a zone."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    def __call__(self, text: str | None) -> str:
        if text is None:
            return "lasts"
        moment = f"{datetime.fromisoformat(text).astimezone(self._zone):%Y-%m-%d %H:%M:%S}"
        return f"<time>{moment.removesuffix(':00')}</time>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table; cells are HTML, and those of the columns *numbers* stand to the right."""
    right = set(numbers)
    head = "".join(f"<th{' class=n' if at in right else ''}>{name}</th>" for at, name in enumerate(headings))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if at in right else ''}>{cell}</td>" for at, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _more(shown: int, there: int, what: str) -> str:
    return f"<p class=dim>{there - shown:,} more {what} are not shown.</p>" if there > shown else ""


def _section(name: str, *parts: str) -> str:
    return f"<section><h2>{name}</h2>{''.join(parts)}</section>"


def _tiles(said: dict[str, Any], available: Sequence[figures.Availability]) -> str:
    flags, readings = said["flags"], said["readings"]
    shares = sorted(its.share for its in available if its.share is not None)
    here = f"{_percent(shares[len(shares) // 2])}" if shares else _NONE
    letters = sum(letters["messages"] for letters in said["dead_letters"])
    size = said["bytes"]
    tiles = [
        (f"{said['messages']:,}", "messages"),
        (f"{said['sensors']:,}", "sensors"),
        (f"{readings:,}", "readings"),
        (_percent(flags["good"], readings), "good"),
        (_percent(flags["suspect"], readings), "suspect"),
        (_percent(flags["fail"], readings), "failed, in quarantine"),
        (f"{len(said['events']):,}", "events"),
        (f"{letters:,}", "dead letters"),
        (here, "available, median sensor"),
        (f"{_size(size['messages'])} → {_size(size['sent'])}", "received → sent on"),
    ]
    return "<ul class=tiles>" + "".join(f"<li><b>{value}</b> {e(name)}</li>" for value, name in tiles) + "</ul>"


def _came(said: dict[str, Any]) -> str:
    size = said["bytes"]
    sources = [
        [
            e(row["source"]),
            e(row["format"] or _NONE),
            *(f"{row[key]:,}" for key in ("reports", "received", "stored", "quarantined", "dead", "duplicate")),
        ]
        for row in said["sources"]
    ]
    measured = [
        [
            e(row["kind"]),
            e(row["quantity"]),
            e(row["unit"]),
            f"{row['channels']:,}",
            *(f"{row[key]:,}" for key in ("good", "unknown", "suspect", "fail", "missing")),
            _range(row["low"], row["high"]),
        ]
        for row in said["quantities"]
    ]
    less = 1 - size["sent"] / size["messages"] if size["messages"] else 0.0
    saved = f" ({_percent(less)} less than came)" if less > 0 else ""
    words = (
        f"{_size(size['messages'])} of topics and payloads became {_size(size['line_protocol'])} of line protocol with "
        f"flags. Compressed, <b>{_size(size['sent'])}</b> are sent as the messages come{saved}, and "
        f"{_size(size['sent_in_full_batches'])} in full batches, as after an outage."
    )
    return _section(
        "What came",
        _table(
            ("source", "format", "reports", "readings", "stored", "quarantined", "dead", "duplicate"),
            sources,
            range(2, 8),
        ),
        "<h3>Quantities</h3>",
        _table(
            ("kind", "quantity", "unit", "sensors", *(_FACE[flag] for flag in _FACE), "range, but for failed"),
            measured,
            range(3, 10),
        ),
        "<h3>Bytes</h3>",
        f"<p>{words}</p>",
    )


def _range(low: float | None, high: float | None) -> str:
    return _NONE if low is None or high is None else f"{low:.5g} … {high:.5g}"


def _flagged(said: dict[str, Any], times: _Times) -> str:
    flags, readings = said["flags"], said["readings"]
    bars = "".join(
        f'<span class="{flag}" style="flex-grow:{flags[flag]}"></span>' for flag in _FACE if flags[flag] and readings
    )
    legend = "".join(
        f'<li><i class="{flag}"></i>{_FACE[flag]} {flags[flag]:,} ({_percent(flags[flag], readings)})</li>'
        for flag in _FACE
        if flags[flag]
    )
    rows = []
    for row in said["reasons"]:
        words = _REASONS[Reason[row["reason"].upper()]]
        examples = "<br>".join(
            f"{e(its['sensor'])} {e(its['quantity'])} <b>{_number(its['value'])}</b> at {times(its['time'])}"
            for its in row["examples"]
        )
        name = f"<b>{e(row['reason'].replace('_', ' '))}</b><br><small>{e(words)}</small>"
        counts = (f"{row[key]:,}" for key in ("suspect", "fail", "remarks", "channels"))
        rows.append([name, *counts, f"<small>{examples}</small>"])
    table = _table(("reason", "suspect", "failed", "remark only", "channels", "for example"), rows, range(1, 5))
    return _section(
        "What was flagged, and why",
        f"<div class=bar>{bars}</div><ul class=key>{legend}</ul>",
        "<p class=dim>A suspect value is stored with its flag; a failed one goes to quarantine. A value can have "
        "several reasons, and a remark alone makes no flag.</p>",
        table if rows else "<p>Nothing was flagged.</p>",
    )


def _faults(said: dict[str, Any], times: _Times) -> str:
    faults = said["faults"]
    rows = [
        [
            f"<b>{e(fault['what'])}</b>",
            f"{e(fault['sensor'])} {e(fault['quantity'])}",
            times(fault["since"]),
            times(fault["until"]),
            f"<small>{e(', '.join(fault['reasons']).replace('_', ' '))}</small>",
        ]
        for fault in faults[:_MOST_ROWS]
    ]
    others = {what: count for what, count in said["verdicts"].items() if what in {"event", "undecided"}}
    words = ", ".join(f"{count:,} {'events' if what == 'event' else what}" for what, count in others.items())
    return _section(
        "Faults of sensors",
        _table(("fault", "channel", "from", "to", "because"), rows) if rows else "<p>No fault was called.</p>",
        _more(len(rows), len(faults), "faults"),
        f"<p class=dim>What else looked strange was called: {words}.</p>" if words else "",
    )


def _events(said: dict[str, Any], times: _Times) -> str:
    events = said["events"]
    rows = [
        [
            f'<span class="sev {e(event["severity"])}">{e(event["severity"])}</span>',
            f"{e(event['sensor'])} {e(event['quantity'])}",
            times(event["since"]),
            times(event["until"]),
            _number(event["value"]),
            _number(event["limit"]),
        ]
        for event in events[:_MOST_ROWS]
    ]
    severities = Counter(event["severity"] for event in events)
    counts = "".join(
        f'<li class="sev {severity}">{severity} {severities[severity]:,}</li>'
        for severity in reversed(SEVERITIES)
        if severities[severity]
    )
    return _section(
        "Events",
        "<p class=dim>A good value beyond a limit of alarm: true, and for people to act on. The gravest first.</p>",
        f"<ul class=key>{counts}</ul>",
        _table(("severity", "channel", "from", "to", "gravest value", "limit"), rows, (4, 5))
        if rows
        else "<p>None.</p>",
        _more(len(rows), len(events), "events"),
    )


def _availability(play: Play, available: Sequence[figures.Availability]) -> str:
    rows = []
    for its in available[:_MOST_SENSORS]:
        sensor = play.channels.sensors[its.sensor]
        rows.append([
            f"{e(sensor.site)}/{e(sensor.family.kind)}/{e(sensor.name)}",
            f"{its.reports:,}",
            _NONE if its.interval is None else _lasting(its.interval),
            _NONE if its.share is None else _percent(its.share),
            _NONE if its.missing is None else f"{its.missing:,}",
            f"{its.gaps:,}",
            _lasting(its.longest),
            charts.strip(its),
        ])  # fmt: skip
    table = _table(
        ("sensor", "reports", "usually every", "available", "missing", "gaps", "longest silence", "over time"),
        rows,
        range(1, 7),
    )
    return _section(
        "Data availability",
        "<p class=dim>What a sensor should have sent by its own usual interval, the median, from the recording's first "
        "moment to its last. Those that lack most come first.</p>",
        table if rows else "<p>No sensor reported.</p>",
        _more(len(rows), len(available), "sensors"),
    )


def _charts(play: Play, available: Sequence[figures.Availability], zone: tzinfo) -> str:
    intervals = {its.sensor: its.interval for its in available}
    there = [channel for channel in range(min(CHARTED, len(play.channels))) if play.flags[channel, 1:5].any()]
    there.sort(key=lambda channel: -int(play.flags[channel, FAIL] + play.flags[channel, SUSPECT]))
    turns: Counter[tuple[str, str]] = Counter()  # a chart of each quantity, then the next one of each

    def turn(channel: int) -> int:
        sensor, quantity = play.name(channel)
        turns[sensor.family.kind, quantity] += 1
        return turns[sensor.family.kind, quantity]

    there = [channel for _, channel in sorted(enumerate(there), key=lambda item: turn(item[1]))]
    drawn = []
    for channel in there[:MOST_CHARTS]:
        sensor, quantity = play.name(channel)
        flags = play.flags[channel]
        name = f"{e(sensor.site)}/{e(sensor.family.kind)}/{e(sensor.name)} · {e(quantity)}"
        unit = f" ({e(play.unit(channel))})" if play.unit(channel) else ""
        counts = f"{flags[1] + flags[2]:,} good or not judged, {flags[SUSPECT]:,} suspect, {flags[FAIL]:,} failed"
        svg = charts.chart(play, channel, intervals.get(sensor.number), zone, f"{name}: {counts}")
        drawn.append(f"<figure><figcaption><b>{name}</b>{unit} <small>{counts}</small></figcaption>{svg}</figure>")
    return _section(
        "Charts",
        _KEY,
        "".join(drawn) or "<p>There is nothing to draw.</p>",
        _more(len(drawn), len(there), "channels, with fewer flags,"),
    )


def _letters(said: dict[str, Any]) -> str:
    letters = said["dead_letters"]
    rows = [
        [
            e(alike["reason"]),
            e(alike["source"]),
            f"{alike['messages']:,}",
            "<br>".join(f"<code>{e(topic)}</code>" for topic in alike["topics"]),
            f"<code>{e(alike['example'].encode('latin-1').decode('utf-8', 'backslashreplace'))}</code>",
        ]
        for alike in letters[:_MOST_ROWS]
    ]
    return _section(
        "Dead letters",
        "<p class=dim>What could not be read. A gateway keeps it with its bytes, and tries it again once its source is "
        "mended.</p>",
        _table(("reason", "source", "count", "topics", "payload begins"), rows, (2,)) if rows else "<p>None.</p>",
        _more(len(rows), len(letters), "reasons"),
    )


def _notes(play: Play, said: dict[str, Any], times: _Times, made: datetime) -> str:
    outside, damage = said["outside_the_recordings_time"], said["damage"]
    notes = [f"Recording: {e(said['recording'])}. This page was made at {times(made.isoformat())}.", *_NOTES]
    if outside:
        notes.append(f"{outside:,} readings say a time outside the recording's, and are not in the charts.")
    if len(play.channels) > CHARTED:
        notes.append(f"Of {len(play.channels):,} channels the first {CHARTED:,} could be drawn.")
    notes += [f"The recording is damaged at {e(text)}." for text in damage]
    return _section("How to read this", "<ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>")


def _percent(share: float, of: float = 1.0) -> str:
    """Such that little is not nothing, and nearly all is not all."""
    if not of:
        return _NONE
    part = 100 * share / of
    if 0 < part < 0.01:  # noqa: PLR2004 - as it is written
        return "&lt; 0.01 %"
    if 99.95 <= part < 100:  # noqa: PLR2004 - as above
        return "&gt; 99.9 %"
    return f"{part:.0f} %" if part in {0, 100} else f"{part:.2f} %" if part < 1 else f"{part:.1f} %"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _number(value: float | None) -> str:
    return _NONE if value is None else e(json.dumps(float(f"{value:.6g}")).removesuffix(".0"))


def _lasting(ms: float) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= 2 * size or (ms >= size and ms % size == 0):
            return f"{ms / size:.3g} {unit}"
    return f"{ms:.0f} ms"
