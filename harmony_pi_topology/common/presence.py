"""Whether something is installed or in use here, asked of the file system, by whoever asks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_there"]


def is_there(path: Path) -> bool:
    """Return whether it exists, or lies where nobody here may look: what is asked next says more."""
    try:
        return path.exists() or path.is_symlink()
    except PermissionError:
        return True
