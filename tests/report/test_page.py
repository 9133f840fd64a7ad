"""The page: whole, harmless, and small."""

import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from gateway.config import GatewayConfig
from gateway.edge.reasons import Reason
from gateway.report import charts
from gateway.report.figures import summary
from gateway.report.page import _REASONS, _percent, e, page
from gateway.report.play import Play
from gateway.streams import Stream
from tests.report.recordings import CONFIG, HOSTILE, Message, day, reading, write

ALLOWED = re.findall(
    r"\w+",
    "html head meta title style body main header section h1 h2 h3 p b br i small code time span div ul li table thead "
    "tbody tr th td figure figcaption svg path text rect",
)
VOID = {"meta", "br"}


def made(folder: Path, messages: list[Message], config: GatewayConfig = CONFIG) -> tuple[str, Play]:
    play = Play(Stream(write(folder / "r.cgrec", messages)), config)
    play.run(Console(stderr=True))
    return page(play, summary(play), f"A day {HOSTILE}", UTC, datetime.now(UTC)), play


class Checker(HTMLParser):
    """Knows the elements that the page has, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            assert (self.get_starttag_text() or "").endswith("/>"), f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def of_day(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Play]:
    return made(tmp_path_factory.mktemp("day"), day())


def test_whatever_a_sender_says_is_text(of_day: tuple[str, Play]) -> None:
    text, _ = of_day
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not {name for name in checker.attributes if name.startswith("on") or name in {"src", "href"}}
    assert "&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\\u202e\\udcff" in text, "what cannot be seen, or turns the writing, is spelt out"
    assert text.encode("utf-8")


def test_nothing_is_fetched_from_anywhere(of_day: tuple[str, Play]) -> None:
    text, _ = of_day
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_it_says_what_the_recording_was_made_of(of_day: tuple[str, Play]) -> None:
    text, _ = of_day
    for word in ("2,762", "gross range", "outside what the sensor can measure", "91.7 %", "no declared source"):
        assert word in text
    assert "2026-09-21 19:13:20" in text


def test_every_reason_is_put_in_words() -> None:
    assert set(_REASONS) == set(Reason)


def test_an_empty_recording_makes_a_page_too(tmp_path: Path) -> None:
    text, _ = made(tmp_path, [])
    assert "no message" in text
    assert "There is nothing to draw." in text


def test_a_page_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few, many = (
        made(tmp_path / name, [reading(86_400 * n // count, pm25=n * 7919 % 97) for n in range(count)])[0]
        for name, count in (("few", 2000), ("many", 8000))
    )
    assert len(many) < 1.1 * len(few)
    assert len(few) < 60_000


def test_personal_data_stay_out_of_dead_letters(tmp_path: Path) -> None:
    source = {"topic": "gate/{sensor}", "kind": "passage", "site": "east", "personal": True}
    config = GatewayConfig.model_validate(
        {"gateway": {"id": "gw"}, "source": [source], "output": [{"url": "http://127.0.0.1"}]}
    )
    text, _ = made(tmp_path, [(n, "gate/g1", '{"plate":"京A12345", cut off'.encode()) for n in range(3)], config)
    assert "京A12345" not in text
    assert "gate/g1" in text


def test_a_line_breaks_where_values_are_missing(of_day: tuple[str, Play]) -> None:
    _, play = of_day
    whole, late = (charts.chart(play, channel, 60_000, UTC, "x") for channel in (0, 1))
    (line,) = re.findall(r'class="line" d="([^"]+)"', late)
    assert line.count("M") == 2
    assert 'class="fail"' in whole
    assert 'class="fail"' not in late


def test_failed_values_do_not_set_the_scale_unless_most_failed(of_day: tuple[str, Play], tmp_path: Path) -> None:
    _, play = of_day
    assert ">5000<" not in charts.chart(play, 0, 60_000, UTC, "x")
    _, broken = made(tmp_path, [reading(60 * n, pm25=5000 if n else 5) for n in range(10)])
    assert ">6000<" in charts.chart(broken, 0, 60_000, UTC, "x")


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=5, minutes=45))])
@pytest.mark.parametrize("days", [0.01, 0.1, 1, 3, 30, 400, 4000])
def test_ticks_are_few_and_at_full_hours_of_the_zone(days: float, zone: timezone | ZoneInfo) -> None:
    first, span = 1_774_000_000_000, round(days * 86_400_000)
    ticks = list(charts._ticks(first, span, zone))
    assert 1 <= len(ticks) <= 9
    assert all(first <= time <= first + span for time, _ in ticks)
    assert all(later > earlier for (earlier, _), (later, _) in pairwise(ticks))
    if days >= 1:
        moments = [datetime.fromtimestamp(time / 1000, zone) for time, _ in ticks]
        assert {moment.minute for moment in moments} == {0}
        assert days < 8 or {moment.hour for moment in moments} == {0}


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-6, "&lt; 0.01 %"), (0.005, "0.50 %"), (0.5, "50.0 %"), (0.99999, "&gt; 99.9 %"), (1, "100 %")],
)
def test_little_is_not_nothing_and_nearly_all_is_not_all(share: float, text: str) -> None:
    assert _percent(share) == text


def test_text_is_escaped_and_made_visible() -> None:
    assert e("<a b='\"'>&\n\x00\x1b\u2066京") == "&lt;a b=&#x27;&quot;&#x27;&gt;&amp; \\x00\\x1b\\u2066京"
