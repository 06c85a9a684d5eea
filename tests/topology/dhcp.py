"""A client of DHCP that asks once, and takes nothing of what it is offered."""

from __future__ import annotations

import secrets
import socket
import struct

__all__ = ["ask_for_an_address"]

_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER = b"\x35\x01\x01"
_END = b"\xff"
_ANSWER_WITHIN_S = 8
"""dnsmasq first asks for three seconds whether somebody has the address already."""
_ASKS = 3


def ask_for_an_address(interface: str) -> str:
    """Return the address that whoever is at the other end of *interface* offers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.bind(("", 68))
        client.settimeout(_ANSWER_WITHIN_S)
        for _ in range(_ASKS):
            number = secrets.token_bytes(4)
            client.sendto(_discover(number), ("255.255.255.255", 67))
            try:
                reply = client.recv(2048)
            except TimeoutError:
                continue
            if reply[:1] == b"\x02" and reply[4:8] == number:
                return socket.inet_ntoa(reply[16:20])
    raise AssertionError(f"nobody offers an address on {interface}")


def _discover(number: bytes) -> bytes:
    hardware = b"\x02" + secrets.token_bytes(5)
    asks_by_broadcast = 0x8000
    head = struct.pack("!BBBB4sHH16s", 1, 1, 6, 0, number, 0, asks_by_broadcast, bytes(16))
    return head + hardware.ljust(16, b"\0") + bytes(192) + _COOKIE + _DISCOVER + _END
