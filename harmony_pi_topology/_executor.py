"""Threads of an adapter's own, where each call says how long it may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harmony_core import worker

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """`harmony_core.worker.Worker`, with the deadline beside the arguments."""

    def __init__(self, name: str, *, threads: int, timeout_s: float = 60.0) -> None:
        self._worker = worker.Worker(name, threads=threads, timeout_s=timeout_s)
        self._timeout_s = timeout_s

    async def run(
        self, func: Callable[..., T], /, *args: object, timeout_s: float | None = None
    ) -> T:
        """As `harmony_core.worker.Worker.run_within`."""
        within_s = self._timeout_s if timeout_s is None else timeout_s
        return await self._worker.run_within(within_s, func, *args)

    async def settled(self) -> None:
        """Wait until no call is under way."""
        await self._worker.settled()

    def close(self) -> None:
        """Take no more calls."""
        self._worker.close()
