"""Makes the report of a recording."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.config import GatewayConfig
from gateway.layouts import zone_of
from gateway.report.figures import summary
from gateway.report.page import page
from gateway.report.play import Play
from gateway.streams import Stream, is_table


def main(  # noqa: PLR0913 - the command's options
    recording: Path,
    *,
    config: GatewayConfig,
    output: Path,
    title: str | None,
    topic: str | None,
    timezone: str | None,
    layout: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Plays a recording and writes the page.

    Args:
        recording: ``.cgrec`` or CSV.
        config: The gateway's.
        output: The HTML file.
        title: Of the page; by default the recording's name.
        topic: Template of the topics of a CSV's rows.
        timezone: Zone of the page's times, and of a CSV's times without an offset; UTC by default.
        layout: How to read a CSV; for a recording of messages it must be empty.
        as_json: Print what the page says as JSON.

    Raises:
        KindError: A file of kinds cannot be used.
        OSError: The page cannot be written.
        RecordingError: The recording is no CSV that can be read.
        SourceError: A source cannot be used as declared.
        StreamError: The recording is none that can be read.
        ValueError: An option is wrong, or the recording is not there.
    """
    zone: tzinfo = zone_of(timezone) if timezone else UTC
    console = Console(stderr=True)
    with console.status(f"Reading {recording} …"):
        try:
            named = {"timezone": timezone} if timezone and is_table(recording) else {}
            stream = Stream(recording, topic, {**layout, **named})
        except OSError as error:
            msg = f"{recording}: {error.strerror}"
            raise ValueError(msg) from error
    play = Play(stream, config)
    play.run(console)
    said = summary(play)
    text = page(play, said, title or f"Report: {recording.name}", zone, datetime.now(UTC))
    output.write_text(text, "utf-8")
    if as_json:
        sys.stdout.write(json.dumps(said, indent=2, ensure_ascii=False) + "\n")
        return
    flags = said["flags"]
    sys.stdout.write(
        f"{said['messages']:,} messages of {said['sensors']:,} sensors: {said['readings']:,} readings, "
        f"{flags['suspect']:,} suspect, {flags['fail']:,} failed, {len(said['events']):,} events, "
        f"{sum(letters['messages'] for letters in said['dead_letters']):,} dead letters\n"
        f"{output}: {len(text.encode()) / 1e6:.1f} MB\n"
    )
