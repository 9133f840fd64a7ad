"""InfluxDB line protocol as a payload: what Telegraf and many controllers publish.

Each line is a sample of the sensor that one of its tags names. A bad line never costs its neighbours.
"""

import math

from pydantic import Field

from sensors import lineprotocol
from sensors.formats import Declared, Decoded, Format, Options, PayloadError, Sample
from sensors.formats.objects import printable
from sensors.lineprotocol import Point, Precision

_UNTIMED = -(2**63)  # ms: earlier than any time that a line can have
_MS = 10**11  # as a time, a number from here on is one of milliseconds
_TAGS = ("sensor", "host")
_VALUE = "value"


class InfluxOptions(Options):
    """Options of ``influx``."""

    sensor_tag: str | None = Field(None, description="tag that names the sensor; `sensor` or else `host` without it")
    precision: Precision | None = Field(None, description="unit of the timestamps; told by their size without it")
    text: bool = Field(default=False, description="whether text fields are expected, and passed over in silence")


class Influx(Format):
    """Reads lines of any measurement."""

    names_sensors = True
    options = InfluxOptions

    def __init__(self, declared: Declared) -> None:
        super().__init__(declared)
        options = InfluxOptions.model_validate(declared.options)
        self._tags = _TAGS if options.sensor_tag is None else (options.sensor_tag,)
        self._precision, self._text = options.precision, options.text

    def decode(self, topic: str, payload: bytes, received: int) -> Decoded:  # noqa: ARG002 - lines say all themselves
        """Reads one message.

        Raises:
            PayloadError: If no line can be read; names the first and why.
        """
        points, errors = lineprotocol.parse(payload, self._precision, _UNTIMED)
        problems = tuple(f"line {error.line}: {printable(error.message, 240)}" for error in errors)
        samples = [self._sample(point) for point in points]
        if not samples:
            raise PayloadError(problems[0] if problems else "line 1: there is none")
        samples[0].problems += problems
        return Decoded(samples)

    def _sample(self, point: Point) -> Sample:
        values: dict[str, float] = {}
        problems = []
        for key, value in point.fields.items():
            if isinstance(value, str):
                if not self._text:
                    problems.append(
                        f"line {point.line}: {printable(key)}: text is no reading; options.text passes it over"
                    )
                continue
            # a lone 'value' says what it is by its measurement
            plain = point.measurement if key == _VALUE else key
            renamed = self.rename.get(f"{point.measurement}.{key}") or self.rename.get(key)
            values[renamed or plain] = float(value)
        sensor = next((point.tags[tag] for tag in self._tags if tag in point.tags), None)
        # a few ms since 1970 would be taken for seconds
        time = math.nan if point.time == _UNTIMED else point.time if point.time >= _MS else point.time / 1000
        return Sample(time, values, tuple(problems), sensor)
