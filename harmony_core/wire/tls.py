"""How both ends of the bus verify the server: the fleet's own authority is pinned, and no other counts.

Nothing of the machine's own store of authorities is used, so nobody whom a browser trusts can stand between
a device and its control plane.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import lru_cache
from typing import Any
from urllib.parse import ParseResult

from harmony_core.errors import ConfigError

__all__ = ["PinnedTransport", "describe_tls_error", "verifying_context"]

_SHUTDOWN_S = 2.0
"""A peer that has gone does not say goodbye; it is waited for no longer than this."""
_UNACKNOWLEDGED_S = 30
"""A connection is given up once what was sent by it is not acknowledged for so long. By itself TCP sends it
again ever more seldom: who was away for two minutes would be waited for for two more."""
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name."""


@lru_cache(maxsize=4)
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


def describe_tls_error(error: ssl.SSLError) -> str:
    """Return why a server was not believed, in words."""
    verified = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
    return verified or (error.reason or str(error)).lower().replace("_", " ")


class PinnedTransport:
    """What nats-py's `TcpTransport` is to do instead, at both ends of the bus: TLS from the first byte on.

    To be mixed in before it. nats-py itself begins in clear and has asyncio go on in TLS; then it waits for
    ever for the end of a connection whose handshake failed.
    """

    _io_reader: asyncio.StreamReader | None
    _io_writer: asyncio.StreamWriter | None
    _bare_io_reader: asyncio.StreamReader | None
    _bare_io_writer: asyncio.StreamWriter | None

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._context = context
        self._server_name = server_name

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Return once *uri* has proved to be the server that is meant; else `ssl.SSLError`, `OSError`."""
        async with asyncio.timeout(connect_timeout):
            streams = await asyncio.open_connection(
                uri.hostname,
                uri.port,
                limit=buffer_size,
                ssl=self._context,
                server_hostname=self._server_name,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            streams[1].get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_S * 1000
            )
        self._io_reader, self._io_writer = self._bare_io_reader, self._bare_io_writer = streams

    async def connect_tls(self, *_: Any, **__: Any) -> None:
        """Do nothing: the connection is TLS from its start."""
