"""``agent.*``: what it costs to have an agent: memory, and computing while nothing happens.

The device is a folder. What one with containers holds in memory is told in `benchmarks.containers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed, Program, file_scores
from .figures import Line, median
from .goals import line
from .processes import cpu_ms, memory_of
from .rounds import Rounds
from .ten_files import THOUSAND, registered

__all__ = ["IDLE", "MEMORY", "idle", "memory"]

MEMORY = ("agent.rss", "agent.pss")
IDLE = ("agent.idle_cpu", "lasting.idle_cpu.1000_resources")
_SETTLED_S = 2.0
_FILES = file_scores("/etc/app", 100, "x" * 100)
_HEARTBEAT_S = 10.0


async def memory(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Of an agent that keeps a hundred files, and of every process that it keeps alive."""
    ours, floors = list[Program](), list[Program]()
    for number in range(rounds.of(3)):
        name = f"living-{number}"
        ours.append(await bed.agent(name))
        await bed.push(name, _FILES)
        floors.append(await _floor(bed, f"{name}-floor"))
    await asyncio.sleep(_SETTLED_S)
    for each in _compared(MEMORY, ours, floors):
        yield each


def _compared(names: tuple[str, str], ours: list[Program], floors: list[Program]) -> list[Line]:
    held = [memory_of(each.pids) for each in ours]
    least = [memory_of(each.pids) for each in floors]
    rss = median([m.rss for m in held], "MiB"), median([m.rss for m in least], "MiB")
    pss = median([m.pss for m in held], "MiB"), median([m.pss for m in least], "MiB")
    return [line(names[0], *rss), line(names[1], *pss)]


async def idle(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """All at once, over the same minutes, with a heartbeat every 10 s: a hundred files, and a thousand."""
    few = await _idling(bed, "few", _FILES)
    many = await _idling(bed, "many", THOUSAND)
    floor = await _floor(bed, "idle-floor")
    await asyncio.sleep(_SETTLED_S)
    took: list[list[float]] = [[], [], []]
    for _ in range(rounds.of(3)):
        before = [cpu_ms(each.pid) for each in (few, many, floor)]
        await asyncio.sleep(rounds.idle_s)
        for samples, each, was in zip(took, (few, many, floor), before, strict=True):
            samples.append((cpu_ms(each.pid) - was) * 60.0 / rounds.idle_s)
    note = "" if rounds.idle_s == 60.0 else f"of {rounds.idle_s:g} s only"
    figures = [median(samples, "ms/min") for samples in took]
    for name, figure in zip(IDLE, figures, strict=False):
        yield line(name, figure, figures[-1], note=note)


async def _idling(bed: Bed, name: str, scores: Sequence[SerializedScore]) -> Program:
    environ = registered(bed.root / "kinds")
    agent = await bed.agent(name, heartbeat_s=_HEARTBEAT_S, environ=environ)
    await bed.push(name, scores)
    assert bed.statuses(name) == {"SUCCESS"}
    return agent


async def _floor(bed: Bed, name: str) -> Program:
    await bed.put(name, bed.sealed(name, _FILES)[1])
    return await bed.floor("f3", name, heartbeat_s=_HEARTBEAT_S, podman=None)
