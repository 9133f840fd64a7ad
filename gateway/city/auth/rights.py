"""Authorization: one table of routes and roles."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from gateway.city.problems import ProblemError

Scope = Literal["read", "write"]
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Role(StrEnum):
    """What a person is in the view."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    DISPATCHER = "dispatcher"
    DEPARTMENT = "department"
    ADMINISTRATOR = "administrator"


EVERYONE: Final = None
"""Also those who have not signed in."""
SIGNED_IN = frozenset(Role)
ADMINISTRATORS = frozenset({Role.ADMINISTRATOR})
DESK = ADMINISTRATORS | {Role.OPERATOR, Role.DISPATCHER}
WORKERS = DESK | {Role.DEPARTMENT}

RIGHTS: dict[str, frozenset[Role] | None] = {
    "GET /api/health": EVERYONE,
    "GET /docs": EVERYONE,
    "GET /": EVERYONE,
    "POST /api/v2/write": EVERYONE,  # by the write token, see gateway.city.api.write
    "POST /api/v1/session": EVERYONE,
    "DELETE /api/v1/session": EVERYONE,
    "GET /api/v1/oidc": EVERYONE,
    "GET /api/v1/oidc/start": EVERYONE,
    "GET /api/v1/oidc/callback": EVERYONE,
    "GET /api/v1/oidc/farewell": EVERYONE,
    "GET /api/v1/link": EVERYONE,
    "POST /api/v1/link": EVERYONE,
    "GET /basemap.pmtiles": SIGNED_IN,
    "GET /api/v1/overview": SIGNED_IN,
    "GET /api/v1/scales": SIGNED_IN,
    "GET /api/v1/kinds": SIGNED_IN,
    "GET /api/v1/map": SIGNED_IN,
    "GET /api/v1/sensors": SIGNED_IN,
    "GET /api/v1/sensors.geojson": SIGNED_IN,
    "GET /api/v1/sensors/{sensor_id}": SIGNED_IN,
    "GET /api/v1/sensors/{sensor_id}/series": SIGNED_IN,
    "GET /api/v1/sensors/{sensor_id}/readings.csv": SIGNED_IN,
    "GET /api/v1/sensors/{sensor_id}/wholeness": SIGNED_IN,
    "GET /api/v1/past": SIGNED_IN,
    "GET /api/v1/courses": SIGNED_IN,
    "GET /api/v1/events": SIGNED_IN,
    "GET /api/v1/alerts": SIGNED_IN,
    "GET /api/v1/alerts/{alert_id}": SIGNED_IN,
    "POST /api/v1/alerts/{alert_id}/acknowledge": DESK,
    "GET /api/v1/rules": SIGNED_IN,
    "POST /api/v1/rules": ADMINISTRATORS,
    "POST /api/v1/rules/try": ADMINISTRATORS,
    "PUT /api/v1/rules/{name}": ADMINISTRATORS,
    "DELETE /api/v1/rules/{name}": ADMINISTRATORS,
    "GET /api/v1/maintenance": SIGNED_IN,
    "POST /api/v1/maintenance": DESK,
    "DELETE /api/v1/maintenance/{window_id}": DESK,
    "GET /api/v1/channels": SIGNED_IN,
    "GET /api/v1/events/{event_id}/cap.xml": SIGNED_IN,
    "GET /api/v1/gateways": SIGNED_IN,
    "GET /api/v1/stream": SIGNED_IN,
    "GET /sta/v1.1*": SIGNED_IN,
    "GET /api/v1/incidents": SIGNED_IN,
    "POST /api/v1/incidents": DESK,
    "GET /api/v1/incidents/{incident_id}": SIGNED_IN,
    "POST /api/v1/incidents/{incident_id}/steps": WORKERS,  # each step has its own roles, see gateway.city.incidents
    "POST /api/v1/incidents/{incident_id}/photos": WORKERS,  # by stage, as the steps
    "GET /api/v1/incidents/{incident_id}/photos/{photo_id}": SIGNED_IN,
    "GET /api/v1/report-classes": EVERYONE,
    "POST /api/v1/reports": EVERYONE,
    "GET /api/v1/reports/{receipt}": EVERYONE,
    "PUT /api/v1/reports/{receipt}/photo": EVERYONE,
    "GET /api/v1/incident-classes": SIGNED_IN,
    "GET /api/v1/incident-figures": SIGNED_IN,
    "GET /api/v1/months/{month}": SIGNED_IN,
    "GET /api/v1/session": SIGNED_IN,
    "PUT /api/v1/session/password": SIGNED_IN,
    "GET /api/v1/sessions": SIGNED_IN,
    "DELETE /api/v1/sessions": SIGNED_IN,
    "DELETE /api/v1/sessions/{session_id}": SIGNED_IN,
    "GET /api/v1/tokens": SIGNED_IN,
    "POST /api/v1/tokens": SIGNED_IN,
    "DELETE /api/v1/tokens/{token_id}": SIGNED_IN,
    "GET /api/v1/people": ADMINISTRATORS,
    "POST /api/v1/people": ADMINISTRATORS,
    "PATCH /api/v1/people/{person_id}": ADMINISTRATORS,
    "POST /api/v1/people/{person_id}/link": ADMINISTRATORS,
    "GET /api/v1/audit": ADMINISTRATORS,
    "GET /api/v1/audit.csv": ADMINISTRATORS,
}
"""Who may call what; ``*`` at the end stands for all that begins so."""

UNTIL_PEOPLE = frozenset({"POST /api/v1/alerts/{alert_id}/acknowledge"})
"""What whoever may read may also do as long as nobody has a password, for somebody must."""


def row(method: str, route: str) -> str | None:
    """The table's row of a route, if it has one."""
    exact = f"{method} {route}"
    if exact in RIGHTS:
        return exact
    return next((line for line in RIGHTS if line.endswith("*") and exact.startswith(line[:-1])), None)


@dataclass(slots=True, frozen=True)
class Caller:
    """Who makes a request.

    Attributes:
        name: For the audit trail.
        role: What they may do.
        address: Where the request comes from.
        person: Their id; none for this machine and for the read token.
        scope: ``read`` for a token that may change nothing.
        csrf: For a session's cookie, what a request that changes something must repeat in ``X-CSRF-Token``.
        session: Which of their sessions this is.
        alone: Nobody can sign in yet.
        districts: The only districts whose cases they see; empty for all.
        departments: The departments for which they work.
        single_sign_on: They come by the city's single sign-on.
    """

    name: str
    role: Role
    address: str
    person: int | None = None
    scope: Scope = "write"
    csrf: str | None = None
    session: str | None = None
    alone: bool = False
    districts: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    single_sign_on: bool = False


def check(caller: Caller, method: str, route: str) -> None:
    """Lets a caller pass who may call the route. One that has no row is the administrators' alone.

    Raises:
        ProblemError: 403.
    """
    line = row(method, route)
    roles = ADMINISTRATORS if line is None else RIGHTS[line]
    excepted = caller.alone and line in UNTIL_PEOPLE
    if roles is not None and caller.role not in roles and not excepted:
        needed = " or ".join(sorted(roles))
        raise ProblemError(403, f"{caller.name} is {caller.role}; {method} {route} is for: {needed}.")
    if method not in READING and caller.scope == "read":
        raise ProblemError(403, "This token may only read; make an API token with the scope 'write'.")
