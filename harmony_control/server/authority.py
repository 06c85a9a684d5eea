"""The fleet's own authority, and the certificate with which the embedded server proves who it is.

    ca.pem, ca.key          made once; devices and operators pin ca.pem
    server.pem, server.key  issued by it, again whenever they are missing or not of this authority
    cluster/ca.pem, ca.key  another, by which the servers of a cluster know one another, and nobody else
    cluster/HOST.pem, .key  issued by that one, for one server each
    sites/ca.pem, ca.key    a third, by which servers of sites and the fleet's know one another
    sites/HOST.pem, .key    issued by that one: for the fleet's servers, and, by its name, for each of a site

Elliptic curves (P-256), which every TLS stack has, and no end within a human life: who verifies does not
look at dates (see `harmony_core.wire.tls`), and others should not stumble over them either.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
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
    from harmony_control.store.home import Home

__all__ = [
    "check_certificate",
    "ensure_certificate",
    "ensure_route_certificates",
    "ensure_site_certificates",
    "read_server_name",
]

_VALID_DAYS = 100 * 365
_HANDSHAKE_TURNS = 3
"""Of each end: a hello and its answer, and what is sent after it."""


def ensure_certificate(home: Home, fleet: str) -> None:
    """Make authority and certificate of the server in *home*, where they are missing. Idempotent.

    Raise `ConfigError` where what is there cannot be read, or only one half of the authority is left.
    """
    # Cut off between the two at its first start, it has a key that nobody trusts yet.
    is_begun = home.authority_key.exists() and home.control_toml.exists()
    own = _Pair(home.authority, home.authority_key)
    if not (home.authority.exists() or is_begun):
        _make_authority(own, f"Harmony fleet {fleet}")
    authority = _Authority.read(own, "move both away and give every device a new agent.toml")
    authority.ensure_issued(
        _Pair(home.server_certificate, home.server_key),
        x509.DNSName(SERVER_NAME),
        ExtendedKeyUsageOID.SERVER_AUTH,
    )


def ensure_route_certificates(home: Home, fleet: str, hosts: Iterable[str]) -> None:
    """Make in *home* the missing files with which the servers of a cluster identify themselves to each other:
    an authority, and a certificate for each of *hosts*. Idempotent; raise `ConfigError` as above.

    The authority is another than the one that devices pin: the holder of a certificate of this one is a
    server of the cluster, and may do everything.
    """
    own = _Pair(home.cluster / "ca.pem", home.cluster / "ca.key")
    if not own.certificate.exists():
        _make_authority(own, f"Harmony cluster {fleet}")
    authority = _Authority.read(own, "move both away, export again, and restart every server by it")
    for host in hosts:
        authority.ensure_issued(
            _Pair(home.cluster / f"{host}.pem", home.cluster / f"{host}.key"),
            _name_of(host),
            # Each is the one that connects, or the one that is connected to.
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        )


def ensure_site_certificates(home: Home, fleet: str, names: Iterable[str]) -> None:
    """Make in *home* the missing files with which a site's server, and the fleet's, identify themselves: an
    authority, and a certificate for each of *names*. Idempotent; raise `ConfigError` as above.

    The devices of a site pin this authority, and nobody else does: with the key that is on the server of a
    site, nobody can pose as the fleet's server.
    """
    own = _Pair(home.sites / "ca.pem", home.sites / "ca.key")
    if not own.certificate.exists():
        _make_authority(own, f"Harmony sites {fleet}")
    authority = _Authority.read(
        own, "move both away, export again, and let devices of sites in again"
    )
    for name in names:
        authority.ensure_issued(
            _Pair(home.sites / f"{name}.pem", home.sites / f"{name}.key"),
            _name_of(name),
            ExtendedKeyUsageOID.SERVER_AUTH,
        )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def read_server_name(certificate: Path) -> str:
    """Return the first name in a certificate that somebody else issued. Raise `ConfigError` if there is
    none."""
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
    """Return if a client that pins *authority* (PEM) would accept a server with *certificate* and *key*.

    Raise `ConfigError`, with the reason, where it would not. A handshake within this process finds that out.
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


@attrs.frozen
class _Pair:
    """Where a certificate and its key are, in PEM."""

    certificate: Path
    key: Path


def _make_authority(where: _Pair, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _begun(subject, key.public_key(), issuer=subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: without the certificate nobody trusts it yet.
    _write_key(where.key, key)
    write_whole(where.certificate, certificate.public_bytes(Encoding.PEM))


@attrs.frozen
class _Authority:
    """Who issues certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, where: _Pair, remedy: str) -> _Authority:
        certificate, key = _read_certificate(where.certificate), _read_key(where.key)
        if certificate.public_key() != key.public_key():
            raise ConfigError(
                f"{where.key} is not the key of {where.certificate}; put back a copy of both, or {remedy}"
            )
        return cls(certificate, key)

    def ensure_issued(
        self, where: _Pair, name: x509.GeneralName, *usages: x509.ObjectIdentifier
    ) -> None:
        """Make a certificate of this authority for *name*, and its key, at *where*, unless they are there."""
        if not self._has_issued(where):
            self._issue(where, name, usages)

    def _has_issued(self, where: _Pair) -> bool:
        if not (where.certificate.exists() and where.key.exists()):
            return False
        certificate = _read_certificate(where.certificate)
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return certificate.public_key() == _read_key(where.key).public_key()

    def _issue(
        self, where: _Pair, name: x509.GeneralName, usages: Iterable[x509.ObjectIdentifier]
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(name.value))])
        certificate = (
            _begun(subject, key.public_key(), issuer=self.certificate.subject)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        _write_key(where.key, key)
        write_whole(where.certificate, certificate.public_bytes(Encoding.PEM))


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
