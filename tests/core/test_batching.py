"""Gathering calls into runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_pi_topology.common.batching import Batcher


class Doubling:
    """Doubles numbers, a run at a time, when it is let; negative ones are refused singly."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.begun = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        self.faults: dict[int, Exception] = {}
        """By the number of the run that they break, from 1."""
        self.batcher: Batcher[int, int | ValueError] = Batcher(self._run)

    async def submit(self, *items: int) -> list[int | ValueError]:
        return list(await self.batcher.submit(items))

    async def under_way(self, *items: int) -> asyncio.Task[list[int | ValueError]]:
        """A submission whose run has begun and does not end before it is let."""
        self.let.clear()
        self.begun.clear()
        task = asyncio.create_task(self.submit(*items))
        await self.begun.wait()
        return task

    async def _run(self, items: Sequence[int]) -> Sequence[int | ValueError]:
        self.runs.append(list(items))
        number = len(self.runs)
        self.begun.set()
        await self.let.wait()
        if fault := self.faults.get(number):
            raise fault
        return [item * 2 if item >= 0 else ValueError(item) for item in items]


async def test_calls_made_at_the_same_time_share_a_run() -> None:
    doubling = Doubling()
    answers = await asyncio.gather(doubling.submit(1), doubling.submit(2, 3), doubling.submit())
    assert list(answers) == [[2], [4, 6], []]
    assert doubling.runs == [[1, 2, 3]]


async def test_calls_made_while_a_run_is_under_way_share_the_next() -> None:
    doubling = Doubling()
    first = await doubling.under_way(1)
    others = [asyncio.create_task(doubling.submit(item)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    doubling.let.set()
    assert list(await asyncio.gather(first, *others)) == [[2], [4], [6], [8]]
    assert doubling.runs == [[1], [2, 3, 4]]


async def test_a_call_made_later_gets_a_run_of_its_own() -> None:
    doubling = Doubling()
    assert await doubling.submit(1) == [2]
    assert await doubling.submit(2) == [4]
    assert doubling.runs == [[1], [2]]


async def test_what_goes_wrong_with_one_item_reaches_its_own_caller_only() -> None:
    doubling = Doubling()
    good, bad = await asyncio.gather(doubling.submit(1), doubling.submit(-1, 2))
    assert good == [2]
    assert isinstance(bad[0], ValueError)
    assert bad[1] == 4


async def test_an_error_of_a_run_reaches_all_its_callers_and_no_later_one() -> None:
    doubling = Doubling()
    doubling.faults[1] = OSError("disk full")
    answers = await asyncio.gather(doubling.submit(1), doubling.submit(2), return_exceptions=True)
    assert all(answer is doubling.faults[1] for answer in answers)
    assert await doubling.submit(3) == [6]


async def test_an_error_of_a_run_does_not_reach_those_who_wait_for_the_next() -> None:
    doubling = Doubling()
    first = await doubling.under_way(1)
    second = asyncio.create_task(doubling.submit(2))
    await asyncio.sleep(0)
    doubling.faults[1] = OSError("disk full")
    doubling.let.set()
    with pytest.raises(OSError, match="disk full"):
        await first
    assert await second == [4]


async def test_a_caller_cancelled_during_the_run_harms_no_other_and_its_items_are_run() -> None:
    doubling = Doubling()
    doubling.let.clear()
    cancelled, other = (asyncio.create_task(doubling.submit(item)) for item in (1, 2))
    await doubling.begun.wait()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    doubling.let.set()
    assert await other == [4]
    assert doubling.runs == [[1, 2]]


async def test_a_caller_cancelled_while_waiting_for_its_run_harms_no_other() -> None:
    doubling = Doubling()
    first = await doubling.under_way(1)
    cancelled, other = (asyncio.create_task(doubling.submit(item)) for item in (2, 3))
    await asyncio.sleep(0)
    cancelled.cancel()
    doubling.let.set()
    assert await first == [2]
    assert await other == [6]
    assert cancelled.cancelled()


async def test_an_error_that_only_a_cancelled_caller_would_hear_of_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    doubling = Doubling()
    first = await doubling.under_way(1)
    first.cancel()
    doubling.faults[1] = OSError("disk full")
    doubling.let.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await doubling.submit(2) == [4]
    assert caplog.records == []


async def test_a_run_that_answers_with_too_few_results_is_an_error_for_all_its_callers() -> None:
    async def forgetful(items: Sequence[int]) -> Sequence[int]:
        return items[1:]

    batcher: Batcher[int, int] = Batcher(forgetful)
    answers = await asyncio.gather(batcher.submit([1]), batcher.submit([2]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError]


async def test_nobody_waits_for_ever_when_a_run_is_cancelled() -> None:
    doubling = Doubling()
    before = asyncio.all_tasks()
    first = await doubling.under_way(1)
    (runner,) = asyncio.all_tasks() - before - {first}
    second = asyncio.create_task(doubling.submit(2))
    await asyncio.sleep(0)
    runner.cancel()
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
    doubling.let.set()
    assert await doubling.submit(3) == [6]


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.integers(0, 3)), max_size=12))
def test_everybody_gets_the_results_of_their_own_items_in_order(
    calls: list[tuple[list[int], int]],
) -> None:
    async def submitted() -> None:
        doubling = Doubling()

        async def call(items: list[int], after: int) -> list[int | ValueError]:
            for _ in range(after):
                await asyncio.sleep(0)
            return await doubling.submit(*items)

        answers = await asyncio.gather(*(call(items, after) for items, after in calls))
        assert answers == [[item * 2 for item in items] for items, _ in calls]

    asyncio.run(submitted())
