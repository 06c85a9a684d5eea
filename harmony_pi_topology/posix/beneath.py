"""Opening what lies beneath a directory, without ever leaving it or following a link.

By openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS: the kernel does the
whole walk, so nobody can swap a directory for a link half-way. Where openat2 is missing (Linux before
5.6) or forbidden by a seccomp filter, as systemd's RestrictSUIDSGID does, the same walk is made one
component at a time with O_NOFOLLOW: a directory once opened stays what it is, whatever its name becomes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

__all__ = ["Opener", "give_back", "open_beneath", "open_by_openat2", "open_by_walking"]

Opener: TypeAlias = Callable[[int, str, int], int]
"""(directory fd, relative path, flags) -> fd. OSError: ELOOP or ENOTDIR where a link is on the way."""

_OPENAT2 = 437  # one number on every architecture that has it
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_AGAIN_MAX = 64
_LIBC = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_by_openat2(directory: int, relative: str, flags: int) -> int:
    """Open *relative* with one system call. Raise OSError with ENOSYS or EPERM where there is no openat2."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    path = os.fsencode(relative)
    number = 0
    for _ in range(_AGAIN_MAX):
        descriptor: int = _LIBC.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        # EAGAIN: something was renamed during the walk, and the kernel cannot vouch for it.
        if number not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(number, os.strerror(number), relative)


def open_by_walking(directory: int, relative: str, flags: int) -> int:
    """Open *relative* one component at a time, without following links."""
    *parents, last = relative.split("/")
    current = os.dup(directory)
    try:
        for name in parents:
            below = _open(current, name, os.O_PATH | os.O_DIRECTORY)
            give_back(current)
            current = below
        return _open(current, last, flags)
    finally:
        give_back(current)


def give_back(descriptor: int) -> None:
    """Close *descriptor*. An error of the content would have been reported by fsync before."""
    with suppress(OSError):
        os.close(descriptor)


def _open(directory: int, name: str, flags: int) -> int:
    if name in {"", ".."}:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _has_openat2() -> bool:
    if platform.system() != "Linux":
        return False
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        give_back(open_by_openat2(root, ".", os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    finally:
        give_back(root)
    return True


open_beneath: Opener = open_by_openat2 if _has_openat2() else open_by_walking
