"""From the spool to a server: gzip'd line protocol, and whatever the server answers, no valid point is lost.

A row leaves the spool when its output's server has said 204. Until then a kill, a lost answer or an outage only means
that it is sent again; the same points written twice are the same points.

======================  ============================================================================================
answer                  what follows
======================  ============================================================================================
204, empty 2xx          delivered
400, 422                halved until the bad points are alone; those go to the dead letters with the server's reason
413                     halved, and smaller requests from then on
401, 403, 404, 3xx      kept; tried again slowly, with a message that says what to mend
429, 503                kept; tried again after ``Retry-After``
anything else           kept; tried again with a jittered, growing delay: resets, timeouts, HTML, half an answer
======================  ============================================================================================

A server that refuses everything is no judge: a point is called bad only by a server that takes another one.
"""

import asyncio
import base64
import gzip
import importlib
import importlib.util
import json
import logging
import math
import random
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
from pydantic import SecretStr

from gateway.config import OutputConfig
from gateway.edge.spool import Refusal, Row, Spool, SpoolError, gzip_of

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_SLOW_DELAYS = (5.0, 60.0)  # for what only a person can mend
_LONGEST_RETRY_AFTER = 600.0  # a server's clock or mind may be wrong
_REASON_LENGTH = 500
_ANSWER_BYTES = 65536  # what is read of an answer
_REMIND = 60.0  # s between two log messages about the same trouble
_LEAST_REQUEST = 16384  # bytes of line protocol below which requests do not shrink on 413
_TRIES_FOR_A_WITNESS = 32

_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CREATED)  # 201: InfluxDB 3, "partial"
_MEND = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)

_log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class _Answer:
    """What a server said: status 0 when there was no answer; the reason is for people."""

    status: int
    reason: str
    retry_after: float | None = None
    html: bool = False

    @property
    def accepted(self) -> bool:
        return self.status == HTTPStatus.NO_CONTENT or (HTTPStatus(200) <= self.status < 300 and not self.reason)  # noqa: PLR2004

    @property
    def refused(self) -> bool:
        """Whether it is about the points, not about us: an HTML page comes from something before the server."""
        return self.status in _REFUSED and not self.html and not self.accepted

    @property
    def too_large(self) -> bool:
        return self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class _Sender(Protocol):
    async def post(self, body: bytes) -> _Answer: ...

    async def close(self) -> None: ...


