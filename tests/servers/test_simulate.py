import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.simulate import main
from sensors.town import Town
from tests.servers.conftest import Mosquitto, Server
from tests.servers.listener import Listener

START = datetime(2025, 11, 24, 1, tzinfo=UTC)


def test_three_minutes_of_the_town_arrive_and_its_places_and_truth_are_written(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    server = mosquitto()
    truth, registry = tmp_path / "truth.jsonl", tmp_path / "sensors.geojson"
    with Listener(server.port) as listener:
        code = main(
            broker_address=f"127.0.0.1:{server.port}",
            speed=1e6,
            duration=180,
            start=START,
            truth=truth,
            registry=registry,
        )
        listener.until(lambda: len({topic for topic, _ in listener.heard}) == len(Town(1).sensors))
    assert code == 0
    types = {json.loads(line)["type"] for line in truth.read_text().splitlines()}
    assert types == {"plume", "accident", "rainstorm", "stuck", "spike", "drift", "dropout", "garbage", "clock"}
    places = json.loads(registry.read_text("utf-8"))["features"]
    assert {f"city/{p['site']}/{p['kind']}/{p['sensor']}" for f in places if "sensor" in (p := f["properties"])} == {
        topic for topic, _ in listener.heard
    }


def test_same_options_same_messages(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"speed": 1e6, "duration": 20.0, "start": START, "dry_run": True, "seed": 4}
    assert main(**options) == 0  # type: ignore[arg-type]
    first = capsys.readouterr().out
    assert main(**options) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out == first
    assert first.count("\n") > 150
    assert first.startswith("city/")


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(name: signal.Signals, mosquitto: Mosquitto) -> None:
    server = mosquitto()
    with Listener(server.port) as listener, _process(server.port) as process:
        listener.until(lambda: len(listener.heard) > 5)
        process.send_signal(name)
        assert process.wait(10) == 0


def test_a_broker_that_comes_late_and_goes_hears_all_in_the_end(mosquitto: Mosquitto) -> None:
    running: Server = mosquitto()
    running.stop()
    with _process(running.port) as process:
        assert process.stderr is not None
        assert "publish to" in process.stderr.readline()
        assert "trying again" in process.stderr.readline()
        running.start()
        with Listener(running.port) as listener:
            listener.until(lambda: len(listener.heard) > 5)
        running.kill()
        assert "lost the connection" in process.stderr.readline()
        running.start()
        with Listener(running.port) as listener:
            listener.until(lambda: len(listener.heard) > 5)
        process.terminate()
        assert process.wait(10) == 0


def test_an_unknown_script_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(script="nowhere.toml") == 2
    assert "nowhere.toml" in capsys.readouterr().err


def _process(port: int) -> subprocess.Popen[str]:
    code = f"import sys; from gateway.simulate import main; sys.exit(main(broker_address='127.0.0.1:{port}', speed=20))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
