import asyncio

import mqtt5
import pytest

from gateway.config import MqttConfig
from gateway.edge.batch import Entry, RawBatch
from gateway.edge.ingest import Link, Mqtt5Ingest
from gateway.edge.recorded import ARRIVAL, RecordedTime, arrival, merged
from tests.edge.test_way import Way
from tests.fuzz.targets import CONNACK, _Wire

MINUTE = 60_000


def test_an_arrival_is_told_in_nanoseconds_and_anything_else_is_none() -> None:
    assert arrival("1767225600123999999") == 1_767_225_600_123
    for text in ("", "-1", "1e9", "1767225600.5", "١٢٣", "9" * 20, "9223372036855000000", " 1"):
        assert arrival(text) is None, text


def test_a_stream_passes_every_full_minute_once_while_it_is_the_present() -> None:
    time = RecordedTime()
    moments = (90_000, 100_000, 4 * MINUTE, 3 * MINUTE, 4 * MINUTE + 1, 6 * MINUTE - 1)
    passed = [[(minute, time.now()) for minute in time.reach(moment)] for moment in moments]
    two, three, four, five = (n * MINUTE for n in (2, 3, 4, 5))
    assert passed == [[], [], [(two, two), (three, three), (four, four)], [], [], [(five, five)]]
    assert (time.began, time.now()) == (90_000, 6 * MINUTE - 1)


def test_a_gap_of_years_costs_a_week_of_minutes() -> None:
    time = RecordedTime()
    assert list(time.reach(0)) == []
    assert len(list(time.reach(10 * 365 * 1440 * MINUTE))) <= 7 * 1440 + 1
    assert time.now() == 10 * 365 * 1440 * MINUTE


def test_entries_become_one_that_holds_the_same() -> None:
    messages = [("city/a/air/b", b'{"ts":%d,"pm25":%d}' % (1_767_225_600_000 + n * 1000, n)) for n in range(5)]
    one = Way().send([*messages, ("nobody/asked", b"")])
    way = Way()
    many = merged([Entry(), *(way.send([message]) for message in [*messages, ("nobody/asked", b"")])])
    assert many.lines == one.lines
    assert sorted(many.keys) == sorted(one.keys)
    assert [letter.reason for letter in many.dead] == [letter.reason for letter in one.dead]
    assert {name: {fate: count for fate, count in counts.items() if count} for name, counts in many.counts.items()} == {
        name: {fate: count for fate, count in counts.items() if count} for name, counts in one.counts.items()
    }


def test_a_batch_falls_into_its_messages_with_all_that_is_known_of_them() -> None:
    batch = RawBatch(["a", "b", "c"], [b"1", b"2", b"3"], [1, 2, 3], retained={1}, senders={2: "s"}, told={0, 2})
    singles = list(batch.singles())
    assert [(one.topics, one.payloads, one.received) for one in singles] == [
        (["a"], [b"1"], [1]),
        (["b"], [b"2"], [2]),
        (["c"], [b"3"], [3]),
    ]
    assert [one.told for one in singles] == [{0}, set(), {0}]
    assert [(one.retained, one.senders) for one in singles] == [(set(), {}), ({0}, {}), (set(), {0: "s"})]
    assert list(RawBatch().singles()) == []


@pytest.mark.parametrize("believed", [False, True])
async def test_a_publisher_says_when_a_message_arrived_only_where_that_is_wanted(*, believed: bool) -> None:
    config = MqttConfig(client_id="gw", recorded_time=believed)
    ingest = Mqtt5Ingest(config, ["city/#"], now=lambda: 7)
    link = Link(ingest, asyncio.get_running_loop())
    link.connection_made(_Wire())
    link.data_received(CONNACK)
    told = [[(ARRIVAL, "5000000")], [("other", "1")], [(ARRIVAL, "soon")], []]
    for number, properties in enumerate(told, 1):
        packet = mqtt5.PublishPacket(
            "city/a", b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number, user_properties=properties
        )
        link.data_received(packet.write())
    batch = ingest._filling
    assert batch.received == [5 if believed else 7, 7, 7, 7]
    assert batch.told == ({0} if believed else set())
    link.connection_lost(None)
    await ingest.stop()


def test_recorded_time_needs_properties() -> None:
    with pytest.raises(ValueError, match="recorded_time needs protocol"):
        MqttConfig(recorded_time=True, protocol="3.1.1")
