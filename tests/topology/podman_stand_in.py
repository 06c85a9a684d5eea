"""A service on a UNIX socket that stands where podman's would, and misbehaves.

Only for what the real one cannot be made to do: hang, answer nonsense, or stop half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

__all__ = ["Behaviour", "answering", "drip", "empty_podman", "hang", "hang_up", "standing_in"]

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, and never says anything."""
    await asyncio.Event().wait()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the question, and hangs up."""
    await reader.readuntil(b"\r\n\r\n")


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a byte at a time and never ends, so that no single read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def empty_podman(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A podman without any container or image."""
    url = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    is_list = url.partition(b"?")[0].endswith(b"/containers/json")
    writer.write(
        reply("200 OK", b"[]") if is_list else reply("404 Not Found", b'{"message": "none"}')
    )


def answering(raw: bytes) -> Behaviour:
    """Answers every question with *raw*, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return answer


def reply(status: str, body: bytes) -> bytes:
    """A whole HTTP answer."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def chunked(*chunks: bytes, whole: bool = True) -> bytes:
    """An HTTP answer in pieces; unless *whole*, without its end."""
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + pieces + (b"0\r\n\r\n" if whole else b"")


@contextlib.asynccontextmanager
async def standing_in(directory: Path, behaviour: Behaviour) -> AsyncGenerator[str]:
    """The URL of a socket in *directory*; whoever is still connected is hung up on at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()

    socket = directory / "podman.sock"
    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield f"unix://{socket}"
    finally:
        for each in server.sockets:
            # What is accepted while a server closes would be left open by asyncio.
            asyncio.get_running_loop().remove_reader(each.fileno())
        await _some_rounds()  # by then what was accepted a moment ago has its task
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _some_rounds()  # by then what was aborted is closed


async def _some_rounds() -> None:
    """Of the loop: on a busy machine a moment may be no more than one."""
    for _ in range(20):
        await asyncio.sleep(0)
