"""nats-py's client, with a bound on what a server may send before anybody can verify it.

nats-py gathers as many bytes as a server has announced for one message, and any line without an end. Whoever
answers in the server's place could fill the memory of a device. Here the connection ends as soon as more is
announced than Harmony ever puts on the bus: what is read until then is at most that, and one read more.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging

from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

__all__ = ["LINE_MAX_BYTES", "MESSAGE_MAX_BYTES", "BoundedClient"]

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 1024 * 1024
"""nats-server's own default; the largest of ours is 352 KiB."""
LINE_MAX_BYTES = 64 * 1024
"""A server tells of itself, and of all of its cluster, in one line."""


class BoundedClient(Client):
    """A `Client` that ends a connection on which too much is announced."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _BoundedParser(self)


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
