"""Hearing of what concerns containers: that one ends, holds, or that a file changes that one uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import attrs

from harmony_core.holds import HOLD_FILE
from harmony_core.reconciler import OnChange
from harmony_core.resources import Container
from harmony_pi_topology.common.path_watch import PathWatcher

from .exit_watcher import ContainerEnds, OpenProcess
from .podman_reply import FoundContainer

__all__ = ["ContainerWatcher"]


@attrs.frozen
class _Hold:
    file: str
    started_at: datetime
    """Of the container whose it is."""


class ContainerWatcher:
    """Containers that use files beneath *root*."""

    def __init__(self, root: str, open_process: OpenProcess) -> None:
        self._ends = ContainerEnds(open_process)
        self._files = PathWatcher(root, self._paths_of, name="watching container files")
        self._used: dict[str, tuple[str, ...]] = {}
        self._holds: dict[str, _Hold] = {}
        self._watched: frozenset[str] = frozenset()

    def note(self, container: Container, mounted: Iterable[str] = ()) -> None:
        """Watch from now on the files that *container* uses, and the files *mounted*, together with the
        container."""
        files = tuple(dict.fromkeys((*container.uses, *mounted)))
        if self._used.get(container.name, ()) != files:
            self._used[container.name] = files
            self._find_anew(container.name)

    def forget(self, name: str) -> None:
        """Forget the files and the hold of the container *name*."""
        self._used.pop(name, None)
        self._holds.pop(name, None)

    def note_found(self, found: FoundContainer) -> None:
        """Note that podman has just reported *found*, and watch its hold from now on. Watch that again after
        each start, since its directory is mounted only then, and no watch sees the mount."""
        self._ends.note_found(found)
        if found.hold_directory is None or not found.running:
            return
        hold = _Hold(f"{found.hold_directory}/{HOLD_FILE}", found.started_at)
        if self._holds.get(found.name) != hold:
            self._holds[found.name] = hold
            self._find_anew(found.name)

    async def watch(self, names: Collection[str], on_change: OnChange) -> list[str]:
        """Watch *names* as `ContainerEnds.watch` does, and their files. Return what it returns."""
        self._watched = frozenset(names)
        unknown = self._ends.watch(names, on_change)
        # Most use none, and for them no file is watched at all.
        await self._files.watch([name for name in names if self._paths(name)], on_change)
        return unknown

    async def mend(self) -> None:
        """Try again to watch the files that could not be watched."""
        await self._files.mend()

    async def close(self) -> None:
        """Stop watching. Idempotent."""
        self._ends.close()
        await self._files.close()

    def _paths_of(self, names: Collection[str]) -> Mapping[str, Collection[str]]:
        return {name: self._paths(name) for name in names}

    def _paths(self, name: str) -> tuple[str, ...]:
        hold = self._holds.get(name)
        return (*self._used.get(name, ()), *((hold.file,) if hold is not None else ()))

    def _find_anew(self, name: str) -> None:
        if name in self._watched:
            self._files.find_anew(name)
