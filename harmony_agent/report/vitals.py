"""How the device itself is, as the kernel tells in /proc and /sys: read anew for each heartbeat.

Nothing is started for it, and nothing asked of a daemon. What cannot be read is None: most of it is there on
a Raspberry Pi only. The kernel's own word on its clock is not asked: the unit may not (`ProtectClock`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from harmony_agent.clock import is_set_by_a_time_server
from harmony_core.wire.vitals import Vitals

__all__ = ["read_vitals"]

_LIFE_STEP_PERCENT = 10
_LIFE_OVER = 11
"""What a card tells that has lived longer than it should."""


def read_vitals(state_directory: Path, root: Path = Path("/")) -> Vitals:
    """Return what can be read below *root*, and how much room there is for *state_directory*. Raise
    nothing."""
    sys, proc = root / "sys", root / "proc"
    same, disk_free, state_free = _read_room(root, state_directory)
    return Vitals(
        uptime_s=_read_uptime_s(proc / "uptime"),
        temperature_c=_read_temperature_c(sys / "class/thermal"),
        throttled=_read_whole(sys / "devices/platform/soc/soc:firmware/get_throttled", base=16),
        disk_free_bytes=disk_free,
        state_free_bytes=None if same else state_free,
        disk_life_used_percent=_read_life_used_percent(sys / "block"),
        memory_available_bytes=_read_available_bytes(proc / "meminfo"),
        clock_synchronised=is_set_by_a_time_server(),
        clock_ms=time.time_ns() // 1_000_000,
    )


def _read_uptime_s(path: Path) -> int | None:
    try:
        return int(float(_read(path).split()[0]))
    except (ValueError, IndexError, OverflowError):
        return None


def _read_temperature_c(directory: Path) -> float | None:
    """Return the hottest of the zones: there is no common name for that of the processor."""
    found = [
        thousandths / 1000
        for zone in _list(directory, "thermal_zone*")
        if (thousandths := _read_whole(zone / "temp")) is not None
    ]
    return round(max(found), 1) if found else None


def _read_room(root: Path, state_directory: Path) -> tuple[bool, int | None, int | None]:
    """Return whether both are on one file system, and the free bytes of each."""
    try:
        same = root.stat().st_dev == state_directory.stat().st_dev
    except OSError:
        same = False
    return same, _read_free_bytes(root), _read_free_bytes(state_directory)


def _read_free_bytes(path: Path) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _read_life_used_percent(directory: Path) -> int | None:
    """Return the worst value of the most worn eMMC or card; few cards report one."""
    told: list[int] = []
    for path in _list(directory, "mmcblk*/device/life_time"):
        for each in _read(path).split():
            try:
                step = int(each, 16)
            except ValueError:
                continue
            if 0 < step <= _LIFE_OVER:
                told.append(step)
    return max(told) * _LIFE_STEP_PERCENT if told else None


def _read_available_bytes(path: Path) -> int | None:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            try:
                return int(value.removesuffix("kB")) * 1_024
            except ValueError:
                return None
    return None


def _read_whole(path: Path, *, base: int = 10) -> int | None:
    try:
        return int(_read(path), base)
    except ValueError:
        return None


def _read(path: Path) -> str:
    """Return the text of a file of the kernel's; empty where there is none, or a sensor does not answer."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _list(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))
    except OSError:
        return []
