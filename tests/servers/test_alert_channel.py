"""Alerts told to a real broker."""

import asyncio
import json
import time
from pathlib import Path

import aiomqtt
import pytest

from gateway.city.alerts import channels
from gateway.config import ChannelConfig, CityConfig
from tests.city.conftest import city_config, client_of, running, write
from tests.servers.conftest import Mosquitto


def settings(tmp_path: Path, port: int) -> CityConfig:
    channel = {"name": "bus", "type": "mqtt", "host": "127.0.0.1", "port": port, "topic": "city/alerts"}
    return city_config(tmp_path).model_copy(update={"channel": (ChannelConfig.model_validate(channel),)})


async def test_an_alert_is_published_also_when_the_broker_comes_later(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = mosquitto()
    line = (
        "event,gateway=g1,kind=noise,sensor=noise-01,severity=orange,site=hill"
        ' id="e1",quantity="laeq",value=81,limit=70,message="over" '
    )
    port = broker.port
    broker.stop()
    monkeypatch.setattr(channels, "_FIRST_WAIT_S", 0.05)
    async with running(settings(tmp_path, port)) as app, client_of(app) as client:
        await write(client, line + str(time.time_ns() // 1_000_000))
        await client.get("/api/v1/alerts")
        async with asyncio.timeout(30):
            while not (await client.get("/api/v1/channels")).json()["channels"][0]["problem"]:  # noqa: ASYNC110 - remote
                await asyncio.sleep(0.02)
            broker.start()
            async with aiomqtt.Client("127.0.0.1", port, identifier="reader") as reader:
                await reader.subscribe("city/#", qos=1)
                message = await anext(aiter(reader.messages))
    assert str(message.topic) == "city/alerts"
    assert isinstance(message.payload, bytes)
    told = json.loads(message.payload)
    assert (told["what"], told["alert"]["severity"], told["alert"]["sites"]) == ("begins", "orange", ["hill"])
