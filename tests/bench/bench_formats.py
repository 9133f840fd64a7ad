"""What reading a payload costs, format by format: bytes to samples, before the rest of the way.

Each message differs from the one before in its time and its values, as a sensor's do. CPU time of this machine, now;
the least of many short rounds, for other work can only add to it. What a payload should cost stands beside it.
"""

import base64
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import cbor2

from sensors.formats import BUILTIN, Declared, find
from sensors.formats.hj212 import crc
from sensors.formats.json import plain
from sensors.formats.sparkplug import _PAYLOAD
from tests.bench.conftest import Report
from tests.sensors.formats import documents

QUANTITIES = ("temperature", "humidity", "pressure", "pm25", "pm10")
NOW = 1_790_000_000_000
MESSAGES = 500  # a round: short, so that one of them is alone on the processor
ROUNDS = 40
Payload = Callable[[int], bytes]


def values(number: int) -> dict[str, float]:
    """Five quantities of the air, of which each message has others."""
    return {name: round(10 + place + number % 97 / 10, 2) for place, name in enumerate(QUANTITIES)}


def moment(number: int) -> str:
    """A message a second, in ISO 8601."""
    return datetime.fromtimestamp(NOW / 1000 + number, UTC).isoformat()


def as_json(number: int) -> bytes:
    """Our own payload."""
    return json.dumps({"ts": NOW + number * 1000, **values(number)}).encode()


def chirpstack(number: int) -> bytes:
    """A whole uplink of ChirpStack 4, with what its codec made."""
    uplink = json.loads(documents.payload("chirpstack/object.json"))
    return json.dumps(uplink | {"time": moment(number), "fCnt": number, "object": values(number)}).encode()


def ttn(number: int) -> bytes:
    """A whole uplink of The Things Stack 3, with what its formatter made."""
    uplink = json.loads(documents.payload("ttn/weather.json"))
    uplink["received_at"] = moment(number)
    uplink["uplink_message"] |= {"f_cnt": number, "decoded_payload": values(number), "received_at": moment(number)}
    return json.dumps(uplink).encode()


def chirpstack_data(number: int) -> bytes:
    """The same uplink, with the device's bytes only."""
    uplink = json.loads(documents.payload("chirpstack/data.json"))
    data = base64.b64encode(cayenne(number)).decode()
    return json.dumps(uplink | {"time": moment(number), "fCnt": number, "data": data}).encode()


SENML_UNITS = ("Cel", "%RH", "hPa", "ug/m3", "ug/m3")


def senml(number: int) -> bytes:
    """A pack of five records."""
    readings = zip(values(number).items(), SENML_UNITS, strict=True)
    pack: list[dict[str, Any]] = [{"n": name, "u": unit, "v": value} for (name, value), unit in readings]
    pack[0] |= {"bn": "urn:dev:ow:10e2073a01080063:", "bt": NOW // 1000 + number}
    return json.dumps(pack, separators=(",", ":")).encode()


def senml_cbor(number: int) -> bytes:
    """The same pack, in CBOR."""
    labels = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2}
    return cbor2.dumps([{labels[key]: value for key, value in record.items()} for record in json.loads(senml(number))])


def hj212(number: int) -> bytes:
    """A frame of ten factors, each with its flag."""
    stamp = datetime.fromtimestamp(NOW / 1000 + number, UTC).strftime("%Y%m%d%H%M%S")
    codes = ("a34004", "a34002", "a21026", "a21004", "a21005", "a05024", "a01001", "a01002", "a01006", "a01007")
    factors = ";".join(f"{code}-Rtd={10 + number % 97 / 10},{code}-Flag=N" for code in codes)
    head = f"QN={stamp}000;ST=22;CN=2011;PW=123456;MN=010000A8900016F000169DC0;Flag=4"
    segment = f"{head};CP=&&DataTime={stamp};{factors}&&".encode()
    return b"##%04d%b%04X\r\n" % (len(segment), segment, crc(segment))


def sparkplug(number: int) -> bytes:
    """Data of five metrics, by their aliases."""
    message = _PAYLOAD(timestamp=NOW + number * 1000, seq=(number + 1) % 256)
    for alias, value in enumerate(values(number).values()):
        message.metrics.add(alias=alias, timestamp=message.timestamp, datatype=9, float_value=value)
    return bytes(message.SerializeToString())


def sparkplug_birth() -> bytes:
    """The birth of the same node."""
    message = _PAYLOAD(timestamp=NOW - 1000, seq=0)
    for alias, (name, value) in enumerate(values(0).items()):
        message.metrics.add(name=name.encode(), alias=alias, datatype=9, float_value=value)
    return bytes(message.SerializeToString())


def influx(number: int) -> bytes:
    """A line of five fields."""
    fields = ",".join(f"{name}={value}" for name, value in values(number).items())
    return f"weather,sensor=roof,site=town {fields} {(NOW + number * 1000) * 1_000_000}".encode()


def tasmota(number: int) -> bytes:
    """The telemetry of a chip with five quantities."""
    keys = ("Temperature", "Humidity", "Pressure", "PM2.5", "PM10")
    chip = dict(zip(keys, values(number).values(), strict=True))
    return json.dumps({"Time": moment(number), "BME280": chip, "TempUnit": "C", "PressureUnit": "hPa"}).encode()


