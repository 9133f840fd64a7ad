"""The rules of the city view: looked at by everybody, changed by administrators on the page."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

from fastapi import APIRouter, Body, Header, Path, Query, Response

from gateway.city.alerts import trial
from gateway.city.alerts.models import RuleOut, RulesOut, Tried, TriedEvent
from gateway.city.alerts.rules import EditError, Rules
from gateway.city.api.context import Asking, Context, Reader
from gateway.city.auth.people import now_ms
from gateway.city.auth.rights import Caller
from gateway.city.models import iso
from gateway.city.problems import ProblemError
from gateway.config import CityRuleConfig, written

router = APIRouter(prefix="/api/v1", tags=["events"])
_SHOWN = 50
_EXAMPLE = {
    "name": "river-high",
    "title": {"zh": "河水偏高", "en": "The river is high", "ko": "하천 수위 높음"},
    "severity": "yellow",
    "kind": "water",
    "quantity": "level",
    "above": 2.8,
    "clear": 2.6,
    "hold": "5m",
}
_Rule = Annotated[CityRuleConfig, Body(examples=[_EXAMPLE])]
_Name = Annotated[str, Path(examples=["river-high"])]
_Tag = Annotated[
    str,
    Header(
        alias="If-Match",
        max_length=100,
        description="`tag` of the rules that were looked at",
        examples=["0"],
    ),
]
_Done = TypeVar("_Done")


@router.get("/rules")
async def rules(here: Reader) -> RulesOut:
    """All rules of the city view: how many sensors each looks at, and how many of its events run."""
    await here.desk.look()
    return here.desk.rules()


@router.post("/rules", status_code=201, responses={409: {}, 412: {}})
async def add_rule(here: Reader, caller: Asking, body: _Rule, tag: _Tag) -> RuleOut:
    """Adds a rule to those of the page."""
    await _edit(
        here,
        caller,
        "added",
        f"rule {body.name}",
        {"now": written(body)},
        lambda its: its.put(body, _bare(tag), new=True),
    )
    return await _now(here, body.name)


@router.put("/rules/{name}", responses={409: {}, 412: {}})
async def change_rule(here: Reader, caller: Asking, name: _Name, body: _Rule, tag: _Tag) -> RuleOut:
    """Changes a rule; one of the site's file stays there, and the page's stands in for it."""
    if body.name != name:
        raise ProblemError(422, f"name: the rule is '{name}'; another name is another rule.")
    detail: dict[str, object] = {"now": written(body)}

    def change(its: Rules) -> None:
        was = its.put(body, _bare(tag), new=False)
        detail["was"] = None if was is None else written(was)

    await _edit(here, caller, "changed", f"rule {name}", detail, change)
    return await _now(here, name)


@router.delete("/rules/{name}", status_code=204, responses={409: {}, 412: {}})
async def remove_rule(here: Reader, caller: Asking, name: _Name, tag: _Tag) -> Response:
    """Takes a rule of the page away; one of the site's file by this name is in force again."""
    detail: dict[str, object] = {}
    await _edit(
        here,
        caller,
        "removed",
        f"rule {name}",
        detail,
        lambda its: detail.update(was=written(its.remove(name, _bare(tag)))),
    )
    return Response(status_code=204)


@router.post("/rules/try")
async def try_rule(here: Reader, body: _Rule, days: Annotated[int, Query(ge=1, le=30)] = 7) -> Tried:
    """Tries a rule on the last days, as far as readings are kept; nothing is changed by it."""
    if body.index is not None:
        raise ProblemError(422, "index: a rule on an index cannot be tried, for indices of the past are not kept.")
    watched, step, events = await trial.of(here.view, body, now_ms(), days)
    return Tried(
        days=days,
        step=step,
        watched=watched,
        times=len(events),
        events=[
            TriedEvent(
                sensor=event.last.key.id,
                since=iso(event.since),
                until=None if event.until is None else iso(event.until),
            )
            for event in reversed(events[-_SHOWN:])
        ],
    )


async def _edit(  # noqa: PLR0913, PLR0917 - a line of the audit trail is made of all of these
    here: Context, caller: Caller, action: str, about: str, detail: dict[str, object], change: Callable[[Rules], _Done]
) -> None:
    """Changes the rules and puts it on the audit trail, or neither."""

    def both(its: Rules) -> None:
        with here.people.noting(caller, action, about, detail):
            change(its)

    with _refused():
        await here.desk.edit(both)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except EditError as error:
        raise ProblemError(error.status, str(error)) from error
    except OSError as error:
        detail = f"The page's file of rules cannot be written: {error.strerror}. See page_rules in [alerts]."
        raise ProblemError(409, detail) from error


async def _now(here: Context, name: str) -> RuleOut:
    await here.desk.look()
    return next(rule for rule in here.desk.rules().rules if rule.name == name)


def _bare(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')
