"""Who makes a request, and what they may therefore do.

As long as nobody has a password, reading is open to this machine alone, and only when the view listens on loopback and
was asked for by a loopback name (so that neither a proxy nor a rebound host name opens it to others). Once someone has
one, everyone signs in, this machine too. Programs send an API token, which counts from the start; the read token reads.
Writing of readings always needs the write token.
"""

import ipaddress
import time

from fastapi import Request

from gateway.city.auth import people, rights, secret
from gateway.city.auth.people import SESSION_MS, TOKEN_PREFIX, Origin, People
from gateway.city.auth.rights import Caller, Role
from gateway.city.auth.throttle import Throttle
from gateway.city.problems import ProblemError
from gateway.config import CityConfig, ConfigError

COOKIE = "citygate_session"
SESSION_S = SESSION_MS // 1000
_REMEMBERED_MS, _MOST_REMEMBERED = 5000, 1000
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def is_loopback(host: str) -> bool:
    """Whether ``host``, an address or a name, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """Checks sessions and tokens.

    Args:
        config: The configuration of the view.
        people: Who may sign in.

    Raises:
        ConfigError: If a token that this configuration needs is missing.
    """

    def __init__(self, config: CityConfig, people: People) -> None:
        self._people = people
        self._write = config.access.write_token
        self._read = config.access.read_token
        self._open = is_loopback(config.server.host)
        self._tls = config.server.tls_cert is not None
        self._sessions: dict[str, float] = {}  # of those who know the read token
        self._remembered: dict[tuple[object, ...], tuple[int, int, Caller]] = {}
        self._addresses = Throttle(5, 60.0, "wrong attempts from this address")
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

    def secure_cookie(self, request: Request) -> bool:
        """Whether a session's cookie is for https alone: behind TLS, our own or that of a proxy that says so."""
        return self._tls or request.headers.get("x-forwarded-proto", "").lower() == "https"

    def may_write(self, request: Request) -> bool:
        """Whether the request carries the write token."""
        token = _token(request)
        return self._write is not None and token is not None and secret.same(token, self._write.get_secret_value())

    @property
    def changes(self) -> int:
        """Rises whenever somebody's rights may have ended."""
        return self._people.changes

    def remembered(self, request: Request) -> Caller | None:
        """Who makes the request, if that was found out seconds ago and nothing has changed here since.

        What another process changes is noticed 5 s later.
        """
        at, changes, caller = self._remembered.get(self._key(request), (0, 0, None))
        return caller if changes == self.changes and 0 <= people.now_ms() - at < _REMEMBERED_MS else None

    def caller(self, request: Request) -> Caller:
        """Who makes the request, which it remembers.

        Raises:
            ProblemError: 401 without a right to be here, 429 after too many wrong tokens.
        """
        at, changes = people.now_ms(), self.changes  # first: what changes meanwhile is not remembered as it was
        found = self._find(request)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[self._key(request)] = at, changes, found
        return found

    def _key(self, request: Request) -> tuple[object, ...]:
        headers = request.headers
        return address(request), self._is_local(request), headers.get("cookie"), headers.get("authorization")

    def _find(self, request: Request) -> Caller:
        here, token = address(request), _token(request)
        api_token = token is not None and token.startswith(TOKEN_PREFIX)
        if self._is_local(request) and not self._people.on and not api_token:
            return Caller("this machine", Role.VIEWER, here, alone=True)
        if (cookie := request.cookies.get(COOKIE)) is not None:
            if self._sessions.get(secret.digest(cookie), 0.0) > time.monotonic():
                return self._reader(here)
            if (found := self._people.by_session(cookie, here)) is not None:
                return found
        if token is None:
            raise ProblemError(401, "Sign in, or send a token as 'Authorization: Bearer …'.")
        return self._check(token, here)

    def sign_in(self, request: Request, token: str) -> str:
        """Opens a session for who knows the read token.

        Returns:
            The session's secret, for the cookie.

        Raises:
            ProblemError: 401 with a wrong token, 429 after too many.
        """
        self._addresses.check(address(request))
        if not self._is_read_token(token):
            self._addresses.failed(address(request))
            raise ProblemError(401, "The token is not the read token of this city view.")
        now = time.monotonic()
        self._sessions = {key: until for key, until in self._sessions.items() if until > now}
        session = secret.make()
        self._sessions[secret.digest(session)] = now + SESSION_S
        return session

    def sign_in_person(self, request: Request, name: str, password: str) -> str:
        """Opens a session for who knows a person's password.

        Returns:
            The session's secret, for the cookie.

        Raises:
            ProblemError: 401 if they do not belong together, 429 after too many attempts.
        """
        self._addresses.check(address(request))
        session = self._people.sign_in(name, password, origin(request))
        if session is None:
            self._addresses.failed(address(request))
            raise ProblemError(401, "Name and password do not belong together.")
        return session

    def sign_out(self, request: Request) -> None:
        """Ends the request's session, if it has one.

        Raises:
            ProblemError: 403 if another site may have made the request.
        """
        cookie = request.cookies.get(COOKIE, "")
        self._sessions.pop(secret.digest(cookie), None)
        self._remembered.clear()
        if (caller := self._people.by_session(cookie, address(request))) is not None:
            refuse_forged(caller, request)
            self._people.sign_out(cookie, caller)

    def _check(self, token: str, here: str) -> Caller:
        # nobody guesses 256 bits: what others try from the same address, as from behind one proxy, does not hold it up
        if token.startswith(TOKEN_PREFIX) and (found := self._people.by_token(token, here)) is not None:
            return found
        self._addresses.check(here)
        if self._is_read_token(token):
            return self._reader(here)
        self._addresses.failed(here)
        raise ProblemError(401, "The token is neither the read token of this city view nor a valid API token.")

    def _reader(self, here: str) -> Caller:
        alone = not self._people.on
        return Caller("the read token", Role.VIEWER, here, scope="write" if alone else "read", alone=alone)

    def _is_read_token(self, token: str) -> bool:
        return self._read is not None and secret.same(token, self._read.get_secret_value())

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


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def origin(request: Request) -> Origin:
    """From where someone signs in."""
    return Origin(address(request), request.headers.get("user-agent", ""))


def refuse_forged(caller: Caller, request: Request) -> None:
    """Lets pass what another site cannot have made the browser send.

    Raises:
        ProblemError: 403.
    """
    if caller.csrf is None or request.method in rights.READING:
        return
    if not secret.same(request.headers.get("x-csrf-token", ""), caller.csrf):
        raise ProblemError(403, "The header X-CSRF-Token does not hold what GET /api/v1/session gives as csrf.")