def homeassistant(number: int) -> bytes:
    """An announcement of one quantity."""
    said = {"state_topic": f"tele/n{number}", "value_template": "{{ value_json.t }}", "device_class": "temperature"}
    return json.dumps({**said, "unit_of_measurement": "°C", "device": {"name": f"node {number}"}}).encode()


def zigbee2mqtt(number: int) -> bytes:
    """A device's state of five quantities."""
    return json.dumps({**values(number), "last_seen": NOW + number * 1000}).encode()


def airrohr(number: int) -> bytes:
    """What the firmware sends, as text, with what it says of itself."""
    sent = json.loads(documents.payload("airrohr/sds011_bme280.json"))
    for place, entry in enumerate(sent["sensordatavalues"][:5]):
        entry["value"] = f"{10 + place + number % 97 / 10:.2f}"
    return json.dumps(sent).encode()


def cayenne(number: int) -> bytes:
    """Temperature, humidity, pressure and two analog inputs."""
    return bytes.fromhex(
        "0167{:04x}0268640373{:04x}0402{:04x}0502{:04x}".format(*(200 + number % 97 for _ in range(4)))
    )


class Case(NamedTuple):
    """What is measured: one format, with messages of one form.

    Attributes:
        format: Its name.
        topic: Of all messages.
        what: What a message holds.
        payload: Makes the one with a number.
        values: How many it has.
        target: What it should cost at most, µs; None without one.
        options: Of the format.
    """

    format: str
    topic: str
    what: str
    payload: Payload
    values: int = 5
    target: float | None = None
    options: Mapping[str, Any] = {}


CASES = (
    Case("json", "city/a/air/b", "5 quantities", as_json, target=5),  # 1 µs a quantity
    Case("senml", "senml/a", "5 records, JSON", senml, target=10),
    Case("senml", "senml/a", "5 records, CBOR", senml_cbor),
    Case("chirpstack", "application/1/device/a/event/up", "5 quantities in object", chirpstack, target=10),
    Case(
        "chirpstack",
        "application/1/device/a/event/up",
        "5 channels by a codec",
        chirpstack_data,
        options={"codec": "cayenne"},
    ),
    Case("ttn", "v3/weather@town/devices/roof-1/up", "5 quantities decoded", ttn, target=10),
    Case("cayenne", "lpp/a", "5 channels", cayenne),
    Case("sparkplug", "spBv1.0/town/NDATA/edge", "5 metrics by alias", sparkplug),
    Case("hj212", "hj/a", "10 factors with flags", hj212, values=10, target=25),
    Case("zigbee2mqtt", "zigbee2mqtt/a", "5 quantities", zigbee2mqtt),
    Case("tasmota", "tele/a/SENSOR", "5 quantities", tasmota),
    Case("airrohr", "airrohr/a", "5 quantities, 5 more", airrohr),
    Case("influx", "telegraf", "5 fields", influx),
    Case("homeassistant", "homeassistant/sensor/n/t/config", "1 announcement", homeassistant, values=0),
)


def one_by_one(case: Case) -> Callable[[list[bytes]], object]:
    """Reads messages by a format that has met their sensor."""
    form = find(case.format)(Declared("ts" if case.format == "json" else None, options=case.options))
    if case.format == "sparkplug":
        form.decode("spBv1.0/town/NBIRTH/edge", sparkplug_birth(), NOW)
    decoded = form.decode(case.topic, case.payload(0), NOW)
    if case.values:
        (sample,) = decoded.samples
        assert len(sample.values) >= case.values, sample
        assert not sample.problems
    else:
        assert decoded.announced

    def read(payloads: list[bytes]) -> None:
        for payload in payloads:
            form.decode(case.topic, payload, NOW)

    return read


class Way(NamedTuple):
    """One way to read the messages of a case.

    Attributes:
        name: What it is called.
        case: Its case.
        read: Reads some.
        payloads: All that there are.
        rounds: CPU µs a message, in each round.
    """

    name: str
    case: Case
    read: Callable[[list[bytes]], object]
    payloads: list[bytes]
    rounds: list[float]

    def measure(self, first: int) -> None:
        """Reads the messages of one round."""
        some = self.payloads[first : first + MESSAGES]
        began = time.process_time()
        self.read(some)
        self.rounds.append((time.process_time() - began) / len(some) * 1e6)


def test_bench_formats(report: Report) -> None:
    assert {case.format for case in CASES} == BUILTIN.keys()
    rounds = report.scaled(ROUNDS, 3)
    ways = []
    for case in CASES:
        payloads = [case.payload(number) for number in range(rounds * MESSAGES)]
        if case.format == "json":  # many at a time, as the gateway reads what is nothing but numbers
            assert None not in plain(payloads)
            ways.append(Way("json, in batches", case, plain, payloads, []))
        ways.append(Way(case.format, case, one_by_one(case), payloads, []))
    for number in range(rounds):  # by turns, for a machine's moments differ
        report.say(f"formats, round {number + 1} of {rounds}")
        for way in ways:
            way.measure(number * MESSAGES)
    rows: list[dict[str, Any]] = []
    missed = []
    for way in ways:
        micros, target = min(way.rounds), way.case.target
        row = {"format": way.name, "a message of": way.case.what, "bytes": len(way.payloads[0]), "µs": micros}
        rows.append({**row, "at most": "" if target is None else f"{target:g}"})
        if target is not None and micros > target:
            missed.append(way.name)
    report.table("formats", "Formats: CPU a message", rows, f"above its target: {', '.join(missed) or 'none'}")
