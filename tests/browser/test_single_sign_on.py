"""Signing in by the city's single sign-on, in a real browser with a real provider."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import served
from tests.browser.test_people import PASSWORD, SCREENSHOTS
from tests.oidc_provider import provider

WORDS = {
    "zh-CN": ("使用统一认证登录", "没有此系统的权限", "没有应答"),
    "en-GB": ("Sign in by City account", "no right to be here", "does not answer"),
    "ko-KR": ("통합 계정(으)로 로그인", "권한이 없습니다", "응답하지 않습니다"),
}


@pytest.mark.parametrize("language", WORDS)
def test_somebody_signs_in_and_out_by_the_city_account(
    browser: Browser, tmp_path: Path, free_port: Callable[[], int], language: str
) -> None:
    button, no_right, silent = WORDS[language]
    port = free_port()
    with provider(free_port(), tmp_path / "provider.log") as sso:
        settings = sso.settings(f"http://127.0.0.1:{port}")
        lines = "".join(f'{key} = "{value}"\n' for key, value in settings.items() if isinstance(value, str))
        with (
            served(tmp_path, port, f'[oidc]\n{lines}roles = {{ ops = "operator" }}\n') as city,
            browser.new_context(locale=language) as context,
        ):
            page = context.new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto((tmp_path / "setup-link").read_text().strip())
            page.locator("#password").fill(PASSWORD)
            page.locator("#again").fill(PASSWORD)
            page.keyboard.press("Enter")
            page.get_by_test_id("sign-out").click()

            expect(page.get_by_test_id("single-sign-on")).to_have_text(button)
            page.screenshot(path=SCREENSHOTS / f"single-sign-on-{language}.png")
            page.get_by_test_id("single-sign-on").click()
            page.get_by_role("button", name="3", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text(no_right)

            page.get_by_test_id("single-sign-on").click()
            page.get_by_role("button", name="1", exact=True).first.click()
            expect(page.get_by_test_id("live-count")).to_have_attribute("data-sensors", "63")
            assert page.url == f"{city.url}/"
            page.goto(f"{city.url}/#/settings/account")
            expect(page.get_by_test_id("who")).to_contain_text("lin")
            expect(page.get_by_test_id("settings-people")).to_have_count(0)

            page.get_by_test_id("sign-out").click()
            page.wait_for_url(f"{sso.url}/oauth2/end_session*")
            page.goto(city.url)
            expect(page.get_by_test_id("sign-in")).to_be_visible()

            sso.stop()
            page.get_by_test_id("single-sign-on").click()
            expect(page.get_by_role("alert")).to_contain_text(silent)
            page.screenshot(path=SCREENSHOTS / f"single-sign-on-down-{language}.png")
            page.locator("#name").fill("admin")
            page.locator("#secret").fill(PASSWORD)
            page.keyboard.press("Enter")
            expect(page.get_by_test_id("live-count")).to_have_attribute("data-sensors", "63")
            assert complaints == []
