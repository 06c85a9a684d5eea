"""Open the agent's memory when its disk refuses: what is there is read all the same, from a copy.

    agent.db and its journal -> copied below /run -> read there, into memory    (the disk: untouched)

SQLite has to write before it can read a database that was not closed well; on a full or read-only disk it
cannot. A repair tool must not be gone when it is needed most.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from harmony_core.errors import LedgerUnusable

from .schema import check_pages, check_rows, migrate

__all__ = ["read_into_memory", "why_not_writable"]

_ROOM_BYTES = 1024 * 1024
"""Less than this is no room for a database and its journal."""


def read_into_memory(path: Path, scratch: Path) -> sqlite3.Connection | None:
    """Return the content of the database at *path*, in memory; None where it cannot be read at all.

    Return an empty one where there is none. *scratch* is a directory on another disk. Raise `LedgerUnusable`
    for one that this agent may not use.
    """
    folder = scratch / "database"
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        if path.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            copy = folder / path.name
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(path.with_name(path.name + suffix), f"{copy}{suffix}")
            with closing(sqlite3.connect(copy)) as read:
                check_pages(read)
                read.backup(memory)
        migrate(memory, path)
        check_rows(memory)
    except (OSError, sqlite3.Error):
        memory.close()
        return None
    except LedgerUnusable:
        memory.close()
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return memory


def why_not_writable(path: Path, error: Exception) -> str:
    """Ask the disk that *path* is on. Return what is wrong with it and what to do; else the error that was
    met."""
    with contextlib.suppress(OSError):
        disk = os.statvfs(path.parent)
        if disk.f_flag & os.ST_RDONLY:
            return (
                f"{path.parent} is on a file system that is mounted read-only; look at the kernel's log "
                "for a failing card, and remount it: the agent goes on by itself, or, if it was so when the "
                "agent started, once that was restarted: systemctl restart harmony-agent"
            )
        if disk.f_bfree * disk.f_frsize < _ROOM_BYTES:
            return (
                f"the disk with {path.parent} is full; make room there: the agent goes on by itself"
            )
        if disk.f_files and not disk.f_ffree:
            return (
                f"the disk with {path.parent} has room and takes no more files (no inodes are left); delete "
                "some: the agent goes on by itself"
            )
    return (
        f"{error}; look at the disk with {path.parent}: the agent goes on by itself once it answers"
    )
