"""A directory with mode and owner. What is in it is nobody's concern here."""

from __future__ import annotations

from typing import ClassVar

import attrs

from harmony_core.paths import AbsolutePath

from ._base import Resource, State
from .file import FileMode, UserName

__all__ = ["Directory", "DirectoryAt", "DirectoryState", "NotADirectory"]


class Directory(Resource):
    """There is a directory at *path* with this mode, owner and group.

    One that is there already is taken over; in the end it gets back the mode and owner that it had. One that
    we made goes when it is empty, and only then: what others have put into it is theirs. A file or a link at
    *path* is refused and left.
    """

    resource_type: ClassVar[str] = "directory"

    path: AbsolutePath
    mode: FileMode = 0o755
    owner: UserName = "root"
    group: UserName = "root"

    @property
    def key(self) -> str:
        return self.path


@attrs.frozen(kw_only=True)
class DirectoryAt(State):
    """A directory is there. ``mode`` is octal text ("0755")."""

    mode: str
    owner: str
    group: str


@attrs.frozen(kw_only=True)
class NotADirectory(State):
    """Something else is there: a file, a symbolic link, a device."""

    kind: str


DirectoryState = DirectoryAt | NotADirectory
