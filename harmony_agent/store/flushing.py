"""Files that are whole and durable. Their names are so once the directory itself was flushed; its own name is
in the one above it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["flush_directory", "make_directory", "replace_file"]


def make_directory(directory: Path, *, mode: int = 0o700) -> None:
    """Make *directory* and those above it that are missing, durably. Idempotent. Raises `OSError`."""
    if directory.is_dir():
        return
    if not directory.parent.exists():
        make_directory(directory.parent, mode=0o755)
    directory.mkdir(mode=mode, exist_ok=True)
    flush_directory(directory.parent)


def flush_directory(directory: Path) -> None:
    """Return once the names in *directory* are on the disk. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, fresh: Path, content: bytes) -> None:
    """Put *content* into *path*, for its owner alone: whole, and on the disk when this returns.

    Raises `OSError`. It is written as *fresh*, beside it, over what a write that was cut short has left.
    """
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    flush_directory(path.parent)
