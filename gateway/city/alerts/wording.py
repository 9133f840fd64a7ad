"""An alert in words, for whoever does not look at the page."""

from typing import Literal

from gateway.city.alerts.grouping import rank
from gateway.city.alerts.models import Kept
from gateway.city.store.base import Event
from gateway.city.view import View
from sensors.kinds import Title

Language = Literal["zh", "en", "ko"]
What = Literal["begins", "graver", "ended"]
LANGUAGES: tuple[Language, ...] = ("zh", "en", "ko")
_COMPASS: dict[Language, tuple[str, ...]] = {
    "zh": ("北", "东北", "东", "东南", "南", "西南", "西", "西北"),
    "en": ("N", "NE", "E", "SE", "S", "SW", "W", "NW"),
    "ko": ("북", "북동", "동", "남동", "남", "남서", "서", "북서"),
}
_SEVERITY: dict[Language, dict[str, str]] = {
    "zh": {"blue": "蓝色", "yellow": "黄色", "orange": "橙色", "red": "红色"},
    "en": {"blue": "blue", "yellow": "yellow", "orange": "orange", "red": "red"},
    "ko": {"blue": "파랑", "yellow": "노랑", "orange": "주황", "red": "빨강"},
}
_WHAT: dict[Language, dict[What, str]] = {
    "zh": {"begins": "新预警", "graver": "预警升级", "ended": "预警解除"},
    "en": {"begins": "new alert", "graver": "alert is graver", "ended": "alert is over"},
    "ko": {"begins": "새 경보", "graver": "경보 격상", "ended": "경보 해제"},
}
_UPWIND = {"zh": "上风向", "en": "Upwind of", "ko": "풍상측"}
_LIKELY = {"zh": "可能来源", "en": "Likely sources", "ko": "추정 오염원"}
_UPSTREAM = {"zh": "上游", "en": "Upstream", "ko": "상류"}
_LIMIT = {"zh": "界限", "en": "limit", "ko": "한계"}
_EVENTS = 10


class Wording:
    """Says what an alert is about.

    Args:
        view: What sites and quantities are called.
        language: In which language.
    """

    def __init__(self, view: View, language: Language) -> None:
        self._view = view
        self._language: Language = language

    def place(self, site: str) -> str:
        """What a site is called."""
        return self._title(self._view.places.sites.get(site), site)

    def cause(self, alert: Kept) -> str:
        """What an alert's cause is called."""
        return self._title(alert.family.title, alert.cause)

    def headline(self, alert: Kept, what: What | None = None) -> str:
        """An alert in a line; with what has become of it, if that is to be said."""
        sites = ", ".join(filter(None, map(self.place, alert.sites)))
        said = f"{_WHAT[self._language][what]}: " if what else ""
        severity = _SEVERITY[self._language][alert.severity]
        return f"{said}{self.cause(alert)} ({severity})" + (f" – {sites}" if sites else "")  # noqa: RUF001 - a dash

    def lines(self, alert: Kept) -> list[str]:
        """What was measured, from where it may come, what is upstream."""
        events = sorted(
            alert.members.values(),
            key=lambda event: (event.until is not None, -rank(event.last.severity), event.since),
        )
        lines = [self._event(event, alert.titles.get(event.last.id)) for event in events[:_EVENTS]]
        for sector in alert.wind.values():
            if not sector.calm:
                point = _COMPASS[self._language][round(sector.direction / 45) % 8]
                lines.append(
                    f"{_UPWIND[self._language]} {self.place(sector.site)}: {point}"
                    f" {sector.start:.0f}°-{sector.end:.0f}°, {sector.speed:g} m/s"
                )
        if alert.sources:
            named = (f"{self._title(s.title, s.id)} {s.distance_km:g} km" for s in alert.sources)
            lines.append(f"{_LIKELY[self._language]}: {', '.join(named)}")
        if alert.upstream:
            named = (
                f"{self._title(s.title, s.sensor_id)} {'-' if s.value is None else f'{s.value:g}'} {s.unit}"
                for s in alert.upstream
            )
            lines.append(f"{_UPSTREAM[self._language]}: {', '.join(named)}")
        return lines

    def _event(self, event: Event, rule: Title | None) -> str:
        last = event.last
        quantity = self._view.quantity(last.key.kind, last.quantity)
        about = self._title(rule, self._title(quantity.title, last.quantity))
        value = "" if last.value is None else f" {last.value:.4g} {quantity.unit}".rstrip()
        limit = "" if last.limit is None else f" ({_LIMIT[self._language]} {last.limit:g})"
        return f"{self.place(last.key.site)} {last.key.sensor}: {about}{value}{limit}".strip()

    def _title(self, title: Title | None, otherwise: str) -> str:
        text: str = otherwise if title is None else getattr(title, self._language)
        return text
