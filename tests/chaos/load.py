"""What is sent, so that it can be asked for again: every value follows from the seed and the message's number."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.chaos.parts import Site

QUANTITIES = ("pm25", "pm10", "so2", "no2", "o3")
_MOST = (500, 1000, 1000, 1500, 1500)  # tenths; below the limits of events
_START = 1_700_000_000_000
_STEP = 10_000  # ms between two messages of a sensor
_SHOWN = 5


class Load:
    """Messages of five quantities, of many sensors by turns, each with its own time.

    Args:
        seed: Of the values.
        messages: How many.
        sensors: Of how many sensors.
        bulky: Whether to send values of all digits, which do not compress well.
    """

    def __init__(self, seed: int, messages: int, sensors: int = 200, *, bulky: bool = False) -> None:
        self.messages, self.sensors = messages, sensors
        draw = np.random.default_rng(seed)
        if bulky:
            self._values = draw.uniform(1, 50, (messages, len(QUANTITIES)))
        else:
            self._values = np.stack([draw.integers(1, most, messages) for most in _MOST], axis=1) / 10

    @property
    def readings(self) -> int:
        """How many in all messages."""
        return self.messages * len(QUANTITIES)

    def message(self, number: int) -> tuple[str, bytes]:
        """Topic and payload."""
        turn, sensor = divmod(number, self.sensors)
        fields = ",".join(f'"{n}":{v!r}' for n, v in zip(QUANTITIES, self._values[number].tolist(), strict=True))
        return f"city/s{sensor % 7}/air/c{sensor}", f'{{"ts":{_START + turn * _STEP},{fields}}}'.encode()

    def number(self, topic: str, time: int) -> int:
        """The message of a topic and a time."""
        return (time - _START) // _STEP * self.sensors + int(topic.rpartition("/c")[2])

    async def has(self, site: "Site", number: int) -> bool:
        """Whether a message is in the database."""
        turn, sensor = divmod(number, self.sensors)
        query = f"SELECT pm25 FROM air WHERE sensor = 'c{sensor}' AND time = {_START + turn * _STEP}ms"  # noqa: S608
        return bool(await site.query(query))

    async def differences(self, site: "Site", optional: Collection[int] = ()) -> list[str]:
        """Compares the database with what was sent: every time and value of every sensor, and nothing beside them.

        Args:
            site: Where it was sent.
            optional: Numbers of messages that need not be there.

        Returns:
            What differs, for people; empty if nothing does.
        """
        found = await self._strangers(site)
        missing, wrong, extra = [], [], []
        for sensor in range(self.sensors):
            rows = await site.query(f"SELECT {', '.join(QUANTITIES)} FROM air WHERE sensor = 'c{sensor}'")  # noqa: S608
            stored = {time: values for time, *values in rows}
            if len(stored) != len(rows):
                found.append(f"c{sensor}: a time is there twice")
            for number in range(sensor, self.messages, self.sensors):
                values = stored.pop(_START + number // self.sensors * _STEP, None)
                sent = self._values[number].tolist()
                if values is None and number not in optional:
                    missing.append(number)
                elif values not in (None, sent):
                    wrong.append(f"{number}: {values} instead of {sent}")
            extra += [f"c{sensor} at {time}: {values}" for time, values in stored.items()]
        for what, which in (("missing", missing), ("wrong", wrong), ("that nobody sent", extra)):
            if which:
                found.append(f"{len(which)} messages {what}, such as {which[:_SHOWN]}")
        return found

    async def _strangers(self, site: "Site") -> list[str]:
        """Names that nobody sent."""
        known = (
            ("measurements", "SHOW MEASUREMENTS", 0, {"air", "gateway", "event", "verdict"}),
            ("sensors", "SHOW TAG VALUES FROM air WITH KEY = sensor", 1, {f"c{i}" for i in range(self.sensors)}),
            (
                "fields",
                "SHOW FIELD KEYS FROM air",
                0,
                {name + end for name in QUANTITIES for end in ("", "_qc", "_reason")},
            ),
        )
        stored = [(what, {row[place] for row in await site.query(text)} - names) for what, text, place, names in known]
        return [f"{what} that nobody sent: {others}" for what, others in stored if others]
