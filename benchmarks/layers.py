"""``fsyncs.ledger.*``: how often a generation flushes the agent's database, by layers of ``after``.

The floor is the number of layers, so that the ratio is of one. What is flushed of the files themselves is
not counted here: they are what was asked for.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed
from .figures import Figure, Line, Unmeasurable
from .goals import line
from .rounds import Rounds

__all__ = ["LAYERS", "layers"]

_SHAPES = tuple((scores, deep) for deep in (1, 3) for scores in (1, 10, 100))
LAYERS = tuple(f"fsyncs.ledger.{scores}_a_layer.{deep}_deep" for scores, deep in _SHAPES)
_TRACED = "trace=fsync,fdatasync,syncfs,sync_file_range"
_WRITTEN_S = 0.5


async def layers(bed: Bed, _: Rounds) -> AsyncIterator[Line]:
    """One new generation of each shape, on a device that has nothing before it."""
    if shutil.which("strace") is None:
        raise Unmeasurable("strace is not installed")
    log = bed.root / "layers.strace"
    strace = ["strace", "-D", "-f", "-qq", "-y", "-e", _TRACED, "-o", str(log)]
    await bed.agent("layers", prefix=strace)
    await _pushed(bed, _layered(1, 1))
    for name, (scores, deep) in zip(LAYERS, _SHAPES, strict=True):
        await _pushed(bed, [])
        await bed.until("layers", lambda state: not state["scores"])
        await asyncio.sleep(_WRITTEN_S)
        before = _flushes_in(log, bed.state("layers"))
        await _pushed(bed, _layered(scores, deep))
        count = _flushes_in(log, bed.state("layers")) - before
        yield line(name, Figure(count, 0, "fsyncs"), Figure(deep, 0, "layers"))


def _layered(scores: int, deep: int) -> list[SerializedScore]:
    """*scores* files in each of so many layers, each after one of the layer below."""
    return [
        SerializedScore(
            id=f"file-{layer}-{number}",
            kind="FileScore",
            version=1,
            spec={"path": f"/etc/app/{layer}-{number}", "content": f"{number}\n"},
            after=(f"file-{layer - 1}-{number}",) if layer else (),
        )
        for layer in range(deep)
        for number in range(scores)
    ]


async def _pushed(bed: Bed, scores: list[SerializedScore]) -> None:
    await bed.push("layers", scores)
    await bed.until("layers", lambda state: _are_done(state["scores"], len(scores)))
    await asyncio.sleep(_WRITTEN_S)  # the last commit follows the report


def _are_done(pages: dict[str, dict[str, dict[str, str]]], count: int) -> bool:
    statuses = [page["outcome"]["status"] for page in pages.values()]
    return len(statuses) == count and set(statuses) <= {"SUCCESS"}


def _flushes_in(log: Path, state: Path) -> int:
    """Of the database and of SQLite's files beside it."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(f"{state}/agent.db" in each and "resumed" not in each for each in lines)
