"""Events of limits: a spike is none, a step is one."""

from tests.edge.inspecting import MINUTE, NOW, Inspected


def severities(*temperatures: float) -> list[tuple[int, str]]:
    """Minute and severity of what a temperature each minute raises."""
    by = Inspected()
    found = []
    for minute, value in enumerate(temperatures):
        time = NOW + minute * MINUTE
        _, events = by.send([("city/hill/weather/m1", {"ts": time, "temperature": value})], time)
        found += [(minute, event.severity) for event in events]
    return found


def test_two_spikes_in_a_row_are_no_event() -> None:
    assert severities(20, 20, 20, 41, 41, 20, 20, 20, 20) == []


def test_a_step_that_stays_is_an_event_with_its_third_good_value() -> None:
    (event,) = severities(20, 20, 20, 41, 41, 41, 41, 41)
    assert event[0] == 6


def test_a_value_that_gets_there_slowly_is_an_event_at_once() -> None:
    assert severities(33, 34, 35, 36)[0] == (2, "yellow")
