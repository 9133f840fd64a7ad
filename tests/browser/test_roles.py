"""Each page as each role sees it: it loads without complaint, and offers only what the role may do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import served
from tests.browser.test_cases import People
from tests.browser.test_every_page import PAGES, go
from tests.browser.town import City
from tests.browser.visit import SCREENSHOTS

DESK = {"administrator", "operator", "dispatcher"}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[tuple[City, str]]:
    """Starts a city, and has the link of its first administrator."""
    folder = tmp_path_factory.mktemp("city")
    with served(folder, free_port(), "[cases]\nwatch = true\npublic = true\n") as city:
        yield city, (folder / "setup-link").read_text().strip()


@pytest.fixture(scope="module")
def people(browser: Browser, city: tuple[City, str]) -> Iterator[People]:
    """A page of each role, signed in."""
    with ExitStack() as stack:
        yield People(browser, *city, stack)


@pytest.mark.parametrize("role", ["administrator", "operator", "dispatcher", "department", "viewer"])
def test_a_role_sees_every_page_and_is_offered_what_it_may_do(
    people: People, city: tuple[City, str], role: str
) -> None:
    page, refused = people.pages[role], []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    offered: dict[str, int] = {}
    for name in PAGES:
        go(page, city[0], name)
        if name == "emergency":
            offered["acknowledge"] = page.get_by_test_id("acknowledge").count()
        elif name == "cases":
            expect(page.get_by_test_id("case-row").first).to_be_visible()
            offered["open a case"] = page.get_by_test_id("new-case").count()
        elif name == "settings":
            expect(page.get_by_test_id("settings")).to_have_attribute("data-role", role)
            offered["people"] = page.get_by_test_id("settings-people").count()
            page.screenshot(path=SCREENSHOTS / f"settings-{role}.png")
    at_desk = int(role in DESK)
    assert offered == {"acknowledge": at_desk, "open a case": at_desk, "people": int(role == "administrator")}
    assert not refused, refused
    assert not people.complaints, people.complaints
