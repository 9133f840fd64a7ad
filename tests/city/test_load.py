"""What many askers cost: the store is asked once for all of them, and only what has changed is made anew."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from gateway.city import stream
from gateway.city.app import create_app
from gateway.city.store.base import LatestSensor, SensorKey
from gateway.city.store.embedded import EmbeddedStore
from sensors import lineprotocol
from tests.city.conftest import city_config, client_of, running, write

AIR = "air,gateway=gw-1,site=longgang,sensor=air-01"


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(path, 86400.0)
    await store.open()
    yield store
    await store.close()


async def _store(store: EmbeddedStore, *lines: str) -> None:
    points, errors = lineprotocol.parse("\n".join(lines).encode(), "ms")
    assert errors == []
    await store.write(points)


def _by_key(sensors: list[LatestSensor]) -> dict[SensorKey, LatestSensor]:
    return {sensor.key: sensor for sensor in sensors}


@pytest.mark.parametrize("seed", range(5))
async def test_the_newest_readings_that_writes_carry_on_are_those_in_the_file(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    hour = 3_600_000
    start = time.time_ns() // 10**6 // hour * hour - 10 * hour
    async with _opened(tmp_path / "city.db") as store:
        assert await store.latest() == []
        for _ in range(60):
            fields = [
                f"{name}={chance.randint(0, 99)}" if chance.random() < 0.5 else f"{name}_qc={chance.choice((1, 3, 4))}i"
                for name in chance.sample(("pm25", "pm10", "o3"), chance.randint(1, 3))
            ]
            tags = f"gateway=g{chance.randint(1, 2)},site=s,sensor=air-{chance.randint(1, 4)}"
            await _store(store, f"air,{tags} {','.join(fields)} {start + chance.randint(0, 8) * hour}")
            if chance.random() < 0.05:
                await store.prune(start + chance.randint(0, 4) * hour, 0)
        carried = _by_key(await store.latest())
        async with _opened(tmp_path / "city.db") as fresh:
            assert carried == _by_key(await fresh.latest())
        await store.prune(start + 9 * hour, 0)
        assert await store.latest() == []


async def test_a_sensor_without_a_new_reading_is_not_made_again(tmp_path: Path) -> None:
    now = time.time_ns() // 10**6
    other = AIR.replace("air-01", "air-02")
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        view = app.state.context.view
        await write(client, f"{AIR} pm25=1 {now - 20_000}", f"{other} pm25=1 {now - 20_000}")
        first = view.sensors(await view.snapshot(), now)
        await write(client, f"{other} pm25=2 {now}")
        later = view.sensors(await view.snapshot(), now + 130_000)
        assert later[0].readings is first[0].readings
        assert (first[0].age_s, first[0].state, later[0].age_s, later[0].state) == (20, "fresh", 150, "stale")
        assert (later[1].readings[0].value, later[1].age_s) == (2, 130)


async def test_entities_are_made_again_only_when_more_than_readings_has_changed(tmp_path: Path) -> None:
    now = time.time_ns() // 10**6
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        view = app.state.context.view
        await write(client, f"{AIR} pm25=1 {now}")
        made = view.catalogue(await view.snapshot())
        await write(client, f"{AIR} pm25=2 {now + 1000}")
        newest = (await client.get("/sta/v1.1/Observations?$orderby=phenomenonTime desc&$top=1")).json()["value"]
        assert [observation["result"] for observation in newest] == [2]
        assert view.catalogue(await view.snapshot()) is made
        states = [made.sets["Things"]["air:longgang:air-01"].properties["properties"]["state"]]
        snapshot = await view.snapshot()
        view._listed = None
        view.sensors(snapshot, now + 10**9)
        view._catalogue = (None, made)
        assert view.catalogue(snapshot) is made
        states.append(made.sets["Things"]["air:longgang:air-01"].properties["properties"]["state"])
        assert states == ["fresh", "silent"]
        await write(client, f"{AIR} pm10=2 {now + 1000}")
        assert [len((await client.get(f"/sta/v1.1/{name}")).json()["value"]) for name in ("Things", "Datastreams")] == [
            1,
            2,
        ]
        assert view.catalogue(await view.snapshot()) is not made


async def test_entities_stay_when_another_gateway_hears_a_sensor(tmp_path: Path) -> None:
    now = time.time_ns() // 10**6
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        view = app.state.context.view
        await write(client, f"{AIR} pm25=1 {now}")
        made = view.catalogue(await view.snapshot())
        await client.get("/sta/v1.1/Things")
        await write(client, f"{AIR.replace('gw-1', 'gw-2')} pm25=2 {now + 1000}")
        (thing,) = (await client.get("/sta/v1.1/Things")).json()["value"]
        assert (thing["properties"]["gateway"], thing["properties"]["state"]) == ("gw-2", "fresh")
        assert view.catalogue(await view.snapshot()) is made


@pytest.mark.parametrize("path", ["/api/v1/overview", "/api/v1/sensors", "/api/v1/sensors.geojson", "/api/v1/kinds"])
async def test_an_answer_is_made_once_for_all_and_anew_when_something_changed(tmp_path: Path, path: str) -> None:
    now = time.time_ns() // 10**6
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        view = app.state.context.view
        await write(client, *(f"{AIR.replace('air-01', f'air-{n}')} pm25={n} {now}" for n in range(30)))
        view.store.freshness = 60.0
        view.grading.age_s = 60.0
        answers = await asyncio.gather(*(client.get(path) for _ in range(5)))
        assert len({answer.content for answer in answers}) == 1
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        assert (plain.content, plain.headers.get("content-encoding")) == (answers[0].content, None)
        packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
        assert packed.content == plain.content
        assert packed.headers.get("content-encoding") == ("gzip" if len(plain.content) >= 1000 else None)
        assert packed.headers.get("vary", "Accept-Encoding") == "Accept-Encoding"
        await write(client, f"{AIR} pm25=7 {now}", f"noise,site=longgang,sensor=n-1 laeq=50 {now}")
        view.store.freshness = 0.0
        again = (await client.get(path)).content
        assert (again == plain.content) == path.endswith("kinds")


class _Counting:
    """Counts the questions to a store."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store, self.asked = store, Counter[str]()
        self.freshness, self.name = store.freshness, store.name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        self.asked[name] += 1
        return getattr(self._store, name)


