"""Alerts as Common Alerting Protocol 1.2."""

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.city.conftest import running, write
from tests.city.test_alerts import MINUTE, alerts, config, event, wind

CAP = "{urn:oasis:names:tc:emergency:cap:1.2}"
# The schema of CAP 1.2 (OASIS Standard, 1 July 2010, §3.4): * any number, ? optional, + at least one.
SEQUENCES = {
    "alert": (
        "identifier sender sent status msgType source? scope restriction? addresses? code* note? references?"
        " incidents? info*"
    ),
    "info": (
        "language? category+ event responseType* urgency severity certainty audience? eventCode* effective? onset?"
        " expires? senderName? headline? description? instruction? web? contact? parameter* resource* area*"
    ),
    "area": "areaDesc polygon* circle* geocode* altitude? ceiling?",
    "parameter": "valueName value",
}
VALUES = {
    "status": {"Actual", "Exercise", "System", "Test", "Draft"},
    "msgType": {"Alert", "Update", "Cancel", "Ack", "Error"},
    "scope": {"Public", "Restricted", "Private"},
    "category": {
        "Geo",
        "Met",
        "Safety",
        "Security",
        "Rescue",
        "Fire",
        "Health",
        "Env",
        "Transport",
        "Infra",
        "CBRNE",
        "Other",
    },
    "urgency": {"Immediate", "Expected", "Future", "Past", "Unknown"},
    "severity": {"Extreme", "Severe", "Moderate", "Minor", "Unknown"},
    "certainty": {"Observed", "Likely", "Possible", "Unlikely", "Unknown"},
}
PATTERNS = {
    **dict.fromkeys(("sent", "effective", "onset", "expires"), r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d"),
    **dict.fromkeys(("identifier", "sender"), r"[^\s,<&]+"),
    "circle": r"-?\d+\.\d+,-?\d+\.\d+ [\d.]+",
    "references": r"[^\s,<&]+,[^\s,<&]+,\S+(?: [^\s,<&]+,[^\s,<&]+,\S+)*",
}


def conforms(element: ET.Element) -> None:
    """Fails unless an element and all in it are as the standard's schema wants them."""
    name = element.tag.removeprefix(CAP)
    if name in SEQUENCES:
        children = " ".join(child.tag.removeprefix(CAP) for child in element) + " "
        pattern = "".join(
            f"(?:{part.rstrip('*?+')} ){part[-1] if part[-1] in '*?+' else ''}" for part in SEQUENCES[name].split()
        )
        assert re.fullmatch(pattern, children), f"{name}: {children}"
        assert element.text is None
        for child in element:
            conforms(child)
        return
    assert element.text
    assert name not in VALUES or element.text in VALUES[name]
    assert name not in PATTERNS or re.fullmatch(PATTERNS[name], element.text), element.text


def text(root: ET.Element, path: str) -> str | None:
    return root.findtext("/".join(CAP + part for part in path.split("/")))


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running(config(tmp_path)) as app:
        yield app


@pytest.fixture
def now() -> int:
    return time.time_ns() // 1_000_000


async def fetched(client: httpx.AsyncClient, name: str) -> ET.Element:
    answer = await client.get(f"/api/v1/events/{name}/cap.xml")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/cap+xml"
    root = ET.fromstring(answer.content)  # noqa: S314 - our own
    assert root.tag == f"{CAP}alert"
    conforms(root)
    return root


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC"])
async def test_an_alert_its_update_and_its_end_are_as_the_standard_wants_them(
    client: httpx.AsyncClient, now: int, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    at = now - 5 * MINUTE
    await write(client, wind(at - MINUTE, 0), event("middle", at, severity="orange"))
    (alert,) = await alerts(client)
    first = await fetched(client, alert["id"])
    assert (text(first, "msgType"), text(first, "status"), text(first, "scope")) == ("Alert", "Actual", "Restricted")
    assert (text(first, "info/severity"), text(first, "info/urgency")) == ("Severe", "Immediate")
    assert [info.findtext(f"{CAP}language") for info in first.findall(f"{CAP}info")] == ["zh-CN", "en", "ko-KR"]
    assert text(first, "info/event") == "空气污染"
    assert text(first, "info/area/circle") == "30.20000,119.70000 1"
    english = first.findall(f"{CAP}info")[1]
    assert english.findtext(f"{CAP}headline") == "Air pollution (orange) \N{EN DASH} middle"
    assert "Upwind of middle: N 330°-30°, 3 m/s\nLikely sources: Works 6.7 km" in (
        english.findtext(f"{CAP}description") or ""
    )
    await write(client, event("middle", now - MINUTE, severity="red", since=at))
    second = await fetched(client, alert["events"][0]["id"])
    assert (text(second, "msgType"), text(second, "info/severity")) == ("Update", "Extreme")
    assert text(second, "references") == f"citygate,{text(first, 'identifier')},{text(first, 'sent')}"
    await write(client, event("middle", now, severity="none", since=at))
    last = await fetched(client, alert["id"])
    assert (text(last, "msgType"), text(last, "info/urgency")) == ("Cancel", "Past")
    assert len((text(last, "references") or "").split()) == 2
    assert (text(last, "info/onset") or "").endswith("+08:00" if zone == "Asia/Shanghai" else "-00:00")
    monkeypatch.undo()
    time.tzset()


async def test_water_and_names_that_xml_and_cap_do_not_bear(client: httpx.AsyncClient, now: int) -> None:
    strange = event("middle", now, kind="water", number=2, quantity="nh3n").replace('over"', '<over> & out\x01"')
    await write(client, strange, event("west", now, kind="odd,&<\\ kind".replace(",", "\\,"), quantity="q & a"))
    for alert in await alerts(client):
        await fetched(client, alert["id"])
    assert (await client.get("/api/v1/events/none/cap.xml")).status_code == 404
