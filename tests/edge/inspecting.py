"""Messages on their way through decode and inspect."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from gateway.config import OverrideConfig, SourceConfig
from gateway.edge import detect
from gateway.edge.batch import RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels, Readings
from gateway.edge.reasons import Reason
from gateway.edge.watch import Event, Watch
from sensors import kinds

NOW = 1_790_000_000_000  # ms, the gateway's clock in these tests
MINUTE, DAY = 60_000, 86_400_000
GOOD, SUSPECT, FAIL, MISSING = 1, 3, 4, 9

Message = tuple[str, Mapping[str, object]]
Answer = dict[str, tuple[int, Reason]]
"""Flag and reasons of each quantity of a message."""


@contextmanager
def easily_alarmed() -> Iterator[None]:
    """The detector learns fast and raises many alarms, so that short series have some."""
    with ExitStack() as stack:
        for name, value in (("LEARNING", 6), ("_WARM", 4), ("THRESHOLD", 0.4), ("_PAUSE", 1), ("_FULL", 24)):
            stack.enter_context(patch.object(detect, name, value))
        yield


class Inspected:
    """A decoder, an inspector and a watch behind one another."""

    def __init__(self, known: Mapping[str, kinds.Kind] | None = None, *overrides: Mapping[str, object]) -> None:
        self.channels = Channels()
        self.decoder = Decoder(
            (SourceConfig(),),
            known or kinds.builtin(),
            "gw",
            self.channels,
            overrides=[OverrideConfig.model_validate(override) for override in overrides],
        )
        self.inspector = Inspector(self.channels)
        self.watch = Watch(self.channels)

    def decode(self, messages: Sequence[Message], now: int = NOW) -> Readings:
        payloads = [json.dumps(payload).encode() for _, payload in messages]
        return self.decoder.decode(RawBatch([topic for topic, _ in messages], payloads, [now] * len(messages)))

    def send(self, messages: Sequence[Message], now: int = NOW) -> tuple[list[Answer], list[Event]]:
        """The answers to one batch, and its events."""
        readings = self.decode(messages, now)
        self.inspector.inspect(readings)
        events = self.watch.watch(readings)
        self.decoder.remember(readings.keys)
        return by_quantity(readings), events

    def answers(self, *messages: Message, now: int = NOW) -> list[Answer]:
        return self.send(messages, now)[0]


def by_quantity(readings: Readings) -> list[Answer]:
    answers = []
    for start, layout in zip(readings.starts.tolist(), readings.layouts, strict=True):
        places = range(start, start + len(layout.names))
        answers.append(
            {
                name: (int(readings.flag[place]), Reason(int(readings.reason[place])))
                for name, place in zip(layout.names, places, strict=True)
            }
        )
    return answers
