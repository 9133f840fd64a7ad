import gzip
import json
import time
from pathlib import Path

import pytest

from gateway.replay import main
from tests.servers.conftest import FreePort, Mosquitto
from tests.servers.listener import Listener, Wire


def _csv(folder: Path, rows: int) -> Path:
    path = folder / "recorded.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("time,station,pm25,wind_direction\n")
        file.writelines(f"{1_700_000_000_000 + row},roof-{row % 7},{row}.50,NNW\n" for row in range(rows))
    return path


def _counted(listener: Listener) -> set[int]:
    return {int(json.loads(payload)["pm25"]) for _, payload in listener.heard}


def test_every_row_arrives_as_written(mosquitto: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = mosquitto()
    with Listener(server.port) as listener:
        code = main(_csv(tmp_path, 3000), broker_address=f"127.0.0.1:{server.port}", speed="max", as_json=True)
        listener.until(lambda: len(listener.heard) >= 3000)
    assert code == 0
    assert listener.heard[8] == (
        "city/replay/air/roof-1",
        b'{"ts":1700000000008,"pm25":8.50,"wind_direction":"NNW"}',
    )
    assert len(listener.heard) == 3000
    summary = json.loads(capsys.readouterr().out)
    assert (summary["messages"], summary["rows"], summary["bad_rows"]) == (3000, 3000, 0)


def test_a_connection_that_breaks_loses_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    server = mosquitto()
    with Listener(server.port) as listener, Wire(server.port, [20_000, 10, 150_000]) as wire:
        code = main(_csv(tmp_path, 5_000), broker_address=f"127.0.0.1:{wire.port}", speed="max")
        listener.until(listener.quiet)
    assert code == 0
    assert _counted(listener) == set(range(5_000))
    assert wire.connections == 4


def test_the_recordings_own_pace_times_the_speed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "slow.csv"
    path.write_text("time,name,laeq\n2025-01-01T00:00:00Z,a,50\n2025-01-01T00:01:00Z,a,51\n")
    began = time.monotonic()
    assert main(path, broker_address=f"127.0.0.1:{mosquitto().port}", speed="60") == 0
    assert 1 <= time.monotonic() - began < 5


def test_the_last_reading_can_be_of_now(mosquitto: Mosquitto, tmp_path: Path) -> None:
    server = mosquitto()
    with Listener(server.port) as listener:
        main(_csv(tmp_path, 10), broker_address=f"127.0.0.1:{server.port}", speed="max", shift_to_now=True, limit=10)
        listener.until(lambda: len(listener.heard) == 10)
    times = [json.loads(payload)["ts"] for _, payload in listener.heard]
    assert times[-1] - times[0] == 9
    assert abs(times[-1] / 1000 - time.time()) < 30


def test_a_broker_that_is_not_there_is_said_at_once(
    free_port: FreePort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    assert main(_csv(tmp_path, 10), broker_address=f"127.0.0.1:{port}", speed="max") == 1
    assert f"127.0.0.1:{port}: Connection refused" in capsys.readouterr().err


def test_a_wrong_password_is_said(mosquitto: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("wrong\n")
    server = mosquitto(anonymous=False)
    code = main(
        _csv(tmp_path, 10),
        broker_address=f"127.0.0.1:{server.port}",
        username="town",
        password_file=tmp_path / "password",
    )
    assert code == 1
    assert "not authorised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"speed": "fast"}, "speed: expected a number above 0 or 'max'"),
        ({"topic": "city/{town}"}, "unknown {town}"),
        ({"timezone": "Mars/Olympus"}, "no zone 'Mars/Olympus'"),
        ({"columns": ("pm25",)}, "expected NAME=QUANTITY"),
        ({"broker_address": "here:there"}, "expected HOST:PORT"),
        ({"username": None, "password_file": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_wrong_usage_is_exit_code_two(
    options: dict[str, object], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_csv(tmp_path, 1), **options) == 2  # type: ignore[arg-type]
    assert says in capsys.readouterr().err
