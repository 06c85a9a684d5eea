"""Hearing of what concerns containers: that one ends, holds, or that a file changes that one uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from harmony_core.reconciler import Told
from harmony_core.resources import Container
from harmony_pi_topology.common.path_watch import PathWatcher

from .exit_watcher import ContainerEnds, OpenProcess
from .holds import hold_file
from .podman_reply import FoundContainer

__all__ = ["ContainerWatcher"]


class ContainerWatcher:
    """Containers that use files beneath *root*."""

    def __init__(self, root: str, open_process: OpenProcess) -> None:
        self._ends = ContainerEnds(open_process)
        self._files = PathWatcher(root, self._paths_of, name="watching container files")
        self._used: dict[str, tuple[str, ...]] = {}
        self._watched: frozenset[str] = frozenset()

    def note(self, container: Container, mounted: Iterable[str] = ()) -> None:
        """What *container* uses is watched with it from now on, the files *mounted*, and whether it holds."""
        files = tuple(dict.fromkeys((*container.uses, *mounted)))
        if container.max_hold_s is not None:
            files = (*files, hold_file(container.name))
        if self._used.get(container.name, ()) != files:
            self._used[container.name] = files
            if container.name in self._watched:
                self._files.find_anew(container.name)

    def forget(self, name: str) -> None:
        """It uses nothing any more."""
        self._used.pop(name, None)

    def saw(self, found: FoundContainer) -> None:
        """As `ContainerEnds.saw`."""
        self._ends.saw(found)

    async def watch(self, names: Collection[str], told: Told) -> list[str]:
        """As `ContainerEnds.watch`."""
        self._watched = frozenset(names)
        unknown = self._ends.watch(names, told)
        # Most use none, and for them no file is watched at all.
        await self._files.watch([name for name in names if self._used.get(name)], told)
        return unknown

    async def mend(self) -> None:
        """Where not all files could be watched, try again."""
        await self._files.mend()

    async def close(self) -> None:
        """As `Reconciler.close`."""
        self._ends.close()
        await self._files.close()

    def _paths_of(self, names: Collection[str]) -> Mapping[str, Collection[str]]:
        return {name: self._used.get(name, ()) for name in names}
