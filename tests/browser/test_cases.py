"""A case through the page: each role takes its steps, and is offered no others."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import served
from tests.browser.town import City

SCREENSHOTS = Path(__file__).parent / "screenshots"
PASSWORD = "a horse that staples"
SIZES = {"operator": (1366, 768), "dispatcher": (1920, 1080), "department": (390, 844), "viewer": (1366, 768)}


class People:
    """A page of each role, signed in."""

    def __init__(self, browser: Browser, city: City, link: str, stack: ExitStack) -> None:
        self._browser, self._city, self._stack = browser, city, stack
        self.complaints: list[str] = []
        self.pages: dict[str, Page] = {}
        admin = self._page("administrator", (1366, 768))
        self._use(admin, link)
        for role, size in SIZES.items():
            body = {"name": role, "title": role, "role": role, "departments": ["water"]}
            added = self.ask(admin, "POST", "/api/v1/people", body)
            self._use(self._page(role, size), f"{city.url}{added['link']}")

    def _page(self, role: str, size: tuple[int, int]) -> Page:
        viewport = ViewportSize(width=size[0], height=size[1])
        context = self._stack.enter_context(self._browser.new_context(viewport=viewport, locale="en-GB"))
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.pages[role] = page
        return page

    @staticmethod
    def _use(page: Page, link: str) -> None:
        page.goto(link)
        page.locator("#password").fill(PASSWORD)
        page.locator("#again").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("live-count")).to_be_visible()

    def ask(self, page: Page, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Asks the API with the page's session."""
        csrf = page.request.get(f"{self._city.url}/api/v1/session").json()["csrf"]
        answer = page.request.fetch(
            f"{self._city.url}{path}",
            method=method,
            data=json.dumps(body),
            headers={"X-CSRF-Token": csrf, "Content-Type": "application/json"},
        )
        return {"status": answer.status, **answer.json()}

    def step(self, role: str, action: str, state: str, note: str = "") -> None:
        """Takes a step by the page, and waits for the state that follows."""
        page = self.pages[role]
        page.goto("about:blank")
        page.goto(f"{self._city.url}/#/cases/1")
        page.get_by_test_id(f"do-{action}").click()
        if note:
            page.get_by_test_id("step").locator("textarea").fill(note)
        page.get_by_test_id("step").locator(".go").click()
        expect(page.get_by_test_id("history").locator("li").first).to_contain_text(role)
        expect(page.get_by_test_id("case-state")).to_have_attribute("data-state", state)


@pytest.fixture
def city(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[City]:
    with served(tmp_path, free_port(), "[cases]\nwatch = false\n") as city:
        yield city


def test_a_case_goes_its_way_through_the_page(browser: Browser, city: City, tmp_path: Path) -> None:
    with ExitStack() as stack:
        people = People(browser, city, (tmp_path / "setup-link").read_text().strip(), stack)
        operator = people.pages["operator"]
        operator.get_by_test_id("place-cases").click()
        form = operator.get_by_test_id("new-case")
        form.locator("select").select_option("water")
        form.locator("input").fill("The river foams below the mill")
        form.locator("button").click()
        expect(operator.get_by_test_id("case")).to_contain_text("foams")
        assert operator.url.endswith("#/cases/1")

        people.step("operator", "file", "filed")
        expect(operator.get_by_test_id("do-dispatch")).to_have_count(0)
        refused = people.ask(operator, "POST", "/api/v1/incidents/1/steps", {"action": "dispatch"})
        assert refused["status"] == 403

        people.step("dispatcher", "dispatch", "dispatched")
        people.step("department", "accept", "handling")
        people.step("department", "handled", "verifying", "the mill's valve is shut")
        SCREENSHOTS.mkdir(exist_ok=True)
        people.pages["department"].screenshot(path=SCREENSHOTS / "case-phone.png")
        people.step("operator", "reject", "dispatched", "it still foams")
        people.step("department", "accept", "handling")
        people.step("department", "ask-extension", "handling", "the laboratory answers tomorrow")
        people.step("dispatcher", "approve", "handling")
        people.step("department", "handled", "verifying", "cleaned")
        people.pages["dispatcher"].screenshot(path=SCREENSHOTS / "case-wall.png")
        people.step("operator", "confirm", "closed")

        viewer = people.pages["viewer"]
        viewer.get_by_test_id("place-cases").click()
        expect(viewer.get_by_test_id("case-row")).to_have_count(0)
        viewer.get_by_role("checkbox").uncheck()
        expect(viewer.get_by_test_id("case-row")).to_have_attribute("data-state", "closed")
        expect(viewer.get_by_test_id("figures")).to_contain_text("100 %")
        expect(viewer.get_by_test_id("new-case")).to_have_count(0)
        viewer.get_by_test_id("case-row").click()
        expect(viewer.get_by_test_id("case")).to_contain_text("nothing for you to do")
        operator.screenshot(path=SCREENSHOTS / "case-desk.png")
        for language in ("zh", "ko"):
            viewer.get_by_test_id(f"lang-{language}").click()
            expect(viewer.get_by_test_id("case")).not_to_contain_text("nothing for you to do")
            viewer.screenshot(path=SCREENSHOTS / f"case-{language}.png")
        assert people.complaints == []
