"""Who else may write what an operator's home is believed for: keys, whom to trust, where the server is.

Whoever can write it, or put another file in its place, chooses whom this home trusts. As ssh does of its
files, nothing is believed then, and it is said what to do.
"""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from pathlib import Path

from harmony_core.errors import ConfigError

__all__ = ["refuse_open", "refuse_others"]


def refuse_open(path: Path, root: Path) -> None:
    """Raise `ConfigError` where others may write *path*, or a directory from *root* down to it.

    Others are all but root and the user who runs this; when root runs this, the owner of *root* is no other
    either. What does not exist belongs to nobody.
    """
    try:
        ours = {0, os.geteuid() or root.stat().st_uid}
    except OSError:
        return
    inside = (each for each in path.parents if each.is_relative_to(root))
    for each in (path, *inside):
        try:
            found = each.stat()
        except OSError:
            continue  # whoever reads it says so
        refuse_others(each, found, "choose whom this home trusts", ours)


def refuse_others(
    path: Path, found: os.stat_result, could: str, ours: AbstractSet[int] | None = None
) -> None:
    """Raise `ConfigError` where another user than *ours*, which are root and the user who runs this, may
    write *path*, according to what was *found* of it, and so *could* do something."""
    ours = ours or {0, os.geteuid()}
    if found.st_mode & 0o022:
        raise ConfigError(
            f"others may write {path}, and so {could}; look at what is in it, and run: chmod go-w {path}"
        )
    if found.st_uid not in ours:
        raise ConfigError(
            f"{path} belongs to the user with the number {found.st_uid}, who could {could}; look at what is "
            f"in it, and run: chown {max(ours)} {path}"
        )
