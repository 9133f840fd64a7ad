"""InfluxDB's write protocol into the embedded store.

204 is answered once everything is on disk. Good lines of a body with bad ones are stored, and 400 names the bad ones.
"""

import asyncio
import logging
import zlib
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.city.api.context import Anyone
from gateway.city.store.base import StoreError
from gateway.city.store.embedded import EmbeddedStore
from sensors import lineprotocol
from sensors.lineprotocol import LineError, Precision

_LOG = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v2", tags=["write"])
_MAX_BYTES = 32 * 2**20
_NAMED = 20


class BadLine(BaseModel):
    """A line that was refused."""

    line: int
    message: str


class WriteError(BaseModel):
    """Why not everything was stored, as InfluxDB says it."""

    code: str = Field(examples=["invalid"])
    message: str = Field(examples=["partial write: 1 points stored, 1 refused: line 2: there is no field"])
    line: int | None = Field(None, description="the first line that was refused")
    errors: list[BadLine] = Field([], description="the first thousand of them")


class _TooLargeError(Exception):
    pass


def _refusal(description: str) -> dict[str, Any]:
    return {"model": WriteError, "description": description}


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusal("Some lines cannot be read or stored (the others are), or the body cannot be unpacked."),
    401: _refusal("There is no write token, or a wrong one."),
    404: _refusal("The view reads from InfluxDB, which takes what is written."),
    413: _refusal("The body is too large."),
    503: _refusal("The store cannot write; Retry-After says when to try again."),
}
_LINES: dict[str, Any] = {
    "requestBody": {
        "description": "line protocol",
        "required": False,
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "air,gateway=gw-1,site=old-town,sensor=air-03 pm25=31.5,pm25_qc=1i 1795413932000000000",
            }
        },
    }
}


@router.post("/write", status_code=204, responses=_REFUSALS, openapi_extra=_LINES)
async def write(  # noqa: PLR0911 - one return for each answer of the protocol
    here: Anyone, request: Request, precision: Precision = "ns", org: str = "", bucket: str = ""
) -> Response:
    """Takes line protocol, plain or gzip'd; needs the write token; organisation and bucket are not used."""
    store = here.view.store
    if not isinstance(store, EmbeddedStore):
        return _error(404, "not found", "this city view reads from InfluxDB; write there")
    if not here.access.may_write(request):
        client = request.client.host if request.client else "unknown"
        _LOG.warning("refused a write from %s (org %r, bucket %r): wrong or no token", client, org, bucket)
        return _error(401, "unauthorized", "unauthorized access: send 'Authorization: Token …' with the write token")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip"}:
        return _error(400, "invalid", f"content-encoding '{encoding}' is not understood; send gzip or none")
    try:
        body = await _body(request, gzip=encoding == "gzip")
        points, errors = await asyncio.to_thread(lineprotocol.parse, body, precision)
        refused = await store.write(points) if points else []
    except _TooLargeError:
        return _error(413, "request too large", f"the body is larger than {_MAX_BYTES} bytes; write smaller batches")
    except zlib.error as error:
        return _error(400, "invalid", f"the body is not gzip: {error}")
    except StoreError as error:
        _LOG.error("cannot store: %s", error)
        return _error(503, "unavailable", str(error), {"Retry-After": "5"})
    errors = sorted([*errors, *refused], key=lambda item: item.line)
    if errors:
        return _partial(errors, len(points) - len(refused))
    return Response(status_code=204)


async def _body(request: Request, *, gzip: bool) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        data = chunk
        while data:
            plain = inflate.decompress(data, _MAX_BYTES + 1 - size) if gzip else data
            size += len(plain)
            if size > _MAX_BYTES:
                raise _TooLargeError
            parts.append(plain)
            data = inflate.unconsumed_tail if gzip else b""
            if gzip and inflate.eof and inflate.unused_data:  # a gzip file may have several members
                data = inflate.unused_data
                inflate = zlib.decompressobj(wbits=31)
    if gzip and not inflate.eof:
        msg = "it ends too early"
        raise zlib.error(msg)
    return b"".join(parts)


def _partial(errors: list[LineError], stored: int) -> JSONResponse:
    named = "; ".join(f"line {error.line}: {error.message}" for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    message = f"partial write: {stored} points stored, {len(errors)} refused: {named}{more}"
    body = {
        "code": "invalid",
        "message": message,
        "line": errors[0].line,
        "errors": [{"line": error.line, "message": error.message} for error in errors[:1000]],
    }
    return JSONResponse(body, 400)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status, headers)
