"""What reading a payload costs, format by format: bytes to samples, before the rest of the way.

Each message differs from the one before in its time and its values, as a sensor's do. CPU time of this machine, now;
the least of three rounds, for other work can only add to it.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sensors.formats import Declared, Format, find
from sensors.formats.hj212 import crc
from sensors.formats.json import plain
from sensors.formats.sparkplug import _PAYLOAD
from tests.bench.conftest import Report
from tests.sensors.formats import documents

QUANTITIES = ("temperature", "humidity", "pressure", "pm25", "pm10")
NOW = 1_790_000_000_000
MESSAGES = 2000
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


FORMATS: dict[str, tuple[str, str, Payload]] = {
    "json": ("city/a/air/b", "5 quantities", as_json),
    "chirpstack": ("application/1/device/a84041b931831234/event/up", "5 quantities", chirpstack),
    "ttn": ("v3/weather@town/devices/roof-1/up", "5 quantities", ttn),
    "cayenne": ("lpp/a", "5 channels", cayenne),
    "sparkplug": ("spBv1.0/town/NDATA/edge", "5 metrics by alias", sparkplug),
    "hj212": ("hj/a", "10 factors with flags", hj212),
    "zigbee2mqtt": ("zigbee2mqtt/a", "5 quantities", zigbee2mqtt),
    "tasmota": ("tele/a/SENSOR", "5 quantities", tasmota),
    "airrohr": ("airrohr/a", "5 quantities, 5 more", airrohr),
    "influx": ("telegraf", "5 fields", influx),
}


def cost(form: Format, topic: str, payloads: list[bytes]) -> float:
    """CPU microseconds a message."""
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for payload in payloads:
            form.decode(topic, payload, NOW)
        rounds.append(time.process_time() - began)
    return min(rounds) / len(payloads) * 1e6


def together(payloads: list[bytes]) -> float:
    """CPU microseconds a message of nothing but numbers, as the gateway reads it: many at a time."""
    rounds = []
    for _ in range(3):
        began = time.process_time()
        read = plain(payloads)
        rounds.append(time.process_time() - began)
        assert None not in read
    return min(rounds) / len(payloads) * 1e6


def test_bench_formats(report: Report) -> None:
    rows: list[dict[str, Any]] = []
    for name, (topic, what, payload) in FORMATS.items():
        report.say(f"format {name}")
        form = find(name)(Declared("ts" if name == "json" else None))
        if name == "sparkplug":
            form.decode("spBv1.0/town/NBIRTH/edge", sparkplug_birth(), NOW)
        payloads = [payload(number) for number in range(report.scaled(MESSAGES * 10, MESSAGES))]
        (sample,) = form.decode(topic, payloads[0], NOW).samples
        assert len(sample.values) >= (10 if name == "hj212" else 5), sample
        assert not sample.problems
        micros = cost(form, topic, payloads)
        if name == "json":
            rows.append(
                {
                    "format": "json, in batches",
                    "a message of": what,
                    "bytes": len(payloads[0]),
                    "µs": together(payloads),
                }
            )
        rows.append({"format": name, "a message of": what, "bytes": len(payloads[0]), "µs": micros})
    report.table("formats", "Formats: CPU a message", rows)
