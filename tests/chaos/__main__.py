"""``make chaos``: the long version, with figures."""

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.publish import until_signal
from tests.chaos import chaos, outage
from tests.chaos.chaos import Plan
from tests.chaos.parts import Broken, Site

_FLUSH = 1.0  # s, `flush_interval`
_SHARE = 10  # part of the readings that is sent to the broker that is killed
_TENTHS = 10

say = Console(soft_wrap=True, highlight=False, markup=False).print
aside = Console(soft_wrap=True, highlight=False, markup=False, stderr=True).print


def main(arguments: Sequence[str] | None = None) -> int:
    """Breaks things and says what came of it; 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Kill everything at random; nothing may be lost.")
    parser.add_argument("--seed", type=int, default=None, help="of the values and the schedule; random by default")
    for name, default, text in (
        ("readings", 1_000_000, "readings to send"),
        ("kills", 200, "kills of the gateway"),
        ("database-kills", 50, "kills of the database"),
        ("restarts", 20, "clean restarts of the broker"),
        ("broker-kills", 10, "kills of the broker, in a run of its own with a tenth of the readings"),
        ("outage", 500_000, "readings sent while the database is away, in a run of its own; 0 for none"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default:,})")
    parser.add_argument("--data", type=Path, default=None, help="folder for the data; a temporary one by default")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    if options.data is None:
        options.data = Path(tempfile.mkdtemp(prefix="citygate-chaos-"))
    say(f"seed {options.seed}")
    problems: list[str] = []
    finished = asyncio.run(until_signal(_run(options, problems)))
    if finished and not problems:
        say("every promise was kept")
        shutil.rmtree(options.data)
        return 0
    say(*problems, f"seed {options.seed}; the data is in {options.data}", sep="\n")
    return 1


async def _run(options: argparse.Namespace, problems: list[str]) -> None:
    whole = Plan(options.seed, options.readings, options.kills, options.database_kills, options.restarts)
    hard = Plan(options.seed, options.readings // _SHARE, options.broker_kills, broker_kills=options.broker_kills)
    for name, plan in (("kills", whole), ("broker-kills", hard)):
        if plan.kills or plan.database_kills or plan.restarts:
            with _site(options.data / name) as site, _progress(plan.readings, len(chaos.schedule(plan))) as progress:
                result = await chaos.run(site, plan, progress)
            problems += result.problems
            say(f"\n{result.readings:,} readings in {result.seconds / 60:.1f} min; {_counted(result.strikes)}")
            say(f"ledger: {_counted(result.ledger)}")
    if options.outage:
        # slow enough for the backlog to last
        with (
            _site(options.data / "outage", f'flush_interval = "{_FLUSH:g}s"\nbacklog_rate = "100KB"') as site,
            _progress(options.outage, 0) as progress,
        ):
            try:
                away = await outage.run(site, options.seed, options.outage, progress)
            except Broken as error:
                problems.append(str(error))
                return
        problems += away.problems
        problems += _told(away)


def _told(away: outage.Outage) -> list[str]:
    say(f"\n{away.readings:,} readings while the database was away for {away.away:.0f} s")
    say(f"back: first fresh reading stored after {away.noticed:.1f} s, all after {away.drained:.1f} s")
    say(f"ledger: {_counted(away.ledger)}")
    if not away.fresh:
        return ["the backlog was gone before anything new came: no figure"]
    took = sorted(fresh.seconds for fresh in away.fresh)
    within = sum(seconds <= 2 * _FLUSH for seconds in took)
    say(
        f"{len(took)} fresh messages beside the backlog: {statistics.median(took):.2f} s in the middle, "
        f"{took[-1]:.2f} s at most; {within} within two flush intervals"
    )
    return [] if within == len(took) else ["not every fresh reading was stored within two flush intervals"]


def _site(folder: Path, output: str = 'flush_interval = "500ms"') -> Site:
    programs = []
    for name, package in (("mosquitto", "mosquitto"), ("influxd", "influxdb")):
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if path is None:
            sys.exit(f"{name} is not installed: apt-get install {package}")
        programs.append(path)
    folder.mkdir(parents=True)
    return Site(folder, programs[0], programs[1], output=output)


@contextlib.contextmanager
def _progress(readings: int, strikes: int) -> Iterator[chaos.Progress]:
    """A bar on a terminal, ten lines elsewhere."""
    if not sys.stderr.isatty():
        said = -1

        def tell(sent: int, struck: int) -> None:
            nonlocal said
            if (tenth := sent * _TENTHS // readings) > said:
                said = tenth
                aside(f"{sent:,} of {readings:,} readings, {struck} of {strikes} blows")

        yield tell
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as shown:
        sending = shown.add_task("readings", total=readings)
        striking = shown.add_task("blows", total=strikes, visible=bool(strikes))

        def move(sent: int, struck: int) -> None:
            shown.update(sending, completed=sent)
            shown.update(striking, completed=struck)

        yield move


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
