"""Maintenance: which sensors are worked on, from when until when."""

from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.city.api.context import Asking, Reader
from gateway.city.auth.people import now_ms
from gateway.city.database.tables import MaintenanceWindow
from gateway.city.models import iso
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["sensors"])
_LATEST = 253_402_300_799_000  # ms, the end of the year 9999
_Pattern = Annotated[str, Field(min_length=1, max_length=128, description="a pattern with `*` and `?`")]


def _written(time: object) -> object:
    """A time that is written as text; a number would be taken for seconds."""
    if not isinstance(time, str):
        msg = "Input should be a text such as 2026-11-24T12:00:00+08:00"
        raise ValueError(msg)  # noqa: TRY004 - pydantic makes it a problem of this field
    return time


_Time = Annotated[AwareDatetime, BeforeValidator(_written)]


class WindowIn(BaseModel):
    """Sensors that are worked on; at least one of site, sensor and kind says which."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"site": "harbour", "kind": "water", "until": "2126-11-24T12:00:00+08:00", "note": "cleaning"}
            ],
            "anyOf": [{"required": ["site"]}, {"required": ["sensor"]}, {"required": ["kind"]}],
        },
    )

    site: _Pattern = "*"
    sensor: _Pattern = "*"
    kind: _Pattern = "*"
    since: _Time | None = Field(None, description="now by default")
    until: _Time
    note: str = Field("", max_length=1000)

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.model_fields_set & {"site", "sensor", "kind"}:
            msg = 'names no sensors: add site, sensor or kind; all of them are sensor = "*"'
            raise ValueError(msg)
        return self


class WindowOut(BaseModel):
    """A maintenance window."""

    id: int
    site: str
    sensor: str
    kind: str
    since: str
    until: str
    note: str
    who: str


class WindowList(BaseModel):
    """Windows in force or to come."""

    windows: list[WindowOut]


@router.get("/maintenance")
def windows(here: Reader) -> WindowList:
    """The windows that people declared and that are in force or to come, in the order in which they end."""
    return WindowList(windows=[_out(window) for window in here.windows.recall()])


@router.post("/maintenance", status_code=201, responses={409: {}})
def declare(here: Reader, caller: Asking, body: WindowIn) -> WindowOut:
    """Declares maintenance: the sensors raise no alerts meanwhile."""
    now = now_ms()
    since = now if body.since is None else round(body.since.timestamp() * 1000)
    until = round(body.until.timestamp() * 1000)
    if not max(since, now) < until <= _LATEST or since < 0:
        raise ProblemError(422, "until: lies in the future, and after since.")
    window = MaintenanceWindow(
        site=body.site, sensor=body.sensor, kind=body.kind, since=since, until=until, note=body.note
    )
    return _out(here.windows.add(caller, window))


@router.delete("/maintenance/{window_id}", status_code=204)
def end(here: Reader, caller: Asking, window_id: Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]) -> None:
    """Ends maintenance now."""
    here.windows.end(caller, window_id)


def _out(window: MaintenanceWindow) -> WindowOut:
    return WindowOut(
        id=window.id,
        site=window.site,
        sensor=window.sensor,
        kind=window.kind,
        since=iso(window.since),
        until=iso(window.until),
        note=window.note,
        who=window.who,
    )
