"""What passes between the event loop and the thread in which podman is asked. Imports no vendor."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

Params: TypeAlias = Mapping[str, str | int | bool]
Body: TypeAlias = Mapping[str, object]


@attrs.frozen(kw_only=True)
class Question:
    """One request below ``/libpod``."""

    method: Literal["get", "post", "delete"]
    path: str
    params: Params = attrs.field(factory=dict[str, "str | int | bool"])
    body: Body | None = None
    content: bytes | None = attrs.field(default=None, repr=False)
    """What is sent as it is, in place of a body. It may be a secret."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    """What is sent beside it. It may have a password."""
    framed: bool = False
    """Whether the answer is a log, in podman's frames for standard output and error."""
    most_bytes: int | None = None
    """How much of the answer is read; None for all of it."""


@attrs.frozen(kw_only=True)
class Answer:
    """What podman said: a whole body, or one line of a stream."""

    status: int
    body: bytes


class PodmanSilent(Exception):
    """podman gave no answer, or not all of it."""

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


class Cutoff:
    """Ends a request that runs in another thread, by shutting down the socket it reads from.

    A thread cannot be cancelled, but its read returns at once when its socket is shut down; podman in
    turn gives up what it did for a client that has gone.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def connect(self, sock: socket.socket, path: str) -> None:
        """Connect *sock*; the thread calls this with each socket that it opens. Raise OSError once this is
        cut."""
        with self._lock:
            self._sockets.append(sock)
        sock.connect(path)
        # Before it was connected it could not be shut down.
        if self.is_cut:
            raise OSError(errno.ECANCELED, "cut off")

    def close(self) -> None:
        """Close all sockets; the thread calls this at its end."""
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def cut(self) -> None:
        """Cut off all questions, later ones too. The event loop calls this; it does not block."""
        self.is_cut = True
        with self._lock:
            for sock in self._sockets:
                # It may not be connected yet, or have been dropped by the other side.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
