"""The work queue: level-triggered, keyed by Score id.

An item says only "look at this one"; what is to be done is read when its turn comes, so any number of
requests for one key are one look at the newest state. The same key is never worked on twice at once,
different keys run side by side, at most ``width`` of them.

    enqueue, notify -> (due) -> work(key, queue) -> Forget | RequeueAfter | Retry | Stop  -> (due again) …

Failures back off per key, from 1 s doubling to 5 min, with jitter, until the key succeeds or is reset.
Whoever enqueues a key wants it tried now; `notify` only wants it looked at. What fails is heard of by its own
events, and were each of them another try, nothing would ever back off. So `work` is told how much of the
wait is left, and looks without trying.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import attrs

from harmony_agent.backoff import Backoff
from harmony_agent.clock import monotonic_s, wait_until

__all__ = ["Forget", "Next", "RequeueAfter", "Retry", "Stop", "Work", "WorkQueue"]

log = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=1.0, most_s=300.0, jitter=0.2)
_ECHO_S = 0.05
"""What a turn changes makes events of its own, several of them: so soon after it, they are one look."""


@attrs.frozen
class Forget:
    """Nothing to do for this key until somebody adds it again."""


@attrs.frozen
class RequeueAfter:
    """Not finished and nothing wrong: look again in *after_s*. No back-off, no attempt counted."""

    after_s: float


@attrs.frozen
class Retry:
    """Went wrong, and counts as an attempt: try again in *after_s* (see `WorkQueue.next_backoff_s`)."""

    after_s: float


@attrs.frozen
class Stop:
    """Went wrong, and trying again is in vain: until somebody adds it again, it is only to be looked at."""


Next: TypeAlias = Forget | RequeueAfter | Retry | Stop

Work: TypeAlias = Callable[[str, "WorkQueue"], Coroutine[Any, Any, Next]]
"""One turn for a key."""


@attrs.define
class _Item:
    due: float | None = None
    """On the loop's clock; None while there is nothing to do."""
    again_s: float | None = None
    """Added while being worked on: how long after its end to look again."""
    failures: int = 0
    backoff_until: float | None = None
    """On the loop's clock; None for a key that did not fail last."""
    try_again: bool = False
    """Added, not only hinted at, while being worked on."""
    last: bool = False
    task: asyncio.Task[Next] | None = None

    def cancel(self) -> None:
        """Cancel what is running, once: a second time would end the wait for what is under way, which takes
        effect all the same."""
        if self.task is not None and not self.task.cancelling():
            self.task.cancel()

    @property
    def is_due(self) -> bool:
        return self.due is not None and _left_s(self.due) == 0


