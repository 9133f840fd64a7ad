"""The city view as its own process, as a site runs it."""

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.city.conftest import WRITE

_RUN = "import sys; from pathlib import Path; from gateway.config import CityConfig, load; from gateway.city import serve; serve.main(load(Path(sys.argv[1]), CityConfig))"  # noqa: E501
_LINE = "air,gateway=g,site=s,sensor=a pm25={value} {time}"


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def config(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "city.toml"
    path.write_text(f'[server]\nport = {port}\n[access]\nwrite_token = "{WRITE}"\n[store]\npath = "city.db"\n')
    return path


@pytest.fixture
def process(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(config)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while True:
        try:
            _request(port, "GET", "/api/health")
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def _request(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, {"Authorization": f"Token {WRITE}"})
    with connection.getresponse() as response:
        response.read()
    connection.close()
    return response.status


class _Stream:
    def __init__(self, port: int, last_id: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.request("GET", "/api/v1/stream", headers={"Last-Event-ID": last_id} if last_id else {})
        self.response = self.connection.getresponse()

    def next(self) -> dict[str, str]:
        message: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            message[name] = value
        return message

    def until(self, event: str, text: str) -> dict[str, str]:
        while True:
            message = self.next()
            assert message, "the stream ended"
            if message.get("event") == event and text in message["data"]:
                return message


def _write(port: int, value: float) -> None:
    line = _LINE.format(value=value, time=time.time_ns() // 10**6)
    assert _request(port, "POST", "/api/v2/write?precision=ms", line) == 204


@pytest.mark.usefixtures("process")
def test_a_new_reading_reaches_an_open_page_and_a_page_that_comes_back(port: int) -> None:
    stream = _Stream(port)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.next()["event"] == "hello"
    _write(port, 1.25)
    first = stream.until("sensors", "1.25")
    assert json.loads(first["data"])["sensors"][0]["id"] == "air:s:a"
    _write(port, 2.5)
    second = stream.until("sensors", "2.5")
    assert int(second["id"]) > int(first["id"])
    back = _Stream(port, first["id"])
    assert back.next()["event"] == "hello"
    assert back.until("sensors", "2.5")["id"] == second["id"]
    assert "2.5" in _Stream(port, "not-a-number").until("sensors", "air")["data"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_time_with_a_stream_open(process: subprocess.Popen[bytes], port: int, number: int) -> None:
    stream = _Stream(port)
    assert stream.next()["event"] == "hello"
    process.send_signal(number)
    assert process.wait(10) == 0
    while stream.next():
        pass


@pytest.mark.usefixtures("process")
def test_a_port_in_use_is_a_clear_error(config: Path, port: int) -> None:
    second = subprocess.run([sys.executable, "-c", _RUN, str(config)], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
    assert WRITE not in second.stderr


def test_a_store_that_cannot_be_opened_is_a_clear_error(config: Path, tmp_path: Path) -> None:
    (tmp_path / "city.db").mkdir()
    run = subprocess.run([sys.executable, "-c", _RUN, str(config)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "ConfigError" in run.stderr
    assert "check the disk" in run.stderr


@pytest.mark.usefixtures("process")
def test_a_stream_ends_with_its_session(config: Path, port: int) -> None:
    def ask(method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        return connection.getresponse()

    link = config.with_name("setup-link").read_text().strip().partition("#link=")[2]
    opened = ask("POST", "/api/v1/link", {"link": link, "password": "a horse that staples"})
    cookie = str(opened.headers["Set-Cookie"]).partition(";")[0]
    stream = ask("GET", "/api/v1/stream", Cookie=cookie)
    assert stream.readline() == b"retry: 2000\n"
    csrf = json.load(ask("GET", "/api/v1/session", Cookie=cookie))["csrf"]
    assert ask("DELETE", "/api/v1/session", Cookie=cookie, **{"X-CSRF-Token": csrf}).status == 204
    assert ask("GET", "/api/v1/sensors", Cookie=cookie).status == 401
    _write(port, 4.75)
    assert b"4.75" not in stream.read(), "the stream ends, and tells nothing more"


def test_days_and_nights_are_those_of_the_town(config: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its server is: times are told in its zone, by which noise has its day and night."""
    monkeypatch.setenv("TZ", "America/New_York")
    config.write_text(f'{config.read_text()}[map]\ntimezone = "Asia/Shanghai"\n')
    with subprocess.Popen([sys.executable, "-c", _RUN, str(config)], stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request("GET", "/api/health")
                    told = json.load(connection.getresponse())["time"]
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            process.kill()
    assert told.endswith("+08:00")
