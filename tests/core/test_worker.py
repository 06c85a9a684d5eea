"""Blocking calls in an adapter's own threads, with deadlines."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest

from harmony_core.errors import CapabilityUnavailable, TimedOut
from harmony_pi_topology.common.worker import Worker

SOON_S = 0.02
MORE_THAN_THERE_IS_BYTES = 1 << 46


class Daemon:
    """Something that hangs until it is let, and counts what it did."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.begun = threading.Event()
        self.done: list[str] = []

    def serve(self, name: str = "", error: Exception | None = None) -> str:
        self.begun.set()
        self.let.wait()
        self.done.append(name)
        if error is not None:
            raise error
        return name.upper()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.let.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("the daemon", threads=1, timeout_s=60)
    yield worker
    worker.close()


async def plan_unit(daemon: Daemon) -> None:
    """Once a call has arrived there."""
    await asyncio.to_thread(daemon.begun.wait)


async def test_what_a_call_returns_comes_back(worker: Worker, daemon: Daemon) -> None:
    daemon.let.set()
    assert await worker.run(daemon.serve, "a") == "A"


async def test_what_a_call_raises_comes_back(worker: Worker, daemon: Daemon) -> None:
    daemon.let.set()
    with pytest.raises(OSError, match="refused"):
        await worker.run(daemon.serve, "a", OSError("refused"))


async def test_a_time_out_of_the_call_itself_is_not_taken_for_ours(
    worker: Worker, daemon: Daemon
) -> None:
    daemon.let.set()
    with pytest.raises(TimeoutError, match="the socket's"):
        await worker.run(daemon.serve, "a", TimeoutError("the socket's"))


async def test_a_call_that_takes_too_long_is_told_by_name_and_seconds(
    worker: Worker, daemon: Daemon
) -> None:
    with pytest.raises(TimedOut) as late:
        await worker.run_within(SOON_S, daemon.serve, "a")
    assert late.value.message == (
        "the daemon: serve did not end within 0.02 s; it is tried again later"
    )


async def test_what_was_given_up_still_takes_effect_and_settled_waits_for_it(
    worker: Worker, daemon: Daemon
) -> None:
    with pytest.raises(TimedOut):
        await worker.run_within(SOON_S, daemon.serve, "a")
    settled = asyncio.create_task(worker.wait_idle())
    await asyncio.sleep(0)
    assert not settled.done()
    daemon.let.set()
    await settled
    assert daemon.done == ["a"]


async def test_cancelling_the_caller_is_not_swallowed_and_the_effect_lands(
    worker: Worker, daemon: Daemon
) -> None:
    calling = asyncio.create_task(worker.run(daemon.serve, "a"))
    await plan_unit(daemon)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert daemon.done == []
    daemon.let.set()
    await worker.wait_idle()
    assert daemon.done == ["a"]


async def test_while_every_thread_hangs_further_calls_are_refused_at_once(daemon: Daemon) -> None:
    worker = Worker("the daemon", threads=2, timeout_s=60)
    calls = (worker.run_within(SOON_S, daemon.serve, name) for name in ("a", "b"))
    late = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in late] == [TimedOut, TimedOut]
    with pytest.raises(CapabilityUnavailable, match="2 calls hang; look at the daemon's journal"):
        await worker.run(daemon.serve, "c")
    daemon.let.set()
    await worker.wait_idle()
    assert await worker.run(daemon.serve, "d") == "D"
    assert sorted(daemon.done) == ["a", "b", "d"]
    worker.close()


async def test_with_a_thread_left_calls_go_on(daemon: Daemon) -> None:
    worker = Worker("the daemon", threads=2, timeout_s=60)
    with pytest.raises(TimedOut):
        await worker.run_within(SOON_S, daemon.serve)
    assert await worker.run(lambda: "answer") == "answer"
    worker.close()


async def test_a_call_that_got_no_thread_in_time_never_begins(
    worker: Worker, daemon: Daemon
) -> None:
    hanging = asyncio.create_task(worker.run(daemon.serve, "a"))
    await plan_unit(daemon)
    with pytest.raises(TimedOut):
        await worker.run_within(SOON_S, daemon.serve, "b")
    daemon.let.set()
    assert await hanging == "A"
    await worker.wait_idle()
    assert daemon.done == ["a"]


async def test_a_call_that_has_no_thread_when_its_caller_is_cancelled_never_begins(
    worker: Worker, daemon: Daemon
) -> None:
    hanging = asyncio.create_task(worker.run(daemon.serve, "a"))
    await plan_unit(daemon)
    waiting = asyncio.create_task(worker.run(daemon.serve, "b"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    daemon.let.set()
    assert await hanging == "A"
    await worker.wait_idle()
    assert daemon.done == ["a"]


async def test_one_adapter_that_hangs_keeps_no_other_waiting(
    worker: Worker, daemon: Daemon
) -> None:
    hanging = asyncio.create_task(worker.run(daemon.serve, "a"))
    await plan_unit(daemon)
    other = Worker("another daemon", threads=1, timeout_s=60)
    assert await other.run(lambda: "answer") == "answer"
    other.close()
    daemon.let.set()
    assert await hanging == "A"


async def test_what_an_abandoned_call_raises_disturbs_nobody(
    worker: Worker, daemon: Daemon
) -> None:
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    with pytest.raises(TimedOut):
        await worker.run_within(SOON_S, daemon.serve, "a", OSError("too late"))
    daemon.let.set()
    await worker.wait_idle()
    await asyncio.sleep(0)
    gc.collect()
    assert daemon.done == ["a"]
    assert heard == []


async def test_it_is_settled_when_nothing_is_under_way(worker: Worker) -> None:
    await worker.wait_idle()
    assert await worker.run(len, "abc") == 3
    await worker.wait_idle()


async def test_a_call_that_moves_is_waited_for_and_one_that_stopped_is_not(daemon: Daemon) -> None:
    worker = Worker("the disk", threads=2, timeout_s=SOON_S)
    asked = 0

    def moves_twice() -> int:
        nonlocal asked
        asked += 1
        if asked == 4:
            daemon.let.set()  # from now on it would be answered
        return asked

    assert await worker.run_while_moving(moves_twice, daemon.serve, "a") == "A"
    assert asked >= 4
    daemon.let.clear()
    with pytest.raises(TimedOut, match=r"the disk: no step was made within 0\.02 s"):
        await worker.run_while_moving(lambda: 1, daemon.serve, "b")
    daemon.let.set()
    await worker.wait_idle()
    assert daemon.done == ["a", "b"]
    worker.close()


async def test_a_call_for_which_no_thread_can_begin_is_refused_and_never_begun() -> None:
    worker = Worker("the disk", threads=1, timeout_s=10)
    done: list[str] = []
    before = threading.stack_size(MORE_THAN_THERE_IS_BYTES)
    try:
        with pytest.raises(
            CapabilityUnavailable, match=r"^the disk: .*; look at the device's memory"
        ):
            await worker.run(done.append, "refused")
    finally:
        threading.stack_size(before)
    await worker.run(done.append, "asked for again")
    assert done == ["asked for again"]
    worker.close()
