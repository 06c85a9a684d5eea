"""The mounts of a container: whether their sources are safe, what is in them, and what is really mounted.

podman resolves a mount's source by its path each time that a container starts, also when it restarts one by
itself. So whoever can replace a part of that path decides what the container sees, and with it who sees
/etc/shadow. Hence no part may be a link, and all directories above the source must be root's alone, as sshd
wants it of its keys' (StrictModes); the source itself may be anybody's.

A container that runs goes on seeing what was there when it started, whatever has taken its place since: a
file that was replaced by a rename, a directory that was moved, a disk that was mounted there later. What it
sees the kernel knows (/proc/PID/mountinfo), and it is compared with what podman would mount now.

Reading blocks: for a worker's thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import attrs

from harmony_core.errors import CapabilityError, ContainerFailed, UnsafePath
from harmony_core.resources import Container, Mount
from harmony_pi_topology.common.path_calls import step
from harmony_pi_topology.common.way import refuse_unsafe_way
from harmony_pi_topology.posix import mounts as listed
from harmony_pi_topology.posix.hashing import sha256_of

from .paths import place_in
from .spec import is_followed

__all__ = [
    "NO_MOUNTS",
    "MountsLook",
    "find_replaced_volumes",
    "look_at_mounts",
    "sees_any_source",
]


@attrs.frozen(kw_only=True)
class MountsLook:
    """What was found of the mounts of one container."""

    contents: Mapping[str, str]
    """The hash of each source that is a file and by whose content the container is known."""
    replaced: frozenset[str]
    """The sources that are not, or no longer, what the running container sees."""
    watched: tuple[str, ...]
    """The sources of which it matters that something takes their place, or is written to them."""
    problem: CapabilityError | None
    """Why it cannot be started with them: `UnsafePath`, or `ContainerFailed` where one is missing."""


NO_MOUNTS = MountsLook(contents={}, replaced=frozenset(), watched=(), problem=None)
"""What is found where there are none."""


def look_at_mounts(container: Container, root: Path, pid: int | None) -> MountsLook:
    """Look at the mounts of *container* beneath *root*. *pid* is its main process, if it runs.

    Raise `TimedOut` or `CapabilityUnavailable` where a mount is on a file system that hangs: nothing follows
    from what could not be looked at.
    """
    contents: dict[str, str] = {}
    watched: list[str] = []
    problem: CapabilityError | None = None
    for mount in container.mounts:
        step(mount.source)
        source = place_in(root, mount.source)
        # What a container writes itself would be told at each of its writes.
        if is_followed(mount) or not (mount.live or source.is_file()):
            watched.append(mount.source)
        try:
            _check(mount, root, container.id)
            if is_followed(mount) and (digest := _hash_content(source, mount.source)):
                contents[mount.source] = digest
        except (ContainerFailed, UnsafePath) as error:
            # What is unsafe outweighs what is merely missing.
            if problem is None or not isinstance(problem, UnsafePath):
                problem = error
        except OSError as error:
            problem = problem or ContainerFailed(
                f"{mount.source}, to be mounted at {mount.target}, cannot be read: "
                f"{error.strerror}; look at its device",
                resource=container.id,
            )
    replaced = _find_replaced(container, root, pid) if pid is not None else frozenset[str]()
    return MountsLook(contents=contents, replaced=replaced, watched=tuple(watched), problem=problem)


def _check(mount: Mount, root: Path, resource: str) -> None:
    """Raise an error unless the source of *mount* exists and only root decides what is there."""
    what = f"{mount.source}, to be mounted at {mount.target},"
    try:
        refuse_unsafe_way(root, mount.source, what, resource)
    except (FileNotFoundError, NotADirectoryError):
        raise ContainerFailed(
            f"{what} does not exist; create it, or let a Score before this one do so",
            resource=resource,
        ) from None


def _hash_content(path: Path, source: str) -> str | None:
    """Return the hash of the file at *path*, or, where it is too large, the hash of its size and time; None
    where it is not a file. *source* is its path on the device."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    # Not to be kept waiting by a pipe that has taken its place since, and following nothing.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            return None
        with suppress(UnsafePath):  # too large
            return sha256_of(handle, source)
        known_by = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
        return hashlib.sha256(known_by.encode()).hexdigest()
    finally:
        os.close(handle)


def find_replaced_volumes(mounts: Mapping[str, Mount], root: Path, pid: int) -> frozenset[str]:
    """Return the names of those volumes in *mounts* whose data the process *pid* does not see, or does not
    see any more."""
    seen = _compare(list(mounts.values()), root, pid)
    return frozenset(name for name, each in mounts.items() if not seen.get(each.source, True))


def _find_replaced(container: Container, root: Path, pid: int) -> frozenset[str]:
    """Return the sources of the mounts of *container* that its process *pid* does not see, or does not see
    any more."""
    mounts = [mount for mount in container.mounts if not mount.live]
    return frozenset(source for source, is_so in _compare(mounts, root, pid).items() if not is_so)


def sees_any_source(mounts: Sequence[Mount], root: Path, pid: int) -> bool:
    """Return whether the process *pid* sees the present source on the device of any of *mounts*."""
    return any(_compare(mounts, root, pid).values())


def _compare(mounts: Sequence[Mount], root: Path, pid: int) -> dict[str, bool]:
    """Return for each source of *mounts* whether *pid* sees its present state. Return nothing where the
    kernel does not tell."""
    if not mounts:
        return {}
    here = listed.mounts_of(1, root / "proc")
    there = listed.mounts_of(pid, root / "proc")
    # A process that has ended has none, which is told by itself; one that has changed its own root (chroot)
    # shows only what is below that.
    if not here or not any(each.point == "/" for each in there):
        return {}
    return {mount.source: _is_mounted(mount, here, there) for mount in mounts}


def _is_mounted(mount: Mount, here: list[listed.Mount], there: list[listed.Mount]) -> bool:
    """Return whether a process with the mounts *there* sees the source of *mount* as it is *here*, on the
    device."""
    device, root = _place_of(mount.source, here)
    # The last one hides those before. Where a link in the image led podman elsewhere, any will do.
    at_target = [each for each in there if each.point == mount.target][-1:]
    return any(
        (each.device, each.root) == (device, root) and (each.is_read_only or not mount.read_only)
        for each in at_target or there
    )


def _place_of(path: str, mounts: list[listed.Mount]) -> tuple[str, str]:
    """Return the file system on which *path* lies, and the path within it."""
    if (found := listed.mount_on_the_way_to(path, mounts)) is None:
        return "", ""
    return found.device, str(
        PurePosixPath(found.root) / PurePosixPath(path).relative_to(found.point)
    )
