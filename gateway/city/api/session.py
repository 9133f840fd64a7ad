"""Signing in and out: a page cannot send a token with its stream, so it trades the token for a cookie."""

from fastapi import APIRouter, Request, Response

from gateway.city.access import COOKIE, SESSION_S
from gateway.city.api.context import Anyone
from gateway.city.models import SignIn

router = APIRouter(prefix="/api/v1/session", tags=["session"])


@router.post("", status_code=204)
async def sign_in(here: Anyone, request: Request, body: SignIn) -> Response:
    """Opens a session of 12 hours for who knows the read token."""
    session = here.access.sign_in(request, body.token)
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=here.access.secure_cookie
    )
    return response


@router.delete("", status_code=204)
async def sign_out(here: Anyone, request: Request) -> Response:
    """Ends the session."""
    here.access.sign_out(request)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=here.access.secure_cookie)
    return response
