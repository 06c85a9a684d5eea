"""Directories in memory, of a `FakeFiles`: they see each other as on a disk."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from harmony_core.resources import Directory, DirectoryAt, DirectoryState, NotADirectory
from harmony_pi_topology.directories.reconciler import Directories

from .fake_files import FakeFiles, MadeDirectoryRecords
from .fake_reconciler import FakeReconciler

__all__ = ["FakeDirectories"]

_PLAIN = DirectoryAt(mode="0755", owner="root", group="root")


class FakeDirectories(FakeReconciler, Directories):
    """A `DirectoryHost`'s reconciler."""

    def __init__(self, files: FakeFiles | None = None) -> None:
        FakeReconciler.__init__(self)
        self.files = files or FakeFiles()
        self._disk = _Disk(self.files)
        Directories.__init__(self, self._disk, MadeDirectoryRecords(self.files))
        self.files.listen(self._watch.tell_at)

    @property
    def homes(self) -> dict[str, str]:
        """The homes of users. Of one who is not named nothing is asked."""
        return self._disk.homes

    def write(self, path: str, content: bytes) -> None:
        """Write a file, as a bystander would. So do the methods below."""
        self.files.write(path, content)

    def make_directory(self, path: str) -> None:
        self.files.make_directory(path)

    def link(self, path: str, target: str) -> None:
        self.files.link(path, target)

    def delete(self, path: str) -> None:
        self.files.delete(path)

    def exists(self, path: str) -> bool:
        return self.files.exists(path)

    def chmod(self, path: str, mode: int) -> None:
        self._disk.states[path] = DirectoryAt(mode=f"{mode:04o}", owner="root", group="root")
        self._watch.tell_at(path)

    def mode(self, path: str) -> int:
        """Return the permission bits of a directory that is there."""
        return int(self._disk.states.get(path, _PLAIN).mode, 8)


class _Disk:
    """A `DirectoryDisk` over the files' own."""

    def __init__(self, files: FakeFiles) -> None:
        self._files = files
        self.states: dict[str, DirectoryAt] = {}
        """Of those that are not as plain as one is made."""
        self.homes: dict[str, str] = {}

    async def look(self, path: str) -> DirectoryState | None:
        kind = self._files.kind_at(path)
        if kind == "directory":
            return self.states.get(path, _PLAIN)
        self.states.pop(path, None)
        return None if kind is None else NotADirectory(kind=kind)

    async def resolve_desired(self, directory: Directory) -> DirectoryAt:
        return DirectoryAt(
            mode=f"{directory.mode:04o}", owner=directory.owner, group=directory.group
        )

    async def find_home(self, user: str) -> str | None:
        return self.homes.get(user)

    async def missing_above(self, path: str) -> Sequence[str]:
        return [each for each in self._files.above(path) if not self._files.exists(each)]

    async def make(self, path: str) -> None:
        self._files.make_directory(path)

    async def change(self, path: str, to: DirectoryAt) -> None:
        mode = self._files.keep_mode(int(to.mode, 8))
        self.states[path] = attrs.evolve(to, mode=f"{mode:04o}")

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        deepest_first = sorted(paths, key=len, reverse=True)
        return [path for path in deepest_first if self._files.remove_directory(path)]
