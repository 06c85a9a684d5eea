"""nats-py's client, in TLS with the fleet's own server and nobody else."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import ParseResult

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport

from harmony_core.wire.tls import open_stream

__all__ = ["TlsClient"]


class TlsClient(Client):
    """A `Client` that speaks with nobody but *server_name*, as *context* verifies it."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._pinned = context, server_name

    async def _connect_to_server(self, s: Srv) -> None:
        transport = _TlsTransport(*self._pinned)
        self._transport = transport
        await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])


class _TlsTransport(TcpTransport):
    """nats-py's transport, in TLS from the first byte on."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pinned = context, server_name

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        async with asyncio.timeout(connect_timeout):
            self._io_reader, self._io_writer = await open_stream(
                uri.hostname, uri.port, *self._pinned, limit_bytes=buffer_size
            )
        self._bare_io_reader, self._bare_io_writer = self._io_reader, self._io_writer

    async def connect_tls(self, *_: Any, **__: Any) -> None:
        """It is."""
