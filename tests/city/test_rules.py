"""Rules of the city view, on simulated series: one value a minute."""

import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.city.alerts.evaluate import Evaluation
from gateway.city.alerts.rules import Rules
from gateway.city.grade_models import AirIndexOut, AirOut, GradesOut, PlaceGrades, TrafficOut, WaterOut
from gateway.city.grades.tables import load
from gateway.city.store.base import Event, LatestSensor, Reading, SensorKey
from gateway.city.store.embedded import EmbeddedStore
from gateway.city.view import View
from gateway.config import ConfigError, MapSection
from tests.city.conftest import city_config, client_of, running, write
from tests.city.signed_in import administrator

MINUTE = 60_000
START = 1_795_413_600_000
HEAD = 'title = { zh = "a", en = "a", ko = "a" }\nseverity = "orange"\n'
LEVEL = f'[[rule]]\nname = "r"\n{HEAD}kind = "water"\nquantity = "level"\n'


class Town:
    """A file of rules, and what they make of readings."""

    def __init__(self, folder: Path, rules: str) -> None:
        self.path = folder / "rules.toml"
        self.path.write_text(rules, "utf-8")
        self.rules = Rules(self.path)
        self.view = View(EmbeddedStore(folder / "city.db", 86400), MapSection(), load(None))
        self.evaluation = Evaluation(self.rules, self.view)
        self.sensors: dict[str, LatestSensor] = {}

    def say(self, at: int, values: dict[str, float], sensor: str = "water:water-01", flag: int = 1) -> None:
        kind, _, name = sensor.partition(":")
        key = SensorKey(kind, "brook", name)
        latest = self.sensors.setdefault(key.id, LatestSensor(key, "g"))
        latest.readings.update({name: Reading(at, value, flag) for name, value in values.items()})

    def look(self, at: int, grades: GradesOut | None = None) -> list[Event]:
        return self.evaluation.look(self.sensors, grades, at)

    def run(self, values: Sequence[float], quantity: str = "level", flag: int = 1) -> list[tuple[int, str]]:
        """Minutes in which an event began or ended; NaN is a minute without a reading."""
        found = []
        for minute, value in enumerate(values):
            at = START + minute * MINUTE
            if not math.isnan(value):
                self.say(at, {quantity: value}, flag=flag)
            found += [(minute, "begins" if event.until is None else "ends") for event in self.look(at)]
        return found

    def edit(self, text: str) -> None:
        self.path.write_text(text, "utf-8")
        moment = time.time_ns() + 10**9
        os.utime(self.path, ns=(moment, moment))


NAN = math.nan


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ("above = 3", [1, 3, 4, 2.9, 1], [(1, "begins"), (3, "ends")]),
        ("below = 1", [2, 1, 0.5, 1.1], [(1, "begins"), (3, "ends")]),
        # what hovers between the limits is one event
        ("above = 3\nclear = 2.5", [3, 2.9, 3, 2.6, 3.1, 2.6, 2.5, 2.9], [(0, "begins"), (6, "ends")]),
        ("below = 1\nclear = 1.5", [1, 1.4, 0.9, 1.5], [(0, "begins"), (3, "ends")]),
        # without hysteresis, flapping is told in full, and a time to hold or to release keeps it down
        ("above = 3", [3, 1] * 3, [(n, ("begins", "ends")[n % 2]) for n in range(6)]),
        ('above = 3\nhold = "2m"', [3, 1] * 9, []),
        ('above = 3\nhold = "2m"', [1, 3, 3, 3, 3, 1], [(3, "begins"), (5, "ends")]),
        ('above = 3\nrelease = "3m"', [3, 1, 1, 3, 1, 1, 1, 1], [(0, "begins"), (7, "ends")]),
        ('above = 3\nclear = 2\nrelease = "2m"', [3, 1, 1, 2.5, 1, 1, 1], [(0, "begins"), (6, "ends")]),
        # a gap of more than three intervals: nobody knows whether it held
        ('above = 3\nhold = "2m"', [3, NAN, NAN, NAN, 3, 3, 3], [(6, "begins")]),
        ('above = 3\nhold = "2m"', [3, NAN, NAN, 3], [(3, "begins")]),
        # a sensor that falls silent leaves its event as it is
        ("above = 3", [3, NAN, NAN, NAN, NAN, NAN, 1], [(0, "begins"), (6, "ends")]),
        ('change = 0.5\nwithin = "3m"', [1, 1.2, 1.4, 1.5, 1.5, 1.5, 1.5], [(3, "begins"), (4, "ends")]),
        ('change = 0.5\nwithin = "3m"', [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], []),
        ('change = -0.5\nwithin = "3m"', [2, 1.9, 1.4, 1.4, 1.4, 1.4], [(2, "begins"), (5, "ends")]),
    ],
)
def test_limits_hysteresis_time_and_rate(
    rule: str, values: list[float], expected: list[tuple[int, str]], tmp_path: Path
) -> None:
    assert Town(tmp_path, LEVEL + rule).run(values) == expected


