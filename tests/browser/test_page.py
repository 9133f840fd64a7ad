"""The operations page in a real browser, against a real server."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import served
from tests.browser.town import CHARTED, City, reading, sensors
from tests.browser.visit import SCREENSHOTS, SIZES, SMALL_TEXT, Visit, opened

NOTHING = "\N{EN DASH}"
CHARTED_ID = ":".join(CHARTED)


@pytest.fixture
def visit(browser: Browser, city: City, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens the page at the size of the parameter."""
    with opened(browser, city, getattr(request, "param", "wall")) as visit:
        yield visit


def test_every_sensor_is_listed_and_on_the_map(visit: Visit) -> None:
    """More than sixty sensors, live, each with a row and a place."""
    expect(visit.page.get_by_test_id("sensor-row")).to_have_count(63)
    drawn = visit.page.get_by_test_id("map")
    expect(drawn).to_have_attribute("data-drawn", "63")
    visit.page.get_by_test_id("layer-water").click()
    expect(drawn).to_have_attribute("data-drawn", "54")
    visit.page.get_by_test_id("theme").click()
    visit.page.get_by_test_id("layer-water").click()
    expect(drawn).to_have_attribute("data-drawn", "63")


def test_a_new_reading_appears_without_a_reload(visit: Visit, city: City) -> None:
    """What is written to the server reaches the open page."""
    page = visit.page
    page.evaluate("window.sameDocument = true")
    city.write([reading("noise", "changhua", "noise-02", time.time_ns() // 1_000_000, laeq=61.7)])
    expect(page.locator('[data-sensor="noise:changhua:noise-02"]')).to_contain_text("61.7")
    assert page.evaluate("window.sameDocument") is True


def test_an_event_comes_and_ends_while_one_watches(visit: Visit, city: City) -> None:
    """Severity is told in colour, shape and word, and an ended event leaves the open ones."""
    page = visit.page
    rows = page.get_by_test_id("alert-row")
    expect(rows.and_(page.locator('[data-severity="orange"]'))).to_contain_text("orange")
    tags = "gateway=gw-1,kind=air,sensor=air-02,site=changhua"
    fields = 'id="e-live",quantity="pm25",value={},limit=250,message="PM2.5"'
    now = time.time_ns() // 1_000_000
    city.write([f"event,{tags},severity=red {fields.format(260)} {now}"])
    red = rows.and_(page.locator('[data-severity="red"][data-state="open"]'))
    expect(red).to_have_count(1)
    expect(red).to_contain_text("over 250")
    city.write([f"event,{tags},severity=none {fields.format(40)} {now + 1}"])
    expect(red).to_have_count(0)


@pytest.mark.parametrize("visit", ["wall", "phone"], indirect=True)
def test_a_plume_is_one_alert_with_its_source_and_acknowledged_by_keyboard(
    visit: Visit, city: City, request: pytest.FixtureRequest
) -> None:
    """Two sites, one row: from where the wind came, what lies there, and who took notice; in three languages."""
    page, now = visit.page, time.time_ns() // 1_000_000
    size = request.node.callspec.params["visit"]

    def lines(severity: str, at: int) -> list[str]:
        tags = "event,gateway=gw-1,kind=air,sensor={},site={},severity=" + severity
        fields = 'id="{}-' + size + '",quantity="pm10",value=300,limit=250,message="PM10"'
        sites = ("air-02", "changhua"), ("air-05", "heqiao")
        return [f"{tags.format(*its)} {fields.format(its[1])} {at + n}" for n, its in enumerate(sites)]

    # the same sites again are the same alert, which only asks again when it is graver
    city.write(lines("yellow" if size == "wall" else "orange", now))
    plume = page.get_by_test_id("alert-row").and_(page.locator('[data-cause="air"][data-state="open"]'))
    expect(plume).to_have_count(1)
    expect(plume).to_contain_text("Changhua, Heqiao")
    expect(plume.get_by_test_id("upwind")).to_contain_text(f"upwind NE (10°{NOTHING}70°, 3.2 m/s)")
    expect(plume.get_by_test_id("sources")).to_contain_text("Cement works")
    water = page.get_by_test_id("alert-row").and_(page.locator('[data-cause="high-water"]'))
    expect(water.get_by_test_id("upstream")).to_contain_text("Changhua water-02 1.80 m")
    for language, words in (("zh", "上风向 东北"), ("ko", "풍상측 북동"), ("en", "upwind NE")):
        page.get_by_test_id(f"lang-{language}").click()
        expect(plume.get_by_test_id("upwind")).to_contain_text(words)
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"alerts-{size}.png")
    plume.locator(".row").click()
    running = page.get_by_test_id("event-row").and_(page.locator('[data-open="true"]'))
    expect(running).to_have_count(2)
    plume.get_by_test_id("acknowledge").press("Enter")
    plume.get_by_test_id("operator").press_sequentially("Li Na")
    plume.get_by_test_id("operator").press("Enter")
    taken = page.get_by_test_id("alert-row").and_(page.locator('[data-cause="air"][data-state="acknowledged"]'))
    expect(taken.get_by_test_id("acknowledged")).to_have_text("acknowledged by Li Na")
    page.reload()
    expect(taken).to_have_count(1)
    city.write(lines("none", now + 10))
    expect(taken).to_have_count(0)


def test_grades_are_shown_and_the_index_is_the_viewers_choice(visit: Visit, city: City) -> None:
    """Air by three indices, water by class with its worst factor, noise by limit, roads by grade."""
    page = visit.page
    indices = page.request.get(f"{city.url}/api/v1/overview").json()["grades"]["town"]["air"]["now"]
    assert indices["cn"]["value"] != indices["us"]["value"]
    now, environment = page.get_by_test_id("aqi-now"), page.get_by_test_id("environment")
    expect(now).to_have_text(str(indices["cn"]["value"]))
    expect(environment).to_contain_text("led by PM10")
    expect(environment).to_contain_text("Good")
    expect(page.get_by_test_id("aqi-day")).to_have_text(NOTHING)
    page.get_by_test_id("index-us").click()
    expect(now).to_have_text(str(indices["us"]["value"]))
    page.reload()
    expect(now).to_have_text(str(indices["us"]["value"]))
    page.get_by_test_id("index-kr").click()
    expect(now).to_have_text(NOTHING)  # without nitrogen dioxide there is no CAI
    expect(environment).to_contain_text("too few data")
    water = page.get_by_test_id("water").get_by_role("button").first
    for words in ("Class III", "below target II", "worst Ammonia nitrogen"):
        expect(water).to_contain_text(words)
    expect(page.get_by_test_id("noise-over")).to_contain_text("of 9 over")
    expect(page.get_by_test_id("congestion")).to_have_text("3.7")  # 52 km/h, between 65 and 50
    expect(page.get_by_test_id("traffic")).to_contain_text("Basically free")
    page.get_by_test_id("lang-ko").click()
    for words in ("대기질", "수질 등급", "Ⅲ등급", "소음 기준"):
        expect(environment).to_contain_text(words)


def test_the_chart_tells_suspect_and_quarantined_values_apart(visit: Visit) -> None:
    """Suspect values are on the line, quarantined ones beside it, with the reason in words."""
    page = visit.page
    page.locator(f'[data-sensor="{CHARTED_ID}"]').click()
    chart = page.get_by_test_id("chart")
    expect(chart).to_have_attribute("data-suspect", "3")
    expect(chart).to_have_attribute("data-quarantined", "2")
    expect(page.get_by_test_id("quarantined")).to_contain_text("outside the gross range")
    page.get_by_test_id("range-24h").click()
    expect(chart).to_be_visible()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "chart.png")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("drawer")).to_have_count(0)


