"""The first administrator, from the link to signing in again, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import served

SCREENSHOTS = Path(__file__).parent / "screenshots"
PASSWORD = "a horse that staples"


@pytest.mark.parametrize("language", ["zh-CN", "en-GB", "ko-KR"])
def test_the_first_administrator_chooses_a_password_and_signs_in(
    browser: Browser, tmp_path: Path, free_port: Callable[[], int], language: str
) -> None:
    with served(tmp_path, free_port()) as city, browser.new_context(locale=language) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        link = (tmp_path / "setup-link").read_text().strip()
        page.goto(link)
        form = page.get_by_test_id("link")
        expect(form.locator("#password")).to_be_visible()
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"link-{language}.png")

        form.locator("#password").fill(PASSWORD)
        form.locator("#again").fill(f"{PASSWORD} not")
        page.keyboard.press("Enter")
        expect(form.get_by_role("alert")).not_to_be_empty()
        form.locator("#again").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("live-count")).to_have_attribute("data-sensors", "63")
        assert "link=" not in page.url

        page.get_by_test_id("sign-out").click()
        expect(page.get_by_test_id("sign-in")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / f"sign-in-{language}.png")
        page.locator("#name").fill("admin")
        page.locator("#secret").fill("a wrong password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).not_to_be_empty()
        page.locator("#secret").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("live-count")).to_have_attribute("data-sensors", "63")

        page.goto("about:blank")
        page.goto(link)
        expect(form.get_by_role("alert")).not_to_be_empty()
        expect(form.locator("#password")).to_have_count(0)
        assert complaints == []
        assert city.url in link
