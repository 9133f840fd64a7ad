"""From raw messages to line protocol: decode, inspect, encode."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gateway.config import ClockConfig, DiscoverConfig, LimitsConfig, SourceConfig
from gateway.edge.batch import Boot, Entry, RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.filter import Filter
from gateway.edge.readings import Channels
from gateway.edge.reasons import Reason
from sensors import kinds

NOW = 1_790_000_000_000  # ms, the gateway's clock in these tests
MINUTE, DAY = 60_000, 86_400_000
A1 = "city/east/air/a1"

Payload = bytes | Mapping[str, object]
Message = tuple[str, Payload]


class Way:
    """Decode, inspect and encode behind one another, as in the agent."""

    def __init__(
        self,
        *sources: SourceConfig | DiscoverConfig,
        limits: LimitsConfig | None = None,
        clock: ClockConfig | None = None,
        known: Mapping[str, kinds.Kind] | None = None,
    ) -> None:
        self.channels = Channels()
        self.decoder = Decoder(
            sources or (SourceConfig(),),
            known or kinds.builtin(),
            "gw",
            self.channels,
            limits or LimitsConfig(),
            clock or ClockConfig(),
        )
        self.filter = Filter(self.channels)

    def take(self, batch: RawBatch) -> Entry:
        """A batch that is committed."""
        readings = self.decoder.decode(batch)
        entry = encode(readings, self.filter.judge(readings), self.channels, "gw")
        self.decoder.remember(entry.keys)
        return entry

    def send(self, messages: Sequence[Message], now: int = NOW) -> Entry:
        return self.take(raw(messages, now))

    def lines(self, *payloads: Payload, topic: str = "city/east/air/a1") -> list[str]:
        return self.send([(topic, payload) for payload in payloads]).lines.decode().splitlines()

    def flags(self, quantity: str, values: Sequence[float], step: int, topic: str = "city/east/air/a1") -> list[int]:
        start = NOW - step * len(values)
        lines = self.lines(*({"ts": start + i * step, quantity: v} for i, v in enumerate(values)), topic=topic)
        return [int(line.split(f"{quantity}_qc=")[1][0]) for line in lines]


def raw(messages: Sequence[Message], now: int = NOW) -> RawBatch:
    payloads = [payload if isinstance(payload, bytes) else json.dumps(payload).encode() for _, payload in messages]
    return RawBatch([topic for topic, _ in messages], payloads, [now] * len(messages))


def total(entry: Entry) -> dict[str, int]:
    sums: dict[str, int] = {}
    for counts in entry.counts.values():
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count
    return sums


def test_a_good_message_becomes_one_point() -> None:
    assert Way().lines({"ts": NOW, "pm25": 12.3, "no2": 40}) == [
        f"air,gateway=gw,sensor=a1,site=east pm25=12.3,pm25_qc=1i,no2=40.0,no2_qc=1i {NOW}"
    ]


@pytest.mark.parametrize(
    "ts",
    [
        NOW,
        NOW // 1000,
        NOW * 1000,
        NOW * 1_000_000,
        NOW / 1000,
        str(NOW),
        "2026-09-21T22:13:20+08:00",
        "2026-09-21T14:13:20.000Z",
    ],
)
def test_times_are_understood_in_every_usual_form(ts: object) -> None:
    (line,) = Way().lines({"ts": ts, "pm25": 1.0})
    assert line.endswith(f" {NOW}")


def test_a_written_time_is_what_it_says_in_any_year() -> None:
    for text, ms in (("1970-01-01T00:20:00Z", 1_200_000), ("2262-01-01T00:00:00.125Z", 9_214_646_400_125)):
        (line,) = Way().lines({"ts": text, "pm25": 1})
        assert line.endswith(f" {ms}")


def test_a_failed_value_goes_to_quarantine_and_only_its_flag_to_the_main_measurement() -> None:
    entry = Way().send([(A1, {"ts": NOW, "pm25": 5000, "pm10": 40})])
    assert entry.quarantine.decode() == (
        "quarantine,gateway=gw,kind=air,quantity=pm25,sensor=a1,site=east "
        f'value=5000.0,flag=4i,reason="gross_range+suspect_range" {NOW}'
    )
    assert entry.lines.decode() == f"air,gateway=gw,sensor=a1,site=east pm25_qc=4i,pm10=40.0,pm10_qc=1i {NOW}"


def test_a_suspect_value_passes_with_its_flag() -> None:
    (line,) = Way().lines({"ts": NOW, "temperature": 50})
    assert "temperature=50.0,temperature_qc=3i" in line


def test_a_value_that_the_sensor_lacks_is_flagged_missing() -> None:
    (line,) = Way().lines({"ts": NOW, "pm25": None, "pm10": 4})
    assert line == f"air,gateway=gw,sensor=a1,site=east pm25_qc=9i,pm10=4.0,pm10_qc=1i {NOW}"


def test_a_quantity_that_the_kind_does_not_know_passes_unevaluated() -> None:
    (line,) = Way().lines({"ts": NOW, "radon": 7})
    assert "radon=7.0,radon_qc=2i" in line


def test_values_may_be_text_and_wind_a_point_of_the_compass() -> None:
    (line,) = Way().lines({"ts": NOW, "pm25": "12.5", "wind_direction": "NNW"})
    assert "pm25=12.5," in line
    assert "wind_direction=337.5,wind_direction_qc=1i" in line


def test_a_message_without_time_gets_its_arrival_and_is_suspect() -> None:
    (line,) = Way().lines({"pm25": 1})
    assert line.endswith(f"pm25_qc=3i,pm25_reason={Reason.NO_TIME:d}i {NOW}"), "why it is suspect is stored with it"
    (line,) = Way(SourceConfig(time=None)).lines({"pm25": 1})
    assert line.endswith(f"pm25_qc=1i {NOW}")


def test_a_time_far_ahead_is_suspect_and_kept() -> None:
    way = Way()
    (line,) = way.lines({"ts": NOW + 3 * 86_400_000, "pm25": 1})
    assert "pm25=1.0,pm25_qc=3i" in line
    (line,) = way.lines({"ts": NOW, "pm25": 1})
    assert "pm25_qc=1i" in line, "a sensor's clock gone ahead must not spoil what follows"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\xfe", "not valid JSON"),
        (b'{"ts": 1', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "expected a JSON object, not list"),
        (b"{}", "no quantity"),
        (b'{"ts": "yesterday", "pm25": 1}', "ts: expected a time"),
        (b'{"ts": "2026-01-01T00:00:00", "pm25": 1}', "no offset from UTC"),
        (b'{"ts": -5, "pm25": 1}', "outside 1970"),
        (b'{"ts": 1e999, "pm25": 1}', "outside 1970"),
        (b'{"ts": 1%b, "pm25": 1}' % (b"0" * 400), "outside 1970"),
        (b'{"ts": NaN, "pm25": 1}', "ts: expected a time"),
        (b'{"ts": "nan", "pm25": 1}', "ts: expected a time"),
        (b'{"ts": true, "pm25": 1}', "ts: expected a time"),
        (b'{"ts": "0001-01-01T00:00:00+14:00", "pm25": 1}', "outside 1970"),
        (b'{"ts": "9999-12-31T23:59:59-14:00", "pm25": 1}', "outside 1970"),
        (b'{"ts": 1790000000000, "\\ud800": 1}', "is no name for a quantity"),
        (b'{"ts": 1790000000000, "\\ud800": "x"}', "\\ud800: expected a number"),
        (b'{"ts": 1790000000000, "pm25": %b1%b}' % (b"[" * 900, b"]" * 900), "expected a number, not a list"),
        (b'{"ts": 1790000000000, "pm25": []}', "pm25: expected a number, not a list"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_with_its_bytes(payload: bytes, reason: str) -> None:
    entry = Way().send([("city/east/air/a1", payload), ("city/east/air/a1", {"ts": NOW, "pm25": 1})])
    assert [(letter.payload, letter.topic) for letter in entry.dead] == [(payload, "city/east/air/a1")]
    assert reason in entry.dead[0].reason
    assert entry.lines.decode().count("\n") == 0, "the good message beside it is stored"
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 1, "duplicate": 0}


@pytest.mark.parametrize("bad", [b"1e999", b"NaN", b'"x"', b"{}", b"[]", b"1" + b"0" * 400])
def test_a_bad_field_does_not_take_the_others_along(bad: bytes) -> None:
    entry = Way().send([("city/east/air/a1", b'{"ts": %d, "pm25": %s, "pm10": 4}' % (NOW, bad))])
    assert entry.lines.decode() == f"air,gateway=gw,sensor=a1,site=east pm10=4.0,pm10_qc=1i {NOW}"
    assert "pm25: expected a number" in entry.dead[0].reason
    assert total(entry)["received"] == 2


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("city/east/airr/a1", "unknown kind 'airr'; did you mean 'air'?"),
        ("elsewhere", "no declared source"),
        ("city/east/air/a b,c=d", "the sensor 'a b,c=d' may hold"),
    ],
)
def test_a_topic_that_does_not_fit_is_a_dead_letter_that_says_what_to_do(topic: str, reason: str) -> None:
    entry = Way().send([(topic, {"ts": NOW, "pm25": 1})])
    assert reason in entry.dead[0].reason
    assert total(entry)["dead"] == 1


def test_a_redelivered_message_counts_as_a_duplicate() -> None:
    way = Way()
    message: tuple[str, Mapping[str, object]] = ("city/east/air/a1", {"ts": NOW, "pm25": 1, "pm10": 2})
    assert total(way.send([message]))["queued"] == 2
    entry = way.send([message])
    assert entry.lines == b""
    assert total(entry) == {"received": 2, "queued": 0, "quarantined": 0, "dead": 0, "duplicate": 2}


def test_equal_messages_without_time_are_readings_of_their_own() -> None:
    way = Way(SourceConfig(time=None))
    assert total(way.send([("city/east/air/a1", {"pm25": 1})] * 2))["duplicate"] == 0


def test_sources_rename_and_convert() -> None:
    source = SourceConfig(rename={"PM_25": "pm25", "t": "temperature"}, units={"temperature": "degF", "co": "µg/m³"})
    (line,) = Way(source).lines({"ts": NOW, "PM_25": 3, "t": 50, "co": 500})
    assert line == (
        f"air,gateway=gw,sensor=a1,site=east pm25=3.0,pm25_qc=1i,temperature=10.0,"
        f"temperature_qc=1i,co=0.5,co_qc=1i {NOW}"
    )


def test_two_sources_of_one_sensor_keep_their_units_and_their_ledger() -> None:
    feet = SourceConfig(name="feet", topic="feet/{sensor}", kind="water", site="r", units={"level": "ft"})
    metres = SourceConfig(name="metres", topic="m/{sensor}", kind="water", site="r")
    entry = Way(feet, metres).send([("feet/w", {"ts": NOW, "level": 1}), ("m/w", {"ts": NOW + 1, "level": 1})])
    assert [line.split("level=")[1].split(",")[0] for line in entry.lines.decode().splitlines()] == ["0.3048", "1.0"]
    assert {source: counts["queued"] for source, counts in entry.counts.items()} == {"feet": 1, "metres": 1}


def test_a_source_may_name_kind_and_site_itself() -> None:
    source = SourceConfig(topic="farm/{sensor}/up", kind="soil", site="paddy")
    (line,) = Way(source).lines({"ts": NOW, "moisture": 30}, topic="farm/s7/up")
    assert line.startswith("soil,gateway=gw,sensor=s7,site=paddy ")


def test_gross_and_suspect_range() -> None:
    assert Way().flags("temperature", [20, 44, 61, -16, -41], 60 * MINUTE) == [1, 3, 4, 3, 4]


def test_rate_of_change_over_single_readings_in_a_batch_and_across_batches() -> None:
    way = Way()
    assert way.flags("temperature", [20, 21, 28, 28.5], MINUTE) == [1, 1, 3, 1]
    (line,) = way.lines({"ts": NOW, "temperature": 40})
    assert "temperature_qc=3i" in line


def test_a_direction_turns_through_north_without_a_jump() -> None:
    assert Way().flags("wind_direction", [359, 1, 358, 2], MINUTE) == [1, 1, 1, 1]


def test_a_flat_line_is_suspect_after_its_time_and_good_again_when_it_moves() -> None:
    flags = Way().flags("temperature", [20.0] * 8 + [20.5], 60 * MINUTE)
    assert flags == [1, 1, 1, 1, 1, 1, 3, 3, 1]


def test_calm_wind_is_not_a_flat_line() -> None:
    assert set(Way().flags("wind_speed", [0.0] * 12, 60 * MINUTE)) == {1}


def test_a_late_reading_is_judged_by_range_only_and_spoils_nothing() -> None:
    way = Way()
    way.lines({"ts": NOW - MINUTE, "temperature": 20})
    (late,) = way.lines({"ts": NOW - 60 * MINUTE, "temperature": -10})
    assert "temperature_qc=1i" in late
    (after,) = way.lines({"ts": NOW, "temperature": 20.1})
    assert "temperature_qc=1i" in after


def test_another_value_for_the_same_time_is_quarantined_and_the_first_stays_as_it_is() -> None:
    way = Way()
    way.lines({"ts": NOW, "temperature": 20})
    entry = way.send([(A1, {"ts": NOW, "temperature": 21, "humidity": 50})])
    assert "quantity=temperature" in entry.quarantine.decode()
    assert 'value=21.0,flag=4i,reason="duplicate_time"' in entry.quarantine.decode()
    assert entry.lines.decode() == f"air,gateway=gw,sensor=a1,site=east humidity=50.0,humidity_qc=1i {NOW}"
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 1, "dead": 0, "duplicate": 0}


def test_the_same_reading_in_other_bytes_is_a_duplicate() -> None:
    way = Way()
    way.send([(A1, b'{"ts": %d, "temperature": 20}' % NOW)])
    entry = way.send([(A1, b'{"ts": %d, "temperature": 20.0, "humidity": 50}' % NOW)])
    assert entry.lines.decode() == f"air,gateway=gw,sensor=a1,site=east humidity=50.0,humidity_qc=1i {NOW}"
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 0, "duplicate": 1}
    entry = way.send([(A1, {"ts": NOW, "temperature": None, "humidity": 50})])
    assert (entry.lines, entry.quarantine) == (b"", b""), "not even a flag: the first one's would be overwritten"


def test_the_first_of_many_readings_of_one_time_is_the_one_that_counts() -> None:
    entry = Way().send([(A1, {"ts": NOW, "temperature": value}) for value in (20, 20.0, 21, 22)])
    assert entry.lines.decode().splitlines() == [
        f"air,gateway=gw,sensor=a1,site=east temperature=20.0,temperature_qc=1i {NOW}"
    ]
    assert total(entry) == {"received": 4, "queued": 1, "quarantined": 2, "dead": 0, "duplicate": 1}


def test_many_values_of_one_channel_in_a_batch_are_judged_in_their_order() -> None:
    values = [20 + 0.1 * (i % 7) for i in range(500)]
    values[250] = 70
    flags = Way().flags("temperature", values, MINUTE)
    assert flags[250] == 4
    assert flags.count(1) == 499


def test_an_over_limit_value_is_an_event_and_stays_in_the_main_measurement() -> None:
    way = Way()
    course = [40, 130, 160, 150, 30, 30, 30]
    entry = way.send([(A1, {"ts": NOW - (9 - i) * MINUTE, "pm25": v}) for i, v in enumerate(course)])
    events = entry.events.decode().splitlines()
    assert [line.split("severity=")[1].split(",")[0] for line in events] == ["yellow", "orange", "none"]
    assert len({line.split('id="')[1].split('"')[0] for line in events}) == 1, "one event from its start to its end"
    assert "value=130.0,limit=115.0" in events[0]
    assert "pm25=160.0,pm25_qc=1i" in entry.lines.decode()


def test_a_failed_value_is_no_event() -> None:
    assert Way().send([(A1, {"ts": NOW, "pm25": 5000})]).events == b""


def test_a_hundred_thousand_topics_without_a_source_do_not_stay_in_memory() -> None:
    way = Way()
    for start in range(0, 120_000, 20_000):
        entry = way.send([(f"junk/{i}", b"{}") for i in range(start, start + 20_000)])
        assert total(entry)["dead"] == 20_000
    assert len(way.channels) == 0
    way.send([("junk/0", b"{}")])
    assert len(way.decoder._refused) + len(way.decoder._topics) == 1


def test_ever_other_topics_of_one_sensor_do_not_stay_in_memory() -> None:
    way = Way(SourceConfig(topic="x/{sensor}/#", kind="air", site="s"), limits=LimitsConfig(sensors=1000))
    for start in range(0, 20_000, 4000):
        entry = way.send([(f"x/a1/{i}", {"ts": NOW + i, "pm25": 1}) for i in range(start, start + 4000)])
        assert total(entry)["queued"] == 4000
    assert len(way.decoder._topics) < 3000
    assert way.decoder.sensors == 1


def test_a_message_is_known_only_once_it_is_committed() -> None:
    way = Way()
    batch = raw([(A1, {"ts": NOW, "pm25": 1}), (A1, {"ts": NOW + MINUTE, "pm25": 2})])
    assert not way.decoder.decode(batch).duplicates
    readings = way.decoder.decode(batch)
    assert not readings.duplicates
    way.decoder.remember(readings.keys[:1])
    assert way.decoder.decode(batch).duplicates == {"city": 1}


def test_keys_are_the_same_in_every_process() -> None:
    keys = Way().decoder.decode(raw([(A1, b'{"ts": 1790000000000, "pm25": 1}')])).keys
    assert keys == [11070767278265923123]


def test_a_message_twice_in_a_batch_is_one_reading() -> None:
    message: Message = (A1, {"ts": NOW, "pm25": 1, "pm10": None, "o3": "x"})
    entry = Way().send([message, message])
    assert total(entry) == {"received": 4, "queued": 1, "quarantined": 0, "dead": 1, "duplicate": 2}
    assert len(entry.dead) == 1


def test_a_message_without_time_counts_once_when_the_broker_says_that_it_is_sent_again() -> None:
    way = Way()
    batch = raw([(A1, {"pm25": 1}), (A1, {"pm25": 2})])
    way.take(batch)
    batch.redelivered = {0}
    assert total(way.take(batch)) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 0, "duplicate": 1}


def test_a_first_delivery_is_a_reading_even_if_the_broker_is_not_sure() -> None:
    batch = raw([(A1, {"pm25": 1})])
    batch.redelivered = {0}
    assert total(Way().take(batch))["queued"] == 1


def test_a_retained_message_is_a_reading_only_if_it_says_of_when() -> None:
    batch = raw([(A1, {"pm25": 1}), (A1, {"ts": NOW - DAY, "pm25": 2})])
    batch.retained = {0, 1}
    entry = Way().take(batch)
    assert entry.lines.decode().endswith(f"pm25=2.0,pm25_qc=1i {NOW - DAY}")
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 0, "duplicate": 1}


def test_messages_without_time_in_one_millisecond_are_points_of_their_own() -> None:
    way = Way(SourceConfig(time=None))
    lines = way.send([(A1, {"pm25": value}) for value in (1, 2, 2)]).lines.decode().splitlines()
    lines += way.send([(A1, {"pm25": 3})]).lines.decode().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(NOW + more) for more in range(4)]
    assert "pm25=3.0,pm25_qc=1i" in lines[-1]
    (line,) = way.send([(A1, {"pm25": 3})], NOW - DAY).lines.decode().splitlines()
    assert line.endswith(str(NOW - DAY)), "the clock was set back"


BOOT = Boot("b-1", offset=NOW - 5000, floor=NOW - DAY)


def test_without_a_clock_what_has_no_time_is_held_and_what_has_one_is_believed() -> None:
    way = Way()
    batch = raw([(A1, {"pm25": 1, "pm10": None}), (A1, {"ts": NOW + 9 * DAY, "pm25": 2}), (A1, b"junk"), (A1, b"{}")])
    batch.boot = BOOT
    entry = way.take(batch)
    (held,) = entry.held
    assert (held.topic, held.payload, held.readings) == (A1, b'{"pm25": 1, "pm10": null}', 1)
    assert (held.boot, held.moment, held.floor) == ("b-1", 5000, NOW - DAY)
    assert entry.lines.decode() == f"air,gateway=gw,sensor=a1,site=east pm25=2.0,pm25_qc=1i {NOW + 9 * DAY}"
    assert total(entry) == {"received": 4, "queued": 2, "quarantined": 0, "dead": 2, "duplicate": 0}
    batch.redelivered = {0}
    assert total(way.take(batch))["duplicate"] == 2, "a message that is held is known"


def test_a_held_message_is_read_when_its_time_is_known() -> None:
    way = Way()
    batch = raw([(A1, {"pm25": 1})])
    batch.boot = BOOT
    way.take(batch)
    (line,) = way.send([(A1, {"pm25": 1})], NOW - MINUTE).lines.decode().splitlines()
    assert line.endswith(f"pm25=1.0,pm25_qc=3i,pm25_reason={Reason.NO_TIME:d}i {NOW - MINUTE}")


def test_an_estimated_time_of_arrival_is_suspect() -> None:
    way = Way(SourceConfig(time=None))
    batch = raw([(A1, {"pm25": 1})])
    batch.estimated = True
    assert "pm25=1.0,pm25_qc=3i" in way.take(batch).lines.decode()


def test_times_beyond_what_is_believed_are_suspect_kept_and_counted() -> None:
    way = Way(clock=ClockConfig(ahead="1h", earliest="2020-01-01"))
    times = [NOW + 59 * MINUTE, NOW + 61 * MINUTE, 1_577_836_799_000, 1_577_836_800_000, 0]
    entry = way.send([(f"city/east/air/a{place}", {"ts": ts, "pm25": 1}) for place, ts in enumerate(times)])
    assert [line.split("pm25_qc=")[1][0] for line in entry.lines.decode().splitlines()] == ["1", "3", "3", "1", "3"]
    assert (way.decoder.future, way.decoder.past) == (1, 2)


def test_after_an_error_in_the_filter_the_batch_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    way, beside = Way(), Way()
    course = [
        (A1, {"ts": NOW + i * MINUTE, "pm25": v, "temperature": 20}) for i, v in enumerate([40, 130, 130, 50, 50])
    ]
    for each in (way, beside):
        each.send(course)
    readings = way.decoder.decode(raw([(A1, {"ts": NOW + 9 * MINUTE, "pm25": 300, "temperature": 90})]))
    with monkeypatch.context() as broken:
        broken.setattr("gateway.edge.watch.Event", None)
        with pytest.raises(TypeError):
            way.filter.judge(readings)
    way.filter.undo()
    after = [(A1, {"ts": NOW + (6 + i) * MINUTE, "pm25": 50, "temperature": 20 + i}) for i in range(3)]
    assert way.send(after) == beside.send(after)


def test_a_batch_can_be_taken_back() -> None:
    way, beside = Way(), Way()
    course = [
        (A1, {"ts": NOW + i * MINUTE, "pm25": v, "temperature": 20}) for i, v in enumerate([40, 130, 130, 50, 50])
    ]
    for each in (way, beside):
        each.send(course)
    way.filter.judge(way.decoder.decode(raw([(A1, {"ts": NOW + 9 * MINUTE, "pm25": 300, "temperature": 90})])))
    way.filter.undo()
    after = [(A1, {"ts": NOW + (6 + i) * MINUTE, "pm25": 50, "temperature": 20 + i}) for i in range(3)]
    assert way.send(after) == beside.send(after)


def test_a_sensor_with_two_kinds_of_messages_keeps_its_channels_apart() -> None:
    way = Way()
    for minute in range(0, 60, 3):
        now = NOW + minute * MINUTE
        lines = way.lines(
            {"ts": now, "temperature": 20 + minute / 100, "humidity": 50 + minute / 10},
            {"ts": now + MINUTE, "battery": 90, "temperature": 20 + minute / 100},
            {"ts": now + 2 * MINUTE, "humidity": 50, "temperature": 20, "battery": 90, "pm25": minute},
        )
        assert [line.split(" ")[1].count("_qc=1i") for line in lines] == [2, 2, 4]
    assert len(way.channels) == 4


TOLERANT = """
title = { zh = "", en = "", ko = "" }
interval = "60s"
[quantities.level]
title = { zh = "", en = "", ko = "" }
unit = "m"
flat = { suspect = "3m", tolerance = 0.25 }
"""


def test_a_tolerance_is_measured_from_the_last_move(tmp_path: Path) -> None:
    tmp_path.joinpath("level.toml").write_text(TOLERANT, "utf-8")
    values = [1.0, 1.2, 0.8, 1.2, 1.3, 1.3, 1.2, 1.3, 1.1, 1.0]
    flags = []
    way = Way(known=kinds.known(tmp_path))
    for start in range(0, len(values), 4):  # the last move may be in a batch before
        lines = way.lines(
            *({"ts": NOW + i * MINUTE, "level": values[i]} for i in range(start, min(start + 4, len(values)))),
            topic="city/east/level/l1",
        )
        flags += [int(line.split("level_qc=")[1][0]) for line in lines]
    assert flags == [1, 1, 1, 3, 1, 1, 1, 3, 3, 1]


def test_late_readings_within_a_batch_are_told_from_newer_ones() -> None:
    way = Way()
    minutes = [0, 5, 3, 6, 6, 2, 7]
    lines = way.lines(*({"ts": NOW + m * MINUTE, "temperature": 20 + i / 10} for i, m in enumerate(minutes)))
    assert [line.rpartition(" ")[2] for line in lines] == [str(NOW + m * MINUTE) for m in (0, 5, 3, 6, 2, 7)]
    readings = way.decoder.decode(raw([(A1, {"ts": NOW + 8 * MINUTE + i, "temperature": 20}) for i in (3, 1, 2, 4)]))
    way.filter.judge(readings)
    assert [bool(bits & Reason.OUT_OF_ORDER) for bits in readings.reason.tolist()] == [False, True, True, False]
