"""Keeps systemd awake while somebody waits for it.

    something is waited for -> a second later, and every second until it is there: a datagram to systemd

systemd reads the table of mounts only so often: after a handful of changes it waits until a second is over.
When that second ends while it has more in hand that came over the bus, its loop may go to sleep over that,
and it reads nothing more of the bus until something else wakes it: where little happens, that takes minutes
(github.com/systemd/systemd/issues/30573; seen with 257). Whatever comes to the socket to which services
send their state wakes it, and a name with this prefix means nothing to it (sd_notify(3)).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

__all__ = ["WAKE_AFTER_S", "Waker"]

WAKE_AFTER_S = 1.0
_SOCKET: Final = "run/systemd/notify"
_MESSAGE: Final = b"X_HARMONY_WAITS=1"


class Waker:
    """Of the systemd whose files are beneath *root*. Where there is no such socket, nobody is woken."""

    def __init__(self, root: str | Path = "/") -> None:
        self._socket = str(Path(root) / _SOCKET)

    def wake_until(self, end: asyncio.Future[Any]) -> None:
        """Wake systemd every second, until *end* is there."""
        loop = end.get_loop()
        timer: asyncio.TimerHandle

        def wake() -> None:
            nonlocal timer
            self._wake()
            timer = loop.call_later(WAKE_AFTER_S, wake)

        timer = loop.call_later(WAKE_AFTER_S, wake)
        end.add_done_callback(lambda _: timer.cancel())

    def _wake(self) -> None:
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        ):
            sender.sendto(_MESSAGE, self._socket)