class Forwarder:
    """Sends what an output has yet to get.

    Fresh rows go first: while there is more than one request can carry, requests take the newest and the oldest rows by
    turns.

    Args:
        spool: Where the rows are.
        output: The server; its name is the name of its position in the spool.
    """

    def __init__(self, spool: Spool, output: OutputConfig) -> None:
        self._spool = spool
        self._output = output
        self._arrival = spool.arrival()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._sender: _Sender | None = None
        self._limit = output.batch_bytes
        self._newest_first = True
        self._witness: Row | None = None  # a row that the server has taken
        self._failures = 0
        self._trouble: str | None = None
        self._last_log = -math.inf
        self._last_success: int | None = None
        self._last_error: str | None = None

    async def run(self) -> None:
        """Sends for ever; ends by cancellation, which loses nothing."""
        try:
            while True:
                try:
                    await self._turn()
                except SpoolError as error:
                    await self._pause(str(error), self._delay())
        finally:
            if self._sender:
                await self._sender.close()
                self._sender = None

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109 - the caller's stop has one
        """Sends everything at once, while ``run`` is running.

        Args:
            timeout: Longest wait, s.

        Returns:
            Whether the output has everything.
        """
        self._idle.clear()
        self._hurry.set()
        self._arrival.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._spool.backlog(self._output.name).rows:
                    await self._idle.wait()
                    self._idle.clear()
        self._hurry.clear()
        return not self._spool.backlog(self._output.name).rows

    def status(self) -> dict[str, Any]:
        """How it goes, for people and for the health endpoint.

        Returns:
            ``name``, ``url``, ``state`` (``ok`` | ``retrying``), ``last_success`` (ms UTC or None), ``last_error``
            (text or None; kept after recovery), ``backlog_rows``, ``backlog_bytes`` (line protocol, uncompressed).
        """
        backlog = self._spool.backlog(self._output.name)
        return {
            "name": self._output.name,
            "url": self._output.url,
            "state": "ok" if self._trouble is None else "retrying",
            "last_success": self._last_success,
            "last_error": self._last_error,
            "backlog_rows": backlog.rows,
            "backlog_bytes": backlog.bytes,
        }

    async def _turn(self) -> None:
        name = self._output.name
        if not self._spool.backlog(name).rows:
            self._idle.set()
            await self._gather()
        rows = await self._spool.next_rows(name, self._limit, newest_first=self._newest_first)
        if rows:
            self._newest_first = not self._newest_first or self._spool.backlog(name).rows == len(rows)
            await self._deliver(rows)

    async def _gather(self) -> None:
        """Waits for a row, and then for more: until the interval is over, or a request is full."""
        await self._arrival.wait()
        deadline = asyncio.get_running_loop().time() + self._output.flush_interval
        self._arrival.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not self._hurry.is_set() and self._spool.backlog(self._output.name).bytes < self._limit:
                    await self._arrival.wait()
                    self._arrival.clear()

    async def _deliver(self, rows: list[Row]) -> None:
        answer = await self._post(gzip_of(rows))
        refused: list[Refusal] = []
        if not answer.accepted:
            if answer.too_large:
                self._limit = max(min(self._limit, sum(row.raw_bytes for row in rows)) // 2, _LEAST_REQUEST)
            lines = await asyncio.to_thread(lambda: [(row.id, i, t) for row in rows for i, t in enumerate(row.text())])
            found = await self._halve(lines, answer)
            if found is None:
                await self._pause(
                    f"refuses every point, so the fault may be the server's: {answer.reason}", self._delay(slow=True)
                )
                return
            refused = found
        await self._spool.delivered(self._output.name, [row.id for row in rows], refused)
        if len(refused) < sum(row.lines for row in rows):
            self._witness = rows[-1]

    async def _halve(self, lines: list[tuple[int, int, bytes]], answer: _Answer) -> list[Refusal] | None:
        """Sends the points in ever smaller parts until those that are refused are alone.

        Returns:
            The refused; None if the server took none of all that it was offered.
        """
        bad: list[Refusal] = []
        judged = False  # the server took a point, so that its refusals mean the points
        work = _halves(lines)
        if len(lines) == 1:
            bad, work = [Refusal(*lines[0], answer.reason)], []
        while work:
            part = work.pop()
            text = b"\n".join(line for _, _, line in part)
            answer = await self._post(await asyncio.to_thread(gzip.compress, text, 1))
            if answer.accepted:
                judged = True
            elif len(part) > 1:
                work += _halves(part)
            else:
                bad.append(Refusal(*part[0], answer.reason))
                if not judged and len(bad) == _TRIES_FOR_A_WITNESS:
                    judged = await self._takes_any(lines)
                    if not judged:
                        return None
        if bad and not judged and not await self._takes_any(lines):
            return None
        for refusal in bad[:3]:
            _log.warning("%s: a point is refused and goes to the dead letters: %s", self._output.name, refusal.reason)
        return bad

    async def _takes_any(self, lines: list[tuple[int, int, bytes]]) -> bool:
        """Whether the server takes a point that it took before, or any of some of these."""
        offers = [line for _, _, line in random.sample(lines, min(len(lines), _TRIES_FOR_A_WITNESS))]
        if self._witness:
            offers = [b"\n".join(self._witness.text()), *offers]
        for offer in offers:
            if (await self._post(gzip.compress(offer, 1))).accepted:
                return True
        return False

    async def _post(self, body: bytes) -> _Answer:
        """Sends until the server judges the points themselves: accepted, refused or too large."""
        while True:
            if self._sender is None:
                try:
                    self._sender = _sender(self._output)
                except OSError as error:  # also ssl.SSLError
                    trouble = f"[[output]] '{self._output.name}': cannot use tls_ca = {self._output.tls_ca}: {error}"
                    await self._pause(trouble, self._delay(slow=True))
                    continue
            answer = await self._sender.post(body)
            if answer.accepted:
                self._recovered()
                return answer
            if answer.refused or answer.too_large:
                return answer
            slow = answer.status in _MEND or HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST
            delay = self._delay(slow=slow) if answer.retry_after is None else answer.retry_after
            await self._pause(self._explained(answer), delay)

    def _delay(self, *, slow: bool = False) -> float:
        self._failures += 1
        first, longest = _SLOW_DELAYS if slow else (_FIRST_DELAY, _LONGEST_DELAY)
        return min(first * 2.0 ** min(self._failures - 1, 16), longest) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    async def _pause(self, trouble: str, delay: float) -> None:
        now = time.monotonic()
        self._last_error = trouble
        if trouble != self._trouble or now - self._last_log >= _REMIND:
            self._last_log = now
            _log.error("%s: %s; trying again in %.1f s, nothing is lost", self._output.name, trouble, delay)
        self._trouble = trouble
        if not self._hurry.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), delay)
        else:
            await asyncio.sleep(min(delay, _FIRST_DELAY))

    def _recovered(self) -> None:
        self._last_success = time.time_ns() // 1_000_000
        self._failures = 0
        if self._trouble is not None:
            _log.info("%s: takes points again", self._output.name)
        self._trouble = None

    def _explained(self, answer: _Answer) -> str:
        output = self._output
        first = output.type == "influxdb1"
        match answer.status:
            case HTTPStatus.UNAUTHORIZED:
                keys = "'username' and 'password_file'" if first else "'token_file'"
                hint = f"the server does not know these credentials: check {keys}"
            case HTTPStatus.FORBIDDEN:
                what = f"the database '{output.database}'" if first else f"the bucket '{output.bucket}'"
                hint = f"no permission to write to {what}: give it to this user or token, or set another one"
            case HTTPStatus.NOT_FOUND if first:
                hint = (
                    f"is there a database '{output.database}'? Create it (CREATE DATABASE \"{output.database}\"), "
                    "or mend 'database' or 'url'"
                )
            case HTTPStatus.NOT_FOUND:
                hint = (
                    f"is there a bucket '{output.bucket}' in the organisation '{output.org}'? Create it "
                    f"(influx bucket create --name {output.bucket} --org {output.org}), "
                    "or mend 'bucket', 'org' or 'url'"
                )
            case status if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                hint = (
                    "redirects are not followed, since they would take the credentials along: set 'url' to the target"
                )
            case status if answer.html or HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                return f"{output.url} answers {status} but not as InfluxDB does: is a proxy or portal between?"
            case 0:
                return f"{output.url} does not answer: {answer.reason}"
            case status:
                return f"{output.url} answers {status}: {answer.reason}"
        return f"{output.url} answers {answer.status} ({answer.reason}): [[output]] '{output.name}': {hint}"


