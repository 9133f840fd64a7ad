"""The closed loop of `citygate demo`, followed through the page by somebody who touches nothing."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from sensors.town import SITES, Town
from tests.browser.test_demo import PORTS, SCREENSHOTS, command

STUCK = "noise:taihu-village:noise-02"
DRIFTING = "soil:longgang:soil-03"


class Demo:
    """A running demo, and pages of it."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self.url = browser, url
        self.complaints: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(answer)
            return found

    def page(self, place: str, width: int, height: int) -> Page:
        page = self._browser.new_page(viewport=ViewportSize(width=width, height=height), locale="en-GB")
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.goto(f"{self.url}/{place}")
        return page


@pytest.fixture
def demo(browser: Browser, free_port: Callable[[], int], tmp_path: Path) -> Iterator[Demo]:
    ports = [free_port() for _ in PORTS]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command(ports, "--data", str(tmp_path / "data")), stdout=said)
        try:
            deadline = time.monotonic() + 90
            while b"Open http" not in (tmp_path / "said").read_bytes():
                assert process.poll() is None
                assert time.monotonic() < deadline, "the demo has not started"
                time.sleep(0.2)
            yield Demo(browser, f"http://127.0.0.1:{ports[0]}")
        finally:
            process.terminate()
            process.wait(timeout=60)


def seconds(time_of: str) -> float:
    return datetime.fromisoformat(time_of).timestamp()


def within(direction: float, start: float, end: float) -> bool:
    return (direction - start) % 360 <= (end - start) % 360


def stage(page: Page, state: str, timeout_s: float) -> None:
    expect(page.get_by_test_id("case-state")).to_have_attribute("data-state", state, timeout=timeout_s * 1000)


@pytest.mark.slow
def test_smoke_and_a_stuck_sensor_go_from_reading_to_closed_case(demo: Demo) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    wall = demo.page("", 1920, 1080)
    sensor = demo.page(f"#/sensors/{STUCK}", 1366, 768)

    # one alert for all sensors that the smoke reaches, at once, with the sector from which it came
    smoke = wall.locator('[data-testid="alert-row"][data-cause="air"]')
    expect(smoke).to_be_visible(timeout=120_000)
    seen = time.time()
    (alert,) = [item for item in demo.get("/api/v1/alerts")["alerts"] if item["cause"] == "air"]
    assert seen - seconds(alert["since"]) < 60
    expect(smoke.get_by_test_id("upwind")).to_contain_text("upwind")
    expect(smoke.get_by_test_id("sources")).to_contain_text("km")
    (sector,) = demo.get(f"/api/v1/alerts/{alert['id']}")["wind"][:1]
    site = next(site for site in SITES if site.name == sector["site"])
    truth = Town(1).weather(site, seconds(alert["since"])).wind_direction
    assert within(truth, sector["start"], sector["end"])

    # its case is opened and dispatched by rule, on the wall, on the map and in the alert's row
    link = smoke.get_by_test_id("alert-case")
    expect(link).to_be_visible(timeout=90_000)
    (case,) = [item for item in demo.get("/api/v1/incidents")["incidents"] if alert["id"] in item["alerts"]]
    assert (case["source"], case["kind"], case["department"]) == ("event", "air", "environment")
    expect(wall.get_by_test_id("map-case").first).to_be_visible()
    wall.screenshot(path=SCREENSHOTS / "demo-loop-wall.png")
    phone = demo.page(f"#/cases/{case['id']}", 390, 844)
    stage(phone, "handling", 60)
    expect(phone.get_by_test_id("history")).to_contain_text("Environment")
    expect(phone.get_by_test_id("step")).to_have_count(0)  # nobody has signed in: to look at

    # the stuck sensor is a case for maintenance, and no pollution
    expect(sensor.get_by_test_id("maintenance")).to_be_visible(timeout=120_000)
    expect(sensor.get_by_test_id("sensor-cases").locator("a")).to_have_count(1)
    sensor.screenshot(path=SCREENSHOTS / "demo-loop-sensor.png")
    (repair,) = [item for item in demo.get("/api/v1/incidents")["incidents"] if item["sensor"] == STUCK]
    assert (repair["source"], repair["state"], repair["department"]) == ("fault", "dispatched", "maintenance")
    events = [event for item in demo.get("/api/v1/alerts")["alerts"] for event in item["events"]]
    assert STUCK not in {event["sensor_id"] for event in events}
    desk = demo.page(f"#/cases/{repair['id']}", 1366, 768)
    stage(desk, "dispatched", 30)

    # both are over when their causes are; nothing is loaded again, the pages are told
    stage(desk, "closed", 180)
    expect(sensor.get_by_test_id("maintenance")).to_have_count(0)
    assert demo.get(f"/api/v1/incidents/{repair['id']}")["by_itself"]
    stage(phone, "closed", 240)
    phone.screenshot(path=SCREENSHOTS / "demo-loop-phone.png")
    steps = [(step["who"], step["action"]) for step in demo.get(f"/api/v1/incidents/{case['id']}")["steps"]]
    view, crew = "citygate", "demo-crew"
    assert [step for step in steps if step[1] != "graver"] == [
        *((view, "open"), (view, "file"), (view, "dispatch")),
        *((crew, "accept"), (crew, "handled"), (view, "confirm")),
    ]
    expect(smoke).to_have_attribute("data-state", "ended")
    expect(link).to_have_attribute("data-state", "closed")
    expect(wall.locator('[data-stage="closed"]')).not_to_have_attribute("data-count", "0")

    # what a drifting probe raised before it was known to be ill is withdrawn
    soil = wall.locator('[data-testid="alert-row"][data-cause="soil.moisture"]')
    expect(soil.get_by_test_id("withdrawn")).to_be_visible(timeout=120_000)
    assert DRIFTING in {item["sensor"] for item in demo.get("/api/v1/incidents")["incidents"]}
    wall.screenshot(path=SCREENSHOTS / "demo-loop-over.png")
    assert demo.complaints == []
