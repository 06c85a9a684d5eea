"""nats-py's client, in TLS with the fleet's own server and nobody else."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import ssl

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport

from harmony_core.wire.tls import PinnedTransport

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


class _TlsTransport(PinnedTransport, TcpTransport):
    """nats-py's, in TLS with the server that is meant."""
