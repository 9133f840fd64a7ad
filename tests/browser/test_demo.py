"""`citygate demo`, as its user runs it: one command, then the town on the page."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

SCREENSHOTS = Path(__file__).parent / "screenshots"
PORTS = ("--port", "--mqtt-port", "--mqtt5-port", "--health-port")


def command(ports: list[int], *options: str) -> list[str]:
    chosen = [text for pair in zip(PORTS, map(str, ports), strict=True) for text in pair]
    return [sys.executable, "-m", "gateway", "demo", *chosen, *options]


def fresh_sensors(url: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/sensors", timeout=5) as answer:  # noqa: S310 - loopback
            sensors: list[dict[str, Any]] = json.load(answer)["sensors"]
    except OSError:
        return []
    return [sensor for sensor in sensors if sensor["age_s"] < 30]


@pytest.mark.slow
def test_the_demo_shows_a_living_town_and_leaves_nothing_behind(
    browser: Browser, free_port: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    ports = [free_port() for _ in PORTS]
    url = f"http://127.0.0.1:{ports[0]}"
    demo = subprocess.Popen(command(ports, "--duration", "90"), stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(found := fresh_sensors(url)) < 60:
            assert demo.poll() is None
            assert time.monotonic() < deadline, f"{len(found)} sensors after a minute"
            time.sleep(0.2)
        assert len({sensor["site"] for sensor in found}) >= 6
        assert all(sensor["lat"] and sensor["lon"] for sensor in found)
        SCREENSHOTS.mkdir(exist_ok=True)
        for name, width, height in (("demo-wall", 1920, 1080), ("demo-phone", 390, 844)):
            page = browser.new_page(viewport=ViewportSize(width=width, height=height), locale="en-GB")
            page.goto(url)
            expect(page.get_by_test_id("live-count")).to_have_attribute("data-live", re.compile(r"^[67]\d$"))
            if name == "demo-phone":
                page.get_by_test_id("tab-map").click()
            expect(page.get_by_test_id("map")).to_have_attribute("data-drawn", re.compile(r"^[67]\d$"))
            page.screenshot(path=SCREENSHOTS / f"{name}.png")
            page.close()
        said, _ = demo.communicate(timeout=120)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 0
    assert url in said
    assert "delivered" in said
    assert list(tmp_path.iterdir()) == []
    assert fresh_sensors(url) == []


@pytest.mark.parametrize("option", PORTS)
def test_a_port_in_use_is_said_before_anything_starts(
    option: str, free_port: Callable[[], int], tmp_path: Path
) -> None:
    ports = [free_port() for _ in PORTS]
    with socket.create_server(("127.0.0.1", ports[PORTS.index(option)])):
        folder = tmp_path / "data"
        done = subprocess.run(
            command(ports, "--data", str(folder)), capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 1
    assert f"port {ports[PORTS.index(option)]}" in done.stderr
    assert option in done.stderr
    assert not folder.exists()


def test_a_folder_with_something_in_it_is_left_alone(free_port: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x", "ascii")
    ports = [free_port() for _ in PORTS]
    done = subprocess.run(
        command(ports, "--data", str(tmp_path)), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert (tmp_path / "mine").read_text("ascii") == "x"
