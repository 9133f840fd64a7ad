"""Errors of the HTTP API as problem details (RFC 9457)."""

import http
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from gateway.city.database.engine import DatabaseError
from gateway.city.store.base import StoreError

_LOG = logging.getLogger(__name__)
_UNAUTHORIZED = 401
_METHOD_NOT_ALLOWED = 405
HEALTH = "/api/health"
"""Answers whatever else does not."""
MEDIA_TYPE = "application/problem+json"
_CHALLENGE = {"WWW-Authenticate": {"description": "how to sign in", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "string"}}}
_Headers = dict[str, dict[str, Any]]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(description="the status in words", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="what happened and what to do, for a person")
    errors: list[dict[str, str]] = Field([], description="each wrong parameter, where parameters are wrong")


class _Answer(NamedTuple):
    name: str
    description: str
    detail: str
    headers: _Headers | None = None
    errors: tuple[dict[str, str], ...] = ()


_LIMIT = "Input should be greater than or equal to 1"
_ANSWERS = {
    400: _Answer("Unreadable", "The request cannot be read.", "There was an error parsing the body"),
    401: _Answer(
        "NotSignedIn",
        "Neither a session nor a token that is good for this.",
        "Sign in, or send a token as 'Authorization: Bearer …'.",
        _CHALLENGE,
    ),
    403: _Answer("NotAllowed", "Who asks may not do this.", "A viewer may not do this."),
    404: _Answer(
        "Nothing",
        "There is nothing of this name.",
        "There is no sensor 'air:old-town:air-99'; an id is kind:site:sensor, see /api/v1/sensors.",
    ),
    409: _Answer("Conflict", "It contradicts what is there.", "There is a person 'lin' already."),
    412: _Answer(
        "ChangedMeanwhile",
        "Somebody else has changed it since it was looked at.",
        "Somebody else has changed the rules meanwhile; look at them as they are now.",
    ),
    413: _Answer("TooLarge", "The body is too large.", "The photograph is larger than 12 MiB."),
    422: _Answer(
        "Wrong",
        "A parameter, or a part of the body, is missing or wrong; `errors` names each.",
        f"limit: {_LIMIT}",
        errors=({"parameter": "limit", "detail": _LIMIT},),
    ),
    429: _Answer(
        "TooMany",
        "Too many wrong attempts.",
        "Too many wrong attempts from this address; try again in 42 s.",
        _RETRY,
    ),
    503: _Answer(
        "Unavailable",
        "What the answer is made of cannot be reached.",
        "/var/lib/citygate/city.db: the embedded store cannot be used: disk I/O error; check the disk and the file's"
        " owner",
        _RETRY,
    ),
}
_FASTAPI = "HTTPValidationError"
"""What FastAPI calls its own description of wrong parameters, which this view does not answer with."""
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})


class ProblemError(Exception):
    """An answer other than success.

    Args:
        status: HTTP status.
        detail: What happened and what to do, for a person.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> JSONResponse:
    """A problem detail; ``errors`` names each wrong parameter."""
    headers = dict(headers or {})
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="citygate"'
    return JSONResponse(_body(status, detail, errors or ()), status, headers, media_type=MEDIA_TYPE)


def describe(openapi: dict[str, Any], guarded: Callable[[str, str], bool]) -> None:
    """Adds the problems that each operation may answer to an OpenAPI description.

    A route names in its ``responses`` those that nothing else says of it, such as ``{409: {}}``.

    Args:
        openapi: The description; it is changed.
        guarded: Whether a method and path ask who makes the request.
    """
    components = openapi["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    for unused in (_FASTAPI, "ValidationError"):
        components["schemas"].pop(unused, None)
    components["responses"] = {answer.name: _response(status, answer) for status, answer in _ANSWERS.items()}
    for path, operations in openapi["paths"].items():
        for method in operations.keys() & _METHODS:
            operation = operations[method]
            answers = operation["responses"]
            in_path = any(parameter["in"] == "path" for parameter in operation.get("parameters", []))
            statuses = {int(status) for status in answers if int(status) in _ANSWERS}
            statuses |= {401, 403, 429} if guarded(method.upper(), path) else set()
            statuses |= {400, 422} if "requestBody" in operation else set()
            statuses |= {404} if in_path else set()
            statuses |= set() if path == HEALTH else {503}
            for status in sorted(statuses):
                said = answers.get(str(status), {})
                if "content" not in said or _FASTAPI in str(said):
                    answers[str(status)] = {"$ref": f"#/components/responses/{_ANSWERS[status].name}"}
            operation["responses"] = dict(sorted(answers.items()))


def _response(status: int, answer: _Answer) -> dict[str, Any]:
    example = _body(status, answer.detail, answer.errors)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": answer.description, "content": content, "headers": answer.headers or {}}


def _body(status: int, detail: str, errors: Sequence[dict[str, str]] = ()) -> dict[str, object]:
    named: dict[str, object] = {"errors": list(errors)} if errors else {}
    title = http.HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **named}


def _allowed(request: Request) -> list[str]:
    """The methods that some route takes at the request's path."""
    routes = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in routes)
    ]


def install(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem detail."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        headers = dict(error.headers or {})
        if error.status_code == _METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(request))
        return problem(error.status_code, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {
                "parameter": ".".join(str(part) for part in item["loc"][1:]),
                "detail": str(item["msg"]).removeprefix("Value error, "),
            }
            for item in error.errors()
        ]
        said = (f"{item['parameter']}: {item['detail']}".removeprefix(": ") for item in errors)
        return problem(422, "; ".join(said), errors=errors)

    @app.exception_handler(StoreError)
    @app.exception_handler(DatabaseError)
    async def _store(_: Request, error: StoreError | DatabaseError) -> JSONResponse:
        return problem(503, str(error), {"Retry-After": "5"})

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "An unexpected error; the city view's log has the details.")
