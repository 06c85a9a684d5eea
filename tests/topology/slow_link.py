"""A slow way to a registry: passes bytes on, so many a second and no more."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from tests.box import Box

__all__ = ["SlowLink"]

_PIECE_BYTES = 16 * 1024


class SlowLink:
    """Listens on every address of this process; knows nothing of TLS, which passes through."""

    def __init__(self, host: str, *, bytes_per_s: float) -> None:
        self._address, _, self._port = host.partition(":")
        self._bytes_per_s = bytes_per_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.host = ""
        """What to ask for in place of the registry's own name."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", 0)
        self.host = f"{self._address}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def make_known_to(self, box: Box, authority: Path) -> None:
        """Let *box*'s podman trust the registry under this name too."""
        box.write(f"/etc/containers/certs.d/{self.host}/ca.crt", authority.read_bytes())

    @property
    def is_idle(self) -> bool:
        """Whether nobody is connected."""
        return not self._tasks

    async def quiet(self) -> None:
        """Wait until nobody is connected."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back_reader, back_writer = await asyncio.open_connection(self._address, int(self._port))
        ways = [
            asyncio.create_task(self._pass_on(reader, back_writer)),
            asyncio.create_task(self._pass_on(back_reader, writer, self._bytes_per_s)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            back_writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_per_s: float = 0
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
                if bytes_per_s:
                    await asyncio.sleep(len(piece) / bytes_per_s)
