"""`citygate simulate`: the simulated town, published over MQTT as its sensors would.

A broker that is away is waited for; what the town measures meanwhile is sent late, with its own times, and not lost.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from gateway.publish import Broker, Publisher, PublishError, broker, until_signal
from sensors.script import Script, ScriptError
from sensors.town import Message, Town

_TOPIC = "city/{site}/{kind}/{sensor}"
_GOODBYE_WITHIN = 5.0
_AT_ONCE = 500
"""Messages after which a town that is behind its clock lets the event loop turn."""


def main(  # noqa: PLR0913 - the command's options
    *,
    broker_address: str = "127.0.0.1:1883",
    seed: int = 1,
    speed: float = 1.0,
    interval: float | None = None,
    duration: float | None = None,
    start: datetime | None = None,
    script: str = "demo",
    truth: Path | None = None,
    registry: Path | None = None,
    username: str | None = None,
    password_file: Path | None = None,
    tls: bool = False,
    tls_ca: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Runs the town until its duration is over, SIGTERM or SIGINT.

    Args:
        broker_address: ``HOST:PORT``.
        seed: Same seed, script and start: same messages.
        speed: How fast the simulated clock runs; sensors keep their intervals on it, so messages come as much faster.
        interval: Seconds on the simulated clock between two readings of a sensor; its kind's own (5 or 10) when None.
        duration: Seconds on the simulated clock to run for; endless when None.
        start: Where the simulated clock starts; now when None.
        script: Faults and true events: ``demo``, ``none`` or a TOML file.
        truth: File for what the script does, JSON lines, each written as it starts.
        registry: File for the places of the sensors, GeoJSON; written before the first message.
        username: Name at the broker.
        password_file: File with the password at the broker.
        tls: Use TLS with the system's authorities.
        tls_ca: Use TLS with this authority's certificate.
        dry_run: Print ``TOPIC PAYLOAD`` lines instead of publishing.

    Returns:
        The exit code: 0 done or stopped, 1 the broker refuses, 2 wrong options.
    """
    origin = round((start.timestamp() if start else time.time()) * 1000)
    try:
        if speed <= 0 or (interval is not None and interval <= 0):
            return _fail("speed and interval must be above 0", 2)
        town = Town(seed, script=Script.read(script), origin=origin, interval=interval)
        target = broker(broker_address, username=username, password_file=password_file, tls=tls, tls_ca=tls_ca)
    except (ScriptError, PublishError) as error:
        return _fail(error, 2)
    end = None if duration is None else origin + round(duration * 1000)
    try:
        if registry is not None:
            registry.write_text(json.dumps(town.registry(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        with truth.open("w", encoding="utf-8") if truth else contextlib.nullcontext() as record:
            run = _Run(town, origin, end, speed, record)
            asyncio.run(run.printed() if dry_run else run.published(target))
    except (OSError, PublishError) as error:
        return _fail(error, 1)
    return 0


class _Run:
    def __init__(self, town: Town, origin: int, end: int | None, speed: float, record: TextIO | None) -> None:
        self._town = town
        self._origin = origin
        self._end = end
        self._speed = speed
        self._record = record
        self._truth: Iterator[dict[str, Any]] = town.truth() if record else iter(())
        self._next_truth = next(self._truth, None)

    async def published(self, target: Broker) -> None:
        # The context is left by cancelling too, so that SIGTERM says goodbye to the broker.
        async with Publisher(target) as publisher:
            say = f"{len(self._town.sensors)} sensors publish to {target}"
            print(say, file=sys.stderr, flush=True)  # noqa: T201

            async def publish() -> None:
                async for message in self._paced():
                    await publisher.publish(_topic(message), message.payload)

            await until_signal(publish())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(publisher.drain(), _GOODBYE_WITHIN)

    async def printed(self) -> None:
        async def show() -> None:
            async for message in self._paced():
                sys.stdout.write(f"{_topic(message)} {message.payload.decode('utf-8', 'backslashreplace')}\n")

        try:
            await until_signal(show())
            sys.stdout.flush()
        except BrokenPipeError:
            sys.stdout = None  # whoever read has enough; nothing to flush at exit

    async def _paced(self) -> AsyncIterator[Message]:
        began = time.monotonic()
        for count, message in enumerate(self._town.messages(self._origin, self._end)):
            ahead = (message.time - self._origin) / 1000 / self._speed - (time.monotonic() - began)
            if ahead > 0:
                if sys.stdout is not None:
                    sys.stdout.flush()
                await asyncio.sleep(ahead)
            elif count % _AT_ONCE == 0:
                await asyncio.sleep(0)
            self._note(message.time)
            yield message

    def _note(self, now: int) -> None:
        """Writes what the script has begun by now."""
        while self._record and self._next_truth:
            if datetime.fromisoformat(self._next_truth["start"]).timestamp() * 1000 > now:
                return
            self._record.write(json.dumps(self._next_truth) + "\n")
            self._record.flush()
            self._next_truth = next(self._truth, None)


def _topic(message: Message) -> str:
    sensor = message.sensor
    return _TOPIC.format(site=sensor.site.name, kind=sensor.kind, sensor=sensor.name)


def _fail(error: object, code: int) -> int:
    print(f"citygate simulate: {error}", file=sys.stderr)  # noqa: T201
    return code
