"""The city's single sign-on: OpenID Connect by authorization code with PKCE, state and nonce.

What is under way is kept in memory for ten minutes; the browser holds a cookie without which nobody can end it. The
provider is asked for its addresses each time, so that one that does not answer is noticed before the browser is sent
there.
"""

import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.city.auth import secret
from gateway.city.auth.people import FAILED, LATE, UNREACHABLE, Claimed, SignOnError
from gateway.city.auth.rights import Role
from gateway.city.auth.throttle import Throttle
from gateway.config import OidcSection

_LOG = logging.getLogger(__name__)
_FLOW_S = 600
_FLOWS = 1000
_TIMEOUT_S = 5.0
_STRONGEST = (Role.ADMINISTRATOR, Role.DISPATCHER, Role.OPERATOR, Role.DEPARTMENT, Role.VIEWER)
_ASYMMETRIC = ("RS", "PS", "ES", "Ed")  # neither unsigned, nor by a secret that both know


def of(config: OidcSection) -> "SingleSignOn | None":
    """The single sign-on that a configuration has."""
    return None if config.issuer is None else SingleSignOn(config)


class _Flow(NamedTuple):
    """A sign-in that is under way."""

    provider: Any
    state: str
    nonce: str
    verifier: str
    until: float


class SingleSignOn:
    """Asks the provider who somebody is.

    Args:
        config: The section ``[oidc]``, with an issuer.
    """

    def __init__(self, config: OidcSection) -> None:
        self.title = config.title
        self._config = config
        self._issuer = (config.issuer or "").rstrip("/")
        self._back = f"{config.url}/api/v1/oidc/callback"
        self._attempts = Throttle(30, 60.0, "attempts to sign in from this address")
        self._flows: dict[str, _Flow] = {}

    async def begin(self, address: str) -> tuple[str, str]:
        """Where the browser at an address goes to sign in, and what its cookie holds until it is back.

        Raises:
            ProblemError: 429 after too many attempts.
            SignOnError: If the provider does not answer.
        """
        self._attempts.check(address)
        self._attempts.failed(address)
        provider = await self._provider()
        made = await provider.create_authorization_url(self._back)
        handle, now = secret.make(), time.monotonic()
        self._flows = {key: flow for key, flow in self._flows.items() if flow.until > now}
        while len(self._flows) >= _FLOWS:
            del self._flows[next(iter(self._flows))]
        flow = _Flow(provider, made["state"], made["nonce"], made["code_verifier"], now + _FLOW_S)
        self._flows[secret.digest(handle)] = flow
        return str(made["url"]), handle

    async def end(self, handle: str, state: str, code: str, *, refused: bool) -> Claimed:
        """Who somebody is that the provider sent back; the attempt is used up.

        Raises:
            SignOnError: If they are not let in.
        """
        flow = self._flows.pop(secret.digest(handle), None)
        if refused:
            raise SignOnError(FAILED)
        if flow is None or flow.until <= time.monotonic() or not secret.same(flow.state, state):
            raise SignOnError(LATE)
        try:
            token = await flow.provider.fetch_access_token(self._back, code=code, code_verifier=flow.verifier)
            claims = await self._claims(flow, token)
        except Exception as error:  # noqa: BLE001 - a provider may answer anything
            _LOG.warning("single sign-on: %s", _reason(error))
            raise SignOnError(UNREACHABLE if _is_of_link(error) else FAILED) from None
        return self.claimed(claims)

    async def farewell(self) -> str | None:
        """Where a browser goes to sign out of the single sign-on too; None if the provider has no such place."""
        try:
            provider = await self._provider()
        except SignOnError:
            return None
        if not provider.server_metadata.get("end_session_endpoint"):
            return None
        address = await provider.create_logout_url(f"{self._config.url}/", client_id=self._config.client_id)
        return str(address["url"])

    def claimed(self, claims: Mapping[str, Any]) -> Claimed:
        """What the provider's claims make of a person."""
        name = _text(_at(claims, self._config.name_claim)) or str(claims["sub"])
        return Claimed(
            subject=f"{self._issuer} {claims['sub']}",
            name=name,
            title=_text(claims.get("name")) or name,
            role=self._role(claims),
            follows=self._config.role_claim is not None,
            districts=_list(claims, self._config.districts_claim),
            departments=_list(claims, self._config.departments_claim),
        )

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        said = {self._config.roles.get(value) for value in _list(claims, self._config.role_claim) or ()}
        mapped = next((role for role in _STRONGEST if role in said), None)
        if mapped is None and self._config.default_role != "none":
            return Role(self._config.default_role)
        return mapped

    async def _claims(self, flow: _Flow, token: Mapping[str, Any]) -> Mapping[str, Any]:
        client = self._config.client_id
        options = {
            "iss": {"essential": True, "values": [flow.provider.server_metadata["issuer"]]},
            "aud": {"essential": True, "values": [client]},
            "sub": {"essential": True},
            "exp": {"essential": True},
        }
        claims: Mapping[str, Any] | None = await flow.provider.parse_id_token(token, flow.nonce, options)
        if claims is None:
            msg = "the provider sent no ID token"
            raise ValueError(msg)
        if "userinfo_endpoint" in flow.provider.server_metadata:
            more = await flow.provider.userinfo(token=token)
            if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
                msg = "userinfo is of somebody else than the ID token"
                raise ValueError(msg)
            claims = {**more, **claims}
        return claims

    async def _provider(self) -> Any:  # noqa: ANN401 - authlib has no types
        from authlib.integrations.starlette_client import StarletteOAuth2App  # noqa: PLC0415 - takes memory

        kept = self._config.client_secret
        options: dict[str, Any] = {
            "scope": self._config.scope,
            "code_challenge_method": "S256",
            "timeout": _TIMEOUT_S,
        }
        if self._config.tls_ca is not None:
            options["verify"] = ssl.create_default_context(cafile=str(self._config.tls_ca))
        provider = StarletteOAuth2App(
            None,
            "oidc",
            client_id=self._config.client_id,
            client_secret=None if kept is None else kept.get_secret_value(),
            server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
            client_kwargs=options,
        )
        try:
            metadata = await provider.load_server_metadata()
        except Exception as error:  # noqa: BLE001 - a provider may answer anything
            _LOG.warning("single sign-on: %s: %s", self._issuer, _reason(error))
            raise SignOnError(UNREACHABLE) from None
        if str(metadata.get("issuer", "")).rstrip("/") != self._issuer:
            _LOG.warning("single sign-on: %s calls itself %s", self._issuer, metadata.get("issuer"))
            raise SignOnError(FAILED)
        known = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [name for name in known if name.startswith(_ASYMMETRIC)]
        return provider


def _is_of_link(error: Exception) -> bool:
    import httpx2  # noqa: PLC0415 - as authlib, which it comes with

    return isinstance(error, httpx2.TransportError) or (
        isinstance(error, httpx2.HTTPStatusError) and error.response.is_server_error
    )


def _reason(error: Exception) -> str:
    """What is said of an error in the log: neither a code nor a token."""
    return getattr(error, "error", "") or type(error).__name__


def _at(claims: Mapping[str, Any], path: str | None) -> object:
    """A claim by its name, or by a path such as ``realm_access.roles``."""
    if path is None:
        return None
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(said: object) -> str:
    return said.strip() if isinstance(said, str) else ""


def _list(claims: Mapping[str, Any], path: str | None) -> list[str] | None:
    """The texts of a claim, one or several; None if nobody asks for it."""
    if path is None:
        return None
    said = _at(claims, path)
    values: Sequence[object] = said if isinstance(said, list) else [said]
    return [value for value in values if isinstance(value, str) and value]
