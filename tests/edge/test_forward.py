import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.edge.servers import _retry_after
from tests.edge.forwarding import BAD, NOW, TOKEN, Server, entry, forwarding, lines_of, output, points
from tests.servers.wait import until

pytestmark = pytest.mark.usefixtures("short_delays")


@pytest.mark.parametrize("kind", ["influxdb2", "influxdb1"])
async def test_a_request_says_what_the_server_needs(tmp_path: Path, server: Server, kind: str) -> None:
    async with forwarding(tmp_path, output(server, kind)) as (spool, forwarder):
        await asyncio.gather(*(spool.append(entry(points(i, i + 10))) for i in range(0, 50, 10)))
        assert await forwarder.flush(5)
        request, body = server.requests[0]
        assert request.headers["Content-Encoding"] == "gzip"
        assert request.headers["Content-Type"].startswith("text/plain")
        assert request.query["precision"] == "ms"
        assert body == points(0, 50) + b"\n"
        if kind == "influxdb2":
            assert request.path == "/api/v2/write"
            assert request.headers["Authorization"] == f"Token {TOKEN}"
            assert (request.query["org"], request.query["bucket"]) == ("town", "city")
        else:
            assert request.path == "/write"
            assert request.query["db"] == "city"
            assert request.headers["Authorization"].startswith("Basic ")
            assert TOKEN not in str(request.url)
        assert len(server.requests) == 1
        status = forwarder.status()
        assert status["state"] == "ok"
        assert status["last_success"] > NOW
        assert (status["backlog_rows"], status["backlog_bytes"]) == (0, 0)


@pytest.mark.parametrize("status", [400, 422, 201])
async def test_one_bad_point_among_five_thousand_costs_itself(tmp_path: Path, server: Server, status: int) -> None:
    bad = b"air,sensor=a pm25=12i 5"
    server.refuse(bad, status=status)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        for i in range(0, 5000, 1000):
            await spool.append(entry(points(i, i + 1000) + (b"\n" + bad if i == 2000 else b"")))
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, 5000))
        assert len(server.requests) <= 30
        (letter,) = await spool.dead_letters()
        assert letter.payload == bad
        assert letter.reason == BAD["message"]
        assert spool.ledger().total["dead"] == 1
        assert spool.ledger().total["delivered"] == 5000


async def test_bad_points_alone_are_dead_once_the_server_took_another(tmp_path: Path, server: Server) -> None:
    bad = [b"bad%d" % i for i in range(100)]
    server.refuse(*bad)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(b"\n".join(bad)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert spool.ledger().total["queued"] == 100
        assert "refuses every point" in forwarder.status()["last_error"]
        await spool.append(entry(points(0, 5)))
        await until(lambda: spool.ledger().total["queued"] == 0)
        assert server.stored == lines_of(points(0, 5))
        await spool.append(entry(b"bad1\nbad2"))
        assert await forwarder.flush(5)
        assert spool.ledger().dead_letters == 102


async def test_a_server_that_refuses_everything_for_a_while_costs_nothing(tmp_path: Path, server: Server) -> None:
    server.answer = lambda _: web.json_response({"error": "database is required"}, status=400)
    async with forwarding(tmp_path, output(server, "influxdb1")) as (spool, forwarder):
        await spool.append(entry(points(0, 200)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert "database is required" in forwarder.status()["last_error"]
        server.answer = lambda _: None
        assert await forwarder.flush(10)
        assert server.stored == lines_of(points(0, 200))
        assert spool.ledger().dead_letters == 0


async def test_too_large_requests_are_split_and_the_next_are_smaller(tmp_path: Path, server: Server) -> None:
    server.answer = lambda lines: web.Response(status=413) if len(lines) > 900 else None
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        for i in range(0, 10_000, 400):
            await spool.append(entry(points(i, i + 400)))
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, 10_000))
        refused = len(server.requests)
        await asyncio.gather(*(spool.append(entry(points(i, i + 400))) for i in range(10_000, 16_000, 400)))
        assert await forwarder.flush(20)
        assert len(server.requests) - refused <= 20


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([{"status": 500, "text": "oops"}] * 3, "500: oops"),
        ([{"status": 502, "text": "<html>", "content_type": "text/html"}], "is a proxy or portal between"),
        ([{"status": 200, "text": "<html>Log in", "content_type": "text/html"}] * 2, "is a proxy or portal between"),
        ([{"status": 400, "text": "<html>Bad", "content_type": "text/html"}] * 2, "is a proxy or portal between"),
        ([{"status": 200, "text": "{}"}], "is a proxy or portal between"),
        ([{"status": 418, "text": "{broken"}], "418: {broken"),
        ([{"status": 401, "text": '{"message": "unauthorized access"}'}] * 2, "check 'token_file'"),
        ([{"status": 403, "text": ""}], "no permission to write to the bucket 'city'"),
        ([{"status": 404, "text": '{"message": "bucket \\"city\\" not found"}'}], "influx bucket create --name city"),
        ([{"status": 307, "headers": {"Location": "http://127.0.0.1:1/steal"}}], "redirects are not followed"),
        ([{"status": 429, "headers": {"Retry-After": "0"}}, {"status": 503, "headers": {"Retry-After": "x"}}], "503"),
    ],
)
async def test_whatever_the_answer_the_points_arrive(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, answers: list[dict[str, Any]], error: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(*(web.Response(**answer) for answer in answers))
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(0, 20)))
        await until(lambda: spool.ledger().total["delivered"] == 20)
        assert server.stored == lines_of(points(0, 20))
        assert error in forwarder.status()["last_error"]
        assert forwarder.status()["state"] == "ok"
        assert len(server.requests) <= len(answers) + 2
    assert error in caplog.text
    assert TOKEN not in caplog.text


