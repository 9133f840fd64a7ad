"""People, API tokens, and the audit trail."""

import itertools
import json
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from gateway.city import export
from gateway.city.api.context import Asking, Reader
from gateway.city.api.read import A_TIME, moment_of
from gateway.city.auth.models import (
    AuditLine,
    AuditTrail,
    NewToken,
    PersonChange,
    PersonIn,
    PersonLink,
    PersonOut,
    Persons,
    TokenIn,
    TokenOut,
    Tokens,
)
from gateway.city.auth.people import People, Sought, can_sign_in, now_ms
from gateway.city.auth.rights import Role
from gateway.city.database.tables import Person, Token
from gateway.city.export import Csv
from gateway.city.models import iso
from gateway.city.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["people"])
_MAX_ID = 2**31 - 1
_PART = 1000
_AUDIT_COLUMNS = ("id", "time", "who", "address", "action", "about", "detail")
_PersonId = Annotated[int, Path(examples=[1])]


@router.get("/people")
def people(here: Reader) -> Persons:
    """Everyone who may sign in, by name."""
    return Persons(people=[_person(item) for item in here.people.all()])


@router.post("/people", status_code=201, responses={409: {}})
def add_person(here: Reader, caller: Asking, body: PersonIn) -> PersonLink:
    """Adds a person; hand the link over to them."""
    person, link = here.people.add(caller, body.name, body.title, body.role, body.districts, body.departments)
    return PersonLink(person=_person(person), link=f"/#link={link}")


@router.patch("/people/{person_id}", responses={409: {}})
def change_person(here: Reader, caller: Asking, person_id: _PersonId, body: PersonChange) -> PersonOut:
    """Changes a person; who is disabled or gets another role has to sign in again."""
    changes = body.model_dump(exclude_none=True)
    return _person(here.people.change(caller, _id(person_id), changes))


@router.post("/people/{person_id}/link", status_code=201, responses={409: {}})
def make_link(here: Reader, caller: Asking, person_id: _PersonId) -> PersonLink:
    """Makes a link by which a person chooses a new password; the old one works until then."""
    link = here.people.link(caller, _id(person_id))
    (person,) = [item for item in here.people.all() if item.id == person_id]
    return PersonLink(person=_person(person), link=f"/#link={link}")


@router.get("/tokens")
def tokens(here: Reader, caller: Asking) -> Tokens:
    """Your API tokens."""
    return Tokens(tokens=[_token(item) for item in here.people.tokens(caller)])


@router.post("/tokens", status_code=201)
def add_token(here: Reader, caller: Asking, body: TokenIn) -> NewToken:
    """Makes an API token that may do what you may, or only read; it is shown this once."""
    kept, token = here.people.add_token(caller, body.label, body.scope, body.days)
    return NewToken(token=token, about=_token(kept))


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(here: Reader, caller: Asking, token_id: Annotated[int, Path(examples=[1])]) -> Response:
    """Ends an API token of yours; an administrator ends anyone's."""
    here.people.revoke_token(caller, _id(token_id))
    return Response(status_code=204)


def _sought(
    who: Annotated[str | None, Query(max_length=200, description="part of who did it")] = None,
    what: Annotated[str | None, Query(max_length=200, description="part of what was done, or to whom")] = None,
    start: Annotated[
        str | None, Query(description="ISO 8601 or milliseconds: not before it", json_schema_extra=A_TIME)
    ] = None,
    end: Annotated[
        str | None, Query(description="ISO 8601 or milliseconds: before it", json_schema_extra=A_TIME)
    ] = None,
) -> Sought:
    since = None if start is None else moment_of("start", start)
    return Sought(who, what, since, None if end is None else moment_of("end", end))


@router.get("/audit")
def audit(
    here: Reader,
    sought: Annotated[Sought, Depends(_sought)],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=_MAX_ID, description="the id of a line, for those before it")] = None,
) -> AuditTrail:
    """The audit trail, newest first."""
    return AuditTrail(
        audit=[
            AuditLine(
                id=line.id,
                time=iso(line.time),
                who=line.who,
                address=line.address,
                action=line.action,
                about=line.about,
                detail=line.detail,
            )
            for line in here.people.audit(limit, before, sought)
        ]
    )


@router.get("/audit.csv", response_class=Csv)
def audit_csv(here: Reader, sought: Annotated[Sought, Depends(_sought)]) -> Csv:
    """The audit trail as CSV in UTF-8, newest first."""
    parts = _audit_parts(here.people, sought)
    beginning = next(parts)  # what cannot be read at all is an error, not half a file
    name = f"audit_{iso(now_ms())[:10]}.csv"
    return Csv(itertools.chain([beginning], parts), headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _audit_parts(people: People, sought: Sought) -> Iterator[str]:
    head, before = export.head(_AUDIT_COLUMNS), None
    while True:
        lines = people.audit(_PART, before, sought)
        rows = [
            (
                str(line.id),
                iso(line.time),
                *map(export.text, (line.who, line.address, line.action, line.about)),
                json.dumps(line.detail, ensure_ascii=False),
            )
            for line in lines
        ]
        yield head + export.lines(rows)
        if len(lines) < _PART:
            return
        head, before = "", lines[-1].id


def _id(number: int) -> int:
    if not 0 < number <= _MAX_ID:
        raise ProblemError(404, f"There is nothing with the id {number}.")
    return number


def _person(person: Person) -> PersonOut:
    return PersonOut(
        id=person.id,
        name=person.name,
        title=person.title,
        role=Role(person.role),
        districts=person.districts,
        departments=person.departments,
        disabled=person.disabled,
        active=can_sign_in(person),
        single_sign_on=person.subject is not None,
        created=iso(person.created),
        last_sign_in=None if person.last_sign_in is None else iso(person.last_sign_in),
    )


def _token(token: Token) -> TokenOut:
    return TokenOut(
        id=token.id,
        label=token.label,
        scope="write" if token.scope == "write" else "read",
        created=iso(token.created),
        expires=iso(token.expires),
        expired=token.expires <= now_ms(),
    )