def test_an_event_tells_since_when_and_what(tmp_path: Path) -> None:
    town = Town(tmp_path, LEVEL + 'above = 3\nhold = "1m"')
    town.say(START, {"level": 3.0})
    assert town.look(START) == []
    town.say(START + MINUTE, {"level": 3.25})
    (event,) = town.look(START + MINUTE)
    assert event.since == START
    assert event.last.key == ("water", "brook", "water-01")
    assert (event.last.severity, event.last.value, event.last.limit) == ("orange", 3.25, 3.0)
    assert event.last.message == "a: level 3.25 m"


@pytest.mark.parametrize("flag", [3, 4, 9])
def test_suspect_and_failed_values_say_nothing(flag: int, tmp_path: Path) -> None:
    assert Town(tmp_path, LEVEL + "above = 3").run([9, 9, 9], flag=flag) == []


def test_absence_begins_without_a_reading_and_ends_with_one(tmp_path: Path) -> None:
    town = Town(tmp_path, f'[[rule]]\nname = "r"\n{HEAD}kind = "water"\nabsent = "5m"')
    assert town.run([1, 1, NAN, NAN, NAN, NAN, NAN, NAN, 1]) == [(7, "begins"), (8, "ends")]


def test_an_expression_is_about_the_quantities_of_one_sensor_at_one_time(tmp_path: Path) -> None:
    town = Town(tmp_path, f'[[rule]]\nname = "fog"\n{HEAD}kind = "weather"\nwhen = "humidity >= 98 and wind_speed < 2"')

    def hour(at: int, **values: float) -> list[bool]:
        town.say(at, values, "weather:weather-01")
        return [event.until is None for event in town.look(at)]

    assert hour(START, humidity=99.0) == []
    assert hour(START + 11 * MINUTE, wind_speed=1.0) == []  # of another time
    assert hour(START + 12 * MINUTE, humidity=99.0) == [True]
    assert hour(START + 13 * MINUTE, wind_speed=3.0) == [False]


def test_several_sensors_together_are_one_event(tmp_path: Path) -> None:
    town = Town(tmp_path, LEVEL + "above = 3\nclear = 2\nsensors = 2")

    def minute(number: int, *levels: float) -> list[bool]:
        at = START + number * MINUTE
        for sensor, level in enumerate(levels):
            town.say(at, {"level": level}, f"water:water-{sensor}")
        return [event.until is None for event in town.look(at)]

    assert minute(0, 4, 1, 1) == []
    assert minute(1, 4, 5, 1) == [True]
    assert minute(2, 4, 5, 6) == []
    assert minute(3, 2.5, 1, 6) == []  # one is over; of the others, one is not clearly so
    assert minute(4, 1, 1, 6) == [False]
    assert minute(5, 4, 1, 1) == []
    assert minute(20, 1, 5, 1) == []
    town.say(START + 40 * MINUTE, {"level": 9.0}, "water:water-2")
    assert town.look(START + 40 * MINUTE) == []  # the second has been silent for twenty minutes


def grades(aqi: int | None = None, congestion: float | None = None, water: str | None = None) -> GradesOut:
    def place(name: str) -> PlaceGrades:
        index = AirIndexOut(value=aqi, level=None, primary=[], sub={}, provisional=False, hours=None)
        return PlaceGrades(
            place=name,
            title=None,
            air=AirOut(stations=1, now={"cn": index}, day={}),
            water=None if water is None else WaterOut(sections=1, level=water, worst=[], over=1),
            noise=None,
            traffic=None if congestion is None else TrafficOut(roads=1, index=congestion, level="free"),
            parking=None,
        )

    return GradesOut(
        time="", town=place(""), districts=[], sites=[place("brook"), place("hill")], water=[], noise=[], roads=[]
    )


