"""What is personal is taken out before any step can write it."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import LimitsConfig, SourceConfig
from gateway.edge.batch import Boot, Entry, RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from gateway.edge.redact import LEAST, Redactor, is_withheld, scrubbed
from sensors import kinds
from sensors.kinds import Kind, KindError

NOW = 1_790_000_000_000 - 1_790_000_000_000 % 900_000
PLATE, MAC, RANDOM_MAC = "京A12345", "A4:83:E7:00:11:22", "DA:A1:19:00:11:22"
GATE = "city/east/passage/gate1"
QUARTER = 900_000


class Way:
    """Redact, decode, inspect and encode behind one another, as in the agent."""

    def __init__(self, *sources: SourceConfig, known: Mapping[str, Kind] | None = None, limit: int = 2**18) -> None:
        self.channels = Channels()
        self.boot_seconds = 0.0
        of_site = {**kinds.builtin(), **(known or {})}
        limits = LimitsConfig(payload=limit)
        self.decoder = Decoder(sources or (SourceConfig(),), of_site, "gw", self.channels, limits)
        self.redactor = Redactor(self.decoder.sources, of_site, lambda: self.boot_seconds)
        self.filter = Filter(self.channels)

    def take(self, batch: RawBatch) -> Entry:
        self.redactor.redact(batch)
        readings = self.decoder.decode(batch)
        entry = encode(readings, self.filter.judge(readings), self.channels, "gw")
        self.redactor.note(readings.sightings, batch.received[-1], entry)
        self.decoder.remember(entry.keys)
        return entry

    def send(self, *payloads: object, topic: str = GATE, now: int = NOW, boot: Boot | None = None) -> Entry:
        raw = [p if isinstance(p, bytes) else json.dumps(p, ensure_ascii=False).encode() for p in payloads]
        return self.take(RawBatch([topic] * len(raw), raw, [now] * len(raw), boot=boot))


def kind(tmp_path: Path, personal: str, name: str = "walk") -> dict[str, Kind]:
    text = f'title = {{ zh = "x", en = "x", ko = "x" }}\ninterval = "60s"\n{personal}\n[quantities.speed]\n'
    (tmp_path / f"{name}.toml").write_text(text + 'title = { zh = "x", en = "x", ko = "x" }\nunit = "km/h"\n', "utf-8")
    return kinds.read_folder(tmp_path)


def shown(entry: Entry) -> str:
    return repr(entry)


def balanced(entry: Entry) -> bool:
    return all(c["received"] == sum(n for fate, n in c.items() if fate != "received") for c in entry.counts.values())


@pytest.mark.parametrize(
    "payload",
    [
        {"ts": NOW, "speed": 40, "plate": PLATE},
        {"ts": NOW, "speed": 40, "vehicle": {"licensePlate": PLATE, "colour": "blue"}},
        {"ts": NOW, "speed": "fast", "Plate_No": PLATE},
        {"ts": "never", "plate": PLATE},
        {"plate": PLATE},
        {"ts": NOW, "speed": 40, "seen": [{"n": "plate", "vs": PLATE}]},
        {"esp8266id": "1", "sensordatavalues": [{"value_type": "plate", "value": PLATE}]},
        f'{{"ts":{NOW},"plate":"{PLATE}","spe'.encode(),
        f'{{"ts":{NOW},"plate":"{PLATE}"}}'.encode("utf-16"),
        b"\xff\xfeplate " + PLATE.encode(),
        f'"plate={PLATE}"'.encode(),
        f'{{"ts":{NOW},"speed":40,"\\u0070late":"{PLATE}"}}'.encode(),
        json.dumps({"ts": NOW, "speed": 40, "车牌号": PLATE}).encode(),
    ],
)
@pytest.mark.parametrize(
    "topic", [GATE, "city/east/traffic/t1", "city/east/camera/c1", "elsewhere/x", "city/east/air/a b"]
)
def test_a_plate_reaches_neither_points_nor_dead_letters_nor_reasons(payload: object, topic: str) -> None:
    entry = Way().send(payload, topic=topic)
    assert PLATE not in shown(entry)
    assert all(PLATE.encode() not in letter.payload for letter in entry.dead)
    assert all(PLATE.encode("utf-16-le") not in letter.payload for letter in entry.dead)
    assert balanced(entry)


def test_readings_beside_a_plate_are_stored_as_ever() -> None:
    entry = Way().send({"ts": NOW, "speed": 40, "plate": PLATE})
    assert entry.lines == b"passage,gateway=gw,sensor=gate1,site=east speed=40.0,speed_qc=1i %d" % NOW
    assert not entry.dead


def test_a_payload_of_a_kind_that_declares_personal_fields_is_not_kept_when_it_cannot_be_read() -> None:
    entry = Way().send(f"@@{PLATE}@@".encode())
    (letter,) = entry.dead
    assert letter.payload == b"(withheld: personal data, 13 bytes)"
    assert letter.reason.startswith("not valid JSON")
    assert is_withheld(letter.payload)


def test_a_source_can_declare_all_its_payloads_personal() -> None:
    source = SourceConfig(topic="cam/{sensor}", kind="traffic", site="east", personal=True)
    (letter,) = Way(source).send(f"@@{PLATE}@@".encode(), topic="cam/c1").dead
    assert is_withheld(letter.payload)


def test_a_payload_without_anything_personal_is_kept_byte_for_byte() -> None:
    payload = b'{"ts": "never",  "machine": "x", "template": 1}'
    (letter,) = Way().send(payload, topic="city/east/air/a1").dead
    assert letter.payload == payload


def test_the_rest_of_a_payload_is_kept_where_only_the_field_is_personal() -> None:
    (letter,) = Way().send({"ts": NOW, "flow": "many", "plate": PLATE}, topic="city/east/traffic/t1").dead
    assert json.loads(letter.payload) == {"ts": NOW, "flow": "many"}
    assert letter.reason == "flow: expected a number, not 'many'"


def test_an_oversized_payload_is_cut_off_and_withheld() -> None:
    long = f'{{"plate":"{PLATE}",' + " " * 4000
    (letter,) = Way(limit=1024).send(long.encode()).dead
    assert is_withheld(letter.payload)


def test_what_waits_for_the_clock_waits_without_plates() -> None:
    entry = Way().send({"speed": 40, "plate": PLATE}, boot=Boot("b", 0, 0), now=5000)
    (held,) = entry.held
    assert json.loads(held.payload) == {"speed": 40}


def test_a_field_that_the_source_itself_uses_is_left_to_it() -> None:
    source = SourceConfig(rename={"imei": "speed"})
    entry = Way(source).send({"ts": NOW, "imei": 42}, topic="city/east/traffic/t1")
    assert b"speed=42.0" in entry.lines


def test_personal_numbers_are_no_quantities() -> None:
    entry = Way().send({"ts": NOW, "flow": 40, "phone": 13_800_138_000}, topic="city/east/traffic/t1")
    assert b"13800138000" not in entry.lines
    assert entry.counts["city"] == {"received": 1, "queued": 1, "quarantined": 0, "dead": 0, "duplicate": 0}


def test_no_free_text_waits_for_the_clock_where_personal_data_is_declared() -> None:
    said = {"speed": "40", "who": PLATE, "all": [PLATE, 3], "in": {"it": PLATE}, "wind_dir": "NE"}
    (held,) = Way().send(said, boot=Boot("b", 0, 0), now=5000).held
    assert json.loads(held.payload) == {"speed": "40", "all": [3], "in": {}, "wind_dir": "NE"}
    pack = [{"bn": "gate/", "n": "speed", "u": "km/h", "v": 40}, {"n": "who", "vs": PLATE}]
    senml = SourceConfig(topic="#", format="senml", kind="passage", site="east")
    (held,) = Way(senml).send(pack, boot=Boot("b", 0, 0), now=5000).held
    assert json.loads(held.payload) == [pack[0], {"n": "who"}]


def test_what_was_taken_out_is_told_apart_and_not_told() -> None:
    way = Way()
    entry = way.send({"ts": NOW, "plate": PLATE}, {"ts": NOW, "plate": "京A54321"}, {"ts": NOW, "plate": PLATE})
    assert len(set(entry.keys)) == 2, "the third is the first, sent again"
    assert not set(Way().send({"ts": NOW, "plate": PLATE}).keys) & set(entry.keys), "no key can be checked for a plate"


def test_counts_are_told_after_a_quarter_of_an_hour_and_never_below_five() -> None:
    way = Way()
    for i in range(6):
        way.send({"ts": NOW + i, "plate": f"京A1234{i}"}, {"ts": NOW + 500 + i, "plate": f"京·A1234{i}"}, now=NOW + i)
        way.send({"ts": NOW + i, "plate": f"京A1234{i % (LEAST - 1)}"}, topic="city/east/passage/quiet", now=NOW + i)
    assert way.redactor.tend(NOW + QUARTER) is None, "late ones may come for a minute"
    entry = way.redactor.tend(NOW + QUARTER + 60_000)
    assert entry is not None
    assert entry.lines.decode() == (
        "passage,gateway=gw,sensor=gate1,site=east plate_count=6.0,plate_count_qc=1i,plate_total=12.0,"
        f"plate_total_qc=1i {NOW + QUARTER}"
    )
    assert entry.counts == {"city": {"received": 2, "queued": 2}}
    assert way.redactor.tend(NOW + 3 * QUARTER) is None


def test_a_bin_that_has_been_told_is_not_told_again() -> None:
    way = Way()
    for i in range(5):
        way.send({"ts": NOW + i, "plate": f"京A1234{i}"}, now=NOW)
    assert way.redactor.tend(NOW + 2 * QUARTER)
    way.send(*({"ts": NOW + i, "plate": f"沪A1234{i}"} for i in range(5)), now=NOW + 2 * QUARTER)
    assert way.redactor.tend(NOW + 5 * QUARTER) is None
    assert way.redactor.uncounted == 5


def test_made_up_mac_addresses_are_not_counted() -> None:
    way = Way()
    macs = [f"A4:83:E7:00:11:2{i}" for i in range(5)]
    way.send({"ts": NOW, "mac": [*macs, RANDOM_MAC, "DAA119001123", "a483e7001120"]})
    entry = way.redactor.tend(NOW + 2 * QUARTER)
    assert entry is not None
    assert b"mac_count=5.0," in entry.lines
    assert b"mac_total=6.0," in entry.lines


def test_a_pseudonym_holds_for_its_period_and_then_never_again(tmp_path: Path) -> None:
    way = Way(known=kind(tmp_path, '[personal.plate]\ntreat = "pseudonym"\nperiod = "1h"\n'))

    def pseudonym(plate: str, moment: int) -> str:
        lines = way.send({"ts": NOW + moment, "speed": 4, "plate": plate}, topic="city/e/walk/w").lines.decode()
        (line,) = [line for line in lines.splitlines() if "plate" in line]
        start, _, text = line.partition('plate="')
        assert start == "walk,gateway=gw,sensor=w,site=e "
        return text.split('"')[0]

    first = pseudonym(PLATE, 1)
    assert len(first) == 16
    assert pseudonym(PLATE.lower(), 2) == first
    assert pseudonym("沪B1", 3) != first
    way.boot_seconds = 3600.0
    assert way.redactor.tend(NOW) is None
    assert pseudonym(PLATE, 4) != first


def test_a_pseudonym_is_a_reading_on_the_ledger(tmp_path: Path) -> None:
    way = Way(known=kind(tmp_path, '[personal.plate]\ntreat = "pseudonym"\n'))
    entry = way.send({"ts": NOW, "speed": 4, "plate": PLATE}, {"ts": NOW + 1, "plate": PLATE}, topic="city/e/walk/w")
    assert entry.counts["city"]["received"] == entry.counts["city"]["queued"] == 3
    assert not entry.dead


def test_positions_are_coarsened(tmp_path: Path) -> None:
    text = "".join(f'[personal.{name}]\ntreat = "coarsen"\ngrid = 0.01\n' for name in ("lat", "lon", "position"))
    way = Way(known=kind(tmp_path, text))
    entry = way.send(
        {"ts": NOW, "lat": 39.908_231, "lon": "116.397_47".replace("_", ""), "position": [1.23456]},
        {"ts": NOW + 1, "lat": 39.911_231, "lon": None},
        topic="city/e/walk/w",
    )
    lines = entry.lines.decode()
    assert "lat=39.91,lat_qc=2i,lon=116.4,lon_qc=2i" in lines
    assert "39.91123" not in lines
    assert "1.234" not in shown(entry)


def test_a_recording_gets_pseudonyms_of_what_is_counted_and_leaves_out_what_cannot_be_read() -> None:
    redactor = Way().redactor
    once = redactor.recorded(GATE, json.dumps({"ts": NOW, "plate": PLATE, "speed": 4}).encode())
    again = redactor.recorded(GATE, json.dumps({"ts": NOW, "plate": PLATE, "speed": 4}).encode())
    assert once is not None
    assert once == again
    assert PLATE not in json.dumps(json.loads(once), ensure_ascii=False)
    assert json.loads(once).keys() == {"ts", "plate", "speed"}
    assert redactor.recorded(GATE, f"@@{PLATE}".encode()) is None
    assert redactor.recorded("city/e/air/a", b'{"ts": 1,  "pm25": 2}') == b'{"ts": 1,  "pm25": 2}'


@pytest.mark.parametrize(
    "reason",
    [
        f"plate: expected a number, not '{PLATE}'",
        f"byte 7: {PLATE} is no number",
        f"cannot be processed: ValueError('could not convert string to float: \"{PLATE}\"')",
    ],
)
def test_reasons_do_not_quote_a_sealed_payload(reason: str) -> None:
    clean = scrubbed(reason, f"plate={PLATE};speed=3".encode(), {"speed"})
    assert PLATE not in clean
    assert clean.split()[0] == reason.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    ("personal", "complaint"),
    [
        ('[personal.mac]\ntreat = "keep"', "personal.mac.treat"),
        ('[personal.mac]\ntreat = "count"\nbin = "5m"', "personal.mac.bin"),
        ('[personal.mac]\ntreat = "count"\nbin = "7h"', "a part of a day"),
        ('[personal.mac]\ntreat = "pseudonym"\nperiod = "25h"', "personal.mac.period"),
        ('[personal.lat]\ntreat = "coarsen"', "'grid' belong together"),
        ('[personal."no plate"]\ntreat = "count"', "no name for a stored field"),
    ],
)
def test_a_declaration_that_protects_too_little_is_refused(tmp_path: Path, personal: str, complaint: str) -> None:
    with pytest.raises(KindError, match=complaint):
        kind(tmp_path, personal)
