"""sd_notify: tell systemd that the agent is ready, what it is doing, and that it is alive.

The protocol is one datagram to a UNIX socket (sd_notify(3)); nothing happens where there is none.
"""

from __future__ import annotations

import os
import socket

__all__ = ["is_supervised", "notify"]


def is_supervised() -> bool:
    """Return whether systemd wants reports: otherwise they need not be put into words."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(**state: str) -> None:
    """Tell systemd the *state*, as in ``notify(READY="1", STATUS="…")``. Never raise: the agent works without
    supervision, too."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    lines = "\n".join(f"{name}={value}" for name, value in state.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(lines.encode(), address)
    except OSError:
        return
