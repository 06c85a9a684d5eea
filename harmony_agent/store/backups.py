"""Backups of what was there before a Score changed it: one file each, apart from the database, never shown.

    keep -> a new file, flushed -> renamed over the old one -> the directory flushed

The files have mode 0600, since there may be passwords in them; they are named by the hash of what they
belong to. They are bounded, so that taking over what is there cannot fill the disk.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from harmony_core.errors import PriorTooLarge, WriteFailed
from harmony_core.reconciler import ORIGINAL_MAX_BYTES
from harmony_pi_topology.common.worker import Worker

from .flushing import flush_directory, make_directory, replace_file

__all__ = ["DirectoryBackups"]

_ALL_BYTES: Final = 64 * 1024 * 1024
_WITHIN_S: Final = 30.0


class DirectoryBackups:
    """`harmony_core.reconciler.Backups` in *directory*, which is made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._worker = Worker("originals", threads=1, timeout_s=_WITHIN_S)

    async def keep(self, resource_id: str, content: bytes) -> None:
        """Keep *content*. Raise `PriorTooLarge` above 1 MiB, or 64 MiB in all."""
        await self._worker.run(self._keep, resource_id, content)

    async def get(self, resource_id: str) -> bytes | None:
        return await self._worker.run(self._get, resource_id)

    async def forget(self, resource_id: str) -> None:
        await self._worker.run(self._forget, resource_id)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _keep(self, resource_id: str, content: bytes) -> None:
        path = self._path(resource_id)
        try:
            make_directory(self._directory)
            self._refuse_too_much(resource_id, path, len(content))
            replace_file(*_names(path), content)
        except OSError as error:
            raise WriteFailed(
                f"what was there before could not be kept in {self._directory}: {error.strerror}; "
                "look at the disk",
                resource=resource_id,
            ) from error

    def _refuse_too_much(self, resource_id: str, path: Path, size_bytes: int) -> None:
        others = (each for each in self._directory.iterdir() if each != path)
        all_bytes = size_bytes + sum(each.stat().st_size for each in others)
        if size_bytes > ORIGINAL_MAX_BYTES or all_bytes > _ALL_BYTES:
            raise PriorTooLarge(
                f"{size_bytes} bytes that were there before are too many to be kept; "
                "move them away by hand, or set discard_previous",
                resource=resource_id,
            )

    def _get(self, resource_id: str) -> bytes | None:
        try:
            return self._path(resource_id).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WriteFailed(
                f"what was there before cannot be read from {self._directory}: {error.strerror}; look at the "
                "disk",
                resource=resource_id,
            ) from error

    def _forget(self, resource_id: str) -> None:
        try:
            kept = [path for path in _names(self._path(resource_id)) if path.exists()]
            for path in kept:
                path.unlink()
            if kept:
                flush_directory(self._directory)
        except OSError as error:
            raise WriteFailed(
                f"what was there before could not be deleted from {self._directory}: {error.strerror}; look "
                "at the disk",
                resource=resource_id,
            ) from error

    def _path(self, resource_id: str) -> Path:
        return self._directory / hashlib.sha256(resource_id.encode()).hexdigest()


def _names(path: Path) -> tuple[Path, Path]:
    """Return the two names that it may have: its own, and that of one whose keeping was interrupted."""
    return path, path.with_suffix(".new")
