"""nats-py's client, in TLS with the fleet's own server and nobody else; what is refused fails at once, and
a connection ends on which too much is announced."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from nats import errors
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from harmony_core.wire.bounded import BoundedParser
from harmony_core.wire.tls import PinnedTransport

__all__ = ["Refused", "TlsClient"]


class Refused(errors.Error):
    """The server does not allow it to this key."""


class TlsClient(Client):
    """A `Client` that speaks with nobody but *server_name*, as *context* verifies it."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._ps = _BoundedParser(self)
        self._pinned = context, server_name
        self.refused = ""
        """What the server has refused last, in its own words. Empty while it has refused nothing."""

    def note_refusal(self, error: Exception) -> None:
        """End what waits for an answer with `Refused`: the server does not answer a request that it refuses.

        The server does not say which request it was. But who is refused anything may do little, and does one
        thing at a time.
        """
        self.refused = str(error)
        waiting = cast("dict[str, Any]", self._resp_map)
        for answer in list(waiting.values()):
            if not answer.done():
                answer.set_exception(Refused(self.refused))

    async def _connect_to_server(self, s: Srv) -> None:
        transport = _TlsTransport(*self._pinned)
        self._transport = transport
        await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_pong(self) -> None:
        """Accept a PONG also where nobody waits for it any more: nats-py itself would receive nothing after
        it."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


class _TlsTransport(PinnedTransport, TcpTransport):
    """nats-py's, in TLS with the server that is meant."""


class _BoundedParser(BoundedParser, Parser):
    """nats-py's, with a bound."""

    awaits_line = AWAITING_CONTROL_LINE
    refusal = errors.ProtocolError
