"""Locks by a key: whoever works on several things at once takes the locks of all of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

__all__ = ["KeyLocks"]


class KeyLocks:
    """A lock for each key. Used from one event loop."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def take(self, keys: Iterable[str]) -> AsyncGenerator[None]:
        """Let nobody else work on *keys* from here to the end of the block."""
        async with AsyncExitStack() as held:
            for key in sorted(set(keys)):  # in one order, or two might wait for each other
                await held.enter_async_context(self._locks[key])
            yield
