"""What a site holds of its own gateway: five lines for a recorded day, and a few more for what matters most."""

import pytest

from gateway.testing import Broker, Gateway, Golden, Replay, Store, assert_flags, assert_ledger, assert_stored


@pytest.mark.recording("recordings/flood.csv")
def test_a_day_is_judged_as_it_always_was(replayed: Replay, golden: Golden) -> None:
    golden(replayed)


@pytest.mark.recording("recordings/flood.csv", speed=200_000)
def test_it_is_judged_the_same_at_another_speed(replayed: Replay, golden: Golden) -> None:
    golden(replayed, "test_a_day_is_judged_as_it_always_was")


@pytest.mark.recording("recordings/flood.csv")
def test_a_flood_is_an_event_and_no_fault(replayed: Replay) -> None:
    assert_flags(replayed.points(sensor="weir", quantity="level"), good=140)
    assert {event.severity for event in replayed.events() if event.sensor == "weir"} == {"yellow"}
    assert_ledger(replayed.ledger, received=572, quarantined=1, dead=0)
    assert_stored(
        replayed.points(sensor="bridge", quantity="level", flag="fail"), [("2026-03-01T05:00:00+08:00", 25.0, "fail")]
    )


def test_the_suppliers_gauges_are_read_in_their_own_words(broker: Broker, gateway: Gateway, store: Store) -> None:
    broker.publish("harbour/gauge/quay-3", {"t": 1772323200, "wl": 215, "tw": 8.4})
    broker.publish("harbour/gauge/quay-3", "no JSON")
    assert_ledger(gateway.settle(), received=3, delivered=2, dead=1)
    assert_stored(store.points(quantity="level"), [("2026-03-01T00:00:00Z", 2.15, "good")])
    assert [letter.topic for letter in gateway.dead_letters()] == ["harbour/gauge/quay-3"]


@pytest.mark.recording("recordings/gauges.cgrec")
def test_a_recording_of_the_broker_is_read_byte_for_byte(replayed: Replay) -> None:
    assert_ledger(replayed.ledger, received=479, delivered=478, dead=1)
    assert [letter.payload for letter in replayed.dead_letters()] == [b'{"t":1772326200,"']
    assert_flags(replayed.points(), good=478)
    assert replayed.points(sensor="quay-1", quantity="level")[0].value == pytest.approx(1.8, abs=0.02)
