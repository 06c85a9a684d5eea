"""``pass.*`` and ``idle.writes``: what an agent does with a thousand resources that nobody touches.

A hundred Scores of ten files each. inotify has nothing to tell, and the slow pass looks all the same: what
does it compute, and does it leave a trace on the disk? Nobody waits for it, so no clock on the wall counts.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from .bed import Bed, Program
from .figures import Figure, Line, Unmeasurable, median
from .goals import line
from .hurried import EVERY_S, PASSED
from .processes import cpu_ms
from .rounds import Rounds
from .ten_files import FILES, THOUSAND, registered

__all__ = ["PASSES", "WRITES", "changes_a_file", "passes", "writes"]

PASSES = ("pass.1000_resources", "pass.1000_resources.and_watching")
WRITES = ("idle.writes",)
_HURRIED = ("-c", "from benchmarks.hurried import main; main()")
_EVERY_S = 0.5
_SETTLED_S = 3.0
_WITHIN_S = 30.0
_WRITING = (
    "write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,splice,ftruncate,fallocate,"
    "fsync,fdatasync,sync_file_range,syncfs,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,fchmod,fchmodat,fchown,fchownat,utimensat,setxattr,fsetxattr"
)
_BY_DESCRIPTOR = re.compile(r"\d+ +\w+\((\d+)<([^>]*)>")


async def passes(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """One pass after the other, the agent's by its own clock, the floor's in between."""
    agent = await _hurried(bed, "passes", _EVERY_S)
    await _settled(bed, "passes", 2)
    places = [f"{bed.device('passes')}{score.spec['directory']}" for score in THOUSAND]
    scores = [[f"{place}/{number}" for number in range(FILES)] for place in places]
    floor = await bed.floor("f5s", "passes-floor", scores=scores)
    seen, floors = len(_took_ms(bed, "passes")), list[float]()
    count, before_ms = rounds.of(60), cpu_ms(agent.pid)
    for number in range(1, count + 1):
        await _settled(bed, "passes", seen + number)
        floors.append(await floor.round_ms())
    cpu = (cpu_ms(agent.pid) - before_ms) / count
    took = _took_ms(bed, "passes")[seen : seen + count]
    yield line(PASSES[0], median(took, "ms"), median(floors, "ms"))
    yield line(PASSES[1], Figure(cpu, 0, "ms", count), note="with watching all of it anew")


async def writes(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Every call that changes a file, by any thread, while nothing happens but heartbeats and slow passes."""
    if shutil.which("strace") is None:
        raise Unmeasurable("strace is not installed")
    log = bed.root / "writes.strace"
    strace = ["strace", "-D", "-f", "-qq", "-y", "-e", f"trace={_WRITING}", "-o", str(log)]
    await _hurried(bed, "writes", rounds.idle_s / 4, prefix=strace)
    await asyncio.sleep(_SETTLED_S)
    before, passed = _writes_in(log), len(_took_ms(bed, "writes"))
    await asyncio.sleep(rounds.idle_s)
    count = _writes_in(log) - before
    passed = len(_took_ms(bed, "writes")) - passed
    assert passed, "there was no slow pass"
    note = f"in {rounds.idle_s:g} s, with {passed} slow passes"
    yield line(
        WRITES[0], Figure(count, 0, "writes"), Figure(rounds.idle_s / 60, 0, "min"), note=note
    )


async def _hurried(bed: Bed, name: str, every_s: float, *, prefix: Sequence[str] = ()) -> Program:
    environ = {**registered(bed.root / "kinds"), EVERY_S: str(every_s)}
    agent = await bed.agent(name, heartbeat_s=10.0, prefix=prefix, python=_HURRIED, environ=environ)
    await bed.push(name, THOUSAND)
    assert bed.statuses(name) == {"SUCCESS"}
    return agent


async def _settled(bed: Bed, name: str, count: int) -> None:
    """Until there have been so many slow passes."""
    async with asyncio.timeout(_WITHIN_S):
        while len(_took_ms(bed, name)) < count:  # noqa: ASYNC110 - another process says so
            await asyncio.sleep(0.01)


def _took_ms(bed: Bed, name: str) -> list[float]:
    lines = bed.log(name).read_text().splitlines()
    return [float(each.removeprefix(PASSED)) for each in lines if each.startswith(PASSED)]


def _writes_in(log: Path) -> int:
    return sum(changes_a_file(each) for each in log.read_text().splitlines())


def changes_a_file(call: str) -> bool:
    """Sockets, pipes and what wakes a loop are no files; nor is what the passes are told on."""
    if "resumed>" in call or "+++" in call or "---" in call:
        return False
    by_descriptor = _BY_DESCRIPTOR.match(call)
    if by_descriptor is None:
        return True
    number, path = by_descriptor.groups()
    return path.startswith("/") and number != "1"
