"""Ports on which something listens, and that a firewall would let nobody in to: perhaps forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from harmony_core.resources import FirewallRule

__all__ = ["find_shut", "read_listening"]

_LISTEN = "0A"
"""TCP_LISTEN, as /proc/net/tcp has it."""
_WORD_BYTES = 4


def read_listening(directory: Path) -> frozenset[int]:
    """Return the TCP ports that are open to others, as the kernel lists them in *directory*, such as
    /proc/self/net."""
    return frozenset(
        port
        for name in ("tcp", "tcp6")
        if (table := directory / name).exists()  # no tcp6 where IPv6 is switched off
        for address, port in _parse(table.read_text().splitlines()[1:])
        if not address.is_loopback
    )


def find_shut(listening: Iterable[int], allow: Iterable[FirewallRule]) -> list[int]:
    """Return those of the TCP ports *listening* that nothing in *allow* opens to anybody."""
    rules = [each for each in allow if each.transport in (None, "tcp")]
    return sorted(port for port in listening if not any(_has(rule, port) for rule in rules))


def _has(rule: FirewallRule, port: int) -> bool:
    if rule.port is None:
        return True
    first, _, last = str(rule.port).partition("-")
    return int(first) <= port <= int(last or first)


def _parse(lines: Iterable[str]) -> Iterable[tuple[IPv4Address | IPv6Address, int]]:
    for line in lines:
        _, local, _, state, *_ = line.split()
        if state == _LISTEN:
            address, _, port = local.partition(":")
            yield _to_address(bytes.fromhex(address)), int(port, 16)


def _to_address(words: bytes) -> IPv4Address | IPv6Address:
    """Return the address whose words of four bytes are in this processor's byte order."""
    starts = range(0, len(words), _WORD_BYTES)
    data = b"".join(words[each : each + _WORD_BYTES][::-1] for each in starts)
    if len(data) == _WORD_BYTES:
        return IPv4Address(data)
    address = IPv6Address(data)
    return address.ipv4_mapped or address
