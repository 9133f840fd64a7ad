"""What assertions say, and what the store makes of what a gateway writes."""

import gzip
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from gateway.testing import Ledger, Store, Stored, assert_flags, assert_ledger, assert_stored

START = 1_790_000_000_000


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


def write(store: Store, *lines: str, path: str = "/api/v2/write?precision=ms") -> int:
    request = urllib.request.Request(store.url + path, gzip.compress("\n".join(lines).encode()), method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def reading(minute: int, value: float | None = 1.0, flag: str = "good", reason: str = "") -> Stored:
    return Stored("air", "east", "a1", "pm25", START + 60_000 * minute, value, flag, reason)


def test_a_failed_value_is_with_the_others_under_its_flag(store: Store) -> None:
    tags = "gateway=gw,sensor=a1,site=east"
    assert write(store, f"air,{tags} pm25=12.5,pm25_qc=1i,pm10=3.0,pm10_qc=3i,pm10_reason=48i {START}") == 204
    write(store, f"air,{tags} pm25_qc=4i {START + 1}")
    write(
        store,
        f'quarantine,gateway=gw,kind=air,quantity=pm25,sensor=a1,site=east value=-7.0,flag=4i,reason="gross_range" '
        f"{START + 1}",
    )
    assert store.points(quantity="pm25") == [
        Stored("air", "east", "a1", "pm25", START, 12.5, "good"),
        Stored("air", "east", "a1", "pm25", START + 1, -7.0, "fail", "gross_range"),
    ]
    (doubtful,) = store.points(flag="suspect")
    assert (doubtful.quantity, doubtful.reason) == ("pm10", "suspect_range+rate_of_change")
    assert store.quarantine(sensor="a1") == store.points(quantity="pm25", flag="fail")
    assert store.points(sensor="a2") == store.points(kind="water") == store.points(site="west") == []


def test_a_point_that_is_written_again_is_one_point(store: Store) -> None:
    for value in (1, 2):
        write(store, f"air,sensor=a1 pm25={value},pm25_qc=1i {START}")
    assert [point.value for point in store.points()] == [2.0]


def test_the_store_refuses_as_influxdb_does(store: Store) -> None:
    assert write(store, f"air,sensor=a1 pm25= {START}", f"air,sensor=a1 pm25=1 {START}") == 400
    assert write(store, "air pm25=1", path="/query") == 404
    assert len(store.points()) == 1, "a bad line costs only itself"


def test_events_and_verdicts_are_apart_from_readings(store: Store) -> None:
    write(
        store,
        f'event,gateway=gw,kind=air,sensor=a1,severity=red,site=east id="x",quantity="pm25",value=300.0,limit=250.0,'
        f'message="beyond" {START}',
        f'verdict,gateway=gw,kind=air,quantity=pm25,sensor=a1,site=east,what=stuck id="x",since={START}i,'
        f'until={START + 1}i,confidence=0.9,reason="flat+near" {START + 2}',
    )
    (event,), (verdict,) = store.events(), store.verdicts()
    assert (event.site, event.quantity, event.severity, event.value, event.limit) == ("east", "pm25", "red", 300, 250)
    assert (verdict.sensor, verdict.since, verdict.until, verdict.what) == ("a1", START, START + 1, "stuck")
    assert store.points() == []


def test_readings_are_compared_to_twelve_digits_and_by_reason_where_one_is_given() -> None:
    points = [reading(0, 0.1 + 0.2), reading(1, 9.0, "fail", "gross_range"), reading(2, None, "missing")]
    assert_stored(
        points, [("2026-09-21T14:13:20Z", 0.3, "good"), (START + 60_000, 9, "fail"), (START + 120_000, None, "missing")]
    )
    with pytest.raises(AssertionError) as caught:
        assert_stored(points[1:2], [("2026-09-21T22:14:20+08:00", 9, "fail", "flat_line")])
    assert "-2026-09-21T14:14:20Z  9  fail  flat_line" in str(caught.value)
    assert "+2026-09-21T14:14:20Z  9  fail  gross_range" in str(caught.value)


def test_a_missing_reading_is_one_line_of_difference() -> None:
    points = [reading(minute, minute) for minute in range(5) if minute != 2]
    with pytest.raises(AssertionError) as caught:
        assert_stored(points, [(START + 60_000 * minute, minute, "good") for minute in range(5)])
    changed = [line for line in str(caught.value).splitlines() if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
    assert changed == ["-2026-09-21T14:15:20Z  2  good"]


def test_readings_of_several_channels_are_not_compared() -> None:
    other = reading(0)._replace(sensor="a2")
    with pytest.raises(AssertionError, match="readings of 2 channels \\(east/air/a1 pm25, east/air/a2 pm25\\)"):
        assert_stored([reading(0), other], [])


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="has no offset"):
        assert_stored([reading(0)], [("2026-09-21T14:13:20", 1, "good")])


def test_flags_are_counted_and_the_odd_ones_shown() -> None:
    points = [reading(minute, 1.0, "suspect" if minute % 2 else "good", "spike") for minute in range(16)]
    assert_flags(points, good=8, suspect=8)
    with pytest.raises(AssertionError) as caught:
        assert_flags(points, good=8, fail=1)
    text = str(caught.value)
    assert "fail: 0, expected 1" in text
    assert "suspect: 8, expected 0" in text
    assert "east/air/a1 pm25  2026-09-21T14:14:20Z  1  suspect  spike" in text
    assert "… 3 more" in text
    assert "good" not in text


def test_a_ledger_adds_up_and_has_what_is_expected() -> None:
    counts = {"received": 5, "delivered": 4, "queued": 0, "quarantined": 1, "dead": 0, "duplicate": 0, "evicted": 0}
    assert_ledger(Ledger({"city": counts}), received=5, quarantined=1)
    with pytest.raises(AssertionError, match="dead: 0, expected 2"):
        assert_ledger(Ledger({"city": counts}), dead=2)
    with pytest.raises(AssertionError, match="source 'city': 6 received, but 5 have a fate"):
        assert_ledger(Ledger({"city": {**counts, "received": 6}}))
    with pytest.raises(KeyError, match="no fate 'lost'"):
        assert_ledger(Ledger({"city": counts}), lost=0)
