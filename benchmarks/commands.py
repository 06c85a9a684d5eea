"""``cli.*``: how long a person waits for the command, from the shell and back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from .bed import Bed, file_scores, floor_command
from .figures import Line, median
from .goals import line
from .processes import run_once
from .rounds import Rounds

__all__ = ["COMMANDS", "HARMONY", "commands", "in_turn"]

COMMANDS = ("cli.help", "cli.status")
HARMONY = str(Path(sys.executable).with_name("harmony"))


async def commands(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """``--help`` beside an interpreter that does nothing; ``status`` beside one read of the bus."""
    bare = [sys.executable, "-c", "pass"]
    ours, floor = await in_turn(bed, rounds.of(30), [HARMONY, "--help"], bare)
    yield line("cli.help", median(ours, "ms"), median(floor, "ms"))
    await bed.agent("cli")
    await bed.push("cli", file_scores("/etc/app", 1, "the same each time"))
    seed = await asyncio.to_thread(bed.bus.home.control().admin_seed.read_text)
    read = floor_command("f11", await bed.told("cli", seed=seed.strip()))
    ours, floor = await in_turn(bed, rounds.of(20), [HARMONY, "status", "cli"], read)
    yield line("cli.status", median(ours, "ms"), median(floor, "ms"))


async def in_turn(
    bed: Bed,
    count: int,
    ours: Sequence[str],
    floor: Sequence[str],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
) -> tuple[list[float], list[float]]:
    """Return what each run of both took, in turn; *before* is done ahead of each pair, and not timed."""
    environ = {**os.environ, "HARMONY_HOME": str(bed.bus.home.root)}
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(count + 1):
        if before is not None:
            await before()
        for into, command in zip(took, (ours, floor), strict=True):
            log = str(bed.root / "command.log")
            ran = await asyncio.to_thread(run_once, command, environ=environ, output=log)
            assert ran.status == 0, f"{command} ended with {ran.status}"
            if number:
                into.append(ran.wall_ms)
    return took
