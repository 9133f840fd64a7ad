"""What a report says in numbers; what ``citygate report --json`` prints."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gateway.edge.readings import FAIL, GOOD, MISSING, SUSPECT, UNKNOWN
from gateway.edge.reasons import Reason
from gateway.report.play import BUCKETS, SEVERITIES, Example, Play, Tally
from gateway.words import FLAGS, iso

STRIP = 120
"""Parts of a recording in which a sensor is there or not."""
_FEWEST = 3  # reports from which a usual interval is known
_REMARKS = Reason.OUT_OF_ORDER | Reason.GAP
"""Reasons that say nothing against a value; see `gateway.edge.inspect`."""
_EARLY = 0.1  # usual intervals by which a report may come before its time
_LATE = 1.5  # usual intervals without a report from which one is missing


@dataclass(frozen=True)
class Availability:
    """How much of what a sensor should have said did come.

    Attributes:
        sensor: Its number.
        reports: Different times of which it reported.
        interval: Its own median time between two, ms; None with fewer than three reports.
        missing: Reports that did not come, from the recording's first moment to its last; None without an interval.
        gaps: Times at which at least one did not come.
        longest: Longest time without a report, ms.
        strip: For each part of the recording, the share of its reports that came; NaN without an interval.
    """

    sensor: int
    reports: int
    interval: int | None
    missing: int | None
    gaps: int
    longest: int
    strip: list[float]

    @property
    def share(self) -> float | None:
        """Share of its reports that came."""
        return None if self.missing is None else self.reports / max(1, self.reports + self.missing)


def availability(play: Play) -> list[Availability]:
    """How much of each sensor's reports came, the least first."""
    found = [_available(play, number) for number in range(len(play.heard)) if play.heard[number]]
    return sorted(found, key=lambda its: (1.0 if its.share is None else its.share, its.sensor))


def _available(play: Play, number: int) -> Availability:
    times = np.unique(np.frombuffer(play.heard[number], np.int64))
    slack = (play.last - play.first) // BUCKETS  # what was measured before the first message came, and the like
    times = times[(times >= play.first - slack) & (times <= play.last + slack)].clip(play.first, play.last)
    span = play.last - play.first
    edges = np.concatenate([[play.first], times, [play.last]])
    longest = int(np.diff(edges).max()) if len(times) else span
    if len(times) < _FEWEST:
        return Availability(number, len(times), None, None, 0, longest, [float("nan")] * STRIP)
    interval = max(1, int(np.median(np.diff(times))))
    between = np.diff(edges) / interval
    lost = np.where(between > _LATE, np.round(between) - 1, 0)
    for end in (0, -1):  # before the first and behind the last there need not have been one
        lost[end] = np.floor(between[end] + _EARLY) if between[end] > _LATE else 0
    part = (times - play.first) * STRIP // (span + 1)
    due = max(1.0, span / interval / STRIP)
    here = np.bincount(part, minlength=STRIP) / due
    if span / interval < STRIP:  # a report stands for all parts up to the next one that is due
        here = _held(times, play.first, span, interval)
    return Availability(
        number,
        len(times),
        interval,
        int(lost.sum()),
        int((lost > 0).sum()),
        longest,
        np.minimum(here, 1).tolist(),
    )


def _held(times: Any, first: int, span: int, interval: int) -> Any:  # noqa: ANN401 - int64[n] to float64[STRIP]
    middle = first + (np.arange(STRIP) + 0.5) * span / STRIP
    after = np.searchsorted(times, middle, side="right")
    before = times[np.maximum(after - 1, 0)]
    return np.where((after > 0) & (middle - before <= _LATE * interval), 1.0, 0.0)


