"""What a file system answers, in Harmony's words: what could not be done, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

from harmony_core.errors import UnsafePath, WriteFailed

__all__ = ["failed", "mapped", "mapped_way"]

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
}


def failed(path: str, error: OSError, *, doing: str = "written") -> WriteFailed:
    """*path* could not be *doing*, and why. What stood there is intact."""
    remedy = _REMEDIES.get(error.errno or 0, "it is tried again later")
    return WriteFailed(f"{path} could not be {doing}: {error.strerror}; {remedy}")


@contextmanager
def mapped(path: str, *, doing: str = "written") -> Generator[None]:
    """Any OSError becomes `WriteFailed`."""
    try:
        yield
    except OSError as error:
        raise failed(path, error, doing=doing) from error


@contextmanager
def mapped_way(path: str) -> Generator[None]:
    """What is wrong with the way to *path*, in words. FileNotFoundError stays what it is."""
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
        raise failed(path, error, doing="reached") from error