async def test_a_missing_database_is_explained(tmp_path: Path, server: Server) -> None:
    server.script(web.json_response({"error": 'database not found: "city"'}, status=404))
    async with forwarding(tmp_path, output(server, "influxdb1")) as (spool, forwarder):
        await spool.append(entry(points(0, 1)))
        await until(lambda: spool.ledger().total["delivered"] == 1)
        assert 'CREATE DATABASE "city"' in forwarder.status()["last_error"]


async def test_a_secret_that_the_server_repeats_is_not_shown(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(web.Response(status=401, text=f"token {TOKEN} is unknown"))
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(0, 1)))
        await until(lambda: spool.ledger().total["delivered"] == 1)
        assert TOKEN not in repr(forwarder.status())
    assert TOKEN not in caplog.text


async def test_retry_after_is_honoured(tmp_path: Path, server: Server) -> None:
    server.script(web.Response(status=429, headers={"Retry-After": "0.4"}))
    async with forwarding(tmp_path, output(server)) as (spool, _):
        await spool.append(entry(points(0, 1)))
        await until(lambda: len(server.requests) == 1)
        start = time.monotonic()
        await until(lambda: len(server.requests) == 2)
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1e9"}, 600),
        ({"Retry-After": "inf"}, 600),
        ({"Retry-After": "-4"}, 0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, 600),
        ({"Retry-After": "Fri, 01 Jan 2100 00:00:09 GMT", "Date": "Fri, 01 Jan 2100 00:00:00 GMT"}, 9),
        ({"Retry-After": "Fri, 01 Jan 2100 00:00:09 GMT", "Date": "today"}, 600),
        ({"Retry-After": "Fri, 01 Jan 9999999 00:00:09 GMT"}, None),
    ],
)
def test_any_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert _retry_after(headers) == seconds


async def test_a_lost_answer_is_sent_again(tmp_path: Path, server: Server) -> None:
    taken: set[bytes] = set()

    def lose(lines: list[bytes]) -> web.Response | None:
        request = server.requests[-1][0]
        if len(server.requests) < 3 and request.transport:
            taken.update(lines)
            request.transport.abort()
        return None

    server.answer = lose
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: spool.ledger().total["delivered"] == 10)
        assert taken == server.stored == lines_of(points(0, 10))
        assert "does not answer" in forwarder.status()["last_error"]


async def test_a_server_that_hangs_is_given_up_and_asked_again(tmp_path: Path, server: Server) -> None:
    first = True
    write = server.write

    async def hang(request: web.Request) -> web.Response:
        nonlocal first
        if first:
            first = False
            await asyncio.sleep(30)
        return await write(request)

    application = web.Application()
    application.router.add_post("/api/v2/write", hang)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with forwarding(tmp_path, output(server, timeout="200ms")) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: spool.ledger().total["delivered"] == 10)
        assert "time is up" in forwarder.status()["last_error"]
    await runner.cleanup()


async def test_new_readings_overtake_the_backlog(tmp_path: Path, server: Server) -> None:
    server.answer = lambda _: web.Response(status=503)
    async with forwarding(tmp_path, output(server, batch_bytes="20KB")) as (spool, forwarder):
        for i in range(0, 20_000, 200):
            await spool.append(entry(points(i, i + 200)))
        await until(lambda: len(server.requests) > 1)
        fresh = points(50_000, 50_001)
        await spool.append(entry(fresh))
        server.requests.clear()
        server.answer = lambda _: None
        assert await forwarder.flush(20)
        assert server.stored == lines_of(points(0, 20_000), fresh)
        assert fresh in b"".join(body for _, body in server.requests[:4])
        assert len(server.requests) > 20


async def test_nothing_is_forgotten_when_the_forwarder_is_cancelled_in_flight(tmp_path: Path, server: Server) -> None:
    server.answer = lambda _: web.Response(status=500)
    async with forwarding(tmp_path, output(server)) as (spool, forwarder):
        await spool.append(entry(points(0, 10)))
        await until(lambda: len(server.requests) > 0)
        assert not await forwarder.flush(0.1)
    server.answer = lambda _: None
    async with forwarding(tmp_path, output(server)) as (spool, _):
        await until(lambda: spool.ledger().total["delivered"] == 10)
    assert server.stored == lines_of(points(0, 10))


async def test_a_wrong_ca_file_is_explained_and_stops_nothing(tmp_path: Path, server: Server) -> None:
    server.url = "https://127.0.0.1:1"
    async with forwarding(tmp_path, output(server, tls_ca=tmp_path / "none.pem")) as (spool, forwarder):
        await spool.append(entry(points(0, 1)))
        await until(lambda: forwarder.status()["state"] == "retrying")
        assert f"tls_ca = {tmp_path}/none.pem: No such file" in forwarder.status()["last_error"]


def test_little_of_influxdb_client_is_loaded_and_the_rest_still_works() -> None:
    code = """
import sys
from gateway.edge import servers
assert not any(name.startswith("influxdb_client") for name in sys.modules)
with servers._only_what_is_needed("influxdb_client", "client", "service", "domain"):
    import influxdb_client._async.api_client, influxdb_client.service.write_service
assert len([name for name in sys.modules if name.startswith("influxdb_client")]) < 20
from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.domain import Bucket
assert Point("m").field("f", 1).to_line_protocol() == "m f=1i"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
