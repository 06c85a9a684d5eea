"""What of ours stands in the way of something else of ours, as a file where a directory is to be.

Before a deed, the agent takes away what a Score holds in the place of what it wants there now. So a plan
counts that as gone, and the deed finds it gone, or refuses. A directory counts only where everything in it is
ours, too: else nothing of it is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from harmony_core.reconciler import Records
from harmony_core.resources import Directory, File, SymbolicLink, resource_id
from harmony_pi_topology.directories.made import id_of_made_directory

__all__ = ["is_all_ours", "makes_way"]


def makes_way(records: Records, resource_type: str, path: str) -> bool:
    """Return whether something that we made, of another type than *resource_type*, is at *path*, or something
    above it that is no directory. For a directory, `is_all_ours` decides."""
    above = (
        resource_id(each, str(parent))
        for parent in PurePosixPath(path).parents
        for each in (File.resource_type, SymbolicLink.resource_type)
    )
    at_it = (each for each in _ids_at(path) if each != resource_id(resource_type, path))
    return any(_is_made(records, each) for each in (*above, *at_it))


def is_all_ours(records: Records, paths: Iterable[str]) -> bool:
    """Return whether we made each of *paths*, whatever it is."""
    return all(any(_is_made(records, each) for each in _ids_at(path)) for path in paths)


def _ids_at(path: str) -> tuple[str, ...]:
    types = (File.resource_type, Directory.resource_type, SymbolicLink.resource_type)
    return (*(resource_id(each, path) for each in types), id_of_made_directory(path))


def _is_made(records: Records, rid: str) -> bool:
    record = records.get(rid)
    if record is None or "left" in record:
        return False
    return not record.get("existed") and record.get("prior") is None
