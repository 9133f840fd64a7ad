"""An operator declares maintenance on a sensor's page, and ends it."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, expect

from tests.browser.conftest import served
from tests.browser.town import CHARTED

SCREENSHOTS = Path(__file__).parent / "screenshots"
PASSWORD = "a horse that staples"


def test_maintenance_is_declared_and_ended_on_the_sensors_page(
    browser: Browser, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    viewport = ViewportSize(width=1366, height=768)
    with served(tmp_path, free_port()) as city, browser.new_context(viewport=viewport, locale="en-GB") as context:
        page = context.new_page()
        page.goto(f"{city.url}/#/sensors/{':'.join(CHARTED)}")
        expect(page.get_by_test_id("availability")).to_be_visible()
        expect(page.get_by_test_id("upkeep")).to_have_count(0)  # who only looks is not offered it
        page.goto((tmp_path / "setup-link").read_text().strip())
        page.locator("#password").fill(PASSWORD)
        page.locator("#again").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("live-count")).to_be_visible()
        page.goto(f"{city.url}/#/sensors/{':'.join(CHARTED)}")
        form = page.get_by_test_id("upkeep")
        form.locator("select").select_option("24")
        form.locator("input").fill("filter changed")
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("maintenance")).to_contain_text("In maintenance, until")
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "maintenance.png")
        expect(form.locator("select")).to_have_count(0)
        form.locator("button").click()
        expect(page.get_by_test_id("maintenance")).to_have_count(0)
        expect(form.locator("select")).to_be_visible()