def quantities(play: Play) -> list[dict[str, Any]]:
    """What was measured: a row a kind and quantity, with counts by flag and the range of what did not fail."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for channel in range(len(play.channels)):
        flags = play.flags[channel]
        if not flags.any():
            continue
        sensor, quantity = play.name(channel)
        row = rows.setdefault(
            (sensor.family.kind, quantity),
            {
                "kind": sensor.family.kind,
                "quantity": quantity,
                "unit": play.unit(channel),
                "channels": 0,
                **dict.fromkeys(FLAGS.values(), 0),
                "low": None,
                "high": None,
            },
        )
        row["channels"] += 1
        for flag, name in FLAGS.items():
            row[name] += int(flags[flag])
        if play.low[channel] <= play.high[channel]:
            low, high = float(play.low[channel]), float(play.high[channel])
            row["low"] = low if row["low"] is None else min(row["low"], low)
            row["high"] = high if row["high"] is None else max(row["high"], high)
    return [rows[key] for key in sorted(rows)]


def summary(play: Play) -> dict[str, Any]:
    """Everything that the page says, but the charts; times in ISO 8601, UTC."""
    flags = play.flags.sum(axis=0)
    judged = int(flags[[GOOD, UNKNOWN, SUSPECT, FAIL, MISSING]].sum())
    formats = {source.name: source.format for source in play.config.source}
    return {
        "recording": str(play.stream.path),
        "gateway": play.config.gateway.id,
        "messages": play.messages,
        "first": None if play.stream.first is None else iso(play.first),
        "last": None if play.stream.last is None else iso(play.last),
        "sensors": sum(bool(times) for times in play.heard),
        "readings": judged,
        "flags": {name: int(flags[flag]) for flag, name in FLAGS.items()},
        "outside_the_recordings_time": play.outside,
        "bytes": {
            "messages": play.raw_bytes,
            "line_protocol": play.line_bytes,
            "sent": play.sent_bytes,
            "sent_in_full_batches": play.full_bytes,
        },
        "sources": [
            {"source": source, "format": formats.get(source), "reports": play.reports[source], **_fates(counts)}
            for source, counts in sorted(play.counts.items())
        ],
        "quantities": quantities(play),
        "reasons": list(_reasons(play)),
        "verdicts": dict(play.said),
        "faults": [
            {
                **_of(play, verdict.channel),
                "what": verdict.what.name.lower(),
                "since": iso(verdict.since),
                "until": iso(verdict.until),
                "reasons": list(verdict.reasons),
            }
            for verdict in play.verdicts
        ],
        "events": [
            {
                **_of(play, event.channel),
                "since": iso(event.since),
                "until": None if event.until is None else iso(event.until),
                "severity": event.severity,
                "value": event.value,
                "limit": event.limit,
            }
            for event in sorted(
                play.events.values(), key=lambda event: (-SEVERITIES.index(event.severity), event.since)
            )
        ],
        "dead_letters": [
            {**asdict(letters), "topics": sorted(letters.topics), "example": letters.example.decode("latin-1")}
            for letters in sorted(play.letters.values(), key=lambda alike: -alike.messages)
        ],
        "availability": [
            {
                "sensor": _sensor(play, its.sensor),
                "reports": its.reports,
                "interval_s": None if its.interval is None else its.interval / 1000,
                "missing": its.missing,
                "share": its.share,
                "gaps": its.gaps,
                "longest_gap_s": its.longest / 1000,
            }
            for its in availability(play)
        ],
        "damage": play.stream.damage,
    }


def _fates(counts: Any) -> dict[str, int]:  # noqa: ANN401 - a Counter of fates
    return {
        "received": counts["received"],
        "stored": counts["queued"],
        **{fate: counts[fate] for fate in ("quarantined", "dead", "duplicate")},
    }


def _reasons(play: Play) -> Iterator[dict[str, Any]]:
    def rank(item: tuple[Reason, Tally]) -> tuple[bool, int]:
        """Those that flags rest upon first, the most frequent before the others."""
        reason, tally = item
        return reason in _REMARKS, -tally.flags[SUSPECT] - tally.flags[FAIL]

    for reason, tally in sorted(play.reasons.items(), key=rank):
        against = {} if reason in _REMARKS else {flag: tally.flags[flag] for flag in (SUSPECT, FAIL)}
        yield {
            "reason": (reason.name or "").lower(),
            "suspect": against.get(SUSPECT, 0),
            "fail": against.get(FAIL, 0),
            "remarks": sum(tally.flags.values()) - sum(against.values()),
            "channels": len(tally.channels),
            "examples": [example(play, its) for its in tally.examples],
        }


def example(play: Play, its: Example) -> dict[str, Any]:
    """A reading by names."""
    value = its.value if np.isfinite(its.value) else None
    return {**_of(play, its.channel), "time": iso(its.time), "value": value, "flag": FLAGS.get(its.flag, "")}


def _of(play: Play, channel: int) -> dict[str, str]:
    sensor, quantity = play.name(channel)
    return {"sensor": _sensor(play, sensor.number), "quantity": quantity}


def _sensor(play: Play, number: int) -> str:
    sensor = play.channels.sensors[number]
    return f"{sensor.site}/{sensor.family.kind}/{sensor.name}"
