import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sensors import kinds
from sensors.script import Script, ScriptError
from sensors.town import SITES, Sensor, Town

MONDAY = 1_763_913_600_000  # 2025-11-24T00:00+08:00
DAY = 86_400_000


def _flags(sensor: Sensor, before: dict[str, float] | None, now: dict[str, float], seconds: float) -> Iterator[str]:
    for name, value in now.items():
        quantity = kinds.builtin()[sensor.kind].quantities[name]
        for limits in (quantity.fail, quantity.suspect):
            if limits is not None and not limits[0] <= value <= limits[1]:
                yield f"{sensor.id} {name} {value}"
        if before and quantity.step is not None and abs(value - before[name]) > quantity.step * seconds / 60:
            yield f"{sensor.id} {name} {before[name]} -> {value}"


def _named(town: Town, name: str) -> Sensor:
    return next(sensor for sensor in town.sensors if sensor.name == name)


def _correlation(left: list[float], right: list[float]) -> float:
    mean_left, mean_right = sum(left) / len(left), sum(right) / len(right)
    both = sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True))
    return both / math.sqrt(sum((a - mean_left) ** 2 for a in left) * sum((b - mean_right) ** 2 for b in right))


def test_the_town_has_all_kinds_at_seven_sites_within_twelve_kilometres() -> None:
    town = Town(1)
    assert len(town.sensors) >= 66
    # passages count people; the simulated town has none
    assert {sensor.kind for sensor in town.sensors} == {*kinds.builtin()} - {"passage"}
    assert len(SITES) == 7
    assert len({sensor.id for sensor in town.sensors}) == len(town.sensors)
    assert 8 < (max(s.lon for s in town.sensors) - min(s.lon for s in town.sensors)) * 96 < 14


def test_every_reading_is_of_a_quantity_of_its_kind() -> None:
    town = Town(3)
    for sensor in town.sensors:
        assert town.reading(sensor, MONDAY).keys() <= kinds.builtin()[sensor.kind].quantities.keys()


@pytest.mark.parametrize(("seed", "start"), [(1, MONDAY), (2, MONDAY + 190 * DAY)])
def test_on_seven_clean_days_hardly_a_reading_breaks_a_limit(seed: int, start: int) -> None:
    town, values = Town(seed), 0
    flags: list[str] = []
    for sensor in town.sensors:
        for slot in range(7 * 24):
            first = start + slot * 3_600_000
            before = town.reading(sensor, first)
            now = town.reading(sensor, first + round(sensor.interval * 1000))
            flags += _flags(sensor, before, now, sensor.interval)
            values += len(now)
    assert len(flags) < values / 1000, flags[:10]


def test_true_events_stay_within_the_limits_of_faults() -> None:
    demo = Script.read("demo")
    town = Town(1, script=Script(event=demo.event), origin=MONDAY)
    flags: list[str] = []
    for sensor in town.sensors:
        before: dict[str, float] | None = None
        for time in range(MONDAY, MONDAY + 1_500_000, round(sensor.interval * 1000)):
            now = town.reading(sensor, time)
            flags += _flags(sensor, before, now, sensor.interval)
            before = now
    assert len(flags) < 20, flags[:10]


def test_same_seed_same_messages_wherever_the_start() -> None:
    early = list(Town(5).messages(MONDAY, MONDAY + 60_000))
    late = list(Town(5).messages(MONDAY + 30_000, MONDAY + 60_000))
    assert [(m.time, m.payload) for m in early if m.time >= MONDAY + 30_000] == [(m.time, m.payload) for m in late]
    assert [m.payload for m in Town(6).messages(MONDAY, MONDAY + 60_000)] != [m.payload for m in early]
    assert [m.time for m in early] == sorted(m.time for m in early)


def test_noise_follows_traffic_and_neighbours_breathe_the_same_air() -> None:
    town = Town(1)
    times = range(MONDAY, MONDAY + 5 * DAY, 3_600_000)

    def course(name: str, quantity: str) -> list[float]:
        sensor = _named(town, name)
        return [town.reading(sensor, time)[quantity] for time in times]

    assert _correlation(course("noise-03", "laeq"), course("traffic-03", "flow")) > 0.6
    assert _correlation(course("air-03", "pm25"), course("air-05", "pm25")) > 0.7
    assert _correlation(course("parking-01", "occupied"), course("traffic-03", "flow")) > 0.4


