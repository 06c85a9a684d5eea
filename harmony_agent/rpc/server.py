"""Requests: what the control plane asks of this device, beside telling it what it is to be.

    receive -> wait for a turn -> `harmony_agent.rpc.dispatch`

Most devices are hardly ever asked, so what answers is loaded with the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dispatch import Answering

__all__ = ["Requests"]

_WAITING_MOST = 8
_BREATH_S = 0.05
"""After something that is no request: who sends much of that costs us little."""


class Requests:
    """Takes requests in; *begin* makes what answers them."""

    def __init__(self, begin: Callable[[], Answering]) -> None:
        self._begin = begin
        self.on_taken: Callable[[], None] = lambda: None
        """Called for each request that somebody who is trusted has signed."""
        self._received: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MOST)

    def receive(self, envelope: bytes) -> None:
        """Take in what may be a request. Dropped when too many wait: who asked will ask again."""
        if not self._received.full():
            self._received.put_nowait(envelope)

    async def run(self) -> None:
        """Answer until cancelled; then every answer ends where it is."""
        envelope = await self._received.get()
        answering = self._begin()
        async with asyncio.TaskGroup() as tasks:
            while True:
                is_taken = answering.take(envelope, tasks)
                if is_taken:
                    self.on_taken()
                # Also so that an answer has begun before the next request is looked at.
                await asyncio.sleep(0 if is_taken else _BREATH_S)
                envelope = await self._received.get()
