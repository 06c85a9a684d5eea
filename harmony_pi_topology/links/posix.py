"""Links of a disk, by POSIX calls beneath one root: the reconciler behind `LinkHost`."""

from __future__ import annotations

from harmony_core.reconciler import Records
from harmony_core.resources import NotALink, SymbolicLink
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_disk import PathDisk, WatchedPaths
from harmony_pi_topology.common.path_watch import PathWatcher, watch_itself
from harmony_pi_topology.files.removal import kind_in_words

from .reconciler import FoundLink, Links

__all__ = ["PosixLinks"]


class PosixLinks(Links, WatchedPaths):
    """``root`` is / or a folder that stands for a device; patience as in `PosixFiles`."""

    def __init__(
        self, root: str = "/", *, records: Records, patience_s: float = PATIENCE_S
    ) -> None:
        disk = _Disk("links", root, patience_s)
        watcher = PathWatcher(root, watch_itself, name="watching links", patience_s=patience_s)
        Links.__init__(self, disk, records)
        WatchedPaths.__init__(self, disk, watcher)

    async def identities(self, resource: SymbolicLink) -> frozenset[str]:
        """Return the claims by which the kernel knows this path; see `Root.identities`."""
        return await self._paths.identities.look(resource.path)


class _Disk(PathDisk):
    """A `LinkDisk`."""

    async def look(self, path: str) -> FoundLink | NotALink | None:
        return await self._calls.run(self._look, path)

    async def is_empty_directory(self, path: str) -> bool:
        return await self._calls.run(self._is_empty_directory, path)

    async def put(self, path: str, link: FoundLink) -> None:
        await self._calls.run(self._put, path, link)

    async def remove(self, path: str) -> None:
        await self._calls.run(self._root.remove_link, path)

    # From here on in the thread.

    def _look(self, path: str) -> FoundLink | NotALink | None:
        found = self._root.look(path)
        if found is None:
            return None
        if found.kind != "symlink":
            return NotALink(kind=kind_in_words(found))
        target = self._root.read_link(path)
        return None if target is None else FoundLink(target=target, uid=found.uid, gid=found.gid)

    def _is_empty_directory(self, path: str) -> bool:
        found = self._root.look(path)
        if found is None or found.kind != "directory":
            return False
        return self._root.may_give_way(path, found)

    def _put(self, path: str, link: FoundLink) -> None:
        self._root.sweep([path.rpartition("/")[0] or "/"])
        self._root.make_parents(path)
        if self._is_empty_directory(path):
            self._root.make_way(path)
        self._root.put_link(path, link.target, uid=link.uid, gid=link.gid)
