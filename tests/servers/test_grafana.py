"""The dashboard for Grafana: InfluxDB has data for each of its queries, by way of the agent from a simulated town."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.servers.conftest import Mosquitto, Server
from tests.servers.test_agent import MakeGateway, make_gateway, output, query, wait_for

__all__ = ["make_gateway"]

GRAFANA = Path(__file__).parents[2] / "configs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "citygate.json").read_text("utf-8"))


def asked(text: str) -> str:
    """The query as Grafana sends it: its macros and the variable for all sites filled in."""
    return text.replace("$timeFilter", "time > now() - 1h").replace("$__interval", "2s").replace("$site", ".*")


def test_each_query_of_the_dashboard_is_answered_with_data(
    mosquitto: Mosquitto, influxdb: Server, make_gateway: MakeGateway
) -> None:
    broker = mosquitto()
    gateway = make_gateway(broker.port, output(influxdb))
    gateway.start()
    start = datetime.now(UTC) - timedelta(minutes=20)
    town = [sys.executable, "-m", "gateway", "simulate", "--broker", f"127.0.0.1:{broker.port}", "--speed", "60"]
    town += ["--start", start.isoformat(), "--interval", "10", "--duration", "15m"]
    subprocess.run(town, check=True, timeout=60)
    wait_for(lambda: gateway.ledger()["queued"] == 0, "everything delivered")
    targets = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert len(targets) > 15
    empty = []
    for title, target in targets:
        rows = query(influxdb, asked(target["query"]))
        if not any(value is not None for _, *values in rows for value in values):
            empty.append(title)
    assert not empty
    (variable,) = DASHBOARD["templating"]["list"]
    assert {"old-town", "longgang"} <= {site for _, site in query(influxdb, variable["query"])}


def test_the_dashboard_is_provisioned_with_the_source_that_it_asks() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "citygate.yaml").read_text("utf-8"))
    (source,) = provisioned["datasources"]
    uids = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert (source["type"], uids) == ("influxdb", {source["uid"]})
