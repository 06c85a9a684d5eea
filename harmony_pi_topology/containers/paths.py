"""Paths of the device that a container mounts or uses, and where they are seen."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["list_prefixes", "place_in"]


def list_prefixes(path: str) -> list[str]:
    """Return every path on the way to *path*, and *path* itself last: ``/a``, ``/a/b``, ``/a/b/c``."""
    whole = PurePosixPath(path)
    return [*(str(parent) for parent in reversed(whole.parents[:-1])), str(whole)]


def place_in(root: Path, path: str) -> Path:
    """Return where the device's absolute *path* lies beneath *root*."""
    return root / path.lstrip("/")
