"""The settings in a real browser: a viewer's own, and what an administrator may change."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from tests.browser.conftest import served
from tests.browser.test_every_page import findings
from tests.browser.visit import SIZES, SMALL_TEXT

SCREENSHOTS = Path(__file__).parent / "screenshots"
PASSWORD = "a horse that staples"
LANGUAGES = {
    "zh-CN": ("显示", "我的账户", "告警规则", "维护计划", "人员", "审计记录"),
    "en-GB": ("Viewing", "My account", "Alert rules", "Maintenance", "People", "Audit trail"),
    "ko-KR": ("보기", "내 계정", "경보 규칙", "점검", "사용자", "감사 기록"),
}
ADMINISTRATORS = ["viewing", "account", "rules", "maintenance", "people", "audit"]
RULES = """\
[[rule]]
name = "wet"
title = { zh = "土壤湿", en = "The soil is wet", ko = "토양 습함" }
severity = "blue"
kind = "soil"
quantity = "moisture"
above = 30
"""


class House(NamedTuple):
    """A city view whose administrator has a password."""

    browser: Browser
    url: str
    complaints: list[str]

    def page(self, size: str = "desk", locale: str = "en-GB", theme: str = "dark") -> Page:
        width, height = SIZES[size]
        context = self.browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            locale=locale,
            color_scheme="light" if theme == "light" else "dark",
        )
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def use_link(self, page: Page, link: str) -> None:
        page.goto(link)
        page.locator("#password").fill(PASSWORD)
        page.locator("#again").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("live-count")).to_be_visible()

    def signed_in(self, name: str, **look: str) -> Page:
        page = self.page(**look)
        answer = page.request.post(f"{self.url}/api/v1/session", data={"name": name, "password": PASSWORD})
        assert answer.status == 204, answer.text()
        return page

    def ask(
        self, page: Page, method: str, path: str, body: dict[str, Any] | None, more: dict[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """Asks the API by the page's session."""
        csrf = page.request.get(f"{self.url}/api/v1/session").json()["csrf"]
        headers = {"X-CSRF-Token": csrf, "Content-Type": "application/json", **(more or {})}
        answer = page.request.fetch(f"{self.url}{path}", method=method, data=json.dumps(body), headers=headers)
        assert answer.ok, answer.text()
        return answer.json() if answer.status != 204 else None

    def rules(self, page: Page) -> dict[str, dict[str, Any]]:
        return {rule["name"]: rule for rule in page.request.get(f"{self.url}/api/v1/rules").json()["rules"]}

    def tag(self, page: Page) -> dict[str, str]:
        return {"If-Match": page.request.get(f"{self.url}/api/v1/rules").json()["tag"]}


@pytest.fixture(scope="module")
def house(browser: Browser, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "rules.toml").write_text(RULES, "utf-8")
    with served(folder, free_port(), '[alerts]\nrules = "rules.toml"\n') as city:
        house = House(browser, city.url, [])
        house.use_link(house.page(), (folder / "setup-link").read_text().strip())
        page = house.signed_in("admin")
        body = {"name": "viewer", "title": "Lin Xiao", "role": "viewer"}
        house.use_link(house.page(), city.url + house.ask(page, "POST", "/api/v1/people", body)["link"])
        yield house
        for context in browser.contexts:
            context.close()
        assert house.complaints == []


