"""A bound on what whoever answers in the server's place may send, at both ends of the bus.

nats-py gathers as many bytes as a server has announced for one message, and any line without an end,
which can fill a machine's memory. Here the connection ends as soon as more is announced than Harmony ever
puts on the bus: what is read until then is at most that, and one read more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

__all__ = ["LINE_MAX_BYTES", "MESSAGE_MAX_BYTES", "BoundedParser"]

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 1024 * 1024
"""nats-server's own default; the largest of ours is 352 KiB, and an account's JWT has as much as this."""
LINE_MAX_BYTES = 64 * 1024
"""A server tells of itself, and of all of its cluster, in one line."""

if TYPE_CHECKING:

    class _Parser:
        """What is used of nats-py's."""

        buf: bytearray
        needed: int
        state: int

        async def parse(self, data: bytes = b"") -> None: ...
        def reset(self) -> None: ...

else:
    _Parser = object


class BoundedParser(_Parser):
    """What nats-py's `Parser` is to do beside. To be mixed in before it."""

    awaits_line: ClassVar[int]
    """Its state while it reads no message."""
    refusal: ClassVar[type[Exception]]
    """For which nats-py ends the connection."""

    async def parse(self, data: bytes = b"") -> None:
        """Parse *data* as nats-py does; then end the connection if it announces too much."""
        await super().parse(data)
        if self.state == self.awaits_line:
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
            raise self.refusal(f"more than {most_bytes} bytes")
