"""A gateway for tests: a site's own configuration, on the test's broker, store, spool and ports."""

import json
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.testing.broker import Broker
from gateway.testing.points import DeadLetter, Ledger
from gateway.testing.process import Process, TestingError, free_ports
from gateway.testing.store import Store

if TYPE_CHECKING:
    from gateway.config import GatewayConfig

_PATIENCE = 30.0  # seconds in which something has to move
_AHEAD = 5000  # messages; an embedded broker drops what is beyond 128 MiB
_ELSEWHERE = ("username", "password", "password_file", "token_file", "tls", "tls_ca", "tls_cert", "tls_key")
"""Keys of broker and outputs that are of no use here."""


class Gateway:
    """``citygate run``, as a site would run it, in a process of its own.

    Of the site's configuration everything holds but what ties it to its machine: broker, outputs, spool and ports are
    the test's own, the clock is believed at once, and secrets are not asked for.

    Args:
        config: The site's ``gateway.toml``.
        broker: Where it subscribes.
        store: Where it writes.
        folder: Where its spool and its log go.
        recorded: Whether its time is that of a recording, see ``mqtt.recorded_time``.

    Attributes:
        config: What it runs with.

    Raises:
        TestingError: The configuration cannot be used, or the gateway does not come up.
    """

    def __init__(self, config: Path, broker: Broker, store: Store, folder: Path, *, recorded: bool = False) -> None:
        self.broker, self.store = broker, store
        (self._port,) = free_ports(1)
        own = folder / "gateway.toml"
        self.config = _adapted(config, own, broker, store, self._port, recorded=recorded)
        self._before = dict(broker.topics)
        self.process = Process("gateway", ["-m", "gateway", "run", "-c", str(own)], folder)
        try:
            self.process.wait_for(self._subscribed, "has not subscribed at the broker")
        except TestingError:
            self.process.stop()
            raise

    def status(self) -> dict[str, Any]:
        """What ``citygate status --json`` says; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=10) as answer:
                state: dict[str, Any] = json.load(answer)
        except (OSError, ValueError):
            return {}
        return state

    def ledger(self) -> Ledger:
        """Where every reading is now."""
        return Ledger(self.status().get("ledger", {}))

    def log(self) -> str:
        """All that it said."""
        return self.process.log()

    def dead_letters(self) -> list[DeadLetter]:
        """Messages that it could not read, in the order of arrival."""
        from gateway.edge.spool import Peek  # noqa: PLC0415 - SQLite and the rest, only when asked for

        with Peek(self.config.spool_path) as spool:
            return [
                DeadLetter(dead.topic, dead.payload, dead.reason, dead.source, dead.received, dead.readings)
                for dead in reversed(spool.dead_letters())
            ]

    def settle(self) -> Ledger:
        """Returns when the gateway has taken all that :meth:`Broker.publish` published and the store has all of it.

        Raises:
            TestingError: For 30 s nothing moved; with what is still under way.
        """
        last, moved = (-1, -1), time.monotonic()
        while True:
            state = self.status()
            taken, wanted, left = self._progress(state)
            if state and taken >= wanted and not left:
                return Ledger(state["ledger"])
            self.process.check()
            if (taken, left) != last:
                last, moved = (taken, left), time.monotonic()
            elif time.monotonic() - moved > _PATIENCE:
                trouble = "".join(f"\n{output['last_error']}" for output in state.get("outputs", ()))
                msg = (
                    f"nothing moved for {_PATIENCE:.0f} s: the gateway took {taken:,} of {wanted:,} messages, "
                    f"{left:,} batches are not in the store{trouble}\n{Ledger(state.get('ledger', {}))}\n"
                    f"{self.process.tail()}"
                )
                raise TestingError(msg)
            time.sleep(0.02)

    def behind(self) -> bool:
        """Whether it has far more to take than a broker should have to keep."""
        taken, wanted, _ = self._progress(self.status())
        return wanted - taken > _AHEAD

    def stop(self) -> None:
        """Ends it in order."""
        self.process.stop()

    def _subscribed(self) -> bool:
        state = self.status()
        return bool(state) and bool(state["broker"]["connected"])

    def _progress(self, state: dict[str, Any]) -> tuple[int, int, int]:
        """Messages taken, messages that were published for it, and batches that the store lacks."""
        if not state:
            return 0, 0, 0
        wanted = self.broker.deliveries(state["broker"]["subscriptions"], self._before)
        return state["health"]["messages"], wanted, sum(output["backlog_rows"] for output in state["outputs"])


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _adapted(  # noqa: PLR0913 - all that a test has of its own
    config: Path, own: Path, broker: Broker, store: Store, port: int, *, recorded: bool
) -> "GatewayConfig":
    """Writes the site's configuration anew, with what the test has of its own; returns what it says."""
    import tomli_w  # noqa: PLC0415 - pydantic and the rest, only when a gateway is wanted

    from gateway.config import ConfigError, GatewayConfig, load  # noqa: PLC0415

    def change(data: dict[str, Any]) -> None:
        for section in ("gateway", "mqtt", "clock", "spool"):
            if not _is_table(data.setdefault(section, {})):
                return  # and validation says so
        mqtt, outputs = data["mqtt"], data.get("output")
        for key in _ELSEWHERE:
            mqtt.pop(key, None)
        if recorded:
            mqtt |= {"protocol": "5", "recorded_time": True}
        mqtt |= {"host": "127.0.0.1", "port": broker.port if mqtt.get("protocol") == "3.1.1" else broker.port5}
        data["gateway"] |= {
            "data_dir": str(own.parent / "data"),
            "health_host": "127.0.0.1",
            "health_port": port,
            "health_interval": "1h",
        }
        data["clock"]["trust"] = "system"
        data["spool"].pop("path", None)
        for output in filter(_is_table, outputs if isinstance(outputs, list) else ()):
            for key in _ELSEWHERE:
                output.pop(key, None)
            output |= {"type": "influxdb2", "url": store.url, "token": "test"}
            output |= {"flush_interval": "20ms", "backlog_rate": "1GB"}
        own.write_text(tomli_w.dumps(data), "utf-8")

    try:
        return load(config, GatewayConfig, {}, change)
    except ConfigError as error:
        raise TestingError(str(error)) from None
