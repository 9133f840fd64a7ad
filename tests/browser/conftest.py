"""A real city server on a free port, fed through its write endpoint, and Debian's Chromium to look at it."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.town import TOKEN, City, history, registry, sources

PAGE = Path(__file__).parents[2] / "gateway" / "city" / "web" / "dist" / "index.html"


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[City]:
    """Starts `citygate city` with an embedded store and the town's readings."""
    with served(tmp_path_factory.mktemp("city"), free_port()) as city:
        yield city


@contextlib.contextmanager
def served(folder: Path, port: int, more: str = "") -> Iterator[City]:
    """Runs `citygate city` on an empty folder, with more settings, and writes the town's readings."""
    if not PAGE.is_file():
        pytest.fail(f"{PAGE} is not there: installing the project builds it (pip install -e .)")
    (folder / "sensors.geojson").write_text(json.dumps(registry()), encoding="utf-8")
    (folder / "sources.geojson").write_text(json.dumps(sources()), encoding="utf-8")
    (folder / "city.toml").write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n[access]\nwrite_token = "{TOKEN}"\n'
        '[store]\ntype = "embedded"\npath = "city.db"\n'
        '[map]\nsensors = "sensors.geojson"\nsources = "sources.geojson"\ncenter = [119.2, 30.15]\nzoom = 10\n'
        'title = { zh = "临安", en = "Lin\'an", ko = "린안" }\n' + more,
        encoding="utf-8",
    )
    log = folder / "city.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "gateway", "city", "-c", str(folder / "city.toml")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    city = City(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 30
        while not answers(city.url):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(
                    f"citygate city did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}"
                )
            time.sleep(0.1)
        city.write(history(time.time_ns() // 1_000_000))
        yield city
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str) -> bool:
    """Tells whether the server is up."""
    with contextlib.suppress(urllib.error.URLError, OSError):
        return bool(urllib.request.urlopen(f"{url}/api/health", timeout=1).status == 200)  # noqa: S310 - our own server
    return False


@pytest.fixture(scope="module")  # while it lasts, Playwright's event loop runs in this thread and no other can
def browser(program: Callable[[str, str], str]) -> Iterator[Browser]:
    """Starts Chromium with WebGL in software, and nothing that looks for the network."""
    chromium = program("chromium", "chromium")
    expect.set_options(
        timeout=30_000
    )  # WebGL in software is slow on a busy machine; a wait ends when its condition holds
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*flags, *quiet])
        yield browser
        browser.close()
