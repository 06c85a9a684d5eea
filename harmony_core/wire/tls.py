"""How both ends of the bus verify the server: the fleet's own authority is pinned, and no other counts.

Nothing of the machine's own store of authorities is used, so nobody whom a browser trusts can stand between
a device and its control plane.
"""

from __future__ import annotations

import asyncio
import ssl

from harmony_core.errors import ConfigError

__all__ = ["open_stream", "verifying_context"]

_SHUTDOWN_S = 2.0
"""A peer that has gone does not say goodbye; it is waited for no longer than this."""
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name."""


def verifying_context(authority: str) -> ssl.SSLContext:
    """Return how to speak TLS with a server whose certificate was issued by *authority*, in PEM.

    Dates in certificates are not looked at: a Pi has no clock before it has a network, and one that was
    away for years must be able to come back. What ends an authority is its replacement on the devices.
    `ConfigError` where *authority* holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME) | ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            "this is no certificate of an authority; write it in PEM, from -----BEGIN CERTIFICATE----- to "
            "-----END CERTIFICATE-----"
        ) from error
    return context


async def open_stream(
    host: str | None,
    port: int | None,
    context: ssl.SSLContext,
    server_name: str,
    *,
    limit_bytes: int,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to *host*, once it has proved to be *server_name*; else `ssl.SSLError`, `OSError`.

    Spoken from the first byte on. A client library that begins in clear and then asks asyncio to go on in TLS
    waits for ever for the end of a connection whose handshake failed.
    """
    return await asyncio.open_connection(
        host,
        port,
        limit=limit_bytes,
        ssl=context,
        server_hostname=server_name,
        ssl_shutdown_timeout=_SHUTDOWN_S,
    )
