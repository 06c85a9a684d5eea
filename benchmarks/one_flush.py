"""``flush.100_files.syncfs``: one syncfs for a batch of files, over a flush of each. No goal judges it.

Also beside somebody who writes much to the same disk, whose data the one flush has to wait for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from .bed import Bed
from .figures import Line, median
from .goals import line
from .rounds import Rounds

__all__ = ["ONE_FLUSH", "one_flush"]

ONE_FLUSH = ("flush.100_files.syncfs", "flush.100_files.syncfs.beside_a_writer")
_MIB = 1024 * 1024


async def one_flush(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Write a hundred files of 1 KiB, in both ways in turn, on a quiet disk and on one that is written to."""
    each = await bed.floor("f6", "flush-each")
    once = await bed.floor("f6", "flush-once", syncfs=True)
    for name in ONE_FLUSH:
        took_each, took_once = list[float](), list[float]()
        async with AsyncExitStack() as stack:
            if name.endswith("beside_a_writer"):
                await stack.enter_async_context(_writer(bed.root))
            for _ in range(rounds.of(30)):
                took_each.append(await each.round_ms())
                took_once.append(await once.round_ms())
        yield line(name, median(took_once, "ms"), median(took_each, "ms"))


@asynccontextmanager
async def _writer(directory: Path) -> AsyncGenerator[None]:
    """Write a MiB every 20 ms meanwhile, and never flush it, as a download would."""
    path = directory / "download"

    async def write() -> None:
        data = os.urandom(_MIB)
        with path.open("wb", buffering=0) as file:
            while True:
                await asyncio.to_thread(file.write, data)
                if file.tell() > 256 * _MIB:
                    file.seek(0)
                await asyncio.sleep(0.02)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        path.unlink()
