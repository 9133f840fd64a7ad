"""The local health endpoint: ``/health`` for people and service managers, ``/metrics`` for Prometheus."""

import logging
from collections.abc import Iterator, Mapping
from typing import Protocol, Self

from aiohttp import web

from gateway.config import GatewayConfig
from gateway.edge.spool import FATES, Ledger

log = logging.getLogger("citygate.health")


class Reporter(Protocol):
    """What the endpoint asks of the agent."""

    config: GatewayConfig

    def status(self) -> dict[str, object]:
        """Everything that ``citygate status`` shows."""

    def measure(self) -> Mapping[str, float | str]:
        """The agent's own health, by name."""

    def ledger(self) -> Ledger:
        """Where every reading is."""


class HealthServer:
    """Serves an agent's state as long as its context lasts.

    Args:
        agent: Whose state; its configuration says where to listen, and ``health_port`` absent means nowhere.
    """

    def __init__(self, agent: Reporter) -> None:
        self._agent = agent
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Starts to listen; a port in use is logged and costs the endpoint, not the gateway."""
        settings = self._agent.config.gateway
        if settings.health_port is None:
            return self
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, settings.health_host, settings.health_port).start()
        except OSError as error:
            log.error(  # noqa: TRY400 - told by its text
                "no health endpoint: %s; set gateway.health_port to a free port", error.strerror
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops to listen."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(self._agent.status())

    async def _metrics(self, _: web.Request) -> web.Response:
        gateway = self._agent.config.gateway.id
        counters = {"received", "messages", *FATES} - {"queued"}
        lines = []
        for name, value in self._agent.measure().items():
            if isinstance(value, str):
                continue
            counter = name in counters
            metric = f"citygate_{name}{'_total' if counter else ''}"
            lines += [
                f"# TYPE {metric} {'counter' if counter else 'gauge'}",
                f'{metric}{{gateway="{gateway}"}} {value:.15g}',
            ]
        lines += _ledger_metrics(self._agent.ledger(), gateway)
        return web.Response(text="\n".join([*lines, ""]), headers={"Content-Type": "text/plain; version=0.0.4"})


def _ledger_metrics(ledger: Ledger, gateway: str) -> Iterator[str]:
    """The ledger by source, and by output and source; ``queued`` can fall, hence gauges."""
    yield "# TYPE citygate_readings gauge"
    for source, counts in ledger.sources.items():
        for fate, count in counts.items():
            yield f'citygate_readings{{gateway="{gateway}",source="{source}",fate="{fate}"}} {count}'
    yield "# TYPE citygate_output_readings gauge"
    for output, sources in ledger.outputs.items():
        for source, counts in sources.items():
            for fate, count in counts.items():
                labels = f'gateway="{gateway}",output="{output}",source="{source}",fate="{fate}"'
                yield f"citygate_output_readings{{{labels}}} {count}"
