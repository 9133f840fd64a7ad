"""The plume of the simulated town, from its first reading over the limit to the end of its one alert."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensors import kinds
from sensors.script import Script
from sensors.town import Message, Town
from tests.city.conftest import city_config, client_of, running, write
from tests.city.test_alerts import alerts

ORIGIN = 1_795_413_600_000  # 2026-11-23 14:00 +08:00
STEP = 15_000
PLUME = '[[event]]\ntype = "plume"\nstart = "60s"\nduration = "5m"\namount = 170\npace = 12\n'
LIMITS = [(limit.severity, limit.above) for limit in kinds.builtin()["air"].quantities["pm25"].events]
FIRST = LIMITS[0][1] or 0.0


class Gateway:
    """Writes readings, and raises events at the limits as a gateway does: three readings below end one."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[int, str, int]] = {}  # since, severity, calm readings

    def lines(self, message: Message) -> Iterator[str]:
        sensor, values = message.sensor, json.loads(message.payload)
        values.pop("ts")
        tags = f"gateway=g,site={sensor.site.name},sensor={sensor.name}"
        fields = ",".join(f"{name}={value},{name}_qc=1i" for name, value in values.items())
        yield f"{sensor.kind},{tags} {fields} {message.time}"
        if sensor.kind != "air":
            return
        value = values["pm25"]
        severity = next((name for name, above in reversed(LIMITS) if value >= (above or 0.0)), "none")
        since, before, calm = self.running.get(sensor.name, (message.time, "none", 0))
        calm = calm + 1 if severity == "none" else 0
        if severity == before or (severity == "none" and calm < 3):
            if before != "none":
                self.running[sensor.name] = since, before, calm
            return
        self.running[sensor.name] = since, severity, 0
        if severity == "none":
            del self.running[sensor.name]
        yield (
            f"event,{tags},kind=air,severity={severity}"
            f' id="{sensor.name}.{since}",quantity="pm25",value={value},limit={FIRST},message="pm25" {message.time}'
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_plume_of_the_demo_is_one_alert_with_the_sector_that_it_came_from(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "plume.toml"
    script.write_text(PLUME)
    town = Town(seed, script=Script.read(str(script)), origin=ORIGIN)
    (truth,) = town.truth()
    (tmp_path / "sensors.geojson").write_text(json.dumps(town.registry()))
    place: dict[str, object] = {
        "sensors": tmp_path / "sensors.geojson",
        "sources": Path(__file__).parents[2] / "configs" / "sources.geojson",
    }
    old_town = next(sensor.site for sensor in town.sensors if sensor.site.name == "old-town")
    came_from = town.weather(old_town, (ORIGIN + 60_000) / 1000).wind_direction
    moment, first, told, gateway = ORIGIN, 0, 0, Gateway()
    monkeypatch.setattr("gateway.city.view.now_ms", lambda: moment)
    async with running(city_config(tmp_path, map=place)) as app, client_of(app) as client:
        while moment < ORIGIN + 480_000:
            batch: list[str] = []
            for message in town.messages(moment, moment + STEP):
                if message.sensor.kind in {"air", "weather"}:
                    lines = list(gateway.lines(message))
                    first = first or (message.time if len(lines) > 1 else 0)
                    batch += lines
            moment += STEP
            assert (await write(client, *batch)).status_code == 204
            found = await alerts(client)
            told = told or (moment if found else 0)
        (alert,) = found
    assert 0 < told - first <= 60_000
    assert alert["state"] == "ended"
    assert set(alert["sites"]) <= {sensor.split(":")[1] for sensor in truth["sensors"]}
    assert len(alert["sites"]) >= 2
    assert {sector["site"] for sector in alert["wind"]} == set(alert["sites"])
    for sector in alert["wind"]:
        assert abs((sector["direction"] - came_from + 180) % 360 - 180) <= sector["width"] / 2
    assert alert["sources"]
