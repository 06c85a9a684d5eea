"""The files that a container uses, by whose content it is known. Reading blocks: for a worker's thread."""

from __future__ import annotations

import stat
from pathlib import Path

from harmony_core.errors import ContainerFailed, InvalidResource, UnsafePath, WriteFailed
from harmony_core.resources import Container
from harmony_pi_topology.posix.hashing import HASHED_MAX_BYTES
from harmony_pi_topology.posix.root import Root

from .paths import list_prefixes, place_in
from .spec import ABSENT

__all__ = ["hash_used_files"]


def hash_used_files(container: Container, root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that *container* uses."""
    return {path: _content_hash(root, path, container.id) for path in container.uses}


def _content_hash(root: Path, path: str, resource: str) -> str:
    """Return the hash of the content of *path*, without following a link: a link could otherwise reveal the
    hash of a file that nobody may read."""
    try:
        with Root(str(root)) as here:
            return here.sha256(path)
    except FileNotFoundError:
        return ABSENT
    except UnsafePath as error:
        for prefix in list_prefixes(path):
            kind = _kind(place_in(root, prefix))
            if kind == stat.S_IFLNK:
                raise UnsafePath(
                    f"uses: {path} crosses the symbolic link {prefix}; name the place that it leads to",
                    resource=resource,
                ) from error
            if prefix != path and kind not in {stat.S_IFDIR, None}:
                return ABSENT
        raise InvalidResource(
            f"uses: {path} is not a file of at most {HASHED_MAX_BYTES // 1024**2} MiB; mount its "
            "directory instead",
            resource=resource,
        ) from error
    except WriteFailed as error:
        raise ContainerFailed(
            f"{path}, which it uses, cannot be read: {error.message}", resource=resource
        ) from error


def _kind(path: Path) -> int | None:
    """Return the file type of *path* itself, as `stat.S_IFMT` gives it; None where nothing is there."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
