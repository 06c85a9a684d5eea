"""Files of this machine that are to be assets: read once for their hash, and again when they are pushed.

A Score has the hash alone. Which file has that content is known to the process that has read it.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import attrs

from harmony_core.errors import ScoreFileError
from harmony_core.resources import ASSET_MAX_BYTES, Asset
from harmony_core.wire.assets import CHUNK_BYTES

__all__ = ["find_file", "note_part", "open_regular", "read_asset", "read_chunks", "to_name"]


@attrs.frozen
class _ReadFile:
    path: Path
    pieces: tuple[bytes, ...] = attrs.field(repr=False)
    """The SHA-256 of each."""
    part: tuple[int, int] | None = None
    """Where in the file it begins and ends; None where it is all of it."""


_FILES: dict[str, _ReadFile] = {}
"""What this process has read, by its hash."""


def read_asset(path: Path | str) -> Asset:
    """Return the file at *path* as an asset, for a field of a Score such as `FileScore.asset`.

    Its content is read again when the Score is pushed: until then, in this process, it must not change. Raise
    `ScoreFileError` for what cannot be read, is empty, or has more than `ASSET_MAX_BYTES`.
    """
    path = Path(path)
    digest, size_bytes = hashlib.sha256(), 0
    pieces: list[bytes] = []
    with open_regular(path) as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            pieces.append(hashlib.sha256(block).digest())
            size_bytes += len(block)
            _refuse_large(path, size_bytes)
    if not size_bytes:
        raise ScoreFileError(f'{path} is empty; write content: "" in its place')
    sha256 = digest.hexdigest()
    _FILES[sha256] = _ReadFile(path.absolute(), tuple(pieces))
    return Asset(sha256=sha256, size_bytes=size_bytes, name=to_name(path.absolute().name))


def note_part(path: Path, file: BinaryIO, begin: int, size_bytes: int) -> str:
    """Return the SHA-256, in hex, of so many bytes of *file*, which is open at *path*: it is an asset of that
    hash, which is read again when it is pushed. Fewer bytes where the file ends before."""
    digest, pieces, left = hashlib.sha256(), list[bytes](), size_bytes
    file.seek(begin)
    while left and (block := file.read(min(CHUNK_BYTES, left))):
        digest.update(block)
        pieces.append(hashlib.sha256(block).digest())
        left -= len(block)
    sha256 = digest.hexdigest()
    part = (begin, begin + size_bytes)
    _FILES[sha256] = _ReadFile(path.absolute(), tuple(pieces), part)
    return sha256


def find_file(asset: Asset) -> Path | None:
    """Return the file that had the content of *asset* when this process read it; None where it read none."""
    found = _FILES.get(asset.sha256)
    return found.path if found is not None else None


def read_chunks(asset: Asset) -> Iterator[bytes]:
    """Yield the pieces of *asset*, which this process has read, from its file: each is what it was then.

    Raise `ScoreFileError` at the first that is not: pieces that were stored before stay there, and would be
    taken for those of *asset*.
    """
    read = _FILES[asset.sha256]
    most_bytes = ASSET_MAX_BYTES if read.part is None else None
    with open_regular(read.path, most_bytes=most_bytes) as file:
        begin, end = read.part or (0, None)
        file.seek(begin)
        for number, wanted in enumerate(read.pieces, start=1):
            left = CHUNK_BYTES if end is None else end - file.tell()
            piece = file.read(min(CHUNK_BYTES, left))
            is_longer = end is None and number == len(read.pieces) and file.read(1)
            if hashlib.sha256(piece).digest() != wanted or is_longer:
                raise ScoreFileError(
                    f"{read.path} was changed while it was being pushed; push again once it is whole"
                )
            yield piece


def to_name(name: str) -> str:
    """Return *name*, of a file, without what would be no text there, or a reference."""
    return "".join(each if each.isprintable() and each != "$" else "_" for each in name)[:255]


def _refuse_large(path: Path, size_bytes: int, most_bytes: int | None = ASSET_MAX_BYTES) -> None:
    if most_bytes is not None and size_bytes > most_bytes:
        raise ScoreFileError(
            f"{path} is larger than {most_bytes // 1024**2} MiB; put it into an image, or have the "
            "device fetch it"
        )


@contextmanager
def open_regular(path: Path, *, most_bytes: int | None = ASSET_MAX_BYTES) -> Generator[BinaryIO]:
    """Open the file at *path*. `ScoreFileError` for what is none, has more than *most_bytes*, or cannot be
    read."""
    try:
        # A pipe that nobody writes to would be waited for.
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            _refuse_large(path, found.st_size, most_bytes)
        elif not stat.S_ISDIR(found.st_mode):
            raise ScoreFileError(f"{path} is no file that can be pushed; name a regular file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ScoreFileError(f"{path} cannot be read: {error.strerror}; is it there?") from error
