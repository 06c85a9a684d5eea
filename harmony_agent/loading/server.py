"""The agent's door for whoever is root on the device: a socket, over which a bundle comes as an open file.

    connected -> is it root? -> one line, and the file -> take -> a line for each thing that happens

The file is opened by who loads it, so that the agent needs to see no stick, and no name of it. Who hangs up
has it put away again; what was accepted by then stays so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

from harmony_agent.store.flushing import make_directory

from .socket_path import REQUEST_MAX_BYTES, find_socket

__all__ = ["Take", "Tell", "serve"]

log = logging.getLogger(__name__)

Tell: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Take: TypeAlias = Callable[[int, Mapping[str, Any], Tell], Awaitable[None]]
"""Load the bundle of that descriptor, which is its own from then on. Raises nothing but what is a defect."""

_ASKED_WITHIN_S = 5.0
_WAITING_MOST = 4
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of who has connected, as the kernel tells."""


async def serve(directory: Path, take: Take) -> None:
    """Listen in *directory* until cancelled. Load one bundle at a time; tell so to everybody who comes
    meanwhile."""
    at_once = asyncio.Semaphore(1)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.setblocking(False)
        try:
            await asyncio.to_thread(_listen, listening, directory)
        except OSError as error:
            log.warning("bundles cannot be loaded: no socket in %s: %s", directory, error.strerror)
            return
        async with asyncio.TaskGroup() as tasks:
            while True:
                connection, _ = await loop.sock_accept(listening)
                tasks.create_task(_serve_one(connection, at_once, take))


def _listen(listening: socket.socket, directory: Path) -> None:
    make_directory(directory)
    with find_socket(directory) as path:
        with suppress(FileNotFoundError):
            Path(path).unlink()  # of the run before
        listening.bind(path)
        Path(path).chmod(0o600)
    listening.listen(_WAITING_MOST)  # only from now on anybody is let in


async def _serve_one(connection: socket.socket, at_once: asyncio.Semaphore, take: Take) -> None:
    descriptor = -1
    writer: asyncio.StreamWriter | None = None
    try:
        if not _is_let_in(connection):
            return
        request, descriptor = await asyncio.to_thread(_receive, connection)
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        if at_once.locked():
            busy = "another bundle is being loaded; wait for its end"
            await _tell_to(writer, {"event": "refused", "code": "Busy", "message": busy, "exit": 4})
            return
        async with at_once:
            taken, descriptor = descriptor, -1
            await _while_listened(reader, take(taken, request, _tell_by(writer)))
    except (OSError, ValueError) as error:
        log.info("a load ends: %s", error)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        if writer is not None:
            writer.close()
        connection.close()


async def _while_listened(reader: asyncio.StreamReader, load: Awaitable[None]) -> None:
    """Await *load*, and cancel it if the one who asked for it closes the connection."""
    loading = asyncio.ensure_future(load)
    hung_up = asyncio.ensure_future(reader.read())
    try:
        await asyncio.wait({loading, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (loading, hung_up):
            each.cancel()
        await asyncio.wait({loading, hung_up})
        if not hung_up.cancelled():
            hung_up.exception()
    if not loading.cancelled():
        loading.result()


def _tell_by(writer: asyncio.StreamWriter) -> Tell:
    async def tell(what: Mapping[str, Any]) -> None:
        await _tell_to(writer, what)

    return tell


async def _tell_to(writer: asyncio.StreamWriter, what: Mapping[str, Any]) -> None:
    writer.write(json.dumps(what).encode() + b"\n")
    await writer.drain()


def _is_let_in(connection: socket.socket) -> bool:
    """Return whether it is root, or the user who runs this agent: nobody else reaches the socket, and the
    kernel knows who it is."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return user in {0, os.geteuid()}


def _receive(connection: socket.socket) -> tuple[Mapping[str, Any], int]:
    """Return what is asked for, and the file. Raise ValueError for anything else."""
    connection.settimeout(_ASKED_WITHIN_S)
    data, descriptors, _, _ = socket.recv_fds(
        connection, REQUEST_MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC
    )
    try:
        request = json.loads(data)
        if len(descriptors) != 1 or not isinstance(request, dict):
            raise ValueError("no request with one file")
        return cast("Mapping[str, Any]", request), descriptors.pop()
    finally:
        for each in descriptors:
            os.close(each)
