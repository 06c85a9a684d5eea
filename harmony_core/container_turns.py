"""Whose turn it is with a container: that of its own Score, or of what it stands on and has to be made anew.

Two reconcilers work on one container then. Without turns, the one would start again what the other has just
ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager

import attrs

from .key_locks import KeyLocks

__all__ = ["ContainerTurns"]

_REST_S = 30.0
"""What keeps containers at rest says so again within a second. Where it does not, it was given up."""


@attrs.frozen
class _Rest:
    containers: frozenset[str]
    until_s: float


class ContainerTurns:
    """Of all containers of a device, by their names."""

    def __init__(self, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._locks = KeyLocks()
        self._at_rest: dict[str, _Rest] = {}

    def take(self, containers: Iterable[str]) -> AbstractAsyncContextManager[None]:
        """Let nobody else work on *containers* from here to the end of the block."""
        return self._locks.take(containers)

    def keep_at_rest(self, resource: str, containers: Collection[str]) -> None:
        """Keep *containers* stopped until *resource*, which they use, releases them.

        They are added to those that it keeps stopped already, which may no longer use it. This ends by itself
        after a while: call it again.
        """
        kept = self.list_at_rest(resource) | frozenset(containers)
        self._at_rest[resource] = _Rest(kept, self._monotonic_s() + _REST_S)

    def let_go(self, resource: str) -> None:
        """Allow the containers that are kept stopped for *resource* to be started again."""
        self._at_rest.pop(resource, None)

    def find_keeper(self, container: str) -> str | None:
        """Return the id of the resource for which *container* is kept stopped; None for none."""
        found = (each for each in self._at_rest if container in self.list_at_rest(each))
        return next(found, None)

    def list_at_rest(self, resource: str) -> frozenset[str]:
        """Return the containers that *resource* keeps stopped."""
        rest = self._at_rest.get(resource)
        if rest is None or self._monotonic_s() >= rest.until_s:
            return frozenset()
        return rest.containers
