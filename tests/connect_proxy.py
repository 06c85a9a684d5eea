"""A proxy for what speaks TLS, which notes who is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import attrs

__all__ = ["Proxy", "serving_proxy"]


@attrs.define
class Proxy:
    """A proxy that connects by CONNECT, as Squid does."""

    asked: list[str] = attrs.Factory(list[str])
    hosts: Mapping[str, str] = attrs.Factory(dict[str, str])
    """Where names are that only it knows."""
    port: int = 0
    answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        if b" 200 " in self.answer:
            host, _, port = self.asked[-1].split(" ")[1].rpartition(":")
            there = await asyncio.open_connection(self.hosts.get(host, host), int(port))
            await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def serving_proxy() -> AsyncGenerator[Proxy]:
    """One on a port of this machine."""
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
