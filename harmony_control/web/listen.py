"""Where `harmony serve` listens. Nobody's password goes over a network in clear."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs

from harmony_control.bus_url import is_loopback
from harmony_core.errors import ConfigError, UsageError

__all__ = ["Listen", "parse_listen", "parse_metrics_listen"]


@attrs.frozen(kw_only=True)
class Listen:
    """An address, and how it is protected."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    is_behind_proxy: bool = False

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it by https: by our certificate, or by that of the proxy."""
        return self.certificate is not None or self.is_behind_proxy

    @property
    def url(self) -> str:
        """Where to look at it; behind a proxy, the proxy knows better."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


def parse_listen(
    address: str, *, certificate: str | None, key: str | None, is_behind_proxy: bool
) -> Listen:
    """Return where to listen. `UsageError` for what is no address, and for one that others reach without
    TLS."""
    host, port = _parse_address(address)
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together; give both")
    if certificate is not None and is_behind_proxy:
        raise UsageError(
            "--behind-proxy means that the proxy has the certificate; leave out --tls-cert"
        )
    if certificate is None and not is_behind_proxy and not _is_own(host):
        raise UsageError(
            f"on {address}, passwords would go over the network in clear. Give --tls-cert FILE and --tls-key "
            "FILE; or, where a proxy in front of it speaks TLS and nobody else reaches this port, "
            "--behind-proxy"
        )
    listen = Listen(
        host=host,
        port=port,
        certificate=Path(certificate) if certificate else None,
        key=Path(key) if key else None,
        is_behind_proxy=is_behind_proxy,
    )
    _refuse_unusable(listen)
    return listen


def parse_metrics_listen(address: str) -> Listen:
    """Return where to listen for Prometheus alone, in clear: numbers are told there, and no password.
    `UsageError` for what is no address."""
    host, port = _parse_address(address)
    return Listen(host=host, port=port)


def _parse_address(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise UsageError(
            f"{address!r} is no address to listen on; write HOST:PORT, such as 127.0.0.1:8080"
        )
    return host, int(port)


def _is_own(host: str) -> bool:
    return is_loopback(f"tls://[{host}]" if ":" in host else f"tls://{host}")


def _refuse_unusable(listen: Listen) -> None:
    """Raise `ConfigError` for a certificate that cannot be served."""
    if listen.certificate is None or listen.key is None:
        return
    for file in (listen.certificate, listen.key):
        if not file.is_file():
            raise ConfigError(f"there is no file {file}")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            listen.certificate, listen.key
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{listen.certificate} with {listen.key} cannot be used: {error}; both must be PEM, the key "
            "readable, without a password, and of that certificate"
        ) from error
