"""What holds for every page alike: for a screen reader, a keyboard, three sizes, two themes and three languages."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import served
from tests.browser.town import CHARTED, City, reading, sensors
from tests.browser.visit import SIZES, Visit, opened, photograph

AXE = Path(__file__).parents[2] / "gateway" / "city" / "web" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = {
    "wall": ("/#/", "[data-testid=sensor-row]"),
    "environment": ("/#/environment", "[data-testid=table-water] td"),
    "traffic": ("/#/traffic", "[data-testid=table-parking] td"),
    "emergency": ("/#/emergency", "[data-testid=table-weather] td"),
    "administration": ("/#/administration", "[data-testid=measures]"),
    "sensors": ("/#/sensors", "[data-testid=sensor-row]"),
    "past": ("/#/past", "[data-testid=then-fresh]"),
    "cases": ("/#/cases", "[data-testid=figures]"),
    "month": ("/#/month", "[data-testid=month-sensors]"),
    "settings": ("/#/settings", "[data-testid=settings] button"),
    "gateways": ("/#/gateways", "[data-gateway]"),
    "sensor": (f"/#/sensors/{':'.join(CHARTED)}", "[data-testid=page-quarantined]"),
    "report": ("/#/report", "form"),
}
"""Each page: its address, and what is there once it has loaded."""
TEXTS = """() => [...document.querySelectorAll('body *')].flatMap(element => {
    if (!element.checkVisibility({ visibilityProperty: true })) return []
    const own = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.textContent)
    return [...own, ...['aria-label', 'title', 'placeholder', 'alt'].map(name => element.getAttribute(name) ?? '')]
}).map(text => text.trim()).filter(Boolean)"""
"""Every text that a person sees or hears on the page."""
NAMES = re.compile(r"https?:\S+|citygate|English|OpenStreetMap|MapLibre|\b[a-z]+-\d+\b|\bgw-\S+|LAeq|LAmax")
"""What is called the same in every language: names, ids."""
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
FOCUSED = """() => {
    const element = document.activeElement
    if (!element || element === document.body) return null
    const { outlineStyle, outlineWidth } = getComputedStyle(element)
    const box = element.getBoundingClientRect()
    const marked = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2
    const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth
    return { html: element.outerHTML.slice(0, 160), marked, seen, test: element.dataset.testid ?? '' }
}"""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[City]:
    """Starts a city that takes reports from the public, and has an hour or two of yesterday."""
    with served(tmp_path_factory.mktemp("city"), free_port(), "[cases]\nwatch = true\npublic = true\n") as city:
        day, now = 86_400_000, time.time_ns() // 1_000_000
        roads = [place for place in sensors() if place[0] == "traffic"]
        city.write([reading(*road, now - day + late, speed=40.0) for road in roads for late in (0, day // 24)])
        yield city


def go(page: Page, city: City, name: str) -> None:
    """Goes to a page as by a link, and waits until it has loaded."""
    address, loaded = PAGES[name]
    page.goto(city.url + address)
    expect(page.locator(loaded).first).to_be_attached()


def findings(page: Page) -> list[str]:
    """Returns what axe finds serious or critical, and where."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]


@pytest.fixture(scope="module", params=["dark", "light"])
def visit(browser: Browser, city: City, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens the page once for a theme; the tests go from page to page as people do."""
    with opened(browser, city, "wall", theme=request.param) as visit:
        yield visit


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_at_every_size(
    visit: Visit, city: City, request: pytest.FixtureRequest, name: str
) -> None:
    """By axe's rules; nothing stands beyond the screen. A screenshot of each is kept."""
    go(visit.page, city, name)
    for size, (width, height) in SIZES.items():
        visit.page.set_viewport_size(ViewportSize(width=width, height=height))
        visit.page.wait_for_function(DRAWN)
        photograph(visit, f"every-{name}-{size}-{request.node.callspec.params['visit']}", size)
        found = findings(visit.page)
        assert not found, found


@pytest.mark.parametrize("visit", ["dark"], indirect=True)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_speaks_the_chosen_language_alone(visit: Visit, city: City, name: str) -> None:
    """No text, label or hint keeps its English."""
    visit.page.set_viewport_size(ViewportSize(width=1366, height=768))
    go(visit.page, city, name)
    for language in ("zh", "ko"):
        visit.page.locator(f"button[lang={language}]").first.click()
        texts = [NAMES.sub("", text) for text in visit.page.evaluate(TEXTS)]
        foreign = [text for text in texts if re.search("[A-Za-z]{4,}", text)]
        assert not foreign, foreign
        photograph(visit, f"every-{name}-{language}", "desk")
    visit.page.locator("button[lang=en]").first.click()


@pytest.mark.parametrize("visit", ["dark"], indirect=True)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_walked_by_the_keyboard_alone(visit: Visit, city: City, name: str) -> None:
    """A link skips the header; Tab shows where it is, and is caught nowhere."""
    visit.page.set_viewport_size(ViewportSize(width=1366, height=768))
    go(visit.page, city, name)
    if name != "report":
        visit.page.locator(".skip").press("Enter")
        assert visit.page.evaluate("document.activeElement.id") == "content"
    visit.page.evaluate("document.activeElement?.blur()")
    unseen, stops = [], 0
    while True:
        visit.page.keyboard.press("Tab")
        at = visit.page.evaluate(FOCUSED)
        if at is None:
            break
        stops += 1
        assert stops < 400, "Tab never leaves the page"
        if not at["marked"] or not at["seen"]:
            unseen.append(at["html"])
    assert not unseen, unseen


def test_a_splice_wall_unfolds_the_charts_beside_the_map(visit: Visit, city: City) -> None:
    """The map has the middle third; environment and traffic are as on their pages."""
    visit.page.set_viewport_size(ViewportSize(width=3840, height=1080))
    go(visit.page, city, "wall")
    expect(visit.page.get_by_test_id("environment-page").get_by_test_id("lines").first).to_be_visible()
    expect(visit.page.get_by_test_id("traffic-page").get_by_test_id("table-parking")).to_be_visible()
    drawn = visit.page.get_by_test_id("map")
    expect(drawn).to_have_attribute("data-drawn", "63")
    box = drawn.bounding_box()
    assert box is not None
    assert 1270 < box["x"] < 1290
    assert 1250 < box["width"] < 1290
    photograph(visit, f"every-wall-splice-{visit.page.evaluate('document.documentElement.dataset.theme')}", "splice")
    found = findings(visit.page)
    assert not found, found


@pytest.mark.parametrize("visit", ["dark"], indirect=True)
def test_numbers_stand_beside_what_is_usual(visit: Visit, city: City) -> None:
    """On the wall in the mean of the roads, on the page of traffic for each of them."""
    visit.page.set_viewport_size(ViewportSize(width=1920, height=1080))
    now = time.time_ns() // 1_000_000
    city.write([reading(*place, now) for place in sensors()])
    go(visit.page, city, "wall")
    line = visit.page.get_by_test_id("town-speed")
    expect(line).to_contain_text("mean of 9")
    expect(line).to_contain_text("usual 40.0")
    go(visit.page, city, "traffic")
    expect(visit.page.get_by_test_id("trend").and_(visit.page.locator('[data-usual="40"]'))).to_have_count(9)
