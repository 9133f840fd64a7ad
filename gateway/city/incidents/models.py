"""What the API says and takes about cases."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.city.incidents.states import STEPS, State
from sensors.kinds import Title

Source = Literal["event", "fault", "public", "patrol", "hand"]
Stage = Literal["before", "after"]
Status = Literal["in time", "running out", "late", "paused", "ended"]
_Note = Annotated[str, Field(max_length=4000)]


_Lat = Annotated[float | None, Field(strict=True, ge=-90, le=90)]
_Lon = Annotated[float | None, Field(strict=True, ge=-180, le=180)]


class CaseIn(BaseModel):
    """A case that somebody opens."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"kind": "facility", "text": "A lamp post leans over the pavement", "lat": 30.23, "lon": 119.72}
            ]
        },
    )

    source: Literal["patrol", "hand"] = "hand"
    kind: str = Field(max_length=64, description="a class, see /api/v1/incident-classes")
    text: str = Field(min_length=1, max_length=4000)
    lat: _Lat = None
    lon: _Lon = None
    site: str | None = Field(None, max_length=128)


def _needing(actions: list[str], **needed: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The part of a schema that says what some steps need."""
    return {
        "if": {"properties": {"action": {"enum": list[JsonValue](actions)}}},
        "then": {"required": list[JsonValue](needed), "properties": dict[str, JsonValue](needed)},
    }


class StepIn(BaseModel):
    """A step that somebody takes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"action": "dispatch", "department": "enforcement"},
                {"action": "ask-extension", "hours": 4, "note": "The part arrives tomorrow"},
            ],
            "allOf": [
                _needing([name for name, step in STEPS.items() if step.note], note={"pattern": "\\S"}),
                _needing(["ask-extension", "ask-deferral"], hours={"type": "number"}),
                _needing(["merge"], into={"type": "integer"}),
            ],
        },
    )

    action: str = Field(description="one of the case's 'allowed'", json_schema_extra={"enum": list(STEPS)})
    note: _Note = ""
    department: str | None = Field(None, max_length=64, description="for dispatch; the class's own if there is none")
    hours: float | None = Field(None, strict=True, gt=0, le=24 * 366, description="for ask-extension and ask-deferral")
    into: int | None = Field(None, strict=True, ge=1, le=2**31 - 1, description="for merge")
    entered: str | None = Field(
        None, max_length=64, description="the case's 'entered' as you saw it: 409 if somebody was faster"
    )


class Asked(BaseModel):
    """What waits for approval."""

    what: Literal["return", "void", "extension", "deferral"]
    by: str
    note: str
    hours: float | None = None


class CaseOut(BaseModel):
    """A case as it is now."""

    id: int
    receipt: str = Field(examples=["7F3K-92QX-M4TD"])
    source: Source
    kind: str
    severity: str | None
    text: str
    district: str | None
    site: str | None
    sensor: str | None
    lat: float | None
    lon: float | None
    state: State
    department: str | None
    opened: str
    entered: str = Field(description="when its stage began")
    due: str | None = Field(description="when its stage must end")
    closed: str | None
    status: Status
    returns: int
    reworks: int
    by_itself: bool = Field(description="closed since its cause was over")
    merged_into: int | None
    alerts: list[str] = Field(description="ids of the alerts that belong to it")
    asked: Asked | None


class CaseStep(BaseModel):
    """Something that was done."""

    time: str
    who: str
    action: str
    state: State = Field(description="the one that followed")
    note: str
    detail: dict[str, Any]


class PhotoOut(BaseModel):
    """A photograph of a case; itself it is at ``photos/{id}`` of the case."""

    id: int
    stage: Literal["report", "before", "after"]
    time: str
    who: str


class CaseDetail(CaseOut):
    """A case with its history."""

    allowed: list[str] = Field(description="the steps that you may take now")
    may_add: list[Stage] = Field(description="the stages of which you may add photographs now")
    photos: list[PhotoOut]
    steps: list[CaseStep]


class CaseList(BaseModel):
    """Cases, newest first."""

    incidents: list[CaseOut]


class ClassOut(BaseModel):
    """A class of cases; limits in seconds."""

    kind: str
    title: Title
    department: str
    limits: dict[Literal["file", "dispatch", "handle", "verify"], float]
    public: bool


class DepartmentOut(BaseModel):
    """A department."""

    department: str
    title: Title


class ClassList(BaseModel):
    """Classes and departments."""

    classes: list[ClassOut]
    departments: list[DepartmentOut]


class Shares(BaseModel):
    """How well cases are dealt with; shares from 0 to 1, null where nothing is counted."""

    reported: int
    by_state: dict[str, int]
    filing_rate: float | None = Field(description="filed, of those that were filed or refused")
    accurate_dispatch_rate: float | None = Field(description="never returned, of those that were dispatched")
    handled_on_time: float | None = Field(description="of those that were handled")
    closed_on_time: float | None = Field(description="within all limits of its class together, of those closed")
    rework_rate: float | None = Field(description="sent back by verification, of those that were handled")
    hours_per_case: float | None = Field(description="mean, from report to closing")
    closed_by_themselves: int = Field(description="their cause was over; not counted in the shares and the mean")


class FiguresOut(Shares):
    """How well the cases are dealt with that were opened in the last days."""

    days: int
    goal_hours: float


class PublicClass(BaseModel):
    """A class that residents may report."""

    kind: str
    title: Title


class PublicClasses(BaseModel):
    """What residents may report."""

    classes: list[PublicClass]


class ReportIn(BaseModel):
    """What a resident reports. No name is asked for; none should be written."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "water", "text": "The river foams", "lat": 30.23, "lon": 119.72}]},
    )

    kind: str = Field(max_length=64)
    text: str = Field(min_length=1, max_length=2000)
    lat: _Lat = None
    lon: _Lon = None


class ReceiptOut(BaseModel):
    """By what the report is found again."""

    receipt: str = Field(examples=["7F3K-92QX-M4TD"])


class ReportOut(BaseModel):
    """What became of a report."""

    receipt: str
    kind: str
    state: State
    opened: str
    entered: str = Field(description="since when it is so")
    steps: list[State] = Field(description="the stages so far")
