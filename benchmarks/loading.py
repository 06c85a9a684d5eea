"""``memory.loading.*``: whose the memory is that an agent holds once it is loaded. No goal judges it.

A fresh interpreter loads one part after the other, in the order in which the agent does, and says by how
much the memory that is its own (anonymous, in no file) has grown. What a part brings along is counted for
whoever loads it first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

from .bed import Bed, unit_environment
from .figures import Line, median
from .goals import line
from .rounds import Rounds

__all__ = ["LOADING", "loading"]

_PARTS = {
    "python": "asyncio argparse logging pathlib",
    "ssl_sqlite": "ssl sqlite3",
    "pydantic": "pydantic",
    "attrs": "attrs cattrs",
    "nats": "nats.aio.client nats.js",
    "nacl": "nacl.signing",
    "ours.core": "harmony_core.stage harmony_core.plugins harmony_core.wire.manifest",
    "ours.agent": "harmony_agent.startup harmony_agent.wiring",
    "ours.files": "harmony_pi_topology.discovery harmony_pi_topology.files.reconciler "
    "harmony_pi_topology.directories.posix harmony_pi_topology.common.mounted",
    "ours.scores": "harmony_scores",
}
LOADING = (*(f"memory.loading.{part}" for part in _PARTS), "memory.loading.all")
_PROGRAM = """
import gc, importlib, json, sys

def own_kib():
    gc.collect()
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(each.split()[1]) for each in lines if each.startswith("Anonymous:"))

grown, before = {"interpreter": own_kib()}, own_kib()
for part, modules in json.loads(sys.argv[1]).items():
    for each in modules.split():
        importlib.import_module(each)
    now = own_kib()
    grown[part], before = now - before, now
print(json.dumps(grown))
"""


async def loading(_: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Each part's growth, and all of it with the bare interpreter."""
    samples = [await _grown() for _ in range(rounds.of(5))]
    for name, part in zip(LOADING, _PARTS, strict=False):
        yield line(name, median([each[part] / 1024 for each in samples], "MiB"))
    yield line(LOADING[-1], median([sum(each.values()) / 1024 for each in samples], "MiB"))


async def _grown() -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        json.dumps(_PARTS),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **unit_environment()},
    )
    told, _ = await process.communicate()
    grown: dict[str, int] = json.loads(told)
    return grown
