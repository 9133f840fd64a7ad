"""Servers that take line protocol: one request, and what the answer means.

Nothing that a server answers or does not answer raises: it becomes an :class:`Answer`. Nothing is read of an answer
beyond 64 KiB, nothing is unpacked, no redirect is followed, no cookie is kept, and no secret gets into a text.
"""

import asyncio
import base64
import importlib
import importlib.util
import json
import logging
import math
import socket
import ssl
import sys
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.machinery import ModuleSpec
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import ResolveResult
from pydantic import SecretStr

from gateway.config import OutputConfig
from gateway.edge.tls import Tls, TlsError

_CONNECTIONS = 2  # one for fresh readings, one for the backlog
_LEAST_CONNECT = 1.0  # s
_LOOKUP = 0.5  # s that a name server has before the address found last is taken
_LONGEST_RETRY_AFTER = 600.0  # a server's clock or mind may be wrong
_REASON_LENGTH = 500
_ANSWER_BYTES = 65536  # what is read of an answer

_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CREATED)  # 201: InfluxDB 3, "partial"
_MEND = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)

_log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: Of HTTP; 0 when there was no answer.
        reason: For people; without secrets.
        retry_after: How long it asks us to wait, s.
        html: Whether it is a page, and so from something before the server.
        late: Whether time was up after connecting: perhaps the request was too large for the link.
        ours: Whether our own files or its certificate keep us from asking.
    """

    status: int
    reason: str
    retry_after: float | None = None
    html: bool = False
    late: bool = False
    ours: bool = False

    @property
    def accepted(self) -> bool:
        """Whether all points are stored."""
        return self.status == HTTPStatus.NO_CONTENT or (HTTPStatus(200) <= self.status < 300 and not self.reason)  # noqa: PLR2004

    @property
    def refused(self) -> bool:
        """Whether it is about the points, not about us: an HTML page comes from something before the server."""
        return self.status in _REFUSED and not self.html and not self.accepted

    @property
    def too_large(self) -> bool:
        """Whether less at a time may do."""
        return self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    @property
    def judged(self) -> bool:
        """Whether it is about the request; otherwise the same request may do later."""
        return self.accepted or self.refused or self.too_large

    @property
    def redirected(self) -> bool:
        """Whether the server is elsewhere."""
        return HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST

    @property
    def slow(self) -> bool:
        """Whether only a person can mend it."""
        return self.ours or self.redirected or self.status in _MEND


class Server:
    """An output's server, over as many sessions as its moods and our renewed files make necessary.

    Args:
        output: Its configuration.
    """

    def __init__(self, output: OutputConfig) -> None:
        self._output = output
        self._secrets = _secrets(output)
        self._tls: Tls | None = None  # loading CAs costs megabytes and is left out where nothing is encrypted
        if output.url.startswith("https:"):
            self._tls = Tls(f"[[output]] '{output.name}'", output.tls_ca, output.tls_cert, output.tls_key)
        self._session: _Session | None = None
        self._resolver: _Resolver | None = None
        self._unconnected = 0  # attempts in a row
        self._connects_in = 0.0  # s, at most, when it last did

    async def post(self, body: bytes) -> Answer:
        """Sends gzip'd line protocol.

        A server may close a connection that was idle just when it is used again; then it is sent once more at once.
        """
        try:
            session = await self._current()
            again = session.proven
            answer = await self._post(session, body)
            if again and not answer.status and not answer.late:
                answer = await self._post(await self._current(), body)
        except TlsError as error:
            return Answer(0, str(error), ours=True)
        return answer

    async def reread(self) -> bool:
        """Reads the files of the token and the password again.

        Returns:
            Whether they hold something new, with which it is worth trying at once.
        """
        output = self._output
        files = {f"{name}_file": path for name in ("token", "password") if (path := getattr(output, f"{name}_file"))}
        try:
            found = OutputConfig.model_validate({"url": output.url, **files})
        except ValueError:  # absent for the moment of its renewal
            return False
        fresh = {name: secret for name in ("token", "password") if (secret := getattr(found, name))}
        if all(getattr(output, name) == secret for name, secret in fresh.items()):
            return False
        self._output = output.model_copy(update=fresh)
        self._secrets |= _secrets(self._output)
        await self.close()
        return True

    async def close(self) -> None:
        """Closes the connections, those in use as soon as they are not."""
        session, self._session = self._session, None
        if session and not session.busy:
            await session.close()

    async def _current(self) -> "_Session":
        context = self._tls.current() if self._tls else True
        if self._session and self._session.context is not context:
            await self.close()
        if self._session is None:
            self._resolver = self._resolver or _Resolver()
            output = self._output
            http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context, resolver=self._resolver),
                timeout=aiohttp.ClientTimeout(total=output.timeout, connect=self._connect_within()),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )
            kind = _InfluxDB2 if output.type == "influxdb2" else _InfluxDB1
            self._session = _Session(kind(output, http), http, context)
        return self._session

    def _connect_within(self) -> float:
        """Short, so that a link that is back is soon noticed; now and then longer, for links that are always slow."""
        output, attempt = self._output, self._unconnected % 16
        least = max(_LEAST_CONNECT, output.flush_interval, 2 * self._connects_in)
        factor = 16 if attempt == 15 else 4 if attempt % 4 == 3 else 1  # noqa: PLR2004
        return min(least * factor, 0.9 * output.timeout)

    async def _post(self, session: "_Session", body: bytes) -> Answer:
        session.busy += 1
        began = time.monotonic()
        try:
            async with await session.sender.write(body) as response:
                answer = self._answer(response.status, await _read(response), response.headers)
            if not session.proven:
                session.proven = True
                self._connects_in = time.monotonic() - began
            self._unconnected = 0
        except Exception as error:  # noqa: BLE001 - whatever the libraries make of what a server sends
            answer = self._no_answer(error, first=not session.proven)
            if session is self._session:
                self._session = None
        finally:
            session.busy -= 1
            if session is not self._session and not session.busy:
                await session.close()
        return answer

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
        text = body.decode("utf-8", "replace")
        html = "html" in headers.get("Content-Type", "").lower() or text.lstrip()[:1] == "<"
        if not html:
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                content = json.loads(text)
                text = str(content.get("message") or content["error"])
        return Answer(status, self._shown(text), _retry_after(headers), html)

    def _no_answer(self, error: Exception, *, first: bool) -> Answer:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            self._unconnected += 1
            return Answer(0, "no connection in time")
        if isinstance(error, TimeoutError):
            return Answer(0, "time is up", late=True)
        reason = self._shown(str(error) or type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError) or "[SSL:" in reason:
            return Answer(0, f"{reason}: check tls_ca, tls_cert and tls_key, and the server's certificate", ours=True)
        hung_up = isinstance(error, OSError | aiohttp.ServerDisconnectedError)
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = self._shown(error.os_error.strerror or reason)
        if self._tls and first and hung_up and not isinstance(error, aiohttp.ClientConnectorError):  # as TLS 1.3 may
            reason += "; if it wants another client certificate, check tls_cert and tls_key"
        return Answer(0, reason)

    def _shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return " ".join(text.split())[:_REASON_LENGTH]


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _login(output: OutputConfig) -> str:
    return base64.b64encode(f"{output.username}:{_plain(output.password)}".encode()).decode()


def _secrets(output: OutputConfig) -> set[str]:
    """Every form of the secrets that a server could repeat."""
    return {*filter(None, (_plain(output.token), _plain(output.password))), *([_login(output)] * bool(output.password))}


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The answer's beginning. A broken or endless one still says what its status says, except that all is well."""
    text = bytearray()
    try:
        while len(text) < _ANSWER_BYTES and (part := await response.content.readany()):
            text += part
    except (aiohttp.ClientError, OSError, TimeoutError):
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise
    return bytes(text[:_ANSWER_BYTES])


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from a number, or from a date by the server's own clock (RFC 9110, 10.2.3); None for anything else."""
    text, seconds = headers.get("Retry-After", ""), math.nan
    with suppress(ValueError, OverflowError):
        seconds = float(text)
    if math.isnan(seconds):
        with suppress(ValueError, OverflowError):
            moment, now = parsedate_to_datetime(text), time.time()
            with suppress(ValueError, OverflowError):
                now = parsedate_to_datetime(headers.get("Date", "")).timestamp()
            seconds = moment.timestamp() - now
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


