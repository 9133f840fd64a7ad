"""A recorded stream of either form, as messages: ``.cgrec``, as a broker delivered them, or a CSV of readings.

A CSV's rows become citygate's own JSON at topics of a template; the times of its readings are the times of arrival.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.layouts import layout_of
from sensors.recording import Recording
from sensors.stream import MAGIC, Message, Reader

TOPIC = "city/{site}/{kind}/{sensor}"


class Stream:
    """A recording, to be iterated as often as wanted; it is never held as a whole.

    Args:
        path: ``.cgrec``, or CSV, plain or gzip'd; told by its first bytes.
        topic: Template of the topics of a CSV's rows.
        options: How to read a CSV: the keywords of :func:`gateway.layouts.layout_of`.

    Attributes:
        path: The same.
        table: Whether it is a CSV.
        messages: How many there are.
        first: Time of the first, ms UTC; None without messages.
        last: Time of the last.
        damage: What could not be read so far, for people.

    Raises:
        OSError: It cannot be read.
        RecordingError: It is no CSV that can be read.
        StreamError: It is no recording that can be read.
        ValueError: An option is wrong, or of the other form.
    """

    def __init__(self, path: Path, topic: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._topic = _template(topic or TOPIC)
        self.damage: list[str] = []
        self.table = is_table(path)
        if self.table:
            self._recording = Recording(path, layout_of(**(options or {})))
            self.messages = self._recording.messages
            self.first, self.last = self._recording.first, self._recording.last
            return
        if given := [*(["topic"] if topic else []), *(options or {})]:
            msg = f"'{given[0]}' says how to read a CSV, and this is a recording of messages"
            raise ValueError(msg)
        with Reader(path) as reader:
            summary = reader.summary()
            self.messages = summary.messages
            self.first, self.last = (None if end is None else end // 10**6 for end in (summary.first, summary.last))

    def __iter__(self) -> Iterator[Message]:
        if self.table:
            for reading in self._recording:
                topic = self._topic.format(site=reading.site, kind=reading.kind, sensor=reading.sensor)
                moment = reading.time * 10**6
                yield Message(topic, reading.payload(reading.time), 1, monotonic=moment, wall=moment)
            return
        with Reader(self.path) as reader:
            yield from reader
            self.damage = [str(damage) for damage in reader.damage]


def is_table(path: Path) -> bool:
    """Whether a recording is a CSV, by its first bytes.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(MAGIC)) != MAGIC


def _template(topic: str) -> str:
    try:
        topic.format(site="", kind="", sensor="")
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        msg = f"topic: {topic!r} is no template; there are {{site}}, {{kind}} and {{sensor}}"
        raise ValueError(msg) from error
    return topic
