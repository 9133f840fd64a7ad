"""The city view as a web application: the API, the page, and what both need while they run."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import __version__
from gateway.city import problems, reference
from gateway.city.access import Access
from gateway.city.alerts.desk import Desk
from gateway.city.api import (
    alerts,
    history,
    incidents,
    maintenance,
    oidc,
    people,
    read,
    reports,
    rules,
    session,
    sta,
    write,
)
from gateway.city.api.context import Context, Reader
from gateway.city.auth import first, rights
from gateway.city.auth.oidc import of as oidc_of
from gateway.city.auth.people import People
from gateway.city.auth.throttle import Throttle
from gateway.city.database.engine import Database, DatabaseError
from gateway.city.grades.tables import TableError, load
from gateway.city.incidents.cases import Cases
from gateway.city.incidents.classes import ClassesError
from gateway.city.incidents.classes import load as load_classes
from gateway.city.incidents.follow import Follower
from gateway.city.problems import ProblemError
from gateway.city.rendered import Rendered
from gateway.city.store.base import Store, StoreError
from gateway.city.store.embedded import EmbeddedStore
from gateway.city.store.influx import InfluxStore
from gateway.city.stream import DIRECT, Hub
from gateway.city.view import BASEMAP, View
from gateway.city.windows import Windows
from gateway.config import CityConfig, ConfigError, StoreSection

PAGE = Path(__file__).parent / "web" / "dist"
"""The built page."""
_NOT_BUILT = """citygate: the API answers, but the page is not built.

From a source tree, build it with `npm ci && npm run build` in gateway/city/web, or install the package, which has it
inside. The API's reference is at /docs.
"""
_API = ("/api/", "/sta/")
_HEADERS = {
    # MapLibre runs its worker from a blob; MapLibre and ECharts set styles on elements.
    "Content-Security-Policy": (
        "default-src 'self'; worker-src 'self' blob:; child-src blob:; img-src 'self' data: blob:;"
        " style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(self)",
}


class _CityView(FastAPI):
    """The application; its OpenAPI description names the problems too."""

    def openapi(self) -> dict[str, Any]:
        made = self.openapi_schema is not None
        description = super().openapi()
        if not made:
            problems.describe(description, _asks_who)
            incidents.describe(description, self.state.context.cases.classes)
            _add_examples(description)
        return description


def _add_examples(description: dict[str, Any]) -> None:
    """Adds to each operation what a town answered once; ``python -m tests.house.examples`` writes it anew."""
    examples = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if (example := examples.get(f"{method} {path}")) is not None:
                (content,) = next(said for status, said in operation["responses"].items() if status < "300")[
                    "content"
                ].values()
                content["example"] = example


def _asks_who(method: str, path: str) -> bool:
    line = rights.row(method, path)
    return line is None or rights.RIGHTS[line] is not rights.EVERYONE


def create_app(config: CityConfig, page: Path = PAGE) -> FastAPI:
    """Builds the city view.

    Args:
        config: The whole configuration.
        page: Folder of the built page.

    Returns:
        The application; its lifespan opens and closes the store.

    Raises:
        ConfigError: If a token that this configuration needs is missing, or a table of grades cannot be used.
    """
    try:
        tables = load(config.grades.tables_dir)
    except TableError as error:
        msg = f"grades.tables_dir: {error}"
        raise ConfigError(msg) from error
    try:
        classes = load_classes(config.cases.table)
    except ClassesError as error:
        msg = f"cases.table: {error}"
        raise ConfigError(msg) from error
    view = View(_store(config.store), config.map, tables)
    database = Database(config)
    known = People(database)
    book = config.alerts.path or config.store.path.with_name("alerts.db")
    desk = Desk(view, config.alerts, book, config.map.sources, config.channel)
    cases, windows = Cases(database, classes), Windows(database, view.maintenance)
    reporters = Throttle(5, 600.0, "reports from this address")
    hub, access, public = Hub(view, desk, cases), Access(config, known), config.cases.public
    parts = Context(access, view, hub, known, desk, cases, windows, Rendered(), public, reporters, oidc_of(config.oidc))
    follower = Follower(parts.cases, view, desk, config.cases)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await view.store.open()
            await asyncio.to_thread(database.open)
            await asyncio.gather(asyncio.to_thread(follower.recall), asyncio.to_thread(windows.recall))
            await desk.open()
            await asyncio.to_thread(first.announce, known, config.server, database.path.with_name("setup-link"))
        except (StoreError, DatabaseError, OSError) as error:
            view.failure = error
            raise
        following = asyncio.create_task(follower.run()) if config.cases.watch else None
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
            parts.hub.close()
            await desk.close()
            view.grading.close()
            await view.store.close()
            database.close()

    app = _CityView(title="citygate city view", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.context = parts
    problems.install(app)
    for module in (read, history, alerts, rules, maintenance, session, oidc, people, incidents, reports, sta, write):
        app.include_router(module.router)
    _add_pages(app, config, page)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=1, thread_minimum_size=2**15)
    app.add_middleware(_SecurityHeaders)
    return app


def _store(config: StoreSection) -> Store:
    if config.type == "embedded":
        return EmbeddedStore(config.path, config.retention, config.hourly_retention)
    return InfluxStore(config)


def _add_pages(app: FastAPI, config: CityConfig, page: Path) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference.page(app.openapi()))

    @app.get(BASEMAP, include_in_schema=False)
    async def basemap(_: Reader) -> FileResponse:
        if config.map.basemap is None or not config.map.basemap.is_file():
            raise ProblemError(404, "No base map is configured, or its file is missing; see basemap in [map].")
        return FileResponse(config.map.basemap, media_type="application/octet-stream")

    if (page / "index.html").is_file():
        app.router.routes.append(_Mount("/", _Page(page)))
        return

    @app.get("/", include_in_schema=False)
    async def not_built() -> Response:
        return PlainTextResponse(_NOT_BUILT, 503)


class _Mount(Mount):
    """Where the page's files are: everywhere but among the API's paths, which say themselves what they take."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        of_the_api = scope["type"] == "http" and scope["path"].startswith(_API)
        return (Match.NONE, {}) if of_the_api else super().matches(scope)


class _Page(StaticFiles):
    """The page's files: those under /assets carry their content's hash in the name and never change.

    Each is packed once.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory, html=True)
        self._packed: dict[tuple[str, str], bytes] = {}

    async def get_response(self, path: str, scope: Scope) -> Response:
        response, asked = await super().get_response(path, scope), Headers(scope=scope)
        packable = "gzip" in asked.get("accept-encoding", "") and "range" not in asked and path.endswith(_TEXT)
        if isinstance(response, FileResponse) and packable:
            name = path, response.headers["etag"]
            if name not in self._packed:
                self._packed[name] = await asyncio.to_thread(_pack, Path(response.path))
            headers = {key: value for key, value in response.headers.items() if key != "content-length"}
            packed = {"content-encoding": "gzip", "vary": "Accept-Encoding"}
            response = Response(self._packed[name], response.status_code, {**headers, **packed})
        forever = path.startswith("assets/")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
        return response


_TEXT = (".css", ".html", ".js", ".json", ".svg", ".webmanifest")
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


def _pack(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


class _SecurityHeaders:
    """Adds the headers that keep a browser from doing more than the page needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                headers.extend(_RAW_HEADERS)
                if scope["path"].startswith(_API) and all(name != b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        if scope["type"] == "http":
            scope[DIRECT] = send_with_headers
        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