class _Resolver(aiohttp.ThreadedResolver):
    """One lookup at a time, however long it hangs; while it hangs or fails, the addresses found last."""

    def __init__(self) -> None:
        super().__init__()
        self._lookup: asyncio.Task[list[ResolveResult]] | None = None
        self._known: list[ResolveResult] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(super().resolve(host, port, family))
        try:
            patience = _LOOKUP if self._known else None
            self._known = await asyncio.wait_for(asyncio.shield(self._lookup), patience)
        except (OSError, TimeoutError):
            if not self._known:
                raise
        return self._known


# Sessions


class _Sender(Protocol):
    async def write(self, body: bytes) -> aiohttp.ClientResponse: ...


@dataclass(slots=True)
class _Session:
    """Connections with the same TLS files and secrets.

    Attributes:
        sender: Who writes.
        http: The connections.
        context: As it was made with.
        proven: Whether the server has answered by it.
        busy: Requests under way; it is closed when there are none, so that a renewal interrupts nothing.
    """

    sender: _Sender
    http: aiohttp.ClientSession
    context: ssl.SSLContext | bool
    proven: bool = False
    busy: int = 0

    async def close(self) -> None:
        await self.http.close()


class _InfluxDB1:
    """InfluxDB 1.x, ``POST /write``."""

    def __init__(self, output: OutputConfig, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._url = f"{output.url.rstrip('/')}/write"
        self._parameters = {"db": output.database, "precision": "ms"}
        self._headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"}
        if output.username:
            self._headers["Authorization"] = f"Basic {_login(output)}"

    async def write(self, body: bytes) -> aiohttp.ClientResponse:
        return await self._http.post(
            self._url, params=self._parameters, data=body, headers=self._headers, allow_redirects=False
        )


class _InfluxDB2:
    """InfluxDB 2, 3, 1.8+, VictoriaMetrics and the city view, ``POST /api/v2/write`` by influxdb-client."""

    def __init__(self, output: OutputConfig, http: aiohttp.ClientSession) -> None:
        with _only_what_is_needed("influxdb_client", "client", "service", "domain"):
            configuration: Any = importlib.import_module("influxdb_client.configuration").Configuration()
            api: Any = importlib.import_module("influxdb_client._async.api_client")
            service: Any = importlib.import_module("influxdb_client.service.write_service")
        configuration.host = output.url.rstrip("/")
        configuration.ssl_context = True
        token = _plain(output.token)
        client = api.ApiClientAsync(
            configuration,
            header_name="Authorization" if token else None,
            header_value=f"Token {token}",
            allow_redirects=False,
            client_session_type=lambda **_: http,
        )
        self._service = service.WriteService(client)
        self._place = output.org, output.bucket

    async def write(self, body: bytes) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._service.post_write_async(
            *self._place, body, precision="ms", content_encoding="gzip", _preload_content=False
        )
        return response


class _Package(types.ModuleType):
    """A package whose ``__init__`` runs when something is asked of it that only the ``__init__`` can give."""

    __spec__: ModuleSpec

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the package has
        if name.startswith("__") or self.__dict__.get("_executed"):
            msg = f"module {self.__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        self._executed = True
        if self.__spec__.loader:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


@contextmanager
def _only_what_is_needed(package: str, *subpackages: str) -> Iterator[None]:
    """Imports modules of influxdb-client without the 300 of the whole API, which cost 13 MB and seconds on a Pi.

    What else is imported from the package later works as ever.
    """
    if package not in sys.modules:
        for name in (package, *(f"{package}.{sub}" for sub in subpackages)):
            spec = importlib.util.find_spec(name)
            if spec is None:
                msg = f"No module named {name!r}"
                raise ModuleNotFoundError(msg, name=name)
            module = _Package(name)
            module.__spec__ = spec
            module.__path__ = list(spec.submodule_search_locations or [])
            module.__file__ = spec.origin
            sys.modules[name] = module
        root = sys.modules[package]
        for sub in subpackages:
            setattr(root, sub, sys.modules[f"{package}.{sub}"])
        root.__dict__["VERSION"] = importlib.import_module(f"{package}.version").VERSION
        for name in ("signin", "signout"):
            service = importlib.import_module(f"{package}.service.{name}_service")
            root.__dict__[f"{name.title()}Service"] = getattr(service, f"{name.title()}Service")
    yield


__all__ = ["Answer", "Server"]
