"""``fsyncs.*`` and ``push.call``: what is good to know beside the ratios. No goal judges these lines.

A flush to an SD card costs 20 to 100 times what it costs here, so that their number says more than
milliseconds do. They are counted by strace, of every thread of the agent.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from harmony_control.fleet import Fleet
from harmony_core.wire.manifest import SerializedScore
from harmony_scores import FileScore

from .bed import Bed, file_scores
from .figures import Figure, Line, Unmeasurable, median
from .goals import line
from .rounds import Rounds

__all__ = ["FLUSHES", "flushes"]

FLUSHES = (
    "push.call",
    "fsyncs.push.noop",
    "fsyncs.push.file_changed",
    "fsyncs.push.100_files.first",
    "fsyncs.push.100_files.again",
)
_WRITTEN_S = 0.5
_TRACED = "trace=fsync,fdatasync,syncfs,sync_file_range"


async def flushes(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Measure the whole call of the Python API; then an agent under strace, and one push after the other."""
    yield line("push.call", median(await _calls(bed, rounds.of(50)), "ms"), note=_CALL)
    if shutil.which("strace") is None:
        raise Unmeasurable("strace is not installed")
    log = bed.root / "strace.log"
    await bed.agent("flushes", prefix=["strace", "-D", "-f", "-qq", "-e", _TRACED, "-o", str(log)])
    await _counted(bed, log, [])
    one = file_scores("/etc/one", 1, "one")
    hundred = file_scores("/etc/app", 100, "x" * 1_000)
    await _counted(bed, log, one)
    for name, scores in (
        ("noop", one),
        ("file_changed", file_scores("/etc/one", 1, "two")),
        ("100_files.first", hundred),
        ("100_files.again", hundred),
    ):
        count = await _counted(bed, log, scores)
        yield line(f"fsyncs.push.{name}", Figure(count, 0, "fsyncs"))


_CALL = "Fleet.device().push(): reading, checking, merging, signing and storing included"


async def _calls(bed: Bed, count: int) -> list[float]:
    await bed.agent("call")
    device = Fleet(bed.bus.home, bed.bus.admin).device("call")
    score = FileScore(path="/etc/app/file", content="the same each time")
    took: list[float] = []
    for number in range(count + 2):
        began = time.perf_counter()
        await device.push(score, id="file")
        if number > 1:
            took.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(0.01)
    return took


async def _counted(bed: Bed, log: Path, scores: list[SerializedScore]) -> int:
    """How often the agent flushed because of *scores*."""
    before = _flushes_in(log)
    await bed.push("flushes", scores)
    await asyncio.sleep(_WRITTEN_S)  # the last commit follows the report
    return _flushes_in(log) - before


def _flushes_in(log: Path) -> int:
    if not log.exists():
        return 0
    return sum("sync" in each and "resumed" not in each for each in log.read_text().splitlines())
