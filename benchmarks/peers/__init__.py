"""Peers: tools that people use for the same work, each at its best, each kept outside of this project.

They are fetched once, by the ordinary clients of their registries, into the cache. None of them makes
what it wrote durable.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import cfengine, pyinfra, salt
from ._prepared import Peer, Prepared

__all__ = ["PEERS", "Peer", "Prepared"]

PEERS: Mapping[str, Peer] = {
    "cfengine": Peer(rounds=15, prepare=cfengine.prepare),
    "pyinfra": Peer(rounds=3, prepare=pyinfra.prepare),
    "salt": Peer(rounds=5, prepare=salt.prepare),
}
