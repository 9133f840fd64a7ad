"""Errors of the HTTP API as problem details (RFC 9457)."""

import http
import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.city.database.engine import DatabaseError
from gateway.city.store.base import StoreError

_LOG = logging.getLogger(__name__)
_UNAUTHORIZED = 401


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
    body: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = errors
    headers = dict(headers or {})
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="citygate"'
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem detail."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return problem(error.status_code, detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"parameter": ".".join(str(part) for part in item["loc"][1:]), "detail": str(item["msg"])}
            for item in error.errors()
        ]
        return problem(422, "; ".join(f"{item['parameter']}: {item['detail']}" for item in errors), errors=errors)

    @app.exception_handler(StoreError)
    @app.exception_handler(DatabaseError)
    async def _store(_: Request, error: StoreError | DatabaseError) -> JSONResponse:
        return problem(503, str(error), {"Retry-After": "5"})

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "An unexpected error; the city view's log has the details.")
