"""What the benches share: servers, a report that becomes a table a topic and one JSON file, and how long to measure.

``BENCH_SCALE=0.2 make bench`` measures a fifth as long, ``BENCH_SCALE=5`` five times; ``BENCH_TREE=DIR`` measures the
agent of another checkout; ``BENCH_JSON=FILE`` says where the JSON goes.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.bench import machine
from tests.bench.contenders import TREE, Victoria
from tests.servers.conftest import Mosquitto, Server, influxdb, mosquitto, victoria_metrics

__all__ = ["influxdb", "mosquitto", "victoria_metrics"]


class Report:
    """Tables for people and one JSON file for programs.

    Attributes:
        scale: How long to measure, as a multiple of the default.
    """

    def __init__(self) -> None:
        self.scale = float(os.environ.get("BENCH_SCALE", "1"))
        default = Path(tempfile.gettempdir()) / f"citygate-bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        self.path = Path(os.environ.get("BENCH_JSON", default)).absolute()
        self._console = Console(width=None if Console().is_terminal else 120)
        self._status = self._console.status("")
        self._began = time.monotonic()
        self._data: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "tree": str(TREE),
            "scale": self.scale,
        }

    def scaled(self, number: float, least: int = 1) -> int:
        """A number of messages or seconds, as long as is asked for."""
        return max(least, round(number * self.scale))

    def say(self, what: str) -> None:
        """Shows what goes on now."""
        text = f"{time.monotonic() - self._began:5.0f} s  {what} …"
        if not self._console.is_terminal:
            self._console.print(text, highlight=False)
        else:
            self._status.update(text)
            self._status.start()

    def table(self, topic: str, title: str, rows: list[dict[str, Any]], *notes: str) -> None:
        """Prints a table and keeps its rows for the JSON; what a row says under "_" is for the JSON alone."""
        self._status.stop()
        table = Table()
        names = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("_")))
        for name in names:
            words = all(isinstance(row.get(name, ""), str) for row in rows)
            table.add_column(name, justify="left" if words else "right")
        for row in rows:
            table.add_row(*(_shown(row.get(name, "")) for name in names))
        self._console.print(f"\n[bold]{title}[/bold]", highlight=False)
        self._console.print(table)
        for note in notes:
            self._console.print(note, highlight=False)
        self._data[topic] = {
            "title": title,
            "rows": [{name.lstrip("_"): value for name, value in row.items()} for row in rows],
            "notes": list(notes),
        }

    def close(self) -> None:
        """Writes the JSON."""
        self._status.stop()
        self._data["seconds"] = round(time.monotonic() - self._began)
        self.path.write_text(json.dumps(self._data, indent=1, ensure_ascii=False) + "\n", "utf-8")
        self._console.print(f"\n{self._data['seconds']} s; JSON: {self.path}", highlight=False, soft_wrap=True)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Stage:
    """What every bench needs.

    Attributes:
        report: Where its figures go.
        mosquitto: Starts a broker, empty.
        folder: For files, on a real file system.
        free_port: Gives a port of loopback that nobody listens on.
    """

    report: Report
    mosquitto: Mosquitto
    folder: Path
    free_port: Callable[[], int]

    def within(self, name: str) -> Path:
        """A new folder."""
        path = self.folder / name
        path.mkdir()
        return path


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    made = Report()
    yield made
    made.close()


@pytest.fixture
def stage(report: Report, mosquitto: Mosquitto, tmp_path: Path, free_port: Callable[[], int]) -> Stage:
    return Stage(report, mosquitto, tmp_path, free_port)


@pytest.fixture
def database(stage: Stage, victoria_metrics: Server) -> Iterator[Victoria]:
    with Victoria(victoria_metrics, stage.within("door"), stage.free_port()) as made:
        yield made