def _tab_to(page: Page, target: Locator, most: int = 60) -> None:
    """Goes to an element by the tab key alone."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if target.evaluate("node => node === document.activeElement"):
            return
    pytest.fail(f"the tab key does not reach {target}")


def _photograph(page: Page, name: str, size: str = "desk") -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if size == "phone":
        assert page.evaluate(SMALL_TEXT) == []


def test_a_viewer_has_their_own_settings_and_no_others(house: House) -> None:
    page = house.signed_in("viewer")
    page.goto(f"{house.url}/#/")
    page.get_by_test_id("place-settings").click()
    expect(page.get_by_test_id("settings-account")).to_be_visible()
    for part in ("people", "audit"):
        expect(page.get_by_test_id(f"settings-{part}")).to_have_count(0)
        page.goto(f"{house.url}/#/settings/{part}")
        expect(page.get_by_test_id("settings-viewing")).to_have_attribute("aria-current", "page")
        assert page.request.get(f"{house.url}/api/v1/{part}").status == 403


def test_how_the_page_looks_is_chosen_at_once_and_kept(house: House) -> None:
    page = house.signed_in("viewer")
    page.goto(f"{house.url}/#/settings")
    page.get_by_test_id("choose-ko").click()
    expect(page.get_by_test_id("settings-account")).to_have_text(LANGUAGES["ko-KR"][1])
    page.get_by_test_id("choose-light").click()
    page.get_by_test_id("choose-us").click()
    page.reload()
    expect(page.get_by_test_id("settings-account")).to_have_text(LANGUAGES["ko-KR"][1])
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.goto(f"{house.url}/#/")
    expect(page.get_by_test_id("index-us")).to_have_attribute("aria-pressed", "true")


def test_the_address_of_a_kiosk_shows_the_chosen_pages(house: House) -> None:
    page = house.signed_in("viewer")
    page.goto(f"{house.url}/#/settings")
    page.get_by_label("Gateways", exact=True).check()
    page.get_by_label("Seconds a page").fill("7")
    expect(page.get_by_test_id("to-copy")).to_have_text(f"{house.url}/?kiosk=wall,gateways&seconds=7")
    page.get_by_role("button", name="Start the kiosk").click()
    expect(page.get_by_test_id("kiosk")).to_contain_text("page 1 of 2")


def test_a_person_changes_their_password_and_signs_out_elsewhere(house: House) -> None:
    admin = house.signed_in("admin")
    body = {"name": "mei", "title": "Mei", "role": "operator", "districts": ["changhua"]}
    page, left_open = house.page(), house.page()
    house.use_link(page, house.url + house.ask(admin, "POST", "/api/v1/people", body)["link"])
    left_open.request.post(f"{house.url}/api/v1/session", data={"name": "mei", "password": PASSWORD})
    page.goto(f"{house.url}/#/settings/account")
    expect(page.get_by_test_id("who")).to_contain_text("changhua")
    rows = page.get_by_test_id("sessions").locator("tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_test_id("end-others").click()
    expect(rows).to_have_count(1)
    assert left_open.request.get(f"{house.url}/api/v1/session").status == 401

    form = page.get_by_test_id("change-password")
    for old, again, says in (("wrong", "another horse staples", "is wrong"), (PASSWORD, "another", "differ")):
        form.get_by_label("Present password").fill(old)
        form.get_by_label("New password").fill("another horse staples")
        form.get_by_label("Password, once more").fill(again)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text=says)).to_be_visible()
    form.get_by_label("Password, once more").fill("another horse staples")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="is changed")).to_be_visible()
    assert page.request.get(f"{house.url}/api/v1/session").status == 200


def test_a_token_is_shown_once_and_ends_when_it_is_revoked(house: House) -> None:
    page = house.signed_in("viewer")
    page.goto(f"{house.url}/#/settings/account")
    form = page.get_by_test_id("new-token")
    form.get_by_label("What for").fill("Grafana")
    form.get_by_label("Days").fill("7")
    page.keyboard.press("Enter")
    shown = page.get_by_test_id("new-token-shown")
    token = shown.get_by_test_id("to-copy").inner_text()
    script = house.page().request
    headers = {"Authorization": f"Bearer {token}"}
    assert script.get(f"{house.url}/api/v1/overview", headers=headers).status == 200
    page.reload()
    expect(page.get_by_test_id("tokens")).to_contain_text("Grafana")
    expect(shown).to_have_count(0)
    page.get_by_role("button", name="Revoke: Grafana").click()
    expect(page.get_by_test_id("tokens")).to_have_count(0)
    assert script.get(f"{house.url}/api/v1/overview", headers=headers).status == 401


def test_an_administrator_adds_a_person_by_the_keyboard_and_disables_them(house: House) -> None:
    page = house.signed_in("admin")
    page.goto(f"{house.url}/#/settings/people")
    _tab_to(page, page.get_by_test_id("add-person"))
    page.keyboard.press("Enter")
    page.keyboard.type("chen")
    page.keyboard.press("Tab")
    page.keyboard.type("Chen Wei")
    page.keyboard.press("Tab")
    page.keyboard.type("Department")
    _tab_to(page, page.get_by_label("Water", exact=False).first)
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    handed = page.get_by_test_id("handed")
    expect(handed).to_contain_text("Chen Wei")
    row = page.locator("[data-person=chen]")
    expect(row).to_contain_text("has no password yet")

    theirs = house.page()
    house.use_link(theirs, handed.get_by_test_id("to-copy").inner_text())
    page.reload()
    expect(row.get_by_test_id("status")).to_contain_text("active")
    row.get_by_test_id("toggle").click()
    expect(row.get_by_test_id("status")).to_contain_text("disabled")
    assert theirs.request.get(f"{house.url}/api/v1/session").status == 401
    assert page.locator("[data-person=admin]").get_by_test_id("toggle").count() == 0  # not oneself

    page.get_by_test_id("settings-audit").click()
    page.get_by_label("What, or about whom").fill("chen")
    lines = page.get_by_test_id("audit").locator("tbody tr")
    expect(lines.first).to_have_attribute("data-action", "changed")
    expect(lines.last).to_have_attribute("data-action", "added")
    with page.expect_download() as download:
        page.get_by_test_id("audit-csv").click()
    text = download.value.path().read_text("utf-8-sig")
    assert "person chen" in text
    assert "session" not in text  # what was filtered out


def test_an_administrator_adds_a_rule_by_the_keyboard_tries_and_disables_it(house: House) -> None:
    page = house.signed_in("admin")
    page.goto(f"{house.url}/#/settings/rules")
    _tab_to(page, page.get_by_test_id("add-rule"))
    page.keyboard.press("Enter")
    for text in ("river-high", "河水偏高", "The river is high", "하천 수위 높음", "yellow", "a value over", "Water"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    expect(page.get_by_label("Quantity")).to_be_focused()
    page.keyboard.type("Level")
    page.keyboard.press("Tab")
    page.keyboard.type("1.5")
    _tab_to(page, page.get_by_test_id("try"))
    page.keyboard.press("Enter")
    tried = page.get_by_test_id("tried")
    expect(tried).to_contain_text("times in the last 7 days")
    assert int(tried.get_attribute("data-times") or 0) > 0
    _photograph(page, "settings-rule-form-desk")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    row = page.locator("[data-rule=river-high]")
    expect(row).to_contain_text("≥ 1.5 m")
    expect(row.locator("[data-of=Watches]")).to_have_text("9")
    row.get_by_test_id("toggle").click()
    expect(row).to_have_attribute("data-enabled", "false")
    row.get_by_test_id("remove").click()
    expect(row).to_have_count(0)


def test_a_rule_of_the_file_is_changed_on_the_page_and_taken_back(house: House) -> None:
    page = house.signed_in("admin")
    page.goto(f"{house.url}/#/settings/rules")
    row = page.locator("[data-rule=wet]")
    expect(row).to_contain_text("in the file")
    row.get_by_role("button", name="Change").click()
    page.get_by_role("textbox", name="Limit").fill("40")
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("≥ 40 %")
    expect(row).to_contain_text("instead of the file")
    row.get_by_test_id("remove").click()
    expect(row).to_contain_text("≥ 30 %")


def test_of_two_administrators_the_later_is_told_and_keeps_what_was_typed(house: House) -> None:
    page = house.signed_in("admin")
    page.goto(f"{house.url}/#/settings/rules")
    row = page.locator("[data-rule=wet]")
    row.get_by_role("button", name="Change").click()
    page.get_by_role("textbox", name="Limit").fill("50")
    settings = house.rules(page)["wet"]["settings"]
    house.ask(page, "PUT", "/api/v1/rules/wet", {**settings, "above": 45}, house.tag(page))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="Somebody else")).to_be_visible()
    expect(page.get_by_role("textbox", name="Limit")).to_have_value("50")
    expect(row).to_contain_text("≥ 45 %")
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("≥ 50 %")
    page.get_by_role("button", name="Add a rule").click()
    page.get_by_label("Identifier").fill("wet")
    page.get_by_label("Title, English").fill("Again")
    page.get_by_role("textbox", name="Limit").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="name: there is a rule")).to_be_visible()
    house.ask(page, "DELETE", "/api/v1/rules/wet", None, house.tag(page))


def test_a_viewer_sees_rules_and_maintenance_and_changes_neither(house: House) -> None:
    page = house.signed_in("viewer")
    page.goto(f"{house.url}/#/settings/rules")
    expect(page.locator("[data-rule=wet]")).to_be_visible()
    expect(page.get_by_test_id("rules").get_by_role("button")).to_have_count(0)
    expect(page.get_by_test_id("add-rule")).to_have_count(0)
    page.goto(f"{house.url}/#/settings/maintenance")
    expect(page.get_by_text("No maintenance now or planned.")).to_be_visible()
    expect(page.get_by_test_id("maintenance-form")).to_have_count(0)


def test_maintenance_of_a_sensor_is_declared_and_ended_early(house: House) -> None:
    page = house.signed_in("admin")
    page.goto(f"{house.url}/#/settings/maintenance")
    form = page.get_by_test_id("maintenance-form")
    form.get_by_label("Site or sensor").select_option("air:longgang:air-01")
    form.get_by_label("Until").fill("2099-01-01T08:00")
    form.get_by_label("Why").fill("new filter")
    page.keyboard.press("Enter")
    windows = page.get_by_test_id("windows")
    expect(windows).to_contain_text("air : longgang : air-01")
    expect(windows).to_contain_text("new filter")
    sensor = page.request.get(f"{house.url}/api/v1/sensors/air:longgang:air-01").json()
    assert sensor["maintenance"]["until"].startswith(("2099-01-01", "2098-12-31"))
    windows.get_by_test_id("end-window").click()
    expect(windows).to_have_count(0)


def test_the_trail_is_turned_page_by_page(house: House) -> None:
    page = house.signed_in("admin")
    for number in range(52):
        house.ask(page, "PATCH", "/api/v1/people/2", {"title": f"Lin {number}"})
    house.ask(page, "PATCH", "/api/v1/people/2", {"title": "Lin Xiao"})
    page.goto(f"{house.url}/#/settings/audit")
    lines = page.get_by_test_id("audit").locator("tbody tr")
    expect(lines).to_have_count(50)
    expect(lines.first).to_contain_text("person viewer")
    page.get_by_test_id("older").click()
    expect(page.get_by_test_id("newest")).to_be_visible()
    page.get_by_test_id("newest").click()
    expect(page.get_by_test_id("newest")).to_have_count(0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("locale", "headings"), LANGUAGES.items())
def test_each_part_is_in_each_language_at_each_size(
    house: House, size: str, locale: str, headings: tuple[str, ...]
) -> None:
    theme = "light" if locale == "zh-CN" else "dark"
    page = house.signed_in("admin", size=size, locale=locale, theme=theme)
    page.goto(f"{house.url}/#/settings")
    for part, heading in zip(ADMINISTRATORS, headings, strict=True):
        page.get_by_test_id(f"settings-{part}").click()
        expect(page.locator("h2", has_text=heading)).to_be_visible()
        if part == "people":
            page.get_by_test_id("add-person").click()
            expect(page.get_by_test_id("people")).to_be_visible()
        if part == "rules":
            page.get_by_test_id("add-rule").click()
            expect(page.get_by_test_id("rules")).to_be_visible()
        if part == "audit":
            expect(page.get_by_test_id("audit")).to_be_visible()
        _photograph(page, f"settings-{part}-{size}-{locale}", size)
        if size != "wall":  # of the same layout as the desk
            assert findings(page) == [], part
