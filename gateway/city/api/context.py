"""What every path of the API needs: the running view and the right to read it."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from gateway.city.access import Access, refuse_forged
from gateway.city.alerts.desk import Desk
from gateway.city.auth import rights
from gateway.city.auth.oidc import SingleSignOn
from gateway.city.auth.people import People
from gateway.city.auth.rights import Caller
from gateway.city.auth.throttle import Throttle
from gateway.city.incidents.cases import Cases
from gateway.city.rendered import Rendered
from gateway.city.stream import Hub
from gateway.city.view import View
from gateway.city.windows import Windows


@dataclass(slots=True, frozen=True)
class Context:
    """The parts of a running city view."""

    access: Access
    view: View
    hub: Hub
    people: People
    desk: Desk
    cases: Cases
    windows: Windows
    rendered: Rendered
    public: bool
    reporters: Throttle
    sign_on: SingleSignOn | None


def context(request: Request) -> Context:
    """The running view's parts."""
    return cast("Context", request.app.state.context)


async def _context(request: Request) -> Context:
    return context(request)


async def caller(request: Request) -> Caller:
    """Who makes the request, if the table of rights lets them.

    Raises:
        ProblemError: 401, 403 or 429.
    """
    access = context(request).access
    found = access.remembered(request)
    if found is None:
        found = await run_in_threadpool(access.caller, request)
    rights.check(found, request.method, request.scope["route"].path)
    refuse_forged(found, request)
    return found


async def reader(request: Request, _: Annotated[Caller, Depends(caller)]) -> Context:
    """The running view's parts, for who may have them by the table of rights."""
    return context(request)


Anyone = Annotated[Context, Depends(_context)]
Asking = Annotated[Caller, Depends(caller)]
Reader = Annotated[Context, Depends(reader)]
