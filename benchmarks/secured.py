"""``secured.*``: what it costs the agent that it believes nobody: signatures, roots, policy, audit, floor.

The floor is the same agent without them (`benchmarks.unguarded`), over the same TLS, in turn with it. A
Score's share is the computing of a push of a hundred whose files are written, ours less the floor's, for each
of them, and is judged by a millisecond. Memory is what the modules that are there for it alone add once the
libraries are loaded; it is judged by 4 MiB.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed, Program, file_scores, unit_environment
from .figures import Figure, Line, median
from .goals import line
from .processes import cpu_ms
from .rounds import Rounds

__all__ = ["SECURED", "secured"]

SECURED = ("secured.push.p50", "secured.a_score", "secured.memory")
_UNGUARDED = ("-c", "from benchmarks.unguarded import main; main()")
_PAUSE_S = 0.005
_WARM_UP = 5
_SCORES = 100
_MEMORY_MIB = 4.0
_LIBRARIES = "asyncio logging ssl sqlite3 pydantic attrs cattrs nats.aio.client nats.js"
_MODULES = (
    "nacl harmony_core.wire.envelope harmony_core.wire.device_signature harmony_core.wire.root "
    "harmony_core.wire.audit harmony_agent.policy_toml harmony_agent.apply.policy "
    "harmony_agent.apply.protected harmony_agent.store.trust harmony_agent.store.floor "
    "harmony_agent.store.signers harmony_agent.store.event_chain"
)
"""With what is below each. What they need beside is there without them, too."""
_PROGRAM = """
import gc, importlib, importlib._bootstrap_external as external, json, sys

libraries, counted = json.loads(sys.argv[1])

def own_kib():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(each.split()[1]) for each in lines if each.startswith("Anonymous:"))

for each in libraries:
    importlib.import_module(each)
gc.collect()
grown, beneath, load = {}, [0], external.SourceFileLoader.exec_module

def noting(loader, module):
    before = own_kib()
    beneath.append(0)
    load(loader, module)
    took = own_kib() - before
    grown[module.__name__] = took - beneath.pop()
    beneath[-1] += took

external.SourceFileLoader.exec_module = noting
importlib.import_module("nacl.signing")
importlib.import_module("harmony_agent.startup")
importlib.import_module("harmony_agent.wiring")
print(sum(size for name, size in grown.items() if name.startswith(tuple(counted))))
"""


async def secured(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """In turn; then the memory, in fresh interpreters."""
    ours = await bed.agent("secured")
    floor = await bed.agent("unguarded", python=_UNGUARDED)
    one = file_scores("/etc/one", 1, "the same each time")
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds.of(400) + _WARM_UP):
        for name, samples in zip(("secured", "unguarded"), took, strict=True):
            took_ms = await bed.push(name, one)
            if number >= _WARM_UP:
                samples.append(took_ms)
            await asyncio.sleep(_PAUSE_S)
    yield line(SECURED[0], median(took[0], "ms"), median(took[1], "ms"))
    shares: list[float] = []
    for number in range(rounds.of(30) + 1):
        hundred = file_scores("/etc/app", _SCORES, f"{number} ")
        ours_ms = await _cpu_ms(bed, "secured", ours, hundred)
        floor_ms = await _cpu_ms(bed, "unguarded", floor, hundred)
        if number:
            shares.append((ours_ms - floor_ms) * 1_000 / _SCORES)
    yield line(SECURED[1], median(shares, "µs"), Figure(1_000, 0, "µs"))
    grown = [await _grown_mib() for _ in range(rounds.of(5))]
    yield line(SECURED[2], median(grown, "MiB"), Figure(_MEMORY_MIB, 0, "MiB"))


async def _cpu_ms(bed: Bed, name: str, agent: Program, scores: Sequence[SerializedScore]) -> float:
    """Return how long *agent* computes for one push of *scores*, its commit after the report included."""
    before = cpu_ms(agent.pid)
    await bed.push(name, scores)
    await asyncio.sleep(0.05)
    return cpu_ms(agent.pid) - before


async def _grown_mib() -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        json.dumps([_LIBRARIES.split(), _MODULES.split()]),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **unit_environment()},
    )
    told, _ = await process.communicate()
    return int(told) / 1024
