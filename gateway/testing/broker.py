"""A real broker for tests: the embedded one, on free ports, with a publisher."""

import asyncio
import importlib.util
import json
import re
import time
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gateway import embedded_broker
from gateway.testing.process import Process, TestingError, free_ports

if TYPE_CHECKING:
    from sensors.stream import Message

_TRIES = 3  # a port that was free may be taken a moment later
_READY_WITHIN = 20.0
_PATIENCE = 10.0
_PAYLOAD = 2**24
_OFTEN = 512  # messages between two looks at how far the gateway is

_Result = TypeVar("_Result")


class Broker:
    """A broker on loopback that keeps its messages in memory.

    Args:
        folder: Where its configuration and log go.

    Attributes:
        port: For MQTT 3.1.1.
        port5: For MQTT 5.
        topics: Topic → messages that were published here.

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
                self.process.wait_for(self.answers, "does not answer", _READY_WITHIN)
            except TestingError:
                self.process.stop()
                if not left:
                    raise
            else:
                return

    def answers(self) -> bool:
        """Whether it accepts clients of both versions; now and then it drops one that comes as another one goes."""
        return embedded_broker.answers(self.port, v5=False) and embedded_broker.answers(self.port5, v5=True)

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
        self._run(self._publish(topic, data))

    def play(
        self, messages: "Iterable[Message]", *, speed: float | None = None, behind: Callable[[], bool] = lambda: False
    ) -> int:
        """Publishes recorded messages, each with its recorded time of arrival; returns when the broker has them all.

        Args:
            messages: In the order of arrival.
            speed: How many times faster than that was; as fast as possible when None.
            behind: Says whether the receiver is so far behind that it is waited for.

        Returns:
            How many were published.

        Raises:
            TestingError: The broker does not take them.
        """
        return self._run(self._play(messages, speed, behind))

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        from gateway.publish import PublishError  # noqa: PLC0415 - brings asyncio's TLS; only when it is used

        try:
            with ThreadPoolExecutor(1) as thread:  # the test may have an event loop of its own
                return thread.submit(asyncio.run, work).result()
        except PublishError as error:
            msg = f"the broker does not take the messages: {error}\n{self.process.tail()}"
            raise TestingError(msg) from error

    async def _publish(self, topic: str, payload: bytes) -> None:
        from gateway.publish import Broker as Address  # noqa: PLC0415 - as above
        from gateway.publish import Publisher  # noqa: PLC0415

        async with Publisher(Address("127.0.0.1", self.port), patience=_PATIENCE) as publisher:
            await publisher.publish(topic, payload)
            await publisher.drain()
        self.topics[topic] = self.topics.get(topic, 0) + 1

    async def _play(self, messages: "Iterable[Message]", speed: float | None, behind: Callable[[], bool]) -> int:
        from gateway.play import telling  # noqa: PLC0415 - as above
        from gateway.publish import Broker as Address  # noqa: PLC0415
        from gateway.publish5 import Publisher5  # noqa: PLC0415

        began, first, published = time.monotonic(), None, 0
        async with Publisher5(Address("127.0.0.1", self.port5), patience=_PATIENCE) as publisher:
            for number, message in enumerate(messages):
                if speed is not None:
                    first = message.wall if first is None else first
                    ahead = (message.wall - first) / 1e9 / speed - (time.monotonic() - began)
                    await asyncio.sleep(max(0.0, ahead))
                if number % _OFTEN == 0:
                    while await asyncio.to_thread(behind):
                        self.process.check()
                        await asyncio.sleep(0.02)
                left_out = publisher.left_out.total()
                await publisher.publish_all([telling(message, 0)])
                if publisher.left_out.total() == left_out:
                    self.topics[message.topic] = self.topics.get(message.topic, 0) + 1
                    published += 1
            await publisher.drain()
            for reason, count in publisher.left_out.items():
                warnings.warn(f"{count:,} messages were not published: {reason}", stacklevel=1)
            for reason, count in publisher.refused.items():
                msg = f"the broker refused {count:,} messages: {reason}\n{self.process.tail()}"
                raise TestingError(msg)
        return published

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
