"""Back up what is at the path of a file before Harmony first changes it, so that it can come back.

    a file that was there before us is about to be changed
      first time -> its content into the backups, its mode, owner and extras into the record;
                    where somebody took it away meanwhile: that nothing was there
      every time -> the hash of what is about to be written into the record, the last two
    -> only then the change itself

A killed agent finds at most one write that is not in the record yet, and then what stands there is still
the one before, which is. What could not be put back, such as set-user-id bits or a second name of the file,
is refused by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import attrs

from harmony_core.errors import CapabilityError, PriorTooLarge, UnsafePath
from harmony_core.reconciler import ORIGINAL_MAX_BYTES, Backups, JsonRecord, Records
from harmony_core.resources import File
from harmony_pi_topology.common.path_calls import PathCalls
from harmony_pi_topology.posix.extras import Extras
from harmony_pi_topology.posix.root import Found, Root

__all__ = ["FileBackups", "refuse_unrestorable"]

_SPECIAL_BITS = 0o7000


@attrs.frozen(kw_only=True)
class _Backup:
    content: bytes = attrs.field(repr=False)
    mode: int
    uid: int
    gid: int
    extras: Extras

    @property
    def written(self) -> JsonRecord:
        return {"mode": self.mode, "uid": self.uid, "gid": self.gid, **self.extras.written}


class FileBackups:
    """Keeps what is there under *root*. *sha256_of* hashes what a file is to hold, in a thread."""

    def __init__(
        self,
        root: Root,
        calls: PathCalls,
        *,
        records: Records,
        backups: Backups,
        sha256_of: Callable[[File], str],
    ) -> None:
        self._root = root
        self._calls = calls
        self._records = records
        self._backups = backups
        self._sha256_of = sha256_of

    async def keep(self, files: Sequence[File]) -> Mapping[str, Exception]:
        """Keep what was there before us, before each of *files* is overwritten. Return the errors by path.

        With `PriorTooLarge`, `UnsafePath` or `WriteFailed`, that file must not be touched.
        """
        kept = await asyncio.gather(*map(self._keep, files))
        return {file.path: error for file, error in zip(files, kept, strict=True) if error}

    async def _keep(self, file: File) -> CapabilityError | None:
        record = dict(self._records.get(file.id) or {})
        try:
            sha256 = await self._calls.run(self._sha256_of, file)
            if "prior" not in record:
                backup = await self._calls.run(self._look, file.path)
                if backup is None:
                    # Somebody took it away before we ever changed it: what will be there is all ours.
                    await self._records.put(file.id, {**record, "existed": False})
                    return None
                await self._backups.keep(file.id, backup.content)
                record["prior"] = backup.written
            await self._records.put(file.id, {**record, "wrote": _newest(record, sha256)})
        except CapabilityError as error:
            error.resource = file.id
            return error
        return None

    def _look(self, path: str) -> _Backup | None:
        found = self._root.look(path)
        if found is None:
            return None
        try:
            extras = self._root.extras(path)
            refuse_unrestorable(path, found, extras)
            content = self._root.read(path, max_bytes=ORIGINAL_MAX_BYTES)
        except FileNotFoundError:
            return None
        return _Backup(
            content=content, mode=found.mode, uid=found.uid, gid=found.gid, extras=extras
        )


def refuse_unrestorable(path: str, found: Found, extras: Extras) -> None:
    """Raise `UnsafePath` or `PriorTooLarge` where what is at *path* could not be restored later."""
    if found.mode & _SPECIAL_BITS:
        raise UnsafePath(
            f"{path} has mode {found.mode:04o}, which Harmony never gives, so that it could not "
            "be put back; move it away by hand first"
        )
    if found.size_bytes > ORIGINAL_MAX_BYTES:
        raise PriorTooLarge(
            f"{path} has {found.size_bytes} bytes, too many to be kept and put back in the end; "
            "move it away by hand, or set discard_previous"
        )
    extras.refuse_unrestorable(path)


def _newest(record: JsonRecord, sha256: str) -> list[str]:
    """Return the hashes of what we wrote there last, and are about to write: a kill may come in between."""
    wrote = [each for each in record.get("wrote", ()) if each != sha256]
    return [*wrote[-1:], sha256]
