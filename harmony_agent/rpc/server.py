"""Requests: what the control plane asks of this device, beside telling it what it is to be.

    receive -> `harmony_agent.rpc.dispatch` verifies it -> no request? -> a rest, the longer, the more it cost

What waits for that is in the subscription, which has a bound. Most devices are hardly ever asked, so what
answers is loaded with the first request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dispatch import Answering

__all__ = ["RESTS_FOR_EACH_LOOK", "Requests"]

RESTS_FOR_EACH_LOOK = 3.0
"""So many times as long as it took to see that something is no request, nothing is looked at: whoever sends
much of that costs us a quarter of a core at most, and keeps no true request away for long."""


class Requests:
    """Takes requests in; *begin* makes what answers them."""

    def __init__(self, begin: Callable[[], Answering]) -> None:
        self._begin = begin
        self.on_taken: Callable[[], None] = lambda: None
        """Called for each request that somebody who is trusted has signed."""
        self._received: asyncio.Queue[bytes] = asyncio.Queue(1)

    async def receive(self, envelope: bytes) -> None:
        """Take in what may be a request, once it is its turn."""
        await self._received.put(envelope)

    async def run(self) -> None:
        """Answer until cancelled; then every answer ends where it is."""
        envelope = await self._received.get()
        answering = self._begin()
        async with asyncio.TaskGroup() as tasks:
            while True:
                began = time.perf_counter()
                is_taken = answering.take(envelope, tasks)
                spent_s = time.perf_counter() - began
                if is_taken:
                    self.on_taken()
                # Also so that an answer has begun before the next request is looked at.
                await asyncio.sleep(0 if is_taken else RESTS_FOR_EACH_LOOK * spent_s)
                envelope = await self._received.get()
