"""A picture as the body of a request."""

import asyncio
from typing import Any

from fastapi import Request

from gateway.city.incidents.photo import MAX_BYTES, PhotoError, rewritten
from gateway.city.problems import ProblemError

_TYPES = ("image/jpeg", "image/png", "image/webp")
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _TYPES},
    }
}
"""For ``openapi_extra`` of a route that takes one."""


async def received(request: Request) -> bytes:
    """What the request holds.

    Raises:
        ProblemError: 413 if it is too large.
    """
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise ProblemError(413, f"The photograph is larger than {MAX_BYTES // 2**20} MiB.")
        parts.append(chunk)
    return b"".join(parts)


async def plain(data: bytes) -> bytes:
    """A picture as a JPEG that holds nothing but pixels.

    Raises:
        ProblemError: 422 if it is none that can be taken.
    """
    try:
        return await asyncio.to_thread(rewritten, data)
    except PhotoError as error:
        raise ProblemError(422, f"The photograph cannot be taken: {error}.") from error
