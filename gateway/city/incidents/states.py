"""The way of a case, as one table: what may be done, in which state, by whom, and what comes then."""

from dataclasses import dataclass
from enum import StrEnum

from gateway.city.auth.rights import Role


class State(StrEnum):
    """Where a case is."""

    REPORTED = "reported"
    FILED = "filed"
    DISPATCHED = "dispatched"
    HANDLING = "handling"
    VERIFYING = "verifying"
    DEFERRED = "deferred"
    CLOSED = "closed"
    REFUSED = "refused"
    VOID = "void"
    MERGED = "merged"


ENDED = frozenset({State.CLOSED, State.REFUSED, State.VOID, State.MERGED})
OPEN = frozenset(State) - ENDED
_AT_WORK = frozenset({State.DISPATCHED, State.HANDLING})

_ADMIN = frozenset({Role.ADMINISTRATOR})
_DESK = _ADMIN | {Role.OPERATOR, Role.DISPATCHER}
_DISPATCH = _ADMIN | {Role.DISPATCHER}
_VERIFY = _ADMIN | {Role.OPERATOR}
_DEPARTMENT = _ADMIN | {Role.DEPARTMENT}
_ASK = _DESK | {Role.DEPARTMENT}


@dataclass(slots=True, frozen=True)
class Step:
    """Something that may be done to a case.

    Attributes:
        sources: The states in which it may be done.
        target: The state that follows; none if the case stays where it is.
        roles: Who may do it. The city view itself files, dispatches and closes what ended by itself, outside roles.
        asks: What it asks approval for.
        note: Whether it needs a reason in words.
    """

    sources: frozenset[State]
    target: State | None
    roles: frozenset[Role]
    asks: str | None = None
    note: bool = False


STEPS: dict[str, Step] = {
    "approve": Step(OPEN, None, _DISPATCH),
    "decline": Step(OPEN, None, _DISPATCH, note=True),
    "file": Step(frozenset({State.REPORTED}), State.FILED, _DESK),
    "refuse": Step(frozenset({State.REPORTED}), State.REFUSED, _DESK, note=True),
    "dispatch": Step(frozenset({State.FILED}), State.DISPATCHED, _DISPATCH),
    "accept": Step(frozenset({State.DISPATCHED}), State.HANDLING, _DEPARTMENT),
    "handled": Step(frozenset({State.HANDLING}), State.VERIFYING, _DEPARTMENT, note=True),
    "confirm": Step(frozenset({State.VERIFYING}), State.CLOSED, _VERIFY),
    "reject": Step(frozenset({State.VERIFYING}), State.DISPATCHED, _VERIFY, note=True),
    "resume": Step(frozenset({State.DEFERRED}), State.HANDLING, _DISPATCH | _DEPARTMENT),
    "note": Step(frozenset(State), None, _ASK, note=True),
    "ask-return": Step(_AT_WORK, None, _DEPARTMENT, asks="return", note=True),
    "ask-void": Step(_AT_WORK | {State.FILED}, None, _ASK, asks="void", note=True),
    "ask-extension": Step(_AT_WORK, None, _DEPARTMENT, asks="extension", note=True),
    "ask-deferral": Step(_AT_WORK, None, _DEPARTMENT, asks="deferral", note=True),
    "merge": Step(OPEN, State.MERGED, _DESK),
}

PHOTOS: dict[str, Step] = {
    "before": Step(frozenset({State.REPORTED, State.FILED}) | _AT_WORK, None, _ASK),
    "after": Step(frozenset({State.HANDLING, State.VERIFYING}), None, _DEPARTMENT | _VERIFY),
}
"""Photographs that staff add to a case, of before and of after: when, and who."""

APPROVED: dict[str, State | None] = {
    "return": State.FILED,
    "void": State.VOID,
    "extension": None,
    "deferral": State.DEFERRED,
}
"""The state that follows when what was asked for is approved."""


def possible(state: State, role: Role, *, pending: bool, own: bool) -> list[str]:
    """What a role may do to a case.

    Args:
        state: Where the case is.
        role: Of who asks.
        pending: Whether something waits for approval.
        own: Whether the asker is who asked for approval: nobody approves their own request.
    """
    return [
        name
        for name, step in STEPS.items()
        if state in step.sources
        and role in step.roles
        and (name not in {"approve", "decline"} or (pending and not own))
        and not (step.asks is not None and pending)
    ]
