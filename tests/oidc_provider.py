"""A provider of OpenID Connect as a process of its own, and a city view that signs people in by it."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CLIENT, SECRET = "citygate", "a secret of the client"
PEOPLE = (
    {"sub": "1", "preferred_username": "lin", "name": "林晓", "groups": ["all", "ops"]},
    {"sub": "2", "preferred_username": "chief", "name": "Chief", "groups": ["ops", "admins"]},
    {"sub": "3", "preferred_username": "guest", "name": "Guest", "groups": ["all"]},
    {"sub": "4", "preferred_username": "admin", "name": "Somebody else", "groups": ["admins"]},
)
"""Whom the provider knows; the last one has the name of a local account."""


class Provider:
    """A provider that runs on this machine."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url, self._process = url, process

    def settings(self, city: str) -> dict[str, object]:
        """The section ``[oidc]`` of a city view at an address."""
        return {
            "issuer": self.url,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "url": city,
            "role_claim": "groups",
            "roles": {"ops": "operator", "admins": "administrator"},
        }

    def know(self, sub: str, **claims: object) -> None:
        """Changes what the provider says of a person."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/users/{sub}", json.dumps(claims).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310

    def stop(self) -> None:
        """Ends the provider."""
        self._process.terminate()
        self._process.wait(10)


@contextlib.contextmanager
def provider(port: int, log: Path) -> Iterator[Provider]:
    """Runs a provider."""
    known = [part for claims in PEOPLE for part in ("--user-claims", json.dumps(claims))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *known]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    found = Provider(f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{found.url}/.well-known/openid-configuration", timeout=2).close()  # noqa: S310
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the provider did not start:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.05)
        yield found
    finally:
        found.stop()
