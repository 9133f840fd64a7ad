"""An existing client of SensorThings, frost-sta-client, on the demo."""

import subprocess
import time
from collections.abc import Callable, Iterator

import frost_sta_client
import pytest

from tests.browser.test_demo import PORTS, command, fresh_sensors


@pytest.fixture(scope="module")
def demo(free_port: Callable[[], int]) -> Iterator[str]:
    """The address of a running demo."""
    ports = [free_port() for _ in PORTS]
    url = f"http://127.0.0.1:{ports[0]}"
    process = subprocess.Popen(command(ports, "--duration", "300"), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while len(fresh_sensors(url)) < 70:
            assert process.poll() is None
            assert time.monotonic() < deadline, "the town does not appear"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_frost_sta_client_reads_things_datastreams_and_observations(demo: str) -> None:
    service = frost_sta_client.SensorThingsService(f"{demo}/sta/v1.1")

    things = list(service.things().query().top(25).list())  # three pages, by their next links
    assert len(things) >= 70
    assert len({thing.id for thing in things}) == len(things)
    air = [thing for thing in things if thing.properties["kind"] == "air"]
    assert service.things().find(air[0].id).name == air[0].name

    streams = list(air[0].get_datastreams().query().filter("ObservedProperty/@iot.id eq 'air:pm25'").list())
    assert [stream.unit_of_measurement.symbol for stream in streams] == ["µg/m³"]
    expanded = list(
        service.datastreams().query().filter("properties/kind eq 'noise'").expand("Thing,ObservedProperty").list()
    )
    assert {stream.thing.properties["kind"] for stream in expanded} == {"noise"}
    assert {stream.observed_property.name for stream in expanded} >= {"Equivalent level LAeq"}

    deadline = time.monotonic() + 90  # a sensor reports every ten seconds
    while service.observations().query().filter(f"Datastream/@iot.id eq '{streams[0].id}'").count().list().count < 3:
        assert time.monotonic() < deadline, "no three observations"
        time.sleep(0.5)
    newest = list(streams[0].get_observations().query().orderby("phenomenonTime", "DESC").top(2).list())
    times = [observation.phenomenon_time for observation in newest]
    assert times == sorted(times, reverse=True)
    assert all(isinstance(observation.result, float) for observation in newest)
    assert all(observation.result_quality["qartod"] in {1, 2, 3} for observation in newest)
