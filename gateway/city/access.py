"""Who may read and who may write.

Reading is open to this machine alone, and only when the view listens on loopback and was asked for by a loopback name
(so that neither a proxy nor a rebound host name opens it to others). Everyone else needs the read token, or a session
that was opened with it. Writing always needs the write token.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import deque

from fastapi import Request

from gateway.city.problems import ProblemError
from gateway.config import CityConfig, ConfigError

COOKIE = "citygate_session"
SESSION_S = 12 * 3600
_FAILURES, _WINDOW_S = 5, 60.0
_MAX_CLIENTS = 10_000
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def is_loopback(host: str) -> bool:
    """Whether ``host``, an address or a name, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """Checks tokens and sessions.

    Args:
        config: The configuration of the view.

    Raises:
        ConfigError: If a token that this configuration needs is missing.
    """

    def __init__(self, config: CityConfig) -> None:
        self._write = config.access.write_token
        self._read = config.access.read_token
        self._open = is_loopback(config.server.host)
        self._secure_cookie = config.server.tls_cert is not None
        self._sessions: dict[bytes, float] = {}
        self._failures: dict[str, deque[float]] = {}
        make = "make one with `python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE && chmod 600 FILE`"
        if config.store.type == "embedded" and self._write is None:
            msg = f"access.write_token: the embedded store needs a token for writers; {make}, set write_token_file"
            raise ConfigError(msg)
        if not self._open and self._read is None:
            msg = (
                f"access.read_token: {config.server.host} can be reached from other machines, so readers need a token;"
                f" {make}, set read_token_file (or listen on 127.0.0.1)"
            )
            raise ConfigError(msg)

    @property
    def secure_cookie(self) -> bool:
        """Whether the session's cookie is for https alone."""
        return self._secure_cookie

    def may_write(self, request: Request) -> bool:
        """Whether the request carries the write token."""
        token = _token(request)
        return self._write is not None and token is not None and _same(token, self._write.get_secret_value())

    def may_read(self, request: Request) -> None:
        """Lets readers pass.

        Raises:
            ProblemError: 401 without a right to read, 429 after too many wrong tokens.
        """
        if self._is_local(request):
            return
        cookie = request.cookies.get(COOKIE)
        if cookie is not None and self._sessions.get(_digest(cookie), 0.0) > time.monotonic():
            return
        token = _token(request)
        if token is None:
            raise ProblemError(401, "Sign in with the read token, or send it as 'Authorization: Bearer …'.")
        self._check(request, token)

    def sign_in(self, request: Request, token: str) -> str:
        """Opens a session for who knows the read token.

        Returns:
            The session's secret, for the cookie.

        Raises:
            ProblemError: 401 with a wrong token, 429 after too many.
        """
        self._check(request, token)
        now = time.monotonic()
        self._sessions = {key: until for key, until in self._sessions.items() if until > now}
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = now + SESSION_S
        return session

    def sign_out(self, request: Request) -> None:
        """Ends the request's session, if it has one."""
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def _check(self, request: Request, token: str) -> None:
        client = request.client.host if request.client else ""
        now = time.monotonic()
        failures = self._failures.get(client, deque())
        while failures and failures[0] <= now - _WINDOW_S:
            failures.popleft()
        if len(failures) >= _FAILURES:
            wait = int(failures[0] + _WINDOW_S - now) + 1
            raise ProblemError(
                429, f"Too many wrong tokens from this address; try again in {wait} s.", {"Retry-After": str(wait)}
            )
        if self._read is not None and _same(token, self._read.get_secret_value()):
            return
        if len(self._failures) >= _MAX_CLIENTS:
            self._failures = {key: times for key, times in self._failures.items() if times[-1] > now - _WINDOW_S}
        failures.append(now)
        self._failures[client] = failures
        raise ProblemError(401, "The token is not the read token of this city view.")

    def _is_local(self, request: Request) -> bool:
        return (
            self._open
            and request.client is not None
            and is_loopback(request.client.host)
            and is_loopback(request.url.hostname or "")
            and not any(header in request.headers for header in _FORWARDED)
        )


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() in {"token", "bearer"} and token.strip() else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_digest(one), _digest(other))
