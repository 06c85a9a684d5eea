"""Parts of the files of a disk, by POSIX calls beneath one root: the reconciler behind `BlockHost`.

A file is read and replaced as `PosixFiles` does it (`posix.safe_write`), with the mode, owner and extras that
it has. FAT has neither owners nor a file without a name, and there a rename outlasts a power cut or does not:
so a copy of what was there is written first, and flushed, where that is wished for.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from harmony_core.claims import alike
from harmony_core.errors import UnsafePath, WriteFailed
from harmony_core.reconciler import (
    ORIGINAL_MAX_BYTES,
    Backups,
    Records,
)
from harmony_core.resources import Block
from harmony_core.resources.block import split_block_key
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_disk import PathDisk, WatchedPaths
from harmony_pi_topology.common.path_watch import PathWatcher
from harmony_pi_topology.posix.found import Found, refuse_other_kinds
from harmony_pi_topology.posix.kernel_line import read_kernel_words
from harmony_pi_topology.posix.owners import Owners
from harmony_pi_topology.posix.root import Draft

from .reconciler import Blocks, TextFile

__all__ = ["PosixBlocks"]

_OTHERS_MAY_READ = 0o004
_SPECIAL_BITS = 0o7000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PREVIOUS = ".harmony-previous"


class PosixBlocks(Blocks, WatchedPaths):
    """``root`` is / or a folder that stands for a device; patience as in `PosixFiles`."""

    def __init__(
        self,
        root: str = "/",
        *,
        records: Records,
        backups: Backups,
        patience_s: float = PATIENCE_S,
        boot_id: str | None = None,
    ) -> None:
        disk = _Disk(
            root,
            patience_s,
            boot_id or _BOOT_ID.read_text().strip(),
            frozenset(read_kernel_words(Path(root) / "proc")),
        )
        # Whatever is done to the file is told, its other parts included.
        watcher = PathWatcher(root, _paths_of, name="watching blocks", patience_s=patience_s)
        Blocks.__init__(self, disk, records, backups)
        WatchedPaths.__init__(self, disk, watcher)

    async def identities(self, resource: Block) -> frozenset[str]:
        """Return the claims by which the kernel knows the file, which all its parts have, and this part."""
        names = await self._paths.identities.look(resource.path)
        part = resource.part.selector
        return frozenset(
            claim for name in names for claim in (alike(name, "parts"), f"{name}#{part}")
        )


def _paths_of(keys: Collection[str]) -> Mapping[str, Collection[str]]:
    return {key: (split_block_key(key)[0],) for key in keys}


class _Disk(PathDisk):
    """A `BlockDisk`."""

    def __init__(
        self, root: str, patience_s: float, boot_id: str, kernel_words: frozenset[str]
    ) -> None:
        super().__init__("parts of files", root, patience_s)
        self._boot_id = boot_id
        self._kernel_words = kernel_words

    async def read(self, path: str) -> TextFile | None:
        return await self._calls.run(self._read, path)

    async def write(
        self,
        path: str,
        content: bytes,
        *,
        in_place_of: TextFile | None,
        keep_previous: bool,
        made_for: str | None = None,
    ) -> None:
        await self._calls.run(self._write, path, content, in_place_of, keep_previous, made_for)

    async def remove(self, path: str) -> None:
        await self._calls.run(self._root.remove, path)

    def boot_id(self) -> str:
        return self._boot_id

    def kernel_words(self) -> frozenset[str]:
        return self._kernel_words

    # From here on in the thread.

    def _read(self, path: str) -> TextFile | None:
        found = self._root.look(path)
        if found is None:
            return None
        refuse_other_kinds(path, found)
        try:
            content = self._root.read(path, max_bytes=ORIGINAL_MAX_BYTES)
        except FileNotFoundError:
            return None  # gone between the two looks
        if b"\0" in content:
            raise UnsafePath(
                f"{path} is not text; a part of it cannot be told; choose another file"
            )
        return TextFile(content=content, is_open=bool(found.mode & _OTHERS_MAY_READ), seen=found)

    def _write(
        self,
        path: str,
        content: bytes,
        in_place_of: TextFile | None,
        keep_previous: bool,
        made_for: str | None,
    ) -> None:
        self._root.sweep([path.rpartition("/")[0] or "/"])
        if in_place_of is None:
            self._root.make_parents(path)
            self._refuse_changed(path, None)
            self._root.write_many([self._draft_of_new(path, content, made_for)])
            return
        found = in_place_of.seen
        assert isinstance(found, Found)
        extras = self._root.extras(path)
        if found.mode & _SPECIAL_BITS or extras.names > 1:
            raise UnsafePath(
                f"{path} has mode {found.mode:04o} and {extras.names} names (hard links), which it would "
                "lose; give it one name, and none of the bits set-user-id, set-group-id and sticky"
            )
        extras.refuse_unrestorable(path)
        here = os.geteuid() == 0
        draft = Draft(
            path=path,
            content=content,
            mode=found.mode,
            uid=found.uid if here else -1,
            gid=found.gid if here else -1,
            extras=attrs.evolve(extras, mtime_ns=None),
        )
        if keep_previous:
            copy = attrs.evolve(
                draft, path=f"{path}{PREVIOUS}", content=in_place_of.content, extras=None
            )
            self._root.write_many([copy])
        self._refuse_changed(path, found)
        self._root.write_many([draft])

    def _draft_of_new(self, path: str, content: bytes, made_for: str | None) -> Draft:
        if made_for is None:
            return Draft(path=path, content=content, mode=0o644)
        owners = Owners(self._root, of_this_machine=self._root.path == "/")
        uid = owners.uid(made_for) if os.geteuid() == 0 else -1
        return Draft(path=path, content=content, mode=0o600, uid=uid)

    def _refuse_changed(self, path: str, found: Found | None) -> None:
        """Raise where *path* has changed since it was read. Call this as late as possible, since others may
        write it too."""
        if self._root.look(path) != found:
            raise WriteFailed(
                f"{path} was changed by somebody else the moment it was to be written; it is tried again",
                retry_after_s=1.0,
            )
