"""A resident reports something from a phone, with a photograph, and sees by the receipt what became of it."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect

from tests.browser.conftest import served

SCREENSHOTS = Path(__file__).parent / "screenshots"


def test_a_resident_reports_with_a_photograph(browser: Browser, tmp_path: Path, free_port: Callable[[], int]) -> None:
    picture = tmp_path / "river.png"
    Image.new("RGB", (900, 600), (40, 90, 160)).save(picture)
    folder = tmp_path / "city"
    folder.mkdir()
    with (
        served(folder, free_port(), "[cases]\nwatch = false\npublic = true\n") as city,
        browser.new_context(
            viewport={"width": 390, "height": 844},
            locale="zh-CN",
            geolocation={"latitude": 30.17, "longitude": 119.21},
            permissions=["geolocation"],
        ) as context,
    ):
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{city.url}/#/report")
        form = page.get_by_test_id("report").locator("form").first
        form.locator("select").select_option("water")
        form.locator("textarea").fill("河面有泡沫")
        form.locator("input[type=file]").set_input_files(picture)
        form.locator("button[type=button]").click()
        expect(form).to_contain_text("30.17")
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "report-phone.png", full_page=True)
        form.locator("button[type=submit]").click()
        receipt = page.get_by_test_id("receipt")
        expect(receipt).to_be_visible()
        assert page.url.endswith(f"#/report/{receipt.inner_text()}")
        expect(page.get_by_test_id("report-steps").locator("li")).to_have_count(1)
        page.screenshot(path=SCREENSHOTS / "receipt-phone.png", full_page=True)
        case = page.request.get(f"{city.url}/api/v1/incidents/1").json()
        assert (case["lat"], case["lon"], len(case["photos"])) == (30.17, 119.21, 1)

        number = receipt.inner_text()
        page.goto(f"{city.url}/#/report")
        page.get_by_test_id("report").locator("form").nth(1).locator("input").fill(number.lower())
        page.keyboard.press("Enter")
        expect(receipt).to_have_text(number)
        assert complaints == []
