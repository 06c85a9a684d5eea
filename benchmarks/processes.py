"""What the kernel knows of a process: how long it has computed, and how much memory it holds."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

__all__ = ["Memory", "Ran", "cpu_ms", "memory_of", "run_once", "tree"]

_CPUCLOCK_SCHED = 2


@attrs.frozen
class Memory:
    """Resident memory in MiB: all, and with shared pages divided among those who share them."""

    rss: float
    pss: float


@attrs.frozen
class Ran:
    """A program that ran to its end."""

    wall_ms: float
    cpu_ms: float
    status: int


def cpu_ms(pid: int) -> float:
    """Return how many milliseconds *pid* has computed so far, threads that have ended included.

    This uses the process's own clock: /proc/PID/stat counts ticks of 10 ms, and an idle agent takes less in a
    minute.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) * 1_000


def memory_of(pids: Sequence[int]) -> Memory:
    """Of all *pids* together."""
    rss = pss = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = {name: int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines)}
        rss += fields["Rss"]
        pss += fields["Pss"]
    return Memory(rss / 1_024, pss / 1_024)


def tree(pid: int) -> list[int]:
    """*pid* and every process that descends from it."""
    pids = [pid]
    for each in pids:
        for task in Path(f"/proc/{each}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    return pids


def run_once(
    command: Sequence[str], *, environ: Mapping[str, str] = os.environ, output: str = os.devnull
) -> Ran:
    """Run *command* to its end, with what it prints in the file *output*. Blocks."""
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, write, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], list(command), environ, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall_ms = (time.perf_counter() - began) * 1_000
    cpu = (used.ru_utime + used.ru_stime) * 1_000
    return Ran(wall_ms, cpu, os.waitstatus_to_exitcode(status))
