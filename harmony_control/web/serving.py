"""Runs the application on uvicorn until it is told to end."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from harmony_core.errors import ConfigError

from .app import Web
from .listen import Listen

__all__ = ["Serving", "open_socket"]

_GRACE_S = 5.0
"""What is still answered then is cut off."""


def open_socket(listen: Listen) -> socket.socket:
    """Return a socket that listens there. `ConfigError` where nobody may or somebody else does."""
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=512)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror}; choose another with --listen"
        ) from error


class Serving(uvicorn.Server):
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

    async def serve_here(self, sockets: list[socket.socket]) -> None:
        """Serve until `end`, and leave signals to who calls."""
        await self._serve(sockets)
