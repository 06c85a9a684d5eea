"""A process that does one thing, and is killed before long.

It is a module that is run with what it has to know, as JSON. It says "ready", and begins when it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from typing import TypeVar

import attrs

from harmony_core.change import Change
from harmony_core.reconciler import Reconciler
from harmony_core.resources import Resource, State

__all__ = ["converged_when_told", "killed"]

ResourceT = TypeVar("ResourceT", bound=Resource)
StateT = TypeVar("StateT", bound=State)


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


async def converged_when_told(
    reconciler: Reconciler[ResourceT, StateT], resource: ResourceT
) -> None:
    """What such a process does: it is ready, is told to begin, and looks until it has converged."""
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        (result,) = await reconciler.converge([resource], apply=True)
        assert isinstance(result, Change), result
        if result.pending is None:
            break
        await asyncio.sleep(result.pending.look_again_s)
    print("done", flush=True)
