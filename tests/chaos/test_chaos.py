"""The short version of `make chaos`."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import chaos, outage
from tests.chaos.chaos import Plan
from tests.chaos.parts import Site

Program = Callable[[str, str], str]


@pytest.fixture
def site(tmp_path: Path, program: Program) -> Iterator[Site]:
    with Site(tmp_path, program("mosquitto", "mosquitto"), program("influxd", "influxdb")) as made:
        yield made


@pytest.fixture
def seed() -> int:
    return random.SystemRandom().randrange(10**6)


def test_a_seed_reproduces_the_schedule() -> None:
    plan = Plan(seed=7, readings=1000, kills=10, database_kills=4, restarts=2)
    assert chaos.schedule(plan) == chaos.schedule(plan)
    assert chaos.schedule(plan) != chaos.schedule(
        Plan(seed=8, readings=1000, kills=10, database_kills=4, restarts=2, pace=0.5)
    )


@pytest.mark.slow
async def test_all_is_stored_once_through_kills_of_everything(site: Site, seed: int) -> None:
    result = await chaos.run(site, Plan(seed, readings=60_000, kills=10, database_kills=4, restarts=2, pace=0.5))
    assert not result.problems, f"seed {seed}, data in {site.folder}: {result}"


@pytest.mark.slow
async def test_what_was_acknowledged_is_stored_although_the_broker_was_killed(site: Site, seed: int) -> None:
    result = await chaos.run(site, Plan(seed, readings=20_000, kills=1, broker_kills=2, pace=0.5))
    assert not result.problems, f"seed {seed}, data in {site.folder}: {result}"


@pytest.mark.slow
async def test_what_is_new_does_not_wait_behind_a_backlog(tmp_path: Path, program: Program, seed: int) -> None:
    programs = program("mosquitto", "mosquitto"), program("influxd", "influxdb")
    with Site(tmp_path, *programs, output='backlog_rate = "20KB"') as site:
        result = await outage.run(site, seed, 50_000)
    assert not result.problems, f"seed {seed}, data in {tmp_path}: {result}"
    assert result.fresh, "nothing new was stored while the backlog drained"
    assert result.fresh[0].backlog > 0.5
