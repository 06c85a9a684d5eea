"""Runs the application on uvicorn until it is told to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from litestar.types import ASGIApp

from harmony_core.errors import ConfigError

from .app import Web
from .listen import Listen

__all__ = ["Serving", "open_socket", "serving_beside"]

_GRACE_S = 5.0
"""What is still answered then is cut off."""


def open_socket(listen: Listen, option: str = "--listen") -> socket.socket:
    """Return a socket that listens there, as *option* says. `ConfigError` where nobody may or somebody else
    does."""
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=512)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror}; choose another with {option}"
        ) from error


class _Server(uvicorn.Server):
    async def serve_here(self, sockets: list[socket.socket]) -> None:
        """Serve until it should exit, and leave signals to who calls."""
        await self._serve(sockets)


class Serving(_Server):
    """uvicorn, which on a signal has the streams end first: they would last for ever."""

    def __init__(self, web: Web, listen: Listen) -> None:
        super().__init__(
            uvicorn.Config(
                web.app,
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                ssl_certfile=listen.certificate,
                ssl_keyfile=listen.key,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(_GRACE_S),
                limit_concurrency=2000,
            )
        )
        self._web = web

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._web.live.close)
        super().handle_exit(sig, frame)

    def end(self) -> None:
        """End as upon a signal: streams first. Returns at once."""
        self._web.live.close()
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal or `end`."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)


@asynccontextmanager
async def serving_beside(app: ASGIApp, listening: socket.socket) -> AsyncGenerator[None]:
    """Serve *app* too, until the end of the block: something small, which has no streams and is in clear."""
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=50,
        )
    )
    task = asyncio.create_task(server.serve_here([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
