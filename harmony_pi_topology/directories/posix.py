"""Directories of a disk, by POSIX calls beneath one root: the reconciler behind `DirectoryHost`."""

from __future__ import annotations

import os
from contextlib import suppress

from harmony_core.errors import UnsafePath
from harmony_core.reconciler import Records
from harmony_core.resources import Directory, DirectoryAt, DirectoryState, NotADirectory
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_disk import PathDisk, WatchedPaths
from harmony_pi_topology.common.path_watch import PathWatcher, watch_itself
from harmony_pi_topology.files.removal import kind_in_words
from harmony_pi_topology.posix.owners import Owners
from harmony_pi_topology.posix.root import Found

from .reconciler import Directories

__all__ = ["PosixDirectories"]

_SET_USER_ID = 0o4000


class PosixDirectories(Directories, WatchedPaths):
    """``root`` is / or a folder that stands for a device; owners and patience as in `PosixFiles`."""

    def __init__(
        self,
        root: str = "/",
        *,
        records: Records,
        owner_checked: bool | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        owner_checked = root == "/" if owner_checked is None else owner_checked
        disk = _Disk(root, owner_checked, patience_s)
        watcher = PathWatcher(
            root, watch_itself, name="watching directories", patience_s=patience_s
        )
        Directories.__init__(self, disk, records)
        WatchedPaths.__init__(self, disk, watcher)

    async def identities(self, resource: Directory) -> frozenset[str]:
        """Return the claims by which the kernel knows this path; see `Root.identities`."""
        return await self._paths.identities.look(resource.path)


class _Disk(PathDisk):
    """A `DirectoryDisk`."""

    def __init__(self, root: str, owner_checked: bool, patience_s: float) -> None:
        super().__init__("directories", root, patience_s)
        self._owner_checked = owner_checked

    async def look(self, path: str) -> DirectoryState | None:
        return await self._calls.run(self._look, path)

    async def resolve_desired(self, directory: Directory) -> DirectoryAt:
        return await self._calls.run(self._resolve_desired, directory)

    async def find_home(self, user: str) -> str | None:
        if not self._owner_checked:
            return None
        return await self._calls.run(lambda: self._owners().home(user))

    async def make(self, path: str) -> None:
        await self._calls.run(self._root.make_directory, path)

    async def change(self, path: str, to: DirectoryAt) -> None:
        await self._calls.run(self._change, path, to)

    # From here on in the thread.

    def _look(self, path: str) -> DirectoryState | None:
        found = self._root.look(path)
        if found is None:
            return None
        if found.kind != "directory":
            return NotADirectory(kind=kind_in_words(found))
        return self._state(found)

    def _state(self, found: Found) -> DirectoryAt:
        owners = self._owners()
        return DirectoryAt(
            mode=f"{found.mode:04o}", owner=owners.user(found.uid), group=owners.group(found.gid)
        )

    def _resolve_desired(self, directory: Directory) -> DirectoryAt:
        owners = self._owners()
        if self._owner_checked:
            # By number and back, so that "0" and "root" are the same.
            owner = owners.user(owners.uid(directory.owner))
            group = owners.group(owners.gid(directory.group))
        else:
            found = None
            with suppress(UnsafePath):  # which `look` tells
                found = self._root.look(directory.path)
            owner = owners.user(os.geteuid() if found is None else found.uid)
            group = owners.group(os.getegid() if found is None else found.gid)
        return DirectoryAt(mode=f"{directory.mode:04o}", owner=owner, group=group)

    def _change(self, path: str, to: DirectoryAt) -> None:
        owners, mode = self._owners(), int(to.mode, 8)
        uid = owners.uid(to.owner) if self._owner_checked else -1
        gid = owners.gid(to.group) if self._owner_checked else -1
        found = self._root.look(path)
        if found is not None and found.mode & _SET_USER_ID:
            raise UnsafePath(
                f"{path} has mode {found.mode:04o}, which Harmony never gives, so that it could not "
                "be put back; change it by hand first"
            )
        self._root.change_directory(path, mode=mode, uid=uid, gid=gid)

    def _owners(self) -> Owners:
        here = self._root.path == "/" or not self._owner_checked
        return Owners(self._root, of_this_machine=here)
