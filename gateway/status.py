"""``citygate status``: ask the gateway on this machine how it is."""

import json
import urllib.request
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.config import GatewayConfig
from gateway.edge.spool import FATES
from sensors.formats.objects import printable

_LONGEST = 240


class StatusError(Exception):
    """The gateway does not answer; the message says what to do."""


def fetch(config: GatewayConfig) -> dict[str, Any]:
    """Asks the health endpoint.

    Raises:
        StatusError: If nothing, or something else, answers there.
    """
    settings = config.gateway
    if settings.health_port is None:
        msg = "this gateway has no health endpoint: set gateway.health_port"
        raise StatusError(msg)
    url = f"http://{settings.health_host}:{settings.health_port}/health"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            state: dict[str, Any] = json.load(answer)
    except (OSError, ValueError) as error:
        msg = f"no gateway answers at {url}: {error}. Is it running? Start it with  citygate run -c FILE"
        raise StatusError(msg) from error
    return state


def show(state: dict[str, Any]) -> None:
    """Prints a gateway's state for people."""
    console = Console()
    health, broker = state["health"], state["broker"]
    link = "[green]connected[/green]" if broker["connected"] else "[red]not connected[/red]"
    for alarm in state["alarms"]:
        console.print(f"[red bold]alarm[/red bold] {alarm}", soft_wrap=True)
    console.print(
        f"[bold]{state['gateway']}[/bold]  up {health['uptime_s']:.0f} s · {health['sensors']} sensors · "
        f"{health['rss_bytes'] / 1e6:.0f} MB memory · spool {health['spool_bytes'] / 1e6:.1f} MB"
    )
    if not state["clock"]["known"]:
        console.print(
            "[yellow]clock not known yet:[/yellow] readings without a time of their own wait in the spool",
            soft_wrap=True,
        )
    console.print(f"broker {broker['host']}:{broker['port']}  {link}")
    fates = ("received", *FATES)
    table = Table(box=None, pad_edge=False)
    table.add_column("source", no_wrap=True)
    for fate in fates:
        table.add_column(fate, justify="right", no_wrap=True)
    for source, counts in state["ledger"].items():
        table.add_row(source, *(f"{counts[fate]:,}" for fate in fates))
        if len(state["outputs"]) > 1:
            for output in state["outputs"]:
                if source in output["ledger"]:
                    part = output["ledger"][source]
                    table.add_row(f"  to {output['name']}", *(f"{part[fate]:,}" for fate in fates), style="dim")
    console.print(table)
    for output in state["outputs"]:
        _show_output(console, output)
    _show_loose(console, state["loose"])
    for found in state["discovered"]:
        _show_discovered(console, found)


def _show_loose(console: Console, loose: dict[str, dict[str, int]]) -> None:
    """Prints in what messages are not as their standard says, though they are read."""
    for source, counts in loose.items():
        said = ", ".join(f"{printable(remark, _LONGEST)} ({count:,})" for remark, count in counts.items())
        text = f"[yellow]loose[/yellow] {source}: read, though not as the standard says: {escape(said)}"
        console.print(text, soft_wrap=True)


def _show_discovered(console: Console, found: dict[str, Any]) -> None:
    """Prints a device that nobody has declared, and how it could be."""
    says = ", ".join(
        printable(name, _LONGEST) if value is None else f"{name} {value:g}"
        for name, value in list(found["quantities"].items())[:8]
    )
    device, topic = printable(found["device"], _LONGEST), printable(found["topic"], _LONGEST)
    count = found["messages"]
    heard = f"{count:,} message{'s' if count > 1 else ''}, held" if count else "announced"
    console.print(f"\n[yellow]undeclared[/yellow] {escape(device)}  {heard}", soft_wrap=True)
    console.print(f"  topic {topic}: {says}", soft_wrap=True, markup=False, highlight=False)
    hint = f"  to accept it, put this into {found['where']} and start the gateway anew:"
    console.print(hint, soft_wrap=True, markup=False, highlight=False)
    for line in found["declare"].splitlines():
        console.print(f"    {line}", soft_wrap=True, markup=False, highlight=False)


def _show_output(console: Console, output: dict[str, Any]) -> None:
    well = output["state"] == "ok"
    console.print(
        f"output {output['name']}  {output['url']}  [{'green' if well else 'red'}]{output['state']}[/]  "
        f"backlog {output['backlog_rows']:,} batches, {output['backlog_bytes'] / 1e6:.1f} MB",
        soft_wrap=True,
    )
    if not well and output["last_error"]:
        console.print(f"  {output['last_error']}", soft_wrap=True, markup=False)
