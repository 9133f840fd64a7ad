"""The filter as a whole: what a fault does to what is stored, and to events."""

import json
from collections.abc import Iterator

import numpy as np

from gateway.config import SourceConfig
from gateway.edge.batch import Entry, RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from sensors import kinds

NOW = 1_790_000_000_000
MINUTE = 60_000
STUCK = range(600, 660)  # minutes


class Gateway:
    """The way of a message up to the spool."""

    def __init__(self) -> None:
        self.channels = Channels()
        self.decoder = Decoder([SourceConfig()], kinds.builtin(), "gw", self.channels)
        self.filter = Filter(self.channels)

    def send(self, messages: dict[str, dict[str, float]]) -> Entry:
        topics = [f"city/east/water/{sensor}" for sensor in messages]
        payloads = [json.dumps(payload).encode() for payload in messages.values()]
        readings = self.decoder.decode(RawBatch(topics, payloads, [NOW] * len(topics)))
        entry = encode(readings, self.filter.judge(readings), self.channels, "gw")
        self.decoder.remember(entry.keys)
        return entry


def minutes() -> Iterator[tuple[int, dict[str, dict[str, float]]]]:
    """Two gauges of one river, a message a minute; the first one is stuck for an hour while the water rises."""
    wander = np.random.default_rng(3).normal(0, 0.02, (900, 2))
    for minute in range(900):
        rise = 0.004 * max(0, min(minute - 600, 120))
        level = [round(float(1 + 0.2 * np.sin(minute / 70) + rise + wander[minute, gauge]), 3) for gauge in range(2)]
        if minute in STUCK:
            level[0] = 1.234
        yield minute, {f"g{gauge}": {"ts": NOW + minute * MINUTE, "level": level[gauge]} for gauge in range(2)}


def test_a_fault_is_told_and_kept_out_of_the_main_measurement_while_it_lasts() -> None:
    gateway = Gateway()
    entries = {minute: gateway.send(messages) for minute, messages in minutes()}
    told = [
        (minute, line)
        for minute, entry in entries.items()
        for line in entry.events.decode().splitlines()
        if line.startswith("verdict,") and "what=stuck" in line
    ]
    minute, line = told[0]
    assert minute in STUCK
    assert line.startswith("verdict,gateway=gw,kind=water,quantity=level,sensor=g0,site=east,what=stuck id=")
    since = int(line.partition("since=")[2].partition("i")[0])
    assert STUCK.start - 1 <= (since - NOW) // MINUTE < minute, "readings that are stored already are corrected"
    kept_out = [
        minute
        for minute, entry in entries.items()
        for line in entry.quarantine.decode().splitlines()
        if "sensor=g0" in line
    ]
    assert kept_out == list(range(minute, STUCK.stop + 1)), "until a minute after it moved again"
    assert all('reason="' in text and "stuck" in text for at in kept_out for text in [entries[at].quarantine.decode()])
    assert not any("sensor=g1" in entry.quarantine.decode() for entry in entries.values())


def test_what_the_filter_says_is_the_same_again() -> None:
    one, other = Gateway(), Gateway()
    for _, messages in minutes():
        assert one.send(messages) == other.send(messages)
