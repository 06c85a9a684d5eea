"""The way to a path that root follows by its name: it has to be root's alone, and without links.

Who may replace a part of a path decides what is found there, whenever podman or mount(8) goes by that name
again. Hence all directories above it must be root's alone, as sshd wants it of its keys'
(StrictModes); what the path names may itself be anybody's.

Reading blocks: for a worker's thread.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path, PurePosixPath

from harmony_core.errors import UnsafePath

from .path_calls import step

__all__ = ["refuse_unsafe_way"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def refuse_unsafe_way(root: Path, path: str, what: str, resource: str) -> None:
    """Raise `UnsafePath` unless only root decides what is at *path*, below *root*.

    *what* begins its message, and *resource* is the id that the error names. Raise `FileNotFoundError` or
    `NotADirectoryError` where the path leads nowhere.
    """
    whole = PurePosixPath(path)
    above: os.stat_result | None = None
    for prefix in (*map(str, reversed(whole.parents)), str(whole)):
        step(prefix)
        found = root.stat() if prefix == "/" else (root / prefix.lstrip("/")).lstat()
        if above is not None:
            _check_owner(above, found, str(PurePosixPath(prefix).parent), what, resource)
        if stat.S_ISLNK(found.st_mode):
            raise UnsafePath(
                f"{what} crosses the symbolic link {prefix}; name the place that it leads to"
                + _where_it_leads(root / prefix.lstrip("/")),
                resource=resource,
            )
        above = found


def _check_owner(
    above: os.stat_result, below: os.stat_result, path: str, what: str, resource: str
) -> None:
    """Raise if others than root could replace *below* in the directory *above*."""
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


def _where_it_leads(link: Path) -> str:
    try:
        return f" ({link.readlink()})"
    except OSError:
        return ""


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"
