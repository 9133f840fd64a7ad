"""From raw messages to line protocol: decode, inspect, encode."""

import json
from collections.abc import Mapping, Sequence

import pytest

from gateway.config import ClockConfig, LimitsConfig, SourceConfig
from gateway.edge.batch import Entry, RawBatch
from gateway.edge.decode import Decoder
from gateway.edge.encode import encode
from gateway.edge.inspect import Inspector
from gateway.edge.readings import Channels
from sensors import kinds

NOW = 1_790_000_000_000  # ms, the gateway's clock in these tests
MINUTE, DAY = 60_000, 86_400_000
A1 = "city/east/air/a1"

Payload = bytes | Mapping[str, object]
Message = tuple[str, Payload]


class Way:
    """Decode, inspect and encode behind one another, as in the agent."""

    def __init__(
        self, *sources: SourceConfig, limits: LimitsConfig | None = None, clock: ClockConfig | None = None
    ) -> None:
        self.channels = Channels()
        self.decoder = Decoder(
            sources or (SourceConfig(),),
            kinds.builtin(),
            "gw",
            self.channels,
            limits or LimitsConfig(),
            clock or ClockConfig(),
        )
        self.inspector = Inspector(self.channels)

    def take(self, batch: RawBatch) -> Entry:
        """A batch that is committed."""
        readings = self.decoder.decode(batch)
        events = self.inspector.inspect(readings)
        entry = encode(readings, events, self.channels, "gw")
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
    assert line.endswith(f"pm25_qc=3i {NOW}")
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
        ("city/east/air/a b,c=d", "the sensor 'a b,c=d' in the topic"),
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
        f"air,gateway=gw,sensor=a1,site=east pm25=3.0,pm25_qc=1i,temperature={50 * 0.555555555556 - 17.777777777778!r},"
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
    flags = Way().flags("temperature", [20.0] * 5 + [20.5], 60 * MINUTE)
    assert flags == [1, 1, 1, 3, 3, 1]


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
