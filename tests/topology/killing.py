"""A process that does one thing, and is killed before long.

It is a module that is run with what it has to know, as JSON. It says "ready", and begins when it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys

import attrs

__all__ = ["killed"]


async def killed(module: str, spec: attrs.AttrsInstance, *, after_s: float) -> None:
    """Have *module* begin, and kill it so long after; it may have been quicker."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, json.dumps(attrs.asdict(spec))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"\n")
    await asyncio.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
