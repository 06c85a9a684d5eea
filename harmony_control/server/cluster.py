"""A cluster: several servers that keep each bucket together, so that one of them may be lost.

    nodes    each listens for devices and operators on its own address, with the certificate of them all
    routes   2000 ports above, between the nodes alone: TLS by an authority of their own, from both ends

Every bucket is kept by three of them: a write is acknowledged when two have it on their disks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import attrs

from harmony_core.errors import UsageError

from .buckets import REPLICAS
from .config import Listen

__all__ = ["Node", "parse_nodes", "with_routes"]

_DEFAULT_PORT = 4222
_ROUTES_ABOVE = 2_000
"""As between 4222 and 6222, which are NATS' own."""
_HANDSHAKE_TIMEOUT_S = 10
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - a server's


@attrs.frozen
class Node:
    """One server of a cluster."""

    at: Listen
    """As devices, operators and the other nodes reach it."""

    @property
    def name(self) -> str:
        """What it is called, among the nodes and as a folder."""
        return self.at.host if self.at.port == _DEFAULT_PORT else f"{self.at.host}-{self.at.port}"

    @property
    def url(self) -> str:
        """How devices and operators reach it."""
        return f"tls://{self.at}"

    @property
    def listen(self) -> Listen:
        """On what it listens: the address, or all addresses of the machine that has the name."""
        return attrs.evolve(self.at, host=self._bind)

    @property
    def routes(self) -> Listen:
        """Where the other nodes reach it."""
        return attrs.evolve(self.at, port=self.at.port + _ROUTES_ABOVE)

    @property
    def _bind(self) -> str:
        # A name need not lead to where others reach it: of a machine's own, Debian says 127.0.1.1.
        try:
            ip_address(self.at.host)
        except ValueError:
            return _EVERY_ADDRESS
        return self.at.host


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Return the nodes that ``nats-1,nats-2,nats-3`` are, each a HOST or HOST:PORT. `UsageError`."""
    nodes = tuple(Node(_parse_address(each.strip())) for each in text.split(","))
    if len({each.at for each in nodes}) != len(nodes):
        raise UsageError(f"--cluster {text}: one server is named twice; name each once")
    if len(nodes) != REPLICAS:
        raise UsageError(
            f"--cluster {text}: that is {len(nodes)}, and a cluster has three servers, of which one may be "
            "lost; write HOST,HOST,HOST, each as others reach it"
        )
    return nodes


def _parse_address(text: str) -> Listen:
    has_port = text.rpartition(":")[2].isdigit() and not text.endswith("]")
    found = Listen.parse(text if has_port else f"{text}:{_DEFAULT_PORT}")
    if not found.host or found.host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise UsageError(
            f"{text!r}: a server of a cluster needs an address at which others find it"
        )
    if found.port + _ROUTES_ABOVE > 65_535:
        raise UsageError(
            f"{text!r}: the servers find one another {_ROUTES_ABOVE} ports above; choose a port below "
            f"{65_536 - _ROUTES_ABOVE}"
        )
    return found


def with_routes(
    document: Mapping[str, object], fleet: str, node: Node, nodes: Sequence[Node], files: Path
) -> dict[str, object]:
    """Return *document*, the configuration of a single server, as that of *node*, whose certificate for the
    others is in *files*."""
    return {
        **document,
        "server_name": node.name,
        "listen": str(node.listen),
        "cluster": {
            "name": f"harmony-{fleet}",
            "listen": str(attrs.evolve(node.routes, host=node.listen.host)),
            "routes": [f"tls://{each.routes}" for each in nodes if each != node],
            "tls": {
                "cert_file": str(files / "cluster.pem"),
                "key_file": str(files / "cluster.key"),
                "ca_file": str(files / "cluster-ca.pem"),
                # By default a server believes in whoever connects.
                "verify": True,
                "min_version": "1.3",
                "timeout": _HANDSHAKE_TIMEOUT_S,
            },
            # One connection for all accounts: by several, an answer could overtake its subscription.
            "pool_size": -1,
            # Who connects has been told of each node; an address as a node sees itself may lead nowhere.
            "no_advertise": True,
        },
    }
