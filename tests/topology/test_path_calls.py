"""Calls in threads, one at a time, whatever becomes of whoever waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_pi_topology.common.path_calls import PathCalls, step


async def cancelled_while_it_runs(calls: PathCalls, work: Callable[[], None]) -> None:
    begun = threading.Event()

    def run() -> None:
        begun.set()
        work()

    task = asyncio.create_task(calls.run(run))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_next_begins_once_the_thread_of_a_cancelled_call_has_ended(
    tmp_path: Path,
) -> None:
    calls, may_end, done = PathCalls("test", str(tmp_path)), threading.Event(), list[str]()

    def first() -> None:
        may_end.wait()
        done.append("first")

    await cancelled_while_it_runs(calls, first)
    second = asyncio.create_task(calls.run(done.append, "second"))
    await asyncio.sleep(0.05)
    assert not done
    may_end.set()
    await second
    assert done == ["first", "second"]
    calls.close()


async def test_what_hangs_after_it_was_cancelled_is_not_waited_for_without_end(
    tmp_path: Path,
) -> None:
    calls, may_end = PathCalls("test", str(tmp_path), patience_s=2.0), threading.Event()
    late: list[str] = []

    def hang() -> None:
        may_end.wait()
        step("/etc/late")
        late.append("an effect")

    await cancelled_while_it_runs(calls, hang)
    try:
        assert await calls.run(lambda: "next") == "next"
    finally:
        may_end.set()
    assert await calls.run(lambda: "and next") == "and next"
    assert not late
    calls.close()
