"""Signing in and out: a page trades a token, or a name and a password, for a cookie. Links and passwords."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from gateway.city.access import COOKIE, SESSION_S, origin
from gateway.city.api.context import Anyone, Asking, Reader
from gateway.city.auth.models import LinkUse, NewPassword, SessionOut, Sessions, SignIn, Who, WhoseLink
from gateway.city.auth.people import MARK, is_of
from gateway.city.models import iso

router = APIRouter(prefix="/api/v1", tags=["session"])
_SessionId = Annotated[str, Path(examples=["0f3c5d1a9e7b2468"])]


@router.post("/session", status_code=204, responses={401: {}, 429: {}})
def sign_in(here: Anyone, request: Request, body: SignIn) -> Response:
    """Opens a session of 12 hours for who knows a person's password, or the read token."""
    if body.token is not None:
        return _opened(here, request, here.access.sign_in(request, body.token))
    return _opened(here, request, here.access.sign_in_person(request, body.name or "", body.password or ""))


@router.get("/session")
def who(caller: Asking) -> Who:
    """Who you are, and what a page must repeat in the header X-CSRF-Token when it changes something."""
    return Who(
        name=caller.name,
        role=caller.role,
        person=caller.person,
        districts=list(caller.districts),
        departments=list(caller.departments),
        single_sign_on=caller.single_sign_on,
        alone=caller.alone,
        csrf=caller.csrf,
    )


@router.delete("/session", status_code=204, responses={403: {}})
def sign_out(here: Anyone, request: Request) -> Response:
    """Ends the session."""
    here.access.sign_out(request)
    response = Response(status_code=204)
    secure = here.access.secure_cookie(request)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=secure)
    return response


@router.put("/session/password", status_code=204)
def change_password(here: Reader, caller: Asking, request: Request, body: NewPassword) -> Response:
    """Changes your password; every other session of yours ends."""
    return _opened(here, request, here.people.change_password(caller, body.old, body.new, origin(request)))


@router.get("/sessions")
def sessions(here: Reader, caller: Asking) -> Sessions:
    """Where you are signed in."""
    return Sessions(
        sessions=[
            SessionOut(
                id=one.digest[:MARK],
                created=iso(one.created),
                expires=iso(one.expires),
                address=one.address,
                agent=one.agent,
                this=is_of(caller, one),
            )
            for one in here.people.sessions(caller)
        ]
    )


@router.delete("/sessions", status_code=204)
def sign_out_elsewhere(here: Reader, caller: Asking) -> Response:
    """Ends all of your sessions but this one."""
    here.people.end_sessions(caller)
    return Response(status_code=204)


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(here: Reader, caller: Asking, session_id: _SessionId) -> Response:
    """Ends one of your sessions."""
    here.people.end_sessions(caller, session_id)
    return Response(status_code=204)


@router.get("/link", responses={404: {}})
def whose_link(
    here: Anyone,
    x_link: Annotated[
        str, Header(max_length=200, description="the link's secret", examples=["what follows #link= in the link"])
    ],
) -> WhoseLink:
    """Whom a link lets choose a password."""
    return WhoseLink(name=here.people.of_link(x_link))


@router.post("/link", status_code=204, responses={404: {}})
def use_link(here: Anyone, request: Request, body: LinkUse) -> Response:
    """Sets the password of who was given the link, once, and opens a session."""
    return _opened(here, request, here.people.use_link(body.link, body.password, origin(request)))


def _opened(here: Anyone, request: Request, session: str) -> Response:
    response = Response(status_code=204)
    secure = here.access.secure_cookie(request)
    response.set_cookie(COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
    return response
