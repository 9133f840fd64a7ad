"""Encode: judged readings to InfluxDB line protocol, times in ms.

A good or suspect value is a field of the main measurement beside its flag. Of a failed one only the flag is there; the
value is a point of ``quarantine``. So nothing is deleted, and no chart shows a fault by mistake.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from gateway.edge.batch import Entry
from gateway.edge.inspect import Event, reason_text
from gateway.edge.readings import FAIL, GOOD, MISSING, Channels, Readings


def encode(readings: Readings, events: Sequence[Event], channels: Channels, gateway: str) -> Entry:
    """Writes a batch as line protocol and counts it.

    Args:
        readings: Judged readings.
        events: Events that they raised.
        channels: What the readings' channels are.
        gateway: The gateway's name.

    Returns:
        What the spool stores in one transaction: lines, dead letters, and the batch's part of the ledger. A dead letter
        counts as one reading received.
    """
    values = readings.value.tolist()
    flags = readings.flag.tolist()
    times = readings.times.tolist()
    starts = readings.starts.tolist()
    all_good = np.logical_and.reduceat(readings.flag == GOOD, readings.starts).tolist() if starts else []
    lines: list[str] = []
    queued: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    for sensor, shape, start, time, good in zip(
        readings.sensors, readings.shapes, starts, times, all_good, strict=True
    ):
        count = len(shape.names)
        queued[sensor.source] += count
        if good:
            lines.append(shape.good % (*values[start : start + count], time))
            continue
        fields = []
        for place, name in enumerate(shape.names, start):
            flag = flags[place]
            if flag == FAIL:
                quarantined[sensor.source] += 1
                reason = reason_text(int(readings.reason[place]))
                lines.append(
                    f"quarantine,gateway={gateway},kind={sensor.kind},quantity={name},sensor={sensor.name},"
                    f'site={sensor.site} value={values[place]!r},flag={flag}i,reason="{reason}" {time}'
                )
            elif flag == MISSING:
                queued[sensor.source] -= 1  # the sensor said that there is no reading
            else:
                fields.append(f"{name}={values[place]!r}")
            fields.append(f"{name}_qc={flag}i")
        lines.append(f"{sensor.prefix} {','.join(fields)} {time}")
    lines += [_event(event, channels, gateway) for event in events]
    counts = _counts(readings, queued, quarantined)
    return Entry("\n".join(lines).encode(), counts=counts, dead=readings.dead)


def _counts(readings: Readings, queued: Counter[str], quarantined: Counter[str]) -> dict[str, dict[str, int]]:
    dead = Counter(letter.source for letter in readings.dead)
    counts = {}
    for source in {*queued, *dead, *readings.duplicates}:
        part = {
            "queued": queued[source] - quarantined[source],
            "quarantined": quarantined[source],
            "dead": dead[source],
            "duplicate": readings.duplicates.get(source, 0),
        }
        counts[source] = {"received": sum(part.values()), **part}
    return counts


def _event(event: Event, channels: Channels, gateway: str) -> str:
    channel = channels.all[event.channel]
    unit = channel.rules.unit if channel.rules else ""
    verb = "back within" if event.severity == "none" else "beyond"
    message = f"{channel.quantity} {event.value:.4g} {unit} {verb} {event.limit:g} {unit} at {channel.site}"
    identity = f"{channel.kind}.{channel.site}.{channel.sensor}.{channel.quantity}.{event.since}"
    return (
        f"event,gateway={gateway},kind={channel.kind},sensor={channel.sensor},severity={event.severity},"
        f'site={channel.site} id="{identity}",quantity="{channel.quantity}",value={event.value!r},'
        f'limit={event.limit!r},message="{message}" {event.time}'
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
