"""The way of one agent to the message server: passes bytes on, or does what a bad network does.

    cut        everybody is hung up on, and whoever comes is hung up on at once
    half open  connections stand and carry nothing, for ever; new ones do so until it is mended
    stalled    nothing is passed on for a while, and then all of it

It knows nothing of TLS, which passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

__all__ = ["Relay", "Way"]

Way = Literal["open", "cut", "half open", "stalled"]

_PIECE_BYTES = 64 * 1024


class _Link:
    """One connection through the relay, and that which was made for it."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.is_dead = False
        """Carries nothing any more, and stands."""


class Relay:
    """Listens on a port of its own, and leads to the port *to* of this machine."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._way: Way = "open"
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [link.task for link in self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _round in range(20):  # of the loop: by then what was aborted is closed
            await asyncio.sleep(0)

    def lead_to(self, port: int) -> None:
        """Lead whoever comes from now on to that port of this machine."""
        self._to = port

    def become(self, way: Way) -> None:
        """Be so from now on. What was half open stays dead, also when this becomes open again."""
        self._way = way
        if way == "stalled":
            self._flows.clear()
        else:
            self._flows.set()
        for link in self._links:
            if way == "cut":
                link.task.cancel()
            elif way == "half open":
                link.is_dead = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task)
        link.is_dead = self._way == "half open"
        self._links.add(link)
        try:
            if self._way != "cut":
                await self._carry(link, reader, writer)
        except (asyncio.CancelledError, OSError):
            pass  # it was cut, or there is no server at the moment
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _carry(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to)
        ways = [
            asyncio.create_task(self._pass_on(link, reader, back_writer)),
            asyncio.create_task(self._pass_on(link, back_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back_writer.transport.abort()  # first: who waits may be cancelled once more
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._flows.wait()
                if not link.is_dead:
                    writer.write(piece)
                    await writer.drain()
        if link.is_dead:
            # Neither end learns that the other has gone.
            await asyncio.Event().wait()