async def _listen(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [text async for text in stream]


async def test_the_store_is_asked_once_in_its_freshness_however_many_pages_are_open(tmp_path: Path) -> None:
    app = create_app(city_config(tmp_path), tmp_path / "no-page")
    async with app.router.lifespan_context(app), client_of(app) as client:
        await write(client, f"{AIR} pm25=1 {time.time_ns() // 10**6}")
        here = app.state.context
        store, counting = here.view.store, _Counting(here.view.store)
        here.view.store, began, answered = counting, time.monotonic(), 0
        pages = [asyncio.create_task(_listen(here.hub.listen(None))) for _ in range(100)]
        while time.monotonic() - began < 2:
            answers = await asyncio.gather(*(client.get("/api/v1/sensors") for _ in range(20)))
            answered += sum(answer.status_code == 200 for answer in answers)
        here.hub.close()
        here.view.store, most = store, (time.monotonic() - began) / store.freshness + 1
        for heard in await asyncio.gather(*pages):
            assert any(b"event: sensors" in text for text in heard)
    assert answered > 10 * most
    for question in ("latest", "events", "gateways"):
        assert 2 <= counting.asked[question] <= most


async def test_all_pages_get_the_same_bytes(tmp_path: Path) -> None:
    async with running(city_config(tmp_path)) as app, client_of(app) as client:
        await write(client, f"{AIR} pm25=1 {time.time_ns() // 10**6}")
        app.state.context.view.store.freshness = 60.0
        hub = app.state.context.hub
        first, second = await hub._everything(), await hub._everything()
        assert first is second


async def test_a_page_hears_that_the_stream_lives_and_is_forgotten_when_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_KEEP_ALIVE_S", 0.0)
    alive = asyncio.Event()

    async def receive() -> Message:
        await alive.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body", b"").startswith(b": keep-alive"):
            alive.set()

    scope = {"type": "http", "method": "GET", "path": "/api/v1/stream", "query_string": b"", "scheme": "http"}
    scope |= {"headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    async with running(city_config(tmp_path)) as app:
        await asyncio.wait_for(app(scope, receive, send), 60)
        assert app.state.context.hub._listeners == set()