def _halves(lines: list[tuple[int, int, bytes]]) -> list[list[tuple[int, int, bytes]]]:
    middle = len(lines) // 2
    return [half for half in (lines[middle:], lines[:middle]) if half]


# Servers


def _sender(output: OutputConfig) -> _Sender:
    return _InfluxDB2(output) if output.type == "influxdb2" else _InfluxDB1(output)


def _tls(output: OutputConfig) -> ssl.SSLContext | bool:
    """What aiohttp takes as ``ssl``; loading CAs costs megabytes and is left out where nothing is encrypted."""
    return ssl.create_default_context(cafile=output.tls_ca) if output.url.startswith("https:") else True


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""


def _answer(output: OutputConfig, status: int, body: bytes | str, headers: Mapping[str, str] | None) -> _Answer:
    headers = headers or {}
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    html = "html" in headers.get("Content-Type", "").lower() or text.lstrip()[:1] == "<"
    if not html:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(text)
            text = str(content.get("message") or content["error"])
    for secret in filter(None, (_secret(output.token), _secret(output.password))):
        text = text.replace(secret, "********")
    reason = " ".join(text.split())[:_REASON_LENGTH]
    return _Answer(status, reason, _retry_after(headers.get("Retry-After")), html)


def _retry_after(text: str | None) -> float | None:
    """Seconds from a number or a date (RFC 9110, 10.2.3); None for anything else."""
    seconds = math.nan
    if text:
        with suppress(ValueError):
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        with suppress(ValueError):
            seconds = float(text)
    return None if math.isnan(seconds) else min(max(seconds, _FIRST_DELAY), _LONGEST_RETRY_AFTER)


