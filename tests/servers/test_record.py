import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.edge.recorded import ARRIVAL
from gateway.play import Part, play, without_arrival
from gateway.publish import Broker, PublishError
from gateway.publish5 import Publisher5
from gateway.record import Record, Recorded
from sensors.stream import Message, Reader, StreamError, Writer
from tests.bench.load import Plan, publishers
from tests.servers.conftest import FreePort, Mosquitto
from tests.servers.listener import Listener, Wire
from tests.servers.wait import until

KEPT, FRESH = True, False  # retained, not retained
SENT = [
    Message("city/a/air/a1", b'{"ts":1767225600000,"pm25":12.50}', 1),
    Message("city/a/air/a1", b"", 0),
    Message("city/a/air/a2", bytes(range(256)) * 40, 2, FRESH, b"\x26\x00\x01k\x00\x01v\x03\x00\x04text"),
    Message("城市/a/空气", b"retained", 1, KEPT, b"\x01\x01"),
    Message("other/topic", b"not asked for", 1),
]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "gateway", *map(str, arguments)]


def bare(message: Message) -> tuple[str, bytes, int, bool, bytes]:
    return message[:5]


async def send(port: int, messages: list[Message]) -> None:
    async with Publisher5(Broker("127.0.0.1", port), patience=5) as publisher:
        await publisher.publish_all(messages)
        await publisher.drain()


def source_of(port: int, *topics: str, client_id: str | None = None) -> Recorded:
    """Topics of a broker on loopback, with blocks that are soon complete."""
    source = Recorded.of_broker(Broker("127.0.0.1", port), [*topics], tls_ca=None, client_id=client_id)
    return replace(source, mqtt=source.mqtt.model_copy(update={"batch_time": 0.05}))


async def recorded(
    port: int, path: Path, messages: list[Message], topics: tuple[str, ...] = ("#",), count: int | None = None
) -> list[Message]:
    """What a recording holds of messages that are sent while it is made."""
    source = source_of(port, *topics)
    with Writer(path, append=True) as writer:
        record = Record(source, writer)
        running = asyncio.create_task(record.run())
        await until(lambda: record.tap.connected or running.done())
        await send(port, messages)
        await until(lambda: record.messages >= (count or len(messages)) or running.done())
        await record.stop("test")
        await running
    with Reader(path) as reader:
        return list(reader)


async def test_what_the_broker_delivers_is_recorded_byte_for_byte(mosquitto: Mosquitto, tmp_path: Path) -> None:
    before = time.time_ns()
    found = await recorded(mosquitto().port, tmp_path / "r.cgrec", SENT[:4], ("city/#", "城市/+/+"))
    assert sorted(map(bare, found)) == sorted(map(bare, SENT[:4]))
    assert all(before <= message.wall <= time.time_ns() for message in found)
    assert [message.monotonic for message in found] == sorted(message.monotonic for message in found)


async def test_only_the_topics_that_were_asked_for_are_recorded(mosquitto: Mosquitto, tmp_path: Path) -> None:
    found = await recorded(mosquitto().port, tmp_path / "r.cgrec", [*SENT[4:], SENT[0]], ("city/#",), 1)
    assert [message.topic for message in found] == ["city/a/air/a1"]


