"""TLS from files that are renewed while the gateway runs.

A certificate lasts weeks, a gateway runs for years: whoever connects asks :class:`Tls` for the context, and has a new
one as soon as the files are new and whole. A renewal writes one file after the other; until they fit together, the old
context stays in use.
"""

import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("citygate.tls")


class TlsError(Exception):
    """The files cannot be used; the message names the setting and the file, and says what to do."""


def context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Makes a client's context that verifies the server and its name.

    Args:
        ca: The only CA that is trusted; None for the system's.
        cert: Client certificate with its chain; None for none.
        key: The certificate's key; None if ``cert`` has it too.

    Returns:
        The context.

    Raises:
        TlsError: If a file is absent or unreadable, holds something else, or the key is not the certificate's.
    """
    for name, path in _named(ca, cert, key):
        try:
            path.open("rb").close()
        except OSError as error:
            msg = f"{name} = {path}: {error.strerror}. The file must be readable by this user"
            raise TlsError(msg) from error
    if key and not cert:
        msg = f"tls_key = {key}: a key without a certificate. Set tls_cert too"
        raise TlsError(msg)
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # also ssl.SSLError
        msg = f"tls_ca = {ca}: {_reason(error)}. It must hold a CA certificate (PEM)"
        raise TlsError(msg) from error
    if cert:
        files = ", ".join(f"{name} = {path}" for name, path in _named(None, cert, key))
        try:
            made.load_cert_chain(cert, key, _no_passphrase)
        except _EncryptedError as error:
            msg = (
                f"tls_key = {key or cert}: the key is encrypted. Nobody is there to type: store it without a passphrase"
            )
            raise TlsError(msg) from error
        except (OSError, ValueError) as error:
            msg = f"{files}: {_reason(error)}. They must hold a certificate and its key (PEM)"
            raise TlsError(msg) from error
    return made


class Tls:
    """The context of some files, made anew whenever they have changed.

    Args:
        owner: Whose files they are, for the log, such as ``[mqtt]``.
        ca: As for :func:`context`.
        cert: As for :func:`context`.
        key: As for :func:`context`.
    """

    def __init__(self, owner: str, ca: Path | None, cert: Path | None, key: Path | None) -> None:
        self._owner = owner
        self._files = ca, cert, key
        self._stamp: object = None
        self._context: ssl.SSLContext | None = None
        self._error: TlsError | None = None

    def current(self) -> ssl.SSLContext:
        """The context of the files as they are, or were when they could last be used; some stats if nothing changed.

        Returns:
            The same object as before, unless the files are new: then connect again.

        Raises:
            TlsError: While there never was a usable one.
        """
        stamp = [_stamp(path) for _, path in _named(*self._files)]
        if stamp != self._stamp:
            self._stamp = stamp  # from before the reading: a change meanwhile is seen the next time
            self._read()
        if self._context is None:
            raise self._error or TlsError(self._owner)
        return self._context

    def _read(self) -> None:
        before = self._error
        try:
            fresh = context(*self._files)
        except TlsError as error:
            self._error = error
            if self._context and not (before and str(before) == str(error)):
                log.warning(
                    "%s: the new TLS files cannot be used yet, the old ones stay in use: %s", self._owner, error
                )
            return
        if self._context:
            log.info("%s: the TLS files were renewed", self._owner)
        self._context, self._error = fresh, None


class _EncryptedError(Exception):
    """OpenSSL asks for a passphrase."""


def _no_passphrase() -> str:
    raise _EncryptedError


def _named(ca: Path | None, cert: Path | None, key: Path | None) -> Iterator[tuple[str, Path]]:
    for name, path in (("tls_ca", ca), ("tls_cert", cert), ("tls_key", key)):
        if path:
            yield name, path


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__


__all__ = ["Tls", "TlsError", "context"]
