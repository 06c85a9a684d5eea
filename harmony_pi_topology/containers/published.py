"""Whether what is sent to a published port reaches the container.

podman has a port published by rules of the kernel (netavark), and never looks at them again: a firewall that
is loaded anew, or `nft flush ruleset`, takes them away. The rules themselves are only shown to whoever may
also change them. But podman's monitor (conmon) listens on each published port, so that nobody else takes it,
and accepts nothing: what gets to its socket has not been led into the container.

    nothing waits at that socket that was not known -> fine, and nobody was disturbed
    something does -> connect once: is that connection at the socket, too? -> the port leads nowhere

What waits there stays until the container ends, so what was found harmless is kept in mind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs

from harmony_core.resources import Container, PublishedPort
from harmony_pi_topology.common.path_calls import PathCalls

from .podman_reply import FoundContainer

__all__ = ["PublishedPorts"]

_CONNECTED_WITHIN_S = 2.0
_LISTENS = "0A"


@attrs.frozen
class _Harmless:
    """How many connections wait at the socket of each port, of one start of a container."""

    container_id: str
    started_at: datetime
    waiting: dict[int, int]


class PublishedPorts:
    """Those of one device, whose / is *root*: TCP over IPv4. *address* is where published ports are."""

    def __init__(self, root: Path, calls: PathCalls, address: str) -> None:
        self._table = root / "proc/1/net/tcp"
        self._calls = calls
        self._address = address
        self._harmless: dict[str, _Harmless] = {}

    async def find_dead(self, container: Container, found: FoundContainer) -> frozenset[int]:
        """Return the host ports of *container*, which runs as *found*, that lead nowhere. Only ports that
        somebody has tried since its start can be found."""
        ports = {
            port.host: port
            for port in container.ports
            if port.protocol == "tcp" and not port.is_ipv6
        }
        if not ports:
            return frozenset()
        waiting = await self._calls.run(_count_waiting, self._table, ports)
        known = self._harmless.get(container.name)
        if known is None or (known.container_id, known.started_at) != (found.id, found.started_at):
            known = _Harmless(found.id, found.started_at, {})
        tried = [ports[each] for each in waiting if waiting[each] > known.waiting.get(each, 0)]
        dead = frozenset([port.host for port in tried if await self._leads_nowhere(port)])
        harmless = {each: count for each, count in waiting.items() if each not in dead}
        self._harmless[container.name] = attrs.evolve(known, waiting=harmless)
        return dead

    def forget(self, name: str) -> None:
        """Forget the container *name*, which is gone."""
        self._harmless.pop(name, None)

    async def _leads_nowhere(self, port: PublishedPort) -> bool:
        """Return whether a connection to *port* ends at the device's own socket."""
        address = self._address if port.is_on_all else port.address
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECTED_WITHIN_S):
                _, writer = await asyncio.open_connection(address, port.host)
            try:
                ours: int = writer.get_extra_info("sockname")[1]
                return await self._calls.run(_has_connection, self._table, port.host, ours)
            finally:
                writer.transport.abort()
        return False  # refused, or not answered: by the container, or on the way there


def _count_waiting(table: Path, ports: Collection[int]) -> dict[int, int]:
    """Return, for each of *ports* that is listened on, how many connections nobody has accepted."""
    counts: dict[int, int] = {}
    for local, _, state, waiting in _rows(table):
        if state != _LISTENS:
            break  # the kernel lists sockets that listen first
        if local in ports:
            counts[local] = counts.get(local, 0) + waiting
    return counts


def _has_connection(table: Path, local: int, remote: int) -> bool:
    return any((row[0], row[1]) == (local, remote) for row in _rows(table))


def _rows(table: Path) -> Iterator[tuple[int, int, str, int]]:
    """Yield the local port, the remote port, the state and the number of unread bytes of each socket in
    *table*."""
    try:
        with table.open(encoding="ascii") as lines:
            next(lines, "")
            for line in lines:
                _, local, remote, state, queues, *_ = line.split()
                yield _port(local), _port(remote), state, int(queues.partition(":")[2], 16)
    except OSError:
        return


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
