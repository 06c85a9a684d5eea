"""The mounts of a process, as the kernel lists them, and hearing of it when they change.

Nothing here touches a mounted file system, so a question about one that hangs is answered all the same.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import attrs

__all__ = [
    "Mount",
    "MountEvents",
    "is_at_or_beneath",
    "mount_of",
    "mount_on_the_way_to",
    "mounts_of",
    "mounts_seen_at",
]

_ESCAPED = re.compile(r"\\([0-7]{3})")
_MOST_BYTES = 8 * 1024 * 1024
"""Of a list of mounts; the kernel's own limit of 100,000 mounts is about there."""


@attrs.frozen(kw_only=True)
class Mount:
    """One line of ``/proc/PID/mountinfo``."""

    number: int
    device: str
    root: str
    """Which part of that file system is mounted, as a path in it."""
    point: str
    is_read_only: bool
    """By this mount's own flag, which each mount namespace has for itself."""
    kind: str
    """The type of the file system, such as ``ext4``, ``vfat`` or ``fuse.sshfs``."""
    source: str = ""
    """What is mounted, such as ``/dev/sda1``."""
    options: tuple[str, ...] = ()
    """Those in force, of this mount and of its file system: ``ro`` where either of them is."""
    parent: int = 0
    """The number of the mount on which this one is."""


class MountEvents:
    """Hear of every mount and umount that *process* sees, at no cost while there is none.

    The kernel marks an open ``/proc/self/mountinfo`` as urgent when the list has changed. As a file it can
    also always be read, so a loop that waits for that would never sleep: an epoll of its own waits for the
    mark alone, and is what a loop can wait for.
    """

    def __init__(self, process: str = "self", proc: Path = Path("/proc")) -> None:
        self._of = (process, proc)
        self._listing = os.open(proc / process / "mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._epoll = select.epoll()
        except OSError:
            os.close(self._listing)
            raise
        self._epoll.register(self._listing, select.EPOLLPRI | select.EPOLLET)
        self._mounted = self._identities()

    def fileno(self) -> int:
        """Return a descriptor that a loop can watch: it is readable after a change, until `acknowledge`."""
        return self._epoll.fileno()

    def has_changed(self) -> bool:
        """Return whether there was a change since this was last asked. Does not block."""
        return bool(self._epoll.poll(0))

    def acknowledge(self) -> None:
        """Reset the mark, so that the next change is noticed. Does not block."""
        self._epoll.poll(0)

    def take_changed_points(self) -> set[str]:
        """Return where something was mounted or unmounted since the last call. Blocks."""
        before, self._mounted = self._mounted, self._identities()
        return {point for _, _, point in before ^ self._mounted}

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._listing >= 0:
            self._epoll.close()
            os.close(self._listing)
            self._listing = -1

    def _identities(self) -> frozenset[tuple[int, str, str]]:
        return frozenset((each.number, each.device, each.point) for each in mounts_of(*self._of))


def mounts_of(process: int | str = "self", proc: Path = Path("/proc")) -> list[Mount]:
    """Return the mounts that *process* sees, in the kernel's order; none where they cannot be read.

    *proc* is the device's /proc. The rest of a list beyond the kernel's own limit is left out.
    """
    try:
        with (proc / str(process) / "mountinfo").open("rb") as file:
            lines = file.read(_MOST_BYTES).splitlines()
    except OSError:
        return []
    mounts: list[Mount] = []
    for line in lines:
        with suppress(ValueError):  # the last one, where it was cut
            mounts.append(_parse_mount(os.fsdecode(line)))
    return mounts


def mount_of(descriptor: int) -> Mount | None:
    """Return the mount through which *descriptor* was opened; None where that is not known."""
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    except OSError:
        return None
    numbers = [line.split()[1] for line in told.splitlines() if line.startswith("mnt_id:")]
    return next((each for each in mounts_of() if [str(each.number)] == numbers), None)


def is_at_or_beneath(path: str, point: str) -> bool:
    """Return whether *path* is *point* or is below it, by their names alone."""
    return point in {path, "/"} or path.startswith(f"{point}/")


def mount_on_the_way_to(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return which of *mounts* contains *path*, by its name alone: the last that covers it."""
    above = {path, *map(str, PurePosixPath(path).parents)}
    covering = [each for each in mounts if each.point in above]
    longest = max((len(each.point) for each in covering), default=0)
    return next((each for each in reversed(covering) if len(each.point) == longest), None)


def mounts_seen_at(path: str, mounts: Sequence[Mount]) -> Sequence[Mount]:
    """Return those of *mounts* on the way to *path*, from the root to what is visible there.

    Leave out what was mounted at *path* where something is mounted over a directory above it.
    """
    numbers = {each.number for each in mounts}
    on = {(each.parent, each.point): each for each in mounts if each.parent != each.number}
    roots = (
        each
        for each in mounts
        if each.point == "/" and (each.parent not in numbers or each.parent == each.number)
    )
    if (here := next(roots, None)) is None:
        return ()
    seen = [here]
    for point in [*map(str, reversed(PurePosixPath(path).parents)), path]:
        while (over := on.get((seen[-1].number, point))) is not None:
            seen.append(over)
    return seen


def _parse_mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    number, parent, device, root, point, options, *_ = before.split(" ")
    kind, *of_the_source = after.split(" ")
    flags, of_the_file_system = options.split(","), "".join(of_the_source[1:2]).split(",")
    in_force = dict.fromkeys(each for each in (*flags, *of_the_file_system) if each)
    if "ro" in in_force:
        in_force.pop("rw", None)
    return Mount(
        number=int(number),
        device=device,
        root=_unescape(root),
        point=_unescape(point),
        is_read_only="ro" in flags,
        kind=kind,
        source=_unescape("".join(of_the_source[:1])),
        options=tuple(map(_unescape, in_force)),
        parent=int(parent),
    )


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
