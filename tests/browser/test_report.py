"""The report's page in a real browser: on a screen, a phone and paper."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from typer.testing import CliRunner

from gateway.__main__ import app
from tests.report.recordings import day, write


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = CliRunner().invoke(app, ["report", str(write(folder / "day.cgrec", day())), "-o", str(folder / "day.html")])
    assert done.exit_code == 0, done.output
    return folder / "day.html"


@pytest.mark.parametrize(
    ("width", "media", "scheme"),
    [(1366, "screen", "light"), (1366, "screen", "dark"), (390, "screen", "light"), (688, "print", "light")],
)
def test_the_page_fits_fetches_nothing_and_runs_nothing(
    browser: Browser, page_file: Path, width: int, media: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 768}, color_scheme=scheme)  # type: ignore[arg-type]
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.emulate_media(media=media)  # type: ignore[arg-type]
    page.goto(page_file.as_uri())
    assert asked == [page_file.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg path.line").count() == 2
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    dark = scheme == "dark"
    assert (_light(ink) > _light(paper)) is dark
    page.close()


def _light(color: str) -> int:
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
