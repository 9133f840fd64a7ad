"""A real broker for tests: the embedded one, on free ports, with a publisher."""

import asyncio
import importlib.util
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway import embedded_broker
from gateway.testing.process import Process, TestingError, free_ports

_TRIES = 3  # a port that was free may be taken a moment later
_PATIENCE = 10.0
_PAYLOAD = 2**24
_OFTEN = 512  # messages between two looks at how far the gateway is

Message = tuple[str, bytes, int]


class Broker:
    """A broker on loopback that keeps its messages in memory.

    Args:
        folder: Where its configuration and log go.

    Attributes:
        port: For MQTT 3.1.1.
        port5: For MQTT 5.
        topics: Topic → messages published by :meth:`publish` and acknowledged.

    Raises:
        TestingError: It does not start.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec(embedded_broker.PACKAGE) is None:
            msg = "the embedded broker is not installed: pip install 'citygate[test]'"
            raise TestingError(msg)
        self.topics: dict[str, int] = {}
        for left in reversed(range(_TRIES)):
            self.port, self.port5 = free_ports(2)
            arguments = embedded_broker.arguments(folder, mqtt=self.port, mqtt5=self.port5, payload=_PAYLOAD)
            self.process = Process("broker", arguments, folder)
            try:
                self.process.wait_for(
                    lambda: embedded_broker.answers(self.port, v5=False), "does not answer by MQTT 3.1.1"
                )
                self.process.wait_for(lambda: embedded_broker.answers(self.port5, v5=True), "does not answer by MQTT 5")
            except TestingError:
                self.process.stop()
                if not left:
                    raise
            else:
                return

    def publish(self, topic: str, payload: bytes | str | Mapping[str, object]) -> None:
        """Publishes a message at QoS 1; returns when the broker has it.

        Args:
            topic: Its topic.
            payload: Its bytes, text, or what becomes its JSON.
        """
        match payload:
            case bytes():
                data = payload
            case str():
                data = payload.encode()
            case _:
                data = json.dumps(payload).encode()
        self.publish_all([(topic, data, 0)])

    def publish_all(
        self, messages: Iterable[Message], *, speed: float | None = None, behind: Callable[[], bool] = lambda: False
    ) -> int:
        """Publishes messages at QoS 1, in order; returns when the broker has them all.

        Args:
            messages: Topic, payload and time in ms of each.
            speed: How many times faster than their times say; as fast as possible when None.
            behind: Says whether the receiver is so far behind that it is waited for.

        Returns:
            How many there were.

        Raises:
            TestingError: The broker does not take them.
        """
        with ThreadPoolExecutor(1) as thread:  # the test may have an event loop of its own
            return thread.submit(asyncio.run, self._publish(messages, speed, behind)).result()

    async def _publish(self, messages: Iterable[Message], speed: float | None, behind: Callable[[], bool]) -> int:
        from gateway.publish import Broker as Address  # noqa: PLC0415 - brings asyncio's TLS; only when it is used
        from gateway.publish import Publisher, PublishError  # noqa: PLC0415

        began, first, number = time.monotonic(), None, 0
        try:
            async with Publisher(Address("127.0.0.1", self.port), patience=_PATIENCE) as publisher:
                for number, (topic, payload, moment) in enumerate(messages, 1):
                    if speed is not None:
                        first = moment if first is None else first
                        ahead = (moment - first) / 1000 / speed - (time.monotonic() - began)
                        await asyncio.sleep(max(0.0, ahead))
                    if number % _OFTEN == 0:
                        while await asyncio.to_thread(behind):
                            self.process.check()
                            await asyncio.sleep(0.02)
                    await publisher.publish(topic, payload)
                    self.topics[topic] = self.topics.get(topic, 0) + 1
                await publisher.drain()
        except PublishError as error:
            msg = f"the broker does not take the messages: {error}\n{self.process.tail()}"
            raise TestingError(msg) from error
        except UnicodeEncodeError as error:
            msg = f"topic {error.object!r} is not UTF-8 and cannot be published"
            raise TestingError(msg) from error
        return number

    def deliveries(self, subscriptions: Iterable[str], before: Mapping[str, int]) -> int:
        """How many deliveries what was published makes to a client; a message makes one for each filter that fits.

        Args:
            subscriptions: The client's filters.
            before: What ``topics`` was when it subscribed.
        """
        patterns = [_pattern(subscription) for subscription in set(subscriptions)]
        return sum(
            (count - before.get(topic, 0)) * sum(pattern.fullmatch(topic) is not None for pattern in patterns)
            for topic, count in self.topics.items()
        )

    def stop(self) -> None:
        """Ends it, and all that it keeps."""
        self.process.stop()


def _pattern(subscription: str) -> re.Pattern[str]:
    levels = [
        "[^/]*" if level == "+" else ".*" if level == "#" else re.escape(level) for level in subscription.split("/")
    ]
    return re.compile("/".join(levels).replace("/.*", "(?:/.*)?"), re.DOTALL)
