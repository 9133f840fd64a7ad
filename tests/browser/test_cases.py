"""A case through the page, from a resident's phone to its end: each role takes its steps, and is offered no others."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from gateway.city.incidents.states import STEPS
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

    def case(self, role: str) -> Page:
        """Opens the case as a role sees it."""
        page = self.pages[role]
        page.goto("about:blank")
        page.goto(f"{self._city.url}/#/cases/1")
        return page

    def add(self, role: str, stage: str, photo: Path) -> None:
        """Adds a photograph of a stage by the page, and waits until it is shown."""
        page = self.case(role)
        page.get_by_test_id(f"add-{stage}").set_input_files(photo)
        expect(page.get_by_test_id("history").locator("li").first).to_contain_text("Add a photograph")
        shown = page.get_by_test_id(f"photos-{stage}").locator("img").last
        expect(shown).to_have_js_property("complete", value=True)
        assert shown.evaluate("image => image.naturalWidth") == 900

    def refused(self, action: str, *, seen: bool = True) -> None:
        """The step is offered to those alone whom the table names; others who ask for it all the same are refused."""
        for role in (*SIZES, "administrator"):
            if role in STEPS[action].roles:
                continue
            body = {"action": action, "note": "let me"}
            answer = self.ask(self.pages[role], "POST", "/api/v1/incidents/1/steps", body)
            assert (answer["status"], answer["title"]) == (403, "Forbidden"), (role, action)
            assert answer["type"] == "about:blank", "a problem detail"
            page = self.case(role)
            if seen or role != "department":
                expect(page.get_by_test_id("case-state")).to_be_visible()
            expect(page.get_by_test_id(f"do-{action}")).to_have_count(0)

    def figures(self) -> dict[str, str]:
        """What the list of cases says of how well they are dealt with."""
        page = self.pages["viewer"]
        page.goto("about:blank")
        page.goto(f"{self._city.url}/#/cases")
        expect(page.get_by_test_id("figures")).to_be_visible()
        names = ("filing_rate", "accurate_dispatch_rate", "handled_on_time", "closed_on_time", "rework_rate")
        return {name: page.get_by_test_id(f"figure-{name}").inner_text() for name in names}

    def step(self, role: str, action: str, state: str, note: str = "") -> None:
        """Takes a step by the page, and waits for the state that follows."""
        page = self.case(role)
        page.get_by_test_id(f"do-{action}").click()
        if note:
            page.get_by_test_id("step").locator("textarea").fill(note)
        page.get_by_test_id("step").locator(".go").click()
        expect(page.get_by_test_id("history").locator("li").first).to_contain_text(role)
        expect(page.get_by_test_id("case-state")).to_have_attribute("data-state", state)


@pytest.fixture
def city(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[City]:
    with served(tmp_path, free_port(), "[cases]\nwatch = false\npublic = true\n") as city:
        yield city


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Path]:
    """A river that foams, and one that does not."""
    found = {}
    for name, colour in (("before", (150, 130, 90)), ("after", (40, 90, 160))):
        found[name] = tmp_path / f"{name}.png"
        Image.new("RGB", (900, 600), colour).save(found[name])
    return found


class Resident:
    """Who reports something from a phone, and looks what becomes of it."""

    def __init__(self, page: Page, city: City, photo: Path) -> None:
        self.page, self._city = page, city
        page.goto(f"{city.url}/#/report")
        form = page.get_by_test_id("report").locator("form").first
        form.locator("select").select_option("water")
        form.locator("textarea").fill("The river foams below the mill")
        form.locator("input[type=file]").set_input_files(photo)
        form.locator("button[type=submit]").click()
        self._receipt = page.get_by_test_id("receipt").inner_text()

    def is_told(self, *stages: str) -> None:
        """The status page shows these stages."""
        self.page.goto("about:blank")
        self.page.goto(f"{self._city.url}/#/report/{self._receipt}")
        expect(self.page.get_by_test_id("report-steps").locator("li")).to_have_text(list(stages))


def _to_verification(people: People, resident: Resident, photos: dict[str, Path]) -> None:
    resident.is_told("Reported")
    assert people.figures()["filing_rate"] == "\N{EN DASH}"
    people.refused("file", seen=False)
    people.step("operator", "file", "filed")
    resident.is_told("Reported", "Filed")
    assert people.figures()["filing_rate"] == "100 %"

    people.refused("dispatch", seen=False)
    people.step("dispatcher", "dispatch", "dispatched")
    resident.is_told("Reported", "Filed", "Dispatched")
    assert people.figures()["accurate_dispatch_rate"] == "100 %"

    people.refused("accept")
    people.step("department", "accept", "handling")
    people.refused("handled")
    people.add("department", "before", photos["before"])
    people.step("department", "handled", "verifying", "the mill's valve is shut")
    resident.is_told("Reported", "Filed", "Dispatched", "Handling", "To be verified")
    figures = people.figures()
    assert (figures["handled_on_time"], figures["rework_rate"]) == ("100 %", "0.0 %")


def _sent_back_and_handled_again(people: People, photos: dict[str, Path]) -> None:
    people.refused("reject")
    people.step("operator", "reject", "dispatched", "it still foams")
    assert people.figures()["rework_rate"] == "100 %"
    people.step("department", "accept", "handling")
    people.step("department", "ask-extension", "handling", "the laboratory answers tomorrow")
    people.refused("approve")
    people.step("dispatcher", "approve", "handling")
    people.add("department", "after", photos["after"])
    people.step("department", "handled", "verifying", "cleaned")


def test_a_case_goes_its_way_through_the_page(
    browser: Browser, city: City, tmp_path: Path, photos: dict[str, Path]
) -> None:
    with ExitStack() as stack:
        people = People(browser, city, (tmp_path / "setup-link").read_text().strip(), stack)
        phone = ViewportSize(width=390, height=844)
        page = stack.enter_context(browser.new_context(viewport=phone, locale="en-GB")).new_page()
        resident = Resident(page, city, photos["before"])
        _to_verification(people, resident, photos)
        _sent_back_and_handled_again(people, photos)

        people.refused("confirm")
        people.add("operator", "after", photos["after"])
        SCREENSHOTS.mkdir(exist_ok=True)
        for role in SIZES:
            page = people.case(role)
            for stage in ("before", "after"):
                expect(page.get_by_test_id(f"photos-{stage}").locator("img")).to_have_count(2)
            expect(page.get_by_test_id("add-before")).to_have_count(0)
            may_add = role in {"operator", "department"}
            expect(page.get_by_test_id("add-after")).to_have_count(1 if may_add else 0)
            page.screenshot(path=SCREENSHOTS / f"case-photos-{role}.png")
        people.step("operator", "confirm", "closed")
        again = ("Dispatched", "Handling", "To be verified")
        resident.is_told("Reported", "Filed", *again, *again, "Closed")
        resident.page.screenshot(path=SCREENSHOTS / "case-resident.png", full_page=True)
        assert people.figures()["closed_on_time"] == "100 %"
        _the_history_is_shown(people.pages["viewer"])
        assert people.complaints == []


def _the_history_is_shown(viewer: Page) -> None:
    expect(viewer.get_by_test_id("case-row")).to_have_count(0)
    viewer.get_by_role("checkbox").uncheck()
    viewer.screenshot(path=SCREENSHOTS / "case-list.png")
    expect(viewer.get_by_test_id("case-row")).to_have_attribute("data-state", "closed")
    expect(viewer.get_by_test_id("new-case")).to_have_count(0)
    viewer.get_by_test_id("case-row").click()
    expect(viewer.get_by_test_id("case")).to_contain_text("nothing for you to do")
    history = viewer.get_by_test_id("history").locator("li")
    for line in ("the mill's valve is shut", "it still foams", "the laboratory answers tomorrow", "Approve"):
        expect(history.filter(has_text=line)).to_have_count(1)
    for language in ("zh", "ko"):
        viewer.get_by_test_id(f"lang-{language}").click()
        expect(viewer.get_by_test_id("case")).not_to_contain_text("nothing for you to do")
        viewer.screenshot(path=SCREENSHOTS / f"case-{language}.png")


def test_a_step_that_is_not_for_a_role_is_refused_in_words(browser: Browser, city: City, tmp_path: Path) -> None:
    with ExitStack() as stack:
        people = People(browser, city, (tmp_path / "setup-link").read_text().strip(), stack)
        operator = people.pages["operator"]
        operator.get_by_test_id("place-cases").click()
        form = operator.get_by_test_id("new-case")
        form.locator("select").select_option("water")
        form.locator("input").fill("The river foams")
        form.locator("button").click()
        people.step("operator", "file", "filed")

        def tampered(route: Route) -> None:
            case = route.fetch().json()
            route.fulfill(json={**case, "allowed": [*case["allowed"], "dispatch"]})

        case = re.compile(r"/api/v1/incidents/1$")
        operator.route(case, tampered)  # each time: the stream says that cases changed, and the page asks again
        people.case("operator").get_by_test_id("do-dispatch").click()
        operator.unroute(case)
        operator.get_by_test_id("step").locator(".go").click()
        refusal = operator.get_by_test_id("case").get_by_role("alert")
        expect(refusal).to_contain_text("Your role may not do this. 'dispatch' is for: administrator, dispatcher")
        expect(operator.get_by_test_id("do-dispatch")).to_have_count(0)
        expect(operator.get_by_test_id("case-state")).to_have_attribute("data-state", "filed")
        operator.screenshot(path=SCREENSHOTS / "case-refused.png")


def test_a_return_waits_for_a_dispatcher_and_a_duplicate_is_merged(
    browser: Browser, city: City, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        people = People(browser, city, (tmp_path / "setup-link").read_text().strip(), stack)
        for number, text in enumerate(("The river foams", "Foam on the river"), 1):
            body = {"kind": "water", "text": text}
            assert people.ask(people.pages["operator"], "POST", "/api/v1/incidents", body)["id"] == number
        people.step("operator", "file", "filed")
        people.step("dispatcher", "dispatch", "dispatched")
        people.step("department", "ask-return", "dispatched", "this is the harbour's")
        expect(people.pages["department"].get_by_test_id("do-approve")).to_have_count(0)
        expect(people.pages["department"].get_by_test_id("do-ask-void")).to_have_count(0)
        people.refused("approve")
        dispatcher = people.case("dispatcher")
        expect(dispatcher.get_by_test_id("case")).to_contain_text("asks to return it: this is the harbour's")
        dispatcher.screenshot(path=SCREENSHOTS / "case-asked.png")
        people.step("dispatcher", "approve", "filed")
        assert people.figures()["accurate_dispatch_rate"] == "0.0 %"

        people.case("operator").get_by_test_id("do-merge").click()
        form = people.pages["operator"].get_by_test_id("step")
        form.locator("input[type=number]").fill("2")
        form.locator(".go").click()
        expect(people.pages["operator"].get_by_test_id("case-state")).to_have_attribute("data-state", "merged")
        people.pages["operator"].goto(f"{city.url}/#/cases/2")
        expect(people.pages["operator"].get_by_test_id("history")).to_contain_text("Duplicate merged")
        assert people.complaints == []
