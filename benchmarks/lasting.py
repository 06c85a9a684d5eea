"""``lasting.*``: what a thousand generations leave behind, and what many watched files cost.

Of generations, the floor is the same agent after the first fifty: what grows then, grows for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from harmony_core.manifest import SCORES_MOST

from .bed import Bed, file_scores
from .figures import Line, median
from .goals import line
from .living import idle_compared
from .processes import memory_of
from .rounds import Rounds

__all__ = ["GENERATIONS", "WATCHED", "generations", "watched"]

GENERATIONS = ("lasting.rss", "lasting.descriptors")
WATCHED = ("lasting.idle_cpu.400_files",)
_FIRST = 50
_SETTLED_S = 1.0


async def generations(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """One Score of ten changes with each generation."""
    agent = await bed.agent("lasting")
    rss, descriptors = list[float](), list[int]()
    count = rounds.of(1_000)
    kept = file_scores("/etc/kept", 9, "as ever ")
    for generation in range(1, count + 1):
        changing = file_scores("/etc/changing", 1, f"{generation} ")
        changing = [each.model_copy(update={"id": "changing"}) for each in changing]
        await bed.push("lasting", [*kept, *changing])
        if generation in {min(_FIRST, count // 2), count}:
            await asyncio.sleep(_SETTLED_S)
            rss.append(memory_of(agent.pids).rss)
            descriptors.append(await asyncio.to_thread(_open_by, agent.pid))
    note = "" if count == 1_000 else f"of {count} generations only"
    for name, (before, after), unit in (
        (GENERATIONS[0], rss, "MiB"),
        (GENERATIONS[1], descriptors, "open"),
    ):
        yield line(name, median([after], unit), median([before], unit), note=note)


def _open_by(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def watched(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """As ``agent.idle_cpu``, with as many files as there may be Scores."""
    files = file_scores("/etc/app", SCORES_MOST, "x")
    async for each in idle_compared(bed, rounds, "watched", WATCHED[0], files):
        yield each
