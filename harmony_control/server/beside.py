"""What goes on beside the server, for as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress

__all__ = ["running_beside"]


@asynccontextmanager
async def running_beside(work: Coroutine[None, None, None], *, name: str) -> AsyncGenerator[None]:
    """Run *work*, which never ends by itself, until the block ends; then it is cancelled, and waited for."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
