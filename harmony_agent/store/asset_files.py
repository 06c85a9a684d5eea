"""What is kept of assets and downloads on the disk: whole ones, and what has come so far of others.

    <sha256>         whole: it had this hash when it got its name
    <sha256>.part    what has come so far, from the begin on

All of it blocks. Each write is flushed before it counts.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection
from pathlib import Path

from harmony_core.errors import AssetsFull, WriteFailed
from harmony_core.resources import Asset, Download
from harmony_core.wire.assets import CHUNK_BYTES

from .flushing import flush_directory, make_directory

__all__ = ["AssetFiles"]

_LEFT_FREE_BYTES = 32 * 1024 * 1024
"""Of the disk, for everything else that the device writes."""
_PART = ".part"


class AssetFiles:
    """In *directory*, at most *most_bytes* in all."""

    def __init__(self, directory: Path, *, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def find(self, content: Asset | Download) -> Path | None:
        """Return the file that has the whole of *content*; None where it is not here."""
        path = self._path(content.sha256)
        try:
            size_bytes = path.stat().st_size
        except OSError:
            return None
        return path if content.size_bytes in {None, size_bytes} else None

    def begin_part(
        self, content: Asset | Download, *, multiple_of: int = 1, anew: bool = False
    ) -> int:
        """Return how many bytes of *content* have come. Drop what is beyond a multiple of *multiple_of*;
        *anew* drops all.

        At least the last byte is left to come.
        """
        part = self._path(content.sha256, _PART)
        try:
            make_directory(self._directory)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                there_bytes = 0 if anew else os.fstat(descriptor).st_size
                most_bytes = there_bytes if content.size_bytes is None else content.size_bytes
                done_bytes = min(there_bytes, max(most_bytes - 1, 0))
                done_bytes -= done_bytes % multiple_of
                os.ftruncate(descriptor, done_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._make_write_failed(content, error) from error
        return done_bytes

    def refuse_without_room(
        self, content: Asset | Download, missing_bytes: int, reserved_bytes: int
    ) -> None:
        """Raise `AssetsFull` unless there is room for *missing_bytes* in addition to what others were
        promised."""
        try:
            _, used_bytes, free_bytes = self._measure()
        except OSError as error:
            raise self._make_write_failed(content, error) from error
        used_bytes += reserved_bytes
        if used_bytes + missing_bytes > self._most_bytes:
            raise AssetsFull(
                f"{content.summary}: the {used_bytes} bytes of assets that are needed here leave no room for "
                f"it within {self._most_bytes // 1024**2} MiB; raise assets_max_mib in agent.toml, or have "
                "this device need fewer"
            )
        needed_bytes = missing_bytes + reserved_bytes + _LEFT_FREE_BYTES
        if free_bytes < needed_bytes:
            raise AssetsFull(
                f"{content.summary}: {free_bytes} bytes are free on the disk of {self._directory}, and "
                f"{needed_bytes} are needed; make room there"
            )

    def refuse_image_without_room(self, contents: Collection[Asset]) -> None:
        """Raise `AssetsFull` unless the *contents* of an image fit here in addition to all else."""
        whole_bytes = sum(each.size_bytes for each in contents)
        try:
            make_directory(self._directory)
            here_bytes, others_bytes, free_bytes = self._measure({each.sha256 for each in contents})
        except OSError as error:
            raise WriteFailed(f"{self._directory} cannot be read: {error.strerror}") from error
        lacking = f"of its image, podman lacks {whole_bytes} bytes, which have to be here together"
        if others_bytes + whole_bytes > self._most_bytes:
            needed_mib = math.ceil((others_bytes + whole_bytes) / 1024**2)
            raise AssetsFull(
                f"{lacking}; beside the {others_bytes} bytes of other assets that are needed here, they have "
                f"no room within {self._most_bytes // 1024**2} MiB; raise assets_max_mib in agent.toml to "
                f"{needed_mib} or more, or make its layers smaller"
            )
        free_bytes += here_bytes
        if free_bytes < whole_bytes + _LEFT_FREE_BYTES:
            raise AssetsFull(
                f"{lacking}; {free_bytes} bytes are free for that on the disk of {self._directory}, and "
                f"{whole_bytes + _LEFT_FREE_BYTES} are needed; make room there"
            )

    def _measure(self, hashes: Collection[str] = ()) -> tuple[int, int, int]:
        """Return how many bytes of the contents with these *hashes* are here, how many of others, and how
        many are free on the disk. OSError."""
        apart_bytes = others_bytes = 0
        for each in self._directory.iterdir():
            size_bytes = each.stat().st_size
            if each.name.removesuffix(_PART) in hashes:
                apart_bytes += size_bytes
            else:
                others_bytes += size_bytes
        disk = os.statvfs(self._directory)
        return apart_bytes, others_bytes, disk.f_bavail * disk.f_frsize

    def append(self, content: Asset | Download, at: int, plain: bytes) -> None:
        """Append *plain* after the first *at* bytes that have come of *content*, and flush it."""
        try:
            descriptor = os.open(
                self._path(content.sha256, _PART), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            try:
                left = memoryview(plain)
                while left:
                    written = os.pwrite(descriptor, left, at)
                    left, at = left[written:], at + written
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._make_write_failed(content, error) from error

    def give_name(self, content: Asset | Download) -> bool:
        """Return whether what has come is *content*, which is then complete; delete what is something
        else."""
        part = self._path(content.sha256, _PART)
        digest = hashlib.sha256()
        try:
            with part.open("rb") as file:
                while block := file.read(CHUNK_BYTES):
                    digest.update(block)
            if digest.hexdigest() == content.sha256:
                part.rename(self._path(content.sha256))
                flush_directory(self._directory)
                return True
            part.unlink()
        except OSError as error:
            raise self._make_write_failed(content, error) from error
        return False

    def collect(self, needed: Collection[str]) -> bool:
        """Remove all whose hashes are not among *needed*. Return whether there was nothing at all."""
        try:
            names = {each.name.removesuffix(_PART) for each in self._directory.iterdir()}
        except FileNotFoundError:
            names = set[str]()
        except OSError as error:
            raise WriteFailed(f"{self._directory} cannot be read: {error.strerror}") from error
        self.remove(sorted(names - set(needed)))
        return not names

    def remove(self, hashes: Collection[str], *, but_parts: bool = False) -> None:
        """Delete the contents with these *hashes*; unless *but_parts*, also their parts."""
        try:
            for each in hashes:
                self._path(each).unlink(missing_ok=True)
                if not but_parts:
                    self._path(each, _PART).unlink(missing_ok=True)
        except OSError as error:
            raise WriteFailed(
                f"what is in {self._directory} cannot be removed: {error.strerror}; look at the disk"
            ) from error

    def _path(self, sha256: str, suffix: str = "") -> Path:
        return self._directory / f"{sha256}{suffix}"

    def _make_write_failed(self, content: Asset | Download, error: OSError) -> WriteFailed:
        return WriteFailed(
            f"{content.summary} could not be kept in {self._directory}: {error.strerror}; look at the disk"
        )
