"""A few threads of one adapter's own, for calls that block.

Each adapter has its own, so that a daemon that hangs occupies its own threads and nobody else's. A call
in a thread cannot be interrupted: when its deadline passes, or its caller is cancelled, it goes on, and its
effect lands. So a thread stays occupied until its call returns, and `settled` waits for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from harmony_core.errors import CapabilityUnavailable, TimedOut

__all__ = ["Worker"]

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """*threads* threads; each call gets *timeout_s* unless it says otherwise."""

    def __init__(self, name: str, *, threads: int, timeout_s: float) -> None:
        self._name = name
        self._threads = threads
        self._timeout_s = timeout_s
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._under_way: set[Future[Any]] = set()
        self._overdue: set[Future[Any]] = set()

    async def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``func(*args)`` in a thread. Raise `TimedOut` when it takes too long; `CapabilityUnavailable`
        at once while every thread is occupied by a call that did."""
        return await self.run_within(self._timeout_s, func, *args, **kwargs)

    async def run_within(
        self, timeout_s: float, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call *func* as `run` does, with a deadline of *timeout_s* from now, which includes the wait for a
        thread.

        A call that still waits for a thread then, or when its caller is cancelled, is never begun.
        """
        self._refuse_where_all_hang()
        call = self._submit(func, *args, **kwargs)
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                # Cancelled, this cancels the call too, which only matters to one not yet begun.
                return await asyncio.wrap_future(call)
        except TimeoutError:
            if not deadline.expired():
                raise  # the call's own
            self._note_overdue(call)
            what = getattr(func, "__name__", "call")
            raise TimedOut(
                f"{self._name}: {what} did not end within {timeout_s:g} s; it is tried again later"
            ) from None

    async def run_while_moving(
        self, steps: Callable[[], int], func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call *func* as `run` does, but restart the deadline whenever *steps*, asked when it passes, has
        changed."""
        self._refuse_where_all_hang()
        call = self._submit(func, *args, **kwargs)
        waiting, before, now = asyncio.wrap_future(call), -1, steps()
        try:
            while before != now:
                await asyncio.wait([waiting], timeout=self._timeout_s)
                if waiting.done():
                    return waiting.result()
                before, now = now, steps()
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        self._note_overdue(call)
        waiting.add_done_callback(_disregard)
        raise TimedOut(
            f"{self._name}: no step was made within {self._timeout_s:g} s; it is tried again later"
        )

    async def wait_idle(self) -> None:
        """Wait until no call is under way, also those whose callers have given up on them."""
        while calls := tuple(self._under_way):  # copied at once: threads take theirs out
            waiting = [asyncio.wrap_future(call) for call in calls]
            for each in waiting:
                each.add_done_callback(_disregard)
            await asyncio.wait(waiting)

    def close(self) -> None:
        """Accept no more calls. Do not wait for one that hangs."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _refuse_where_all_hang(self) -> None:
        if len(self._overdue) >= self._threads:
            raise CapabilityUnavailable(
                f"{self._name} does not answer: {len(self._overdue)} calls hang; "
                "look at the daemon's journal, or restart it"
            )

    def _submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        is_refused = False

        def begin() -> T:
            # Where no thread can begin, the executor keeps the call all the same, for the next one that can:
            # by then nobody waits for it any more.
            if is_refused:
                raise CancelledError
            return func(*args, **kwargs)

        try:
            call = self._executor.submit(begin)
        except RuntimeError as error:
            is_refused = True
            raise CapabilityUnavailable(
                f"{self._name}: {error}; look at the device's memory and the agent's TasksMax, it is tried "
                "again later"
            ) from error
        self._under_way.add(call)
        call.add_done_callback(self._under_way.discard)
        return call

    def _note_overdue(self, call: Future[Any]) -> None:
        """Note that the thread of *call* is occupied until *call* ends, unless it had not begun and never
        will."""
        if not call.cancel():
            self._overdue.add(call)
            # Only now: it could end between the deadline and here, and must not stay.
            call.add_done_callback(self._overdue.discard)


def _disregard(future: asyncio.Future[Any]) -> None:
    """Retrieve the error of *future*, so that asyncio does not log it; whoever waits for *future* gets it."""
    if not future.cancelled():
        future.exception()
