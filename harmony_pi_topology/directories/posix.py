"""Directories of a disk, by POSIX calls beneath one root: the reconciler behind `DirectoryHost`."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, UnsafePath
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_core.resources import Directory, DirectoryAt, DirectoryState, NotADirectory
from harmony_pi_topology.common.path_calls import PATIENCE_S, PathCalls
from harmony_pi_topology.common.path_identities import PathIdentities
from harmony_pi_topology.common.path_watch import PathWatcher, watch_itself
from harmony_pi_topology.files.removal import kind_in_words
from harmony_pi_topology.posix.owners import Owners
from harmony_pi_topology.posix.root import Found, Root

from .reconciler import Directories

__all__ = ["PosixDirectories"]

_AVAILABILITY_TIMEOUT_S = 5.0
_SPECIAL_BITS = 0o7000


class PosixDirectories:
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
        self._disk = _Disk(root, owner_checked, patience_s)
        self._directories = Directories(self._disk, records)
        self._watcher = PathWatcher(
            root, watch_itself, name="watching directories", patience_s=patience_s
        )

    @property
    def resource_class(self) -> type[Directory]:
        return Directory

    async def converge(
        self, resources: Sequence[Directory], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """As `Reconciler.converge`."""
        return await self._directories.converge(resources, apply=apply)

    async def observe(self, key: str) -> DirectoryState | None:
        """As `Reconciler.observe`."""
        return await self._disk.look(key)

    async def identities(self, resource: Directory) -> frozenset[str]:
        """Return the claims by which the kernel knows this path: as `Root.identities`."""
        return await self._disk.identities.look(resource.path)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """As `Reconciler.remove`. Never what is in it."""
        return await self._directories.remove(keys, apply=apply)

    async def availability(self) -> Availability:
        """Return whether the file system answers at all."""
        await self._watcher.mend()
        return await self._disk.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """As `Reconciler.watch`, by inotify."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        """As `Reconciler.close`."""
        await self._watcher.close()
        self._disk.close()


class _Disk:
    """A `DirectoryDisk`; everything happens in a thread."""

    def __init__(self, root: str, owner_checked: bool, patience_s: float) -> None:
        self._root = Root(root)
        self._owner_checked = owner_checked
        self._calls = PathCalls("directories", root, patience_s=patience_s)
        self.identities = PathIdentities(self._root, self._calls)

    async def look(self, path: str) -> DirectoryState | None:
        return await self._calls.run(self._look, path)

    async def resolve_desired(self, directory: Directory) -> DirectoryAt:
        return await self._calls.run(self._resolve_desired, directory)

    async def missing_above(self, path: str) -> Sequence[str]:
        return await self._calls.run(self._missing_above, path)

    async def make(self, path: str) -> None:
        await self._calls.run(self._root.make_directory, path)

    async def change(self, path: str, to: DirectoryAt) -> None:
        await self._calls.run(self._change, path, to)

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        return await self._calls.run(self._root.remove_empty, paths)

    async def availability(self) -> Availability:
        try:
            await self._calls.run_within(_AVAILABILITY_TIMEOUT_S, os.statvfs, self._root.path)
        except (CapabilityError, OSError) as error:
            return Availability(available=False, reason=str(error))
        return Availability(available=True)

    def close(self) -> None:
        self._calls.close()
        self._root.close()

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
            found = self._root.look(directory.path)
            owner = owners.user(os.geteuid() if found is None else found.uid)
            group = owners.group(os.getegid() if found is None else found.gid)
        return DirectoryAt(mode=f"{directory.mode:04o}", owner=owner, group=group)

    def _missing_above(self, path: str) -> list[str]:
        missing: list[str] = []
        with suppress(CapabilityError):  # then making it will say so
            for parent in map(str, PurePosixPath(path).parents[:-1]):
                if self._root.look(parent) is not None:
                    break
                missing.append(parent)
        return missing

    def _change(self, path: str, to: DirectoryAt) -> None:
        owners, mode = self._owners(), int(to.mode, 8)
        uid = owners.uid(to.owner) if self._owner_checked else -1
        gid = owners.gid(to.group) if self._owner_checked else -1
        found = self._root.look(path)
        if found is not None and found.mode & _SPECIAL_BITS:
            raise UnsafePath(
                f"{path} has mode {found.mode:04o}, which Harmony never gives, so that it could not "
                "be put back; change it by hand first"
            )
        self._root.change_directory(path, mode=mode, uid=uid, gid=gid)

    def _owners(self) -> Owners:
        here = self._root.path == "/" or not self._owner_checked
        return Owners(self._root, of_this_machine=here)
