"""Gathering: calls that arrive while a run is under way go into the next run, together.

What is dear once a run (a flush to disk, a change of thread) is then paid once for all of them, and
nobody waits for a timer: a run begins as soon as the last one has ended. Known as group commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Batcher"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_Answer: TypeAlias = asyncio.Future[Sequence[ResultT]]


class Batcher(Generic[ItemT, ResultT]):
    """Hands gathered items to *run*, which answers with one result an item, in order.

    What goes wrong with one item alone is a result (let ``ResultT`` allow for it), so that it reaches
    its own caller only. An error that *run* raises goes to every caller whose items were in it. A caller
    that is cancelled takes nothing back: its items are run all the same, and nobody else notices.
    """

    def __init__(self, run: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]]) -> None:
        self._run = run
        self._waiting: list[tuple[Sequence[ItemT], _Answer[ResultT]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[ItemT]) -> Sequence[ResultT]:
        """Return the results of *items*, once a run that contains them has ended."""
        answer: _Answer[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all())
        return await answer

    async def _run_all(self) -> None:
        gathered: list[tuple[Sequence[ItemT], _Answer[ResultT]]] = []
        try:
            while self._waiting:
                gathered, self._waiting = self._waiting, []
                await self._run_one(gathered)
        except BaseException:
            # Cancelled: the loop is being ended. Whoever waits for the next run would wait for ever.
            abandoned, self._waiting = self._waiting, []
            for _, answer in gathered + abandoned:
                answer.cancel()
            raise
        finally:
            self._runner = None

    async def _run_one(self, gathered: Sequence[tuple[Sequence[ItemT], _Answer[ResultT]]]) -> None:
        try:
            results = await self._results([item for items, _ in gathered for item in items])
        except Exception as error:  # noqa: BLE001 - it is the callers'
            for _, answer in gathered:
                if not answer.done():
                    answer.set_exception(error)
            return
        start = 0
        for items, answer in gathered:
            if not answer.done():
                answer.set_result(results[start : start + len(items)])
            start += len(items)

    async def _results(self, items: Sequence[ItemT]) -> Sequence[ResultT]:
        results = await self._run(items)
        if len(results) != len(items):
            raise RuntimeError(
                f"{len(items)} items were run, {len(results)} results came back; return one an item"
            )
        return results
