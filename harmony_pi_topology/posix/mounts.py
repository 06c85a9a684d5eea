"""The mounts of a process, as the kernel lists them: asked only where something went wrong.

Nothing here touches a mounted file system, so a question about one that hangs is answered all the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import attrs

__all__ = ["Mount", "mount_of", "mount_on_the_way_to", "mounts_of"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class Mount:
    """One line of ``/proc/PID/mountinfo``."""

    number: int
    device: str
    point: str
    is_read_only: bool
    """By this mount's own flag, which each mount namespace has for itself."""
    kind: str
    """The type of the file system, such as ``ext4``, ``vfat`` or ``fuse.sshfs``."""


def mounts_of(process: int | str = "self") -> list[Mount]:
    """Return the mounts that *process* sees, in the kernel's order; none where they cannot be read."""
    try:
        listed = Path(f"/proc/{process}/mountinfo").read_bytes()
    except OSError:
        return []
    return [_mount(os.fsdecode(line)) for line in listed.splitlines()]


def mount_of(descriptor: int) -> Mount | None:
    """Return the mount through which *descriptor* was opened; None where that cannot be told."""
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    except OSError:
        return None
    numbers = [line.split()[1] for line in told.splitlines() if line.startswith("mnt_id:")]
    return next((each for each in mounts_of() if [str(each.number)] == numbers), None)


def mount_on_the_way_to(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return what of *mounts* holds *path*, by its name alone: the last that covers it."""
    above = {path, *map(str, PurePosixPath(path).parents)}
    covering = [each for each in mounts if each.point in above]
    longest = max((len(each.point) for each in covering), default=0)
    return next((each for each in reversed(covering) if len(each.point) == longest), None)


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    number, _, device, _, point, options, *_ = before.split(" ")
    return Mount(
        number=int(number),
        device=device,
        point=_ESCAPED.sub(lambda match: chr(int(match[1], 8)), point),
        is_read_only="ro" in options.split(","),
        kind=after.split(" ")[0],
    )
