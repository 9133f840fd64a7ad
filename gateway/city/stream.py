"""Server-sent events: what changed, to every page, from one look at the store.

A page that connects gets everything once; one that comes back with the id of the last message it saw gets what it
missed, or everything when that is too long ago. A page that reads too slowly is let go and comes back by itself.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from gateway import __version__
from gateway.city.alerts.desk import Desk
from gateway.city.alerts.models import AlertsOut
from gateway.city.database.engine import DatabaseError
from gateway.city.incidents.cases import Cases
from gateway.city.models import Events, Gateways, SensorOut, Sensors, iso
from gateway.city.store.base import StoreError
from gateway.city.view import Snapshot, View, event, gateway, now_ms

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0
_KEEP_ALIVE_S = 15.0
_ALLOWED_S = 30.0
_KEPT = 256
_QUEUE = 64
_ALERTS = 100


class CasesVersion(BaseModel):
    """Says that cases changed; which of them a page may see, the page asks."""

    version: int


DIRECT = "citygate.send"
"""Where a request's scope holds what sends past all middleware but the outermost."""


class _Message(NamedTuple):
    id: int
    text: bytes


_ALIVE = _Message(0, b": keep-alive\n\n")


class Hub:
    """Looks at the store while a page listens, and tells every page what is new.

    Args:
        view: The city as it is now.
        desk: Its alerts.
        cases: Its cases.
    """

    def __init__(self, view: View, desk: Desk, cases: Cases) -> None:
        self._view = view
        self._desk = desk
        self._cases = cases
        self._version = 0
        self._alerts = 0
        self._whole: tuple[tuple[object, ...], list[bytes]] | None = None
        self._next_id = now_ms()  # so that ids of an earlier run are never met again
        self._told = time.monotonic()
        self._kept: deque[_Message] = deque(maxlen=_KEPT)
        self._listeners: set[asyncio.Queue[_Message | None]] = set()
        self._sensors: dict[str, tuple[object, ...]] = {}
        self._events: dict[str, object] = {}
        self._gateways: dict[str, int] = {}
        self._grades: BaseModel | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def close(self) -> None:
        """Ends every stream, so that the server can stop."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        for queue in self._listeners:
            _end(queue)

    async def listen(self, last_id: int | None) -> AsyncGenerator[bytes]:
        """The stream of one page.

        Args:
            last_id: Id of the last message the page saw, if it saw one.

        Yields:
            Encoded server-sent events.
        """
        if self._closed:
            return
        queue: asyncio.Queue[_Message | None] = asyncio.Queue(_QUEUE)
        kept = [message for message in self._kept if last_id is not None and message.id > last_id]
        resumed = last_id is not None and any(message.id == last_id for message in self._kept)
        self._listeners.add(queue)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_forever())
        try:
            hello = json.dumps({"time": iso(now_ms()), "version": __version__})
            yield f"retry: 2000\nevent: hello\ndata: {hello}\n\n".encode()
            for text in [message.text for message in kept] if resumed else await self._everything():
                yield text
            while True:
                message = await queue.get()
                if message is None:
                    return
                yield message.text
        finally:
            self._listeners.discard(queue)

    async def _everything(self) -> list[bytes]:
        try:
            snapshot = await self._view.snapshot()
        except StoreError:
            return []  # the page gets everything as soon as the store is back
        now = now_ms()
        grades = self._view.grades_soon(snapshot, now)
        last = self._kept[-1].id if self._kept else self._next_id
        whole = snapshot, grades, last, self._desk.version, self._version
        if self._whole is not None and self._whole[0] == whole:  # many pages come back at once
            return self._whole[1]
        parts: list[tuple[str, BaseModel]] = [
            ("sensors", Sensors(time=iso(now), sensors=self._view.sensors(snapshot, now))),
            ("events", Events(events=[event(item) for item in snapshot.events])),
            ("gateways", Gateways(gateways=[gateway(health, now) for health in snapshot.gateways])),
            ("alerts", AlertsOut(alerts=self._desk.alerts()[:_ALERTS])),
            ("cases", CasesVersion(version=self._version)),
        ]
        if grades is not None:
            parts.append(("grades", grades.out))
        # the id comes with the last part only: a page that lost the line before it has not seen everything
        texts = [_encode(None, name, part) for name, part in parts[:-1]] + [_encode(last, *parts[-1])]
        self._whole = whole, texts
        return texts

    async def _look_forever(self) -> None:
        failing = False
        while self._listeners:
            try:
                self._tell(await self._view.snapshot())
                if (version := await asyncio.to_thread(self._cases.version)) != self._version:
                    self._version = version
                    self._send("cases", CasesVersion(version=version))
                failing = False
            except (StoreError, DatabaseError) as error:
                if not failing:
                    _LOG.warning("the stream waits: %s", error)
                failing = True
            except Exception:  # noqa: BLE001 - one bad look must not silence every page
                _LOG.exception("the stream missed a look at the store")
            if time.monotonic() - self._told >= _KEEP_ALIVE_S:
                self._tell_all(_ALIVE)
            await asyncio.sleep(max(_POLL_S, self._view.store.freshness))

    def _tell(self, snapshot: Snapshot) -> None:
        now = now_ms()
        changed: list[SensorOut] = []
        for sensor in self._view.sensors(snapshot, now):
            readings = snapshot.sensors[sensor.id].readings
            seen = (sensor.state, sensor.title, sensor.lat, sensor.lon, sensor.maintenance, readings)
            if self._sensors.get(sensor.id) != seen:
                self._sensors[sensor.id] = seen
                changed.append(sensor)
        if changed:
            self._send("sensors", Sensors(time=iso(now), sensors=changed))
        events = [item for item in snapshot.events if self._events.get(item.last.id) != item]
        if events:
            self._events = {item.last.id: item for item in snapshot.events}
            self._send("events", Events(events=[event(item) for item in events]))
        gateways = {health.gateway: health.time for health in snapshot.gateways}
        if gateways != self._gateways:
            self._gateways = gateways
            self._send("gateways", Gateways(gateways=[gateway(health, now) for health in snapshot.gateways]))
        if self._desk.version != self._alerts:
            alerts, self._alerts = self._desk.alerts(self._alerts), self._desk.version
            self._send("alerts", AlertsOut(alerts=alerts))
        grades = self._view.grades_soon(snapshot, now)
        if grades is not None and grades.out is not self._grades:
            self._grades = grades.out
            self._send("grades", grades.out)

    def _send(self, name: str, body: BaseModel) -> None:
        self._next_id += 1
        message = _Message(self._next_id, _encode(self._next_id, name, body))
        self._kept.append(message)
        self._tell_all(message)

    def _tell_all(self, message: _Message) -> None:
        self._told = time.monotonic()
        for queue in self._listeners:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                _end(queue)


class EventStream(StreamingResponse):
    """A stream to one page, past the middleware: what is the same for all pages should cost little for each.

    Args:
        texts: What :meth:`Hub.listen` yields.
        changes: Rises when somebody's rights may have ended.
        allowed: Whether who listens may go on; asked when ``changes`` rises, and each 30 s.
    """

    media_type = "text/event-stream"

    def __init__(
        self, texts: AsyncGenerator[bytes], changes: Callable[[], int], allowed: Callable[[], Awaitable[bool]]
    ) -> None:
        super().__init__(texts, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._texts, self._changes, self._allowed = texts, changes, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the stream ends, the page goes, or who listens may no longer."""
        sending = asyncio.create_task(self._send(scope.get(DIRECT, send)))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        seen, until = self._changes(), time.monotonic() + _ALLOWED_S
        async with contextlib.aclosing(self._texts) as texts:
            async for text in texts:
                if seen != self._changes() or time.monotonic() > until:
                    seen, until = self._changes(), time.monotonic() + _ALLOWED_S
                    if not await self._allowed():
                        break
                await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _encode(number: int | None, name: str, body: BaseModel) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {body.model_dump_json()}\n\n".encode()


def _end(queue: asyncio.Queue[_Message | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
