"""Signing in by the city's single sign-on: the browser goes to the provider, and comes back with a code."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse

from gateway.city.access import COOKIE, SESSION_S, origin
from gateway.city.api.context import Anyone, Context
from gateway.city.auth.models import SingleSignOnOut
from gateway.city.auth.oidc import SingleSignOn
from gateway.city.auth.people import SignOnError
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1/oidc", tags=["session"])
_FLOW_COOKIE = "citygate_oidc"
_FLOW_S = 600
_PATH = "/api/v1/oidc"
_HOME = "/#sso=in"
# visible ASCII (RFC 6749, appendix A), and together within the 64 KiB that an address may have
_Code = Annotated[str, Query(max_length=4096, pattern="^[ -~]*$")]


@router.get("")
def offered(here: Anyone) -> SingleSignOnOut:
    """Whether people may sign in by the city's single sign-on, and what it is called."""
    return SingleSignOnOut(title=None if here.sign_on is None else here.sign_on.title)


@router.get("/start", status_code=303, response_class=RedirectResponse, responses={404: {}, 429: {}})
async def start(here: Anyone, request: Request) -> RedirectResponse:
    """Sends the browser to the provider, or back to the page if that does not answer."""
    sign_on = _sign_on(here)
    try:
        address, handle = await sign_on.begin(origin(request).address)
    except SignOnError as error:
        return _away(f"/#sso={error.why}")
    response = _away(address)
    # Lax, for the provider's page sends the browser back from another site
    secure = here.access.secure_cookie(request)
    response.set_cookie(_FLOW_COOKIE, handle, max_age=_FLOW_S, path=_PATH, httponly=True, samesite="lax", secure=secure)
    return response


@router.get("/callback", status_code=303, response_class=RedirectResponse, responses={404: {}})
async def callback(
    here: Anyone, request: Request, state: _Code = "", code: _Code = "", error: _Code = ""
) -> RedirectResponse:
    """Where the provider sends the browser back; opens a session of 12 hours for whom it vouches."""
    sign_on = _sign_on(here)
    try:
        claimed = await sign_on.end(request.cookies.get(_FLOW_COOKIE, ""), state, code, refused=bool(error))
        session = await asyncio.to_thread(here.people.sign_on, claimed, origin(request))
    except SignOnError as refusal:
        response = _away(f"/#sso={refusal.why}")
    else:
        response = _away(_HOME)
        secure = here.access.secure_cookie(request)
        response.set_cookie(COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
    response.delete_cookie(_FLOW_COOKIE, path=_PATH)
    return response


@router.get("/farewell", status_code=303, response_class=RedirectResponse, responses={404: {}})
async def farewell(here: Anyone) -> RedirectResponse:
    """Sends a browser that has signed out here to the provider, to sign out there too."""
    return _away(await _sign_on(here).farewell() or "/")


def _sign_on(here: Context) -> SingleSignOn:
    if here.sign_on is None:
        raise ProblemError(404, "There is no single sign-on here; see [oidc] in docs/people.md.")
    return here.sign_on


def _away(address: str) -> RedirectResponse:
    return RedirectResponse(address, 303)
