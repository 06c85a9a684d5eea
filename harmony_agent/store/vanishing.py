"""Notice that the files of an open database were deleted, and write it anew from what is still open.

    files still there, and the same? -yes-> go on
                 |
          gone: copied whole into a new file, which takes their place
          another's file in their place: refused, until the agent starts anew with what stands there

Unix lets a program write into files that have no name any more: all would seem well, and be lost with
the process. So before each write, and now and then, their names are asked for.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeAlias

import attrs

from harmony_core.errors import LedgerUnusable

from .flushing import flush_directory, make_directory

__all__ = ["Standing", "rewrite_vanished"]

log = logging.getLogger(__name__)

_BESIDE = ("-wal", "-shm")
_Identity: TypeAlias = tuple[int, int]
"""Device and inode."""


@attrs.frozen
class Standing:
    """The files of one open database, as they were when it was opened."""

    connection: sqlite3.Connection
    path: Path | None
    """None for one in memory."""
    _files: Mapping[Path, _Identity]

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Self:
        """Return the files that *connection*, which has been read from, uses."""
        (_, _, name), *_ = connection.execute("PRAGMA database_list").fetchall()
        if not name:
            return cls(connection, None, {})
        path = Path(name)
        names = [path, *(path.with_name(path.name + each) for each in _BESIDE)]
        found = {each: _identity(each) for each in names}
        return cls(
            connection, path, {each: known for each, known in found.items() if known is not None}
        )

    @property
    def has_vanished(self) -> bool:
        """Whether one of them has gone. `LedgerUnusable` where another stands in its place."""
        now = {each: _identity(each) for each in self._files}
        for each, known in self._files.items():
            if now[each] not in {None, known}:
                raise LedgerUnusable(
                    f"{each} was replaced while the agent runs: nothing is noted in a file that is not its "
                    "own; go on with what stands there by `systemctl restart harmony-agent`"
                )
        return None in now.values()


def rewrite_vanished(
    standing: Standing, open_again: Callable[[Path], sqlite3.Connection]
) -> sqlite3.Connection:
    """Return a connection to a new file in place of what has vanished, with all its content.

    The old connection is closed. Raise `sqlite3.Error` and `OSError`; then the old one may still be used.
    """
    path = standing.path
    assert path is not None, "what is in memory does not vanish"
    make_directory(path.parent)
    copy = path.with_name(path.name + ".anew")
    copy.unlink(missing_ok=True)
    target = sqlite3.connect(copy)
    try:
        standing.connection.backup(target)
    finally:
        target.close()
    # Closed before the new one is opened: as it closes, SQLite deletes its journal by name.
    standing.connection.close()
    for each in _BESIDE:
        path.with_name(path.name + each).unlink(missing_ok=True)
    copy.replace(path)
    flush_directory(path.parent)
    log.error("%s had been deleted, and is written anew from what was still open", path)
    return open_again(path)


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