def test_rules_on_indices_of_sites_and_of_the_town(tmp_path: Path) -> None:
    rules = (
        f'[[rule]]\nname = "air"\n{HEAD}index = "aqi"\nabove = 151\nclear = 140\nsite = "b*"\n'
        f'[[rule]]\nname = "jam"\n{HEAD}index = "congestion"\nof = "town"\nabove = 6\n'
        f'[[rule]]\nname = "water"\n{HEAD}index = "water_class"\nabove = 4\nsite = "hill"\n'
    )
    town = Town(tmp_path, rules)

    def minute(number: int, its: GradesOut) -> list[tuple[str, str, str, bool]]:
        events = town.look(START + number * MINUTE, its)
        return [(e.last.key.kind, e.last.key.site, e.last.quantity, e.until is None) for e in events]

    assert minute(0, grades()) == []
    begun = minute(1, grades(160, 6.5, "IV"))
    assert begun == [
        ("air", "brook", "aqi", True),
        ("traffic", "", "congestion", True),
        ("water", "hill", "water_class", True),
    ]
    assert minute(2, grades(145, 6.5, "V")) == []
    assert minute(3, grades(None, 6.5, "V")) == []
    assert minute(4, grades(140, 5, "III")) == [(*its[:3], False) for its in begun]


def test_a_file_is_read_again_when_it_changes_and_a_mistake_changes_nothing(tmp_path: Path) -> None:
    town = Town(tmp_path, LEVEL + "above = 3")
    town.say(START, {"level": 3.5})
    assert len(town.look(START)) == 1
    town.edit(LEVEL + "abov = 2")
    assert town.rules.refresh() is False
    assert "did you mean 'above'?" in town.rules.problem
    assert town.look(START + 1) == []
    town.edit(LEVEL + "above = 4")
    assert town.rules.refresh() is True
    assert town.rules.problem == ""
    assert [event.until for event in town.look(START + 2)] == [START]  # by the new limit the value was never over
    town.edit("")
    assert town.rules.refresh() is True
    assert town.look(START + 3) == []


def test_the_event_of_a_rule_that_is_gone_ends(tmp_path: Path) -> None:
    town = Town(tmp_path, LEVEL + "above = 3")
    town.say(START, {"level": 3.5})
    town.look(START)
    town.edit("")
    town.rules.refresh()
    assert [event.until for event in town.look(START + MINUTE)] == [START + MINUTE]


