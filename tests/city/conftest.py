"""A city view with an embedded store, asked as by a client on this machine or beyond; and a real InfluxDB."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from gateway.city.app import create_app
from gateway.config import CityConfig

WRITE, READ = "write-token-of-the-tests", "read-token-of-the-tests"
Client = Callable[..., httpx.AsyncClient]


def city_config(tmp_path: Path, host: str = "127.0.0.1", **sections: Mapping[str, object]) -> CityConfig:
    return CityConfig.model_validate(
        {
            "server": {"host": host},
            "access": {"write_token": WRITE, "read_token": READ},
            "store": {"path": tmp_path / "city.db", "retention": "30d"},
            **sections,
        }
    )


@contextlib.asynccontextmanager
async def running(config: CityConfig) -> AsyncIterator[FastAPI]:
    app = create_app(config, config.store.path.parent / "no-page")
    async with app.router.lifespan_context(app):
        view = app.state.context.view
        view.store.freshness = view.grading.age_s = 0.0
        for kept in view.grading.means:
            kept.age_s = 0.0
        yield app


def client_of(app: FastAPI, address: str = "127.0.0.1", host: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


async def write(client: httpx.AsyncClient, *lines: str, precision: str = "ms") -> httpx.Response:
    return await client.post(
        "/api/v2/write",
        params={"precision": precision},
        content="\n".join(lines),
        headers={"Authorization": f"Token {WRITE}"},
    )


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running(city_config(tmp_path)) as app:
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture(scope="session")
def influxd(
    program: Callable[[str, str], str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of an InfluxDB 1 of these tests alone."""
    path, folder = program("influxd", "influxdb"), tmp_path_factory.mktemp("influxd")
    port, rpc = free_port(), free_port()
    (folder / "influxdb.conf").write_text(
        f"""reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
"""
    )
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([path, "-config", str(folder / "influxdb.conf")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=2).close()  # noqa: S310 - loopback
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()  # noqa: PT018
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def postgres(free_port: Callable[[], int]) -> Iterator[str]:
    """The address of a PostgreSQL of these tests alone, without a database's name."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian keeps it away from PATH
    if not found:
        pytest.skip("postgres is not installed: apt-get install postgresql")
    programs, folder, port = found[-1].parent, Path(tempfile.mkdtemp(prefix="citygate-postgres-")), free_port()
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(folder, user)
    made = [str(programs / "initdb"), "--auth=trust", "--username=citygate", "--no-sync", "-D", str(folder / "data")]
    subprocess.run(made, check=True, capture_output=True, user=user, cwd=folder)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, user=user, cwd=folder
        )
    url = f"postgresql://citygate@127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()  # noqa: PT018
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The section [database] of a fresh database: SQLite, or as ``both_databases`` wants it."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return {}
    server = request.getfixturevalue("postgres")
    name = f"test_{time.time_ns()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return {"url": f"{server}/{name}"}


both_databases = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
"""The test runs over SQLite and over PostgreSQL."""
