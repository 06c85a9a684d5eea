"""Gathering: calls that arrive while a run is under way go into the next run, together.

What is dear once a run (a flush to disk, a change of thread) is then paid once for all of them, and
nobody waits for a timer: a run begins as soon as the last one has ended. Known as group commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[ItemT, ResultT]):
    """Hands gathered items to *run*, which answers with one result an item, in order.

    An error that *run* raises goes to every caller whose items were in it. A caller that is cancelled
    takes nothing back: its items are run all the same, and nobody else notices.
    """

    def __init__(self, run: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]]) -> None:
        self._run = run
        self._waiting: list[tuple[Sequence[ItemT], asyncio.Future[Sequence[ResultT]]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[ItemT]) -> Sequence[ResultT]:
        """The results of *items*, once a run that contains them has ended."""
        answer: asyncio.Future[Sequence[ResultT]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all())
        return await answer

    async def _run_all(self) -> None:
        try:
            while self._waiting:
                gathered, self._waiting = self._waiting, []
                await self._run_one(gathered)
        finally:
            self._runner = None

    async def _run_one(
        self, gathered: list[tuple[Sequence[ItemT], asyncio.Future[Sequence[ResultT]]]]
    ) -> None:
        try:
            results = await self._run([item for items, _ in gathered for item in items])
        except BaseException as error:
            for _, answer in gathered:
                if not answer.done():
                    _fail(answer, error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for items, answer in gathered:
            if not answer.done():
                answer.set_result(results[start : start + len(items)])
            start += len(items)


def _fail(answer: asyncio.Future[Sequence[ResultT]], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        answer.cancel()
    else:
        answer.set_exception(error)
