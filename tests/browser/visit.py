"""A look at the page in a browser that tolerates no complaint and no stranger."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.town import City

SCREENSHOTS = Path(__file__).parent / "screenshots"
SIZES = {"wall": (1920, 1080), "desk": (1366, 768), "phone": (390, 844)}
SMALL_TEXT = (
    "[...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 &&"
    " n.textContent.trim()) && parseFloat(getComputedStyle(e).fontSize) < 16).map(e => e.outerHTML)"
)
"""What a phone's page must not have: elements with text below 16 px."""


@dataclass
class Visit:
    """A page that is open, and what went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


@contextlib.contextmanager
def opened(
    browser: Browser, city: City, size: str, path: str = "/", theme: Literal["dark", "light"] = "dark"
) -> Iterator[Visit]:
    """Opens a page in English, and afterwards insists on a clean console and on requests to the city alone."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport=ViewportSize(width=width, height=height),
        locale="en-GB",
        timezone_id="Asia/Shanghai",
        color_scheme=theme,
        reduced_motion="reduce",
    )
    page = context.new_page()
    visit = Visit(page)
    page.on("console", lambda line: visit.complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((city.url, "data:", "blob:")) else visit.strangers.append(asked.url),
    )
    page.goto(city.url + path)
    expect(page.get_by_test_id("live-count")).to_have_attribute("data-sensors", "63")
    yield visit
    context.close()
    assert not visit.complaints, visit.complaints
    assert not visit.strangers, visit.strangers


def photograph(visit: Visit, name: str, size: str) -> None:
    """Keeps a screenshot for people to look at; nothing stands beyond the screen, and on a phone no text is small."""
    SCREENSHOTS.mkdir(exist_ok=True)
    visit.page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if size == "phone":
        small = visit.page.evaluate(SMALL_TEXT)
        assert not small, small
