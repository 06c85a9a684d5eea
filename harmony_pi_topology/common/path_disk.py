"""What all resources at a path have in common: calls in threads, identities, and watching."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import Availability, OnChange
from harmony_pi_topology.posix.root import Root

from .path_calls import PathCalls
from .path_identities import PathIdentities
from .path_watch import PathWatcher

__all__ = ["PathDisk", "WatchedPaths"]

_AVAILABILITY_TIMEOUT_S = 5.0


class PathDisk:
    """A disk beneath *root*; every call happens in a thread, for as long as it moves within *patience_s*."""

    def __init__(self, name: str, root: str, patience_s: float) -> None:
        self._root = Root(root)
        self._calls = PathCalls(name, root, patience_s=patience_s)
        self.identities = PathIdentities(self._root, self._calls)

    async def missing_above(self, path: str) -> Sequence[str]:
        """Return the directories above *path* that are not there."""
        return await self._calls.run(self._root.missing_above, path)

    async def list_below(self, path: str) -> Sequence[str]:
        """Return every path below the directory *path*; none where it is no directory."""
        return await self._calls.run(self._root.list_below, path)

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        """Remove those directories that are empty, deepest first. Return those that are gone now."""
        return await self._calls.run(self._root.remove_empty, paths)

    async def availability(self) -> Availability:
        """Return whether the file system answers at all."""
        try:
            await self._calls.run_within(_AVAILABILITY_TIMEOUT_S, os.statvfs, self._root.path)
        except (CapabilityError, OSError) as error:
            return Availability(available=False, reason=str(error))
        return Availability(available=True)

    def close(self) -> None:
        """Accept no more calls."""
        self._calls.close()
        self._root.close()


class WatchedPaths:
    """The verbs of a `Reconciler` that are the same for everything at a path."""

    def __init__(self, paths: PathDisk, watcher: PathWatcher) -> None:
        self._paths = paths
        self._watcher = watcher

    async def availability(self) -> Availability:
        """Return whether the file system answers at all."""
        await self._watcher.mend()
        return await self._paths.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys* by inotify."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        await self._watcher.close()
        self._paths.close()
