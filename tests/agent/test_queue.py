"""The work queue, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from harmony_agent.apply.queue import Forget, Next, RequeueAfter, Retry, WorkQueue
from harmony_pi_topology.common.batching import Batcher

pytestmark = pytest.mark.looptime

Work = Callable[[str, WorkQueue], Coroutine[Any, Any, Next]]


@asynccontextmanager
async def running(work: Work, *, width: int = 8) -> AsyncGenerator[WorkQueue]:
    queue = WorkQueue(work, width=width)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Recorder:
    """Does what it is told for each key, and remembers when it was asked."""

    def __init__(self, *answers: Next, takes_s: float = 0.0) -> None:
        self.calls: list[tuple[str, float]] = []
        self.at_once: set[str] = set()
        self._answers = list(answers)
        self._takes_s = takes_s

    async def __call__(self, key: str, queue: WorkQueue) -> Next:
        assert key not in self.at_once, f"{key} is worked on twice at once"
        self.at_once.add(key)
        try:
            self.calls.append((key, asyncio.get_running_loop().time()))
            await asyncio.sleep(self._takes_s)
        finally:
            self.at_once.discard(key)
        return self._answers.pop(0) if self._answers else Forget()

    def times(self, key: str) -> list[float]:
        return [round(when, 3) for name, when in self.calls if name == key]


async def test_requests_for_one_key_become_one_look() -> None:
    work = Recorder()
    async with running(work) as queue:
        for _ in range(10):
            queue.enqueue("web")
        await asyncio.sleep(1)
    assert len(work.calls) == 1


async def test_a_request_while_working_leads_to_exactly_one_more_look() -> None:
    work = Recorder(takes_s=1)
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(0.5)
        queue.enqueue("web")
        queue.enqueue("web")
        await asyncio.sleep(5)
    assert work.times("web") == [0, 1]


async def test_different_keys_run_side_by_side_within_the_width() -> None:
    work = Recorder(takes_s=1)
    async with running(work, width=2) as queue:
        for key in "abcd":
            queue.enqueue(key)
        await asyncio.sleep(5)
    assert [round(when) for _, when in work.calls] == [0, 0, 1, 1]


async def test_what_ends_together_is_followed_by_all_its_followers_together() -> None:
    """A layer of ``after`` is one batch, and one flush, also where the width has room for one layer only."""
    may_end, flushed = asyncio.Event(), list[int]()

    async def flush(keys: Sequence[str]) -> Sequence[None]:
        flushed.append(len(keys))
        await asyncio.sleep(1)
        return [None] * len(keys)

    together: Batcher[str, None] = Batcher(flush)

    async def work(key: str, queue: WorkQueue) -> Next:
        if key.startswith("first"):
            await may_end.wait()
            queue.enqueue(key.replace("first", "second"))
        else:
            await together.submit([key])
        return Forget()

    async with running(work, width=5) as queue:
        for number in range(4):
            queue.enqueue(f"first {number}")
        await asyncio.sleep(1)
        may_end.set()
        await asyncio.sleep(5)
    assert flushed == [4]


async def test_failures_back_off_from_one_second_to_five_minutes() -> None:
    async def work(key: str, queue: WorkQueue) -> Next:
        waits.append(queue.next_backoff_s(key))
        return Retry(waits[-1])

    waits: list[float] = []
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(3600)
    assert 0.8 <= waits[0] <= 1.2
    assert 1.6 <= waits[1] <= 2.4
    assert all(240 <= wait <= 360 for wait in waits[9:])
    assert len(waits) > 10


async def test_a_renewal_forgets_failures_and_looks_at_once() -> None:
    work = Recorder(Retry(100), Forget())
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(1)
        assert queue.attempts("web") == 1
        queue.reset("web")
        assert queue.attempts("web") == 0
        await asyncio.sleep(1)
    assert work.times("web") == [0, 1]


async def test_a_timer_that_rings_a_trifle_early_rings_once() -> None:
    async def work(key: str, queue: WorkQueue) -> Next:
        left.append(queue.backoff_left_s(key))
        return Retry(100 + 5e-10) if len(left) == 1 else Forget()

    left: list[float] = []
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(200)
    assert left == [0, 0]


async def test_a_hint_leads_to_a_look_and_ends_no_back_off() -> None:
    async def work(key: str, queue: WorkQueue) -> Next:
        left_s = queue.backoff_left_s(key)
        looks.append((asyncio.get_running_loop().time(), left_s))
        return RequeueAfter(left_s) if left_s else Retry(100)

    looks: list[tuple[float, float]] = []
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(40)
        queue.notify("web")
        await asyncio.sleep(70)
        assert queue.attempts("web") == 2
        queue.enqueue("web")
        await asyncio.sleep(1)
        assert queue.attempts("web") == 3
    assert looks == [(0, 0), (40, 60), (100, 0), (110, 0)]


async def test_what_is_added_while_it_fails_is_tried_again_at_once_and_what_is_hinted_at_is_not() -> (
    None
):
    async def work(key: str, queue: WorkQueue) -> Next:
        await asyncio.sleep(1)
        waits[key].append(queue.backoff_left_s(key))
        return Retry(100) if len(waits[key]) == 1 else Forget()

    waits: dict[str, list[float]] = {"added": [], "hinted": []}
    async with running(work) as queue:
        queue.enqueue("added")
        queue.enqueue("hinted")
        await asyncio.sleep(0.5)
        queue.enqueue("added")
        queue.notify("hinted")
        await asyncio.sleep(5)
    assert waits == {"added": [0, 0], "hinted": [0, pytest.approx(99, abs=0.1)]}


async def test_a_renewal_cancels_what_runs_for_something_older() -> None:
    async def work(key: str, queue: WorkQueue) -> Next:
        started.append(asyncio.get_running_loop().time())
        if len(started) == 1:
            await asyncio.sleep(10_000)
        return Forget()

    started: list[float] = []
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(5)
        queue.reset("web")
        await asyncio.sleep(1)
        assert not queue.busy
    assert started == [0, 5]


async def test_waiting_for_readiness_counts_no_attempt() -> None:
    work = Recorder(RequeueAfter(2), RequeueAfter(2), Forget())
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(3)
        assert queue.attempts("web") == 0
        await asyncio.sleep(10)
    assert work.times("web") == [0, 2, 4]


async def test_a_defect_in_the_work_is_retried_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(key: str, queue: WorkQueue) -> Next:
        calls.append(key)
        if len(calls) == 1:
            raise ZeroDivisionError
        return Forget()

    calls: list[str] = []
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(10)
    assert calls == ["web", "web"]
    assert "ZeroDivisionError" in caplog.text


async def test_an_empty_item_passes_through_while_every_place_is_taken() -> None:
    work = Recorder(takes_s=1000)
    async with running(work, width=1) as queue:
        queue.enqueue("web")
        await asyncio.sleep(1)
        first = await queue.probe()
        second = await queue.probe()
    assert second > first


async def test_what_is_put_last_starts_after_the_others() -> None:
    work = Recorder(takes_s=1)
    async with running(work, width=1) as queue:
        queue.reset("suspect", last=True)
        queue.reset("b")
        queue.reset("c")
        await asyncio.sleep(10)
    assert [key for key, _ in work.calls] == ["b", "c", "suspect"]


async def test_calm_ends_when_the_work_does_or_when_it_has_waited_enough() -> None:
    work = Recorder(takes_s=3)
    async with running(work) as queue:
        queue.enqueue("web")
        await asyncio.sleep(0)
        await queue.wait_idle(within_s=1)
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        await queue.wait_idle(within_s=10)
        assert asyncio.get_running_loop().time() == pytest.approx(3)