class WorkQueue:
    """Runs *work* for every key that is due. `run` it once; add keys from anywhere in the loop."""

    def __init__(self, work: Work, *, width: int = 128) -> None:
        self._work = work
        self._width = width
        self._items: dict[str, _Item] = {}
        self._wake = asyncio.Event()
        self._idle_event = asyncio.Event()
        self._ended: dict[str, float] = {}
        """When the last turn of each of these has ended, on the loop's clock."""
        self._waiters: list[asyncio.Future[int]] = []
        self._seq = 0
        self._running = 0
        self._pauses = 0
        """How many have asked that nothing is begun."""

    @property
    def busy(self) -> bool:
        """Whether anything is being worked on, or could be this instant."""
        if self._pauses:
            return self._running > 0
        return self._running > 0 or any(item.is_due for item in self._items.values())

    def attempts(self, key: str) -> int:
        """Return how often *key* has failed since it last succeeded or was renewed."""
        item = self._items.get(key)
        return item.failures if item else 0

    def backoff_left_s(self, key: str) -> float:
        """Return for how many seconds *key*, which has failed, is not tried again; 0 when it may be, infinite
        for `Stop`."""
        item = self._items.get(key)
        if item is None or item.backoff_until is None:
            return 0.0
        return _left_s(item.backoff_until)

    def enqueue(self, key: str, *, after_s: float = 0.0) -> None:
        """Look at *key* in *after_s*, as `notify` does, but never put that off, and end its back-off."""
        self._look(key, after_s)
        item = self._items[key]
        if item.task is not None:
            item.try_again = True
        item.backoff_until = None

    def notify(self, key: str, *, after_s: float = 0.0) -> None:
        """Look at *key* in *after_s*, or sooner if that is planned already. Do not end its back-off.

        Put off for a moment, and not longer, what may only be the echo of its own turn.
        """
        item = self._items.get(key)
        if item is not None and item.task is not None:
            after_s = max(after_s, _ECHO_S)
        elif (ended := self._ended.get(key)) is not None:
            after_s = max(after_s, _left_s(ended + _ECHO_S))
        self._look(key, after_s)

    def _look(self, key: str, after_s: float) -> None:
        item = self._items.setdefault(key, _Item())
        if item.task is not None:
            item.again_s = after_s if item.again_s is None else min(item.again_s, after_s)
            return
        due = monotonic_s() + after_s
        item.due = due if item.due is None else min(item.due, due)
        self._wake.set()

    def reset(self, key: str, *, last: bool = False) -> None:
        """Look at *key* now, because something newer is wanted of it: forget its failures, cancel what runs
        for it.

        ``last`` puts it behind every other key that is due.
        """
        item = self._items.setdefault(key, _Item())
        item.failures = 0
        item.last = last
        item.backoff_until = None
        item.cancel()
        self.enqueue(key)

    def cancel(self, key: str) -> None:
        """Cancel what runs for *key*, and plan nothing: something newer is about to be wanted of it."""
        item = self._items.get(key)
        if item is None:
            return
        item.failures, item.due, item.again_s = 0, None, None
        item.backoff_until, item.try_again = None, False
        item.cancel()

    def next_backoff_s(self, key: str) -> float:
        """Return how many seconds *key* should wait after one more failure."""
        return _BACKOFF.wait_s(self.attempts(key))

    @contextmanager
    def pause(self) -> Generator[None]:
        """Begin nothing within the block. What runs goes on, and the queue still counts as advancing."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._wake.set()

    async def probe(self) -> int:
        """Send an empty item through the queue. Return its number, once the dispatcher has seen it.

        A heartbeat relies on it: it proves that the queue advances, not only that a process lives.
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        return await waiter

    async def wait_idle(self, *, within_s: float) -> None:
        """Wait until nothing is being worked on, at most *within_s*."""
        self._idle_event.clear()
        if self.busy:
            await wait_until(self._idle_event, latest_s=monotonic_s() + within_s)

    async def run(self) -> None:
        """Dispatch until cancelled; then whatever runs is cancelled and waited for."""
        try:
            while True:
                # Whoever ends in this round of the loop adds its followers before it has made room for
                # them: a layer that ends together is to be followed by a whole one, not by what fits beside.
                await asyncio.sleep(0)
                self._wake.clear()
                self._dispatch()
                await self._until_next()
        finally:
            running = [item.task for item in self._items.values() if item.task is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _dispatch(self) -> None:
        self._seq += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(self._seq)
        self._waiters.clear()
        if self._pauses:
            return
        free = self._width - self._running
        due = [(key, item) for key, item in self._items.items() if item.is_due]
        for key, item in sorted(due, key=lambda each: each[1].last)[: max(free, 0)]:
            item.due = None
            item.task = asyncio.create_task(self._work(key, self), name=f"score {key}")
            item.task.add_done_callback(partial(self._on_finished, key))
            self._running += 1

    async def _until_next(self) -> None:
        dues = [item.due for item in self._items.values() if item.due is not None]
        full = self._pauses or self._running >= self._width
        await wait_until(self._wake, latest_s=min(dues) if dues and not full else None)

    def _on_finished(self, key: str, task: asyncio.Task[Next]) -> None:
        item = self._items[key]
        self._note_end(key)
        item.task = None
        self._running -= 1
        self._wake.set()
        if task.cancelled():
            outcome: Next = Forget()
        elif error := task.exception():
            # `work` turns what it expects into a Next; this is a defect, and must not end the agent.
            log.error("looking at %s failed", key, exc_info=error)
            outcome = Retry(self.next_backoff_s(key))
        else:
            outcome = task.result()
        self._plan(key, item, outcome)
        if not self.busy:
            self._idle_event.set()

    def _note_end(self, key: str) -> None:
        """Note that the turn of *key* ended. The earliest are first, and are dropped once nothing can be
        their echo."""
        self._ended.pop(key, None)
        self._ended[key] = monotonic_s()
        for oldest, at in list(itertools.islice(self._ended.items(), 2)):
            if not _left_s(at + _ECHO_S):
                del self._ended[oldest]

    def _plan(self, key: str, item: _Item, outcome: Next) -> None:
        # The end of a turn decides two things. Whether the key backs off: as its turn says, unless somebody
        # has asked for another try meanwhile (`enqueue`; a hint does not count). And when the next turn is:
        # at the earlier of what the turn asks for and what came meanwhile, since a turn that was under way
        # may have looked before that happened. A key without either, and without failures, is forgotten.
        if isinstance(outcome, Forget):
            item.failures, item.backoff_until = 0, None
        elif isinstance(outcome, Retry):
            item.failures += 1
            item.backoff_until = monotonic_s() + outcome.after_s
        elif isinstance(outcome, Stop):
            item.failures, item.backoff_until = 0, math.inf
        if item.try_again:
            item.backoff_until = None
        waits_s = [item.again_s, None if isinstance(outcome, Forget | Stop) else outcome.after_s]
        item.again_s, item.try_again = None, False
        after_s = min((each for each in waits_s if each is not None), default=None)
        if after_s is not None:
            item.due = monotonic_s() + after_s
        elif item.failures == 0 and item.backoff_until is None:
            del self._items[key]


def _left_s(until: float) -> float:
    return max(0.0, until - monotonic_s())
