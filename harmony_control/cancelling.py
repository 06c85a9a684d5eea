"""Ending tasks.

Until Python 3.12, `asyncio.wait_for` forgets that it was cancelled where what it waits for comes at that very
moment, and nats-py waits by it: a task that is cancelled once, as by Ctrl-C, may go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

__all__ = ["cancel_all", "honour_cancellation"]

_AGAIN_S = 0.5


def honour_cancellation() -> None:
    """Raise `CancelledError` where this task was cancelled, but continues."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Return once all have ended, however often they have to be cancelled. Drop what they raise."""
    left = set(tasks)
    while left:
        for each in left:
            each.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for each in ended:
            if not each.cancelled():
                each.exception()  # else Python says that nobody has asked for it