def test_the_river_rises_after_rain_upstream_first() -> None:
    town = Town(1, script=Script.model_validate({"event": [_rainstorm("2h")]}), origin=MONDAY)
    levels = {
        name: [town.reading(_named(town, name), MONDAY + minute * 60_000)["level"] for minute in range(120)]
        for name in ("water-01", "water-07")
    }
    peaks = {name: course.index(max(course)) for name, course in levels.items()}
    assert 30 < peaks["water-01"] < peaks["water-07"]
    assert max(levels["water-01"]) - levels["water-01"][0] > 0.8
    rain = sum(town.reading(_named(town, "weather-01"), MONDAY + s * 10_000)["rain"] for s in range(720))
    assert 10 < rain < 40


def _rainstorm(duration: str) -> dict[str, Any]:
    return {"type": "rainstorm", "start": "0s", "duration": duration, "amount": 45}


def test_the_demo_shows_everything_within_two_minutes_and_again() -> None:
    town = Town(1, script=Script.read("demo"), origin=MONDAY)
    truth = list(islice(town.truth(), 200))
    first: dict[str, str] = {}
    for record in truth:
        first.setdefault(record["type"], record["start"])
        assert record["sensors"], record
    assert first.keys() == {
        "stuck", "spike", "drift", "dropout", "garbage", "clock", "plume", "rainstorm", "accident"
    }  # fmt: skip
    assert all(start < "2025-11-23T16:02:00" for start in first.values())
    counts = [sum(record["type"] == name for record in truth) for name in first]
    assert min(counts) > 1
    plume = next(record for record in truth if record["type"] == "plume")
    assert len({sensor.split(":")[1] for sensor in plume["sensors"]}) >= 3


def _fault(**keys: object) -> tuple[Town, Sensor]:
    fault = {"start": "1m", "duration": "1m", "sensors": ["air-01"], **keys}
    town = Town(1, script=Script.model_validate({"fault": [fault]}), origin=MONDAY)
    return town, _named(town, "air-01")


def _payloads(town: Town, sensor: Sensor, seconds: range) -> list[Any]:
    return [json.loads(town.payload(sensor, MONDAY + second * 1000) or b"null") for second in seconds]


DURING, AFTER = range(60, 120, 10), range(120, 180, 10)


def test_a_stuck_sensor_repeats_itself() -> None:
    town, sensor = _fault(type="stuck")
    assert len({p["pm25"] for p in _payloads(town, sensor, DURING)}) == 1
    assert len({p["pm25"] for p in _payloads(town, sensor, AFTER)}) > 1


def test_a_drift_grows() -> None:
    town, sensor = _fault(type="drift", quantity="co", amount=10)
    values = [p["co"] for p in _payloads(town, sensor, DURING)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 7
    assert _payloads(town, sensor, AFTER)[0]["co"] < 3


def test_a_spike_comes_with_the_first_reading() -> None:
    town, sensor = _fault(type="spike", quantity="pm25", amount=800)
    values = [p["pm25"] for p in _payloads(town, sensor, DURING)]
    assert values[0] > 800 > min(values)


def test_a_dropout_is_silence_and_a_wrong_clock_is_wrong() -> None:
    town, sensor = _fault(type="dropout")
    assert _payloads(town, sensor, DURING) == [None] * 6
    town, sensor = _fault(type="clock", amount=-3600)
    assert _payloads(town, sensor, DURING)[0]["ts"] == MONDAY + 60_000 - 3_600_000


def test_garbage_is_no_reading() -> None:
    town, sensor = _fault(type="garbage")
    for second in DURING:
        payload = town.payload(sensor, MONDAY + second * 1000)
        assert payload is not None
        assert b"ERR" in payload or _unreadable(payload)


def _unreadable(payload: bytes) -> bool:
    try:
        return not isinstance(json.loads(payload), dict)
    except ValueError:
        return True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[fault]]\ntype='melt'\nsensors=['air-01']\nstart='1s'\nduration='1s'", "fault.0.type"),
        ("[[fault]]\ntype='spike'\nsensors=['air-01']\nstart='1s'\nduration='1s'", "needs 'quantity' and 'amount'"),
        ("[[fault]]\ntype='stuck'\nsensors=['air-99']\nstart='1s'\nduration='1s'", "no sensor 'air-99'"),
        ("[[fault]]\ntype='stuck'\nsensors=['air-01']\nstart='1s'\nduration='9s'\nevery='2s'", "'every' must not"),
        ("[[fault", "script.toml"),
    ],
)
def test_a_wrong_script_says_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(ScriptError, match=says):
        Town(1, script=Script.read(str(path)))


def test_the_committed_registry_is_the_default_towns() -> None:
    committed = json.loads(Path("configs/sensors.geojson").read_text("utf-8"))
    assert committed == Town(1).registry()


def test_the_registry_names_every_place_in_three_languages() -> None:
    for feature in Town(1).registry()["features"]:
        assert set(feature["properties"]["title"]) == {"zh", "en", "ko"}
