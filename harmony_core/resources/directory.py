"""A directory with mode and owner. What is in it is nobody's concern here."""

from __future__ import annotations

from typing import ClassVar

import attrs

from harmony_core.paths import AbsolutePath, is_on_disk
from harmony_core.run_by_root import place_run_by_root

from ._base import Privilege, Resource, State
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
    """Where it is."""
    mode: FileMode = 0o755
    """Its permission bits."""
    owner: UserName = "root"
    """The user it belongs to, by name or number."""
    group: UserName = "root"
    """The group it belongs to, by name or number."""

    @property
    def key(self) -> str:
        return self.path

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (key,)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - it has none
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset({"run-as-root"} if place_run_by_root(self.path) else ())

    @classmethod
    def survives_reboot(cls, key: str) -> bool:
        return is_on_disk(key)


@attrs.frozen(kw_only=True)
class DirectoryAt(State):
    """A directory is there. ``mode`` is octal text ("0755")."""

    mode: str
    owner: str
    group: str

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class NotADirectory(State):
    """Something else is there: a file, a symbolic link, a device."""

    kind: str


DirectoryState = DirectoryAt | NotADirectory
