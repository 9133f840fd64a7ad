"""The embedded broker, as the plugin starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import embedded_broker
from gateway.testing import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.stop()


def test_it_answers_by_both_versions_however_often_it_is_asked(broker: Broker) -> None:
    for _ in range(20):
        broker.process.wait_for(broker.answers, "does not answer", 10)


def test_nobody_answers_where_it_does_not_listen(broker: Broker) -> None:
    port = broker.port
    broker.stop()
    assert not embedded_broker.answers(port, v5=False)


def test_a_message_is_delivered_once_for_each_filter_that_fits(broker: Broker) -> None:
    broker.publish("city/east/air/a1", {"pm25": 1})
    before = dict(broker.topics)
    broker.publish("city/east/air/a1", b"2")
    broker.publish("city/east", "3")
    broker.publish("town/east/air/a1", "4")
    assert broker.deliveries(["city/+/+/+"], {}) == 2
    assert broker.deliveries(["city/+/+/+"], before) == 1
    assert broker.deliveries(["city/+/+/+", "city/#"], before) == 3
    assert broker.deliveries(["city/east/#", "city/east/#"], before) == 2
    assert broker.deliveries(["+/east/#"], before) == 3
