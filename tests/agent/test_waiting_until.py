"""Waiting until a moment of the loop's clock: nobody goes on before it."""

from __future__ import annotations

import asyncio

import pytest

from harmony_agent.apply.queue import Forget, Next, RequeueAfter, WorkQueue
from harmony_agent.clock import monotonic_s, wait_until

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(10)]

EARLY_S = 4e-10
"""Less than what a loop takes for the resolution of its clock: by so much, its timers may end too early."""


async def test_who_has_waited_until_a_moment_is_not_before_it() -> None:
    await asyncio.sleep(0.25)
    latest_s = monotonic_s() + 1 + EARLY_S
    assert not await wait_until(asyncio.Event(), latest_s=latest_s)
    assert monotonic_s() >= latest_s


async def test_what_is_due_a_moment_after_its_timer_is_done() -> None:
    """Who went on a moment too early would wait for it anew, again and again, and without an end."""
    looks: list[float] = []

    async def look(key: str, queue: WorkQueue) -> Next:
        del key, queue
        looks.append(monotonic_s())
        return RequeueAfter(1 + EARLY_S) if len(looks) < 5 else Forget()

    queue = WorkQueue(look)
    running = asyncio.create_task(queue.run())
    queue.enqueue("web")
    await asyncio.sleep(10)
    running.cancel()
    assert len(looks) == 5
