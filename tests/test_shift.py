import pytest

from gateway.config import GatewayConfig
from gateway.shift import Shift
from sensors.stream import Message

HOUR = 3600 * 10**9


@pytest.fixture
def shift() -> Shift:
    return Shift(
        GatewayConfig.model_validate(
            {
                "gateway": {"id": "gw"},
                "source": [
                    {},
                    {"name": "at", "topic": "at/{sensor}", "time": "at", "kind": "air", "site": "s"},
                    {"name": "senml", "topic": "senml/#", "format": "senml", "kind": "air", "site": "s"},
                ],
                "output": [{"url": "http://127.0.0.1:1"}],
            }
        )
    )


@pytest.mark.parametrize(
    ("payload", "moved"),
    [
        (b'{"ts":1700000000000,"pm25":1.50}', b'{"ts":1700003600000,"pm25":1.50}'),
        (b'{"pm25": 1e1, "ts" : 1700000000 }', b'{"pm25": 1e1, "ts" : 1700003600 }'),
        (b'{"ts":1700000000.25}', b'{"ts":1700003600.25}'),
        (b'{"ts":1700000000000000000}', b'{"ts":1700003600000000000}'),
        (b'{"ts":"1700000000"}', b'{"ts":"1700003600"}'),
        (b'{"ts":"2026-03-01T23:30:00Z"}', b'{"ts":"2026-03-02T00:30:00.000Z"}'),
        (b'{"ts":"2026-03-01T23:30:00.5+08:00"}', b'{"ts":"2026-03-02T00:30:00.500+08:00"}'),
    ],
)
def test_nothing_but_the_time_changes(shift: Shift, payload: bytes, moved: bytes) -> None:
    assert shift(Message("city/a/air/b", payload), HOUR) == moved
    assert (shift.moved, shift.kept) == (1, 0)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("city/a/air/b", b'{"at":1700000000000}'),
        ("city/a/air/b", b'{"ts":1,"x":{"ts":2}}'),
        ("city/a/air/b", b'{"ts":"yesterday"}'),
        ("city/a/air/b", b'{"ts":"2026-03-01T23:30:00"}'),
        ("city/a/air/b", b'{"ts":1e999}'),
        ("city/a/air/b", b'{"ts":null}'),
        ("city/a/air/b", b"\xff\x00"),
        ("senml/x", b'[{"n":"a","t":1700000000,"v":1}]'),
        ("foreign", b'{"ts":1700000000000}'),
    ],
)
def test_what_is_not_known_to_be_a_time_stays_and_is_counted(shift: Shift, topic: str, payload: bytes) -> None:
    assert shift(Message(topic, payload), HOUR) == payload
    assert (shift.moved, shift.kept) == (0, 1)


def test_the_key_is_that_of_the_source(shift: Shift) -> None:
    assert shift(Message("at/x", b'{"at":1700000000,"ts":5}'), -HOUR) == b'{"at":1699996400,"ts":5}'