def test_maintenance_ends_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    window = '[[maintenance]]\nsite = "br*"\nsince = 2026-11-23T14:02:00+08:00\nuntil = 2026-11-23T14:05:00+08:00'
    town = Town(tmp_path, f"{LEVEL}above = 3\n{window}")
    assert town.run([3.5] * 8) == [(0, "begins"), (2, "ends"), (5, "begins")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LEVEL, "exactly one of 'above'"),
        (LEVEL + "above = 1\nbelow = 2", "exactly one of 'above'"),
        (LEVEL + "above = 1\nclear = 2", "'clear' lies below"),
        (LEVEL + "change = 1", "'change', which is not 0, and 'within'"),
        (LEVEL.replace("level", "levle") + "above = 1", "did you mean 'level'?"),
        (LEVEL + 'absent = "1h"', "names no quantity"),
        (LEVEL + "above = 1\n" + LEVEL + "above = 1", "two rules have the same name: r"),
        (LEVEL + "above = 1\nhold = 5", "a duration with a unit"),
        (LEVEL + "above = 1\nindex = 'aqi'", "either 'quantity' or 'index'"),
        (f'[[rule]]\nname = "r"\n{HEAD}quantity = "level"\nabove = 1', "of which 'kind'"),
        (f'[[rule]]\nname = "r"\n{HEAD}kind = "air"\nwhen = "pm25 > pm01"', "unknown quantity 'pm01'"),
        (f'[[rule]]\nname = "r"\n{HEAD}kind = "air"\nwhen = "exit()"', "compares nothing"),
        (f'[[rule]]\nname = "r"\n{HEAD}index = "aqi"\nabove = 1\nsensors = 2', "'sensors' counts sensors"),
        ("[[maintenance]]\nuntil = 2026-11-24T12:00:00+08:00", "names no sensors"),
        ("[[rule", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        Rules(path)
    assert says in str(caught.value)
    assert "rules.toml" in str(caught.value)


async def test_events_of_rules_are_alerts_that_go_on_after_a_restart_and_maintenance_silences_gateways_events(
    tmp_path: Path,
) -> None:
    now = time.time_ns() // 1_000_000
    path = tmp_path / "rules.toml"
    path.write_text(LEVEL + "above = 2", "utf-8")
    settings = city_config(tmp_path, alerts={"rules": path})
    water = "water,gateway=g,site=brook,sensor=water-01 level={},level_qc=1i {}"
    gateways = (
        "event,gateway=g,kind=air,sensor=air-01,severity=red,site=hill"
        ' id="e1",quantity="pm25",value=300,limit=250,message="over" {}'
    )
    async with running(settings) as app, client_of(app) as client:
        await write(client, water.format(2.4, now - 5 * MINUTE), gateways.format(now - MINUTE))
        first, second = (await client.get("/api/v1/alerts")).json()["alerts"]
        assert first["cause"] == "air"
        assert (second["cause"], second["sites"], second["events"][0]["rule"]["en"]) == ("high-water", ["brook"], "a")
        listed = (await client.get("/api/v1/rules")).json()
        (rule,) = listed["rules"]
        assert listed["problem"] == ""
        assert (rule["name"], rule["title"], rule["severity"]) == ("r", second["events"][0]["rule"], "orange")
        assert (rule["enabled"], rule["watched"], rule["running"]) == (True, 1, 1)
    path.write_text(f'{LEVEL}above = 2\n[[maintenance]]\nkind = "air"\nuntil = 2099-01-01T00:00:00Z', "utf-8")
    async with running(settings) as app, client_of(app) as client:
        states = {a["id"]: a["state"] for a in (await client.get("/api/v1/alerts")).json()["alerts"]}
        assert states == {first["id"]: "ended", second["id"]: "open"}
        await write(client, water.format(1.9, now - MINUTE), gateways.replace("e1", "e2").format(now))
        states = {a["id"]: a["state"] for a in (await client.get("/api/v1/alerts")).json()["alerts"]}
        assert states == {first["id"]: "ended", second["id"]: "ended"}


def test_the_example_is_in_order() -> None:
    assert set(Rules(Path("configs/rules.toml")).rules) >= {"aqi-unhealthy", "fog"}


PAGE_RULE = {
    "name": "high",
    "title": {"zh": "高", "en": "High", "ko": "높음"},
    "severity": "yellow",
    "kind": "water",
    "quantity": "level",
    "above": 3,
    "hold": "5m",
}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[FastAPI]:
    """A city view whose site has a file of rules with a comment."""
    path = tmp_path / "rules.toml"
    path.write_text(f"# mind the dam\n{LEVEL}above = 2 # m\n", "utf-8")
    async with running(city_config(tmp_path, alerts={"rules": path})) as app:
        yield app


async def _tag(client: httpx.AsyncClient) -> dict[str, str]:
    return {"If-Match": (await client.get("/api/v1/rules")).json()["tag"]}


async def _listed(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in (await client.get("/api/v1/rules")).json()["rules"]}


async def test_an_administrator_adds_changes_disables_and_removes_a_rule(desk: FastAPI, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    async with administrator(desk, tmp_path) as admin:
        water = "water,gateway=g,site=brook,sensor=water-01 level=2.5,level_qc=1i {}"
        await write(admin, water.format(now - MINUTE))
        added = await admin.post("/api/v1/rules", json=PAGE_RULE, headers=await _tag(admin))
        assert added.status_code == 201, added.text
        rule = added.json()
        assert (rule["watched"], rule["running"], rule["of_page"], rule["in_file"]) == (1, 0, True, False)
        assert rule["settings"] == {**PAGE_RULE, "above": 3.0}
        text = (tmp_path / "page-rules.toml").read_text("utf-8")
        assert 'hold = "5m"' in text
        lower = {**PAGE_RULE, "above": 2, "hold": "0s"}
        changed = await admin.put("/api/v1/rules/high", json=lower, headers=await _tag(admin))
        assert changed.json()["running"] == 1  # at once
        off = await admin.put("/api/v1/rules/high", json={**lower, "enabled": False}, headers=await _tag(admin))
        assert (off.json()["enabled"], off.json()["running"], off.json()["watched"]) == (False, 0, 0)
        assert (await admin.delete("/api/v1/rules/high", headers=await _tag(admin))).status_code == 204
        assert list(await _listed(admin)) == ["r"]
        lines = (await admin.get("/api/v1/audit", params={"what": "rule high"})).json()["audit"]
        assert [line["action"] for line in lines] == ["removed", "changed", "changed", "added"]
        assert lines[2]["detail"]["was"]["above"] == 3
        assert lines[2]["detail"]["now"]["above"] == 2


async def test_a_rule_of_the_sites_file_is_changed_without_touching_that_file(desk: FastAPI, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    before = file.read_bytes()
    async with administrator(desk, tmp_path) as admin:
        settings = (await _listed(admin))["r"]["settings"]
        body = {**settings, "enabled": False}
        assert (await admin.put("/api/v1/rules/r", json=body, headers=await _tag(admin))).status_code == 200
        rule = (await _listed(admin))["r"]
        assert (rule["enabled"], rule["of_page"], rule["in_file"]) == (False, True, True)
        assert (await admin.delete("/api/v1/rules/r", headers=await _tag(admin))).status_code == 204
        assert (await _listed(admin))["r"]["enabled"] is True
        refused = await admin.delete("/api/v1/rules/r", headers=await _tag(admin))
        assert refused.status_code == 409
        assert "disable it" in refused.json()["detail"]
    assert file.read_bytes() == before
    async with running(city_config(tmp_path, alerts={"rules": file})) as app:
        assert list(app.state.context.desk._rules.rules) == ["r"]


async def test_of_two_who_change_the_rules_the_later_is_told(desk: FastAPI, tmp_path: Path) -> None:
    async with administrator(desk, tmp_path) as admin:
        tag = await _tag(admin)
        assert (await admin.post("/api/v1/rules", json=PAGE_RULE, headers=tag)).status_code == 201
        late = await admin.put("/api/v1/rules/high", json={**PAGE_RULE, "above": 9}, headers=tag)
        assert late.status_code == 412
        assert (await _listed(admin))["high"]["settings"]["above"] == 3
        assert (await admin.post("/api/v1/rules", json=PAGE_RULE)).status_code == 422  # without If-Match
        page = tmp_path / "page-rules.toml"
        tag = await _tag(admin)
        page.write_text(page.read_text("utf-8").replace("above = 3", "above = 4"), "utf-8")  # by hand meanwhile
        assert (await admin.put("/api/v1/rules/high", json=PAGE_RULE, headers=tag)).status_code == 412


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"above": None}, "exactly one of 'above'"),
        ({"clear": 4}, "'clear' lies below"),
        ({"quantity": "levle"}, "did you mean 'level'?"),
        ({"hold": 5}, "hold: expected a duration with a unit"),
        ({"severity": "pink"}, "severity: "),
        ({"name": "a b"}, "name: "),
        ({"abov": 4}, "abov: "),
        ({"title": {"en": "x"}}, "title.zh: "),
    ],
)
async def test_a_broken_rule_is_refused_and_names_the_field(
    desk: FastAPI, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    async with administrator(desk, tmp_path) as admin:
        for path in ("/api/v1/rules", "/api/v1/rules/try"):
            refused = await admin.post(path, json=PAGE_RULE | change, headers=await _tag(admin))
            assert refused.status_code == 422
            assert says in refused.json()["detail"]
        assert list(await _listed(admin)) == ["r"]


async def test_a_file_that_cannot_be_written_is_told_and_nothing_is_on_the_trail(tmp_path: Path) -> None:
    settings = city_config(tmp_path, alerts={"page_rules": tmp_path / "no-folder" / "page.toml"})
    async with running(settings) as app, administrator(app, tmp_path) as admin:
        refused = await admin.post("/api/v1/rules", json=PAGE_RULE, headers=await _tag(admin))
        assert refused.status_code == 409
        assert "page_rules" in refused.json()["detail"]
        assert (await admin.get("/api/v1/audit", params={"what": "rule"})).json()["audit"] == []


async def test_a_rule_is_tried_on_the_last_days(desk: FastAPI, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    start = now - now % MINUTE - 6 * 86_400_000
    # on each of five days one of two sensors is over the limit for an hour
    water = "water,gateway=g,site=brook,sensor=water-0{} level={},level_qc=1i {}"
    lines = [
        water.format(sensor, value, start + (day * 1440 + minute) * MINUTE)
        for sensor, high in ((1, 3.5), (2, 2.0))
        for day in range(5)
        for minute in range(180)
        for value in [high if 60 <= minute < 120 else 1.0]
    ]
    async with administrator(desk, tmp_path) as admin:
        await write(admin, *lines)
        tried = (await admin.post("/api/v1/rules/try", json=PAGE_RULE)).json()
        assert (tried["times"], tried["watched"], tried["days"]) == (5, 2, 7)
        assert {event["sensor"] for event in tried["events"]} == {"water:brook:water-01"}
        assert all(event["until"] is not None for event in tried["events"])
        assert tried["step"] <= 300
        long = (await admin.post("/api/v1/rules/try", json={**PAGE_RULE, "hold": "90m"})).json()
        assert long["times"] == 0
        silent = {key: PAGE_RULE[key] for key in ("name", "title", "severity", "kind")} | {"absent": "2h"}
        assert (await admin.post("/api/v1/rules/try", json=silent)).json()["times"] == 10  # each night, of each sensor
        index = {key: PAGE_RULE[key] for key in ("name", "title", "severity")} | {"index": "aqi", "above": 100}
        refused = await admin.post("/api/v1/rules/try", json=index)
        assert refused.status_code == 422
        assert "index: " in refused.json()["detail"]
        assert list(await _listed(admin)) == ["r"]
