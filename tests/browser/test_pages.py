"""The pages beside the wall, in a real browser, against a real server."""

import csv
import re
from datetime import datetime

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.town import CHARTED, City
from tests.browser.visit import SIZES, opened, photograph

CHARTED_ID = ":".join(CHARTED)
LANGUAGES = {"zh": "\u4e00-\u9fff", "ko": "\uac00-\ud7af"}


@pytest.mark.parametrize("size", SIZES)
def test_the_gateways_page_accounts_for_every_reading(browser: Browser, city: City, size: str) -> None:
    """Reached from the wall, with an address of its own; the back button returns."""
    with opened(browser, city, size) as visit:
        page = visit.page
        page.get_by_test_id("place-gateways").click()
        assert page.url.endswith("/#/gateways")
        card = page.locator('[data-gateway="gw-1"]')
        expect(card).to_have_attribute("data-balances", "true")
        expect(card.locator('[data-part="delivered"]')).to_contain_text("890")
        expect(card.locator('[data-fact="clock"]')).to_contain_text("believed")
        expect(card.locator('[data-fact="diskFree"]')).to_contain_text("18.6 GiB")
        expect(card.locator('[data-fact="processor"]')).to_contain_text("2.5")
        for theme in ("dark", "light"):
            photograph(visit, f"gateways-{size}-{theme}", size)
            page.get_by_test_id("theme").click()
        page.reload()
        expect(card).to_be_visible()
        page.go_back()
        expect(page.get_by_test_id("events" if size == "phone" else "map")).to_be_visible()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_gateways_page_speaks_the_chosen_language_alone(browser: Browser, city: City, language: str) -> None:
    """No fact keeps an English name."""
    with opened(browser, city, "desk", "/#/gateways") as visit:
        page = visit.page
        page.get_by_test_id(f"lang-{language}").click()
        names = page.locator("[data-fact] dt, [data-part] th, .places a")
        expect(names.first).to_be_visible()
        assert [name for name in names.all_inner_texts() if not re.search(f"[{LANGUAGES[language]}]", name)] == []
        photograph(visit, f"gateways-{language}", "desk")


def test_a_kiosk_turns_its_pages_and_waits_when_told(browser: Browser, city: City) -> None:
    """By the address; the button of a keyboard holds it."""
    with opened(browser, city, "wall", "/?kiosk=gateways,wall&seconds=5") as visit:
        page = visit.page
        kiosk = page.get_by_test_id("kiosk")
        expect(kiosk).to_have_attribute("data-page", "gateways")
        expect(kiosk).to_have_attribute("data-page", "wall")
        expect(kiosk).to_have_attribute("data-page", "gateways")
        page.get_by_test_id("kiosk-pause").press("Enter")
        expect(page.get_by_test_id("kiosk-pause")).to_have_text("Resume")
        photograph(visit, "kiosk", "wall")


@pytest.mark.parametrize("size", SIZES)
def test_a_sensors_page_shows_its_past_its_neighbours_and_how_whole_it_is(
    browser: Browser, city: City, size: str
) -> None:
    """Reached from the drawer by keyboard, with an address of its own; the back button returns."""
    with opened(browser, city, size) as visit:
        page = visit.page
        if size == "phone":
            page.get_by_test_id("tab-sensors").click()
        page.locator(f'[data-sensor="{CHARTED_ID}"]').click()
        page.get_by_test_id("sensor-link").press("Enter")
        chart = page.get_by_test_id("chart")
        expect(chart).to_have_attribute("data-suspect", "3")
        expect(chart).to_have_attribute("data-quarantined", "2")
        assert page.url.endswith(f"/#/sensors/{CHARTED_ID}")
        # five and a half minutes between two readings, of which the steps that are wholly empty count
        expect(page.get_by_test_id("gap").filter(has_text=re.compile(r"[45] min"))).to_have_count(1)
        expect(page.get_by_test_id("page-quarantined")).to_contain_text("outside the gross range")
        expect(page.get_by_test_id("link-quality")).to_contain_text("87")
        expect(page.get_by_test_id("neighbour")).to_have_count(3)
        page.get_by_test_id("neighbour").first.click()
        expect(chart).to_have_attribute("data-others", "1")
        page.get_by_test_id("step-hourly").click()
        expect(page.get_by_test_id("chart-says")).to_have_attribute("data-step", "3600")
        page.get_by_test_id("step-raw").click()
        expect(page.get_by_test_id("chart-says")).to_have_attribute("data-step", "raw")
        for theme in ("dark", "light"):
            photograph(visit, f"sensor-{size}-{theme}", size)
            page.get_by_test_id("theme").click()
        page.get_by_test_id("earlier").click()
        expect(page.get_by_test_id("sensor-page")).to_contain_text("No readings in this time")
        page.go_back()
        expect(page.get_by_test_id("sensors" if size == "phone" else "map")).to_be_attached()


