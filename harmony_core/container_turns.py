"""Whose turn it is with a container: that of its own Score, or of what it stands on and has to be made anew.

Two reconcilers work on one container then. Without turns, the one would start again what the other has just
ended.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

__all__ = ["ContainerTurns"]


class ContainerTurns:
    """Of all containers of a device, by their names."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._at_rest: dict[str, frozenset[str]] = {}

    @asynccontextmanager
    async def take(self, containers: Iterable[str]) -> AsyncGenerator[None]:
        """Be alone at work on *containers*, from here to the end of the block."""
        async with AsyncExitStack() as held:
            for name in sorted(set(containers)):  # in one order, or two might wait for each other
                await held.enter_async_context(self._locks[name])
            yield

    def keep_at_rest(self, resource: str, containers: Collection[str]) -> None:
        """Have nobody start *containers* until *resource*, which they stand on, lets them go: until
        `let_go`, or for as long as this process lives."""
        self._at_rest[resource] = frozenset(containers)

    def let_go(self, resource: str) -> None:
        """Let what was kept at rest for *resource* be started again."""
        self._at_rest.pop(resource, None)

    def find_keeper(self, container: str) -> str | None:
        """Return the id of the resource for which *container* is at rest; None for none."""
        found = (each for each, names in self._at_rest.items() if container in names)
        return next(found, None)
