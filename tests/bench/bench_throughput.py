"""Messages a second and CPU a message: the agent, the broker that feeds it, and what one would use in its place."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from tests.bench import contenders, machine
from tests.bench.conftest import Stage
from tests.bench.contenders import Contender, Victoria
from tests.bench.load import Plan, publishers
from tests.servers.conftest import Server

SENSORS = 1000
STEADY = 2000  # messages a second
_FAST, _SLOW = 100_000, 20_000  # messages of a backlog; less for what takes long
_ROUNDS = 3
_SECONDS = 10  # of the steady stream
_CITYGATE, _MINIMAL = "citygate", "minimal script"

Make = Callable[[Path, int, str], Contender | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender.

    Attributes:
        rate: Messages a second, from the first that could be had to the last that is stored.
        own: CPU seconds a message of the contender.
        receiving: CPU seconds a message of the broker for taking them from the publishers; None where it hands them on
            at the same time.
        broker: The same for taking them and handing them on.
        memory: Peak of resident memory, MB.
    """

    rate: float
    own: float
    receiving: float | None
    broker: float
    memory: float


class _Course:
    """A contender between a broker of its own and the database that all share."""

    def __init__(self, contender: Contender, broker: Server, database: Victoria, site: str) -> None:
        self._contender, self._broker, self._database, self._site = contender, broker, database, site

    def backlog(self, messages: int) -> Measured:
        """What waits at the broker is drained at full speed."""
        start = time.time_ns() // 1_000_000 - (messages // SENSORS + 2) * 10_000
        with publishers(Plan(self._broker.port, self._site, SENSORS, messages, start=start)) as crew:
            own, broker = machine.cpu(self._contender.pid), machine.cpu(machine.pid(self._broker))
            with self._contender.held():
                crew.run()
                received = machine.cpu(machine.pid(self._broker)) - broker
                began = time.time()
        ended = self._database.await_stored(self._site, messages)
        return self._measured(messages, ended - began, own, broker, received)

    def steady(self, messages: int) -> Measured:
        """Sensors send at a steady rate, each message a write of its own."""
        plan = Plan(self._broker.port, self._site, SENSORS, messages, rate=STEADY, connections=50)
        with publishers(plan) as crew:
            own, broker, began = (
                machine.cpu(self._contender.pid),
                machine.cpu(machine.pid(self._broker)),
                time.time(),
            )
            crew.run()
        ended = self._database.await_stored(self._site, messages)
        return self._measured(messages, ended - began, own, broker, None)

    def _measured(self, messages: int, seconds: float, own: float, broker: float, received: float | None) -> Measured:
        return Measured(
            rate=messages / seconds,
            own=(machine.cpu(self._contender.pid) - own) / messages,
            receiving=None if received is None else received / messages,
            broker=(machine.cpu(machine.pid(self._broker)) - broker) / messages,
            memory=machine.memory(self._contender.pid).peak,
        )


def _field(stage: Stage) -> tuple[dict[str, Make], list[str]]:
    """Who takes part, and who cannot."""
    makers: dict[str, Make] = {
        _CITYGATE: lambda folder, port, url: contenders.Agent(folder, port, f'url = "{url}"', stage.free_port()),
        _MINIMAL: contenders.minimal,
        "telegraf": contenders.telegraf,
        "node-red": lambda folder, port, url: contenders.node_red(folder, port, url, stage.free_port()),
    }
    absent = [name for name, make in makers.items() if make(stage.folder, 1, "http://127.0.0.1:1") is None]
    return {name: make for name, make in makers.items() if name not in absent}, absent


def _rows(runs: dict[str, list[Measured]]) -> list[dict[str, object]]:
    def middle(name: str, of: Callable[[Measured], float]) -> float:
        return median(of(run) for run in runs[name])

    return [
        {
            "": name,
            "messages/s": round(max(run.rate for run in runs[name])),
            "CPU µs/message": round(middle(name, lambda run: run.own) * 1e6, 1),
            "mosquitto's": round(middle(name, lambda run: run.broker) * 1e6, 1),
            "ratio": round(middle(name, lambda run: run.own / run.broker), 2),
            "peak RSS, MB": round(middle(name, lambda run: run.memory)),
            "_runs": [
                {
                    "rate": round(run.rate),
                    "own_us": round(run.own * 1e6, 1),
                    "broker_us": round(run.broker * 1e6, 1),
                    "broker_receiving_us": None if run.receiving is None else round(run.receiving * 1e6, 1),
                }
                for run in runs[name]
            ],
        }
        for name in runs
    ]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("regime", ["backlog", "steady"])
def test_throughput(regime: str, stage: Stage, database: Victoria) -> None:
    makers, absent = _field(stage)
    runs: dict[str, list[Measured]] = {name: [] for name in makers}
    for turn in range(_ROUNDS if regime == "backlog" else 1):
        for name, make in makers.items():
            stage.report.say(f"{regime}, round {turn + 1}: {name}")
            site = f"{name.split()[0]}-{turn}"
            broker = stage.mosquitto()
            contender = make(stage.within(site), broker.port, database.url)
            assert contender is not None
            with contender:
                contenders.warm_up(broker.port, database, site, SENSORS)
                course = _Course(contender, broker, database, site)
                if regime == "backlog":
                    messages = stage.report.scaled(_FAST if name == _CITYGATE else _SLOW, SENSORS)
                    runs[name].append(course.backlog(messages))
                else:
                    runs[name].append(course.steady(stage.report.scaled(_SECONDS * STEADY, SENSORS)))
            broker.stop()
    notes = [f"not on the PATH, so not measured: {', '.join(absent)}"] if absent else []
    notes.append("ratio: CPU of the contender over mosquitto's own for the same messages, received and delivered")
    what = f"QoS 1, five quantities, {SENSORS:,} sensors"
    if regime == "backlog":
        ours, plain = (max(run.rate for run in runs[name]) for name in (_CITYGATE, _MINIMAL))
        notes.append(f"citygate's throughput is {ours / plain:.1f} times the minimal script's")
        title = f"Backlog drained at full speed ({what}; {_ROUNDS} rounds: best rate, median CPU)"
    else:
        title = f"Steady {STEADY:,} messages/s ({what})"
    stage.report.table(f"throughput_{regime}", title, _rows(runs), *notes)