def test_the_whole_page_changes_its_language_at_once(visit: Visit) -> None:
    """Chinese, English and Korean, down to the kinds' titles from the server."""
    page = visit.page
    kinds = page.get_by_test_id("kind-title")
    seen = {}
    for language, word in (("zh", "实时事件"), ("ko", "실시간 이벤트"), ("en", "Live events")):
        page.get_by_test_id(f"lang-{language}").click()
        expect(page.get_by_role("heading", name=word)).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", language)
        seen[language] = kinds.first.inner_text()
    assert len(set(seen.values())) == 3
    assert re.search("[\u4e00-\u9fff]", seen["zh"])
    assert re.search("[\uac00-\ud7af]", seen["ko"])


def test_the_list_is_searched_and_filtered(visit: Visit) -> None:
    """By place, in any language, and by kind."""
    page = visit.page
    rows = page.get_by_test_id("sensor-row")
    page.get_by_test_id("filter-kind").select_option("water")
    expect(rows).to_have_count(9)
    page.get_by_test_id("search").fill("天目溪")
    expect(rows).to_have_count(2)


def test_the_page_is_worked_from_the_keyboard(visit: Visit) -> None:
    """A row opens with Enter, Escape closes the drawer, and the focus returns to the row."""
    page = visit.page
    row = page.locator(f'[data-sensor="{CHARTED_ID}"]')
    row.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("drawer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(row).to_be_focused()


@pytest.mark.parametrize("visit", SIZES, indirect=True, ids=list(SIZES))
def test_the_page_fits_its_screen(visit: Visit, city: City, request: pytest.FixtureRequest) -> None:
    """No sideways scrolling at any size; a screenshot of each, for people to look at."""
    page = visit.page
    name = request.node.callspec.params["visit"]
    SCREENSHOTS.mkdir(exist_ok=True)
    now = time.time_ns() // 1_000_000
    city.write([reading(*place, now) for place in sensors()])
    expect(page.get_by_test_id("live-count")).to_have_attribute("data-live", "63")
    tabs = ("events", "map", "sensors", "summary") if name == "phone" else ("",)
    for tab in tabs:
        if tab:
            page.get_by_test_id(f"tab-{tab}").click()
        if tab in {"", "map"}:
            expect(page.get_by_test_id("map")).to_have_attribute("data-drawn", "63")
        page.screenshot(path=SCREENSHOTS / f"{name}{tab and '-'}{tab}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if name == "phone":
        assert page.evaluate(SMALL_TEXT) == []


def test_an_undeclared_device_is_shown_with_what_accepts_it(
    browser: Browser, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """It has a row, and its drawer holds an entry for the file of devices."""
    with served(tmp_path, free_port()) as city, opened(browser, city, "wall") as visit:
        page, now = visit.page, time.time_ns() // 1_000_000
        fields = "temperature=21.5,temperature_qc=2i,humidity=40.0,humidity_qc=2i"
        city.write([f"holding,gateway=gw-1,sensor=0x00158d0001dc126a,site=unknown {fields} {now}"])
        row = page.locator('[data-sensor="holding:unknown:0x00158d0001dc126a"]')
        expect(row).to_contain_text("Undeclared devices")
        row.click()
        entry = page.get_by_test_id("declare")
        expect(entry.locator("pre")).to_have_text(
            '[0x00158d0001dc126a]\nkind = "weather"\nsite = "unknown"\nsensor = "0x00158d0001dc126a"'
        )
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_test_id("copy").click()
        expect(page.get_by_test_id("copy")).to_have_text("Copied")
        assert "weather" in page.evaluate("navigator.clipboard.readText()")
        page.screenshot(path=SCREENSHOTS / "undeclared.png")
