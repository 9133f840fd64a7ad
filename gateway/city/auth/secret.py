"""Passwords and the secrets of cookies, tokens and links.

A password is kept as argon2id with OWASP's parameters (19 MiB, two passes, one lane), two at a time, so that a flood of
sign-ins takes neither the memory of a small machine nor all of its cores. A random secret of 256 bits needs no slow
hash: SHA-256.
"""

import hashlib
import hmac
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 12
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_AT_ONCE = threading.Semaphore(2)
_NOBODY = _HASHER.hash(secrets.token_urlsafe())


def make() -> str:
    """A new secret."""
    return secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """What is kept of a secret, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compares two secrets in constant time."""
    return hmac.compare_digest(digest(one), digest(other))


def csrf(session: str) -> str:
    """What a page repeats in a header to show that it, and not another site, makes the request."""
    return digest(f"csrf {session}")


def hashed(password: str) -> str:
    """What is kept of a password."""
    with _AT_ONCE:
        return _HASHER.hash(password)


def matches(password: str, kept: str | None) -> bool:
    """Whether a password is the one that is kept; takes as long when none is."""
    with _AT_ONCE:
        try:
            return _HASHER.verify(kept or _NOBODY, password) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def weakness(password: str, name: str) -> str | None:
    """Why a password cannot be taken, if it cannot."""
    if len(password) < SHORTEST:
        return f"A password has at least {SHORTEST} characters."
    if name.lower() in password.lower() or len(set(password)) < 5:  # noqa: PLR2004 - 'aaaaaaaaaaaa', '121212121212'
        return "This password is too easy to guess: it repeats few characters, or has the person's name in it."
    return None
