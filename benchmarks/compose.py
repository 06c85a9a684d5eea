"""``compose.unchanged.*``: what a look at a project of five services costs, of which nothing has changed.

The agent is asked to look at its Score now (`harmony reconcile`), on a Pi in a box. What it asks of podman is
counted by strace, a connection being a call; the floor is F12, in turn with it, over the same socket.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from harmony_control.compose.read import ComposeSettings
from harmony_control.score_files.read import read_score_files
from harmony_core import plugins
from tests.fleet.ground import pushed, statuses

from .bed import Bed
from .figures import Figure, Line, Unmeasurable, median
from .floors.f12 import look
from .goals import line
from .pi import Pi, pi_in_a_box
from .rounds import Rounds

__all__ = ["COMPOSE", "compose"]

COMPOSE = ("compose.unchanged", "compose.unchanged.calls", "compose.pushed_again.calls")
_SOCKET = "run/podman/podman.sock"
_SERVICES = 5
_QUIET_S = 2.0
_WRITTEN_S = 0.5
_PROJECT = "bench"


async def compose(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Five services on one network, two of them with a volume; in order, and looked at."""
    async with pi_in_a_box(bed.root) as pi:
        entries = read_score_files([_write(bed.root, pi)], plugins.load(), ComposeSettings())
        state, _ = await pushed(pi.device, entries)
        if statuses(state) != {_PROJECT: "SUCCESS"}:
            raise Unmeasurable(f"the Pi says {statuses(state)}")
        socket = Path(f"/proc/{pi.box.pid}/root/{_SOCKET}")
        least, took, floors = 0, list[float](), list[float]()
        for _ in range(rounds.of(30)):
            took.append(await _look_ms(pi))
            began = time.perf_counter()
            least = await asyncio.to_thread(look, socket)
            floors.append((time.perf_counter() - began) * 1_000)
        yield line(COMPOSE[0], median(took, "ms"), median(floors, "ms"))
        if shutil.which("strace") is None:
            raise Unmeasurable("strace is not installed")
        log = bed.root / "strace.log"
        command = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(log)]
        strace = await asyncio.create_subprocess_exec(*command, "-p", str(pi.agent_pid()))
        try:
            await asyncio.sleep(_QUIET_S)
            before = _calls_in(log)
            await _look_ms(pi)
            await asyncio.sleep(_WRITTEN_S)
            looked = _calls_in(log)
            yield line(COMPOSE[1], _calls(looked - before), _calls(least))
            await pushed(pi.device, entries)
            await asyncio.sleep(_WRITTEN_S)
            yield line(COMPOSE[2], _calls(_calls_in(log) - looked))
        finally:
            strace.terminate()
            await strace.wait()


def _write(root: Path, pi: Pi) -> str:
    """Write the compose file, and return where it is."""
    image = pi.boxes.registry.push_busybox("compose", "1", stop_signal="SIGKILL")
    services = [
        f"  s{number}:\n    image: {image}\n    restart: always\n"
        + (f"    volumes: ['data-{number}:/data']\n" if number < 2 else "")
        for number in range(_SERVICES)
    ]
    folder = root / _PROJECT
    folder.mkdir()
    text = f"services:\n{''.join(services)}volumes: {{data-0: {{}}, data-1: {{}}}}\n"
    (folder / "compose.yaml").write_text(text)
    return str(folder / "compose.yaml")


async def _look_ms(pi: Pi) -> float:
    began = time.perf_counter()
    async with pi.device.reconcile(_PROJECT) as told:
        async for _ in told:
            pass
    return (time.perf_counter() - began) * 1_000


def _calls(number: int) -> Figure:
    return Figure(number, 0, "calls")


def _calls_in(log: Path) -> int:
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(_SOCKET in each and "resumed" not in each for each in lines)
