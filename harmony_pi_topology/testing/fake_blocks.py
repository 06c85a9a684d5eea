"""Parts of files in memory, of a `FakeFiles`: what a Score writes here, others read there."""

from __future__ import annotations

from collections.abc import Sequence

from harmony_core.errors import UnsafePath, WriteFailed
from harmony_core.reconciler import MemoryBackups
from harmony_core.resources.block import split_block_key
from harmony_pi_topology.blocks.reconciler import Blocks, TextFile

from .fake_files import FakeFiles, MadeDirectoryRecords
from .fake_reconciler import FakeReconciler

__all__ = ["FakeBlocks"]


class FakeBlocks(FakeReconciler, Blocks):
    """A `BlockHost`'s reconciler. ``boot`` is the number of the boot: raise it to boot the device anew."""

    def __init__(self, files: FakeFiles | None = None) -> None:
        FakeReconciler.__init__(self)
        self.files = files or FakeFiles()
        self.boot = 1
        self.kernel_words = frozenset[str]()
        """The words that the kernel was booted with."""
        Blocks.__init__(self, _Disk(self), MadeDirectoryRecords(self.files), MemoryBackups())
        self.files.listen(self._tell)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file, as a bystander would. So do the methods below."""
        self.files.write(path, content, mode)

    def read(self, path: str) -> bytes | None:
        return self.files.read(path)

    def mode(self, path: str) -> int:
        return self.files.mode(path)

    def exists(self, path: str) -> bool:
        return self.files.exists(path)

    def symlink(self, path: str, target: str) -> None:
        self.files.link(path, target)

    def rebooted(self) -> FakeBlocks:
        """Return the same, after the device was rebooted."""
        self.boot += 1
        return self

    def _tell(self, path: str) -> None:
        self._watch.tell_where(lambda key: split_block_key(key)[0] == path)


class _Disk:
    """A `BlockDisk` over the files' own."""

    def __init__(self, fake: FakeBlocks) -> None:
        self._fake = fake
        self._files = fake.files

    async def read(self, path: str) -> TextFile | None:
        self._files.refuse(path)
        kind = self._files.kind_at(path)
        if kind is None:
            return None
        content = self._files.read(path)
        if content is None:
            raise UnsafePath(f"{path} is a {kind}, not a file; name another path")
        is_open = bool(self._files.mode(path) & 0o004)
        return TextFile(content=content, is_open=is_open, seen=content)

    async def write(
        self,
        path: str,
        content: bytes,
        *,
        in_place_of: TextFile | None,
        keep_previous: bool,
        made_for: str | None = None,
    ) -> None:
        seen = None if in_place_of is None else in_place_of.seen
        if self._files.read(path) != seen:
            raise WriteFailed(f"{path} was changed by somebody else; it is tried again")
        for missing in await self.missing_above(path):
            self._files.made_directories.add(missing)
        made_mode = 0o644 if made_for is None else 0o600
        mode = made_mode if in_place_of is None else self._files.mode(path)
        if keep_previous and in_place_of is not None:
            self._files.write(f"{path}.harmony-previous", in_place_of.content, mode)
        self._files.write(path, content, mode)

    async def remove(self, path: str) -> None:
        self._files.delete(path)

    async def missing_above(self, path: str) -> Sequence[str]:
        return [each for each in self._files.above(path) if not self._files.exists(each)]

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        deepest_first = sorted(paths, key=len, reverse=True)
        return [path for path in deepest_first if self._files.remove_directory(path)]

    def boot_id(self) -> str:
        return str(self._fake.boot)

    def kernel_words(self) -> frozenset[str]:
        return self._fake.kernel_words
