"""``drift.file``: from a file that somebody has written to, until it is put back durably.

Seen from outside, on the disk: from the close of the write until the file has its content again, by which
time the new one was flushed. Each file is written to once, since who insists meets growing patience.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed, file_scores
from .figures import Line, Unmeasurable, median, p99
from .goals import line
from .rounds import Rounds

__all__ = ["DRIFT", "drift"]

DRIFT = ("drift.file.p50", "drift.file.p99")
_WITHIN_S = 10.0
_WATCHED_S = 1.0


async def drift(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Agent and floor in turns, each with files of its own."""
    scores = file_scores("/etc/app", rounds.of(300), "as wanted ")
    await bed.agent("drift")
    await bed.push("drift", scores)
    floor = bed.root / "drift-floor.device"
    await bed.floor(
        "f7",
        "drift-floor",
        root=str(floor),
        entries=[each.model_dump(mode="json") for each in scores],
    )
    await asyncio.sleep(_WATCHED_S)
    ours, floors = await _in_turns(bed.device("drift"), floor, scores)
    yield line("drift.file.p50", median(ours, "ms"), median(floors, "ms"))
    yield line("drift.file.p99", p99(ours, "ms"), p99(floors, "ms"))


async def _in_turns(
    ours: Path, floor: Path, scores: Sequence[SerializedScore]
) -> tuple[list[float], list[float]]:
    took: tuple[list[float], list[float]] = ([], [])
    for score in scores:
        path, content = str(score.spec["path"]).lstrip("/"), str(score.spec["content"]).encode()
        for root, samples in zip((ours, floor), took, strict=True):
            samples.append(await asyncio.to_thread(_repaired_ms, root / path, content))
    return took


def _repaired_ms(path: Path, content: bytes) -> float:
    path.write_bytes(b"by hand")
    began = time.perf_counter()
    while path.read_bytes() != content:
        if time.perf_counter() - began > _WITHIN_S:
            raise Unmeasurable(f"{path.name} was not put back within {_WITHIN_S:g} s")
        time.sleep(0.00002)
    return (time.perf_counter() - began) * 1_000
