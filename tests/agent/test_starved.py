"""An agent, as a process of its own, that is given too little: it says so, and goes on by itself."""

from __future__ import annotations

import asyncio
import resource

from harmony_core.wire.actual_state import ActualState
from harmony_scores import FileScore

from .process import process
from .rig import Rig, code, entry, status


def file(name: str, size_bytes: int = 10) -> FileScore:
    return FileScore(path=f"/srv/{name}", content="x" * size_bytes)


def is_right(state: ActualState) -> bool:
    return {each.outcome.status for each in state.scores.values()} <= {"SUCCESS", "NOOP"}


async def test_without_descriptors_it_beats_on_and_goes_on_once_it_has_some(rig: Rig) -> None:
    async with process(rig) as agent:
        await rig.put(1, entry(file("old"), "old"))
        await rig.seen(1)
        await rig.worked()
        agent.limit(resource.RLIMIT_NOFILE, agent.descriptors() + 1)
        await rig.put(2, entry(file("old", 20), "old"), entry(file("new"), "new"))
        state = await rig.until(lambda state: status(state.scores).get("old") == "FAILURE")
        assert code(state.scores["old"]) == "WriteFailed"
        assert "raise the agent's LimitNOFILE" in state.scores["old"].outcome.message
        assert not any("make room" in each.message for each in state.conditions)
        await rig.worked()
        assert (agent.root / "srv/old").read_bytes() == b"x" * 10
        agent.limit(resource.RLIMIT_NOFILE, 1024)
        await rig.until(lambda state: state.observed_generation == 2 and is_right(state))
        assert (agent.root / "srv/old").read_bytes() == b"x" * 20


async def test_without_memory_it_keeps_what_it_has_and_is_back_once_it_has_some(rig: Rig) -> None:
    """Whatever finds none: here it is the connection, which must not stand as if somebody still heard."""
    async with process(rig) as agent:
        await rig.put(1, entry(file("old"), "old"))
        await rig.seen(1)
        await rig.worked()
        agent.limit(resource.RLIMIT_AS, agent.address_space_bytes())
        generation = 1
        async with asyncio.timeout(20):
            while "this device has no memory left" not in agent.said():
                generation += 1
                await rig.put(
                    generation, entry(file("old", min(50_000 * generation, 200_000)), "old")
                )
                await asyncio.sleep(0.2)
        assert set((agent.root / "srv/old").read_bytes()) == set(b"x")
        agent.limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        generation += 1
        await rig.put(generation, entry(file("old", 30), "old"), entry(file("new"), "new"))
        await rig.until(lambda state: state.observed_generation == generation and is_right(state))
        assert (agent.root / "srv/old").read_bytes() == b"x" * 30
