"""What no sender gets more of: sensors, quantities, bytes, messages a second."""

import pytest

from gateway.config import LimitsConfig, SourceConfig
from tests.edge.test_way import A1, NOW, Message, Way, raw, total

SECOND = 1000


def reading(sensor: str, at: int) -> Message:
    return f"city/east/air/{sensor}", {"ts": at, "pm25": at // 100 % 17}


def flooded(way: Way, others: int, times: range) -> list[int]:
    """Batches of one sensor with these times, and of others that send once in each: refused messages of each batch."""
    refused = []
    for batch in range(10):
        now = NOW + batch * SECOND
        messages = [reading("flood", now + at) for at in times]
        messages += [reading(f"calm{number}", now) for number in range(others)]
        entry = way.send(messages, now)
        assert all("limits.rate" in letter.reason and letter.topic.endswith("/flood") for letter in entry.dead)
        assert len(entry.dead) <= 1, "one dead letter a batch speaks for all"
        refused.append(total(entry)["dead"])
        assert total(entry)["received"] == len(messages)
    return refused


def test_a_flood_costs_its_sender_alone() -> None:
    refused = flooded(Way(limits=LimitsConfig(rate=50)), 20, range(1000))
    assert refused[0] == 0, "what it is, is known by its times"
    assert refused[1:5] == [1000] * 4
    assert refused[5:] == [750, 1000, 1000, 1000, 1000], "its rate for a window is let through"


def test_a_sensor_that_sends_what_it_kept_for_later_is_no_flood() -> None:
    assert flooded(Way(limits=LimitsConfig(rate=50)), 20, range(0, -1000 * SECOND, -SECOND)) == [0] * 10


def test_among_few_sensors_there_is_no_flood() -> None:
    assert flooded(Way(limits=LimitsConfig(rate=50)), 3, range(1000)) == [0] * 10


def test_when_all_send_much_there_is_no_flood() -> None:
    way = Way(limits=LimitsConfig(rate=1))
    for batch in range(10):
        now = NOW + batch * SECOND
        messages = [reading(f"s{number}", now + at) for at in range(100) for number in range(20)]
        assert total(way.send(messages, now))["dead"] == 0


def test_a_flood_of_what_cannot_be_read_is_limited_too() -> None:
    way = Way(limits=LimitsConfig(rate=50))
    letters = 0
    for batch in range(5):
        now = NOW + batch * SECOND
        messages: list[Message] = [("city/east/air/flood", b"junk")] * 1000
        messages += [reading(f"calm{number}", now) for number in range(20)]
        entry = way.send(messages, now)
        letters += len(entry.dead)
        assert total(entry)["dead"] == 1000
    assert letters == 1000 + 4


def test_a_flood_is_over_when_it_is_over() -> None:
    way = Way(limits=LimitsConfig(rate=50))
    flooded(way, 20, range(1000))
    for window in range(1, 4):
        now = NOW + window * 20 * SECOND
        assert total(way.send([reading("flood", now + at * 20) for at in range(200)], now))["dead"] == 0


def test_a_clock_that_is_set_back_makes_no_flood() -> None:
    way = Way(limits=LimitsConfig(rate=50))
    for batch in range(20):
        now = NOW - batch * 3600 * SECOND
        messages = [reading("busy", now + at) for at in range(200)] + [reading(f"s{n}", now) for n in range(20)]
        assert total(way.send(messages, now))["dead"] == 0


def test_further_sensors_than_the_limit_are_dead_letters_and_the_known_ones_go_on() -> None:
    way = Way(limits=LimitsConfig(sensors=100))
    way.send([reading("first", NOW)])
    for start in range(0, 50_000, 10_000):
        way.send([reading(f"x{number}", NOW) for number in range(start, start + 10_000)])
    assert way.decoder.sensors == 100
    assert way.decoder.refused_sensors == 50_000 - 99
    entry = way.send([reading("first", NOW + 1), reading("another", NOW)])
    assert total(entry)["queued"] == 1
    assert [letter.reason for letter in entry.dead] == ["there are limits.sensors = 100 sensors already"]


def test_further_quantities_than_the_limit_are_dead_letters_and_the_known_ones_go_on() -> None:
    way = Way(limits=LimitsConfig(quantities=3))
    for number in range(1000):
        entry = way.send([(A1, {"ts": NOW + number, "pm25": 1, f"a{number}": 1, f"b{number}": 1})])
        assert total(entry)["received"] == 3
        assert total(entry)["dead"] == (2 if number else 0)
        assert entry.lines.decode().count("pm25=1.0") == 1
    assert "limits.quantities = 3" in entry.dead[0].reason
    assert len(way.channels) == 3


def test_ever_other_sets_of_quantities_do_not_fill_the_memory() -> None:
    way = Way()
    for start in range(1, 25_000, 5000):
        sets = [
            [f"q{place}" for place in range(14, -1, -1) if number >> place & 1] for number in range(start, start + 5000)
        ]
        entry = way.send([(A1, {"ts": NOW + start + i, **dict.fromkeys(names, i)}) for i, names in enumerate(sets)])
        assert total(entry)["dead"] == 0
        fields = ",".join(f"{name}=4999.0,{name}_qc=2i" for name in sets[-1])
        assert entry.lines.decode().endswith(f" {fields} {NOW + start + 4999}")
    assert len(way.channels) == 15
    assert len(way.decoder._firsts) + len(way.decoder._scattered) < 15_000


def test_a_payload_over_the_limit_is_cut_off_in_its_dead_letter() -> None:
    way = Way(limits=LimitsConfig(payload=1000))
    entry = way.send([(A1, b'{"ts": %d, "pm25": 1%b}' % (NOW, b" " * 1000)), (A1, {"ts": NOW, "pm25": 1})])
    (letter,) = entry.dead
    assert len(letter.payload) == 1000
    assert "limits.payload = 1000" in letter.reason
    assert total(entry) == {"received": 2, "queued": 1, "quarantined": 0, "dead": 1, "duplicate": 0}


@pytest.mark.parametrize(("sender", "dead"), [("a1", 0), ("a2", 1), (None, 1)])
def test_a_topic_belongs_to_the_sender_that_the_broker_names(sender: str | None, dead: int) -> None:
    way = Way(SourceConfig(sender="client"), SourceConfig(name="other", topic="free/{site}/{kind}/{sensor}"))
    batch = raw([("free/east/air/a1", {"ts": NOW, "pm25": 1}), (A1, {"ts": NOW, "pm25": 1})])
    batch.senders = {} if sender is None else {1: sender}
    entry = way.take(batch)
    assert total(entry)["dead"] == len(entry.dead) == dead
    assert total(entry)["queued"] == 2 - dead
    if sender == "a2":
        assert "names the sender 'a2'" in entry.dead[0].reason
