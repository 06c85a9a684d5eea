"""Links in memory, of a `FakeFiles`: they see each other as on a disk."""

from __future__ import annotations

from collections.abc import Sequence

from harmony_core.resources import NotALink
from harmony_pi_topology.links.reconciler import FoundLink, Links

from .fake_files import FakeFiles, MadeDirectoryRecords
from .fake_reconciler import FakeReconciler

__all__ = ["FakeLinks"]


class FakeLinks(FakeReconciler, Links):
    """A `LinkHost`'s reconciler."""

    def __init__(self, files: FakeFiles | None = None) -> None:
        FakeReconciler.__init__(self)
        self.files = files or FakeFiles()
        Links.__init__(self, _Disk(self.files), MadeDirectoryRecords(self.files))
        self.files.listen(self._watch.tell_at)

    def write(self, path: str, content: bytes) -> None:
        """Write a file, as a bystander would. So do the methods below."""
        self.files.write(path, content)

    def make_directory(self, path: str) -> None:
        self.files.make_directory(path)

    def symlink(self, path: str, target: str) -> None:
        self.files.link(path, target)

    def delete(self, path: str) -> None:
        self.files.delete(path)

    def exists(self, path: str) -> bool:
        return self.files.exists(path)

    def readlink(self, path: str) -> str | None:
        return self.files.readlink(path)


class _Disk:
    """A `LinkDisk` over the files' own."""

    def __init__(self, files: FakeFiles) -> None:
        self._files = files

    async def look(self, path: str) -> FoundLink | NotALink | None:
        self._files.refuse(path)
        if (target := self._files.readlink(path)) is not None:
            return FoundLink(target=target)
        kind = self._files.kind_at(path)
        return None if kind is None else NotALink(kind=kind)

    async def is_empty_directory(self, path: str) -> bool:
        return self._files.kind_at(path) == "directory" and not self._files.is_full(path)

    async def list_below(self, path: str) -> Sequence[str]:
        return self._files.below(path)

    async def missing_above(self, path: str) -> Sequence[str]:
        return [each for each in self._files.above(path) if not self._files.exists(each)]

    async def put(self, path: str, link: FoundLink) -> None:
        self._files.link(path, link.target)

    async def remove(self, path: str) -> None:
        self._files.delete(path)

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        deepest_first = sorted(paths, key=len, reverse=True)
        return [path for path in deepest_first if self._files.remove_directory(path)]
