"""``lasting.*``: what a thousand generations leave behind, on a device of a thousand resources.

The floor is the same agent after the first fifty: what grows then, grows for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed, Program
from .figures import Line, median
from .goals import line
from .processes import memory_of
from .rounds import Rounds
from .ten_files import THOUSAND, registered

__all__ = ["GENERATIONS", "generations"]

GENERATIONS = ("lasting.rss", "lasting.descriptors", "lasting.disk")
_UNITS = ("MiB", "open", "MiB")
_FIRST = 50
_SETTLED_S = 1.0


async def generations(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Change the ten files of one Score of a hundred with each generation, and measure what that takes."""
    agent = await bed.agent("lasting", environ=registered(bed.root / "kinds"))
    count = max(2, rounds.of(1_000))
    held: list[Sequence[float]] = []
    for generation in range(1, count + 1):
        await bed.push("lasting", [*THOUSAND[1:], _changed(generation)])
        if generation in {min(_FIRST, count // 2), count}:
            await asyncio.sleep(_SETTLED_S)
            held.append(await asyncio.to_thread(_held, agent, bed.state("lasting")))
    assert bed.statuses("lasting") == {"NOOP", "SUCCESS"}
    note = "" if count == 1_000 else f"of {count} generations only"
    for name, unit, before, after in zip(GENERATIONS, _UNITS, *held, strict=True):
        yield line(name, median([after], unit), median([before], unit), note=note)


def _changed(generation: int) -> SerializedScore:
    score = THOUSAND[0]
    return score.model_copy(update={"spec": {**score.spec, "content": f"{generation}\n"}})


def _held(agent: Program, state: Path) -> Sequence[float]:
    """Its memory, its open descriptors, and what it keeps on the disk, which includes SQLite's journal."""
    descriptors = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    size_bytes = sum(path.stat().st_size for path in state.rglob("*"))
    return memory_of(agent.pids).rss, descriptors, size_bytes / 2**20
