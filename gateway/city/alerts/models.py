"""What an alert is: as it is kept, and as the API gives it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.city.alerts.families import Family
from gateway.city.models import EventOut
from gateway.city.store.base import Event
from sensors.kinds import Severity, Title


class Sector(BaseModel):
    """Where the wind came from at a site when an event began there."""

    site: str
    direction: float = Field(description="degrees, from where the wind blew, mean by speed")
    start: float = Field(description="degrees, the sector's left edge seen from the site")
    end: float = Field(description="degrees, its right edge")
    width: float = Field(description="degrees")
    speed: float = Field(description="m/s, of the mean wind")
    calm: bool = Field(description="too little wind to say from where; the sector means nothing")
    sensors: list[str] = Field(description="ids of the wind sensors")
    time: str


class Source(BaseModel):
    """A declared source of pollution that lies upwind."""

    id: str
    kind: str
    title: Title | None
    lon: float
    lat: float
    distance_km: float = Field(description="to the nearest site of the alert that has it upwind")
    sites: list[str] = Field(description="sites of the alert that have it upwind")


class Upstream(BaseModel):
    """A station upstream, nearest first, as it was when the alert last changed."""

    sensor_id: str
    site: str
    title: Title | None
    river: str
    upstream_km: float
    quantity: str
    value: float | None
    unit: str
    time: str | None
    event: Severity | None = Field(description="severity of its own open event of this quantity")


class Acknowledgement(BaseModel):
    """Somebody has taken notice."""

    time: str
    by: str
    note: str
    severity: Severity = Field(description="the alert's at that time; a graver one asks again")


class Kept(BaseModel):
    """An alert as it is kept.

    Attributes:
        id: Its identifier, without a space.
        cause: Name of the cause.
        family: How the cause spreads.
        members: Its events, by their ids.
        titles: Titles of rules, by the ids of the events that they raised.
        withdrawn: Why events were none, by their ids: their sensors' faults as verdicts call them, or ``maintenance``.
        since: When the first event began, ms UTC.
        until: When the last one ended, ms UTC; None while one lasts.
        severity: The gravest of the open events; of all once it has ended.
        revisions: When it began and each time it changed in what one acts upon, ms UTC.
        wind: By site.
        sources: The likely ones first.
        upstream: Stations upstream.
        acknowledged: Who took notice.
        told: The gravest severity that channels were told; None before.
        told_end: Channels were told that it is over.
    """

    id: str
    cause: str
    family: Family
    members: dict[str, Event] = {}
    titles: dict[str, Title] = {}
    withdrawn: dict[str, str] = {}
    since: int
    until: int | None = None
    severity: Severity
    revisions: list[int]
    wind: dict[str, Sector] = {}
    sources: list[Source] = []
    upstream: list[Upstream] = []
    acknowledged: Acknowledgement | None = None
    told: Severity | None = None
    told_end: bool = False

    @property
    def sites(self) -> list[str]:
        """Its sites, in the order in which they were reached."""
        by_time = sorted(self.members.values(), key=lambda event: (event.since, event.last.id))
        return list(dict.fromkeys(event.last.key.site for event in by_time))

    @property
    def newest(self) -> int:
        """When the newest of its events began, ms UTC."""
        return max(event.since for event in self.members.values())


class AlertEvent(EventOut):
    """An event of an alert."""

    rule: Title | None = Field(description="title of the city's rule that raised it; null for a gateway's event")


class AlertOut(BaseModel):
    """Events with one cause: what, where, how grave, since when, from where, and who took notice."""

    id: str
    cause: str
    title: Title
    severity: Severity = Field(description="the gravest of what is open; of all once it has ended")
    state: Literal["open", "acknowledged", "ended"]
    since: str
    until: str | None
    time: str = Field(description="when it last changed in what one acts upon")
    revision: int
    sites: list[str] = Field(description="in the order in which they were reached")
    events: list[AlertEvent] = Field(description="open ones first, the gravest on top")
    wind: list[Sector]
    sources: list[Source] = Field(description="declared sources upwind, the likely ones first")
    upstream: list[Upstream]
    acknowledged: Acknowledgement | None
    withdrawn: str | None = Field(
        description="it was none, for all of its events were faults of their sensors: the first one, as verdicts call"
        " it, or maintenance; null otherwise",
        examples=["stuck"],
    )


class AlertsOut(BaseModel):
    """Alerts: open ones first, the gravest on top, then the newest."""

    alerts: list[AlertOut]


class RuleOut(BaseModel):
    """A rule of the city view."""

    name: str
    title: Title
    severity: Severity
    enabled: bool = Field(description="whether it is in force")
    of_page: bool = Field(description="it is the page's, which can change it")
    in_file: bool = Field(description="the site's file has one of this name; where both do, the page's counts")
    settings: dict[str, object] = Field(description="its keys, as in the file")
    watched: int = Field(description="sensors or places that it looks at; 0 where it fits none")
    running: int = Field(description="events of it that have not ended")


class RulesOut(BaseModel):
    """All rules."""

    problem: str = Field(description="why a file is not in force as it is now; empty if both are")
    tag: str = Field(description="for the header If-Match of a change")
    rules: list[RuleOut]


class TriedEvent(BaseModel):
    """An event that a rule would have raised."""

    sensor: str
    since: str
    until: str | None


class Tried(BaseModel):
    """What a rule would have raised in the last days, by the means of steps."""

    days: int
    step: int = Field(description="seconds; peaks that are shorter are lost")
    watched: int = Field(description="sensors that it looks at")
    times: int = Field(description="how often it would have begun")
    events: list[TriedEvent] = Field(description="the newest 50")


class ChannelOut(BaseModel):
    """A channel."""

    name: str
    type: Literal["webhook", "email", "mqtt"]
    severity: Severity = Field(description="the mildest that it tells")
    waiting: int = Field(description="letters that were not taken yet")
    problem: str = Field(description="why the last one was not taken; empty if it was")


class ChannelsOut(BaseModel):
    """Where alerts are told beside the page."""

    channels: list[ChannelOut]


class Acknowledge(BaseModel):
    """Taking notice of an alert."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "Lin", "note": "The works has been called"}]})

    by: str = Field("", max_length=100, description="who takes notice; whoever has signed in by name need not say")
    note: str = Field("", max_length=1000)
