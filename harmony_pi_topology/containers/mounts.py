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
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

import attrs

from harmony_core.errors import CapabilityError, ContainerFailed, UnsafePath
from harmony_core.resources import Container, Mount

from .plan import is_followed

__all__ = ["NO_MOUNTS", "MountsLook", "look_at_mounts"]

_HASHED_BYTES = 64 * 1024 * 1024
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ESCAPED = re.compile(r"\\([0-7]{3})")
_MOST_BYTES = 8 * 1024 * 1024
"""Of a table of mounts; the kernel's own limit of 100,000 mounts is about there."""


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


@attrs.frozen(kw_only=True)
class _Mounted:
    """One line of a mountinfo."""

    device: str
    root: str
    """Which part of that file system is mounted, as a path in it."""
    point: str
    is_read_only: bool


def look_at_mounts(container: Container, root: Path, pid: int | None) -> MountsLook:
    """Look at the mounts of *container* beneath *root*; *pid* is its main process, if it runs."""
    contents: dict[str, str] = {}
    watched: list[str] = []
    problem: CapabilityError | None = None
    for mount in container.mounts:
        source = _below(root, mount.source)
        # What a container writes itself would be told at each of its writes.
        if is_followed(mount) or not (mount.live or source.is_file()):
            watched.append(mount.source)
        try:
            _check(mount, root, container.id)
            if is_followed(mount) and (digest := _content(source)):
                contents[mount.source] = digest
        except CapabilityError as error:
            # What is unsafe outweighs what is merely missing.
            if problem is None or not isinstance(problem, UnsafePath):
                problem = error
        except OSError as error:
            problem = problem or ContainerFailed(
                f"{mount.source}, to be mounted at {mount.target}, cannot be read: "
                f"{error.strerror}; look at its device",
                resource=container.id,
            )
    replaced = _replaced(container, root, pid) if pid is not None else frozenset[str]()
    return MountsLook(contents=contents, replaced=replaced, watched=tuple(watched), problem=problem)


def _check(mount: Mount, root: Path, resource: str) -> None:
    """Raise unless the source of *mount* is there, and nobody but root decides what is there."""
    what = f"{mount.source}, to be mounted at {mount.target},"
    above: os.stat_result | None = None
    for step in _steps(mount.source):
        try:
            found = root.stat() if step == "/" else _below(root, step).lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerFailed(
                f"{what} does not exist; create it, or let a Score before this one do so",
                resource=resource,
            ) from None
        if above is not None:
            _check_owner(above, found, str(PurePosixPath(step).parent), what, resource)
        if stat.S_ISLNK(found.st_mode):
            raise UnsafePath(
                f"{what} crosses the symbolic link {step}; name the place that it leads to"
                + _place(_below(root, step)),
                resource=resource,
            )
        above = found


def _check_owner(
    above: os.stat_result, below: os.stat_result, path: str, what: str, resource: str
) -> None:
    """Raise if others than root could put something in the place of *below*, in the directory *above*."""
    if above.st_uid not in {0, os.geteuid()}:
        raise UnsafePath(
            f"{what} is not safe: {path} belongs to {_user(above.st_uid)}, who could put a link to "
            f"anything there; run: chown root {path}, or mount what lies in a directory of root's",
            resource=resource,
        )
    is_kept = above.st_mode & stat.S_ISVTX and below.st_uid in {0, os.geteuid()}
    if above.st_mode & _OTHERS_WRITE and not is_kept:
        raise UnsafePath(
            f"{what} is not safe: others than root may write in {path}, and could put a link to "
            f"anything there; run: chmod go-w {path}, or mount what lies elsewhere",
            resource=resource,
        )


def _place(link: Path) -> str:
    try:
        return f" ({link.readlink()})"
    except OSError:
        return ""


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"


def _content(path: Path) -> str | None:
    """What a file is known by: its hash, or when it is too large for that, its size and time; None for what
    is no file."""
    # Not to be kept waiting by a pipe that stands where a file should, and following nothing.
    how = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    handle = os.open(path, how)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size > _HASHED_BYTES:
            known_by = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
            return hashlib.sha256(known_by.encode()).hexdigest()
        digest = hashlib.sha256()
        left = _HASHED_BYTES
        while left > 0 and (part := os.read(handle, min(left, 1024 * 1024))):
            digest.update(part)
            left -= len(part)
        return digest.hexdigest()
    finally:
        os.close(handle)


def _replaced(container: Container, root: Path, pid: int) -> frozenset[str]:
    mounts = [mount for mount in container.mounts if not mount.live]
    if not mounts:
        return frozenset()
    try:
        here = _table(root / "proc/1/mountinfo")
        there = _table(root / f"proc/{pid}/mountinfo")
    except OSError:
        return frozenset()  # it has ended meanwhile, which is told by itself
    if not any(each.point == "/" for each in there):
        return (
            frozenset()
        )  # it has changed its own root (chroot), and shows what is below that only
    return frozenset(mount.source for mount in mounts if not _is_mounted(mount, here, there))


def _is_mounted(mount: Mount, here: list[_Mounted], there: list[_Mounted]) -> bool:
    """Whether what has mounted *there* sees the source of *mount* as it is *here*, on the device."""
    device, root = _place_of(mount.source, here)
    # The last one hides those before. Where a link in the image led podman elsewhere, any will do.
    at_target = [each for each in there if each.point == mount.target][-1:]
    return any(
        (each.device, each.root) == (device, root) and (each.is_read_only or not mount.read_only)
        for each in at_target or there
    )


def _place_of(path: str, mounts: list[_Mounted]) -> tuple[str, str]:
    """The file system that *path* lies on, and its path in that."""
    whole = PurePosixPath(path)
    points = [str(whole), *(str(parent) for parent in whole.parents)]
    under = {each.point: each for each in mounts}  # the last one at a place is what is seen
    for point in points:
        if (found := under.get(point)) is not None:
            return found.device, str(PurePosixPath(found.root) / whole.relative_to(point))
    return "", ""


def _table(path: Path) -> list[_Mounted]:
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES).decode(errors="surrogateescape")
    return list(_lines(text))


def _lines(text: str) -> Iterator[_Mounted]:
    for line in text.splitlines():
        with suppress(ValueError):
            _, _, device, root, point, options, *_ = line.split(" ")
            yield _Mounted(
                device=device,
                root=_plain(root),
                point=_plain(point),
                is_read_only="ro" in options.split(","),
            )


def _plain(text: str) -> str:
    """*text* without the kernel's escapes of blanks and backslashes."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _steps(path: str) -> list[str]:
    """/, /a, /a/b, /a/b/c"""
    whole = PurePosixPath(path)
    return [*(str(parent) for parent in reversed(whole.parents)), str(whole)]


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
