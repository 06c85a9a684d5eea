"""What this device says of itself, read from the kernel and the operating system."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from harmony_core.inventory import Facts

__all__ = ["agent_version", "boot_id", "read_facts"]


@cache
def agent_version() -> str:
    """Return the version that runs, as it was installed at the start; "0+unknown" in a bare tree."""
    try:
        return metadata.version("harmony")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def boot_id() -> str:
    """Return an id that differs for each boot of the kernel (random(4))."""
    return _text(Path("/proc/sys/kernel/random/boot_id")) or "unknown"


def read_facts(kinds: Mapping[str, tuple[int, ...]]) -> Facts:
    """Read every fact; those that cannot be read are None."""
    return Facts(
        model=_text(Path("/proc/device-tree/model"))
        or _text(Path("/sys/class/dmi/id/product_name")),
        architecture=platform.machine(),
        memory_bytes=_memory_bytes(),
        os=_os(),
        kernel=platform.release(),
        hostname=platform.node(),
        agent_version=agent_version(),
        kinds=kinds,
    )


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _os() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip("\0\n ") or None
    except (OSError, UnicodeDecodeError):
        return None