async def test_a_replayed_recording_gives_the_same_bytes_in_the_same_order(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.cgrec", tmp_path / "second.cgrec"
    many = [
        Message(f"t/{n % 7}", b"%d" % n, 1, FRESH, b"\x26\x00\x01n\x00\x01" + b"%d" % (n % 10)) for n in range(3000)
    ]
    port = mosquitto().port
    made = await recorded(port, first, [*SENT[:3], *many])
    broker, source = Broker("127.0.0.1", port), source_of(port, "#")
    with Writer(second) as writer:
        record = Record(source, writer)
        running = asyncio.create_task(record.run())
        await until(lambda: record.tap.connected)
        played = await play(first, broker)
        await until(lambda: record.messages >= len(made))
        await record.stop("test")
        await running
    with Reader(second) as reader:
        again = list(reader)
    assert (played.taken, played.acknowledged, played.sent) == (3003, 3002, 1)
    of_qos_1 = [bare(message) for message in made if message.qos == 1]
    assert [bare(message) for message in again if message.qos == 1] == of_qos_1
    assert sorted(map(bare, again)) == sorted(map(bare, made))


async def test_a_window_topics_rounds_and_the_time_of_arrival(mosquitto: Mosquitto, tmp_path: Path) -> None:
    port, path, second = mosquitto().port, tmp_path / "window.cgrec", 10**9
    with Writer(path) as writer:
        for n in range(100):
            writer.add(f"t/{n % 2}/x", b"%d" % n, qos=1, monotonic=n * second, wall=(1000 + n) * second)
    heard: list[Message] = []
    source = source_of(port, "t/#")
    with Writer(tmp_path / "heard.cgrec") as writer:
        record = Record(source, writer)
        running = asyncio.create_task(record.run())
        await until(lambda: record.tap.connected)
        part = Part(1010 * second, 1019 * second, ("t/1/+",), None, 2)
        played = await play(path, Broker("127.0.0.1", port), part=part, tell_arrival=True)
        await until(lambda: record.messages >= 10)
        await record.stop("test")
        await running
    with Reader(tmp_path / "heard.cgrec") as reader:
        heard = list(reader)
    assert (played.rounds, played.taken) == (2, 10)
    assert [message.payload for message in heard] == [b"11", b"13", b"15", b"17", b"19"] * 2
    told = [int(message.properties.rpartition(ARRIVAL.encode())[2][2:]) // second for message in heard]
    assert told == [1011, 1013, 1015, 1017, 1019, 1021, 1023, 1025, 1027, 1029]
    assert {without_arrival(message.properties) for message in heard} == {b""}


async def test_the_recordings_pace_times_the_speed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "slow.cgrec"
    for start in (0, 60 * 10**9):  # two runs, a minute apart by the wall clock, whatever the other one says
        with Writer(path, append=True) as writer:
            for n in range(2):
                writer.add("t", b"x", qos=1, monotonic=10**15 - start + n * 10**9, wall=start + n * 10**9)
    began = time.monotonic()
    played = await play(path, Broker("127.0.0.1", mosquitto().port), speed=61.0)
    assert 1 <= time.monotonic() - began < 5
    assert played.acknowledged == 4


async def test_a_connection_that_breaks_loses_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    server, path = mosquitto(), tmp_path / "many.cgrec"
    with Writer(path) as writer:
        for n in range(20_000):
            writer.add("t", b"%d" % n, qos=1 + n % 2, monotonic=n, wall=n)
    source = source_of(server.port, "t")
    with Wire(server.port, [20_000, 100_000]) as sending, Wire(server.port, [30_000, 40_000]) as taking:
        mqtt = source.mqtt.model_copy(update={"port": taking.port})
        with Writer(tmp_path / "heard.cgrec") as writer:
            record = Record(Recorded(mqtt, source.filters, source.redactor, keep=False), writer)
            running = asyncio.create_task(record.run())
            await until(lambda: record.tap.connected)
            played = await play(path, Broker("127.0.0.1", sending.port))
            assert played.acknowledged == 20_000
            await until(lambda: taking.connections >= 3)
            await until(lambda: record.tap.connected)
            await until(lambda: _numbers(writer.path) >= 20_000)
            await record.stop("test")
            await running
    with Reader(tmp_path / "heard.cgrec") as reader:
        assert {int(message.payload) for message in reader} == set(range(20_000))
    assert sending.connections == 3


def _numbers(path: Path) -> int:
    with Reader(path) as reader:
        return len({message.payload for message in reader})


def test_the_command_records_200_000_messages_at_full_speed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    server, path = mosquitto(), tmp_path / "fast.cgrec"
    arguments = (path, "--broker", f"127.0.0.1:{server.port}", "--topic", "city/#", "--json")
    process = subprocess.Popen(command("record", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _await_subscription(process)
        plan = Plan(port=server.port, site="s", sensors=500, messages=200_000, start=1_790_000_000_000)
        with publishers(plan, 2) as crew:
            crew.run()
        deadline = time.monotonic() + 60
        while _count(path) < 200_000:
            assert time.monotonic() < deadline, _count(path)
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        summary = json.loads(process.communicate(timeout=20)[0])
    finally:
        process.kill()
    assert process.returncode == 0
    assert (summary["messages"], summary["redelivered"], summary["ended"]) == (200_000, 0, "signal")
    assert path.stat().st_size <= 0.25 * summary["raw_bytes"]
    with Reader(path) as reader:
        payloads = [(message.topic, message.payload) for message in reader]
        assert (reader.indexed, reader.damage) == (True, [])
    assert len(set(payloads)) == 200_000
    assert summary["raw_bytes"] == sum(len(topic) + len(payload) for topic, payload in payloads)


def _count(path: Path) -> int:
    try:
        with Reader(path) as reader:
            return reader.summary().messages
    except StreamError:
        return 0


def _await_subscription(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("citygate record: recording "), line


async def _sent(port: int, count: int) -> None:
    await send(port, [Message("n", b"%06d" % n + os.urandom(30).hex().encode(), 1) for n in range(count)])


def _prefixes(*paths: Path) -> set[int]:
    found = set()
    for path in paths:
        with Reader(path) as reader:
            found |= {int(message.payload[:6]) for message in reader}
    return found


def test_what_a_full_disk_did_not_take_is_still_the_brokers(mosquitto: Mosquitto, tmp_path: Path) -> None:
    port, first, second = mosquitto().port, tmp_path / "first.cgrec", tmp_path / "second.cgrec"
    options = ("--broker", f"127.0.0.1:{port}", "--topic", "n", "--client-id", "keeper", "--json")
    small = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); "
    run = f"import sys; sys.argv = ['citygate', *{list(map(str, ('record', first, *options)))!r}]; "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{small}{run}runpy.run_module('gateway', run_name='__main__')"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _await_subscription(process)
        asyncio.run(_sent(port, 20_000))
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "File too large; the " in err
    assert "messages written before can be read" in err
    kept = len(_prefixes(first))
    assert 0 < kept == json.loads(out)["messages"] < 20_000

    process = subprocess.Popen(command("record", second, *options), stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while kept + _count(second) < 20_000:
            assert time.monotonic() < deadline, (kept, _count(second))
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert _prefixes(first, second) == set(range(20_000))


def test_it_ends_when_the_file_is_large_enough_and_goes_on_when_asked(mosquitto: Mosquitto, tmp_path: Path) -> None:
    port, path = mosquitto().port, tmp_path / "sized.cgrec"
    options = ("--broker", f"127.0.0.1:{port}", "--topic", "n", "--json")
    for number in range(2):
        more = ("--max-size", f"{200 * (number + 1)}kB".replace("kB", "KB"), *(("--append",) if number else ()))
        process = subprocess.Popen(
            command("record", path, *options, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            _await_subscription(process)
            asyncio.run(_sent(port, 12_000))
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0
        assert json.loads(out)["ended"] == "max-size"
        assert 200_000 * (number + 1) <= path.stat().st_size < 200_000 * (number + 1) + 400_000
    with Reader(path) as reader:
        assert {message.run for message in reader} == {0, 1}
        assert reader.indexed


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("there.cgrec", "--duration", "0.2"), 2, "exists; append to it, or choose another name"),
        (("new.cgrec", "--broker", "nobody.invalid:1"), 1, "nobody.invalid:1: "),
        (("new.cgrec", "--broker", "x:y"), 2, "expected HOST:PORT"),
        (("new.cgrec", "--max-size", "much"), 2, "expected a size"),
        (("new.cgrec", "-c", "nowhere.toml"), 2, "nowhere.toml"),
    ],
)
def test_what_cannot_be_recorded_is_said(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    (tmp_path / "there.cgrec").write_bytes(b"mine")
    done = subprocess.run(
        command("record", *arguments), capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment()
    )
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert (tmp_path / "there.cgrec").read_bytes() == b"mine"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_recording_that_lasts_as_long_as_asked_for_is_empty_and_whole(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "short.cgrec"
    options = ("--broker", f"127.0.0.1:{mosquitto().port}", "--duration", "0.5", "--json")
    done = subprocess.run(command("record", path, *options), capture_output=True, text=True, check=True)
    assert (json.loads(done.stdout)["messages"], json.loads(done.stdout)["ended"]) == (0, "duration")
    with Reader(path) as reader:
        assert (list(reader), reader.indexed) == ([], True)


async def test_nothing_personal_is_recorded(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = GatewayConfig.model_validate(
        {
            "gateway": {"id": "gw"},
            "mqtt": {"port": mosquitto().port},
            "source": [{}, {"name": "text", "topic": "text/{sensor}", "kind": "air", "site": "s", "personal": True}],
            "output": [{"url": "http://127.0.0.1:1"}],
        }
    )
    plate, mac = "京A12345", "A4:83:E7:5C:11:22"
    user = b"\x26\x00\x05plate\x00\x08" + plate.encode()[:8]
    messages = [
        Message("city/s/passage/p1", json.dumps({"ts": 1_767_225_600_000, "plate": plate, "speed": 50}).encode(), 1),
        Message("city/s/air/a1", json.dumps({"pm25": 1.5, "mac": mac}).encode(), 1, FRESH, user),
        Message("city/s/air/a1", b'{"pm25": 2.50}', 1, FRESH, b"\x26\x00\x01a\x00\x01b"),
        Message("text/t", f"seen: {plate}".encode(), 1, FRESH, b"\x01\x01"),
    ]
    source = Recorded.of_gateway(config, [], client_id=None)
    source = replace(source, mqtt=source.mqtt.model_copy(update={"batch_time": 0.05}))
    path = tmp_path / "r.cgrec"
    with Writer(path) as writer:
        record = Record(source, writer)
        running = asyncio.create_task(record.run())
        await until(lambda: record.tap.connected)
        await send(config.mqtt.port, messages)
        await until(lambda: record.messages >= 4)
        await record.stop("test")
        await running
    with Reader(path) as reader:
        found = list(reader)
    everything = b"".join(message.payload + message.properties for message in found).decode()
    assert plate not in everything
    assert mac not in everything
    passage = json.loads(found[0].payload)
    assert (passage["speed"], len(passage["plate"])) == (50, 16)
    assert found[1][1:5] == (b'{"pm25": 1.5}', 1, False, b"")
    assert found[2][1:5] == (b'{"pm25": 2.50}', 1, False, b"\x26\x00\x01a\x00\x01b")
    assert found[3][1:5] == (b"(withheld: personal data, %d bytes)" % len(messages[3].payload), 1, False, b"")
    assert record.withheld == 3


def test_the_replay_command_plays_a_recording_by_its_content(mosquitto: Mosquitto, tmp_path: Path) -> None:
    server, path, config = mosquitto(), tmp_path / "no-suffix", tmp_path / "gateway.toml"
    config.write_text('[gateway]\nid = "gw"\n[[source]]\n[[output]]\nurl = "http://127.0.0.1:1"\n')
    with Writer(path) as writer:
        for n in range(3):
            stamp = 1_700_000_000_000 + n * 1000
            payload = b'{"ts": %d, "pm25": 1.50}' % stamp
            writer.add("city/s/air/a", payload, qos=1, monotonic=n * 10**9, wall=stamp * 10**6)
        writer.add("city/+/bad", b"", qos=1, monotonic=3 * 10**9, wall=stamp * 10**6 + 10**9)
    with Listener(server.port) as listener:
        options = ("--broker", f"127.0.0.1:{server.port}", "--speed", "max", "--json")
        done = subprocess.run(command("replay", path, *options), capture_output=True, text=True, check=False)
        summary = json.loads(done.stdout)
        assert (done.returncode, summary["acknowledged"]) == (1, 3)
        assert summary["left_out"] == {"not a topic that can be published to": 1}
        shifted = ("--shift-to-now", "-c", config, "--limit", "3")
        done = subprocess.run(command("replay", path, *options, *shifted), capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["times_moved"] == 3
        listener.until(lambda: len(listener.heard) == 6)
    assert listener.heard[0] == ("city/s/air/a", b'{"ts": 1700000000000, "pm25": 1.50}')
    moved = [payload for _, payload in listener.heard[3:]]
    times = [json.loads(payload)["ts"] for payload in moved]
    assert [later - times[0] for later in times] == [0, 1000, 2000]
    assert abs(times[-1] - time.time_ns() // 10**6) < 20_000
    assert moved[0] == b'{"ts": %d, "pm25": 1.50}' % times[0]


def test_options_of_the_other_form_are_wrong_usage(tmp_path: Path) -> None:
    with Writer(tmp_path / "r.cgrec"):
        pass
    (tmp_path / "r.csv").write_text("time,pm25\n1,2\n")
    for file, option, says in (
        ("r.cgrec", ("--kind", "air"), "--kind is of CSV files"),
        ("r.csv", ("--loop", "2"), "--loop is of recordings"),
        ("r.cgrec", ("--from", "yesterday"), "from: 'yesterday' is neither"),
        ("r.cgrec", ("--topic", "a/#/b"), "is no topic filter"),
    ):
        done = subprocess.run(command("replay", tmp_path / file, *option), capture_output=True, text=True, check=False)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


async def test_a_broker_that_refuses_or_is_away_is_said(free_port: FreePort, mosquitto: Mosquitto) -> None:
    with pytest.raises(PublishError, match="Connection refused"):
        async with Publisher5(Broker("127.0.0.1", free_port()), patience=1):
            pass
    with pytest.raises(PublishError, match="not authorised"):
        async with Publisher5(Broker("127.0.0.1", mosquitto(anonymous=False).port), patience=1):
            pass
