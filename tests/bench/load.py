"""Sensors for the bench: a process that publishes at QoS 1, fast enough never to be what is measured.

Run as ``python -m tests.bench.load PLAN``, PLAN being the JSON of a ``Plan``. It connects, prepares its packets, says
``ready``, and begins when a line comes on stdin; it says ``done`` once the broker has acknowledged everything.
"""

import json
import math
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUANTITIES = ("pm25", "pm10", "no2", "temperature", "humidity")
_AT_ONCE = 100  # messages a write at full speed
_WINDOW = 2000  # messages in flight on a connection
_BAD_EVERY = 1000  # one message in so many has a value out of range


@dataclass(frozen=True, slots=True)
class Plan:
    """What the sensors send.

    Attributes:
        port: The broker's, on loopback.
        site: Their site; tells one run from another in the database.
        sensors: How many take turns.
        messages: How many altogether.
        start: Time of the first turn, ms UTC, each turn ten seconds later; None stamps messages as they are sent.
        rate: Messages a second; None sends as fast as the broker takes them, from packets made before.
        connections: How many connections the sensors share.
        share: Which part of the sensors this process is, and of how many parts.
    """

    port: int
    site: str
    sensors: int
    messages: int
    start: int | None = None
    rate: float | None = None
    connections: int = 4
    share: tuple[int, int] = (0, 1)

    def indices(self) -> range:
        """The messages of this process; a sensor's are all sent by one, in order."""
        return range(self.share[0], self.messages, self.share[1])


def packet(plan: Plan, index: int, packet_id: int, moment: int) -> bytes:
    """A PUBLISH of MQTT 3.1.1 with a reading of five quantities that moves as the weather does."""
    sensor, turn = index % plan.sensors, index // plan.sensors
    wave = math.sin((index * 7919 % 1000) / 159) / 10 + turn % 7 / 20
    pm25 = 5000 if index % _BAD_EVERY == _BAD_EVERY // 2 else 12 + sensor % 9 + wave
    payload = b'{"ts":%d,"pm25":%.2f,"pm10":%.2f,"no2":%.2f,"temperature":%.2f,"humidity":%.2f}' % (
        moment,
        pm25,
        20 + sensor % 11 + wave,
        30 + sensor % 13 + wave,
        14 + sensor % 5 + wave,
        55 + wave,
    )
    topic = b"city/%s/air/a%d" % (plan.site.encode(), sensor)
    body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", packet_id) + payload
    low, high = len(body) & 127, len(body) >> 7
    return (bytes((0x32, low | 128, high)) if high else bytes((0x32, low))) + body


class _Link:
    """One connection of the publisher."""

    def __init__(self, port: int, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = name.encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack("!H", len(client)) + client
        self.socket.sendall(bytes((0x10, len(body))) + body)
        assert self.socket.recv(4) == b"\x20\x02\x00\x00", "the broker refuses the publisher"
        self.sent = 0
        self._acknowledged = 0  # bytes

    @property
    def next_id(self) -> int:
        return self.sent % 0xFFFF + 1

    @property
    def in_flight(self) -> int:
        return self.sent - self._acknowledged // 4  # all that a publisher is told are PUBACKs, of four bytes

    def fileno(self) -> int:
        return self.socket.fileno()

    def hear(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the broker closed the connection"
        self._acknowledged += len(data)


def _at_full_speed(plan: Plan, links: list[_Link]) -> None:
    assert plan.start is not None
    work: list[list[tuple[int, bytes]]] = []
    for number, link in enumerate(links):
        mine = [index for index in plan.indices() if index % plan.sensors // plan.share[1] % len(links) == number]
        made = [
            packet(plan, index, (link.sent + i) % 0xFFFF + 1, plan.start + index // plan.sensors * 10_000)
            for i, index in enumerate(mine)
        ]
        chunks = [made[i : i + _AT_ONCE] for i in range(0, len(made), _AT_ONCE)]
        work.append([(len(chunk), b"".join(chunk)) for chunk in reversed(chunks)])
    _await_start()
    while any(work):
        for link, chunks_left in zip(links, work, strict=True):
            if chunks_left:
                count, data = chunks_left.pop()
                link.sent += count
                link.socket.sendall(data)
                while link.in_flight > _WINDOW:
                    link.hear()


def _paced(plan: Plan, links: list[_Link]) -> None:
    assert plan.rate is not None
    _await_start()
    began = time.monotonic()
    for count, index in enumerate(plan.indices()):
        wait = began + index / plan.rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        link = links[index % plan.sensors // plan.share[1] % len(links)]
        moment = time.time_ns() // 1_000_000 if plan.start is None else plan.start + index // plan.sensors * 10_000
        link.socket.sendall(packet(plan, index, link.next_id, moment))
        link.sent += 1
        if count % _AT_ONCE == 0:
            for heard in select.select(links, [], [], 0)[0]:
                heard.hear()


def _await_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main(plan: Plan) -> None:
    """Publishes."""
    links = [_Link(plan.port, f"{plan.site}-{plan.share[0]}-{i}") for i in range(plan.connections)]
    (_at_full_speed if plan.rate is None else _paced)(plan, links)
    for link in links:
        while link.in_flight:
            link.hear()
    print("done", flush=True)


@contextmanager
def publishers(plan: Plan, processes: int = 2) -> Iterator["Publishers"]:
    """Starts processes that share a plan; they are ready and wait."""
    made = []
    for number in range(processes):
        part = json.dumps({**asdict(plan), "share": (number, processes)})
        command = [sys.executable, "-m", "tests.bench.load", part]
        made.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, bufsize=1)
        )
    crew = Publishers(made)
    try:
        crew.expect("ready")
        yield crew
    finally:
        crew.end()


class Publishers:
    """Processes that publish together."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def expect(self, word: str) -> None:
        """Waits until all say so."""
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == word, "a publisher failed"

    def go(self) -> None:
        """Lets them publish."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")

    def run(self) -> None:
        """Lets them publish and waits until the broker has acknowledged everything."""
        self.go()
        self.expect("done")

    def end(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
