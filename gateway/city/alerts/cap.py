"""An alert as OASIS Common Alerting Protocol 1.2, for those whom a city has to warn.

The elements are in the order of the standard's schema; times have an offset and never ``Z`` (§3.3.2).
"""

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from gateway.city.alerts.models import Kept
from gateway.city.alerts.origin import site_point
from gateway.city.alerts.wording import LANGUAGES, Language, Wording
from gateway.city.view import View
from gateway.config import AlertsSection

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
_TAG = {"zh": "zh-CN", "en": "en", "ko": "ko-KR"}
_SEVERITY = {"red": "Extreme", "orange": "Severe", "yellow": "Moderate", "blue": "Minor"}
_URGENCY = {"red": "Immediate", "orange": "Immediate", "yellow": "Expected", "blue": "Expected"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RADIUS_KM = 1.0  # of a site


def document(alert: Kept, view: View, config: AlertsSection) -> bytes:
    """The alert as it is now: an ``Alert`` at first, then an ``Update`` of all before, in the end a ``Cancel``.

    Args:
        alert: The alert.
        view: What sites and quantities are called.
        config: The section ``[alerts]``.

    Returns:
        XML in UTF-8.
    """
    revision = len(alert.revisions)
    root = ET.Element("alert", xmlns=NAMESPACE)
    _add(root, "identifier", _identifier(alert, revision))
    _add(root, "sender", config.sender)
    _add(root, "sent", moment(alert.revisions[-1]))
    _add(root, "status", "Exercise" if config.exercise else "Actual")
    _add(root, "msgType", "Cancel" if alert.until is not None else "Alert" if revision == 1 else "Update")
    _add(root, "scope", "Public" if config.public else "Restricted")
    if not config.public:
        _add(root, "restriction", "For those in charge; not for publication.")
    if revision > 1:
        earlier = (
            f"{config.sender},{_identifier(alert, number)},{moment(time)}"
            for number, time in enumerate(alert.revisions[:-1], 1)
        )
        _add(root, "references", " ".join(earlier))
    for language in LANGUAGES:
        _info(root, alert, view, language)
    xml: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return xml


def moment(milliseconds: int) -> str:
    """A time as CAP wants it: ``2026-11-23T14:05:32+08:00``, UTC as ``-00:00``."""
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone().isoformat(timespec="seconds")
    return text.replace("+00:00", "-00:00")


def _identifier(alert: Kept, revision: int) -> str:
    return f"{alert.id}.{revision}"


def _info(root: ET.Element, alert: Kept, view: View, language: Language) -> None:
    said = Wording(view, language)
    info = ET.SubElement(root, "info")
    _add(info, "language", _TAG[language])
    _add(info, "category", alert.family.category)
    _add(info, "event", said.cause(alert))
    _add(info, "urgency", "Past" if alert.until is not None else _URGENCY[alert.severity])
    _add(info, "severity", _SEVERITY[alert.severity])
    _add(info, "certainty", "Observed")
    _add(info, "effective", moment(alert.revisions[-1]))
    _add(info, "onset", moment(alert.since))
    if alert.until is not None:
        _add(info, "expires", moment(alert.until))
    _add(info, "senderName", getattr(view.map().title, language))
    _add(info, "headline", said.headline(alert))
    _add(info, "description", "\n".join(said.lines(alert)))
    parameters: list[tuple[str, str]] = [("colour", alert.severity)]
    parameters += [
        (f"upwind {sector.site}", f"{sector.start:g}-{sector.end:g}")
        for sector in alert.wind.values()
        if not sector.calm
    ]
    parameters += [("likely source", source.id) for source in alert.sources]
    for name, value in parameters:
        parameter = ET.SubElement(info, "parameter")
        _add(parameter, "valueName", name)
        _add(parameter, "value", value)
    for site in alert.sites:
        area = ET.SubElement(info, "area")
        _add(area, "areaDesc", said.place(site) or getattr(view.map().title, language))
        point = site_point(view.places, site)
        if point is not None:
            _add(area, "circle", f"{point[1]:.5f},{point[0]:.5f} {_RADIUS_KM:g}")


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _NOT_XML.sub(" ", text)
