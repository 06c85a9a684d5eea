"""Whether something is installed or in use here, asked of the file system, by whoever asks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_there"]


def is_there(path: Path) -> bool:
    """Return whether it exists, or may not be looked at: the next question will say more."""
    try:
        return path.exists() or path.is_symlink()
    except PermissionError:
        return True