def test_a_sensors_readings_are_downloaded_with_their_flags(browser: Browser, city: City) -> None:
    """One file, named by the sensor, also of what was quarantined."""
    with opened(browser, city, "desk", f"/#/sensors/{CHARTED_ID}") as visit:
        with visit.page.expect_download() as waiting:
            visit.page.get_by_test_id("csv").click()
        text = waiting.value.path().read_text("utf-8-sig")
        assert waiting.value.suggested_filename.startswith("air_longgang_air-01_")
        rows = [row for row in csv.DictReader(text.splitlines()) if row["quantity"] == "pm25"]
        assert [row["reason"] for row in rows if row["quarantined"] == "yes"] == ["gross_range"] * 2
        assert sum(row["flag"] == "3" for row in rows) == 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sensors_page_speaks_the_chosen_language_alone(browser: Browser, city: City, language: str) -> None:
    """No heading, button or note keeps its English."""
    with opened(browser, city, "desk", f"/#/sensors/{CHARTED_ID}") as visit:
        page = visit.page
        page.get_by_test_id(f"lang-{language}").click()
        expect(page.get_by_test_id("gaps")).to_be_visible()
        names = page.locator("h3, [data-testid^=step-], [data-testid=csv], option, [data-testid=availability]")
        assert [
            name for name in names.all_inner_texts() if not re.search(f"[{LANGUAGES[language]}]|^PM|^O₃", name)
        ] == []
        photograph(visit, f"sensor-{language}", "desk")


def test_an_address_of_no_sensor_says_so(browser: Browser, city: City) -> None:
    """And leads back."""
    with opened(browser, city, "desk", "/#/sensors/air:nowhere:none") as visit:
        page = visit.page
        expect(page.get_by_test_id("sensor-page")).to_contain_text("There is no such sensor")
        page.get_by_test_id("sensor-page").get_by_role("link").click()
        expect(page.get_by_test_id("map")).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_the_towns_past_is_played_on_the_map(browser: Browser, city: City, size: str) -> None:
    """A slider, worked by keyboard too, shows who was live and which events were open, until now is reached."""
    with opened(browser, city, size) as visit:
        page = visit.page
        events = page.request.get(f"{city.url}/api/v1/events").json()["events"]
        (began,) = (datetime.fromisoformat(event["since"]).timestamp() for event in events if event["id"] == "e-1")
        page.get_by_test_id("place-past").click()
        shown, slider = page.get_by_test_id("history"), page.get_by_test_id("slider")
        page.get_by_test_id("history-1h").click()
        step = 10_000
        place = int(slider.get_attribute("min") or 0)
        then = place + (int(began * 1000) - 300_000 - place) // step * step
        slider.fill(str(then))
        expect(shown).to_have_attribute("data-live", "1")  # the charted sensor alone
        expect(page.get_by_test_id("then-events")).to_contain_text("No event was open")
        assert "at=" in page.url
        slider.fill(str(then + 360_000))
        expect(page.get_by_test_id("then-events")).to_contain_text("orange")
        for theme in ("dark", "light"):
            photograph(visit, f"history-{size}-{theme}", size)
            page.get_by_test_id("theme").click()
        before = int(shown.get_attribute("data-at") or 0)
        slider.press("ArrowRight")
        expect(shown).to_have_attribute("data-at", str(before + step))
        page.reload()
        expect(shown).to_have_attribute("data-at", str(before + step))
        page.get_by_test_id("speed").fill("50000")
        page.get_by_test_id("play").press("Enter")
        expect(shown).to_have_attribute("data-at", slider.get_attribute("max") or "")
        expect(shown).to_have_attribute("data-playing", "false")
        page.go_back()
        expect(page.get_by_test_id("events" if size == "phone" else "map")).to_be_visible()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_history_page_speaks_the_chosen_language_alone(browser: Browser, city: City, language: str) -> None:
    """No button or heading keeps its English."""
    with opened(browser, city, "desk", "/#/past") as visit:
        page = visit.page
        page.get_by_test_id(f"lang-{language}").click()
        expect(page.get_by_test_id("then-fresh")).to_be_visible()
        names = page.locator("[data-testid=play], h2, h3, .then li span:first-child, .places a")
        assert [name for name in names.all_inner_texts() if not re.search(f"[{LANGUAGES[language]}]", name)] == []
        photograph(visit, f"history-{language}", "desk")
