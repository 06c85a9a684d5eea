"""What stands at a path: seven facts, taken without following anything."""

from __future__ import annotations

import os
import stat
from typing import Literal, NamedTuple, Self

from harmony_core.errors import UnsafePath

__all__ = ["Found", "look_in", "refuse_other_kinds"]

Kind = Literal["file", "directory", "symlink", "other"]


class Found(NamedTuple):
    """What stands at a path: seven facts, at least one of which changes whenever the file does."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    type_and_mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Self:
        # A tuple, and made in one go: looking at a thousand files is mostly this.
        return cls(
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
        )

    @property
    def kind(self) -> Kind:
        if stat.S_ISREG(self.type_and_mode):
            return "file"
        if stat.S_ISDIR(self.type_and_mode):
            return "directory"
        return "symlink" if stat.S_ISLNK(self.type_and_mode) else "other"

    @property
    def mode(self) -> int:
        """The permission bits, with set-user-id, set-group-id and sticky."""
        return stat.S_IMODE(self.type_and_mode)


def look_in(directory: int, name: str) -> Found | None:
    """Return what has *name* in *directory*; None when nothing has. Raise OSError when that cannot be
    known."""
    try:
        return Found.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return None


def refuse_other_kinds(path: str, found: Found) -> None:
    """Raise `UnsafePath`, naming what is there, unless it is a regular file."""
    if found.kind != "file":
        what = {"symlink": "symbolic link", "other": "device, pipe or socket"}.get(
            found.kind, found.kind
        )
        raise UnsafePath(f"{path} is a {what}, not a file; remove it, or choose another path")
