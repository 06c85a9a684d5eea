"""Have some Scores reconciled now, and wait until each of them was.

The queue itself tells nobody: whoever adds a key wants it looked at, by whomever and whenever. This stands
between the queue and the work, and only listens.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection

from .queue import Next, Work, WorkQueue

__all__ = ["ReconcileWaiter"]


class ReconcileWaiter:
    """*work*, as the queue calls it, with listeners."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: defaultdict[str, set[asyncio.Future[str]]] = defaultdict(set)

    async def work(self, key: str, queue: WorkQueue) -> Next:
        """Do one turn of *key*, and tell those who wait for it."""
        # Only those that asked before it began: what they saw change is seen by this look.
        waiting = self._waiting.pop(key, set())
        try:
            return await self._work(key, queue)
        finally:
            for each in waiting:
                if not each.done():
                    each.set_result(key)

    async def reconcile_now(self, keys: Collection[str], queue: WorkQueue) -> AsyncGenerator[str]:
        """Have *queue* look at *keys* now. Yield each of them as soon as a turn that began since then has
        ended."""
        loop = asyncio.get_running_loop()
        left: dict[str, asyncio.Future[str]] = {}
        for key in keys:
            left[key] = loop.create_future()
            self._waiting[key].add(left[key])
            queue.enqueue(key)
        try:
            while left:
                ended, _ = await asyncio.wait(left.values(), return_when=asyncio.FIRST_COMPLETED)
                for key in sorted(each.result() for each in ended):
                    del left[key]
                    yield key
        finally:
            for key, future in left.items():
                future.cancel()
                self._waiting[key].discard(future)
                if not self._waiting[key]:
                    del self._waiting[key]
