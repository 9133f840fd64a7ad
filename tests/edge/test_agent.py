"""A message that makes a step of the way fail does not stop the others, and is not lost."""

from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.edge import agent as agent_module
from gateway.edge.agent import Agent
from gateway.edge.batch import Entry, RawBatch
from gateway.edge.encode import encode
from gateway.edge.filter import Findings
from gateway.edge.readings import Channels, Readings

NOW = 1_790_000_000_000


def config(folder: Path) -> GatewayConfig:
    return GatewayConfig.model_validate(
        {"gateway": {"id": "gw", "data_dir": folder, "health_port": None}, "output": [{"url": "http://127.0.0.1:9"}]}
    )


async def passed(agent: Agent, batch: RawBatch) -> None:
    for entry in agent._judge(batch):
        await agent.spool.append(entry)


async def test_a_message_that_no_step_can_bear_becomes_a_dead_letter_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(readings: Readings, findings: Findings, channels: Channels, gateway: str) -> Entry:
        if (readings.value == 13).any():
            msg = "thirteen"
            raise ArithmeticError(msg)
        return encode(readings, findings, channels, gateway)

    monkeypatch.setattr(agent_module, "encode", fragile)
    agent = Agent(config(tmp_path))
    count = 40
    batch = RawBatch(
        [f"city/a/air/s{number % 3}" for number in range(count)],
        [b'{"ts":%d,"pm25":%d}' % (NOW + 60_000 * number, number) for number in range(count)],
        [NOW + 60_000 * count] * count,
    )
    await passed(agent, batch)
    ledger = agent.ledger()
    assert ledger.mismatches() == []
    assert ledger.total["received"] == count
    assert ledger.total["queued"] == count - 1
    assert ledger.total["duplicate"] == 0
    (dead,) = await agent.spool.dead_letters()
    assert dead.payload == batch.payloads[13]
    assert "thirteen" in dead.reason
    rows = await agent.spool.next_rows("influxdb", 2**20)
    values = sorted(float(line.split(b"pm25=")[1].split(b",")[0]) for row in rows for line in row.text())
    assert values == [float(number) for number in range(count) if number != 13]

    await passed(agent, batch)  # delivered again: all but the dead one are known
    assert agent.ledger().total["duplicate"] == count - 1
    assert agent.ledger().mismatches() == []
    await agent.spool.close()
