"""Directories that were made on the way to something: nobody's, and gone once they are empty.

Recorded as ``made-directory:PATH``, before they are made. Shared by every reconciler of what lies at a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath

from harmony_core.reconciler import Records
from harmony_core.resources import resource_id

__all__ = ["id_of_made_directory", "made_above", "note_made"]


def id_of_made_directory(path: str) -> str:
    """Return the id under which it is recorded that a directory was made on the way to something else."""
    return resource_id("made-directory", path)


def made_above(records: Records, path: str) -> list[str]:
    """Return the directories above *path* that are recorded as made on the way to something."""
    above = map(str, PurePosixPath(path).parents)
    return [each for each in above if records.get(id_of_made_directory(each)) is not None]


async def note_made(records: Records, directories: Sequence[str]) -> None:
    """Record *directories* as made on the way. Side by side, so that they share a flush to disk."""
    await asyncio.gather(*(records.put(id_of_made_directory(path), {}) for path in directories))
