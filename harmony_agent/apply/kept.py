"""Whether what the agent remembers outlives a boot: on a root that is kept in memory, nothing does."""

from __future__ import annotations

from pathlib import Path

from harmony_pi_topology.posix.kernel_line import read_kernel_words
from harmony_pi_topology.posix.mounts import Mount, mount_on_the_way_to, mounts_of

__all__ = ["why_not_kept"]

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_UPPER = "upperdir="
_OVERLAY_WORDS = ("boot=overlay", "overlayroot=tmpfs")
"""Words of the kernel's line by which an initramfs lays memory over the root; where, it may not show."""


def why_not_kept(directory: Path, proc: Path = Path("/proc")) -> str:
    """Return why what is written to *directory* is lost by a reboot; empty where it is kept, or may be.

    *proc* is the device's /proc.
    """
    mounts = mounts_of("self", proc)
    mount = mount_on_the_way_to(str(directory), mounts)
    if mount is None:
        return ""
    if mount.kind in _IN_MEMORY:
        return f"{directory} is in memory ({mount.kind} at {mount.point})"
    if mount.kind == "overlay" and (_is_upper_in_memory(mount, mounts) or _is_overlaid(proc)):
        return f"{directory} is in memory (an overlay at {mount.point})"
    return ""


def _is_upper_in_memory(mount: Mount, mounts: list[Mount]) -> bool:
    upper = next((each for each in mount.options if each.startswith(_UPPER)), "")
    below = mount_on_the_way_to(upper.removeprefix(_UPPER), mounts)
    return below is not None and below.kind in _IN_MEMORY


def _is_overlaid(proc: Path) -> bool:
    return any(
        word == each or word.startswith(f"{each}:")
        for word in read_kernel_words(proc)
        for each in _OVERLAY_WORDS
    )
