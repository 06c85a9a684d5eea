"""What is at a path of this machine, looked at before any of it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs

from .faults import Wrong, shown

__all__ = ["LocalPath", "LocalTree", "look_at"]

_FILES_MOST = 500
"""All of them stand in the manifest, each with its path."""
_NO_CONTENT = frozenset({".DS_Store", ".gitignore", ".gitkeep", ".keep"})
"""Files that are in a directory so that git or a Mac keeps it."""
_OF_KEYS = frozenset({".jks", ".kdbx", ".key", ".p12", ".pfx"})


class LocalPath(str):
    """The absolute form of a path that a compose file has as a relative one, or as one below ``~``.

    It is of the machine that reads the file. Every other path is the device's, wherever it leads here.
    """

    __slots__ = ()


@attrs.frozen
class LocalTree:
    """A file, or a directory with all that is below it. ``files`` have their permissions."""

    is_directory: bool
    files: dict[Path, int] = attrs.Factory(dict[Path, int])
    empty: list[Path] = attrs.Factory(list[Path])
    """Directories with nothing in them."""

    @property
    def has_content(self) -> bool:
        """Whether there is more than an empty directory, as git keeps it."""
        return not self.is_directory or any(each.name not in _NO_CONTENT for each in self.files)

    @property
    def private(self) -> list[Path]:
        """The files that are likely to be secrets: others may not read them, or their names suggest it."""
        return [
            file for file, mode in self.files.items() if not mode & 0o077 or file.suffix in _OF_KEYS
        ]


def look_at(path: Path, most_bytes: int) -> LocalTree | None:
    """Return what is at *path*; None where nothing is. Raise `Wrong`, with the reason, where it cannot be
    pushed.

    A path that cannot be read is never treated as missing. Open no file, and look no further than
    *most_bytes*.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if not nearest.exists():
            raise Wrong(
                f"{shown(nearest)} is a link that leads nowhere; correct it, or remove it"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISDIR(found.st_mode):
        tree, left = LocalTree(is_directory=False), most_bytes
        _add_file(tree, path, left, path, most_bytes)
        return tree
    return _look_into(path, most_bytes)


def _look_into(directory: Path, most_bytes: int) -> LocalTree:
    tree, left = LocalTree(is_directory=True), most_bytes

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename or directory), error)

    for parent, directories, names in os.walk(directory, onerror=refuse):
        directories.sort()
        for name in directories:
            inside = Path(parent, name)
            if inside.is_symlink():
                raise Wrong(
                    f"{shown(inside)} is a link to a directory, and is not followed; have the directory "
                    "itself there, or take the link away"
                )
        if not directories and not names and Path(parent) != directory:
            tree.empty.append(Path(parent))
        for name in sorted(names):
            left = _add_file(tree, Path(parent, name), left, directory, most_bytes)
    return tree


def _add_file(tree: LocalTree, file: Path, left: int, top: Path, most_bytes: int) -> int:
    """Add *file* to *tree*. Return how many of the bytes *left* remain after it."""
    try:
        found = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise Wrong(f"{shown(file)} is no file that can be pushed; take it out of there")
    left -= found.st_size
    if left < 0 or len(tree.files) >= _FILES_MOST:
        raise Wrong(
            f"{shown(top)} is more than {most_bytes // 1024**2} MiB, or {_FILES_MOST} files, which is what "
            "is pushed along; put it on the device (rsync, scp), and write its path there"
        )
    tree.files[file] = stat.S_IMODE(found.st_mode)
    return left


def _unreadable(path: Path, error: OSError | ValueError) -> Wrong:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Wrong(
        f"{shown(path)} cannot be read: {why}; have it readable, or write a path of the device in its "
        "place, as in /srv/data"
    )
