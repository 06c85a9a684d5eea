"""Mode and owner of what is open: set, and then looked at.

    chown, chmod -> fstat -> as wanted   -> what was found
                          -> otherwise   -> it is immutable, or the agent lacks a right: WriteFailed
                                         -> the file system keeps no such thing: DidNotStick

FAT, exFAT, many network file systems and FUSE keep no modes or owners; some say so, some accept them
silently. So what counts is what is found, not what the call answered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

from harmony_core.errors import DidNotStick, WriteFailed

from .errors import make_write_failed
from .extras import flags_of, has_capabilities
from .found import Found
from .mounts import mount_of

__all__ = ["is_like", "refuse_unlike", "set_attributes"]

_REFUSALS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""How a file system says that it keeps no such thing, though EPERM has other reasons too."""
_CHOWN, _FOWNER = 0, 3
"""The numbers of the capabilities that let a process change the owner, or another's mode."""
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
"""Two of the bits that `chattr` sets."""


def set_attributes(descriptor: int, path: str, *, mode: int, uid: int, gid: int) -> Found:
    """Set mode and owner (-1 leaves it) of *descriptor*, and return what is found of it then.

    Raise `DidNotStick` where the file system keeps no such mode or owner; `WriteFailed` where the file is
    immutable or the agent has no right to it. The caller reports any other OSError.
    """
    refusals: list[OSError] = []
    with _noting(refusals):
        os.fchown(descriptor, uid, gid)  # first: chown clears bits that chmod sets
    with _noting(refusals):
        os.fchmod(descriptor, mode)
    found = Found.of(os.fstat(descriptor))
    if refusals and not is_like(found, mode=mode, uid=uid, gid=gid):
        _refuse_without_right(descriptor, path, found, refusals[0], mode=mode)
    refuse_unlike(descriptor, path, found, mode=mode, uid=uid, gid=gid)
    return found


@contextmanager
def _noting(refusals: list[OSError]) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        refusals.append(error)


def is_like(found: Found, *, mode: int, uid: int, gid: int) -> bool:
    """Return whether *found* has this mode and owner; -1 is any owner."""
    return found.mode == mode and uid in {-1, found.uid} and gid in {-1, found.gid}


def refuse_unlike(
    descriptor: int, path: str, found: Found, *, mode: int, uid: int, gid: int
) -> None:
    """Raise `DidNotStick` where *found*, of *descriptor*, does not have this mode and owner; -1 is any
    owner."""
    pairs = (
        ("mode", f"{mode:04o}", f"{found.mode:04o}"),
        ("owner", _name(found.uid if uid == -1 else uid), _name(found.uid)),
        ("group", _name(found.gid if gid == -1 else gid), _name(found.gid)),
    )
    for field, wanted, there in pairs:
        if wanted != there:
            raise DidNotStick(
                path,
                field=field,
                wanted=wanted,
                found=there,
                remedy=f"{_file_system(descriptor)} does not keep that {field}; ask for {field} "
                f"{there}, or for a path on another file system",
            )


def _refuse_without_right(
    descriptor: int, path: str, found: Found, error: OSError, *, mode: int
) -> None:
    """Raise `WriteFailed` where *error* does not come from the file system's own limits."""
    if flags_of(descriptor) & (_IMMUTABLE | _APPEND_ONLY):
        raise WriteFailed(
            f"{path} could not be changed: it is immutable or append-only; run: chattr -ia {path}"
        ) from error
    mode_only = found.mode != mode and found.uid == os.geteuid()
    if error.errno == errno.EPERM and not mode_only and not has_capabilities(_CHOWN, _FOWNER):
        raise make_write_failed(path, error, doing="changed", at=descriptor) from error


def _file_system(descriptor: int) -> str:
    mount = mount_of(descriptor)
    return "this file system" if mount is None else f"the file system {mount.point} ({mount.kind})"


def _name(number: int) -> str:
    return "root" if number == 0 else str(number)
