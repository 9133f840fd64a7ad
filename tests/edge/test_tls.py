"""Files that are renewed while they are in use."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from gateway.edge.tls import Tls, TlsError, context

Step = Callable[[], object]


class Files:
    """What a renewal leaves behind."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew()

    @property
    def all(self) -> tuple[Path, Path, Path]:
        return self.ca, self.cert, self.key

    def renew(self, *, cert: bool = True, key: bool = True) -> None:
        made = self.authority.issue_cert("gw")
        if cert:
            self.cert.write_bytes(made.cert_chain_pems[0].bytes())
        if key:
            self.key.write_bytes(made.private_key_pem.bytes())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_context_is_the_same_until_the_files_are_renewed(files: Files) -> None:
    tls = Tls("[mqtt]", *files.all)
    first = tls.current()
    assert tls.current() is first
    files.renew()
    second = tls.current()
    assert second is not first
    assert tls.current() is second


def test_a_renewal_seen_half_way_leaves_the_old_context_in_use(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    tls = Tls("[mqtt]", *files.all)
    first = tls.current()
    made = files.authority.issue_cert("gw")
    whole = made.cert_chain_pems[0].bytes()
    steps: tuple[Step, ...] = (
        files.cert.unlink,
        lambda: files.cert.write_bytes(b""),
        lambda: files.cert.write_bytes(whole[:200]),
        lambda: files.cert.write_bytes(whole),  # the key is still the old one
        lambda: files.key.write_bytes(b"-----BEGIN"),
    )
    for step in steps:
        step()
        assert tls.current() is first
        assert tls.current() is first
    assert 1 <= len(caplog.records) <= len(steps)
    assert "[mqtt]" in caplog.text
    assert str(files.cert) in caplog.text
    files.key.write_bytes(made.private_key_pem.bytes())
    caplog.set_level(logging.INFO)
    assert tls.current() is not first
    assert "renewed" in caplog.text


def test_a_broken_file_is_logged_once(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    tls = Tls("[mqtt]", *files.all)
    tls.current()
    for text in (b"", b"nothing", b"still nothing"):
        files.ca.write_bytes(text)
        tls.current()
    assert len(caplog.records) == 1


def test_files_that_were_never_usable_are_tried_again(files: Files) -> None:
    files.renew(key=False)
    tls = Tls("[mqtt]", *files.all)
    for _ in range(2):
        with pytest.raises(TlsError, match="key values mismatch"):
            tls.current()
    files.renew()
    assert tls.current() is tls.current()


@pytest.mark.parametrize("broken", ["ca", "cert", "key"])
def test_an_absent_file_is_named_with_its_setting(files: Files, broken: str) -> None:
    path: Path = getattr(files, broken)
    path.unlink()
    with pytest.raises(TlsError) as caught:
        context(*files.all)
    assert str(caught.value).startswith(f"tls_{broken} = {path}: No such file")


@pytest.mark.parametrize("broken", ["ca", "cert", "key"])
def test_a_file_with_something_else_is_named_and_not_shown(files: Files, broken: str) -> None:
    path: Path = getattr(files, broken)
    path.write_bytes(b"the secret of " + files.key.read_bytes()[40:80])
    with pytest.raises(TlsError) as caught:
        context(*files.all)
    assert f"tls_{broken} = {path}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_without_a_certificate_is_a_mistake(files: Files) -> None:
    with pytest.raises(TlsError, match="Set tls_cert too"):
        context(files.ca, None, files.key)


def test_nobody_is_asked_for_a_passphrase(files: Files) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(kind, form, serialization.BestAvailableEncryption(b"hidden")))
    with pytest.raises(TlsError, match="the key is encrypted"):
        context(*files.all)
