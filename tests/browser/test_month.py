"""The month's report: on the page, and on paper as a PDF."""

import io
import json
import time
import unicodedata
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from pypdf import PdfReader

from tests.browser.conftest import served
from tests.browser.town import City, reading, sensors
from tests.browser.visit import SCREENSHOTS, SIZES, opened, photograph

HOUR_MS = 3_600_000
MONTH = time.strftime("%Y-%m")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[City]:
    """A town with three reports of residents, an alert, and thirty sensors that were silent for five hours."""
    with served(tmp_path_factory.mktemp("month"), free_port(), "[cases]\nwatch = false\npublic = true\n") as city:
        for kind in ("water", "noise", "water"):
            body = json.dumps({"kind": kind, "text": "something", "lat": 30.1, "lon": 119.2}).encode()
            request = urllib.request.Request(  # noqa: S310 - our own server
                f"{city.url}/api/v1/reports", data=body, headers={"Content-Type": "application/json"}
            )
            assert urllib.request.urlopen(request, timeout=10).status == 201  # noqa: S310 - our own server
        then = time.time_ns() // 1_000_000 - 6 * HOUR_MS
        city.write([reading(*place, then) for place in list(sensors())[20:50]])
        yield city


def _printed(page: Page) -> list[str]:
    """The sheets of the page as it is printed, each as its text."""
    pdf = page.pdf(prefer_css_page_size=True)
    (SCREENSHOTS / "month.pdf").write_bytes(pdf)
    sheets = PdfReader(io.BytesIO(pdf)).pages
    for sheet in sheets:
        assert (round(float(sheet.mediabox.width)), round(float(sheet.mediabox.height))) == (595, 842), "A4, in points"
    # fonts share glyphs between a word and the radical that looks the same
    return [unicodedata.normalize("NFKC", sheet.extract_text()) for sheet in sheets]


@pytest.mark.parametrize("size", SIZES)
def test_the_month_is_reported_on_the_page(browser: Browser, town: City, size: str) -> None:
    with opened(browser, town, size, "/#/cases") as visit:
        page = visit.page
        page.get_by_test_id("month-link").click()
        expect(page.get_by_test_id("month-classes").locator("tbody tr")).to_have_count(2)
        expect(page.get_by_test_id("month-classes")).to_contain_text("Water quality and level")
        expect(page.get_by_test_id("month-districts")).to_contain_text("no district")
        expect(page.get_by_test_id("month-departments")).to_contain_text("not dispatched")
        expect(page.get_by_test_id("month-alerts").locator("tbody tr")).to_have_count(1)
        expect(page.get_by_test_id("month-sensors").locator("tbody tr")).to_have_count(7)
        expect(page.get_by_test_id("month-worst").locator("tr")).to_have_count(20)
        photograph(visit, f"month-{size}", size)
        page.get_by_test_id("month-before").click()
        expect(page.get_by_test_id("month")).to_contain_text("No case was opened in this month")
        page.get_by_test_id("month-after").click()
        expect(page.get_by_test_id("month-classes")).to_be_visible()


def test_the_month_is_printed_on_numbered_sheets_of_a4(browser: Browser, town: City) -> None:
    with opened(browser, town, "desk", f"/#/month/{MONTH}") as visit:
        page = visit.page
        expect(page.get_by_test_id("month-classes")).to_be_visible()
        sheets = _printed(page)
        assert len(sheets) > 1
        for number, text in enumerate(sheets, 1):
            assert f"{number} / {len(sheets)}" in text
        whole = " ".join(sheets)
        for expected in ("Monthly report", "Lin'an", "By class", "Noise", "By department", "Alerts", "Availability"):
            assert expected in whole, expected
        for control in ("Print, or save", "Overview", "Gateways", "live"):
            assert control not in whole, control
        for language, title in (("zh", "月报"), ("ko", "월간 보고")):
            page.get_by_test_id(f"lang-{language}").click()
            expect(page.get_by_test_id("month").locator("h1")).to_contain_text(title)
            assert title.replace(" ", "") in "".join("".join(_printed(page)).split())


def test_the_month_is_the_town_s_whatever_the_clock_of_the_page(browser: Browser, town: City) -> None:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.clock.set_fixed_time(time.time() + 40 * 86_400)
    page.goto(f"{town.url}/#/cases")
    page.get_by_test_id("month-link").click()
    expect(page.get_by_test_id("month-classes").locator("tbody tr")).to_have_count(2)
    expect(page.get_by_test_id("month-after")).to_have_count(0)
    context.close()


def test_a_month_to_come_is_said_to_be_so(browser: Browser, town: City) -> None:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(f"{town.url}/#/month/2099-01")
    expect(page.get_by_test_id("month").get_by_role("alert")).to_have_text("This month has not begun.")
    context.close()
