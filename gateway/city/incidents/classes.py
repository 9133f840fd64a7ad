"""Departments and classes of cases: one TOML file, checked when read."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sensors import files
from sensors.durations import seconds
from sensors.kinds import Title

_BUILTIN = Path(__file__).parent / "classes.toml"


class ClassesError(Exception):
    """The table cannot be used; the message names the file and the key."""


def _milliseconds(value: object) -> object:
    return round(seconds(value) * 1000) if isinstance(value, str) else value


_Time = Annotated[int, BeforeValidator(_milliseconds), Field(ge=1000)]
"""Milliseconds, written as 90s, 15m, 4h."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Model):
    """How long each stage may take, in milliseconds."""

    file: _Time
    dispatch: _Time
    handle: _Time
    verify: _Time

    @property
    def whole(self) -> int:
        """How long a case may take from its report to its closing."""
        return self.file + self.dispatch + self.handle + self.verify


class Class(_Model):
    """A class of cases.

    Attributes:
        department: Who handles it.
        kinds: Kinds of sensors whose events open such a case.
        public: Whether residents may report it.
        faults: Whether faults and silences of sensors open such a case.
    """

    title: Title
    department: str
    kinds: tuple[str, ...] = ()
    limits: Limits
    public: bool = False
    faults: bool = False


class Classes(_Model):
    """The whole table."""

    warn_at: float = Field(gt=0, lt=1)
    goal: _Time
    departments: dict[str, Title]
    classes: dict[str, Class] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, item in self.classes.items():
            if item.department not in self.departments:
                msg = f"classes.{name}.department: there is no department '{item.department}'"
                raise ValueError(msg)
        kinds = [kind for item in self.classes.values() for kind in item.kinds]
        if twice := {kind for kind in kinds if kinds.count(kind) > 1}:
            msg = f"classes: events of a kind open cases of one class, but {', '.join(sorted(twice))} stands in two"
            raise ValueError(msg)
        if sum(item.faults for item in self.classes.values()) > 1:
            msg = "classes: 'faults' stands in more than one class"
            raise ValueError(msg)
        return self

    @cached_property
    def of_kind(self) -> dict[str, str]:
        """The class of each kind of sensor whose events open a case."""
        return {kind: name for name, item in self.classes.items() for kind in item.kinds}

    @cached_property
    def of_faults(self) -> str | None:
        """The class of cases that faults open."""
        return next((name for name, item in self.classes.items() if item.faults), None)


def load(path: Path | None) -> Classes:
    """Reads the table.

    Args:
        path: A file of one's own; the one that comes with citygate if there is none.

    Raises:
        ClassesError: If it cannot be read, or does not fit together.
    """
    return files.read(path or _BUILTIN, Classes, ClassesError)
