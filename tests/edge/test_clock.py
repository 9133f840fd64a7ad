"""The gateway's own time, on clocks that do what clocks of devices do."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ClockConfig
from gateway.edge.batch import RawBatch
from gateway.edge.clock import RELEASE, Clock, System, served, synchronised

TRUE = 1_790_000_000_000
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
PATIENCE = 3600.0


@dataclass
class Device:
    """A device: how long it has been on, and what its clock shows."""

    up: int = 20 * SECOND
    wall: int = TRUE
    synchronised: bool = False
    served: bool = True
    stamps: list[int] = field(default_factory=list)

    def clock(self, trust: str = "auto", known_time: int = 0) -> Clock:
        config = ClockConfig.model_validate({"trust": trust, "patience": f"{PATIENCE}s"})
        system = System(
            lambda: self.wall, lambda: self.up, lambda: self.synchronised, lambda: self.served, lambda: "boot-1"
        )
        return Clock(config, known_time, system)

    def passes(self, milliseconds: int) -> None:
        """Time, with the device on or suspended: the kernel's count since boot knows no difference."""
        self.up += milliseconds
        self.wall += milliseconds

    def runs(self, clock: Clock, milliseconds: int, step: int = SECOND) -> None:
        """Time, with the clock checked and read all the while."""
        for _ in range(0, milliseconds, step):
            self.passes(step)
            clock.check()
            self.stamps.append(clock.now())


def test_a_device_that_starts_in_1970_waits_for_its_time_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    device = Device(wall=5 * MINUTE)
    clock = device.clock(known_time=TRUE - DAY)
    device.runs(clock, MINUTE)
    assert not clock.known
    assert clock.boot is not None
    assert (clock.boot.id, clock.boot.floor) == ("boot-1", TRUE - DAY)
    batch = RawBatch(["t"], [b"{}"], [clock.now()])
    moment = device.up
    clock.date(batch)
    assert batch.boot == clock.boot
    assert batch.received[0] - batch.boot.offset == moment
    device.wall, device.synchronised = TRUE, True
    assert clock.check()
    assert not clock.check()
    assert clock.known
    assert clock.boot is None
    assert clock.now() == TRUE
    assert clock.at(moment) == TRUE
    clock.date(batch)  # stamped before, looked at after
    assert batch.boot is None
    assert batch.received == [TRUE]
    device.passes(SECOND)
    mixed = RawBatch(["t", "t"], [b"{}", b"{}"], [moment, clock.now()])
    clock.date(mixed)
    assert mixed.received == [TRUE, TRUE + SECOND]
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "not known yet: it shows 1970-01-01 00:05:01+00:00" in said[0]
    assert "the clock is known: it is 2026-" in said[1]


def test_a_time_service_that_never_answers_ends_the_wait_when_patience_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Device()
    clock = device.clock()
    device.runs(clock, int(PATIENCE) * SECOND - SECOND)
    assert not clock.known
    device.runs(clock, SECOND)
    assert clock.known
    assert clock.now() == device.wall
    assert "patience is over" in caplog.text


def test_no_patience_believes_a_clock_that_was_never_set() -> None:
    device = Device(wall=RELEASE - 30 * DAY)
    clock = device.clock("system")
    device.runs(clock, DAY, MINUTE)
    assert not clock.known
    device.synchronised = True  # with a server that does not know the time either
    device.runs(clock, MINUTE)
    assert not clock.known


@pytest.mark.parametrize(
    ("trust", "there", "synced", "known"),
    [
        ("auto", True, False, False),
        ("auto", True, True, True),
        ("auto", False, False, True),
        ("ntp", False, False, False),
        ("ntp", False, True, True),
        ("system", True, False, True),
    ],
)
def test_whom_to_trust(*, trust: str, there: bool, synced: bool, known: bool) -> None:
    clock = Device(served=there, synchronised=synced).clock(trust)
    assert clock.check() is known
    assert clock.known is known


def test_a_clock_without_power_that_stands_before_the_last_known_time_is_not_believed() -> None:
    device = Device(wall=TRUE - DAY)
    clock = device.clock("system", known_time=TRUE)
    assert not clock.check()
    device.wall = TRUE - 30 * SECOND  # a restart within the spool's last minute
    assert clock.check()


