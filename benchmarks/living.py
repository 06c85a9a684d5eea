"""``agent.*``: what it costs to have an agent: memory, and computing while nothing happens.

Without ``containers`` the device is a folder. With, a service that answers like podman's stands behind the
socket, and a Score has asked for a container: what counts is the agent that has podman-py loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from .bed import Bed, Program, file_scores
from .figures import Line, median
from .goals import line
from .processes import cpu_ms, memory_of
from .rounds import Rounds

__all__ = ["IDLE", "MEMORY", "idle", "memory"]

MEMORY = ("agent.rss", "agent.pss")
IDLE = ("agent.idle_cpu",)
_SETTLED_S = 2.0
_HEARTBEAT_S = 10.0


async def memory(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Of an agent that keeps a hundred files, and of every process that it keeps alive."""
    scores = file_scores("/etc/app", 100, "x" * 100)
    ours, floors = list[Program](), list[Program]()
    for number in range(rounds.of(3)):
        ours.append(await bed.agent(f"living-{number}"))
        await bed.push(f"living-{number}", scores)
        floors.append(await _floor(bed, f"living-floor-{number}"))
    await asyncio.sleep(_SETTLED_S)
    held = [memory_of(each.pids) for each in ours]
    least = [memory_of(each.pids) for each in floors]
    yield line(
        "agent.rss", median([m.rss for m in held], "MiB"), median([m.rss for m in least], "MiB")
    )
    yield line(
        "agent.pss", median([m.pss for m in held], "MiB"), median([m.pss for m in least], "MiB")
    )


async def idle(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Both at once, over the same minute, with a heartbeat every 10 s."""
    agent = await bed.agent("idle", heartbeat_s=_HEARTBEAT_S)
    await bed.push("idle", file_scores("/etc/app", 100, "x" * 100))
    floor = await _floor(bed, "idle-floor")
    await asyncio.sleep(_SETTLED_S)
    before = cpu_ms(agent.pid), cpu_ms(floor.pid)
    await asyncio.sleep(rounds.idle_s)
    took = cpu_ms(agent.pid) - before[0], cpu_ms(floor.pid) - before[1]
    a_minute = 60.0 / rounds.idle_s
    yield line(
        "agent.idle_cpu",
        median([took[0] * a_minute], "ms/min"),
        median([took[1] * a_minute], "ms/min"),
        note="" if rounds.idle_s == 60.0 else f"of {rounds.idle_s:g} s only",
    )


async def _floor(bed: Bed, name: str) -> Program:
    if name not in bed.bus.home.agents():
        await bed.told(name)
    await bed.put(name, bed.sealed(name, [])[1])
    return await bed.floor("f3", name, heartbeat_s=_HEARTBEAT_S, podman=None)
