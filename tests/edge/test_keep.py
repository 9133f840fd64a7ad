"""What the filter has learnt survives a restart; a file that does not, costs no more than that."""

import asyncio
import logging
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gateway.config import LimitsConfig, OverrideConfig, SourceConfig
from gateway.edge import keep as keep_module
from gateway.edge.decode import Decoder
from gateway.edge.inspect import Inspector
from gateway.edge.keep import Keep, Step
from gateway.edge.readings import Channels, Ints, Readings
from gateway.edge.reasons import reason_text
from gateway.edge.watch import Watch
from sensors import kinds
from tests.edge.test_way import MINUTE, NOW, Message, raw

PAGE = 4096
AIR = {"pm25": 5.0, "no2": 6.0, "temperature": 20.0}


class Counting:
    """A step that knows the sum and the last three values of every channel."""

    def __init__(self, channels: Channels, name: str = "<f8") -> None:
        self._channels = channels
        self.sums = np.zeros(0, name)
        self.lasts = np.zeros((0, 3), np.float32)

    def judge(self, readings: Readings) -> None:
        self._make_room()
        np.add.at(self.sums, readings.channel, readings.value.astype(self.sums.dtype))
        for channel, value in zip(readings.channel, readings.value, strict=True):
            self.lasts[channel] = [*self.lasts[channel, 1:], value]

    def state(self, channels: Ints) -> dict[str, npt.NDArray[np.generic]]:
        self._make_room()
        return {"sums": self.sums[channels], "lasts": self.lasts[channels]}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]], channels: Ints) -> None:
        self._make_room()
        now = self.state(channels)
        if {name: (its.shape, its.dtype) for name, its in state.items()} != {
            name: (its.shape, its.dtype) for name, its in now.items()
        }:
            msg = "not a count"
            raise ValueError(msg)
        self.sums[channels], self.lasts[channels] = state["sums"], state["lasts"]

    def _make_room(self) -> None:
        more = len(self._channels) - len(self.sums)
        self.sums = np.append(self.sums, np.zeros(more, self.sums.dtype))
        self.lasts = np.append(self.lasts, np.zeros((more, 3), np.float32), 0)


class Gateway:
    """Decoder and two steps over one file; made anew as by a restart, with another configuration if need be."""

    def __init__(
        self,
        folder: Path,
        *sources: SourceConfig,
        limits: LimitsConfig | None = None,
        overrides: Sequence[OverrideConfig] = (),
        known: Mapping[str, kinds.Kind] | None = None,
        sums: str = "<f8",
    ) -> None:
        self.path = folder / "spool.db.filter"
        self.channels = Channels()
        self.decoder = Decoder(
            sources or (SourceConfig(),),
            known or kinds.builtin(),
            "gw",
            self.channels,
            limits or LimitsConfig(),
            overrides=overrides,
        )
        self.first, self.watch = Counting(self.channels, sums), Watch(self.channels)
        self.inspector = Inspector(self.channels)
        self.turn = asyncio.Lock()
        self.stale: set[int] = set()
        steps: dict[str, Step] = {"counting": self.first, "watch": self.watch, "inspector": self.inspector}
        self.keep = Keep(self.path, self.channels, self.decoder, steps, self._stale)
        self.keep.load()

    def _stale(self) -> npt.NDArray[np.bool_]:
        return np.isin(np.arange(len(self.channels)), list(self.stale))

    def send(self, *messages: Message) -> Readings:
        readings = self.decoder.decode(raw(messages, NOW + 1000 * MINUTE))
        assert readings.dead == []
        self.first.judge(readings)
        return readings

    def judge(self, *messages: Message) -> list[tuple[int, str]]:
        """Flags and reasons."""
        self.inspector.inspect(readings := self.send(*messages))
        return list(zip(readings.flag.tolist(), map(reason_text, readings.reason.tolist()), strict=True))

    async def save(self) -> int:
        return await self.keep.save(NOW, self.turn, committed)

    def sums(self) -> dict[str, float]:
        """By sensor and quantity, of channels that have one."""
        self.first.state(np.arange(0))
        found = {}
        for channel, owner in enumerate(self.channels.owner[: len(self.channels)]):
            sensor = self.channels.sensors[owner]
            names = [*sensor.home.names, *(sensor.channels or {})]
            (name,) = [name for name in names if sensor.channel(name) == channel]
            if self.first.sums[channel]:
                found[f"{sensor.name}.{name}"] = float(self.first.sums[channel])
        return found


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def committed() -> None:
    pass


