"""Whose turn it is with a container."""

from __future__ import annotations

import asyncio

from harmony_core.container_turns import ContainerTurns

NETWORK = "container-network:back"


def test_what_was_taken_off_earlier_rests_until_all_is_let_go() -> None:
    turns = ContainerTurns()
    turns.keep_at_rest(NETWORK, ["db", "front"])
    turns.keep_at_rest(NETWORK, ["front"])
    assert turns.find_keeper("db") == turns.find_keeper("front") == NETWORK
    assert turns.find_keeper("web") is None
    turns.let_go(NETWORK)
    assert turns.find_keeper("db") is None


def test_what_nobody_speaks_of_any_more_rests_no_longer() -> None:
    now_s = 0.0
    turns = ContainerTurns(monotonic_s=lambda: now_s)
    turns.keep_at_rest(NETWORK, ["db"])
    now_s = 29.0
    turns.keep_at_rest(NETWORK, ["front"])
    now_s = 58.0
    assert turns.find_keeper("db") == NETWORK
    now_s = 59.0
    assert turns.find_keeper("db") is None


async def test_turns_of_several_never_wait_for_each_other() -> None:
    turns, at_work = ContainerTurns(), 0

    async def work(*names: str) -> None:
        nonlocal at_work
        async with turns.take(names):
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0)
            at_work -= 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(work("a", "b") if n % 2 else work("b", "a") for n in range(50)))
