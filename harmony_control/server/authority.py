"""The fleet's own authority, and the certificate with which the embedded server proves who it is.

    ca.pem, ca.key          made once; devices and operators pin ca.pem
    server.pem, server.key  issued by it, again whenever they are missing or not of this authority

Elliptic curves (P-256), which every TLS stack has, and no end within a human life: who verifies does not
look at dates (see `harmony_core.wire.tls`), and others should not stumble over them either.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harmony_control.store.home import write_whole
from harmony_core.errors import ConfigError
from harmony_core.wire.names import SERVER_NAME
from harmony_core.wire.tls import verifying_context

if TYPE_CHECKING:
    from pathlib import Path

    from harmony_control.store.home import Home

__all__ = ["check_certificate", "ensure_certificate", "read_server_name"]

_VALID_DAYS = 100 * 365
_HANDSHAKE_TURNS = 3
"""Of each end: a hello and its answer, and what is sent after it."""


def ensure_certificate(home: Home, fleet: str) -> None:
    """Make authority and certificate of the server in *home*, as far as they are missing. Idempotent.

    `ConfigError` where what is there cannot be read, or only one half of the authority is left.
    """
    # Cut off between the two at its first start, it has a key that nobody trusts yet.
    is_begun = home.authority_key.exists() and home.control_toml.exists()
    if not (home.authority.exists() or is_begun):
        _make_authority(home, fleet)
    authority, key = _read_certificate(home.authority), _read_key(home.authority_key)
    if authority.public_key() != key.public_key():
        raise ConfigError(
            f"{home.authority_key} is not the key of {home.authority}; put back a copy of both, or move both "
            "away and give every device a new agent.toml"
        )
    if not _is_issued(home, authority):
        _issue(home, authority, key)


def read_server_name(certificate: Path) -> str:
    """Return the first name in a certificate that somebody else issued. `ConfigError` if there is none."""
    found = _read_certificate(certificate).extensions
    try:
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    for name in names.get_values_for_type(x509.DNSName):
        if not name.startswith("*"):
            return name
    raise ConfigError(
        f"{certificate} has no name of a host in it (subjectAltName); have one issued for such a name"
    )


def check_certificate(certificate: Path, key: Path, authority: str, server_name: str) -> None:
    """Return if who pins *authority* (PEM) would accept a server with *certificate* and *key*.

    `ConfigError`, with the reason, where not. Found out by a handshake within this process.
    """
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        serving.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise _unusable(
            certificate, f"with {key}, it is no certificate and its key ({error})"
        ) from error
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    pinning = verifying_context(authority)
    client = pinning.wrap_bio(to_client, to_server, server_hostname=server_name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_HANDSHAKE_TURNS):
            for end in (client, server):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLError as error:
        raise ConfigError(
            f"whoever trusts only the given authority would refuse the certificate {certificate}: {error}; "
            "name the authority that has issued it"
        ) from error


def _make_authority(home: Home, fleet: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Harmony fleet {fleet}")])
    certificate = (
        _begun(name, key.public_key(), issuer=name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: without the certificate nobody trusts it yet.
    _write_key(home.authority_key, key)
    write_whole(home.authority, certificate.public_bytes(Encoding.PEM))


def _issue(
    home: Home, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    certificate = (
        _begun(name, key.public_key(), issuer=authority.subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    _write_key(home.server_key, key)
    write_whole(home.server_certificate, certificate.public_bytes(Encoding.PEM))


def _begun(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, *, issuer: x509.Name
) -> x509.CertificateBuilder:
    # Valid since long ago: whose clock is behind has no reason to complain.
    since = datetime(2000, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + timedelta(days=_VALID_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_issued(home: Home, authority: x509.Certificate) -> bool:
    """Return whether the server has a certificate of *authority*, and the key that goes with it."""
    if not (home.server_certificate.exists() and home.server_key.exists()):
        return False
    certificate = _read_certificate(home.server_certificate)
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return certificate.public_key() == _read_key(home.server_key).public_key()


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, "it is a key of another sort")
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_whole(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _unusable(path: Path, why: object) -> ConfigError:
    return ConfigError(f"{path} cannot be used: {why}; put back a copy of it, or move it away")