def town(count: int, time: int = NOW, **values: float) -> list[Message]:
    return [(f"city/east/air/a{number}", {"ts": time, **(values or AIR)}) for number in range(count)]


async def test_after_a_restart_every_channel_has_its_own_state_whoever_sends_first(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    for number, message in enumerate(town(700)):
        before.send(message, (message[0], {"ts": NOW + 1 + number, "pm25": number}))
    assert await before.save() > 0
    after = Gateway(tmp_path)
    assert after.sums() == before.sums()
    assert len(after.sums()) == 2100
    for gateway in (before, after):
        gateway.send(*reversed(town(700, NOW + MINUTE)))
    assert after.sums() == before.sums()
    assert len(after.channels) == len(before.channels), "no channel is there twice"
    assert after.first.lasts[after.decoder.sources[0].sensors["air,gateway=gw,sensor=a9,site=east"].base].tolist() == [
        5,
        9,
        5,
    ]


async def test_a_running_event_ends_as_the_one_that_began_before_the_restart(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    limit = ("city/east/air/a1", {"ts": NOW, "pm25": 300})
    readings = before.send(limit)
    readings.flag[:] = 1
    (began,) = before.watch.watch(readings)
    await before.save()
    after, ends = Gateway(tmp_path), []
    for minute in range(1, 5):
        readings = after.send(("city/east/air/a1", {"ts": NOW + minute * MINUTE, "pm25": 5}))
        readings.flag[:] = 1
        ends += after.watch.watch(readings)
    (ended,) = ends
    assert (ended.severity, ended.since) == ("none", began.since)


async def test_who_is_restarted_judges_as_who_was_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    course = 20 + np.cumsum(rng.normal(0, 0.1, (600, 8)), 0)
    course[100, 1] = 90  # fails
    course[200, 2] += 15  # a spike
    course[150:, 3] = course[150, 3]  # stuck
    course[320:, 4] += 12  # a step, just after a restart
    steady, gateway = Gateway(tmp_path / "nowhere"), Gateway(tmp_path)
    marked: set[str] = set()
    for minute, values in enumerate(course):
        if minute in {151, 319, 500}:
            await gateway.save()
            gateway = Gateway(tmp_path)
        time = NOW + minute * MINUTE
        messages = [
            (f"city/east/weather/w{number}", {"ts": time, "temperature": round(value, 1)})
            for number, value in enumerate(values.tolist())
        ]
        judged = steady.judge(*messages)
        assert gateway.judge(*messages) == judged, minute
        marked.update(reason for _, reason in judged)
    assert {"gross_range", "flat_line", "spike", "rate_of_change"} <= {
        one for some in marked for one in some.split("+")
    }


async def test_after_a_kill_the_time_since_the_last_save_is_one_without_readings(tmp_path: Path) -> None:
    def weather(minute: float) -> Message:
        return "city/east/weather/w1", {"ts": int(NOW + minute * MINUTE), "temperature": round(20 + minute / 10, 1)}

    before = Gateway(tmp_path)
    assert {flag for minute in range(60) for flag, _ in before.judge(weather(minute))} == {1}
    await before.save()
    for minute in range(60, 120):
        before.judge(weather(minute))
    after = Gateway(tmp_path)
    assert after.judge(weather(120)) == [(1, "gap")], "6.1 °C further than the last value it knows"
    assert after.judge(weather(121), weather(122)) == [(1, ""), (1, "")]
    assert after.judge(weather(90)) == [(1, "out_of_order")], "what the broker delivers late is no error"
    soon = Gateway(tmp_path)
    assert soon.judge(weather(64)) == [(1, "")]
    assert soon.judge(weather(65)) == [(1, "")]


async def test_layouts_are_taken_up_so_that_messages_need_no_table_of_their_own(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    topic = "city/east/air/a1"
    before.send((topic, {"ts": NOW, "pm25": 1, "odd": 2}), (topic, {"ts": NOW, "no2": 3, "pm25": 4, "battery": 90}))
    await before.save()
    after = Gateway(tmp_path)
    (sensor,) = after.channels.sensors
    assert sensor.home.names == ("pm25", "odd")
    assert list(sensor.channels or {}) == ["no2", "battery"]
    assert after.send((topic, {"ts": NOW + 1, "pm25": 1, "odd": 2})).channel.tolist() == [0, 1]
    assert after.decoder._firsts == {}
    assert after.send((topic, {"ts": NOW + 2, "battery": 1, "odd": 2, "pm25": 3})).channel.tolist() == [3, 1, 0]


async def test_limits_of_a_sensor_hold_for_what_is_taken_up(tmp_path: Path) -> None:
    overrides = [OverrideConfig.model_validate({"sensor": "a1", "quantity": "pm25", "suspect": [0, 7]})]
    before = Gateway(tmp_path)
    before.send(*town(3))
    await before.save()
    after = Gateway(tmp_path, overrides=overrides)
    rules = after.channels.rules
    assert rules.suspect_high[after.channels.rule[:9]].tolist().count(7) == 1
    assert rules.suspect_high[after.send(*town(3, NOW + 1)).rule].tolist()[3] == 7


async def test_what_the_configuration_does_not_have_any_more_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = [SourceConfig(name="new", topic="new/{site}/{kind}/{sensor}"), SourceConfig()]
    pinned = SourceConfig(name="pin", topic="pin/{kind}/{sensor}", site="west")
    before = Gateway(tmp_path, *sources, pinned)
    before.send(
        ("new/east/air/n1", {"ts": NOW, "pm25": 1}),
        ("city/east/air/a1", {"ts": NOW, "pm25": 2, "no2": 3, "odd": 4}),
        ("city/east/noise/s1", {"ts": NOW, "laeq": 50}),
        ("pin/air/p1", {"ts": NOW, "pm25": 5}),
    )
    await before.save()
    known = {name: kind for name, kind in kinds.builtin().items() if name != "noise"}
    known["air"] = known["air"].model_copy(
        update={"quantities": {name: its for name, its in known["air"].quantities.items() if name != "no2"}}
    )
    caplog.set_level(logging.INFO)
    after = Gateway(tmp_path, SourceConfig(), pinned.model_copy(update={"site": "south"}), known=known)
    assert after.sums() == {"a1.pm25": 2, "a1.odd": 4}
    assert after.channels.sensors[0].home.names == ("pm25", "odd")
    (record,) = [record for record in caplog.records if record.name == "citygate.keep"]
    assert "1 sensors, 2 channels; 4 channels are not configured any more" in record.getMessage()
    assert record.levelname == "INFO"


async def test_no_more_sensors_are_taken_up_than_the_limit_allows(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    before.send(*town(20))
    before.send(("city/east/air/a0", {"ts": NOW + 1, "o3": 1, "so2": 1}))
    await before.save()
    after = Gateway(tmp_path, limits=LimitsConfig(sensors=10, quantities=4))
    assert after.decoder.sensors == 10
    assert len(after.sums()) == 9 * 3 + 4
    after.send(*town(10, NOW + MINUTE))


async def test_what_is_stale_is_given_up(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    before.send(*town(3))
    before.stale = {0, 3, 4, 5}
    await before.save()
    assert {"a0.no2", "a0.temperature", "a2.pm25"} < Gateway(tmp_path).sums().keys()
    assert Gateway(tmp_path).decoder.sensors == 2


async def test_the_file_is_for_its_owner_only_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    before = os.umask(0)
    try:
        await gateway.save()
    finally:
        os.umask(before)
    assert gateway.path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == [gateway.path.name]


def blocks(path: Path) -> list[int]:
    data = path.read_bytes()
    return [place for place in range(0, len(data), PAGE) if data[place:].startswith(b"citygate")]


def overwritten(data: bytes, place: int, what: bytes) -> bytes:
    return data[:place] + what + data[place + len(what) :]


@pytest.mark.parametrize("offset", [0, 9, 12, 14, 18, 22, 200, PAGE + 3])
async def test_a_damaged_block_costs_its_own_sensors_only(
    tmp_path: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = Gateway(tmp_path)
    rng = np.random.default_rng(1)
    before.send(
        *(message for number in range(700) for message in town(700, NOW, pm25=rng.random())[number : number + 1])
    )
    before.send(*town(700, NOW + 1, no2=1, o3=2))
    await before.save()
    places = blocks(before.path)
    assert len(places) > 5
    data = before.path.read_bytes()
    place = places[2] + offset
    before.path.write_bytes(overwritten(data, place, bytes([data[place] ^ 0x55])))
    after = Gateway(tmp_path)
    kept, had = after.sums(), before.sums()
    assert kept.items() <= had.items()
    assert len(had) > len(kept) >= len(had) - 3 * 86
    text = caplog.text
    assert "is damaged" in text or "has version" in text
    assert "of 700 sensors are missing" in text
    after.send(*town(700, NOW + MINUTE))
    await after.save()
    assert Gateway(tmp_path).sums() == after.sums()


async def test_a_file_that_was_cut_off_gives_what_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = Gateway(tmp_path)
    before.send(*town(700))
    await before.save()
    os.truncate(before.path, blocks(before.path)[3])
    after = Gateway(tmp_path)
    assert 0 < len(after.sums()) < 2100
    assert "of 700 sensors are missing" in caplog.text


def old(data: bytes) -> bytes:
    return overwritten(data, 8, b"\0\0")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda _: b"", "is empty"),
        (lambda _: b"SQLite format 3\0" + bytes(9000), "no file of a filter's state"),
        (lambda data: data[:10], "is damaged"),
        (lambda data: data[:100], "is damaged"),
        (old, "has version 0; this citygate reads version 1"),
        (lambda data: bytes(len(data)), "no file of a filter's state"),
    ],
)
async def test_a_file_that_cannot_be_used_is_set_aside_and_everything_learnt_again(
    tmp_path: Path, spoil: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = Gateway(tmp_path)
    before.send(*town(30))
    await before.save()
    spoilt = spoil(before.path.read_bytes())  # type: ignore[operator]
    before.path.write_bytes(spoilt)
    after = Gateway(tmp_path)
    assert after.sums() == {}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert why in record.getMessage()
    assert str(before.path) in record.getMessage()
    assert (tmp_path / "spool.db.filter.unusable").read_bytes() == spoilt
    after.send(*town(30))
    await after.save()
    assert Gateway(tmp_path).sums() == after.sums()


async def test_any_bytes_in_the_place_of_a_block_are_borne(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    before.send(*town(200))
    await before.save()
    data = before.path.read_bytes()
    had = before.sums()
    rng = np.random.default_rng(7)
    for _ in range(200):
        length = int(rng.integers(1, 64))
        place = int(rng.integers(0, len(data) - length))
        before.path.write_bytes(overwritten(data, place, rng.bytes(length)))
        assert Gateway(tmp_path).sums().items() <= had.items()


def test_a_first_start_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert Gateway(tmp_path).sums() == {}
    assert caplog.records == []


async def test_something_else_in_the_place_of_the_file_does_not_stop_the_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool.db.filter").mkdir()
    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    assert await gateway.save() == 0
    assert "cannot be saved" in caplog.text
    assert names(tmp_path) == [gateway.path.name], "what was begun is taken away"


async def test_a_file_that_nobody_may_read_does_not_stop_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = Gateway(tmp_path)
    before.send(*town(3))
    await before.save()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        assert Gateway(tmp_path).sums() == {}
    assert "cannot be read: Permission denied" in caplog.text


async def test_a_step_whose_state_is_of_another_version_learns_again_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Gateway(tmp_path)
    readings = before.send(*town(3, pm25=300))
    readings.flag[:] = 1
    before.watch.watch(readings)
    await before.save()
    after = Gateway(tmp_path, sums="<i4")
    assert after.sums() == {}
    assert after.watch.state(np.arange(3))["since"].tolist() == [NOW] * 3
    assert "the state of 'counting' cannot be used: not a count" in caplog.text


async def test_what_is_judged_but_not_committed_is_not_known_after_a_kill(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    await gateway.save()
    had = gateway.sums()
    gateway.send(*town(3, NOW + 1))
    asked, commits = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        asked.set()
        await commits.wait()

    saving = asyncio.create_task(gateway.keep.save(NOW, gateway.turn, commit))
    await asked.wait()
    assert Gateway(tmp_path).sums() == had, "a kill now: the broker sends the second messages again"
    commits.set()
    await saving
    assert Gateway(tmp_path).sums() == gateway.sums()


async def test_what_is_judged_and_may_be_taken_back_is_not_saved_meanwhile(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    had = gateway.sums()
    async with gateway.turn:
        gateway.send(*town(3, NOW + 1))
        saving = asyncio.create_task(gateway.save())
        done, _ = await asyncio.wait([saving], timeout=0.2)
        assert not done
        gateway.first.sums /= 2  # taken back
    assert await saving > 0
    assert Gateway(tmp_path).sums() == had


async def test_a_gateway_without_sensors_does_not_write_over_what_there_is(tmp_path: Path) -> None:
    before = Gateway(tmp_path)
    before.send(*town(3))
    await before.save()
    nobody = Gateway(tmp_path, SourceConfig(name="other"))
    assert nobody.decoder.sensors == 0
    assert await nobody.save() == 0
    assert Gateway(tmp_path).sums() == before.sums()


async def test_batches_that_come_while_it_is_saved_leave_each_channel_as_it_was_at_some_moment(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(900))
    saving = asyncio.create_task(gateway.save())
    batches = 1
    while not saving.done():
        gateway.send(*town(900, NOW + batches, **AIR, o3=2), (f"city/east/air/new{batches}", {"ts": NOW, "pm25": 1}))
        batches += 1
        await asyncio.sleep(0)
    assert await saving > 0
    sums = {name: total for name, total in Gateway(tmp_path).sums().items() if name.startswith("a")}
    assert len(sums) >= 2700
    for name, total in sums.items():
        times = total / {**AIR, "o3": 2.0}[name.partition(".")[2]]
        assert times == int(times) <= batches


async def test_a_save_that_is_cancelled_leaves_the_last_one(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(900))
    await gateway.save()
    had = gateway.sums()
    gateway.send(*town(900, NOW + 1))

    async def never() -> None:
        await asyncio.Event().wait()

    saving = asyncio.create_task(gateway.keep.save(NOW, gateway.turn, never))
    await asyncio.sleep(0)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert Gateway(tmp_path).sums() == had
    assert await gateway.save() > 0
    assert Gateway(tmp_path).sums() == gateway.sums()
    assert names(tmp_path) == [gateway.path.name]


async def test_a_disk_that_becomes_full_costs_the_save_and_not_the_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(900))
    await gateway.save()
    had = gateway.sums()
    gateway.send(*town(900, NOW + 1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, limits[1]))
    try:
        assert await gateway.save() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the filter's state cannot be saved" in caplog.text
    assert names(tmp_path) == [gateway.path.name]
    assert Gateway(tmp_path).sums() == had


async def test_the_room_that_the_spool_needs_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    system = os.statvfs(tmp_path)
    nearly_full = os.statvfs_result((4096, 4096, 2**20, 1000, 1000, *tuple(system)[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _: nearly_full)
    assert await gateway.save() == 0
    assert "are free on the disk, and they are the spool's" in caplog.text
    assert names(tmp_path) == []


async def test_a_fault_in_a_step_does_not_stop_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    gateway = Gateway(tmp_path)
    gateway.send(*town(3))
    await gateway.save()
    monkeypatch.setattr(gateway.watch, "state", broken)
    assert await gateway.save() == 0
    assert "cannot be saved" in caplog.text
    assert Gateway(tmp_path).sums() == gateway.sums(), "the last one is still there"
    monkeypatch.setattr(Decoder, "enter", broken)
    assert Gateway(tmp_path).sums() == {}
    assert "cannot be taken up" in caplog.text


async def test_it_is_saved_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_module, "_INTERVAL", 0.01)
    monkeypatch.setattr(keep_module, "_FIRST", 0.01)
    gateway = Gateway(tmp_path)
    running = asyncio.create_task(gateway.keep.run(lambda: NOW, gateway.turn, committed))
    for minute in range(3):
        gateway.send(*town(3, NOW + minute))
        async with asyncio.timeout(20):
            while Gateway(tmp_path).sums() != gateway.sums():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
    running.cancel()


def test_a_large_file_is_written_less_often() -> None:
    assert [keep_module._pause(size) for size in (0, 2**20, 2**28)] == [3600, 3600, 21_600], "at most 1 GiB a day"
