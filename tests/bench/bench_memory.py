"""Resident memory of the agent by the number of sensors."""

import time

from tests.bench import machine
from tests.bench.conftest import Stage
from tests.bench.contenders import Agent
from tests.bench.load import QUANTITIES, Plan, publishers
from tests.servers.conftest import Server

_SENSORS = (10, 1000, 50_000)
_TURNS, _LEAST = 4, 4000  # messages of each sensor, and altogether


def test_memory(stage: Stage, victoria_metrics: Server) -> None:
    rows = []
    for sensors in _SENSORS:
        stage.report.say(f"memory with {sensors:,} sensors")
        broker, site = stage.mosquitto(), f"memory-{sensors}"
        messages = max(_LEAST, _TURNS * sensors)
        plan = Plan(broker.port, site, sensors, messages, start=time.time_ns() // 1_000_000 - 3_600_000)
        output = f'url = "{victoria_metrics.url}"'
        with Agent(stage.within(site), broker.port, output, stage.free_port()) as agent:
            agent.await_connected()
            idle = machine.memory(agent.pid)
            with publishers(plan) as crew:
                crew.run()
            agent.await_delivered(messages)
            full = machine.memory(agent.pid)
        broker.stop()
        rows.append(
            {
                "sensors": sensors,
                "messages": messages,
                "just started, MB": round(idle.now, 1),
                "afterwards, MB": round(full.now, 1),
                "peak, MB": round(full.peak, 1),
            }
        )
    title = f"Resident memory of the agent (sensors of {len(QUANTITIES)} quantities; MB of 10⁶ bytes)"
    stage.report.table("memory", title, rows)
