"""Sources of every format: several sensors and times a message, what senders say of their values, and devices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import DiscoverConfig, LimitsConfig, SourceConfig
from gateway.edge.batch import Boot, Entry, RawBatch
from gateway.edge.readings import SUSPECT, Readings
from gateway.edge.reasons import Reason
from gateway.edge.redact import Redactor
from gateway.edge.silence import Silences
from gateway.edge.source import SourceError
from tests.edge.test_way import NOW, Way, raw, total

PAYLOADS = Path(__file__).parents[1] / "sensors/formats/payloads"


LATER = 1_795_392_600_000  # ms: ten minutes after what these payloads tell of


def source(format_name: str, topic: str = "in/#", **keys: object) -> SourceConfig:
    return SourceConfig.model_validate({"name": "s", "site": "east", "topic": topic, "format": format_name, **keys})


def frame(station: str, data: str) -> bytes:
    content = f"QN=20261123080000000;ST=22;CN=2011;PW=123456;MN={station};Flag=5;CP=&&DataTime=20261123080000;{data}&&"
    return f"##{len(content):04d}{content}0000".encode()


def stations() -> SourceConfig:
    options = {"crc": "ignore", "answer_topic": "hj212/{mn}/down"}
    return source("hj212", kind="air", options=options)


def points(entry: Entry) -> list[str]:
    return entry.lines.decode().splitlines()


def test_the_payload_names_the_sensors_and_each_gets_its_point() -> None:
    payload = b"weather,sensor=roof-1 temperature=21.5 1795392000\nw,sensor=b/2 temperature=3 1795392060"
    entry = Way(source("influx", kind="weather")).send([("in/x", payload)], LATER)
    assert points(entry) == [
        "weather,gateway=gw,sensor=roof-1,site=east temperature=21.5,temperature_qc=1i 1795392000000",
        "weather,gateway=gw,sensor=b_2,site=east temperature=3.0,temperature_qc=1i 1795392060000",
    ]
    assert total(entry) == {"received": 2, "queued": 2, "quarantined": 0, "dead": 0, "duplicate": 0}


def test_a_value_takes_the_unit_of_the_payload_else_of_the_source_else_of_the_format() -> None:
    board = b'{"esp8266id": "1", "sensordatavalues": [{"value_type": "BME280_pressure", "value": "101325"}]}'
    assert "pressure=1013.25," in points(Way(source("airrohr", kind="weather")).send([("in/a", board)]))[0]
    kilo = source("airrohr", kind="weather", units={"pressure": "kPa"})
    assert b"value=1013250.0," in Way(kilo).send([("in/a", board)]).quarantine
    chip = b'{"Time": "2026-11-23T00:00:00", "BME280": {"Temperature": 68.0}, "TempUnit": "F"}'
    tasmota = source("tasmota", topic="tele/{sensor}/SENSOR", kind="weather", units={"temperature": "K"})
    assert "temperature=20.0," in points(Way(tasmota).send([("tele/t/SENSOR", chip)], LATER))[0]


@pytest.mark.parametrize(
    ("flag", "qc", "reason", "quarantined"),
    [
        ("N", 1, 0, 0),
        ("M", 3, Reason.SENDER_SUSPECT, 0),
        ("T", 3, Reason.OVER_RANGE, 0),
        ("D", 4, Reason.SENDER_BAD, 1),
    ],
)
def test_what_the_sender_says_of_a_value_becomes_its_flag(flag: str, qc: int, reason: int, quarantined: int) -> None:
    alone = f"a34004-Rtd=15,a34004-Flag={flag}"
    among = ";".join([alone, *(f"a99{n}-Rtd=1,a99{n}-Flag=N" for n in range(100, 120))])
    for data in (alone, among):  # few values are judged another way than many
        entry = Way(stations()).send([("in/a", frame("M1", data))], LATER)
        line = points(entry)[0]
        assert f"pm25_qc={qc}i" in line
        assert ("pm25=15.0" in line) == (not quarantined)
        assert (f"pm25_reason={reason}i" in line) == (qc == SUSPECT)
        assert entry.quarantine.count(b"quantity=pm25") == quarantined
        assert (b'value=15.0,flag=4i,reason="sender_bad"' in entry.quarantine) == bool(quarantined)


def test_an_answer_is_given_once_the_message_is_kept_also_to_one_that_is_sent_again() -> None:
    way = Way(stations())
    asks = frame("M1", "a34004-Rtd=15,a34004-Flag=N")
    first, again = way.send([("in/a", asks)]), way.send([("in/a", asks)])
    for entry in (first, again):
        (answer,) = entry.answers
        assert answer.topic == "hj212/M1/down"
        assert b"CN=9014" in answer.payload
    assert total(again)["duplicate"] == 1
    tried_again = raw([("in/a", asks)])
    tried_again.again = True
    assert way.take(tried_again).answers == []
    assert way.send([("in/a", b"##nonsense")]).answers == []


def test_what_is_loose_is_counted_by_source() -> None:
    way = Way(stations())
    assert points(way.send([("in/a", frame("A", "a34004-Rtd=1").replace(b"QN=", b"XN="))]))
    assert (way.decoder.loose_messages, way.decoder.loose) == (1, {"s": {"no QN": 1}})


def test_what_is_left_out_of_a_message_is_told_though_its_first_sample_has_no_possible_time() -> None:
    way = Way(source("influx", kind="weather", sensor="q"))
    payload = b'm a=1 -5\nm b="x" 1700000000\nm c=3 1700000000'
    first, again = way.send([("in/a", payload)]), way.send([("in/a", payload)])
    assert [letter.reason.partition(" ")[0] for letter in first.dead] == ["time:", "line"]
    assert (total(first)["received"], total(first)["dead"]) == (3, 2)
    assert (total(again)["received"], total(again)["dead"], total(again)["duplicate"]) == (3, 1, 2)


def test_a_message_of_several_samples_is_one_duplicate() -> None:
    way = Way(stations())
    two = frame("M1", "a34004-Rtd=15,a34004-Flag=N") + b"\r\n" + frame("M2", "a34004-Rtd=16;a34002-Rtd=x")
    first, again = way.send([("in/a", two)]), way.send([("in/a", two)])
    assert (len(points(first)), len(first.keys), len(first.dead)) == (2, 1, 1)
    assert total(first) == {"received": 3, "queued": 2, "quarantined": 0, "dead": 1, "duplicate": 0}
    assert total(again) == {"received": 3, "queued": 0, "quarantined": 0, "dead": 0, "duplicate": 3}


def test_a_message_whose_samples_cannot_all_be_dated_waits_whole_for_the_clock() -> None:
    way = Way(source("influx", kind="weather"))
    batch = raw([("in/x", b"w,sensor=a temperature=1 1795392000\nw,sensor=b temperature=2")], now=5_000)
    batch.boot = Boot("boot", 4_000, 0)
    entry = way.take(batch)
    assert points(entry) == []
    (held,) = entry.held
    assert (held.readings, held.moment) == (2, 1_000)
    released = RawBatch([held.topic], [held.payload], [NOW], held=[1])
    assert [line.split()[-1] for line in points(way.take(released))] == ["1795392000000", str(NOW)]


def test_what_was_five_seconds_ago_is_known_when_the_broker_sends_it_again() -> None:
    way = Way(source("senml", kind="weather"))
    message = ("in/a", b'[{"n":"s1/temperature","v":1,"t":-5}]')
    assert len(points(way.send([message], now=NOW))) == 1
    assert len(points(way.send([message], now=NOW + 60_000))) == 1, "said anew, it is another time"
    again = raw([message], NOW + 61_000)
    again.redelivered.add(0)
    entry = way.take(again)
    assert (points(entry), total(entry)["duplicate"]) == ([], 1)


def test_an_uplink_heard_by_two_gateways_is_one_whatever_their_bytes_and_topics() -> None:
    way = Way(source("chirpstack", topic="lora/{site}/#", site=None, kind="soil", options={"codec": "cayenne"}))
    uplink = (PAYLOADS / "chirpstack/data.json").read_bytes()
    first = way.send([("lora/north/a", uplink), ("lora/north/b", uplink.replace(b"{", b"{ ", 1))])
    assert len(points(first)) == 1
    assert total(first)["duplicate"] == total(first)["queued"] > 1
    again = way.send([("lora/north/c", b" " + uplink)])
    assert total(again)["duplicate"] == total(again)["received"] == total(first)["queued"]


def sparkplug(way: Way, *messages: tuple[str, str], now: int = NOW) -> Readings:
    batch = [(f"spBv1.0/town/{topic}", bytes.fromhex(vector(f"sparkplug/{name}.hex"))) for topic, name in messages]
    return way.decoder.decode(raw(batch, now))


def vector(name: str) -> str:
    return (PAYLOADS / name).read_text("ascii")


BIRTHS = (("NBIRTH/edge1", "nbirth"), ("DBIRTH/edge1/station7", "dbirth"))


def node() -> SourceConfig:
    return source("sparkplug", topic="spBv1.0/#", kind="air")


def test_data_before_a_birth_is_asked_for_and_a_death_is_told_of_sensors_that_were_heard() -> None:
    way = Way(node())
    before = sparkplug(way, ("DDATA/edge1/station7", "ddata"))
    assert [answer.topic for answer in before.answers] == ["spBv1.0/town/NCMD/edge1"]
    assert sparkplug(Way(node()), ("NDEATH/edge1", "ndeath")).gone == []
    alive = sparkplug(way, *BIRTHS)
    assert "station7" in {sensor.name for sensor in alive.sensors}
    dead = sparkplug(way, ("DDEATH/edge1/station7", "ddeath"))
    assert [sensor.name for sensor in dead.gone] == ["station7"]
    assert sparkplug(way, ("DDEATH/edge1/station7", "ddeath"), BIRTHS[1]).gone == []  # it is back already


def test_a_sensor_that_is_reported_gone_is_silent_until_it_is_heard_again() -> None:
    way, time = Way(node()), [0]
    silences = Silences(way.channels, lambda: time[0])
    silences.hear(sparkplug(way, *BIRTHS))
    silences.hear(sparkplug(way, ("DDEATH/edge1/station7", "ddeath")))
    time[0] += 1_000
    (told,) = silences.noticed(NOW + 1_000, 0)
    assert (told.sensor.name, told.over, told.since) == ("station7", "", NOW)
    assert 'message="reported gone, silent since ' in told.line("gw")
    assert silences.noticed(NOW + 1_000, 0) == []
    time[0] += 60_000
    silences.hear(sparkplug(way, BIRTHS[1], now=NOW + 61_000))
    (back,) = silences.noticed(NOW + 61_000, 0)
    assert (back.sensor.name, back.over, back.since) == ("station7", "sends again", NOW)


def test_what_the_sender_had_stored_is_no_live_value() -> None:
    way = Way(node())
    readings = sparkplug(way, *BIRTHS, ("DDATA/edge1/station7", "ddata_stored"))
    way.filter.judge(readings)
    stored = [row for row, reason in enumerate(readings.reason.tolist()) if reason & Reason.OUT_OF_ORDER]
    assert stored
    assert not any(readings.reason[: stored[0]] & Reason.OUT_OF_ORDER)


def test_a_list_of_objects_is_a_sample_each() -> None:
    options = {"each": "readings", "sensor": "id"}
    way = Way(source("json", kind="air", time="at", options=options, rename={"air.pm25": "pm25"}))
    payload = {
        "at": NOW,
        "readings": [{"id": "a1", "air": {"pm25": 5}}, {"id": 2, "air": {"pm25": 6}, "at": NOW - 1000}],
    }
    assert points(way.send([("in/a", payload)])) == [
        f"air,gateway=gw,sensor=a1,site=east pm25=5.0,pm25_qc=1i {NOW}",
        f"air,gateway=gw,sensor=2,site=east pm25=6.0,pm25_qc=1i {NOW - 1000}",
    ]
    for bad, why in (
        ({"readings": 5}, "readings: expected a list of objects, not '5'"),
        ({"readings": [7]}, "readings.0: expected a JSON object, not int"),
        ({"readings": [{"air": {"pm25": 5}}]}, "readings.0.id: expected the name of a sensor, not 'None'"),
        ({"readings": [{"id": "a", "at": "x"}]}, "readings.0.at: expected a time"),
        ({"readings": [{"id": "a", "air": {"pm25": "x"}}]}, "readings.0.air.pm25: expected a number, not 'x'"),
    ):
        assert why in way.send([("in/a", bad)]).dead[0].reason


def test_paths_reach_into_objects_and_lists() -> None:
    way = Way(source("json", topic="in/{sensor}", kind="air", time="meta.at", rename={"data.0.v": "pm25"}))
    assert points(way.send([("in/a1", {"meta": {"at": NOW}, "data": [{"v": 5}]})])) == [
        f"air,gateway=gw,sensor=a1,site=east pm25=5.0,pm25_qc=1i {NOW}"
    ]


def devices(folder: Path, text: str) -> Path:
    file = folder / "devices.toml"
    file.write_text(text, "utf-8")
    return file


def test_devices_have_kind_site_and_sensor_from_a_file(tmp_path: Path) -> None:
    file = devices(tmp_path, '["0a:1b"]\nkind = "air"\nsite = "west"\nsensor = "a1"\n[b]\nkind = "weather"\n')
    way = Way(source("json", devices=file, options={"sensor": "id"}))
    sent = [("in/x", {"ts": NOW, "id": called, "temperature": 5}) for called in ("0a:1b", "b", "c")]
    entry = way.send(sent)
    assert points(entry) == [
        f"air,gateway=gw,sensor=a1,site=west temperature=5.0,temperature_qc=1i {NOW}",
        f"weather,gateway=gw,sensor=b,site=east temperature=5.0,temperature_qc=1i {NOW}",
    ]
    assert entry.dead[0].reason == f"unknown device 'c': nothing says its kind; declare it in {file}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[a]\nkind = 'airr'", "a: unknown kind 'airr'; did you mean 'air'?"),
        ("[a]\nkinds = 'air'", "a.kinds: Extra inputs are not permitted"),
        ("[a]\nsensor = 'a b'", "a.sensor: String should match"),
        ("[a", "not valid TOML"),
        ("[a]\nsensor = 'x'\n[b]\nsensor = 'x'", "b and a are the same sensor 'x'"),
    ],
)
def test_a_file_of_devices_that_cannot_be_used_is_told(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SourceError, match=r"source 's': devices: .*devices\.toml: ") as told:
        Way(source("json", kind="air", devices=devices(tmp_path, text), sensor="a"))
    assert why in str(told.value)
    with pytest.raises(SourceError, match=r"nowhere\.toml: cannot be read: No such file"):
        Way(source("json", kind="air", devices=tmp_path / "nowhere.toml", sensor="a"))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"format": "hj122"}, "unknown format 'hj122'; there are airrohr, "),
        (
            {"format": "hj212", "options": {"crcs": 1}},
            "option crcs: there is none of that name; its options: ",
        ),
        (
            {"format": "hj212", "time": "at"},
            "time: payloads of the format 'hj212' have their own time, or none",
        ),
        ({"format": "json", "sensor": None}, "has no {sensor}: add it there or set 'sensor'"),
    ],
)
def test_a_format_that_cannot_be_used_so_is_told(keys: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as told:
        SourceConfig.model_validate({"topic": "in/#", "kind": "air", "site": "east", "sensor": "a", **keys})
    assert why in str(told.value)


def test_the_sender_must_be_every_sensor_that_the_payload_names() -> None:
    way = Way(source("influx", kind="weather", sender="client"))
    batch = raw([("in/x", b"w,sensor=a temperature=1 1795392000\nw,sensor=b temperature=2 1795392000")])
    batch.senders[0] = "a"
    entry = way.take(batch)
    assert len(points(entry)) == 1
    assert entry.dead[0].reason == "the broker names the sender 'a', the message the sensor 'b'"


def test_sensors_that_payloads_name_are_bounded_too() -> None:
    way = Way(source("influx", kind="weather"), limits=LimitsConfig(sensors=2))
    entry = way.send([("in/x", "\n".join(f"w,sensor=s{n} temperature=1 1795392000" for n in range(5)).encode())])
    assert (len(points(entry)), len(entry.dead)) == (2, 3)
    assert entry.dead[0].reason == "there are limits.sensors = 2 sensors already"


def test_a_unit_of_something_else_costs_its_value_only() -> None:
    renamed = {"BME280.Temperature": "humidity"}
    way = Way(source("tasmota", topic="tele/{sensor}/SENSOR", kind="weather", rename=renamed))
    chip = b'{"Time":"2026-11-23T00:00:00","BME280":{"Temperature":2,"Pressure":990},"TempUnit":"C"}'
    entry = way.send([("tele/t/SENSOR", chip)], LATER)
    assert "pressure=990.0" in points(entry)[0]
    assert entry.dead[0].reason.startswith("humidity: ")
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 1, "duplicate": 0}


def discover(folder: Path, **keys: object) -> DiscoverConfig:
    given = {"topic": "zigbee2mqtt/#", "format": "zigbee2mqtt", "devices": folder / "devices.toml", **keys}
    return DiscoverConfig.model_validate(given)


PORCH = ("zigbee2mqtt/porch", b'{"temperature": 21.5, "humidity": 40, "linkquality": 90}')


def test_what_an_undeclared_device_sends_is_held_and_the_device_is_listed(tmp_path: Path) -> None:
    way = Way(SourceConfig(), discover(tmp_path))
    entry = way.send([PORCH, PORCH])
    assert points(entry)[0].startswith(
        "holding,gateway=gw,sensor=porch,site=unknown temperature=21.5,temperature_qc=2i,"
    )
    assert total(entry)["queued"] == total(entry)["received"] > 0
    (found,) = way.decoder.discoveries.report()
    assert (found["device"], found["topic"], found["messages"]) == ("porch", "zigbee2mqtt/porch", 2)
    assert found["where"] == str(tmp_path / "devices.toml")
    assert found["declare"] == '[porch]\nkind = "weather"\nsite = "unknown"\nsensor = "porch"'


def test_once_it_is_declared_it_is_a_sensor(tmp_path: Path) -> None:
    before = Way(discover(tmp_path))
    before.send([PORCH])
    devices(tmp_path, str(before.decoder.discoveries.report()[0]["declare"]).replace("unknown", "west"))
    after = Way(discover(tmp_path))
    assert points(after.send([PORCH]))[0].startswith("weather,gateway=gw,sensor=porch,site=west temperature=21.5")
    assert after.decoder.discoveries.report() == []


def test_a_device_with_a_long_name_is_listed_and_can_be_accepted(tmp_path: Path) -> None:
    long = "in/" + "hall/" * 30 + "probe"
    way = Way(discover(tmp_path, topic="in/#", format="json"))
    entry = way.send([(long, b'{"temperature":1}')])
    assert (len(points(entry)), entry.dead) == (1, [])
    (found,) = way.decoder.discoveries.report()
    assert found["device"] == long
    (tmp_path / "devices.toml").write_text(str(found["declare"]), "utf-8")
    accepted = Way(discover(tmp_path, topic="in/#", format="json"))
    (point,) = points(accepted.send([(long, b'{"temperature":1}')]))
    assert not point.startswith("holding")
    (other,) = points(Way(discover(tmp_path, topic="in/#", format="json")).send([(long + "2", b'{"temperature":1}')]))
    assert other.partition("sensor=")[2][:64] != point.partition("sensor=")[2][:64]


def test_two_devices_never_become_one_sensor() -> None:
    way = Way(source("zigbee2mqtt", "zigbee2mqtt/#", kind="weather"))
    topics = ["zigbee2mqtt/hall/a", "zigbee2mqtt/hall_a", "zigbee2mqtt/hall/a", "zigbee2mqtt/hall a"]
    entry = way.send([(topic, b'{"temperature":%d}' % number) for number, topic in enumerate(topics)])
    assert [point.split()[1].partition(",")[0] for point in points(entry)] == ["temperature=0.0", "temperature=2.0"]
    assert [letter.reason.partition(" would")[0] for letter in entry.dead] == [
        "'hall_a' and 'hall/a'",
        "'hall a' and 'hall/a'",
    ]


def test_undeclared_devices_are_bounded_and_leave_room_for_sensors(tmp_path: Path) -> None:
    way = Way(SourceConfig(), discover(tmp_path), limits=LimitsConfig(holding=2))
    entry = way.send([(f"zigbee2mqtt/d{n}", PORCH[1]) for n in range(4)])
    assert len(points(entry)) == 2
    assert {letter.reason for letter in entry.dead} == {"there are limits.holding = 2 undeclared devices already"}
    assert len(points(way.send([("city/east/air/a1", {"ts": NOW, "pm25": 5})]))) == 1


def test_nothing_personal_is_held_of_a_device_of_which_nothing_is_known(tmp_path: Path) -> None:
    way = Way(discover(tmp_path, topic="new/#", format="json"))
    batch = raw([("new/x", {"ts": NOW, "plate": "ABC123", "phone": 13800138000, "speed": 50})])
    Redactor(way.decoder.sources, way.decoder.kinds).redact(batch)
    entry = way.take(batch)
    assert points(entry) == [f"holding,gateway=gw,sensor=new_x,site=unknown speed=50.0,speed_qc=2i {NOW}"]


def test_what_home_assistant_is_told_is_listed_with_a_source(tmp_path: Path) -> None:
    way = Way(discover(tmp_path, topic="homeassistant/#", format="homeassistant"))
    said = (PAYLOADS / "homeassistant/attic_temperature.json").read_bytes()
    entry = way.send([("homeassistant/sensor/0x1/t/config", said), ("homeassistant/sensor/0x1/t/config", said)])
    assert total(entry) == {}
    (found,) = way.decoder.discoveries.report()
    assert (found["device"], found["topic"], found["quantities"]) == (
        "attic",
        "zigbee2mqtt/attic",
        {"temperature": None},
    )
    assert 'topic = "zigbee2mqtt/attic"' in str(found["declare"])
