"""Programs that are called for what they print, and never left running."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import IO, Any

__all__ = ["run_program"]

_PART_BYTES = 64 * 1024


async def run_program(
    command: Sequence[str],
    *,
    max_bytes: int,
    stdin: int | IO[Any] = asyncio.subprocess.DEVNULL,
    stderr: int | IO[Any] = asyncio.subprocess.DEVNULL,
) -> tuple[bytes, int]:
    """Run *command*. Return what it printed, and its status: 0 where it was cut off after *max_bytes*,
    because it had too much to say.

    Kill it when this is cancelled. Raise `OSError` where it cannot be called.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=stderr
    )
    assert process.stdout is not None
    try:
        return await process.stdout.readexactly(max_bytes), 0
    except asyncio.IncompleteReadError as error:
        return error.partial, await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # asyncio counts it as ended only once its pipe is empty.
        while await process.stdout.read(_PART_BYTES):
            pass
        await process.wait()
