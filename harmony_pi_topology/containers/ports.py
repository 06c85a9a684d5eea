"""Whether the ports that a container is to publish can be had: tried before anything is touched for it.

podman binds them when a container starts, and by then the one whose place it takes is gone. So each is
bound here for a moment, as podman will. What the container's predecessor holds goes with it, and is fine.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address

from harmony_core.errors import ContainerFailed
from harmony_core.resources import Container, PublishedPort
from harmony_pi_topology.common.path_calls import PathCalls

from .attachments import list_network_names
from .podman import Podman
from .podman_errors import port_taken
from .spec import RESOURCE_LABEL

__all__ = ["BindPort", "ContainerPorts", "bind_port"]

BindPort = Callable[[PublishedPort], int]
"""Binds a port for a moment: 0, or the error number of why it cannot be had."""


def bind_port(port: PublishedPort) -> int:
    """Bind *port* on this machine, as `BindPort` describes. Leave an invalid address to podman, which refuses
    it."""
    try:
        address = ip_address(port.address or "0.0.0.0")  # noqa: S104 - empty is all of them
    except ValueError:
        return 0
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                # What only waits for the end of old connections holds nothing.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(address), port.host))
    except OSError as error:
        return error.errno or 0
    return 0


class ContainerPorts:
    """Those of one device, bound by *calls*, since that may block."""

    def __init__(self, podman: Podman, calls: PathCalls, bind: BindPort) -> None:
        self._podman = podman
        self._calls = calls
        self._bind = bind

    async def check_ipv6(self, container: Container) -> None:
        """Raise `ContainerFailed` where *container* is to be published on IPv6 and its network has none:
        podman would listen, and answer nobody."""
        on_ipv6 = next((port for port in container.ports if port.is_ipv6), None)
        if on_ipv6 is None:
            return
        networks = list_network_names(container)
        for network in networks:
            if await self._podman.network_has_ipv6(network):
                return
        raise ContainerFailed(
            f"port {on_ipv6.host} is to be published on {on_ipv6.address}, but podman's network "
            f"{networks[0]} has no IPv6, so nothing would be answered there; publish on an IPv4 "
            "address, or give that network an IPv6 subnet (see podman network create --ipv6)",
            resource=container.id,
        )

    async def check(self, container: Container, *, apply: bool) -> None:
        """Raise `PortTaken` or `ContainerFailed` where *container* cannot have one of its ports.

        In a dry run, accept a port that another container of Harmony's holds, which may be free by then, and
        an address that is missing, which may be there by then: the ledger says which of Harmony's containers
        may have a port.
        """
        failed = {
            port: number
            for port in container.ports
            if (number := await self._calls.run(self._bind, port))
        }
        if not failed:
            return
        holders = await self._podman.list_published_ports(RESOURCE_LABEL)
        for port, number in failed.items():
            holder = holders.get((port.host, port.protocol))
            if number == errno.EADDRINUSE and holder != container.name and (apply or not holder):
                raise _port_taken(port, container, holder)
            if number == errno.EADDRNOTAVAIL and apply:
                raise ContainerFailed(
                    f"{port.address}, on which {container.name} is to be published, is no address of "
                    "this device; give it that address, or publish on another",
                    resource=container.id,
                )


def _port_taken(port: PublishedPort, container: Container, holder: str | None) -> Exception:
    what = f"port {port.host}"
    if holder is None:
        return port_taken(what, container.name)
    return port_taken(what, container.name, holder=f"container {holder}")
