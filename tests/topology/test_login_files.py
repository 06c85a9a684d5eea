"""What a login at a Wi-Fi network is proven by: what cannot work is told before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from harmony_core.resources import Enterprise
from harmony_pi_topology.network.login_files import find_login_problem

CA, CERTIFICATE, KEY = "/etc/ca.pem", "/etc/pi.pem", "/etc/pi.key"
PASSWORD = "battery staple"
LOGIN = Enterprise.model_validate(
    {
        "eap": "tls",
        "identity": "pi-7",
        "ca_certificate": CA,
        "client_certificate": CERTIFICATE,
        "private_key": KEY,
    }
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A device with a CA, a certificate of it, and its key."""
    (tmp_path / "etc").mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("pi-7.example.org")
    put(tmp_path, CA, authority.cert_pem.bytes())
    put(tmp_path, CERTIFICATE, issued.cert_chain_pems[0].bytes())
    put(tmp_path, KEY, issued.private_key_pem.bytes())
    return tmp_path


def put(root: Path, path: str, content: bytes) -> None:
    (root / path.lstrip("/")).write_bytes(content)


def read(root: Path, path: str) -> bytes:
    return (root / path.lstrip("/")).read_bytes()


def lock(root: Path, password: str) -> None:
    key = load_pem_private_key(read(root, KEY), None)
    encryption = BestAvailableEncryption(password.encode())
    put(root, KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def test_what_belongs_together_is_in_order(root: Path) -> None:
    assert find_login_problem(root, LOGIN, None) is None
    lock(root, PASSWORD)
    assert find_login_problem(root, LOGIN, PASSWORD) is None


def test_several_authorities_and_a_chain_are_in_order(root: Path) -> None:
    put(root, CA, trustme.CA().cert_pem.bytes() + read(root, CA))
    put(root, CERTIFICATE, read(root, CERTIFICATE) + read(root, CA))
    assert find_login_problem(root, LOGIN, None) is None


def test_how_strong_a_key_has_to_be_is_the_servers_business(root: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-7")])
    builder = x509.CertificateBuilder(name, name, weak.public_key(), x509.random_serial_number())
    now = datetime.now(UTC)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    put(root, CERTIFICATE, builder.sign(weak, hashes.SHA256()).public_bytes(Encoding.PEM))
    put(root, KEY, weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert find_login_problem(root, LOGIN, None) is None


def _no_pem(root: Path, path: str) -> None:
    put(root, path, b"PEM\n")


def _nothing(root: Path, path: str) -> None:
    put(root, path, b"")


def _cut_off(root: Path, path: str) -> None:
    put(root, path, read(root, path)[:-200])


def _directory(root: Path, path: str) -> None:
    (root / path.lstrip("/")).unlink()
    (root / path.lstrip("/")).mkdir()


def _pipe(root: Path, path: str) -> None:
    (root / path.lstrip("/")).unlink()
    os.mkfifo(root / path.lstrip("/"))


def _endless(root: Path, path: str) -> None:
    (root / path.lstrip("/")).unlink()
    (root / path.lstrip("/")).symlink_to("/dev/zero")


def _large(root: Path, path: str) -> None:
    os.truncate(root / path.lstrip("/"), 5 * 1024 * 1024)


def _gone(root: Path, path: str) -> None:
    (root / path.lstrip("/")).unlink()


@pytest.mark.parametrize("path", [CA, CERTIFICATE, KEY])
@pytest.mark.parametrize(
    "harm", [_no_pem, _nothing, _cut_off, _directory, _pipe, _endless, _large, _gone]
)
def test_what_is_no_certificate_or_key_is_named(
    root: Path, path: str, harm: Callable[[Path, str], None]
) -> None:
    harm(root, path)
    problem = find_login_problem(root, LOGIN, None)
    assert problem is not None
    assert path in problem


@pytest.mark.parametrize("password", [None, "", "another"])
def test_a_key_that_is_not_unlocked_is_named_and_its_password_is_not(
    root: Path, password: str | None
) -> None:
    lock(root, PASSWORD)
    problem = find_login_problem(root, LOGIN, password)
    assert problem is not None
    assert KEY in problem
    assert "another" not in problem


@pytest.mark.parametrize("is_locked", [False, True])
def test_a_password_that_is_too_long_for_openssl_is_told(root: Path, is_locked: bool) -> None:
    password = "é" * 513
    if is_locked:
        lock(root, PASSWORD)
    problem = find_login_problem(root, LOGIN, password)
    if not is_locked:  # OpenSSL asks for none
        assert problem is None
        return
    assert problem is not None
    assert "private_key_password does not unlock it; correct one" in problem
    assert password not in problem


@pytest.mark.parametrize("path", [CA, CERTIFICATE])
def test_what_only_revokes_certificates_is_none(root: Path, path: str) -> None:
    key = load_pem_private_key(read(root, KEY), None)
    assert isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-7")])
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(name, now, now + timedelta(days=1))
    put(root, path, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert find_login_problem(root, LOGIN, None) == (
        f"{path} holds no certificate; give one in PEM, which begins with BEGIN CERTIFICATE"
    )


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_a_key_of_another_certificate_is_told(root: Path, key_type: trustme.KeyType) -> None:
    other = trustme.CA().issue_cert("pi-8.example.org", key_type=key_type)
    put(root, KEY, other.private_key_pem.bytes())
    problem = find_login_problem(root, LOGIN, None)
    assert (
        problem
        == f"the key {KEY} is not that of the certificate {CERTIFICATE}; give both of one pair"
    )
