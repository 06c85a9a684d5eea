"""Addresses for servers that a test starts: free now, and when the server comes to listen there.

Linux gives a connection, and whoever listens on port 0, a port of its own from 32768 on: an address from
there may be taken by somebody else until the server starts. So these are below, and none is given twice.
"""

from __future__ import annotations

import secrets
import socket

__all__ = ["free_address", "free_addresses"]

_PORTS = range(10_000, 28_000)
_RANDOM = secrets.SystemRandom()
"""Not `random`: what seeds that gives several workers the same ports."""
_given: set[int] = set()


def free_address() -> str:
    """An address of 127.0.0.1 that nobody listens on."""
    (address,) = free_addresses(1)
    return address


def free_addresses(count: int, *above: int) -> list[str]:
    """Addresses of 127.0.0.1 that nobody listens on, nor on the ports so far *above* them."""
    return [f"127.0.0.1:{_give(*above)}" for _ in range(count)]


def _give(*above: int) -> int:
    while True:
        port = _RANDOM.choice(_PORTS)
        ports = {port, *(port + each for each in above)}
        if ports.isdisjoint(_given) and all(map(_is_free, ports)):
            _given.update(ports)
            return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
