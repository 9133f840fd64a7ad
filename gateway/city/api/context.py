"""What every path of the API needs: the running view and the right to read it."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from gateway.city.access import Access
from gateway.city.stream import Hub
from gateway.city.view import View


@dataclass(slots=True, frozen=True)
class Context:
    """The parts of a running city view."""

    access: Access
    view: View
    hub: Hub


def context(request: Request) -> Context:
    """The running view's parts."""
    return cast("Context", request.app.state.context)


def reader(request: Request) -> Context:
    """The running view's parts, for who may read.

    Raises:
        ProblemError: 401 or 429.
    """
    found = context(request)
    found.access.may_read(request)
    return found


Anyone = Annotated[Context, Depends(context)]
Reader = Annotated[Context, Depends(reader)]
