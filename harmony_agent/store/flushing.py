"""What is named in a directory is durable once the directory itself was flushed."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["flush_directory"]


def flush_directory(directory: Path) -> None:
    """Return once the names in *directory* are on the disk. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
