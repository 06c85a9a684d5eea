"""What a process has used, as the kernel tells."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_s", "resident_bytes"]


def cpu_s(pid: int) -> float:
    """Return how long it has computed."""
    ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return what of it is in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