def test_a_last_known_time_that_was_wrong_yields_to_a_synchronised_clock(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(synchronised=True)
    clock = device.clock(known_time=TRUE + 400 * DAY)
    assert clock.check()
    assert clock.now() == TRUE
    assert "must have been wrong" in caplog.text


def test_a_step_forward_and_a_suspended_device_are_followed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    clock = device.clock("system")
    clock.check()
    device.passes(8 * HOUR)
    assert clock.now() == device.wall
    clock.check()
    assert not caplog.records
    device.wall += 2 * DAY
    device.runs(clock, MINUTE)
    assert device.stamps[0] == device.wall - MINUTE + SECOND
    assert [record.message for record in caplog.records] == [
        "the system's clock was set forward by 2 days, 0:00:00: followed"
    ]


def test_an_hour_back_is_met_at_half_speed_and_reorders_nothing(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    clock = device.clock("system")
    clock.check()
    device.wall -= HOUR
    device.runs(clock, HOUR)
    assert device.stamps == sorted(device.stamps)
    assert len(set(device.stamps)) == len(device.stamps)
    assert device.stamps[-1] - device.wall == pytest.approx(HOUR / 2, abs=2 * SECOND)
    device.runs(clock, HOUR + 2 * SECOND)
    assert clock.now() == device.wall
    device.runs(clock, HOUR)
    assert clock.now() == device.wall
    assert [record.message for record in caplog.records] == [
        "the system's clock was set back by 1:00:00: met at half speed"
    ]


def test_two_days_back_are_doubted_and_said_once_until_patience_is_over(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    clock = device.clock("system")
    clock.check()
    device.wall -= 2 * DAY
    device.runs(clock, int(PATIENCE) * SECOND)
    assert clock.now() == device.wall + 2 * DAY
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "timedatectl" in record.message
    device.runs(clock, 2 * SECOND)
    assert clock.now() == device.wall
    assert "set back by 2 days, 0:00:00 to 2026-" in caplog.records[1].message
    device.runs(clock, HOUR)
    assert clock.now() == device.wall
    assert len(caplog.records) == 2


def test_two_days_back_are_followed_at_once_when_a_time_service_did_it(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(synchronised=True)
    clock = device.clock()
    clock.check()
    device.wall -= 2 * DAY
    device.runs(clock, SECOND)
    assert clock.now() == device.wall
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_clock_that_falls_to_1970_and_comes_back_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    device = Device()
    clock = device.clock("system")
    clock.check()
    right = device.wall
    device.wall = 0
    device.runs(clock, DAY, MINUTE)
    assert clock.known
    assert clock.now() == right + DAY
    device.wall = right + DAY
    device.runs(clock, MINUTE)
    assert clock.now() == device.wall
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]
    assert device.stamps == sorted(device.stamps)


def test_readings_that_differ_by_a_millisecond_are_no_step(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    clock = device.clock("system")
    clock.check()
    for jitter in (1, -1, 2, -2) * 50:
        device.wall += jitter
        device.runs(clock, SECOND)
    assert device.stamps == [device.stamps[0] + SECOND * number for number in range(200)]
    assert not caplog.records


def test_a_drifting_clock_is_followed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    for drift in (50, -50):  # ms a minute
        device = Device()
        clock = device.clock("system")
        clock.check()
        for _ in range(600):
            device.wall += drift
            device.runs(clock, MINUTE)
            assert abs(clock.now() - device.wall) <= 2
        assert device.stamps == sorted(device.stamps)
    assert not caplog.records


steps = st.one_of(
    st.tuples(st.just("passes"), st.integers(0, 3 * HOUR)),
    st.tuples(st.just("steps"), st.integers(-3 * DAY, 3 * DAY)),
    st.tuples(st.just("shows"), st.sampled_from([0, RELEASE - DAY, RELEASE + DAY, TRUE, TRUE + DAY])),
    st.tuples(st.just("synchronised"), st.integers(0, 1)),
)


@given(st.lists(steps, max_size=40), st.sampled_from(["auto", "ntp", "system"]), st.sampled_from([0, TRUE]))
def test_time_decreases_only_when_a_clock_set_far_back_is_followed(
    script: list[tuple[str, int]], trust: str, known_time: int
) -> None:
    device = Device()
    clock = device.clock(trust, known_time)
    clock.check()
    was_known, last = clock.known, clock.now()
    for what, value in script:
        match what:
            case "passes":
                device.passes(value)
            case "steps":
                device.wall = max(device.wall + value, 0)
            case "shows":
                device.wall = value
            case _:
                device.synchronised = bool(value)
        before = clock.now()
        assert before >= last
        clock.check()
        last = clock.now()
        assert clock.known >= was_known
        was_known = clock.known
        assert clock.known == (clock.boot is None)
        if last < before:
            assert last == device.wall >= RELEASE
            assert before - last > DAY
        if clock.known:
            assert last >= RELEASE
            assert last >= device.wall - 2
        else:
            assert last == device.up


def test_the_machine_itself_can_be_asked(tmp_path: Path) -> None:
    system = System()
    clock = Clock(ClockConfig(trust="system"), 0)
    assert clock.check()
    assert abs(clock.now() - system.wall()) < MINUTE
    assert system.boot_id() == system.boot_id() != ""
    assert synchronised() in {True, False}
    assert not served(tmp_path)
    (tmp_path / "chrony").mkdir()
    assert served(tmp_path)
