"""One answer, frame by frame, as `harmony_core.wire.replies` specifies it: in order, and bounded.

The first frame goes at once and says that the request was taken. While there is nothing to tell, one now
and then says that it is still being worked on: whoever reads can tell that from a device without power.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from harmony_agent.clock import monotonic_s, timestamp
from harmony_core.errors import AnswerTooLarge, HarmonyError
from harmony_core.outcome import ErrorInfo
from harmony_core.wire.replies import (
    FRAME_MAX_BYTES,
    Alive,
    End,
    Failed,
    Frame,
    Item,
    cut_for_wire,
    to_frame,
)

__all__ = ["ALIVE_EVERY_S", "ANSWER_MOST_BYTES", "Reply"]

ALIVE_EVERY_S = 5.0
ANSWER_MOST_BYTES = 8 * 1024 * 1024
_MESSAGE_MOST_BYTES = 4 * 1024


class Reply:
    """The answer to one request. *send* puts a frame on its way, or raises `BusUnreachable`."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._next_seq = 0
        self._sent_bytes = 0
        self._sent_at_s = monotonic_s()
        # Of two tasks that send at once, the second must not overtake the first.
        self._order = asyncio.Lock()

    async def alive(self) -> None:
        """Say that the request was taken, and is being worked on."""
        await self._put(partial(Alive, at=timestamp()))

    async def item(self, item: Mapping[str, Any]) -> None:
        """Tell *item*; `AnswerTooLarge` when it is too large, or all of them together are."""
        if self._sent_bytes > ANSWER_MOST_BYTES:
            raise AnswerTooLarge(
                f"the answer has more than {ANSWER_MOST_BYTES} bytes; ask for less of it"
            )
        await self._put(partial(Item, item=item))

    async def end(self) -> None:
        """Say that this was all."""
        await self._put(End)

    async def fail(self, code: str, message: str, resource: str | None = None) -> None:
        """Say that nothing more comes, and why."""
        cut = cut_for_wire(message, _MESSAGE_MOST_BYTES)
        await self._put(partial(Failed, error=ErrorInfo(code=code, message=cut, resource=resource)))

    async def refuse(self, error: HarmonyError) -> None:
        """Fail with the code, message and resource of *error*."""
        await self.fail(error.code, error.message, error.resource)

    @asynccontextmanager
    async def keep_alive(self) -> AsyncGenerator[None]:
        """Within the block, send something at least every `ALIVE_EVERY_S`, so that the reader knows that we
        are alive."""
        task = asyncio.create_task(self._keep_alive())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # whoever sends the next frame meets it again

    async def _keep_alive(self) -> None:
        while True:
            silent_s = monotonic_s() - self._sent_at_s
            if silent_s >= ALIVE_EVERY_S:
                await self.alive()
            else:
                await asyncio.sleep(ALIVE_EVERY_S - silent_s)

    async def _put(self, make: Callable[..., Frame]) -> None:
        async with self._order:
            data = to_frame(make(seq=self._next_seq))
            if len(data) > FRAME_MAX_BYTES:
                raise AnswerTooLarge(
                    f"one part of the answer has {len(data)} bytes, at most {FRAME_MAX_BYTES} are "
                    "allowed; ask for less of it"
                )
            await self._send(data)
            self._next_seq += 1
            self._sent_at_s = monotonic_s()
            self._sent_bytes += len(data)
