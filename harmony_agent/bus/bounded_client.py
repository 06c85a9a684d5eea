"""nats-py's client, in TLS with our own server, with a bound on what that may send, and whole or not at all.

nats-py gathers as many bytes as a server has announced for one message, and any line without an end. Whoever
answers in the server's place could fill the memory of a device. Here the connection ends as soon as more is
announced than Harmony ever puts on the bus: what is read until then is at most that, and one read more.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
import ssl

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError, UnexpectedEOF
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from harmony_core.wire.tls import PinnedTransport

__all__ = ["LINE_MAX_BYTES", "MESSAGE_MAX_BYTES", "BoundedClient"]

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 1024 * 1024
"""nats-server's own default; the largest of ours is 352 KiB."""
LINE_MAX_BYTES = 64 * 1024
"""A server tells of itself, and of all of its cluster, in one line."""


class BoundedClient(Client):
    """A `Client` that speaks with nobody but *server_name*, as *context* verifies it.

    It ends a connection on which too much is announced.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._ps = _BoundedParser(self)
        self.context = context
        self._server_name = server_name

    async def _connect_to_server(self, s: Srv) -> None:
        transport = _TlsTransport(self.context, self._server_name)
        self._transport = transport
        await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_pong(self) -> None:
        """Take a PONG also where nobody waits for it any more: nats-py by itself would end the connection."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    # nats-py ends a connection for an OSError alone. Of anything else, such as a lack of memory, each of
    # these three ends by itself, and what is left of the connection neither hears nor says anything any more.

    async def _read_loop(self) -> None:
        await super()._read_loop()
        await self._process_op_err(UnexpectedEOF())

    async def _flusher(self) -> None:
        try:
            await super()._flusher()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is made anew
            await self._process_op_err(error)

    async def _ping_interval(self) -> None:
        try:
            await super()._ping_interval()
        except Exception as error:  # noqa: BLE001 - as above
            await self._process_op_err(error)


class _TlsTransport(PinnedTransport, TcpTransport):
    """nats-py's, in TLS with the server that is meant."""


class _BoundedParser(Parser):
    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if self.state == AWAITING_CONTROL_LINE:
            what, size_bytes, most_bytes = "a line of", len(self.buf), LINE_MAX_BYTES
        else:
            what, size_bytes, most_bytes = "a message of", self.needed, MESSAGE_MAX_BYTES
        if size_bytes > most_bytes:
            self.reset()
            log.warning(
                "the server has sent %s %d bytes, at most %d are taken; is it ours? "
                "The connection is ended",
                what,
                size_bytes,
                most_bytes,
            )
            raise ProtocolError(f"more than {most_bytes} bytes")
