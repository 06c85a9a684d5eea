"""A directory with mode and owner. What is in it is nobody's concern here."""

from __future__ import annotations

from typing import Annotated, ClassVar

import attrs
from pydantic import AfterValidator, Field

from ._at_path import ResourceAtPath
from ._base import State
from .file import UserName

__all__ = ["Directory", "DirectoryAt", "DirectoryMode", "DirectoryState", "NotADirectory"]

_SET_USER_ID = 0o4000


def _no_set_user_id(mode: int) -> int:
    if mode & _SET_USER_ID:
        raise ValueError(
            f"{mode:04o} has the set-user-id bit, which means nothing for a directory; write "
            f"{mode & ~_SET_USER_ID:04o}"
        )
    return mode


DirectoryMode = Annotated[int, Field(ge=0, le=0o7777), AfterValidator(_no_set_user_id)]
"""Permission bits, with set-group-id (what is made in it belongs to its group, as in 2775) and sticky (only
owners delete what is theirs, as in 1777). Set-user-id is refused."""


class Directory(ResourceAtPath):
    """There is a directory at *path* with this mode, owner and group.

    One that is there already is taken over; in the end it gets back the mode and owner that it had. One that
    we made goes when it is empty, and only then: what others have put into it is theirs. A file or a link at
    *path* is refused and left.
    """

    resource_type: ClassVar[str] = "directory"

    mode: DirectoryMode = 0o755
    """Its permission bits, with set-group-id (2775) and sticky (1777)."""
    owner: UserName = "root"
    """The user it belongs to, by name or number."""
    group: UserName = "root"
    """The group it belongs to, by name or number."""
    in_home_of: UserName | None = None
    """The user in whose home it is to be, as the device knows that: refused elsewhere, and where others than
    that user may change the home."""


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
