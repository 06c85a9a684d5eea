"""nats-py's client, in TLS with our own server, bounded in what that may send, and whole or not at all."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError, UnexpectedEOF
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from harmony_core.wire.bounded import BoundedParser
from harmony_core.wire.tls import PinnedTransport

__all__ = ["BoundedClient"]


_CLOSED_WITHIN_S = 5.0
"""What is still to be sent, and then the goodbye, are waited for no longer than this."""


class BoundedClient(Client):
    """A `Client` that speaks with nobody but *server_name*, as *context* verifies it.

    It ends a connection on which too much is announced. Connected once, it is never connected again.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__()
        self._ps = _BoundedParser(self)
        self.context = context
        self._server_name = server_name
        self.ended = asyncio.Event()
        """Set as soon as the connection ends, by whomever."""

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Report the end of the connection first, and end within moments.

        nats-py reports it last, and not at all where a lost connection still had something to send. Nor would
        it end its subscriptions then.
        """
        self.ended.set()
        left, self._pending, self._pending_data_size = self._pending, [], 0
        transport = self._transport if isinstance(self._transport, _TlsTransport) else None
        try:
            if transport is not None:
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(_CLOSED_WITHIN_S):
                        await transport.send(left)
            # A connection that was cut while it stood half-way may complain of just that.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSED_WITHIN_S):
                    await super()._close(status, do_cbs)
        finally:
            if transport is not None:
                transport.abort()

    async def _connect_to_server(self, s: Srv) -> None:
        transport = _TlsTransport(self.context, self._server_name)
        self._transport = transport
        await transport.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])

    async def _process_pong(self) -> None:
        """Accept a PONG also where nobody waits for it any more: nats-py itself would end the connection."""
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

    async def send(self, pieces: Sequence[bytes]) -> None:
        """Return once what was published is on its way. Raise `OSError` where the connection is lost."""
        if pieces and self._io_writer is not None:
            self._io_writer.writelines(pieces)
            await self._io_writer.drain()

    def abort(self) -> None:
        """End the connection now, whatever was still to be sent. Idempotent."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()


class _BoundedParser(BoundedParser, Parser):
    """nats-py's, with a bound."""

    awaits_line = AWAITING_CONTROL_LINE
    refusal = ProtocolError
