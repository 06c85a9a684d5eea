"""inotify, as far as directories are watched with it: the only importer of asyncinotify.

Directories are named by open descriptors, since a name could lead elsewhere by the time it is watched.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

from asyncinotify import Inotify, Mask, Watch

__all__ = ["AWAITED", "HELD", "PASSED", "Attention", "Directories", "Event"]

Attention: TypeAlias = Mask
"""What of a directory is told."""

PASSED: Final = Mask.MOVE_SELF | Mask.DELETE_SELF
"""Tells when the directory itself gets another place, or none."""
AWAITED: Final = PASSED | Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.ATTRIB
"""Tells besides of names that come, go, or change their mode or owner."""
HELD: Final = AWAITED | Mask.MODIFY | Mask.CLOSE_WRITE
"""Tells besides of what is written."""

# A file that is written after it has lost its name there is somebody else's.
_ALWAYS: Final = Mask.ONLYDIR | Mask.EXCL_UNLINK


class Event(NamedTuple):
    """Something happened in a directory, or to it."""

    watch: int | None
    """None: so much happened that the kernel has forgotten some of it."""
    name: str
    """Empty: the directory itself."""


class Directories:
    """One inotify instance. Its ``fileno`` is readable while there are events."""

    def __init__(self) -> None:
        self._inotify = Inotify(sync_timeout=0)
        os.set_blocking(self._inotify.fd, False)
        self._watches: dict[int, Watch] = {}
        self.attention: dict[int, Attention] = {}
        """What is told of each."""

    def fileno(self) -> int:
        return self._inotify.fd

    def watch(self, directory: int, events: Attention, *, only: bool = False) -> int:
        """Watch the directory that is open as *directory*, and no other. Return its number.

        If it is watched already, it keeps its number, and *events* are added, or are the *only* ones. Raise
        OSError: EACCES where it may not be read, ENOSPC where this user may watch no more.
        """
        path = f"/proc/self/fd/{directory}"
        how = events | _ALWAYS if only else events | _ALWAYS | Mask.MASK_ADD
        # Its type says a path of anything at all.
        watch = self._inotify.add_watch(path, how)  # pyright: ignore[reportUnknownMemberType]
        self._watches[watch.wd] = watch
        before = Mask.ZERO if only else self.attention.get(watch.wd, Mask.ZERO)
        self.attention[watch.wd] = before | events
        return watch.wd

    def keep_only(self, watches: Collection[int]) -> None:
        """Stop watching all others."""
        for number in self._watches.keys() - watches:
            del self.attention[number]
            with suppress(OSError):  # it went with its directory
                self._inotify.rm_watch(self._watches.pop(number))

    def events(self) -> Iterator[Event]:
        """Yield what has happened by now, in order, and end. Does not block."""
        for event in self._inotify:
            if event.mask & Mask.Q_OVERFLOW:
                yield Event(None, "")
            elif event.watch is not None:
                yield Event(event.watch.wd, str(event.name or ""))

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._inotify.close()
