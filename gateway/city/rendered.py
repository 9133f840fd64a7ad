"""Answers that many ask for, made once: as JSON, and as gzip'd JSON.

However many pages ask for the same, it is made, written and packed once, in a thread, while other requests go on.
"""

import asyncio
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from fastapi import Request, Response
from pydantic import BaseModel

_LEVEL = 1  # these answers change twice a second; level 5 takes twice as long for a tenth less
_SMALL = 1000  # bytes, below which packing does not pay


@dataclass(slots=True, frozen=True)
class _Body:
    plain: bytes
    packed: bytes | None


@dataclass(slots=True)
class _Kept:
    of: tuple[object, ...]
    body: asyncio.Task[_Body]

    def stale(self, of: Sequence[object]) -> bool:
        failed = self.body.done() and (self.body.cancelled() or self.body.exception() is not None)
        return failed or any(one is not other for one, other in zip(self.of, of, strict=True))


class Rendered:
    """The newest of each answer."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    async def answer(
        self,
        request: Request,
        of: Sequence[object],
        make: Callable[[], BaseModel],
        media_type: str = "application/json",
    ) -> Response:
        """Answers a request by what was made before of the same, or makes it.

        Args:
            request: The request; answers are kept by its route.
            of: What the answer is made of: while these are the same objects, so is the answer.
            make: Makes the answer, in a thread.
            media_type: Of the answer.
        """
        name = request.scope["route"].path
        kept = self._kept.get(name)
        if kept is None or kept.stale(of):
            kept = self._kept[name] = _Kept(tuple(of), asyncio.create_task(asyncio.to_thread(_render, make)))
        found = await asyncio.shield(kept.body)
        if found.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return Response(found.packed, headers=headers, media_type=media_type)
        return Response(found.plain, media_type=media_type)


def render_plain(body: dict[str, object]) -> Response:
    """An answer that is long and that only one asks for; tuples become arrays."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def render(body: BaseModel, media_type: str = "application/json") -> Response:
    """An answer that only one asks for."""
    return Response(body.model_dump_json(), media_type=media_type)


def _render(make: Callable[[], BaseModel]) -> _Body:
    plain = make().model_dump_json().encode()
    return _Body(plain, gzip.compress(plain, _LEVEL, mtime=0) if len(plain) >= _SMALL else None)
