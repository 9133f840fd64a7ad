"""Encode: judged readings to InfluxDB line protocol, times in ms.

A good or suspect value is a field of the main measurement beside its flag. Of a failed one only the flag is there; the
value is a point of ``quarantine``. So nothing is deleted, and no chart shows a fault by mistake. Of another value for a
time that already has one not even the flag is there: it would take the place of the first one's.
"""

from collections import defaultdict
from collections.abc import Mapping

import msgspec
import numpy as np

from gateway.edge.batch import Entry
from gateway.edge.faults.look import Verdict
from gateway.edge.filter import Findings
from gateway.edge.readings import FAIL, GOOD, MISSING, REPEATED, Channels, Floats, Layout, Readings
from gateway.edge.reasons import Reason, reason_text
from gateway.edge.watch import Event

_FATES = ("queued", "quarantined", "dead", "duplicate")


def encode(readings: Readings, findings: Findings, channels: Channels, gateway: str) -> Entry:
    """Writes a batch as line protocol and counts it.

    Args:
        readings: Judged readings.
        findings: Events that they raised; what was said of them, or of earlier ones.
        channels: What the readings' channels are.
        gateway: The gateway's name.

    Returns:
        What the spool stores in one transaction: points by class, what is held or dead, and the batch's part of the
        ledger. A dead letter counts as the readings that it says.
    """
    return Entry(
        lines="\n".join(_points(readings)).encode(),
        quarantine="\n".join(_quarantine(readings, gateway)).encode(),
        events="\n".join(
            [
                *(_event(event, channels, gateway) for event in findings.events),
                *(alarm.line(gateway) for alarm in findings.alarms),
                *(_verdict(verdict, channels, gateway) for verdict in findings.verdicts),
            ]
        ).encode(),
        counts=_counts(readings),
        dead=readings.dead,
        keys=readings.keys,
        held=readings.held,
        answers=readings.answers,
    )


def _points(readings: Readings) -> list[str]:
    """The main measurements, in the order of the messages; those of one layout and with the same flags at a stroke."""
    if not readings.sensors:
        return []
    written = np.where(readings.reason & Reason.DUPLICATE_TIME.value, np.uint8(REPEATED), readings.flag)
    good = np.logical_and.reduceat(written == GOOD, readings.starts).tolist()
    flags, starts = written.tobytes(), readings.starts.tolist()
    alike: dict[tuple[Layout, bytes], list[int]] = defaultdict(list)
    for row, layout in enumerate(readings.layouts):
        of_row = layout.good if good[row] else flags[starts[row] : starts[row] + len(layout.names)]
        alike[layout, of_row].append(row)
    lines = [""] * len(readings.layouts)
    for (layout, of_rows), rows in alike.items():
        template, fields, doubtful = layout.template(of_rows)
        if template:
            first = readings.starts[rows][:, None]
            text = iter(_texts(readings.value[first + np.array(fields, np.int64)].ravel()))
            reason = iter(readings.reason[first + np.array(doubtful, np.int64)].ravel().tolist())
            prefixes = [readings.sensors[row].prefix for row in rows]
            columns = [text] * len(fields) + [reason] * len(doubtful)
            arguments = zip(prefixes, *columns, readings.times[rows].tolist(), strict=False)
            for row, line in zip(rows, map(template.__mod__, arguments), strict=True):
                lines[row] = line
    return [line for line in lines if line]


def _texts(values: Floats) -> list[str]:
    """The shortest text of each finite value that reads back as the same; several times faster than ``repr``."""
    return msgspec.json.encode(values.tolist()).decode()[1:-1].split(",")


def _quarantine(readings: Readings, gateway: str) -> list[str]:
    points = []
    for place in np.flatnonzero(readings.flag == FAIL).tolist():
        row = int(np.searchsorted(readings.starts, place, side="right")) - 1
        sensor, quantity = readings.sensors[row], readings.layouts[row].names[place - readings.starts[row]]
        reason = reason_text(int(readings.reason[place]))
        points.append(
            f"quarantine,gateway={gateway},kind={sensor.family.kind},quantity={quantity},sensor={sensor.name},"
            f'site={sensor.site} value={float(readings.value[place])!r},flag={FAIL}i,reason="{reason}" '
            f"{readings.times[row]}"
        )
    return points


def _counts(readings: Readings) -> dict[str, dict[str, int]]:
    """Readings by source and fate; a missing value is none."""
    fates: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_FATES, 0))
    sources = [sensor.family.source for sensor in readings.sensors]
    sizes = np.diff(readings.starts, append=len(readings.flag))
    for source in set(sources):
        of_source = np.repeat([name == source for name in sources], sizes)
        flags = np.bincount(readings.flag[of_source], minlength=MISSING + 1).tolist()
        fates[source]["quarantined"] = flags[FAIL]
        fates[source]["duplicate"] = flags[REPEATED]
        fates[source]["queued"] = sum(flags) - flags[FAIL] - flags[REPEATED] - flags[MISSING]
    for held in readings.held:
        fates[held.source]["queued"] += held.readings
    for letter in readings.dead:
        fates[letter.source]["dead"] += letter.readings
    for source, count in readings.duplicates.items():
        fates[source]["duplicate"] += count
    return {source: {"received": sum(part.values()), **part} for source, part in fates.items()}


def _event(event: Event, channels: Channels, gateway: str) -> str:
    sensor = channels.sensors[channels.owner[event.channel]]
    rule = channels.rules.all[channels.rule[event.channel]]
    unit = rule.limits.unit if rule.limits else ""
    verb = "back within" if event.severity == "none" else "beyond"
    message = f"{rule.quantity} {event.value:.4g} {unit} {verb} {event.limit:g} {unit} at {sensor.site}"
    identity = f"{sensor.family.kind}.{sensor.site}.{sensor.name}.{rule.quantity}.{event.since}"
    return (
        f"event,gateway={gateway},kind={sensor.family.kind},sensor={sensor.name},severity={event.severity},"
        f'site={sensor.site} id="{identity}",quantity="{rule.quantity}",value={event.value!r},'
        f'limit={event.limit!r},message="{message}" {event.time}'
    )


def _verdict(verdict: Verdict, channels: Channels, gateway: str) -> str:
    sensor = channels.sensors[channels.owner[verdict.channel]]
    quantity = channels.rules.all[channels.rule[verdict.channel]].quantity
    identity = f"{sensor.family.kind}.{sensor.site}.{sensor.name}.{quantity}.{verdict.since}"
    return (
        f"verdict,gateway={gateway},kind={sensor.family.kind},quantity={quantity},sensor={sensor.name},"
        f'site={sensor.site},what={verdict.what.name.lower()} id="{identity}",since={verdict.since}i,'
        f'until={verdict.until}i,confidence={verdict.confidence!r},reason="{"+".join(verdict.reasons)}" {verdict.time}'
    )


def health(gateway: str, fields: Mapping[str, float | str], time: int) -> bytes:
    """A line of the measurement ``gateway``: its own health and its ledger.

    Args:
        gateway: The gateway's name.
        fields: Integers, floats and texts.
        time: ms UTC.
    """
    columns = ",".join(f"{name}={_field(value)}" for name, value in fields.items())
    return f"gateway,gateway={gateway} {columns} {time}".encode()


def _field(value: float | str) -> str:
    match value:
        case str():
            return f'"{value}"'
        case int():
            return f"{value}i"
        case _:
            return repr(value)
