"""Who looks at the city view in ``bench_city``, for locust: pages that listen to the stream, and operators that click.

The environment says who they are: CITY_COOKIE, and CITY_SENSORS (ids of sensors that operators look at, by commas).
"""

import os
import random
import time
from urllib.parse import quote

from locust import FastHttpUser, between, events, task

_COOKIE = {"Cookie": os.environ["CITY_COOKIE"], "Accept-Encoding": "gzip"}
_SENSORS = os.environ["CITY_SENSORS"].split(",")
_DAY_S = 86_400


class Page(FastHttpUser):
    """An open page: it reads the stream and counts its messages."""

    fixed_count = int(os.environ["CITY_PAGES"])
    connection_timeout = network_timeout = 60.0

    @task
    def listen(self) -> None:
        """Reads until the server ends the stream."""
        with self.client.get(
            "/api/v1/stream", headers=_COOKIE, stream=True, catch_response=True, name="stream"
        ) as answer:
            before = b""
            for chunk in answer.iter_content(16_384, decode_content=False):
                text = before + chunk
                for name in (b"event: sensors", b"event: grades"):
                    for _ in range(text.count(name)):
                        events.request.fire(  # type: ignore[no-untyped-call]
                            request_type="SSE",
                            name=name.decode(),
                            response_time=0,
                            response_length=0,
                            exception=None,
                            context={},
                        )
                before = text[-len(b"event: sensors") + 1 :]


class Operator(FastHttpUser):
    """An operator: overview, map, a sensor with its history, events, cases, and at times a client of SensorThings."""

    wait_time = between(1, 3)
    connection_timeout = network_timeout = 60.0

    def _get(self, name: str, path: str) -> None:
        self.client.get(path, headers=_COOKIE, name=name)

    @task(4)
    def overview(self) -> None:
        """The wall."""
        self._get("overview", "/api/v1/overview")

    @task(3)
    def sensors(self) -> None:
        """The list."""
        self._get("sensors", "/api/v1/sensors")

    @task(3)
    def features(self) -> None:
        """The map."""
        self._get("sensors.geojson", "/api/v1/sensors.geojson")

    @task(4)
    def sensor(self) -> None:
        """One sensor, and its history at the detail that the page draws."""
        sensor, _, quantity = random.choice(_SENSORS).rpartition(":")  # noqa: S311 - no secret
        path = f"/api/v1/sensors/{quote(sensor)}"
        self._get("sensors/{id}", path)
        days, step = random.choice(((1 / 24, None), (1, 120), (7, 900), (30, 3600)))  # noqa: S311
        start = int((time.time() - days * _DAY_S) * 1000)
        more = "" if step is None else f"&step={step}"
        name = f"series, {'1 hour raw' if step is None else f'{days} d by {step} s'}"
        self._get(name, f"{path}/series?quantity={quantity}&start={start}{more}")

    @task(1)
    def depth(self) -> None:
        """A sensor's page in full: all of 30 days, how whole they are, a day as a file, the town of yesterday."""
        sensor, _, quantity = random.choice(_SENSORS).rpartition(":")  # noqa: S311 - no secret
        path, now = f"/api/v1/sensors/{quote(sensor)}", int(time.time() * 1000)
        day, month = now - _DAY_S * 1000, now - 30 * _DAY_S * 1000
        self._get("series, 30 d without a step", f"{path}/series?quantity={quantity}&start={month}")
        self._get("wholeness, 30 d", f"{path}/wholeness?start={month}")
        self._get("readings.csv, 1 d", f"{path}/readings.csv?quantity={quantity}&start={day}")
        self._get("past", f"/api/v1/past?at={day}")

    @task(2)
    def events(self) -> None:
        """What happens."""
        self._get("events", "/api/v1/events")
        self._get("alerts", "/api/v1/alerts")

    @task(1)
    def fleet(self) -> None:
        """The gateways."""
        self._get("gateways", "/api/v1/gateways")

    @task(1)
    def cases(self) -> None:
        """The cases."""
        self._get("incidents", "/api/v1/incidents")
        self._get("incident-figures", "/api/v1/incident-figures")

    @task(1)
    def things(self) -> None:
        """A client of SensorThings."""
        stream = quote(random.choice(_SENSORS))  # noqa: S311 - no secret
        self._get("sta Things", "/sta/v1.1/Things?$top=100")
        self._get("sta Observations", f"/sta/v1.1/Datastreams('{stream}')/Observations?$top=100")
        self._get("sta Datastreams, $filter", "/sta/v1.1/Datastreams?$filter=properties/kind%20eq%20'air'")
