"""How long from the sensor's clock to the database's answer, with the settings that the agent has of its own."""

import sys
import time
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tests.bench import machine, relay
from tests.bench.conftest import Stage
from tests.bench.contenders import Agent
from tests.bench.load import Plan, publishers
from tests.servers.conftest import Server

_SENSORS = 1000
_RATES = (1000, 10_000)  # messages a second
_SECONDS = 8
_FIRST = 1000  # ms that are not counted: the agent meets its sensors


def test_latency(stage: Stage, influxdb: Server) -> None:
    form = urlencode({"q": "CREATE DATABASE city"}).encode()
    urlopen(Request(f"{influxdb.url}/query", data=form), timeout=10).close()  # noqa: S310 - loopback
    folder, port = stage.within("relay"), stage.free_port()
    record = folder / "taken"
    command = [sys.executable, relay.__file__, str(port), str(influxdb.port), str(record)]
    door = Server(command, port, folder)
    door.start()
    rows = []
    for rate in _RATES:
        stage.report.say(f"latency at {rate:,} messages/s")
        broker, site = stage.mosquitto(), f"latency-{rate}"
        messages = stage.report.scaled(_SECONDS * rate, 3 * rate)
        output = f'type = "influxdb1"\nurl = "{door.url}"'
        plan = Plan(broker.port, site, _SENSORS, messages, rate=rate, connections=50)
        with Agent(stage.within(site), broker.port, output, stage.free_port()) as agent:
            agent.await_connected()
            with publishers(plan) as crew:
                began = time.time_ns() // 1_000_000
                crew.run()
                seconds = time.time_ns() / 1e9 - began / 1e3
            agent.await_delivered(messages)
        broker.stop()
        site_tag = f"site={site}".encode()
        delays = sorted(
            moment - sent
            for moment, line in relay.taken(record)
            if line.startswith(b"air,")
            and site_tag in line
            and (sent := int(line.rpartition(b" ")[2])) > began + _FIRST
        )
        assert delays
        rows.append(
            {
                "messages/s": rate,
                "published": round(messages / seconds),
                "p50, ms": delays[len(delays) // 2],
                "p99, ms": delays[len(delays) * 99 // 100],
                "longest, ms": delays[-1],
            }
        )
    door.stop()
    stage.report.table(
        "latency",
        "Latency from the sensor's clock to InfluxDB's answer (1.x; flush_interval and batch_time by default)",
        rows,
        f"InfluxDB writes to {machine.file_system(stage.folder)}; it answers when the points are in its log on disk",
    )