def _no_answer(error: Exception) -> _Answer:
    if isinstance(error, TimeoutError):
        return _Answer(0, "time is up")
    return _Answer(0, str(error) or type(error).__name__)


_NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class _InfluxDB1:
    """InfluxDB 1.x, ``POST /write``."""

    def __init__(self, output: OutputConfig) -> None:
        self._output = output
        self._headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"}
        if output.username:
            login = f"{output.username}:{_secret(output.password)}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=_tls(output)),
            timeout=aiohttp.ClientTimeout(total=output.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, body: bytes) -> _Answer:
        try:
            async with self._session.post(
                f"{self._output.url.rstrip('/')}/write",
                params={"db": self._output.database, "precision": "ms"},
                data=body,
                headers=self._headers,
                allow_redirects=False,
            ) as response:
                text = await response.content.read(_ANSWER_BYTES)
                return _answer(self._output, response.status, text, response.headers)
        except _NETWORK_ERRORS as error:
            return _no_answer(error)

    async def close(self) -> None:
        await self._session.close()


class _InfluxDB2:
    """InfluxDB 2, 3, 1.8+, VictoriaMetrics and the city view, ``POST /api/v2/write`` by influxdb-client."""

    def __init__(self, output: OutputConfig) -> None:
        with _only_what_is_needed("influxdb_client", "client", "service", "domain"):
            rest: Any = importlib.import_module("influxdb_client.rest")
            configuration: Any = importlib.import_module("influxdb_client.configuration").Configuration()
            api: Any = importlib.import_module("influxdb_client._async.api_client")
            service: Any = importlib.import_module("influxdb_client.service.write_service")
        self._output = output
        self._error: type[Exception] = rest.ApiException
        configuration.host = output.url.rstrip("/")
        configuration.timeout = output.timeout * 1000
        configuration.ssl_context = _tls(output)
        configuration.connection_pool_maxsize = 1
        token = _secret(output.token)
        self._client = api.ApiClientAsync(
            configuration,
            header_name="Authorization" if token else None,
            header_value=f"Token {token}",
            allow_redirects=False,
            client_session_kwargs={"cookie_jar": aiohttp.DummyCookieJar()},
        )
        self._service = service.WriteService(self._client)

    async def post(self, body: bytes) -> _Answer:
        try:
            await self._service.post_write_async(
                self._output.org, self._output.bucket, body, precision="ms", content_encoding="gzip"
            )
        except self._error as error:
            response: Any = error  # ApiException
            return _answer(self._output, response.status or 0, response.body or b"", response.headers)
        except _NETWORK_ERRORS as error:
            return _no_answer(error)
        last = self._client.last_response
        return _answer(self._output, last.status, last.data, last.getheaders())

    async def close(self) -> None:
        await self._client.close()


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


__all__ = ["Forwarder"]
