"""The pages beside the wall, in a real browser, against a real server."""

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.town import City
from tests.browser.visit import SIZES, opened, photograph

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
