"""A recording, replayed at full speed through a real broker and the agent, is in the database to the last value."""

import csv
import json
import math
import random
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import Gateway, MakeGateway, make_gateway, output, query, wait_for

__all__ = ["make_gateway"]

QUANTITIES = ("pm25", "pm10", "temperature", "pressure", "wind_speed")
HOURS, STATIONS = 800, 6
Values = dict[tuple[str, str, int], float]


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, Values]:
    """Six stations, hourly, with gaps of single values and of whole rows; and what must be stored of it."""
    draw = random.Random(7)  # noqa: S311 - repeatable
    values: Values = {}
    start = datetime(2025, 1, 1, tzinfo=UTC)
    path = tmp_path / "year.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "station", *QUANTITIES, "wind_direction"])
        for hour in range(HOURS):
            moment = start + timedelta(hours=hour)
            for station in range(STATIONS):
                base = 30 + 20 * math.sin(hour / 24)
                row = [base, base * 1.6, base / 4, 1000 + base / 5, 2 + base / 30]
                cells = [f"{value + draw.uniform(0, 3):.1f}" for value in row]
                cells = ["" if draw.random() < 0.1 else cell for cell in cells]
                if draw.random() < 0.05:
                    cells = [""] * len(cells)
                direction = "NNW" if any(cells) else ""
                writer.writerow([moment.isoformat(), f"st-{station}", *cells, direction])
                for name, cell in zip(QUANTITIES, cells, strict=True):
                    if cell:
                        values[f"st-{station}", name, round(moment.timestamp() * 1000)] = float(cell)
    return path, values


def rows_with_a_value(values: Values) -> int:
    return len({(station, time) for station, _, time in values})


def replay(path: Path, port: int, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "gateway", "replay", str(path), "--broker", f"127.0.0.1:{port}"]
    command += ["--speed", "max", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    summary: dict[str, float] = json.loads(done.stdout)
    return summary


def stored_values(influxdb: Server) -> Values:
    values: Values = {}
    for name in QUANTITIES:
        text = f"SELECT {name}, sensor FROM air WHERE site = 'replay'"  # noqa: S608 - names from above
        for time_ms, value, sensor in query(influxdb, text):
            if value is not None:
                values[sensor, name, time_ms] = value
    return values


def test_every_row_is_one_point_in_influxdb_with_the_values_of_the_file(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway, recording: tuple[Path, Values]
) -> None:
    path, values = recording
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    summary = replay(path, broker.port)
    assert summary["messages"] == rows_with_a_value(values)
    wait_for(lambda: stored_points(influxdb) == rows_with_a_value(values), "every row stored")
    assert stored_values(influxdb) == values
    directions = query(influxdb, "SELECT DISTINCT(wind_direction) FROM air")
    assert [row[1] for row in directions] == [337.5]
    ledger = gateway.ledger()
    assert ledger["delivered"] == ledger["received"]


def stored_points(influxdb: Server) -> int:
    rows = query(influxdb, "SELECT count(wind_direction_qc) FROM air")
    return int(rows[0][1]) if rows else 0


def test_every_value_is_in_victoriametrics_through_the_v2_api(
    mosquitto: Mosquitto, victoria_metrics: Server, make_gateway: MakeGateway, recording: tuple[Path, Values]
) -> None:
    path, values = recording
    broker = mosquitto()
    rest = f'[[output]]\ntype = "influxdb2"\nurl = "{victoria_metrics.url}"\nflush_interval = "200ms"\n'
    gateway = make_gateway(broker.port, rest)
    gateway.start()
    replay(path, broker.port)
    wait_for(lambda: gateway.ledger()["queued"] == 0 and gateway.ledger()["received"] > len(values), "delivery")

    def exported() -> Values:
        found: Values = {}
        match = urllib.parse.urlencode({"match[]": '{site="replay"}', "start": "2024-12-31T00:00:00Z"})
        url = f"{victoria_metrics.url}/api/v1/export?{match}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
            for line in answer:
                series = json.loads(line)
                name = series["metric"]["__name__"].removeprefix("air_")
                if name in QUANTITIES:
                    pairs = zip(series["timestamps"], series["values"], strict=True)
                    found |= {(series["metric"]["sensor"], name, time_ms): value for time_ms, value in pairs}
        return found

    wait_for(lambda: len(exported()) == len(values), "every value to be searchable")
    assert exported() == values


def test_an_agent_killed_in_the_middle_of_the_replay_leaves_the_same_points(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway, recording: tuple[Path, Values]
) -> None:
    path, values = recording
    shipped = Path("deploy/mosquitto/mosquitto.conf").read_text("utf-8").splitlines()
    limits = [line for line in shipped if line.startswith(("max_", "persistence ", "autosave_", "persistent_client"))]
    assert any(line.startswith("max_queued_messages") for line in limits)
    broker = mosquitto(*limits)
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    kills = killer(gateway, lambda: stored_points(influxdb), rows_with_a_value(values))
    replay(path, broker.port)
    kills.join(timeout=100)
    assert gateway.process is not None
    wait_for(lambda: stored_points(influxdb) == rows_with_a_value(values), "every row stored")
    wait_for(lambda: gateway.ledger()["queued"] == 0, "everything delivered")
    assert stored_values(influxdb) == values
    ledger = gateway.ledger()
    assert ledger["received"] == sum(count for fate, count in ledger.items() if fate != "received")


def killer(gateway: Gateway, stored: Callable[[], int], total: int) -> threading.Thread:
    """Kills and restarts the agent twice while rows come in."""

    def work() -> None:
        for part in (0.1, 0.4):
            deadline = time.monotonic() + 60
            while stored() < part * total:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            gateway.kill()
            gateway.start()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
