"""What a file system answers, in Harmony's words: what could not be done, why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

from harmony_core.errors import UnsafePath, WriteFailed

from .mounts import mount_of, mount_on_the_way_to, mounts_of

__all__ = ["make_write_failed", "translate_errors", "translate_path_errors"]

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EROFS: "the file system is read-only; look at the kernel's log for a failing card",
    errno.EIO: "the disk reported an error; look at the kernel's log for a failing card",
    errno.EACCES: "permission denied; the agent needs the right to it",
    errno.EPERM: "not permitted; the agent needs the right, or the file is immutable",
    errno.EMFILE: "too many open files; raise the agent's LimitNOFILE",
    errno.ENFILE: "too many open files on the whole device; look for what holds them",
    errno.ENOMEM: "out of memory; look for what uses it up",
    errno.EFBIG: "larger than this file system, or the agent's LimitFSIZE, allows; shorten it",
    errno.ENOENT: "its directory is not there, or vanished; it is made at the next try",
    errno.EBUSY: "it is in use, perhaps as a mount point; unmount what is mounted there",
}


def make_write_failed(
    path: str, error: OSError, *, doing: str = "written", at: int | None = None
) -> WriteFailed:
    """Return the error that *path* could not be *doing*, and why. What was there is intact.

    *at* is a descriptor on the file system concerned, which is asked where the number alone says too little.
    """
    remedy = _ask(error, at) or _REMEDIES.get(error.errno or 0, "it is tried again later")
    return WriteFailed(f"{path} could not be {doing}: {error.strerror}; {remedy}")


@contextmanager
def translate_errors(
    path: str, *, doing: str = "written", at: int | None = None
) -> Generator[None]:
    """Raise `WriteFailed` in place of any OSError in the block; *at* is as in `make_write_failed`."""
    try:
        yield
    except OSError as error:
        raise make_write_failed(path, error, doing=doing, at=at) from error


def _ask(error: OSError, at: int | None) -> str | None:
    """Return what to do about *error*, where the file system at *at* has to be asked for that."""
    if at is None:
        return None
    if error.errno == errno.ENOSPC and _has_no_inodes(at):
        return (
            "there is room, but no inode is left for another file (see df -i); delete files that "
            "nobody needs, however small"
        )
    if error.errno == errno.EROFS:
        return _read_only_for_us(at)
    return None


def _has_no_inodes(at: int) -> bool:
    try:
        facts = os.statvfs(at)
    except OSError:
        return False
    return facts.f_files > 0 and facts.f_favail == 0 and facts.f_bavail > 0


def _read_only_for_us(at: int) -> str | None:
    """Return what to do where only this process, in its own mount namespace, sees it read-only.

    A service with a namespace of its own gets a copy of each mount when it starts. Whether a mount is
    read-only is a flag of that copy: a later ``mount -o remount,rw`` by others does not reach it.
    """
    ours = mount_of(at)
    if ours is None or not ours.is_read_only:
        return None
    theirs = mount_on_the_way_to(ours.point, mounts_of(1))
    if theirs is None or theirs.is_read_only or theirs.device != ours.device:
        return None
    return (
        f"{ours.point} was read-only when the agent was started, and has been made writable since, "
        "which the agent does not see; run: systemctl restart harmony-agent"
    )


@contextmanager
def translate_path_errors(path: str) -> Generator[None]:
    """Raise an error that explains what is wrong with the way to *path*. FileNotFoundError stays what it
    is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EXDEV}:
            raise UnsafePath(
                f"{path}: a symbolic link is on the way; write the real path "
                "(on Debian /var/run is /run, /bin is /usr/bin)"
            ) from error
        if error.errno == errno.ENOTDIR:
            raise UnsafePath(
                f"{path}: something that is not a directory, or a link, is on the way; write the "
                "real path (on Debian /var/run is /run, /bin is /usr/bin)"
            ) from error
        raise make_write_failed(path, error, doing="reached") from error
