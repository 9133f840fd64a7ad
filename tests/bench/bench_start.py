"""From the start of the process to the first message acknowledged to the broker."""

import socket
import threading
import time
from statistics import median

from tests.bench import contenders
from tests.bench.conftest import Stage
from tests.bench.contenders import Agent, Victoria
from tests.bench.load import Plan, publishers

_ROUNDS = 5
_PUBACK = 0x40


class _Wire:
    """Stands between the agent and the broker, and notes when the agent first acknowledges a message."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.acknowledged = threading.Event()
        self.moment = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            agent, _ = self._listener.accept()
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            threading.Thread(target=self._pass, args=(broker, agent, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(agent, broker, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, watch: bool) -> None:  # noqa: FBT001
        rest = bytearray()
        try:
            while data := source.recv(65536):
                if watch:
                    rest += data
                    self._look(rest)
                target.sendall(data)
        except OSError:
            pass
        finally:
            target.close()

    def _look(self, rest: bytearray) -> None:
        """Removes whole packets from what came, and notes the first PUBACK."""
        while len(rest) >= 2:
            at, size, shift = 1, 0, 0
            while True:
                if at >= len(rest):
                    return
                size |= (rest[at] & 127) << shift
                at, shift, more = at + 1, shift + 7, rest[at] & 128
                if not more:
                    break
            if len(rest) < at + size:
                return
            if rest[0] >> 4 == _PUBACK >> 4 and not self.acknowledged.is_set():
                self.moment = time.monotonic()
                self.acknowledged.set()
            del rest[: at + size]


def test_start(stage: Stage, database: Victoria) -> None:
    broker = stage.mosquitto()
    wire = _Wire(broker.port)
    agent = Agent(stage.within("start"), wire.port, f'url = "{database.url}"', stage.free_port())
    with agent:
        contenders.warm_up(broker.port, database, "start", 10)
    seconds = []
    for turn in range(_ROUNDS):
        stage.report.say(f"start {turn + 1}")
        waiting = Plan(broker.port, f"start-{turn}", 1, 1, start=time.time_ns() // 1_000_000, connections=1)
        with publishers(waiting, 1) as crew:
            crew.run()
        wire.acknowledged.clear()
        began = time.monotonic()
        with agent:
            assert wire.acknowledged.wait(60), f"nothing is acknowledged: {agent.log()}"
            seconds.append(wire.moment - began)
    row = {
        "starts": _ROUNDS,
        "median, s": round(median(seconds), 2),
        "fastest, s": round(min(seconds), 2),
        "slowest, s": round(max(seconds), 2),
    }
    note = "one message waits in the agent's session at the broker; the program's files are in the page cache"
    stage.report.table("start", "From exec to the first acknowledged message", [row], note)
